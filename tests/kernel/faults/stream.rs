//! Shaped bytes against Linux.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;

use super::bench::{Bench, Proof, took};

pub(super) const PROOFS: &[Proof] = &[Proof {
    fault: "latency",
    entry: "X1",
    expected: "a reply comes later by the latency, at most 400 ms more; connect() does not",
    run: latency,
}];

/// The reply takes the latency, and only once however many bytes it has.
fn latency() -> String {
    let mut bench = Bench::new(Family::V4, &["latency latency=300ms direction=downstream"]);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut [0; 4]).expect("upstream is not touched");
    server.write_all(&[7; 100_000]).expect("taken");
    client.read_exact(&mut [0; 100_000]).expect("all arrives");
    let seen = took("100 kB after a request", begin.elapsed(), Duration::from_millis(300));
    assert_eq!(bench.log().fired(), ["latency client downstream knob"]);
    seen
}
