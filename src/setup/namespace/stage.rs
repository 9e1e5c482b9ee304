//! A namespace in which a client and a server of this very process meet, but only by way of the device.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

use crate::engine::tun::Device;
use crate::setup::netlink::{Family, Netlink, Route, Rule, RuleAction};
use crate::setup::sysctl;

use super::{Error, network, users};

/// The routing table of whatever this host sends.
const TABLE: u32 = 100;
/// Places of the rules, in the order in which they are asked.
const OUT_AT: u32 = 10;
const LOCAL_AT: u32 = 100;
/// As on an Ethernet, so that the segments look familiar.
const MTU: u32 = 1500;

/// Moves this process to namespaces of its own that hold both addresses. What is sent from one to the other leaves by the
/// returned device, and what is written to the device arrives. The calling process must have one thread only.
///
/// Both are addresses of this host, and packets between two of them would never leave it: so the rule that looks for
/// local destinations moves behind one that sends what originates here out by the device.
pub fn stage(client: IpAddr, server: IpAddr) -> Result<Device, Error> {
    users::enter()?;
    let mut netlink =
        Netlink::open().map_err(|e| users::refused("configure the network", io::Error::other(e.what)))?;
    let device = network::open_device(&mut netlink)?;
    let mut configure = || {
        let lo = netlink.link("lo")?.index;
        netlink.set_up(lo, true)?;
        let link = netlink.link(network::DEVICE)?.index;
        netlink.set_mtu(link, MTU)?;
        netlink.set_no_link_local(link)?;
        netlink.set_up(link, true)?;
        for address in [client, server] {
            netlink.add_address(link, address, if address.is_ipv4() { 32 } else { 128 })?;
        }
        let family = if client.is_ipv4() { Family::V4 } else { Family::V6 };
        netlink.add_route(&Route::default_by(family, link, TABLE))?;
        let out = Rule::new(family, OUT_AT, RuleAction::Table(TABLE));
        netlink.add_rule(&Rule { from_device: Some("lo".to_owned()), ..out })?;
        netlink.move_local_rule(family, LOCAL_AT)
    };
    configure().map_err(|e: io::Error| users::refused("configure the network", e))?;
    Ok(device)
}

/// Lets the first SYN of a socket on the stage ask for ECN and for a cookie of TCP Fast Open, which is not the default.
pub fn ask_for_extensions(socket: &impl AsFd) -> io::Result<()> {
    sysctl::Setting::open("net/ipv4/tcp_ecn")?.set("1")?;
    setsockopt(socket, sockopt::TcpFastOpenConnect, &true)?;
    Ok(())
}
