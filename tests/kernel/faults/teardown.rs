//! The end of a connection against Linux.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;

use super::bench::{Bench, Proof, is_ready, near};
use crate::lab::events::since_first;

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "half-close-broken",
        entry: "T7",
        expected: "after shutdown(WR) the client reads end-of-file instead of the reply; the server gets the whole request",
        run: half_close_broken,
    },
    Proof {
        fault: "fin-drop",
        entry: "T1",
        expected: "the closer stays in FIN-WAIT-1 and sends its FIN at 0.21, 0.42, 0.84, 1.68 s (a tail loss probe first; without it 0.21, 0.64, 1.5, 3.1 s); no EOF at the other side",
        run: fin_drop,
    },
];

/// T1: the closer stays in FIN-WAIT-1 and repeats its FIN; the other side reads no end of file, and its data still arrive.
/// With SACK, Linux's first repetition is a tail loss probe, which does not count as a timeout: one step more at the start.
fn fin_drop() -> String {
    let schedules = [
        (Family::V4, "3", &[0.0, 0.21, 0.42, 0.84, 1.68, 3.3][..]),
        (Family::V6, "0", &[0.0, 0.21, 0.64, 1.5, 3.1]),
    ];
    let mut seen = Vec::new();
    for (family, tcp_early_retrans, schedule) in schedules {
        let mut bench = Bench::new(family, &["fin-drop direction=downstream first=all"]);
        bench.lab.server.sysctl("net/ipv4/tcp_early_retrans", tcp_early_retrans);
        let (mut client, mut server) = bench.pair();
        server.write_all(b"all there is").expect("sent");
        server.shutdown(Shutdown::Write).expect("a live socket");
        let mut all = [0; 12];
        client.read_exact(&mut all).expect("the data arrive");
        assert_eq!(&all, b"all there is");
        let eof = is_ready(&client, PollFlags::POLLIN, Duration::from_millis(3700));
        assert!(!eof, "the client reads an end of file");
        assert_eq!(bench.server_states(), ["04"], "the closer stays in FIN-WAIT-1");
        client.write_all(b"ping").expect("the other direction is open");
        let mut ping = [0; 4];
        server.read_exact(&mut ping).expect("the other direction is open");
        assert_eq!(&ping, b"ping");
        let log = bench.log();
        let fins: Vec<_> =
            log.0.iter().filter(|e| e.is("segment-in", "server") && e.flags().contains('F')).collect();
        seen.push(near(&since_first(&fins), schedule));
        assert!(
            log.fired().iter().all(|f| f.starts_with("fin-drop server downstream ")),
            "{:?}",
            log.fired()
        );
        assert_eq!(log.fired().len(), fins.len(), "every FIN is swallowed");
    }
    format!("FIN-WAIT-1, no EOF; FINs at {}", seen.join(" and "))
}

/// T7: the reply after the client's FIN is lost.
fn half_close_broken() -> String {
    let bench = Bench::new(Family::V4, &["half-close-broken"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    client.shutdown(Shutdown::Write).expect("a live socket");
    let mut request = Vec::new();
    server.read_to_end(&mut request).expect("FIN");
    assert_eq!(request, b"request");
    server.write_all(b"reply").expect("taken by the kernel");
    assert_eq!(client.read(&mut [0; 5]).expect("no error"), 0, "end of file");
    "read() = 0; the server read 7 bytes and end-of-file".to_owned()
}
