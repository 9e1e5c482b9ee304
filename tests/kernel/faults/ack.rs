//! Acknowledgements against Linux.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;

use super::bench::{Bench, Proof, SLACK};

pub(super) const PROOFS: &[Proof] = &[Proof {
    fault: "ack-delay",
    entry: "E7",
    expected: "write-write-read takes 40 ms (20 to 440 ms), with TCP_NODELAY less than 38 ms",
    run: ack_delay,
}];

/// E7: write-write-read waits for the ACK of the first write, unless TCP_NODELAY is set.
fn ack_delay() -> String {
    let bench = Bench::new(Family::V4, &["ack-delay delay=40ms"]);
    let (mut client, mut server) = bench.pair();
    let echo = std::thread::spawn(move || {
        let mut pair = [0; 2];
        while server.read_exact(&mut pair).is_ok() && server.write_all(&pair).is_ok() {}
    });
    let mut round = |nodelay: bool| {
        client.set_nodelay(nodelay).expect("a live socket");
        let begin = Instant::now();
        client.write_all(b"a").expect("sent");
        client.write_all(b"b").expect("sent");
        client.read_exact(&mut [0; 2]).expect("echoed");
        begin.elapsed()
    };
    let delayed: Vec<Duration> = (0..20).map(|_| round(false)).collect();
    let direct: Vec<Duration> = (0..20).map(|_| round(true)).collect();
    let (least, least_direct) = (delayed.iter().min(), direct.iter().min());
    // The 40 ms begin with the byte before, so that a slow echo takes some of them.
    assert!(least >= Some(&Duration::from_millis(20)), "Nagle's algorithm waits for the ACK: {delayed:?}");
    assert!(least < Some(&(Duration::from_millis(40) + SLACK)), "but not longer: {delayed:?}");
    assert!(least_direct < Some(&Duration::from_millis(38)), "TCP_NODELAY does not wait: {direct:?}");
    drop(client);
    echo.join().expect("it only echoes");
    format!("least of 20: {least:.1?} with Nagle, {least_direct:.1?} with TCP_NODELAY")
}
