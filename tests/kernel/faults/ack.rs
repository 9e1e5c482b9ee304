//! Acknowledgements against Linux.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::{SockRef, TcpKeepalive};

use super::bench::{Bench, Proof, SLACK, is_ready, near};
use crate::lab::events::{Entry, since_first};
use crate::lab::{self, errno};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "ack-delay",
        entry: "E7",
        expected: "write-write-read takes 40 ms (20 to 440 ms), with TCP_NODELAY less than 38 ms",
        run: ack_delay,
    },
    Proof {
        fault: "ack-drop",
        entry: "E8",
        expected: "the only ACK lost: the segment comes again after 0.21 s (15 % + 60 ms), its bytes arrive once; with p=0.3, 8 MiB arrive without anything to see",
        run: ack_drop,
    },
    Proof {
        fault: "ack-stretch",
        entry: "E9",
        expected: "n=8 time=20ms: 1 MiB arrives with at most one ACK for 8 full segments, but for the last ones; mode=compress time=50ms: ACKs leave in heaps, at least 40 ms apart",
        run: ack_stretch,
    },
    Proof {
        fault: "ack-storm",
        entry: "E30",
        expected: "100 old ACKs in 2 s draw 3 to 6 answers (tcp_invalid_ratelimit 500 ms), and the connection goes on",
        run: ack_storm,
    },
    Proof {
        fault: "keepalive-swallow",
        entry: "E13",
        expected: "idle 2 s, interval 1 s, 3 probes: probes at 2, 3, 4 s (15 % + 60 ms), ETIMEDOUT on a healthy connection after 5 to 5.5 s",
        run: keepalive_swallow,
    },
    Proof {
        fault: "keepalive-swallow",
        entry: "E13",
        expected: "fake=true before a black hole: idle 1 s, interval 1 s, 2 probes do not notice the dead peer in 5 s",
        run: keepalive_fake,
    },
];

/// E8: an ACK that is lost shows only if it was the last one.
fn ack_drop() -> String {
    let mut bench = Bench::new(Family::V4, &["ack-drop p=1 first=1"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    server.read_exact(&mut [0; 7]).expect("it arrives");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(500)), "it arrives once");
    let log = bench.log();
    let sent: Vec<&Entry> = log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() > 0).collect();
    assert_eq!(sent.len(), 2, "one repetition");
    let times = near(&since_first(&sent), &[0.0, 0.21]);
    let mut bench = Bench::new(Family::V6, &["ack-drop p=0.3"]);
    let bytes = upload(&bench, 8 << 20);
    let lost = bench.log().fired().len();
    assert!(lost > 0, "some ACKs are lost");
    format!("sent at {times}; {bytes} bytes arrive with {lost} ACKs lost")
}

/// Sends this many bytes to the server, to the end; how many arrived.
fn upload(bench: &Bench, bytes: usize) -> usize {
    let (mut client, mut server) = bench.pair();
    let writer = std::thread::spawn(move || client.write_all(&vec![7; bytes]));
    let (got, end) = lab::drain(&mut server);
    writer.join().expect("it only writes").expect("no error");
    assert_eq!((got.len(), end.as_str()), (bytes, "EOF"));
    got.len()
}

/// E9: few ACKs, or many at once.
fn ack_stretch() -> String {
    let mut bench = Bench::new(Family::V4, &["ack-stretch n=8 time=20ms"]);
    let bytes = upload(&bench, 1 << 20);
    let acks = bench.log().segments("segment-out", "client", ".").len();
    let most = bytes / 1448 / 8 + 8;
    assert!(acks > 0 && acks <= most, "{acks} ACKs, at most {most} expected");
    let mut bench = Bench::new(Family::V4, &["ack-stretch mode=compress time=50ms"]);
    upload(&bench, 256 << 10);
    let log = bench.log();
    let begin = log.0.iter().find(|e| e.did() == "hold").expect("ACKs are held").at();
    let out = log.segments("segment-out", "client", ".").into_iter().map(Entry::at);
    let out: Vec<Duration> = out.filter(|at| *at > begin).collect();
    let gaps: Vec<Duration> = out.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let between = |gap: &Duration| *gap > Duration::from_millis(5) && *gap < Duration::from_millis(40);
    assert!(!gaps.iter().any(between), "heaps, not a stream: {gaps:.0?}");
    let heaps = gaps.iter().filter(|gap| **gap >= Duration::from_millis(40)).count() + 1;
    assert!(heaps > 1 && out.len() > heaps, "{} ACKs in {heaps} heaps", out.len());
    format!("{acks} ACKs for {bytes} bytes; {} ACKs in {heaps} heaps", out.len())
}

/// E30: the kernel answers few of the ACKs that it cannot use.
fn ack_storm() -> String {
    let mut bench = Bench::new(Family::V4, &["ack-storm n=100 per_second=50"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"x").expect("sent");
    server.read_exact(&mut [0; 1]).expect("it arrives");
    server.write_all(b"yz").expect("sent");
    client.read_exact(&mut [0; 2]).expect("it arrives");
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(2300)), "nothing to see");
    client.write_all(b"still there?").expect("sent");
    server.read_exact(&mut [0; 12]).expect("the connection goes on");
    let log = bench.log();
    let begin = log.0.iter().find(|e| e.did() == "inject").expect("a storm").at();
    let within = |e: &&Entry| e.at() >= begin && e.at() < begin + Duration::from_millis(2100);
    let sent = log.segments("segment-out", "client", ".").into_iter().filter(within).count();
    let answers = log.segments("segment-in", "client", ".").into_iter().filter(within).count();
    assert!((100..=102).contains(&sent) && (3..=6).contains(&answers), "{answers} answers to {sent} ACKs");
    format!("{answers} answers to {sent} ACKs, then all goes on")
}

fn set_keepalive(stream: &TcpStream, idle: u64, interval: u64, probes: u32) {
    let settings = TcpKeepalive::new()
        .with_time(Duration::from_secs(idle))
        .with_interval(Duration::from_secs(interval))
        .with_retries(probes);
    SockRef::from(stream).set_tcp_keepalive(&settings).expect("a live socket");
}

/// E13: a healthy connection dies of its own keepalive.
fn keepalive_swallow() -> String {
    let mut bench = Bench::new(Family::V4, &["keepalive-swallow"]);
    let (mut client, server) = bench.pair();
    set_keepalive(&client, 2, 1, 3);
    let begin = Instant::now();
    let read = client.read(&mut [0; 1]).expect_err("no data, and no answer");
    let time = begin.elapsed();
    assert_eq!(errno(&read), "ETIMEDOUT");
    assert!(time >= Duration::from_millis(4900) && time < Duration::from_millis(5500), "{time:?}");
    drop(server);
    let log = bench.log();
    let first = log.segments("segment-in", "client", ".")[0].at();
    let dropped: Vec<f64> = log
        .0
        .iter()
        .filter(|e| e.did() == "drop")
        .map(|e| e.at().saturating_sub(first).as_secs_f64())
        .collect();
    assert_eq!(dropped.len(), 3, "{dropped:?}");
    assert_eq!(log.segments("segment-in", "client", "R.").len(), 1, "it resets the peer");
    format!("probes at {}; ETIMEDOUT after {:.2} s", near(&dropped, &[2.0, 3.0, 4.0]), time.as_secs_f64())
}

/// E13: a dead peer lives on in the answers of a middlebox.
fn keepalive_fake() -> String {
    let mut bench = Bench::new(Family::V6, &["keepalive-swallow fake=true", "blackhole after=500ms"]);
    let (client, _server) = bench.pair();
    set_keepalive(&client, 1, 1, 2);
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_secs(5)), "nothing is noticed");
    assert!(client.take_error().expect("a live socket").is_none(), "no error");
    let log = bench.log();
    let faked = log.0.iter().filter(|e| e.did() == "inject").count();
    assert!((3..=5).contains(&faked), "{faked}");
    format!("{faked} probes answered, no error in 5 s")
}

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
