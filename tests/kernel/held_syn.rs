//! The client's SYN, which the kernel holds until its server has answered: what a client of kernel sockets sees of its server's
//! answer, in a gateway and in a sidecar, and faults of the handshake.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::engine::sockets::{AnswerMarks, Queue};
use halfopen::setup::netlink::{Family, RouteKind};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::lab::events::Events;
use crate::lab::process::command;
use crate::lab::{Lab, PATIENCE, PORT, Way, address, chosen, compare_in, drain, errno, outcome, server_at};
use crate::setup::fails;
use crate::sidecar::word;
use crate::tproxy::{PLACES, host, run, untouched};
use crate::{Row, Single, VERSIONS, handshake, trial};

const SINGLES: &[Single] = &[
    ("an ICMP error over IPv4 is told beside its client by a RST", told_by_a_reset),
    ("faults of the handshake meet the SYN", handshakes),
    (
        "where another program has our queue, who is refused is connected first and then reset, which is told",
        no_queue,
    ),
];

// Rows of the handshake that do not ask for the options of the peers, or for the schedule of a client that gives up: the server
// sees those of this host's kernel.
const REFUSED: &[&str] = &["a refused connection is refused to the client"];
const SILENT: &[&str] = &["a silent server sees the client's own SYNs, and the client sees nothing"];

/// The same about ICMP errors, which the kernel sends. A sidecar's cannot send those of IPv4; and a gateway's tells the client that
/// there is no neighbour, not our socket.
const ERRORS: &[&str] = &[
    "an ICMP error in answer to a SYN reaches the client with its meaning",
    "a router without a route tells the client",
];

pub(crate) fn trials() -> Vec<Trial> {
    let single = |(name, test): &Single| trial(format!("held SYN: {name}"), *test);
    let mut trials: Vec<Trial> = SINGLES.iter().map(single).collect();
    for (place, way) in PLACES {
        for (names, families) in
            [(REFUSED, &Family::ALL[..]), (SILENT, silent_of(way)), (ERRORS, errors_of(way))]
        {
            for row in chosen(handshake::ROWS, names) {
                trials.extend(families.iter().map(|family| compared(place, way, row, *family)));
            }
        }
    }
    trials
}

/// On the server's host, nobody else's silence can be seen.
fn silent_of(way: Way) -> &'static [Family] {
    if way == Way::InboundSockets { &[] } else { &Family::ALL }
}

/// The families of which the kernel sends ICMP errors for our sockets. On the server's host, nobody else's can be seen.
fn errors_of(way: Way) -> &'static [Family] {
    match way {
        Way::GatewaySockets => &Family::ALL,
        Way::SidecarSockets => &[Family::V6],
        _ => &[],
    }
}

fn compared(place: &str, way: Way, (name, row): Row, family: Family) -> Trial {
    let version = VERSIONS.into_iter().find(|(of, _)| *of == family).expect("one of both").1;
    trial(format!("held SYN: {place}: {name} ({version})"), move || {
        // As any router, a gateway limits its errors to one a second.
        let unlimited = |lab: &mut Lab| {
            lab.gateway.sysctl("net/ipv4/icmp_ratelimit", "0");
            lab.gateway.sysctl("net/ipv6/icmp/ratelimit", "0");
        };
        compare_in(way, unlimited, |lab| row(lab, family));
    })
}

/// Has our queue, as another program might; then it is as on a kernel that cannot hold SYNs.
pub(crate) fn take_queue(lab: &Lab, way: Way) -> Queue {
    let marks = AnswerMarks { answered: 1, offered: 2, reset: 3, unreachable: 4 };
    host(lab, way).run(|| Queue::bind(10_400, marks)).expect("the queue is free")
}

/// Nothing is known of the server when its client is answered.
fn no_queue() {
    for (_, way) in PLACES {
        let mut lab = untouched(way);
        let _taken = take_queue(&lab, way);
        let args = [&run(way)[..], &["--fault", "syn-drop"]].concat();
        let says = ["rule `syn-drop` cannot be done here", "queue 10400", "the tun engine can"];
        fails(host(&lab, way), &mut command(host(&lab, way), &args), 69, &says);
        let config = tempfile::NamedTempFile::new().expect("a file");
        lab.start(&["--config", config.path().to_str().expect("a plain name")]);
        let said = lab.halfopen.as_ref().expect("it runs").said();
        assert!(said.contains("a client is accepted before its server is dialled: queue 10400"), "{said}");
        for family in Family::ALL {
            let seen = match lab.connect(server_at(family)) {
                // The reset may come before the connect has returned.
                Err(e) => errno(&e),
                Ok(mut client) => drain(&mut client).1,
            };
            assert_eq!(seen, "ECONNRESET", "{way:?} {family:?}");
        }
        fs::write(config.path(), "[[rule]]\nfault.syn-drop = {}\n").expect("a file");
        let halfopen = lab.halfopen.as_ref().expect("it runs");
        halfopen.signal(Signal::SIGHUP);
        let begin = Instant::now();
        while !halfopen.said().contains("the old rules stay") {
            assert!(begin.elapsed() < PATIENCE, "it says why: {}", halfopen.said());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn told_by_a_reset() {
    let lab = Lab::new(Way::SidecarSockets);
    lab.server.forward(&["s0"]);
    lab.server.route(Family::V4, Some((4, 1)), None, RouteKind::Unreachable);
    let refused = lab.connect(SocketAddr::new(address(Family::V4, 4, 1), PORT));
    assert_eq!(outcome(&refused), "ECONNREFUSED");
}

/// What the handshake of a client meets, in each place: how long it takes at least, or how it fails; and what is told of it.
fn handshakes() {
    let table = [
        ("syn-drop", 1000, "ok", "syn-drop client upstream drop S"),
        ("syn-ack-drop", 1000, "ok", "syn-ack-drop client downstream drop S."),
        ("syn-ack-delay delay=300ms", 300, "ok", "syn-ack-delay client downstream hold S."),
        ("refuse delay=100ms", 100, "ECONNREFUSED", "refuse client upstream drop S"),
        ("refuse style=icmp-host", 0, "EHOSTUNREACH", "refuse client upstream drop S"),
    ];
    for (_, way) in PLACES {
        for (rule, millis, expected, told) in table {
            // What a sidecar cannot say is shown by another row.
            let said = match (way, expected) {
                (Way::SidecarSockets, "EHOSTUNREACH") => "ECONNREFUSED",
                _ => expected,
            };
            let mut lab = untouched(way);
            let events = Events::new();
            lab.start(&["--fault", rule, "--events", events.path()]);
            let listener = lab.listen(Family::V4);
            let start = Instant::now();
            let result = lab.connect(server_at(Family::V4));
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(millis), "{way:?} {rule}: {took:?}");
            let seen = match result {
                Err(e) => errno(&e),
                Ok(mut client) if said == "ok" => {
                    let (mut server, _) = listener.accept().expect("a client");
                    word(&mut client, &mut server);
                    "ok".to_owned()
                }
                Ok(mut client) => drain(&mut client).1,
            };
            assert_eq!(seen, said, "{way:?} {rule}");
            let log = events.after(lab.halfopen.take().expect("it runs"));
            assert_eq!(log.fired().first().map(String::as_str), Some(told), "{way:?} {rule}: {log}");
        }
    }
}
