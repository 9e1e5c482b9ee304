//! Shaped bytes against Linux.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use super::bench::{Bench, Proof, is_ready, took};
use crate::lab;

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "latency",
        entry: "X1",
        expected: "a reply comes later by the latency, at most 400 ms more; connect() does not",
        run: latency,
    },
    Proof { fault: "bandwidth", entry: "X2", expected: "200 kB at 100 kB/s take 1.9 to 4 s", run: bandwidth },
    Proof {
        fault: "bandwidth",
        entry: "X2",
        expected: "the writer is stopped: in the first second a server that writes all it can is rid of 100 to 500 kB, and with rate=0 of less than 300 kB for ever, without an error",
        run: bandwidth_stops_the_writer,
    },
    Proof {
        fault: "bandwidth",
        entry: "E27",
        expected: "rate=1Mbit buffer=125kB: a byte alone takes less than 0.4 s, one behind 100 kB 0.75 to 3 s",
        run: bufferbloat,
    },
    Proof {
        fault: "bandwidth",
        entry: "E28",
        expected: "rate=1Mbit: 125 kB take 0.95 to 3 s, 250 kB 1.9 to 4 s",
        run: rate,
    },
    Proof {
        fault: "slow-close",
        entry: "X3",
        expected: "the reply comes at once and end-of-file 1 s (at most 400 ms more) after it",
        run: slow_close,
    },
    Proof {
        fault: "slow-close",
        entry: "T2",
        expected: "direction=upstream: the server reads the client's end of file 1 s (at most 400 ms more) late, and its reply still arrives",
        run: fin_delay,
    },
    Proof {
        fault: "timeout",
        entry: "X4",
        expected: "no byte of the reply arrives; 1 s after it (at most 400 ms more) both sides read end-of-file",
        run: timeout,
    },
    Proof {
        fault: "reset-peer",
        entry: "X5",
        expected: "an idle connection is reset on both sides after 500 ms (at most 400 ms more): ECONNRESET",
        run: reset_peer,
    },
    Proof {
        fault: "slicer",
        entry: "X6",
        expected: "640 bytes in pieces of 64, 50 ms apart, take 0.45 to 2 s, no segment has more than a few of them, and all are right",
        run: slicer,
    },
    Proof {
        fault: "limit-data",
        entry: "X7",
        expected: "1000 of 100 kB arrive, then end-of-file; with style=rst 1000 bytes, then ECONNRESET; the writer hears of it",
        run: limit_data,
    },
];

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

/// How long `server` needs to get this many bytes to `client`.
fn download(client: &mut TcpStream, server: &TcpStream, len: usize) -> Duration {
    let mut writer = server.try_clone().expect("a descriptor");
    let begin = Instant::now();
    let writing = std::thread::spawn(move || writer.write_all(&vec![7; len]));
    client.read_exact(&mut vec![0; len]).expect("all arrives");
    let time = begin.elapsed();
    writing.join().expect("it only writes").expect("no error");
    time
}

/// Asserts that a time is between two others, in milliseconds; a loaded machine is only slower.
#[track_caller]
fn between(what: &str, time: Duration, least: u64, most: u64) -> String {
    let within = time >= Duration::from_millis(least) && time < Duration::from_millis(most);
    assert!(within, "{what} took {time:?} instead of {least} to {most} ms");
    format!("{what}: {:.2} s", time.as_secs_f64())
}

fn bandwidth() -> String {
    let mut bench = Bench::new(Family::V6, &["bandwidth rate=100kB/s direction=downstream"]);
    let (mut client, server) = bench.pair();
    let time = download(&mut client, &server, 200_000);
    assert_eq!(bench.log().fired(), ["bandwidth client downstream knob"]);
    between("200 kB", time, 1900, 4000)
}

/// What a server gets rid of in a second.
fn written_in_a_second(rule: &str) -> usize {
    let bench = Bench::new(Family::V4, &[rule]);
    let (client, mut server) = bench.pair();
    let mut reader = client.try_clone().expect("a descriptor");
    let reading = std::thread::spawn(move || while reader.read(&mut [0; 64 << 10]).is_ok_and(|n| n > 0) {});
    SockRef::from(&server).set_send_buffer_size(32 << 10).expect("a live socket");
    server.set_nonblocking(true).expect("a live socket");
    let (begin, mut written) = (Instant::now(), 0);
    while let Some(left) = Duration::from_secs(1).checked_sub(begin.elapsed()) {
        match server.write(&[7; 4 << 10]) {
            Ok(n) => written += n,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                is_ready(&server, PollFlags::POLLOUT, left);
            }
        }
    }
    client.shutdown(Shutdown::Both).expect("a live socket");
    reading.join().expect("it only reads");
    written
}

fn bandwidth_stops_the_writer() -> String {
    let slow = written_in_a_second("bandwidth rate=100kB/s");
    assert!((100_000..500_000).contains(&slow), "{slow}");
    let none = written_in_a_second("bandwidth rate=0");
    assert!(none < 300_000, "{none}");
    format!("{} kB in a second; {} kB with rate=0", slow / 1000, none / 1000)
}

/// E27: the queue before a slow link is what a reply behind a bulk transfer waits for.
fn bufferbloat() -> String {
    let bench = Bench::new(Family::V4, &["bandwidth rate=1Mbit buffer=125kB"]);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    server.write_all(b"x").expect("sent");
    client.read_exact(&mut [0; 1]).expect("it arrives");
    let alone = between("alone", begin.elapsed(), 0, 400);
    let loaded = download(&mut client, &server, 100_001);
    format!("{alone}; {}", between("behind 100 kB", loaded, 750, 3000))
}

fn rate() -> String {
    let bench = Bench::new(Family::V6, &["bandwidth rate=1Mbit"]);
    let (mut client, server) = bench.pair();
    let one = download(&mut client, &server, 125_000);
    let two = download(&mut client, &server, 250_000);
    format!("{}; {}", between("125 kB", one, 950, 3000), between("250 kB", two, 1900, 4000))
}

fn slow_close() -> String {
    let bench = Bench::new(Family::V4, &["slow-close delay=1s"]);
    let (mut client, mut server) = bench.pair();
    server.write_all(b"all there is").expect("sent");
    let begin = Instant::now();
    drop(server);
    client.read_exact(&mut [0; 12]).expect("the data come");
    between("the data", begin.elapsed(), 0, 400);
    assert_eq!(client.read(&mut [0; 1]).expect("end of file"), 0);
    took("end-of-file after close()", begin.elapsed(), Duration::from_secs(1))
}

fn fin_delay() -> String {
    let bench = Bench::new(Family::V6, &["slow-close delay=1s direction=upstream"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"ping").expect("sent");
    let begin = Instant::now();
    client.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(lab::drain(&mut server), (b"ping".to_vec(), "EOF".to_owned()));
    let seen = took("end-of-file after shutdown()", begin.elapsed(), Duration::from_secs(1));
    server.write_all(b"pong").expect("sent");
    drop(server);
    assert_eq!(lab::drain(&mut client), (b"pong".to_vec(), "EOF".to_owned()));
    seen
}

fn timeout() -> String {
    let bench = Bench::new(Family::V4, &["timeout timeout=1s"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut [0; 4]).expect("the other direction is not touched");
    let begin = Instant::now();
    server.write_all(&[7; 10_000]).expect("acknowledged");
    assert_eq!(lab::drain(&mut client), (Vec::new(), "EOF".to_owned()));
    let seen = took("end-of-file after the reply", begin.elapsed(), Duration::from_secs(1));
    assert_eq!(lab::drain(&mut server), (Vec::new(), "EOF".to_owned()));
    seen
}

fn reset_peer() -> String {
    let bench = Bench::new(Family::V6, &["reset-peer timeout=500ms"]);
    let begin = Instant::now();
    let (mut client, mut server) = bench.pair();
    for stream in [&mut client, &mut server] {
        assert_eq!(lab::drain(stream), (Vec::new(), "ECONNRESET".to_owned()));
    }
    took("ECONNRESET after connect()", begin.elapsed(), Duration::from_millis(500))
}

fn slicer() -> String {
    let mut bench = Bench::new(Family::V4, &["slicer average_size=64 delay=50ms"]);
    let (mut client, mut server) = bench.pair();
    let sent: Vec<u8> = (0..640).map(|i| (i % 251) as u8).collect();
    let begin = Instant::now();
    server.write_all(&sent).expect("sent");
    let mut got = vec![0; 640];
    client.read_exact(&mut got).expect("all arrives");
    let seen = between("640 bytes", begin.elapsed(), 450, 2000);
    assert_eq!(got, sent);
    let log = bench.log();
    let pieces = log.0.iter().filter(|e| e.is("segment-out", "client") && e.len() > 0).map(|e| e.len());
    let pieces: Vec<u32> = pieces.collect();
    // Pieces that are late together leave together.
    assert!(pieces.len() >= 5 && pieces.iter().all(|len| *len <= 5 * 64), "{pieces:?}");
    format!("{seen} in {} segments", pieces.len())
}

fn limit_data() -> String {
    for (style, end) in [("fin", "EOF"), ("rst", "ECONNRESET")] {
        let bench = Bench::new(Family::V6, &[&format!("limit-data bytes=1000 style={style}")]);
        let (mut client, mut server) = bench.pair();
        let written = server.write_all(&[7; 100_000]);
        assert_eq!(lab::drain(&mut client), (vec![7; 1000], end.to_owned()), "{style}");
        // The reset may come while the kernel still takes bytes; then it is told by write().
        let heard = written.map_or_else(|e| (Vec::new(), lab::errno(&e)), |()| lab::drain(&mut server));
        assert_eq!(heard, (Vec::new(), end.to_owned()), "{style}");
    }
    "1000 bytes and EOF, 1000 bytes and ECONNRESET, on both sides".to_owned()
}
