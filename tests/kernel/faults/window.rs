//! Receive windows against Linux.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use super::bench::{Bench, Proof, SLACK, is_ready, near};
use crate::lab;
use crate::lab::events::{Entry, since_first};

pub(super) const PROOFS: &[Proof] = &[Proof {
    fault: "zero-window-stall",
    entry: "E1",
    expected: "send() blocks for the hold without an error, probes at 0.21, 0.63, 1.46, 3.1 s (15 % + 60 ms), every byte arrives",
    run: zero_window_stall,
}];

/// E1: send() blocks without an error while probes are answered, goes on after the hold, and no byte is lost.
fn zero_window_stall() -> String {
    const HOLD: Duration = Duration::from_secs(4);
    let mut bench = Bench::new(Family::V6, &["zero-window-stall hold=4s after_bytes=64KiB"]);
    let (mut client, server) = bench.pair();
    let reader = std::thread::spawn(move || count(server));
    SockRef::from(&client).set_send_buffer_size(64 << 10).expect("a live socket");
    client.set_nonblocking(true).expect("a live socket");
    let (mut written, mut longest) = (0, Duration::ZERO);
    while written < 2 << 20 {
        match client.write(&[7; 16 << 10]) {
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let begin = Instant::now();
                assert!(is_ready(&client, PollFlags::POLLOUT, lab::PATIENCE), "it never goes on");
                longest = longest.max(begin.elapsed());
            }
            Err(e) => panic!("the stall shows as an error: {e}"),
        }
    }
    assert!(longest + SLACK > HOLD && longest < HOLD + SLACK, "blocked for {longest:?} instead of {HOLD:?}");
    drop(client);
    assert_eq!(reader.join().expect("it only counts"), written, "every byte arrives");
    let log = bench.log();
    assert_eq!(
        log.fired(),
        ["zero-window-stall client upstream knob", "zero-window-stall client upstream release"]
    );
    // Probes: empty segments with an old number, from the last data on.
    let release = log.0.iter().rfind(|e| e.text("event") == "fired").expect("it was released").at();
    let before = |e: &&Entry| e.is("segment-in", "client") && e.at() < release;
    let seen: Vec<&Entry> = log.0.iter().filter(before).collect();
    let last_data = seen.iter().rposition(|e| e.len() > 0).expect("data came before the stall");
    let probes = near(&since_first(&seen[last_data..]), &[0.0, 0.21, 0.63, 1.46, 3.1]);
    format!("blocked for {:.2} s; probes at {probes}", longest.as_secs_f64())
}

fn count(mut stream: TcpStream) -> usize {
    let mut total = 0;
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer).expect("the stream goes on") {
            0 => return total,
            n => total += n,
        }
    }
}
