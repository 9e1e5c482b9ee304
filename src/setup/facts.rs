//! What of the network namespace of a service matters for a plan: a sidecar's, and that of one that listens.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::connections::{Connection, connections};
use super::netlink::{Address, Family, Ipv4Setting, Link, LocalRule, Netlink, Route, nft};
use super::{Error, ErrorKind, sysctl};

/// What of this network namespace matters for the plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    /// The main table.
    pub(super) routes: Vec<Route>,
    pub(super) local_rules: Vec<LocalRule>,
    pub(super) ipv6: Ipv6,
    /// Reverse path filtering is on for all interfaces, and so for ours too.
    pub(super) rp_filter: bool,
    /// The way back of a marked packet is looked up with its mark, on all interfaces.
    pub(super) marks_lead_back: bool,
    /// The kernel has nftables, which can tell ICMPv6 errors from neighbour discovery.
    pub(super) nftables: bool,
    /// Where the ports are that the kernel gives to connections.
    pub(super) port_range: Option<RangeInclusive<u16>>,
    /// These ports, without those that are reserved.
    pub(super) given_out: Vec<RangeInclusive<u16>>,
    pub(super) connections: Vec<Connection>,
    /// The kernel finds the socket of an arriving packet before its route (`tcp_early_demux`), and then forwards it nowhere.
    pub(super) early_demux: bool,
}

/// Whether IPv6 connections can take the way through our device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Ipv6 {
    /// Nobody has an IPv6 address that leads anywhere.
    #[default]
    Off,
    /// They can.
    Ready,
    /// They pass by, until these settings are made from outside.
    PassesBy(Vec<&'static str>),
}

/// `src_valid_mark` of all interfaces.
pub(super) const MARKS_LEAD_BACK: &str = "net/ipv4/conf/all/src_valid_mark";

/// Refuses interfaces where Linux looks up the way back of a marked packet with its mark (`wg-quick` has it so): with ours
/// that is this host itself, and Linux drops what seems to come from there, whatever `rp_filter` is. What comes by `lo` has
/// its route already.
pub(super) fn check_marks<'a>(
    all: bool,
    mut interfaces: impl Iterator<Item = &'a Link>,
) -> Result<(), Error> {
    let one =
        || interfaces.find(|link| link.ipv4(Ipv4Setting::SrcValidMark) != 0).map(|link| link.name.as_str());
    let Some(name) = all.then_some("all").or_else(one) else { return Ok(()) };
    let what = format!(
        "net.ipv4.conf.{name}.src_valid_mark is on: the kernel would drop what is marked for our sockets"
    );
    Err(Error::new(ErrorKind::Unavailable, what).hint(format!(
        "`sysctl -w net.ipv4.conf.{name}.src_valid_mark=0`, in a container by `sysctls:` in the compose file; or use \
         --engine tun"
    )))
}

impl Facts {
    pub(super) fn gather(netlink: &mut Netlink) -> Result<Self, Error> {
        let listed = |e| Error::from_io("cannot list interfaces, addresses and routes", &e);
        let links = netlink.links().map_err(listed)?;
        let (mut addresses, mut routes, mut local_rules) = (Vec::new(), Vec::new(), Vec::new());
        for family in Family::ALL {
            addresses.extend(netlink.addresses(family).map_err(listed)?);
            routes.extend(netlink.main_routes(family).map_err(listed)?);
            local_rules.extend(netlink.local_rules(family).map_err(listed)?);
        }
        let ipv6 = if has_ipv6(&addresses) { ipv6(&links)? } else { Ipv6::Off };
        let rp_filter = is("net/ipv4/conf/all/rp_filter", "0")? == Some(false);
        let marks_lead_back = is(MARKS_LEAD_BACK, "0")? == Some(false);
        let connections = connections().map_err(cannot_list)?;
        let off = |key| Ok::<_, Error>(is(key, "0")? == Some(true));
        let early_demux = !off("net/ipv4/ip_early_demux")? && !off("net/ipv4/tcp_early_demux")?;
        let port_range = port_range()?;
        let reserved = read("net/ipv4/ip_local_reserved_ports")?.unwrap_or_default();
        let given_out = port_range.clone().map_or_else(Vec::new, |range| without_reserved(range, &reserved));
        Ok(Self {
            links,
            addresses,
            routes,
            local_rules,
            ipv6,
            rp_filter,
            marks_lead_back,
            nftables: nft::is_there(),
            port_range,
            given_out,
            connections,
            early_demux,
        })
    }

    /// The interfaces to the world, without `device`, which is ours.
    pub(super) fn outside<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Link> {
        self.links.iter().filter(move |l| !l.is_loopback() && l.is_up() && l.name != device)
    }

    /// The families whose connections can be taken.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|f| *f == Family::V4 || self.ipv6 == Ipv6::Ready)
    }

    /// The address that a connection by this route of the main table comes from.
    pub(super) fn source(&self, route: &Route) -> Option<IpAddr> {
        let next = route.via.or_else(|| route.to.map(|(to, _)| to));
        let mut of_device = self
            .addresses
            .iter()
            .filter(|a| Some(a.device) == route.device && is_global(a.ip) && family_of(a.ip) == route.family);
        let near = of_device.clone().find(|a| next.is_some_and(|next| a.reaches(next)));
        route.source.or_else(|| near.or_else(|| of_device.next()).map(|a| a.ip))
    }

    /// The MSS that a connection by this route offers: our own device has the largest MTU there is.
    pub(super) fn mss(&self, route: &Route) -> Option<u32> {
        let headers = if route.family == Family::V4 { 40 } else { 60 };
        let link = self.links.iter().find(|l| Some(l.index) == route.device)?;
        Some(route.mss.unwrap_or_else(|| link.mtu.saturating_sub(headers).min(u32::from(u16::MAX) - headers)))
    }
}

pub(super) fn cannot_list(e: io::Error) -> Error {
    Error::from_io("cannot list the connections of this network namespace", &e)
}

/// True if one of these IPv6 addresses leads to other hosts.
pub(super) fn has_ipv6(addresses: &[Address]) -> bool {
    addresses.iter().any(|a| is_global(a.ip) && a.ip.is_ipv6())
}

fn read(key: &str) -> Result<Option<String>, Error> {
    sysctl::read(key).map_err(|e| Error::from_io(format_args!("cannot read {key}"), &e))
}

/// Whether a setting has this value; `None`: there is no such setting.
fn is(key: &str, value: &str) -> Result<Option<bool>, Error> {
    Ok(read(key)?.map(|found| found == value))
}

/// What IPv6 needs that only a setting below `/proc/sys` gives.
fn ipv6(links: &[Link]) -> Result<Ipv6, Error> {
    let mut missing = Vec::new();
    // Docker switches IPv6 on for the interfaces that it makes, and for no others.
    if is("net/ipv6/conf/default/disable_ipv6", "1")? == Some(true) {
        missing.push("net.ipv6.conf.all.disable_ipv6: 0");
    }
    // Since Linux 6.17 each interface may forward by itself, which a new one learns from the default.
    let mut each = is("net/ipv6/conf/default/force_forwarding", "1")? == Some(true);
    for link in links.iter().filter(|l| !l.is_loopback() && l.is_up()) {
        each &= is(&format!("net/ipv6/conf/{}/force_forwarding", link.name), "1")? == Some(true);
    }
    if !each && is("net/ipv6/conf/all/forwarding", "0")? != Some(false) {
        missing.push("net.ipv6.conf.all.forwarding: 1");
    }
    Ok(if missing.is_empty() { Ipv6::Ready } else { Ipv6::PassesBy(missing) })
}

/// Where the ports are that the kernel gives to connections.
fn port_range() -> Result<Option<RangeInclusive<u16>>, Error> {
    let range = read("net/ipv4/ip_local_port_range")?.unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|word| word.parse().ok());
    Ok(ends.next().zip(ends.next()).map(|(first, last)| first..=last))
}

/// True if two ranges have a port in common.
pub(super) fn meet(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

/// What `ip_local_reserved_ports`, a list of ports and ranges, leaves of a range.
fn without_reserved(range: RangeInclusive<u16>, reserved: &str) -> Vec<RangeInclusive<u16>> {
    let mut left = vec![range];
    for range in reserved.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u16>(), to.trim().parse::<u16>()) else { continue };
        let cut = |range: RangeInclusive<u16>| {
            let below = *range.start()..=(*range.end()).min(from.saturating_sub(1));
            let above = (*range.start()).max(to.saturating_add(1))..=*range.end();
            // A reserved port 0 or 65535 has no ports below or above it.
            [(below, from > 0), (above, to < u16::MAX)]
                .into_iter()
                .filter(|(_, any)| *any)
                .map(|(range, _)| range)
        };
        left = left.into_iter().flat_map(cut).filter(|range| !range.is_empty()).collect();
    }
    left
}

/// True for an address that is not of this host or this link alone.
pub(super) const fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => {
            !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local() && !ip.is_multicast()
        }
    }
}

pub(super) const fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

#[cfg(test)]
pub(super) mod tests;
