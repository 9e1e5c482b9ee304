//! Connections to `::1` in the network namespace of a sidecar, which go by a device of their own.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::sys::signal::Signal;

use crate::Single;
use crate::lab::{Lab, PATIENCE, Way};
use crate::setup::{carried_by, state, talk};
use crate::sidecar::word;

pub(crate) const SINGLES: &[Single] = &[
    ("connections to ::1 go by a device of their own, and are direct after a kill", loopback_v6),
    ("while a flow ends, connections to ::1 pass, and a second signal ends it at once", stopping),
];

fn loopback_v6() {
    for (early_demux, way) in [("1", Way::Sidecar), ("0", Way::SamePort)] {
        let mut lab = Lab::new(Way::Direct);
        lab.client.sysctl("net/ipv4/tcp_early_demux", early_demux);
        lab.bring_home(Ipv6Addr::LOCALHOST.into());
        let listener = lab.listen(Family::V6);
        let mut old = lab.pair_by(&listener);
        let mut say = || {
            word(&mut old.0, &mut old.1);
            word(&mut old.1, &mut old.0);
        };
        for kills in [true, false] {
            lab.way = way;
            lab.start(&["--json"]);
            say();
            talk(&lab, &listener);
            let (mut client, mut server) = lab.pair_by(&listener);
            word(&mut client, &mut server);
            word(&mut server, &mut client);
            assert!(carried_by(&lab.client, "halfopen-lo") >= 15, "they take the way through the device");
            lab.way = Way::Direct;
            let mut halfopen = lab.halfopen.take().expect("it runs");
            if kills {
                halfopen.end_by(Signal::SIGKILL);
                let begin = Instant::now();
                talk(&lab, &listener);
                assert!(begin.elapsed() < Duration::from_secs(1), "direct after {:?}", begin.elapsed());
            } else {
                drop((client, server));
                assert_eq!(halfopen.finish()["flows"], 2);
                let end = state(&lab.client);
                assert!(end.rules.is_empty() && end.routes.is_empty(), "{end:?}");
            }
            say();
        }
    }
}

/// The device of ::1 has no flows, and stays as long as the other one has.
fn stopping() {
    let mut lab = Lab::with(Way::Sidecar, &["--json", "--grace", "60s"]);
    let _open = lab.pair(Family::V4);
    let mut halfopen = lab.halfopen.take().expect("it runs");
    halfopen.signal(Signal::SIGTERM);
    let begin = Instant::now();
    while !halfopen.said().contains("stopping") {
        assert!(begin.elapsed() < PATIENCE, "it hears the signal");
        thread::sleep(Duration::from_millis(5));
    }
    // Long enough for a shard without flows to have ended.
    thread::sleep(Duration::from_millis(300));
    lab.way = Way::Direct;
    lab.bring_home(Ipv6Addr::LOCALHOST.into());
    talk(&lab, &lab.listen(Family::V6));
    assert!(halfopen.is_alive(), "a flow is open");
    assert!(halfopen.end_by(Signal::SIGTERM).success());
    assert_eq!(halfopen.summary()["flows"], 1);
}
