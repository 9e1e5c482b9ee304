//! halfopen as a sidecar on the client's own host: the rows of the gateway once more, servers on the same host, the faults,
//! and what is left of it; and as a sidecar on the server's host, for what comes in.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::{Family, RouteKind};
use libtest_mimic::Trial;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::lab::ns::Ns;
use crate::lab::process::{Halfopen, command};
use crate::lab::sniff::Sniffer;
use crate::lab::{Lab, PATIENCE, PORT, Way, address, client_ip, compare, compare_in, drain};
use crate::setup::{NONE, carried, fails, state, talk, with_mounts};
use crate::{Row, Single, VERSIONS, close, faults, handshake, loopback, stream, trial};

const SINGLES: &[Single] = &[
    ("connections from outside that were there before go on, through a start and a stop", inbound_survivors),
    ("what is for others passes a sidecar for inbound ports", inbound_others),
    ("connections that were there before go on, through a start and a stop", survivors),
    ("what was set up is undone at the end, and what was there before stays", stopped),
    ("after a kill new connections are direct within a second, and a restart intercepts again", killed),
    ("reverse path filtering does not stop intercepted packets", reverse_path_filter),
    ("a second instance is refused", second_instance),
    ("a missing right is told, and nothing is changed", no_rights),
    ("a missing /dev/net/tun is told, and nothing is changed", no_tun),
    ("CAP_NET_ADMIN alone and a read-only /proc/sys are enough", few_rights),
    ("IPv6 that passes by is told with what to add", ipv6_passes_by),
    ("a dry run prints the commands and changes nothing", dry_run),
    ("other connections of the host are left alone", others),
];

/// The faults that every seat must be able to do.
pub(crate) const FAULTS: &[&str] =
    &["syn-drop", "syn-ack-delay", "zero-window-stall", "ack-delay", "fin-drop", "rst-inject"];

/// Rows of the stream that say something new about the way through a sidecar.
const STREAM: &[&str] = &[
    "a server that speaks first is heard",
    "a slow reader stops the writer, and loses nothing",
    "a keepalive of the client finds that the server is dead",
    "both directions at full speed carry equal bytes",
    "a smaller MTU on the way is found out",
];

/// Rows for connections from outside.
const INBOUND: &[&str] = &[
    "a refused connection is refused to the client",
    "options of the SYN and SYN-ACK are those of the peers",
    "a server that speaks first is heard",
    "a slow reader stops the writer, and loses nothing",
    "a keepalive of the server finds that the client is dead",
    "both directions at full speed carry equal bytes",
];

/// Rows that do not depend on where the server is.
const AT_HOME: &[&str] = &[
    "a refused connection is refused to the client",
    "a client that has finished still gets the answer",
    "a server that has finished still gets the rest of the request",
    "a reset by the client is a reset for the server, and then a broken pipe",
    "a reset by the server is a reset for the client, and then a broken pipe",
    "a server that speaks first is heard",
    "a slow reader stops the writer, and loses nothing",
    "both directions at full speed carry equal bytes",
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = SINGLES
        .iter()
        .chain(loopback::SINGLES)
        .map(|(name, test)| trial(format!("sidecar: {name}"), test))
        .collect();
    let every = || handshake::ROWS.iter().chain(close::ROWS).chain(stream::ROWS);
    for (name, row) in every().copied() {
        let chosen = STREAM.contains(&name) || !stream::ROWS.iter().any(|(other, _)| *other == name);
        for (family, version) in VERSIONS {
            if chosen {
                let test = move || compare(Way::Sidecar, |lab| row(lab, family));
                trials.push(trial(format!("sidecar: {name} ({version})"), test));
            }
        }
        if INBOUND.contains(&name) || close::ROWS.iter().any(|(other, _)| *other == name) {
            trials.extend(VERSIONS.map(|(family, version)| {
                let test = move || compare(Way::Inbound, |lab| row(lab, family));
                trial(format!("sidecar: inbound: {name} ({version})"), test)
            }));
        }
        if AT_HOME.contains(&name) {
            trials.extend(at_home(Way::Sidecar, (name, row)));
            trials.extend(at_home(Way::SamePort, (name, row)));
        }
        let same_port = [(Way::SamePort, AT_HOME), (Way::InboundSamePort, INBOUND)];
        for (way, _) in same_port.into_iter().filter(|(_, rows)| rows.contains(&name)) {
            let place = if way == Way::SamePort { "same port" } else { "inbound, same port" };
            trials.extend(VERSIONS.map(|(family, version)| {
                let test = move || compare(way, |lab| row(lab, family));
                trial(format!("sidecar: {place}: {name} ({version})"), test)
            }));
        }
    }
    // H13 is about two hosts behind one address.
    let can = |proof: &&faults::Proof| FAULTS.contains(&proof.fault) && proof.entry != "H13";
    let proofs = faults::PROOFS.iter().copied().flatten().filter(can);
    trials.extend(proofs.map(|proof| {
        let name = format!("sidecar: {} ({}): {}", proof.fault, proof.entry, proof.expected);
        trial(name, || faults::seated(Way::Sidecar, proof.run))
    }));
    let proofs = faults::PROOFS.iter().copied().flatten();
    trials.extend(proofs.filter(|proof| ["fin-drop", "rst-inject"].contains(&proof.fault)).map(|proof| {
        let name = format!("sidecar: inbound: {} ({}): {}", proof.fault, proof.entry, proof.expected);
        trial(name, || faults::seated(Way::Inbound, proof.run))
    }));
    trials
}

/// The row with a server on the client's own host.
fn at_home(way: Way, (name, row): Row) -> impl Iterator<Item = Trial> {
    let port = if way == Way::SamePort { "same port, " } else { "" };
    let own =
        VERSIONS.map(|(family, version)| (family, client_ip(family), format!("own address, {version}")));
    let loopback = [
        (Family::V4, IpAddr::V4(Ipv4Addr::LOCALHOST), "127.0.0.1".to_owned()),
        (Family::V6, IpAddr::V6(Ipv6Addr::LOCALHOST), "::1".to_owned()),
    ];
    own.into_iter().chain(loopback).map(move |(family, at, place)| {
        trial(format!("sidecar: {name} ({port}{place})"), move || {
            compare_in(way, |lab| lab.bring_home(at), |lab| row(lab, family));
        })
    })
}

/// A lab without halfopen, in which a sidecar could start.
fn untouched() -> Lab {
    let lab = Lab::new(Way::Direct);
    lab.client.sysctl("net/ipv6/conf/all/forwarding", "1");
    lab
}

pub(crate) fn word(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"word").expect("an open connection");
    let mut got = [0; 4];
    to.read_exact(&mut got).expect("an open connection");
    assert_eq!(&got, b"word");
}

/// A client and a server of each place, with a listener for more.
fn survivors() {
    for (early_demux, way) in [("1", Way::Sidecar), ("0", Way::SamePort)] {
        let lab = untouched();
        lab.client.sysctl("net/ipv4/tcp_early_demux", early_demux);
        survive(lab, way);
    }
}

fn survive(mut lab: Lab, way: Way) {
    let remote = Family::ALL.map(|family| lab.listen(family));
    let mut pairs: Vec<_> = remote.iter().map(|listener| lab.pair_by(listener)).collect();
    let server = std::mem::replace(&mut lab.server, lab.client.again());
    lab.at = Some(Ipv4Addr::LOCALHOST.into());
    pairs.push(lab.pair(Family::V4));
    (lab.server, lab.at) = (server, None);
    let say = |pairs: &mut Vec<(TcpStream, TcpStream)>| {
        for (client, server) in pairs {
            word(client, server);
            word(server, client);
        }
    };
    lab.way = way;
    lab.start(&["--json"]);
    say(&mut pairs);
    assert!(carried(&lab.client) >= 6, "they take the way through the device");
    for listener in &remote {
        pairs.push(lab.pair_by(listener));
        talk(&lab, listener);
    }
    say(&mut pairs);
    // The intercepted ones end within the grace; those from before do not notice.
    let intercepted = pairs.split_off(3);
    let stopping = lab.halfopen.take().expect("it runs");
    for (client, mut server) in intercepted {
        drop(client);
        assert_eq!(drain(&mut server).1, "EOF");
    }
    assert_eq!(stopping.finish()["flows"], 4);
    say(&mut pairs);
    for (client, mut server) in pairs {
        drop(client);
        assert_eq!(drain(&mut server).1, "EOF");
    }
}

/// A lab without halfopen, in which a sidecar could start on the server's host.
fn untouched_server() -> Lab {
    let lab = Lab::new(Way::Direct);
    lab.server.sysctl("net/ipv6/conf/all/forwarding", "1");
    lab
}

/// With the kernel's early demultiplexing they need rules of their own, without it they pass the device.
fn inbound_survivors() {
    for (early_demux, way) in [("1", Way::Inbound), ("0", Way::InboundSamePort)] {
        let lab = untouched_server();
        lab.server.sysctl("net/ipv4/tcp_early_demux", early_demux);
        inbound_survive(lab, way);
    }
}

fn inbound_survive(mut lab: Lab, way: Way) {
    let before = state(&lab.server);
    let listeners = Family::ALL.map(|family| lab.listen(family));
    let mut pairs: Vec<_> = listeners.iter().map(|listener| lab.pair_by(listener)).collect();
    let say = |pairs: &mut Vec<(TcpStream, TcpStream)>| {
        for (client, server) in pairs {
            word(client, server);
            word(server, client);
        }
    };
    lab.way = way;
    lab.start(&["--json"]);
    say(&mut pairs);
    pairs.extend(listeners.iter().map(|listener| lab.pair_by(listener)));
    say(&mut pairs);
    let intercepted = pairs.split_off(2);
    for (client, mut server) in intercepted {
        drop(client);
        assert_eq!(drain(&mut server).1, "EOF");
    }
    assert_eq!(lab.halfopen.take().expect("it runs").finish()["flows"], 2);
    say(&mut pairs);
    for (client, mut server) in pairs {
        drop(client);
        assert_eq!(drain(&mut server).1, "EOF");
    }
    assert_eq!(state(&lab.server), before);
}

fn reverse_path_filter() {
    for strictness in ["1", "2"] {
        for way in [Way::Sidecar, Way::Inbound] {
            let mut lab = if way == Way::Sidecar { untouched() } else { untouched_server() };
            let (host, device) = if way == Way::Sidecar { (&lab.client, "c0") } else { (&lab.server, "s0") };
            for key in ["all", "default", device] {
                host.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), strictness);
            }
            lab.way = way;
            lab.start(&["--json"]);
            talk(&lab, &lab.listen(Family::V4));
            if way == Way::Sidecar {
                for at in [client_ip(Family::V4), Ipv4Addr::LOCALHOST.into()] {
                    lab.bring_home(at);
                    talk(&lab, &lab.listen(Family::V4));
                }
            }
            let flows = if way == Way::Sidecar { 3 } else { 1 };
            assert_eq!(
                lab.halfopen.take().expect("it runs").finish()["flows"],
                flows,
                "{strictness} {way:?}"
            );
        }
    }
}

/// A sidecar takes what is for its own host, and what comes from outside.
fn inbound_others() {
    let mut lab = untouched_server();
    lab.server.forward(&["s0"]);
    lab.server.route(Family::V4, Some((3, 9)), None, RouteKind::Unreachable);
    lab.way = Way::Inbound;
    lab.start(&[]);
    let device = Sniffer::start(&lab.server, "halfopen0");
    let refused = lab.connect(SocketAddr::new(address(Family::V4, 3, 9), PORT));
    assert_eq!(crate::lab::outcome(&refused), "EHOSTUNREACH", "this host is its router");
    lab.way = Way::Direct;
    let server = lab.server.again();
    let client = std::mem::replace(&mut lab.client, server);
    lab.at = Some(Ipv4Addr::LOCALHOST.into());
    talk(&lab, &lab.listen(Family::V4));
    lab.client = client;
    let seen = device.stop();
    assert!(seen.is_empty(), "the device has nothing to do with it: {seen:?}");
}

fn stopped() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut lab = untouched();
        let before = state(&lab.client);
        lab.way = Way::Sidecar;
        lab.start(&[]);
        Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
        assert!(carried(&lab.client) > 10);
        let status = lab.halfopen.as_mut().expect("it runs").end_by(signal);
        assert_eq!(status.code(), Some(0), "{signal}");
        assert_eq!(state(&lab.client), before, "{signal}");
        direct_at_home(&mut lab);
    }
}

/// The host reaches itself: the kernel's rule for local addresses is in place.
fn direct_at_home(lab: &mut Lab) {
    lab.way = Way::Direct;
    lab.bring_home(Ipv4Addr::LOCALHOST.into());
    talk(lab, &lab.listen(Family::V4));
    assert_eq!(carried(&lab.client), 0);
}

fn killed() {
    let mut lab = Lab::new(Way::Sidecar);
    let listeners = Family::ALL.map(|family| lab.listen(family));
    let (mut client, mut server) = lab.pair_by(&listeners[0]);
    // Ends at the latest when a write has waited for its timeout.
    let writer = thread::spawn(move || {
        loop {
            if let Err(e) = client.write_all(&[1; 4096]) {
                return crate::lab::errno(&e);
            }
        }
    });
    server.read_exact(&mut vec![0; 1 << 20]).expect("traffic flows");
    assert!(carried(&lab.client) > 10);

    lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGKILL);
    let start = Instant::now();
    lab.way = Way::Direct;
    listeners.iter().for_each(|listener| talk(&lab, listener));
    assert!(start.elapsed() < Duration::from_secs(1), "direct again after {:?}", start.elapsed());
    assert_eq!(carried(&lab.client), 0, "the device is gone");
    assert_eq!(writer.join().expect("no panic"), "ECONNRESET", "an intercepted connection ends");
    let left = state(&lab.client);
    assert!(!left.rules.is_empty(), "the rules stay: {left:?}");

    lab.way = Way::Sidecar;
    lab.start(&[]);
    listeners.iter().for_each(|listener| talk(&lab, listener));
    assert!(carried(&lab.client) > 10, "intercepted again");
    let status = lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    let end = state(&lab.client);
    assert!(end.rules.is_empty() && end.routes.is_empty(), "{end:?}");
    direct_at_home(&mut lab);
}

const RUN: &[&str] = &["run", "--mode", "sidecar", "--ports", "5432"];

fn second_instance() {
    let lab = Lab::new(Way::Sidecar);
    let pid = lab.halfopen.as_ref().expect("it runs").pid();
    let says = ["already intercepts", &format!("(process {pid})"), "`command: run --mode sidecar"];
    fails(&lab.client, &mut command(&lab.client, RUN), 69, &says);
    talk(&lab, &lab.listen(Family::V4));
}

/// Without these capabilities: root does not get by exec what is not in the bounding set.
pub(crate) fn without(mut command: Command, capabilities: impl Iterator<Item = libc::c_ulong>) -> Command {
    let capabilities: Vec<_> = capabilities.collect();
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(move || {
            for capability in &capabilities {
                Errno::result(libc::prctl(libc::PR_CAPBSET_DROP, *capability)).map(drop)?;
            }
            Ok(())
        });
    }
    command
}

pub(crate) const CAP_NET_ADMIN: libc::c_ulong = 12;

fn no_rights() {
    let lab = untouched();
    let mut command = without(command(&lab.client, RUN), [CAP_NET_ADMIN].into_iter());
    fails(&lab.client, &mut command, 77, &["`cap_add: [NET_ADMIN]`"]);
}

fn no_tun() {
    let lab = untouched();
    let hide = || mount(Some("none"), "/dev/net", Some("tmpfs"), MsFlags::empty(), NONE);
    let mut command = with_mounts(command(&lab.client, RUN), hide);
    fails(&lab.client, &mut command, 69, &["cannot open /dev/net/tun", "`devices: [\"/dev/net/tun\"]`"]);
}

/// As in a container with `cap_drop: [ALL]`, `cap_add: [NET_ADMIN]` and `no-new-privileges`.
fn few_rights() {
    const LAST: libc::c_ulong = 40;
    let mut lab = untouched();
    let freeze = || {
        let bind = MsFlags::MS_BIND;
        mount(Some("/proc/sys"), "/proc/sys", NONE, bind, NONE)?;
        mount(NONE, "/proc/sys", NONE, bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)
    };
    let command = with_mounts(command(&lab.client, RUN), freeze);
    let mut command = without(command, (0..=LAST).filter(|c| *c != CAP_NET_ADMIN));
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_no_new_privs()?));
    }
    lab.way = Way::Sidecar;
    lab.halfopen = Some(Halfopen::start_command(command));
    Family::ALL.into_iter().for_each(|family| talk(&lab, &lab.listen(family)));
    assert!(carried(&lab.client) > 10);
    lab.bring_home(Ipv4Addr::LOCALHOST.into());
    talk(&lab, &lab.listen(Family::V4));
}

fn ipv6_passes_by() {
    let mut lab = untouched();
    lab.client.sysctl("net/ipv6/conf/all/forwarding", "0");
    lab.way = Way::Sidecar;
    lab.start(&["--json"]);
    talk(&lab, &lab.listen(Family::V4));
    lab.way = Way::Direct;
    talk(&lab, &lab.listen(Family::V6));
    let halfopen = lab.halfopen.take().expect("it runs");
    let said = halfopen.said();
    assert!(said.contains("add `sysctls: {net.ipv6.conf.all.forwarding: 1}`"), "{said}");
    assert_eq!(halfopen.finish()["flows"], 1);
}

fn dry_run() {
    let lab = untouched();
    let before = state(&lab.client);
    let output = command(&lab.client, &[RUN, &["--dry-run"]].concat()).output().expect("built with the test");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "ip -4 route replace default dev halfopen0 table 10400 protocol 104 src 10.81.1.2 advmss 1460",
        "ip -6 rule add pref 12 iif lo ipproto tcp dport 5432 lookup 10400 protocol 104",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(state(&lab.client), before);
}

/// A connection to another port, and UDP on the loopback, as a name server in a container has it.
fn others() {
    let mut lab = Lab::new(Way::Sidecar);
    let device = Sniffer::start(&lab.client, "halfopen0");
    for family in Family::ALL {
        let at = SocketAddr::new(crate::lab::server_at(family).ip(), PORT + 1);
        let listener = lab.server.run(|| crate::lab::listen(at).expect("a free port"));
        lab.way = Way::Direct;
        talk(&lab, &listener);
    }
    let udp = |ns: &Ns| ns.run(|| std::net::UdpSocket::bind("127.0.0.11:0").expect("a loopback address"));
    let (one, other) = (udp(&lab.client), udp(&lab.client));
    one.send_to(b"name?", other.local_addr().expect("bound")).expect("a local way");
    other.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    assert_eq!(other.recv(&mut [0; 16]).expect("it arrives"), 5);
    let seen = device.stop();
    assert!(seen.is_empty(), "the device has nothing to do with it: {seen:?}");
}
