//! The open connection against Linux.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::{SockRef, TcpKeepalive};

use super::bench::{Bench, Proof, is_ready, near, took};
use crate::lab::events::since_first;
use crate::lab::{self, errno};

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
    Proof {
        fault: "rst-inject",
        entry: "E16",
        expected: "delay=300ms: the server still reads the request, and 300 ms (at most 400 more) after it both sides read ECONNRESET",
        run: rst_inject_after_a_delay,
    },
    Proof {
        fault: "rst-inject",
        entry: "T19",
        expected: "after=1s: a busy connection is reset on both sides 1 s (at most 400 ms more) after connect()",
        run: max_age,
    },
    Proof {
        fault: "rst-inject",
        entry: "T18",
        expected: "at=3s: both of two connections are reset within 400 ms from the third second of the run",
        run: drain_cut,
    },
    Proof {
        fault: "idle-timeout",
        entry: "E10",
        expected: "idle=1s: the next request is sent again at 0.21, 0.42, 0.84 s (15 % + 60 ms), TCP_USER_TIMEOUT = 3 s ends it with ETIMEDOUT, and the server hears nothing",
        run: idle_timeout_silent,
    },
    Proof {
        fault: "idle-timeout",
        entry: "E10",
        expected: "idle=2s: keepalive probes every second keep it alive, and do not with count_keepalives=false",
        run: idle_timeout_and_keepalives,
    },
    Proof {
        fault: "idle-timeout",
        entry: "E11",
        expected: "style=rst-on-next: the next send() succeeds, then recv() ECONNRESET and send() EPIPE; the server hears nothing until it writes, then ECONNRESET",
        run: idle_timeout_rst_on_next,
    },
    Proof {
        fault: "idle-timeout",
        entry: "E11",
        expected: "style=rst-on-next rst_to=inside: what the server writes vanishes, the client's next send() gives it ECONNRESET, and the server hears nothing",
        run: idle_timeout_rst_inside,
    },
    Proof {
        fault: "idle-timeout",
        entry: "E12",
        expected: "style=rst-both: after 1 s without a segment (at most 400 ms more) both sides read ECONNRESET, then send() EPIPE",
        run: idle_timeout_rst_both,
    },
    Proof {
        fault: "acked-but-lost",
        entry: "E26",
        expected: "send() succeeds and the client's send queue is empty, the server reads no byte, and after the hold (at most 400 ms more) both read ECONNRESET",
        run: acked_but_lost,
    },
];

/// Both sides read ECONNRESET, and write EPIPE after it.
#[track_caller]
fn both_are_reset(client: &mut TcpStream, server: &mut TcpStream) {
    for (name, stream) in [("client", client), ("server", server)] {
        let read = stream.read(&mut [0; 1]).expect_err("a reset");
        assert_eq!(errno(&read), "ECONNRESET", "{name}");
        let write = stream.write(b"y").expect_err("a dead socket");
        assert_eq!(errno(&write), "EPIPE", "{name}");
    }
}

/// One request and one reply.
fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut [0; 4]).expect("the request arrives");
    server.write_all(b"pong").expect("sent");
    client.read_exact(&mut [0; 4]).expect("the reply arrives");
}

/// A connection that has spoken once and has been forgotten since.
fn forgotten(bench: &Bench) -> (TcpStream, TcpStream) {
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    bench.events.wait("expiry", |log| log.fired().len() >= 2);
    (client, server)
}

/// E16: somebody beside the path sees the request and answers it after a while.
fn rst_inject_after_a_delay() -> String {
    let bench = Bench::new(Family::V4, &["rst-inject delay=300ms"]);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut [0; 4]).expect("the request arrives");
    both_are_reset(&mut client, &mut server);
    took("reset after the request", begin.elapsed(), Duration::from_millis(300))
}

/// T19: a connection gets only so old.
fn max_age() -> String {
    let bench = Bench::new(Family::V6, &["rst-inject after=1s"]);
    let begin = Instant::now();
    let (mut client, mut server) = bench.pair();
    let pause = || assert!(!lab::wait(bench.listener.as_fd(), PollFlags::POLLIN, Duration::from_millis(100)));
    for _ in 0..3 {
        talk(&mut client, &mut server);
        pause();
    }
    both_are_reset(&mut client, &mut server);
    took("reset after connect()", begin.elapsed(), Duration::from_secs(1))
}

/// T18: at a moment of the run all connections are cut.
fn drain_cut() -> String {
    let mut bench = Bench::new(Family::V4, &["rst-inject at=3s"]);
    let mut pairs = [bench.pair(), bench.pair()];
    for (client, server) in &mut pairs {
        both_are_reset(client, server);
    }
    let log = bench.log();
    let at: Vec<f64> =
        log.0.iter().filter(|e| e.text("event") == "fired").map(|e| e.at().as_secs_f64()).collect();
    assert!(at.len() == 4 && at.iter().all(|at| (3.0..3.4).contains(at)), "{at:?}");
    format!("two connections, reset at {:.2} to {:.2} s", at[0], at[3])
}

/// E10: the next request finds nobody, and nobody says so.
fn idle_timeout_silent() -> String {
    let mut bench = Bench::new(Family::V4, &["idle-timeout idle=1s"]);
    let (mut client, server) = forgotten(&bench);
    SockRef::from(&client).set_tcp_user_timeout(Some(Duration::from_secs(3))).expect("Linux has it");
    let begin = Instant::now();
    client.write_all(b"more").expect("taken by the kernel");
    let read = client.read(&mut [0; 4]).expect_err("no reply");
    let time = begin.elapsed();
    assert_eq!(errno(&read), "ETIMEDOUT");
    assert!(time >= Duration::from_secs(3) && time < Duration::from_millis(4400), "{time:?}");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(100)), "the server hears something");
    let log = bench.log();
    let sent: Vec<_> =
        log.0.iter().filter(|e| e.is("segment-in", "client") && e.len() == 4).skip(1).collect();
    let times = near(&since_first(&sent), &[0.0, 0.21, 0.42, 0.84]);
    format!("ETIMEDOUT after {:.1} s; sent at {times}", time.as_secs_f64())
}

/// E10: what SO_KEEPALIVE is good for, and where it is not.
fn idle_timeout_and_keepalives() -> String {
    let bench = Bench::new(
        Family::V6,
        &["idle-timeout idle=2s", "idle-timeout idle=2s count_keepalives=false match.flows=2"],
    );
    let second = Duration::from_secs(1);
    let kept = |stream: &TcpStream| {
        let often = TcpKeepalive::new().with_time(second).with_interval(second);
        SockRef::from(stream).set_tcp_keepalive(&often).expect("Linux has it");
    };
    let (mut client, mut server) = bench.pair();
    kept(&client);
    talk(&mut client, &mut server);
    assert!(!is_ready(&client, PollFlags::POLLIN, 4 * second), "it ends in spite of its probes");
    talk(&mut client, &mut server);
    let (mut client, mut server) = bench.pair();
    kept(&client);
    talk(&mut client, &mut server);
    let log = bench
        .events
        .wait("expiry", |log| log.fired().iter().any(|fired| fired.starts_with("idle-timeout#2")));
    let quiet = log.0.iter().filter(|e| e.text("event") == "fired" && e.text("rule") == "idle-timeout#2");
    assert!(quiet.count() >= 2, "both legs fall silent");
    "4 s without data and alive; forgotten in spite of the probes".to_owned()
}

/// E11: an NLB answers the next segment with a RST.
fn idle_timeout_rst_on_next() -> String {
    let bench = Bench::new(Family::V4, &["idle-timeout idle=1s style=rst-on-next"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    // Nothing tells of the expiry but the answer to what comes after it.
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1500)), "the client hears something");
    client.write_all(b"more").expect("taken by the kernel");
    let read = client.read(&mut [0; 4]).expect_err("a reset");
    assert_eq!(errno(&read), "ECONNRESET");
    let write = client.write(b"y").expect_err("a dead socket");
    assert_eq!(errno(&write), "EPIPE");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(500)), "the server hears something");
    server.write_all(b"late").expect("taken by the kernel");
    assert_eq!(errno(&server.read(&mut [0; 4]).expect_err("a reset")), "ECONNRESET");
    "client: send ok, recv ECONNRESET, send EPIPE; server nothing for 0.5 s, ECONNRESET after its write"
        .to_owned()
}

/// E11: a NAT gateway tells the inside only.
fn idle_timeout_rst_inside() -> String {
    let bench = Bench::new(Family::V6, &["idle-timeout idle=1s style=rst-on-next rst_to=inside"]);
    let (mut client, mut server) = forgotten(&bench);
    server.write_all(b"late").expect("taken by the kernel");
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(500)), "the client hears something");
    client.write_all(b"more").expect("taken by the kernel");
    assert_eq!(errno(&client.read(&mut [0; 4]).expect_err("a reset")), "ECONNRESET");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(500)), "the server hears something");
    "nothing for 0.5 s after the server's write; client ECONNRESET; server nothing".to_owned()
}

/// E12: Azure's TCP reset on idle.
fn idle_timeout_rst_both() -> String {
    let bench = Bench::new(Family::V4, &["idle-timeout idle=1s style=rst-both"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    let begin = Instant::now();
    both_are_reset(&mut client, &mut server);
    // It counts from the last segment, which may be a little older than what is measured from here.
    let time = begin.elapsed() + Duration::from_millis(50);
    took("reset after the last reply (50 ms added)", time, Duration::from_secs(1))
}

/// E26: what the kernel counts as delivered is not.
fn acked_but_lost() -> String {
    let bench = Bench::new(Family::V4, &["acked-but-lost hold=1s"]);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    client.write_all(b"ping").expect("sent");
    while bench.send_queue(&client) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(1), "nobody acknowledges it");
        lab::wait(bench.listener.as_fd(), PollFlags::POLLIN, Duration::from_millis(5));
    }
    both_are_reset(&mut client, &mut server);
    let time = took("reset after send()", begin.elapsed(), Duration::from_secs(1));
    format!("the send queue is empty, no byte arrives; {time}")
}

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
