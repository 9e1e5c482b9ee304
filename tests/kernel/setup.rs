//! The interception itself: its device, how it is set up, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use halfopen::engine::tun::Device;
use halfopen::setup::gateway::{Gateway, Request};
use halfopen::setup::netlink::{Family, Ipv4Setting, Netlink, Route, Rule};
use nix::poll::PollFlags;

use crate::Single;
use crate::lab::ns::Ns;
use crate::lab::{Lab, PORT, Way, drain, wait};

pub(crate) const SINGLES: &[Single] = &[
    ("packets that pass the TUN device and go back unchanged make a connection", bounce_tun),
    ("packets that pass a veth end and go back unchanged make a connection", bounce_veth),
    ("reverse path filtering does not stop intercepted packets", reverse_path_filter),
    ("an interception without interface names leaves the gateway's own connections alone", no_names),
    ("what was set up is undone at the end, and what was there before stays", undone),
];

fn request(named: bool) -> Request {
    Request {
        ports: vec![PORT..=PORT],
        client_interface: named.then(|| "cli0".to_owned()),
        server_interface: named.then(|| "srv0".to_owned()),
        device: "halfopen0".to_owned(),
        shards: 1,
    }
}

/// Reads packets and writes them back as they are, until `stop`; returns how many of them were super-segments, and how many
/// there were.
fn bounce(device: &mut Device, stop: &AtomicBool) -> (u32, u32) {
    let (mut large, mut all) = (0, 0);
    let mut buf = BytesMut::new();
    while !stop.load(Ordering::Relaxed) {
        wait(device.as_fd(), PollFlags::POLLIN, Duration::from_millis(20));
        while let Some(hdr) = device.recv(&mut buf).expect("an open device") {
            all += 1;
            large += u32::from(hdr.tcp_gso_size() > 0);
            let (head, body) = buf.split_at(buf.len().min(40));
            device.send(&hdr, head, &[Bytes::copy_from_slice(body)]).expect("an open device");
        }
    }
    (large, all)
}

/// Carries a megabyte from one end to the other.
fn carry(from: &mut TcpStream, to: &mut TcpStream) {
    let bytes = vec![81; 1 << 20];
    let mut got = vec![0; bytes.len()];
    thread::scope(|scope| {
        let writer = scope.spawn(|| from.write_all(&bytes).expect("an open connection"));
        to.read_exact(&mut got).expect("an open connection");
        writer.join().expect("no panic");
    });
    assert!(got == bytes, "equal bytes");
}

/// A megabyte each way over an interception that does nothing with the packets.
fn through<T: Send>(lab: &Lab, up: impl FnOnce() -> (T, Device) + Send) {
    let stop = AtomicBool::new(false);
    let (_up, mut device) = lab.gateway.run(up);
    let (large, all) = thread::scope(|scope| {
        let bouncing = scope.spawn(|| bounce(&mut device, &stop));
        for family in Family::ALL {
            let (mut client, mut server) = lab.pair(family);
            carry(&mut client, &mut server);
            carry(&mut server, &mut client);
            drop(client);
            assert_eq!(drain(&mut server).1, "EOF");
        }
        stop.store(true, Ordering::Relaxed);
        bouncing.join().expect("no panic")
    });
    assert!(large > 20 && all < 2_000, "super-segments stay whole: {large} of {all} packets");
}

fn gateway_up(request: &Request) -> (Gateway, Device) {
    let mut gateway = Gateway::up(request).unwrap_or_else(|e| panic!("{e}"));
    let device = gateway.devices.remove(0);
    (gateway, device)
}

fn bounce_tun() {
    let lab = Lab::new(Way::Direct);
    through(&lab, || gateway_up(&request(true)));
}

/// The rules of the gateway, but into a veth end.
fn bounce_veth() {
    let lab = Lab::new(Way::Direct);
    through(&lab, || {
        let (gateway, tun) = gateway_up(&request(true));
        let mut netlink = Netlink::open().expect("netlink");
        netlink.add_veth("ho0", "ho1", None).expect("a veth pair");
        let (inside, outside) =
            (netlink.link("ho0").expect("made").index, netlink.link("ho1").expect("made").index);
        netlink.set_no_arp(inside).expect("a link setting");
        netlink.set_ipv4(inside, Ipv4Setting::Forwarding, 1).expect("a link setting");
        for index in [inside, outside] {
            netlink.set_up(index, true).expect("a link setting");
        }
        for family in Family::ALL {
            let ours = netlink.own_routes(family).expect("a list");
            let table = ours.first().expect("the way into the TUN").table;
            netlink.add_route(&Route::default_by(family, inside, table)).expect("replaces it");
        }
        let device = Device::open_veth("ho0", "ho1").unwrap_or_else(|e| panic!("{e}"));
        ((gateway, tun), device)
    });
}

fn reverse_path_filter() {
    for strictness in ["1", "2"] {
        let lab = Lab::new(Way::Direct);
        for key in ["all", "default", "cli0", "srv0"] {
            lab.gateway.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), strictness);
        }
        through(&lab, || gateway_up(&request(true)));
        through(&lab, || gateway_up(&request(false)));
    }
}

fn no_names() {
    let lab = Lab::new(Way::Direct);
    through(&lab, || gateway_up(&request(false)));
    let (_gateway, _device) = lab.gateway.run(|| gateway_up(&request(false)));
    // Nobody reads the device: what goes there is lost.
    for family in Family::ALL {
        let listener = lab.listen(family);
        let to = listener.local_addr().expect("bound");
        let dial = || TcpStream::connect_timeout(&to, Duration::from_secs(3));
        lab.gateway.run(dial).expect("the gateway's own connection passes by");
        lab.client.run(dial).expect_err("the client's does not");
    }
}

/// Everything of a host that an interception may change.
#[derive(Debug, PartialEq)]
struct State {
    links: BTreeSet<String>,
    forwarding: Vec<(String, u32)>,
    rules: Vec<Rule>,
    routes: Vec<Route>,
    ipv6: Vec<String>,
}

fn state(ns: &Ns) -> State {
    ns.run(|| {
        let mut netlink = Netlink::open().expect("netlink");
        let links = netlink.links().expect("a list");
        let both = |of: &mut dyn FnMut(Family)| Family::ALL.map(of);
        let (mut rules, mut routes) = (Vec::new(), Vec::new());
        both(&mut |family| {
            rules.extend(netlink.own_rules(family).expect("a list"));
            routes.extend(
                netlink.own_routes(family).expect("a list").into_iter().filter(|r| r.table != Route::MAIN),
            );
        });
        let ipv6 = ["all/forwarding", "cli0/force_forwarding", "srv0/force_forwarding"].map(|key| {
            let value = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}")).unwrap_or_default();
            format!("{key}={}", value.trim())
        });
        State {
            links: links.iter().map(|l| l.name.clone()).collect(),
            forwarding: links.iter().map(|l| (l.name.clone(), l.ipv4(Ipv4Setting::Forwarding))).collect(),
            rules,
            routes,
            ipv6: ipv6.into(),
        }
    })
}

fn undone() {
    let lab = Lab::unconnected(Way::Direct);
    crate::lab::cable(&lab.client, "c0", &lab.gateway, "cli0");
    crate::lab::cable(&lab.server, "s0", &lab.gateway, "srv0");
    lab.configure_addresses();
    let before = state(&lab.gateway);
    let (gateway, device) = lab.gateway.run(|| gateway_up(&request(true)));
    let during = state(&lab.gateway);
    assert_eq!((during.rules.len(), during.routes.len()), (8, 2), "{during:?}");
    assert!(during.forwarding.iter().filter(|(_, on)| *on == 1).count() == 3, "{during:?}");
    drop(device);
    let errors = lab.gateway.run(|| gateway.down());
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(state(&lab.gateway), before);
}
