//! Receive windows against Linux.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use super::bench::{Bench, Proof, SLACK, is_ready, near, took};
use crate::lab::events::{Entry, Log, since_first};
use crate::lab::{self, errno};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "zero-window-stall",
        entry: "E1",
        expected: "send() blocks for the hold without an error, probes at 0.21, 0.63, 1.46, 3.1 s (15 % + 60 ms), every byte arrives",
        run: zero_window_stall,
    },
    Proof {
        fault: "zero-window-stall",
        entry: "E2",
        expected: "answer_probes=false, TCP_USER_TIMEOUT = 3 s: ETIMEDOUT after 3 to 4.4 s",
        run: || user_timeout("zero-window-stall answer_probes=false hold=60s after_bytes=64KiB"),
    },
    Proof {
        fault: "zero-window-stall",
        entry: "E1",
        expected: "TCP_USER_TIMEOUT = 3 s fires against answered probes as well: ETIMEDOUT after 3 to 4.4 s",
        run: || user_timeout("zero-window-stall hold=60s after_bytes=64KiB"),
    },
    Proof {
        fault: "window-update-lost",
        entry: "E3",
        expected: "a reader that reads again is not noticed before the writer's next probe (0.21, 0.63, 1.46, 3.1 s after its last data; 15 % + 60 ms); data follow at once, and every byte arrives",
        run: window_update_lost,
    },
    Proof {
        fault: "tiny-window",
        entry: "E4",
        expected: "20 windows of 512 bytes at a round trip of 50 ms take 0.95 s, at most 0.4 s more; no segment is larger",
        run: tiny_window,
    },
    Proof {
        fault: "window-shrink",
        entry: "E5",
        expected: "pieces of 1000 bytes at 0.2, 0.6, 1.4, 3.1 s after the shrink (15 % + 60 ms), the last of them taken after a hold of 2 s; no error, every byte as it was",
        run: window_shrink,
    },
    Proof {
        fault: "window-shrink",
        entry: "E5",
        expected: "take=true: the 1000 bytes that fit are taken, then the window is closed for a hold of 2 s; no error, every byte as it was",
        run: window_shrink_takes,
    },
    Proof {
        fault: "silly-window",
        entry: "E6",
        expected: "step=1B pause=50ms: each update starts the persist timer anew, so that 36 bytes, the smallest MSS, leave when they have added up after 1.75 s; pause=300ms: single bytes, 0.2 s after each update (15 % + 60 ms)",
        run: silly_window,
    },
];

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

/// Writes until nothing has moved for `still`; how much, and when it last moved.
fn fill(client: &mut TcpStream, still: Duration) -> (usize, Instant) {
    SockRef::from(&*client).set_send_buffer_size(64 << 10).expect("a live socket");
    client.set_nonblocking(true).expect("a live socket");
    let (mut written, mut moved) = (0, Instant::now());
    while is_ready(client, PollFlags::POLLOUT, still) {
        match client.write(&[7; 16 << 10]) {
            Ok(n) => (written, moved) = (written + n, Instant::now()),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
        }
        assert!(written < 64 << 20, "the writer is never stopped");
    }
    client.set_nonblocking(false).expect("a live socket");
    (written, moved)
}

/// E2, and §0.7 of the catalogue: what TCP_USER_TIMEOUT makes of a closed window.
fn user_timeout(rule: &str) -> String {
    let bench = Bench::new(Family::V4, &[rule]);
    let (mut client, server) = bench.pair();
    SockRef::from(&client).set_tcp_user_timeout(Some(Duration::from_secs(3))).expect("Linux has it");
    let reader = std::thread::spawn(move || count(server));
    let (written, moved) = fill(&mut client, Duration::from_millis(500));
    assert!(written > 64 << 10, "the window closes after 64 KiB: {written}");
    let read = client.read(&mut [0; 1]).expect_err("no window, no reply");
    let time = moved.elapsed();
    assert_eq!(errno(&read), "ETIMEDOUT");
    assert!(time >= Duration::from_secs(3) && time < Duration::from_millis(4400), "{time:?}");
    drop((client, bench));
    // The server hears a reset, or nothing at all.
    drop(reader);
    format!("ETIMEDOUT after {:.1} s", time.as_secs_f64())
}

/// E3: the reader at the far end stops, so that windows close from there to the client, and reads again after a while.
fn window_update_lost() -> String {
    let mut bench = Bench::new(Family::V4, &["window-update-lost lose=1 after=1200ms"]);
    let (mut client, server) = bench.pair();
    let (written, _) = fill(&mut client, Duration::from_millis(900));
    let closed = |e: &Entry| e.is("segment-out", "client") && e.text("segment").contains(" win 0 ");
    // The rule, which counts from the handshake, must have seen it.
    bench.events.wait("closed window", |log| {
        let established = log.0.iter().find(|e| e.is("established", "client")).map(Entry::at);
        let seen = |e: &Entry| established.is_some_and(|at| e.at() > at + Duration::from_millis(1300));
        log.0.iter().any(|e| closed(e) && seen(e))
    });
    let reader = std::thread::spawn(move || count(server));
    assert!(is_ready(&client, PollFlags::POLLOUT, lab::PATIENCE), "it goes on");
    drop(client);
    assert_eq!(reader.join().expect("it only counts"), written, "every byte arrives");
    let log = bench.log();
    let lost = log.0.iter().find(|e| e.did() == "drop").expect("an update is lost").at();
    let seen: Vec<&Entry> = log.0.iter().filter(|e| e.is("segment-in", "client")).collect();
    let stall = seen.iter().rposition(|e| e.at() < lost && e.len() > 0).expect("data came before it");
    let probes = seen[stall + 1..].iter().take_while(|e| e.len() == 0).count();
    let stalled = &seen[stall..=stall + probes + 1];
    assert!(stalled[probes].at() > lost && stalled[probes - 1].at() < lost, "one probe after the loss");
    let times = since_first(stalled);
    let shown = near(&times[..=probes], &[0.0, 0.21, 0.63, 1.46, 3.1, 6.5][..=probes]);
    assert!(times[probes + 1] - times[probes] < SLACK.as_secs_f64(), "the answer is true: {times:?}");
    let lost = (lost - stalled[0].at()).as_secs_f64();
    format!("update lost at {lost:.2} s; last data and probes at {shown}, then data")
}

/// E4: one window per round trip. The round trip is that of the ACKs, which wait 50 ms. (With a FIN behind the last full
/// window Linux would wait for its persist timer: both do not fit.)
fn tiny_window() -> String {
    let faults = ["tiny-window window=512B", "ack-delay delay=50ms every_other=false"];
    let mut bench = Bench::new(Family::V6, &faults);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    client.write_all(&[7; 20 * 512]).expect("taken by the kernel");
    server.read_exact(&mut [0; 20 * 512]).expect("every byte arrives");
    let time = begin.elapsed();
    let log = bench.log();
    let data: Vec<u32> = log.0.iter().filter(|e| e.is("segment-in", "client")).map(Entry::len).collect();
    let largest = data.iter().max().expect("data came");
    assert!(*largest <= 512, "{data:?}");
    let first = Duration::from_millis(50) * 19;
    format!("{}; segments of at most {largest} bytes", took("10 KiB", time, first))
}

/// E5: the edge moves left below what is in flight; nothing is aborted and nothing is corrupted.
fn window_shrink() -> String {
    let (log, shrunk) = shrink("window-shrink to=1000B hold=2s after_bytes=16KiB");
    let pieces = log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() == 1000);
    let times: Vec<f64> = pieces.map(|e| e.at().saturating_sub(shrunk).as_secs_f64()).collect();
    format!("1000 bytes at {}", near(&times, &[0.2, 0.62, 1.45, 3.1]))
}

/// E5: what fits is taken; what was in flight beyond it is repeated although the window is closed.
fn window_shrink_takes() -> String {
    let (log, shrunk) = shrink("window-shrink to=1000B hold=2s after_bytes=16KiB take=true");
    let closed = log.0.iter().filter(|e| e.is("segment-out", "client") && e.at() > shrunk);
    let closed = closed.filter(|e| e.text("segment").contains(" win 0 ")).count();
    assert!(closed > 0, "the window is closed once the 1000 bytes have come");
    let held = shrunk..shrunk + Duration::from_secs(2);
    let again =
        log.0.iter().filter(|e| e.is("segment-in", "client") && held.contains(&e.at()) && e.len() > 0);
    let again: Vec<String> =
        again.map(|e| format!("{:.2} s ({})", (e.at() - shrunk).as_secs_f64(), e.len())).collect();
    format!("sent within the hold at {}", again.join(", "))
}

/// Sends 200 kB past a window that shrinks, to the end: the events, and when it shrank.
fn shrink(rule: &str) -> (Log, Duration) {
    let mut bench = Bench::new(Family::V4, &[rule]);
    let (mut client, mut server) = bench.pair();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || client.write_all(&sent));
    let (got, end) = lab::drain(&mut server);
    writer.join().expect("it only writes").expect("no error");
    assert_eq!(end, "EOF");
    assert!(got == bytes, "{} of {} bytes, or others", got.len(), bytes.len());
    let log = bench.log();
    let shrunk = log.0.iter().find(|e| e.did() == "knob").expect("it shrinks").at();
    (log, shrunk)
}

/// E6: a window that opens by crumbs. Linux avoids silly segments in two ways.
fn silly_window() -> String {
    let sent = |rule: &str, bytes: usize| {
        let mut bench = Bench::new(Family::V4, &[rule]);
        let (mut client, mut server) = bench.pair();
        client.write_all(&vec![7; bytes]).expect("taken by the kernel");
        server.read_exact(&mut vec![0; bytes]).expect("every byte arrives");
        let log = bench.log();
        let begin = log.0.iter().find(|e| e.did() == "knob").expect("it begins").at();
        let data = log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() > 0);
        let data = data.map(|e| (e.at().saturating_sub(begin).as_secs_f64(), e.len()));
        data.unzip::<f64, u32, Vec<_>, Vec<_>>()
    };
    let (times, first) = sent("silly-window step=1B pause=50ms", 60);
    // A loaded machine may tell of two steps at once.
    assert!(first.len() == 2 && (36..=40).contains(&first[0]), "{first:?} at {times:.2?}");
    let fast = near(&times, &[1.75, 2.95]);
    let (times, sizes) = sent("silly-window step=1B pause=300ms", 6);
    assert_eq!(sizes, [1; 6], "at {times:.2?}");
    // The last byte is all that is left: it fits, and leaves with the update.
    let slow = near(&times, &[0.2, 0.5, 0.8, 1.1, 1.4, 1.5]);
    format!("{} and {} bytes at {fast}; single bytes at {slow}", first[0], first[1])
}

/// Bytes up to the end, whatever it is.
fn count(mut stream: TcpStream) -> usize {
    let mut total = 0;
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return total,
            Ok(n) => total += n,
        }
    }
}
