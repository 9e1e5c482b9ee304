//! Network interfaces and their settings.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{Message, attribute, ip, text, u32_at};
use super::{Family, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address works at once.
const IFA_F_NODAD: u8 = 0x02;
const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    flags: u32,
    ipv4: Vec<u32>,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Number of the interface that has it.
    pub device: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix of its network.
    pub prefix: u8,
}

impl Address {
    /// `struct ifaddrmsg` and the attributes. On a point-to-point link the local end is not the plain address.
    fn parse(body: &[u8]) -> Option<Self> {
        let (attrs, fixed) = (body.get(8..)?, body.get(..8)?);
        let ip = attribute(attrs, IFA_LOCAL).or_else(|| attribute(attrs, IFA_ADDRESS)).and_then(ip)?;
        Some(Self { device: u32_at(fixed, 4)?, ip, prefix: fixed[1] })
    }

    /// True if `other` is in the network of this address.
    #[must_use]
    pub fn reaches(&self, other: IpAddr) -> bool {
        ipnet::IpNet::new(self.ip, self.prefix).is_ok_and(|net| net.contains(&other))
    }
}

/// An IPv4 setting of one interface (`net.ipv4.conf.DEV.*`), reachable by netlink and so also where `/proc/sys` is
/// read-only. The numbers are the kernel's `IPV4_DEVCONF_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Setting {
    /// `forwarding`: packets that arrive here may be forwarded.
    Forwarding = 1,
    /// `rp_filter`.
    RpFilter = 8,
    /// `accept_local`.
    AcceptLocal = 23,
    /// `src_valid_mark`: the way back of a marked packet is looked up with its mark.
    SrcValidMark = 24,
    /// `route_localnet`: 127.0.0.0/8 is not martian here.
    RouteLocalnet = 26,
}

impl Ipv4Setting {
    /// Its name below `net/ipv4/conf/DEV/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::RpFilter => "rp_filter",
            Self::AcceptLocal => "accept_local",
            Self::SrcValidMark => "src_valid_mark",
            Self::RouteLocalnet => "route_localnet",
        }
    }
}

impl Link {
    #[cfg(test)]
    pub(in crate::setup) fn for_test(index: u32, name: &str, flags: u32) -> Self {
        Self { index, name: name.to_owned(), mtu: 1500, flags, ipv4: Vec::new() }
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let attrs = body.get(16..)?;
        let ipv4 = attribute(attrs, IFLA_AF_SPEC)
            .and_then(|families| attribute(families, AF_INET))
            .and_then(|inet| attribute(inet, IFLA_INET_CONF))
            .map(|values| values.chunks_exact(4).filter_map(|v| u32_at(v, 0)).collect());
        Some(Self {
            index: u32_at(body, 4)?,
            flags: u32_at(body, 8)?,
            name: text(attribute(attrs, IFLA_IFNAME)?),
            mtu: attribute(attrs, IFLA_MTU).and_then(|v| u32_at(v, 0)).unwrap_or_default(),
            ipv4: ipv4.unwrap_or_default(),
        })
    }

    /// True if it is set up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// True for `lo`.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }

    /// The value of a setting when this list was taken.
    #[must_use]
    pub fn ipv4(&self, setting: Ipv4Setting) -> u32 {
        self.ipv4.get(setting as usize - 1).copied().unwrap_or_default()
    }
}

/// `struct ifinfomsg`: family, pad, type, index, flags, change mask.
fn ifinfo(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&mask.to_ne_bytes());
    fixed
}

impl Netlink {
    /// All interfaces.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.list(
            |flags| Message::new(RTM_GETLINK, flags, &ifinfo(0, 0, 0)),
            |body| links.extend(Link::parse(body)),
        )?;
        Ok(links)
    }

    /// The interface of this name.
    pub fn link(&mut self, name: &str) -> io::Result<Link> {
        let found = self.links()?.into_iter().find(|l| l.name == name);
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Sets an interface up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let bit = libc::IFF_UP as u32;
        self.set_link(index, if up { bit } else { 0 }, bit, |m| m)
    }

    /// `NOARP`: unicast packets carry the interface's own Ethernet address as destination.
    pub fn set_no_arp(&mut self, index: u32) -> io::Result<()> {
        let bit = libc::IFF_NOARP as u32;
        self.set_link(index, bit, bit, |m| m)
    }

    /// Sets the MTU in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.set_link(index, 0, 0, |m| m.with_u32(IFLA_MTU, mtu))
    }

    /// Sets how many packets the interface queues.
    pub fn set_queue_len(&mut self, index: u32, packets: u32) -> io::Result<()> {
        self.set_link(index, 0, 0, |m| m.with_u32(IFLA_TXQLEN, packets))
    }

    /// No IPv6 link-local address of its own, hence no router solicitations.
    pub fn set_no_link_local(&mut self, index: u32) -> io::Result<()> {
        self.set_link(index, 0, 0, |m| {
            m.nest(IFLA_AF_SPEC, |m| {
                m.nest(AF_INET6, |m| m.with(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]))
            })
        })
    }

    /// Sets an IPv4 setting of one interface.
    pub fn set_ipv4(&mut self, index: u32, setting: Ipv4Setting, value: u32) -> io::Result<()> {
        self.set_link(index, 0, 0, |m| {
            m.nest(IFLA_AF_SPEC, |m| {
                m.nest(AF_INET, |m| m.nest(IFLA_INET_CONF, |m| m.with_u32(setting as u16, value)))
            })
        })
    }

    /// Creates a veth pair; `peer_ns` is where the second end is born.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_ns: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let build = |flags| {
            Message::new(RTM_NEWLINK, flags, &ifinfo(0, 0, 0)).with_text(IFLA_IFNAME, name).nest(
                IFLA_LINKINFO,
                |m| {
                    m.with(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |m| {
                        m.nest(VETH_INFO_PEER, |m| {
                            let m = m.with_raw(&ifinfo(0, 0, 0)).with_text(IFLA_IFNAME, peer);
                            match peer_ns {
                                Some(fd) => m.with_u32(IFLA_NET_NS_FD, fd.as_raw_fd() as u32),
                                None => m,
                            }
                        })
                    })
                },
            )
        };
        self.change(NLM_F_CREATE | NLM_F_EXCL, build)
    }

    /// Gives an interface an address; IPv6 without waiting for duplicate address detection.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let (family, flags) = match address {
            IpAddr::V4(_) => (AF_INET, 0),
            IpAddr::V6(_) => (AF_INET6, IFA_F_NODAD),
        };
        let mut fixed = [family as u8, prefix, flags, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        self.change(NLM_F_CREATE | NLM_F_REPLACE, |flags| {
            Message::new(RTM_NEWADDR, flags, &fixed).with_ip(IFA_LOCAL, address).with_ip(IFA_ADDRESS, address)
        })
    }

    /// All addresses of a family, in the order in which each interface prefers them.
    pub fn addresses(&mut self, family: Family) -> io::Result<Vec<Address>> {
        let mut addresses = Vec::new();
        let fixed = [family.number(), 0, 0, 0, 0, 0, 0, 0];
        self.list(
            |flags| Message::new(RTM_GETADDR, flags, &fixed),
            |body| addresses.extend(Address::parse(body)),
        )?;
        Ok(addresses)
    }

    fn set_link(
        &mut self,
        index: u32,
        flags: u32,
        mask: u32,
        fill: impl FnOnce(Message) -> Message,
    ) -> io::Result<()> {
        self.change(0, |f| fill(Message::new(RTM_SETLINK, f, &ifinfo(index, flags, mask))))
    }
}
