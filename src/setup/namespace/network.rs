//! The inside of the namespace: its device, addresses and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::engine::exec::address::{INSIDE_V4, INSIDE_V6};
use crate::engine::tun::{Device, MAX_PACKET, QUEUE_PACKETS};
use crate::setup::listeners::LoopbackPorts;
use crate::setup::netlink::{Family, Ipv4Setting, Netlink, Port, Route, RouteKind, Rule, RuleAction};

use super::{Error, Inside, users};

/// The device that the command sees.
pub(super) const DEVICE: &str = "halfopen0";
/// The other end of the veth pair, where there is no TUN.
const OUTER: &str = "halfopen1";
/// The routing table of the caller's loopback ports.
const TABLE: u32 = 100;
/// Places of the rules, in the order in which they are asked.
const PORTS_AT: u32 = 10;
const DISSECT_AT: u32 = 20;
const LOCAL_AT: u32 = 100;
/// Ports that a rule can name.
const RULE_PORTS: RangeInclusive<u16> = 1..=65_534;
const LOOPBACK_V4: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
const LOOPBACK_V6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
/// What TCP offers on an Ethernet: the interface's own MTU is the largest there is, so that datagrams of any size pass
/// whole, but connections look as they do outside.
const MSS_V4: u32 = 1460;
const MSS_V6: u32 = 1440;

/// Sets everything up and returns the device.
pub(super) fn set_up(inside: &Inside) -> Result<Device, Error> {
    let mut netlink =
        Netlink::open().map_err(|e| users::refused("configure the network", io::Error::other(e.what)))?;
    let mut device = open_device(&mut netlink)?;
    configure(&mut netlink, inside).map_err(|e| users::refused("configure the network", e))?;
    if has_ipv6() && !inside.loopback_ports.v6.is_empty() {
        device.attach_loopback().map_err(|e| users::refused("answer from ::1", e.cause))?;
    }
    Ok(device)
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// A TUN device, or a veth pair where `/dev/net/tun` is not for everyone.
pub(super) fn open_device(netlink: &mut Netlink) -> Result<Device, Error> {
    let tun = match Device::open_tun(DEVICE, 1) {
        Ok((mut devices, _)) => return Ok(devices.remove(0)),
        Err(e) => e,
    };
    open_veth(netlink).map_err(|veth| Error {
        code: 125,
        what: format!("no packet device: {tun}; and {veth}"),
        hint:
            "make /dev/net/tun readable and writable for this user, or load the veth driver: `modprobe veth`"
                .into(),
    })
}

fn open_veth(netlink: &mut Netlink) -> Result<Device, String> {
    let pair = |netlink: &mut Netlink| {
        netlink.add_veth(DEVICE, OUTER, None)?;
        let (inner, outer) = (netlink.link(DEVICE)?.index, netlink.link(OUTER)?.index);
        netlink.set_no_arp(inner)?;
        netlink.set_no_link_local(outer)?;
        netlink.set_mtu(outer, MAX_PACKET as u32)?;
        netlink.set_up(outer, true)
    };
    pair(netlink).map_err(|e| format!("cannot make a veth pair: {e}"))?;
    Device::open_veth(DEVICE, OUTER).map_err(|e| e.to_string())
}

fn configure(netlink: &mut Netlink, inside: &Inside) -> io::Result<()> {
    let lo = netlink.link("lo")?.index;
    netlink.set_up(lo, true)?;
    let device = netlink.link(DEVICE)?.index;
    netlink.set_mtu(device, MAX_PACKET as u32)?;
    netlink.set_queue_len(device, QUEUE_PACKETS)?;
    netlink.set_no_link_local(device)?;
    netlink.set_up(device, true)?;
    netlink.add_address(device, INSIDE_V4.into(), 24)?;
    if has_ipv6() {
        netlink.add_address(device, INSIDE_V6.into(), 64)?;
    }
    for (to, prefix) in inside.destinations.iter().filter(|(to, _)| to.is_ipv4() || has_ipv6()) {
        netlink.add_route(&route((*to, *prefix), device, Route::MAIN))?;
    }
    let LoopbackPorts { v4, v6 } = &inside.loopback_ports;
    if !v4.is_empty() {
        netlink.set_ipv4(device, Ipv4Setting::RouteLocalnet, 1)?;
        // Only TCP has its socket before the source address is checked: an ICMP error from 127.0.0.1 would be a martian.
        netlink.set_ipv4(device, Ipv4Setting::AcceptLocal, 1)?;
        open_loopback_ports(netlink, LOOPBACK_V4, device, v4)?;
        // Ports of arriving packets, which the check of the source address needs, are looked at only if some rule that is
        // not about local packets asks for a port. This one never matters otherwise.
        netlink.add_rule(&port_rule(Family::V4, DISSECT_AT, DEVICE, 1..=1, Route::MAIN))?;
    }
    if has_ipv6() && !v6.is_empty() {
        open_loopback_ports(netlink, LOOPBACK_V6, device, v6)?;
    }
    Ok(())
}

/// A route out of the namespace.
fn route(to: (IpAddr, u8), device: u32, table: u32) -> Route {
    let (family, source, mss) = match to.0 {
        // Else the kernel takes an address of another device as the source.
        IpAddr::V4(ip) if ip.is_loopback() => (Family::V4, Ipv4Addr::LOCALHOST.into(), MSS_V4),
        IpAddr::V4(_) => (Family::V4, INSIDE_V4.into(), MSS_V4),
        IpAddr::V6(_) => (Family::V6, INSIDE_V6.into(), MSS_V6),
    };
    let kind = RouteKind::Unicast;
    let (device, source, mss) = (Some(device), Some(source), Some(mss));
    Route { to: Some(to), family, device, via: None, source, mss, table, kind }
}

/// Routes some ports of a loopback network out of the namespace.
fn open_loopback_ports(
    netlink: &mut Netlink,
    loopback: (IpAddr, u8),
    device: u32,
    ports: &[RangeInclusive<u16>],
) -> io::Result<()> {
    let route = route(loopback, device, TABLE);
    netlink.add_route(&route)?;
    for range in ports {
        let (first, last) = (*range.start().max(RULE_PORTS.start()), *range.end().min(RULE_PORTS.end()));
        if first <= last {
            netlink.add_rule(&port_rule(route.family, PORTS_AT, "lo", first..=last, TABLE))?;
        }
    }
    netlink.move_local_rule(route.family, LOCAL_AT)
}

/// TCP packets that come in by `from` for these ports look into `table`.
fn port_rule(family: Family, priority: u32, from: &str, ports: RangeInclusive<u16>, table: u32) -> Rule {
    Rule {
        from_device: Some(from.to_owned()),
        ip_protocol: Some(libc::IPPROTO_TCP as u8),
        port: Some(Port::Destination(ports)),
        ..Rule::new(family, priority, RuleAction::Table(table))
    }
}
