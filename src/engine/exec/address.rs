//! Addresses inside the namespace of an `exec` command, and what they stand for in the caller's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

/// The command's address.
pub const INSIDE_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// The command's IPv6 address.
pub const INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x100);
/// The gateway: the caller's `127.0.0.1`.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The gateway's IPv6 address: the caller's `::1`.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2);
/// The caller's first name server; the others follow it.
pub const FIRST_NAMESERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The port of DNS.
const DNS: u16 = 53;

/// Which ports of the caller's loopback the command may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostLoopback {
    /// All: every port at the gateway's addresses, and those that listen when the command starts at `127.0.0.1` and `::1`
    /// too.
    #[default]
    On,
    /// None.
    Off,
    /// These, at both addresses.
    Ports(Vec<RangeInclusive<u16>>),
}

impl HostLoopback {
    /// True if `port` may be reached.
    #[must_use]
    pub fn allows(&self, port: u16) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ports(ranges) => ranges.iter().any(|range| range.contains(&port)),
        }
    }
}

/// Translates what the command dials.
#[derive(Clone, Debug, Default)]
pub struct AddressMap {
    /// Which ports of the caller's loopback are there.
    pub host_loopback: HostLoopback,
    /// The caller's name servers.
    pub nameservers: Vec<SocketAddr>,
}

impl AddressMap {
    /// The address to dial in the caller's network; `None` for one where nobody can be.
    #[must_use]
    pub fn outside(&self, inside: SocketAddr) -> Option<SocketAddr> {
        let port = inside.port();
        let loopback = |ip: IpAddr| self.host_loopback.allows(port).then(|| SocketAddr::new(ip, port));
        match inside.ip() {
            IpAddr::V4(GATEWAY_V4) => loopback(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(GATEWAY_V6) => loopback(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(ip) if ip.is_loopback() => loopback(ip.into()),
            IpAddr::V6(ip) if ip.is_loopback() => loopback(ip.into()),
            IpAddr::V4(ip) => match ip.to_bits().checked_sub(FIRST_NAMESERVER.to_bits()) {
                Some(nth) if (nth as usize) < self.nameservers.len() => {
                    (port == DNS).then(|| self.nameservers[nth as usize])
                }
                _ => Some(inside),
            },
            IpAddr::V6(_) => Some(inside),
        }
    }
}

/// The command's address of a family.
#[must_use]
pub fn inside(ipv6: bool) -> IpAddr {
    if ipv6 { INSIDE_V6.into() } else { INSIDE_V4.into() }
}

/// The address of a client outside as the command sees it: its own, but for one that the namespace has itself.
#[must_use]
pub fn seen_inside(client: SocketAddr) -> SocketAddr {
    let ip = match client.ip().to_canonical() {
        ip if !ip.is_loopback() && ip != inside(ip.is_ipv6()) => ip,
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    };
    SocketAddr::new(ip, client.port())
}

/// True for the addresses that answer to echo requests. Answers for any other would be a lie about its host.
#[must_use]
pub fn is_gateway(ip: IpAddr) -> bool {
    ip == GATEWAY_V4 || ip == GATEWAY_V6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_inside_stands_for_one_outside() {
        let map = AddressMap {
            host_loopback: HostLoopback::Ports(vec![8000..=8099]),
            nameservers: vec!["127.0.0.53:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()],
        };
        let table = [
            ("192.0.2.1:443", Some("192.0.2.1:443")),
            ("[2001:db8::1]:443", Some("[2001:db8::1]:443")),
            ("10.0.2.2:8000", Some("127.0.0.1:8000")),
            ("[fd00:2::2]:8099", Some("[::1]:8099")),
            ("10.0.2.2:8100", None),
            ("127.0.0.1:8001", Some("127.0.0.1:8001")),
            ("127.0.0.1:22", None),
            ("[::1]:8000", Some("[::1]:8000")),
            ("[::1]:22", None),
            ("10.0.2.3:53", Some("127.0.0.53:53")),
            ("10.0.2.4:53", Some("[fd00::1]:53")),
            ("10.0.2.5:53", Some("10.0.2.5:53")),
            ("10.0.2.3:80", None),
        ];
        for (inside, outside) in table {
            let outside = outside.map(|a| a.parse().unwrap());
            assert_eq!(map.outside(inside.parse().unwrap()), outside, "{inside}");
        }
    }

    #[test]
    fn a_client_is_seen_by_its_address_unless_that_is_of_the_namespace() {
        for (client, seen) in [
            ("192.0.2.1:5000", "192.0.2.1:5000"),
            ("127.0.0.1:5000", "10.0.2.2:5000"),
            ("10.0.2.100:5000", "10.0.2.2:5000"),
            ("[2001:db8::1]:5000", "[2001:db8::1]:5000"),
            ("[::1]:5000", "[fd00:2::2]:5000"),
            ("[::ffff:127.0.0.1]:5000", "10.0.2.2:5000"),
        ] {
            assert_eq!(seen_inside(client.parse().unwrap()), seen.parse().unwrap(), "{client}");
        }
    }

    #[test]
    fn off_hides_the_callers_loopback_but_not_its_name_server() {
        let nameservers = vec!["127.0.0.53:53".parse().unwrap()];
        let map = AddressMap { host_loopback: HostLoopback::Off, nameservers };
        assert_eq!(map.outside("10.0.2.2:80".parse().unwrap()), None);
        assert_eq!(map.outside("127.0.0.1:80".parse().unwrap()), None);
        assert_eq!(map.outside("10.0.2.3:53".parse().unwrap()), Some("127.0.0.53:53".parse().unwrap()));
    }
}
