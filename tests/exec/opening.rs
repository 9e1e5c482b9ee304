//! The faults of the handshake where the server leg is a kernel socket: the server accepts at once, and what the client sees is
//! what it sees through a gateway.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use crate::Single;
use crate::faults::{Bench, is_ready, took};

pub(crate) const SINGLES: &[Single] = &[
    ("final-ack-drop delays the greeting of the server", final_ack_drop),
    ("accept-stall holds the request back until it is over", accept_stall),
    ("accept-queue-full lets the client in and answers late", accept_queue_full),
    ("ghost-connection is silent", ghost_connection),
    ("pmtu-blackhole loses the large reply and not the small one", pmtu_blackhole),
    ("mss-rewrite makes the client's segments small", mss_rewrite),
];

fn final_ack_drop() {
    let bench = Bench::new(Family::V4, "final-ack-drop");
    let start = Instant::now();
    let (mut client, mut server) = bench.pair();
    server.write_all(b"220").expect("sent");
    client.read_exact(&mut [0; 3]).expect("the greeting");
    took("greeting", start.elapsed(), Duration::from_secs(1));
}

fn accept_stall() {
    let bench = Bench::new(Family::V6, "accept-stall hold=1500ms");
    let start = Instant::now();
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    server.read_exact(&mut [0; 7]).expect("the request");
    let time = start.elapsed();
    assert!(time > Duration::from_millis(1500) && time < Duration::from_millis(3600), "{time:?}");
}

fn accept_queue_full() {
    let bench = Bench::new(Family::V4, "accept-queue-full slots=1 release=2");
    let (mut client, mut server) = bench.pair();
    let start = Instant::now();
    client.write_all(b"x").expect("sent");
    server.read_exact(&mut [0]).expect("the request");
    let time = start.elapsed();
    assert!(time > Duration::from_millis(300) && time < Duration::from_millis(1100), "{time:?}");
}

fn ghost_connection() {
    let bench = Bench::new(Family::V4, "ghost-connection recover_on_data=false");
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    server.write_all(b"greeting").expect("taken by the kernel");
    let came = is_ready(&client, PollFlags::POLLIN | PollFlags::POLLHUP, Duration::from_millis(1500));
    assert!(!came, "something came");
}

fn pmtu_blackhole() {
    let bench = Bench::new(Family::V4, "pmtu-blackhole mtu=1400 direction=downstream");
    let (mut client, mut server) = bench.pair();
    server.write_all(b"small").expect("sent");
    client.read_exact(&mut [0; 5]).expect("the small one");
    server.write_all(&[7; 8000]).expect("taken by the kernel");
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_secs(1)), "the large one came");
    assert!(bench.fired(2).iter().all(|fired| fired.starts_with("pmtu-blackhole client downstream drop")));
}

fn mss_rewrite() {
    let bench = Bench::new(Family::V4, "mss-rewrite mss=536");
    let (mut client, mut server) = bench.pair();
    let size = SockRef::from(&client).tcp_mss().expect("a live socket");
    assert_eq!(size, 524, "with timestamps");
    client.write_all(&[7; 5000]).expect("sent");
    server.read_exact(&mut [0; 5000]).expect("all of it");
    server.write_all(&[7; 5000]).expect("sent");
    client.read_exact(&mut [0; 5000]).expect("all of it");
}
