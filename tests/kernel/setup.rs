//! The interception itself: its device, how it is set up, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use halfopen::engine::tun::Device;
use halfopen::setup::Interception;
use halfopen::setup::gateway::{self, Request};
use halfopen::setup::netlink::{Family, Ipv4Setting, Netlink, Route, RouteKind, Rule};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::PollFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Single;
use crate::lab::forge::checksum;
use crate::lab::ns::Ns;
use crate::lab::process::{Halfopen, command};
use crate::lab::{Lab, PATIENCE, PORT, Way, address, cable, drain, errno, outcome, server_at, wait};

pub(crate) const SINGLES: &[Single] = &[
    ("packets that pass the TUN device and go back unchanged make a connection", bounce_tun),
    ("packets that pass a veth end and go back unchanged make a connection", bounce_veth),
    ("reverse path filtering does not stop intercepted packets", reverse_path_filter),
    ("an interception without interface names leaves the gateway's own connections alone", no_names),
    ("the gateway's own ICMP errors about other connections reach their client", others_errors),
    ("pings pass the gateway", ping),
    ("an ICMP error passes strict reverse path filtering", filtered_errors),
    ("two shards share the flows and never part the legs of one", two_shards),
    ("what was set up is undone at the end, and what was there before stays", undone),
    ("a stop by signal undoes everything", stopped),
    ("after a kill new connections are direct within a second, and a restart intercepts again", killed),
    ("bad input is one clear line with a hint", bad_input),
    ("a second instance is refused", second_instance),
    ("a missing right is told, and nothing is changed", no_rights),
    ("a missing /dev/net/tun is told, and nothing is changed", no_tun),
    ("a failure half way undoes what was done", half_way),
    ("without IPv6 on the host, IPv4 is intercepted and the user is told", ipv4_only),
    ("a dry run prints the commands and changes nothing", dry_run),
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

fn gateway_up(request: &Request) -> (Interception, Device) {
    let mut gateway = gateway::up(request).unwrap_or_else(|e| panic!("{e}"));
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

/// Errors about ports that are not intercepted pass our device, as all ICMP does, and come out again.
fn others_errors() {
    let lab = Lab::new(Way::Direct);
    let (gateway, mut device) = lab.gateway.run(|| gateway_up(&request(true)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let bouncing = scope.spawn(|| bounce(&mut device, &stop));
        for family in Family::ALL {
            let nobody = SocketAddr::new(address(family, 2, 99), PORT + 1);
            let error = lab.connect(nobody).expect_err("there is no such host");
            assert_eq!(errno(&error), "EHOSTUNREACH");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(bouncing.join().expect("no panic").1 >= 2, "the errors took the way through the device");
    });
    drop(gateway);
}

/// ICMP that is no error of ours takes the way through the device too, and arrives.
fn ping() {
    for sides in [SIDES, &[]] {
        let mut lab = untouched();
        lab.halfopen = Some(Halfopen::start(&lab.gateway, &[RUN, sides].concat()));
        for (domain, protocol, request, reply) in
            [(Domain::IPV4, Protocol::ICMPV4, 8, 0), (Domain::IPV6, Protocol::ICMPV6, 128, 129)]
        {
            let family = if domain == Domain::IPV4 { Family::V4 } else { Family::V6 };
            let socket =
                lab.client.run(|| Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket"));
            let mut echo = vec![request, 0, 0, 0, 0x48, 0x4f, 0, 1, 1, 2, 3, 4];
            if family == Family::V4 {
                let sum = checksum(&echo);
                echo[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            let to = SocketAddr::new(server_at(family).ip(), 0);
            socket.send_to(&echo, &to.into()).expect("a raw send");
            let mut answer = [0; 128];
            let found = (0..10).any(|_| {
                assert!(
                    wait(socket.as_fd(), PollFlags::POLLIN, PATIENCE),
                    "no answer to the {family:?} ping"
                );
                let len = (&socket).read(&mut answer).expect("an open socket");
                // An IPv4 raw socket gives the IP header too; IPv6 may show neighbour discovery first.
                let icmp = &answer[if family == Family::V4 { 20 } else { 0 }..len];
                icmp[0] == reply && icmp[4..] == echo[4..]
            });
            assert!(found, "the {family:?} ping is answered");
        }
        assert!(carried(&lab.gateway) >= 4, "the pings passed the device");
    }
}

/// With strict filtering the errors of routers still end a dial.
fn filtered_errors() {
    for strictness in ["1", "2"] {
        let mut lab = untouched();
        for key in ["all", "default", "cli0", "srv0"] {
            lab.gateway.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), strictness);
        }
        lab.start(&[]);
        lab.server.forward(&["s0"]);
        for family in Family::ALL {
            lab.server.route(family, Some((4, 1)), None, RouteKind::Prohibit);
            let to = SocketAddr::new(address(family, 4, 1), PORT);
            let expected = if family == Family::V4 { "EHOSTUNREACH" } else { "EACCES" };
            assert_eq!(outcome(&lab.connect(to)), expected, "{family:?}, rp_filter {strictness}");
        }
    }
}

/// Both legs of a flow come out of the same queue: the kernel's choice of a queue is symmetric.
fn two_shards() {
    let mut lab = untouched();
    let config = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    fs::write(config.path(), "[engine]\nshards = 2\n").expect("a temporary file");
    let config = config.path().to_str().expect("temporary files have plain names");
    lab.start(&["-c", config, "--json", "--grace", "0"]);
    for family in Family::ALL {
        let listener = lab.listen(family);
        let mut ends: Vec<_> = (0..200).map(|_| lab.pair_by(&listener)).collect();
        for (client, server) in &mut ends {
            carry_word(client, server);
            carry_word(server, client);
        }
    }
    let summary = lab.halfopen.take().expect("proxied").finish();
    assert_eq!(summary["flows"], 400, "each connection is one flow: {summary}");
}

fn carry_word(from: &mut TcpStream, to: &mut TcpStream) {
    let mut got = [0; 4];
    from.write_all(b"word").expect("an open connection");
    to.read_exact(&mut got).expect("an open connection");
    assert_eq!(&got, b"word");
}

/// Everything of a host that an interception may change.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    links: BTreeSet<String>,
    forwarding: Vec<(String, u32)>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) routes: Vec<Route>,
    ipv6: Vec<String>,
}

pub(crate) fn state(ns: &Ns) -> State {
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
    let lab = untouched();
    let before = state(&lab.gateway);
    let (gateway, device) = lab.gateway.run(|| gateway_up(&request(true)));
    let during = state(&lab.gateway);
    assert_eq!((during.rules.len(), during.routes.len()), (11, 2), "{during:?}");
    assert!(during.forwarding.iter().filter(|(_, on)| *on == 1).count() == 3, "{during:?}");
    drop(device);
    let errors = lab.gateway.run(|| gateway.down());
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(state(&lab.gateway), before);
}

/// Packets that our device has carried, both ways.
pub(crate) fn carried(ns: &Ns) -> u64 {
    carried_by(ns, "halfopen0")
}

/// The same of any device; none if there is no such.
pub(crate) fn carried_by(ns: &Ns, device: &str) -> u64 {
    let table = ns.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("a list of devices"));
    let name = format!("{device}:");
    let line = table.lines().find_map(|l| l.trim().strip_prefix(&name)).unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    numbers.get(1).copied().unwrap_or(0) + numbers.get(9).copied().unwrap_or(0)
}

/// A connection, a word, and the end of it.
pub(crate) fn talk(lab: &Lab, listener: &TcpListener) {
    let (mut client, mut server) = lab.pair_by(listener);
    client.write_all(b"hello").expect("an open connection");
    drop(client);
    assert_eq!(drain(&mut server), (b"hello".to_vec(), "EOF".to_owned()));
}

fn killed() {
    let mut lab = Lab::new(Way::Proxied);
    let listeners = Family::ALL.map(|family| lab.listen(family));
    let (mut client, mut server) = lab.pair_by(&listeners[0]);
    // Ends at the latest when a write has waited for its timeout.
    thread::spawn(move || while client.write_all(&[1; 4096]).is_ok() {});
    server.read_exact(&mut vec![0; 1 << 20]).expect("traffic flows");
    assert!(carried(&lab.gateway) > 10);

    lab.halfopen.as_mut().expect("proxied").end_by(Signal::SIGKILL);
    let start = Instant::now();
    listeners.iter().for_each(|listener| talk(&lab, listener));
    assert!(start.elapsed() < Duration::from_secs(1), "direct again after {:?}", start.elapsed());
    assert_eq!(carried(&lab.gateway), 0, "the device is gone");
    let left = state(&lab.gateway);
    assert!(!left.rules.is_empty() && left.routes.is_empty(), "the rules stay, the routes go: {left:?}");

    lab.start(&[]);
    listeners.iter().for_each(|listener| talk(&lab, listener));
    assert!(carried(&lab.gateway) > 10, "intercepted again");
    assert_eq!(state(&lab.gateway).rules, left.rules);
}

/// A lab whose gateway is as its owner left it: nothing is forwarded.
fn untouched() -> Lab {
    let lab = Lab::unconnected(Way::Proxied);
    cable(&lab.client, "c0", &lab.gateway, "cli0");
    cable(&lab.server, "s0", &lab.gateway, "srv0");
    lab.configure();
    lab
}

fn stopped() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut lab = untouched();
        let before = state(&lab.gateway);
        lab.start(&[]);
        talk(&lab, &lab.listen(Family::V4));
        let status = lab.halfopen.as_mut().expect("proxied").end_by(signal);
        assert_eq!(status.code(), Some(0), "{signal}");
        assert_eq!(state(&lab.gateway), before, "{signal}");
    }
}

const RUN: &[&str] = &["run", "--mode", "gateway", "--ports", "5432"];
const SIDES: &[&str] = &["--client-interface", "cli0", "--server-interface", "srv0"];

/// Runs halfopen, which fails with this code and says this, one line and a hint, and changes nothing.
pub(crate) fn fails(ns: &Ns, command: &mut Command, code: i32, says: &[&str]) {
    let before = state(ns);
    let output = command.output().expect("the program was built with the test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in says.iter().chain(&["hint: "]) {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(state(ns), before, "nothing half set up stays");
}

fn bad_input() {
    let lab = untouched();
    let run = |more: &[&str]| command(&lab.gateway, &[RUN, more].concat());
    let bad = |more: &[&str], code, says: &[&str]| fails(&lab.gateway, &mut run(more), code, says);
    bad(&["--client-interface", "eth9"], 78, &["no interface eth9 that is up", "cli0, srv0"]);
    for ports in ["0", "65535", "9-8", "http", ""] {
        let mut command = command(&lab.gateway, &["run", "--mode", "gateway", "--ports", ports]);
        fails(&lab.gateway, &mut command, 78, &["port"]);
    }
}

fn second_instance() {
    let lab = Lab::new(Way::Proxied);
    let pid = lab.halfopen.as_ref().expect("proxied").pid();
    let mut second = command(&lab.gateway, &[RUN, SIDES].concat());
    fails(&lab.gateway, &mut second, 69, &["already intercepts", &format!("(process {pid})")]);
    talk(&lab, &lab.listen(Family::V4));
}

fn no_rights() {
    let lab = untouched();
    let mut command = command(&lab.gateway, &[RUN, SIDES].concat());
    // SAFETY: one system call. Root without this capability in the bounding set does not get it by exec.
    unsafe {
        command.pre_exec(|| {
            const CAP_NET_ADMIN: libc::c_ulong = 12;
            Errno::result(libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN)).map(drop).map_err(Into::into)
        });
    }
    fails(&lab.gateway, &mut command, 77, &["CAP_NET_ADMIN"]);
}

/// The command with a file system of its own, changed by `change`.
pub(crate) fn with_mounts(mut command: Command, change: fn() -> nix::Result<()>) -> Command {
    // SAFETY: system calls only, on strings that are constants.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            change()?;
            Ok(())
        });
    }
    command
}

pub(crate) const NONE: Option<&str> = None;

fn no_tun() {
    let lab = untouched();
    let hide = || mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), NONE);
    let mut command = with_mounts(command(&lab.gateway, &[RUN, SIDES].concat()), hide);
    fails(&lab.gateway, &mut command, 69, &["cannot open /dev/net/tun", "modprobe tun"]);
}

/// IPv4 forwarding is set by then; the IPv6 setting needs `/proc/sys`.
fn half_way() {
    let lab = untouched();
    let freeze = || {
        let bind = MsFlags::MS_BIND;
        mount(Some("/proc/sys"), "/proc/sys", NONE, bind, NONE)?;
        mount(NONE, "/proc/sys", NONE, bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)
    };
    let mut command = with_mounts(command(&lab.gateway, &[RUN, SIDES].concat()), freeze);
    fails(
        &lab.gateway,
        &mut command,
        77,
        &["sysctl -w net/ipv6", "add `sysctls: {net.ipv6.conf.all.forwarding: 1}`"],
    );
}

fn ipv4_only() {
    let mut lab = untouched();
    lab.gateway.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    lab.start(&[]);
    talk(&lab, &lab.listen(Family::V4));
    let said = lab.halfopen.as_ref().expect("proxied").said();
    assert!(said.contains("only IPv4 is intercepted"), "{said}");
}

fn dry_run() {
    let lab = untouched();
    let before = state(&lab.gateway);
    let output =
        command(&lab.gateway, &[RUN, SIDES, &["--dry-run"]].concat()).output().expect("built with the test");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in
        ["ip tuntap add dev halfopen0 mode tun", "ip -6 rule add pref 10 iif cli0 ipproto tcp dport 5432"]
    {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(state(&lab.gateway), before);
}
