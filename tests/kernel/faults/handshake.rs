//! The handshake against Linux.

use std::fs;
use std::time::Duration;

use halfopen::setup::netlink::Family;

use super::bench::{Bench, Proof, near, took};
use crate::lab::events::since_first;

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "syn-drop",
        entry: "H1",
        expected: "connect() late by the client's SYN schedule: 1.0 s for one lost SYN, 2.0 s for two (Linux 6.5 and later); at most 400 ms more",
        run: syn_drop,
    },
    Proof {
        fault: "syn-ack-delay",
        entry: "H22",
        expected: "connect() takes the delay, at most 400 ms more; beyond 1 s the SYN comes again at 1.02 s",
        run: syn_ack_delay,
    },
];

/// H1: connect() is late by the client's own SYN schedule. Linux 6.5 and later repeat a SYN every second at first
/// (`tcp_syn_linear_timeouts`), older ones double the wait.
fn syn_drop() -> String {
    let linear = fs::exists("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").expect("/proc is there");
    let mut seen = Vec::new();
    for (family, lost, seconds) in [(Family::V4, 1, 1), (Family::V6, 2, if linear { 2 } else { 3 })] {
        let mut bench = Bench::new(family, &[&format!("syn-drop first={lost}")]);
        let (_stream, time) = bench.connect();
        seen.push(took(&format!("connect with {lost} lost SYNs"), time, Duration::from_secs(seconds)));
        let log = bench.log();
        assert_eq!(
            log.segments("segment-in", "client", "S").len(),
            lost + 1,
            "the gateway sees each SYN\n{log}"
        );
        assert_eq!(log.segments("segment-out", "server", "S").len(), 1, "the server only the last\n{log}");
        assert_eq!(log.fired(), vec!["syn-drop client upstream drop S"; lost]);
    }
    seen.join("; ")
}

/// H22: connect() takes the delay; beyond 1 s the client repeats its SYN, and is connected all the same by the first answer.
fn syn_ack_delay() -> String {
    let mut told = Vec::new();
    for (family, delay, millis, syns) in [(Family::V4, "200ms", 200, 1), (Family::V6, "1.5s", 1500, 2)] {
        let mut bench = Bench::new(family, &[&format!("syn-ack-delay delay={delay}")]);
        let (_stream, time) = bench.connect();
        told.push(took(&format!("connect with a delay of {delay}"), time, Duration::from_millis(millis)));
        let log = bench.log();
        let seen = log.segments("segment-in", "client", "S");
        assert_eq!(seen.len(), syns, "{log}");
        near(&since_first(&seen), &[0.0, 1.02][..syns]);
        assert_eq!(
            log.segments("segment-out", "server", "S").len(),
            1,
            "the server has answered: no second dial\n{log}"
        );
        assert_eq!(log.fired()[0], "syn-ack-delay client downstream hold S.");
    }
    told.join("; ")
}
