//! Which TCP ports listen on the loopback addresses of this network namespace, from `/proc/net/tcp` and `tcp6`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// `TCP_LISTEN` of include/net/tcp_states.h, as procfs prints it.
const LISTEN: &str = "0A";

/// TCP ports of the loopback addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoopbackPorts {
    /// Those of `127.0.0.1`, in ascending order.
    pub v4: Vec<RangeInclusive<u16>>,
    /// Those of `::1`, in ascending order.
    pub v6: Vec<RangeInclusive<u16>>,
}

impl LoopbackPorts {
    /// The ports on which a connection would be taken. A kernel without IPv6 has no `tcp6`.
    pub fn listening() -> io::Result<Self> {
        let mut text = fs::read_to_string("/proc/self/net/tcp")?;
        text += &fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default();
        Ok(Self::parse(&text))
    }

    /// The same ports of both.
    #[must_use]
    pub fn both(ports: &[RangeInclusive<u16>]) -> Self {
        Self { v4: ports.to_vec(), v6: ports.to_vec() }
    }

    fn parse(text: &str) -> Self {
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for (ip, port) in text.lines().filter_map(listener) {
            let (takes_v4, takes_v6) = match ip {
                IpAddr::V4(ip) => (ip.is_loopback() || ip.is_unspecified(), false),
                // An IPv6 wildcard takes IPv4 as well unless it is IPV6_V6ONLY, which procfs does not tell; then the
                // connection is refused outside instead of inside.
                IpAddr::V6(ip) if ip.is_unspecified() => (true, true),
                IpAddr::V6(ip) => (ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()), ip.is_loopback()),
            };
            for (takes, ports) in [(takes_v4, &mut v4), (takes_v6, &mut v6)] {
                if takes {
                    ports.insert(port);
                }
            }
        }
        Self { v4: ranges(&v4), v6: ranges(&v6) }
    }
}

/// Joins neighbouring ports, because one routing rule can name a range.
fn ranges(ports: &BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
            _ => ranges.push(port..=port),
        }
    }
    ranges
}

/// The address and port of one line, if it is a listener; not so the line with the names of the columns.
fn listener(line: &str) -> Option<(IpAddr, u16)> {
    let mut words = line.split_ascii_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = parse_address(address)?;
    (state == LISTEN).then_some((address, port))
}

/// procfs prints addresses as 32-bit words in the byte order of the machine.
pub(super) fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(address: &str) -> String {
        let bytes = match address.parse().expect("an address") {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = bytes.chunks(4).map(|w| u32::from_ne_bytes(w.try_into().expect("four bytes")));
        words.map(|w| format!("{w:08X}")).collect()
    }

    #[test]
    fn a_listener_counts_where_loopback_reaches_it() {
        let table = [
            ("127.0.0.1", "0A", true, false),
            ("127.8.8.8", "0A", true, false),
            ("0.0.0.0", "0A", true, false),
            ("::", "0A", true, true),
            ("::1", "0A", false, true),
            ("::ffff:127.0.0.1", "0A", true, false),
            ("127.0.0.1", "01", false, false), // a connection, not a listener
            ("::1", "01", false, false),
            ("192.0.2.1", "0A", false, false),
            ("::ffff:192.0.2.1", "0A", false, false),
        ];
        for (address, state, v4, v6) in table {
            let line = format!("   0: {}:1F90 00000000:0000 {state} 00000000:00000000", hex(address));
            let ports = |counts: bool| if counts { vec![8080..=8080] } else { Vec::new() };
            let expected = LoopbackPorts { v4: ports(v4), v6: ports(v6) };
            assert_eq!(LoopbackPorts::parse(&line), expected, "{address} {state}");
        }
    }

    #[test]
    fn text_that_is_no_table_has_no_listeners() {
        for text in
            ["", "head", "head\n", "head\n 0: xyz 0A", "head\n 0: 0100007F:XX 0 0A", "head\n 0: 01:1F90 0 0A"]
        {
            assert_eq!(LoopbackPorts::parse(text), LoopbackPorts::default(), "{text:?}");
        }
    }

    #[test]
    fn neighbours_become_one_range() {
        let ports = BTreeSet::from([0, 1, 5, 80, 81, 82, 65_535]);
        assert_eq!(ranges(&ports), [0..=1, 5..=5, 80..=82, 65_535..=65_535]);
    }
}
