//! The open connection against Linux.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use super::bench::{Bench, Proof, is_ready, near};
use crate::lab::errno;
use crate::lab::events::since_first;

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "blackhole",
        entry: "E14",
        expected: "writes succeed, nothing comes back; the client repeats at 0.2, 0.6, 1.5, 3.1 s (15 % + 60 ms), TCP_USER_TIMEOUT = 3 s ends it with ETIMEDOUT after 3 to 4 s",
        run: blackhole,
    },
    Proof {
        fault: "rst-inject",
        entry: "E16",
        expected: "recv() ECONNRESET at the first byte, then send() EPIPE, on both sides",
        run: rst_inject,
    },
    Proof {
        fault: "rst-inject",
        entry: "E16",
        expected: "to=client: the client reads ECONNRESET, the server hears nothing until it writes",
        run: rst_inject_to_one_side,
    },
];

/// E16: both applications read ECONNRESET at the first data, and write EPIPE after it.
fn rst_inject() -> String {
    let mut bench = Bench::new(Family::V4, &["rst-inject to=both"]);
    let (mut client, mut server) = bench.pair();
    assert!(
        !is_ready(&client, PollFlags::POLLIN, Duration::from_millis(300)),
        "no reset before the first byte"
    );
    client.write_all(b"x").expect("sent");
    for (name, stream) in [("client", &mut client), ("server", &mut server)] {
        let read = stream.read(&mut [0; 1]).expect_err("a reset");
        assert_eq!(errno(&read), "ECONNRESET", "{name}");
        let write = stream.write(b"y").expect_err("a dead socket");
        assert_eq!(errno(&write), "EPIPE", "{name}");
    }
    assert_eq!(
        bench.log().fired(),
        ["rst-inject client downstream inject", "rst-inject server upstream inject"]
    );
    "recv ECONNRESET, then send EPIPE, on both sides".to_owned()
}

/// E16: a peer that gets no RST sees silence until it speaks, then RST.
fn rst_inject_to_one_side() -> String {
    let bench = Bench::new(Family::V6, &["rst-inject to=client after=300ms"]);
    let (mut client, mut server) = bench.pair();
    let read = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(errno(&read), "ECONNRESET");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(500)), "the server hears nothing");
    server.write_all(b"x").expect("sent");
    let read = server.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(errno(&read), "ECONNRESET");
    "client ECONNRESET; server nothing for 0.5 s, ECONNRESET after its write".to_owned()
}

/// E14: the application sees nothing but time; what it may set is TCP_USER_TIMEOUT.
fn blackhole() -> String {
    let mut bench = Bench::new(Family::V4, &["blackhole after_bytes=4"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut [0; 4]).expect("what came before the hole arrives");
    server.write_all(b"pong").expect("taken by the kernel");
    SockRef::from(&client).set_tcp_user_timeout(Some(Duration::from_secs(3))).expect("Linux has it");
    let begin = Instant::now();
    client.write_all(b"more").expect("taken by the kernel");
    let read = client.read(&mut [0; 4]).expect_err("no reply");
    let time = begin.elapsed();
    assert_eq!(errno(&read), "ETIMEDOUT");
    assert!(time >= Duration::from_secs(3) && time < Duration::from_millis(4400), "{time:?}");
    let log = bench.log();
    let sent: Vec<_> =
        log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() == 4).skip(1).collect();
    let times = near(&since_first(&sent), &[0.0, 0.21, 0.42, 0.84]);
    format!("ETIMEDOUT after {:.1} s; sent at {times}", time.as_secs_f64())
}
