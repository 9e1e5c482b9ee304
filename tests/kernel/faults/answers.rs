//! SYNs that are lost for what they carry, copied, or answered in unusual ways, and silence after the handshake, against Linux.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::bench::{Bench, Proof, SLACK, is_ready, took};
use crate::lab::events::{Log, since_first};
use crate::lab::{self, server_at};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "challenge-ack",
        entry: "H15",
        expected: "the client answers the ACK by a RST and sends its SYN again within 100 ms: connect() takes less than 400 ms",
        run: challenge_ack,
    },
    Proof {
        fault: "challenge-ack",
        entry: "H15",
        expected: "swallow_rst=true for=500ms: connect() takes 1.0 s, at most 400 ms more",
        run: challenge_ack_behind_a_firewall,
    },
    Proof {
        fault: "challenge-ack",
        entry: "H16",
        expected: "swallow_rst=true: connect() fails by its own time limit of 3 s; ACKs at least 500 ms apart",
        run: closewait_collision,
    },
    Proof {
        fault: "simultaneous-open",
        entry: "H23",
        expected: "connect() succeeds within 400 ms of the gap; bytes and the end arrive both ways",
        run: simultaneous_open,
    },
    Proof {
        fault: "tfo-blackhole",
        entry: "H24",
        expected: "connect() with TCP_FASTOPEN_CONNECT takes 1.0 s, at most 400 ms more, without it nothing",
        run: tfo_blackhole,
    },
    Proof {
        fault: "ecn-blackhole",
        entry: "H25",
        expected: "connect() with tcp_ecn = 1 takes 1.0 s, at most 400 ms more; the second SYN does not ask",
        run: ecn_blackhole,
    },
    Proof {
        fault: "ecn-blackhole",
        entry: "H25",
        expected: "style=bleach: ECN is agreed on, the client marks its data, and neither host receives a mark",
        run: ecn_bleach,
    },
    Proof {
        fault: "syn-dup",
        entry: "H28",
        expected: "a SYN that comes again on the open connection draws an ACK, at most one per 500 ms, and the connection survives",
        run: syn_dup,
    },
    Proof {
        fault: "wrong-syn-ack",
        entry: "H29",
        expected: "the client answers by a RST and sends its SYN again within 100 ms: connect() takes less than 400 ms",
        run: wrong_syn_ack,
    },
    Proof {
        fault: "half-open-flood",
        entry: "H27",
        expected: "n connections in SYN-RECEIVED at the server while the flow lasts, none after it; the client's host says nothing",
        run: half_open_flood,
    },
    Proof {
        fault: "stall",
        entry: "H30",
        expected: "connect() is not late, the greeting comes after the hold of 2 s, at most 400 ms more; keepalive keeps quiet",
        run: stall,
    },
];

fn echo(client: &mut TcpStream, server: &mut TcpStream) {
    let mut four = [0; 4];
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut four).expect("it arrives");
    server.write_all(b"pong").expect("sent");
    client.read_exact(&mut four).expect("it arrives");
    assert_eq!(&four, b"pong");
}

/// Seconds from the first SYN of the client to its second.
fn second_syn(log: &Log) -> f64 {
    let times = since_first(&log.segments("segment-in", "client", "S"));
    *times.get(1).unwrap_or_else(|| panic!("one SYN only\n{log}"))
}

/// H15: the RST ends the stale connection, and the SYN that follows it is taken.
fn challenge_ack() -> String {
    let mut seen = Vec::new();
    for family in Family::ALL {
        let mut bench = Bench::new(family, &["challenge-ack"]);
        let (_stream, time) = bench.connect();
        took("connect", time, Duration::ZERO);
        let log = bench.log();
        let again = second_syn(&log);
        assert!(again < 0.1, "{again}");
        assert_eq!(log.segments("segment-in", "client", "R").len(), 1, "{log}");
        seen.push(format!("{:.0} ms", again * 1000.0));
    }
    format!("RST, and the SYN again after {}", seen.join(" and "))
}

fn challenge_ack_behind_a_firewall() -> String {
    let mut bench = Bench::new(Family::V4, &["challenge-ack swallow_rst=true for=500ms"]);
    let (_stream, time) = bench.connect();
    let seen = took("connect", time, Duration::from_secs(1));
    let log = bench.log();
    assert_eq!(log.segments("segment-in", "client", "S").len(), 3, "0, 16 ms, 1 s\n{log}");
    seen
}

/// H16: for ever, as far as a test can tell.
fn closewait_collision() -> String {
    let mut bench = Bench::new(Family::V6, &["challenge-ack swallow_rst=true"]);
    let to = server_at(bench.family);
    let socket =
        bench.lab.client.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)));
    let result = socket.expect("a socket").connect_timeout(&to.into(), Duration::from_secs(3));
    assert!(result.is_err(), "it is connected");
    let log = bench.log();
    let acks = since_first(&log.segments("segment-out", "client", "."));
    assert!(acks.len() >= 3, "{acks:?}");
    assert!(acks.windows(2).all(|pair| pair[1] - pair[0] >= 0.5), "{acks:?}");
    assert_eq!(log.0.iter().filter(|e| e.is("segment-out", "server")).count(), 0, "nobody is dialled\n{log}");
    format!("not connected after 3 s; ACKs at {acks:.2?} s")
}

/// H23.
fn simultaneous_open() -> String {
    let mut seen = Vec::new();
    for (family, gap) in [(Family::V4, "0"), (Family::V4, "5ms"), (Family::V6, "100ms")] {
        let mut bench = Bench::new(family, &[&format!("simultaneous-open gap={gap}")]);
        let (mut client, time) = bench.connect();
        took("connect", time, Duration::ZERO);
        let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
        echo(&mut client, &mut server);
        drop(client);
        assert_eq!(server.read(&mut [0; 1]).expect("no error"), 0);
        let log = bench.log();
        assert_eq!(log.segments("segment-out", "client", "S").len(), 1, "{log}");
        let crossing = log.segments("segment-in", "client", "S.").len();
        seen.push(format!(
            "gap {gap}: connect {:.3} s, {crossing} SYN-ACK of the client",
            time.as_secs_f64()
        ));
    }
    seen.join("; ")
}

/// H24: Linux leaves the option out when it sends its SYN again.
fn tfo_blackhole() -> String {
    let mut seen = Vec::new();
    for (family, fast_open) in [(Family::V4, true), (Family::V6, false)] {
        let mut bench = Bench::new(family, &["tfo-blackhole first=all"]);
        let to = server_at(family);
        let time = bench.lab.client.run(|| {
            let socket =
                Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
            setsockopt(&socket, sockopt::TcpFastOpenConnect, &fast_open).expect("Linux has it");
            let begin = Instant::now();
            socket.connect(&to.into()).expect("the server listens");
            begin.elapsed()
        });
        let what = if fast_open { "with Fast Open" } else { "without" };
        seen.push(took(what, time, Duration::from_secs(fast_open.into())));
        assert_eq!(bench.log().fired().len(), usize::from(fast_open));
    }
    seen.join("; ")
}

/// H25: Linux does not ask for ECN when it sends its SYN again (`tcp_ecn_fallback`).
fn ecn_blackhole() -> String {
    let mut bench = Bench::new(Family::V4, &["ecn-blackhole first=all"]);
    bench.lab.client.sysctl("net/ipv4/tcp_ecn", "1");
    let (_stream, time) = bench.connect();
    let seen = took("connect", time, Duration::from_secs(1));
    let log = bench.log();
    assert_eq!(log.fired().len(), 1, "{log}");
    assert_eq!(log.segments("segment-in", "client", "S").len(), 1, "the second is plain\n{log}");
    seen
}

/// H25, the quieter middlebox.
fn ecn_bleach() -> String {
    let mut bench = Bench::new(Family::V4, &["ecn-blackhole style=bleach"]);
    bench.lab.client.sysctl("net/ipv4/tcp_ecn", "1");
    bench.lab.server.sysctl("net/ipv4/tcp_ecn", "1");
    let at_client = lab::sniff::Sniffer::start(&bench.lab.client, "c0");
    let at_server = lab::sniff::Sniffer::start(&bench.lab.server, "s0");
    let (mut client, mut server) = bench.pair();
    for _ in 0..3 {
        echo(&mut client, &mut server);
    }
    let server = server_at(Family::V4);
    let (from_server, from_client): (Vec<_>, Vec<_>) =
        at_client.stop().into_iter().partition(|s| s.from == server);
    let reached: Vec<_> = at_server.stop().into_iter().filter(|s| s.to == server).collect();
    assert!(from_server.iter().any(|s| s.tcp.syn && s.tcp.ece), "ECN is agreed on");
    let marked = |segments: &[lab::sniff::Seen]| segments.iter().filter(|s| s.tos & 3 != 0).count();
    assert!(marked(&from_client) >= 3, "the client marks its data: {from_client:?}");
    assert_eq!((marked(&from_server), marked(&reached)), (0, 0), "{from_server:?} {reached:?}");
    let fired = bench.log().fired();
    let rewritten = |way: &str| fired.iter().filter(|f| f.contains(way)).count();
    let (up, down) = (rewritten("client upstream rewrite"), rewritten("client downstream rewrite"));
    assert!(up >= 3 && down >= 3, "{fired:?}");
    "agreed; the marks of 3 requests and 3 replies are cleared".to_owned()
}

/// H28: challenge ACKs, and nothing else.
fn syn_dup() -> String {
    let mut bench = Bench::new(Family::V4, &["syn-dup copies=8 late=100ms"]);
    let (mut client, mut server) = bench.pair();
    echo(&mut client, &mut server);
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1200)), "it is disturbed");
    echo(&mut client, &mut server);
    let log = bench.log();
    let sent = log.segments("segment-out", "server", "S").len();
    assert_eq!(sent, 9, "{log}");
    let copies = log.segments("segment-out", "server", "S");
    let (from, to) = (copies[1].at(), copies[8].at() + Duration::from_millis(50));
    let acks: Vec<f64> = log
        .segments("segment-in", "server", ".")
        .iter()
        .filter(|e| e.at() >= from && e.at() <= to)
        .map(|e| e.at().saturating_sub(from).as_secs_f64())
        .collect();
    assert!(!acks.is_empty() && acks.len() <= 3, "{acks:?}\n{log}");
    format!("8 late SYNs drew ACKs at {acks:.2?} s after the first; the connection goes on")
}

/// H29.
fn wrong_syn_ack() -> String {
    let mut seen = Vec::new();
    for (family, rule) in [(Family::V4, "wrong-syn-ack"), (Family::V6, "wrong-syn-ack offset=-7")] {
        let mut bench = Bench::new(family, &[rule]);
        let (_stream, time) = bench.connect();
        took("connect", time, Duration::ZERO);
        let log = bench.log();
        let again = second_syn(&log);
        assert!(again < 0.1, "{again}");
        seen.push(format!("{:.0} ms", again * 1000.0));
    }
    format!("RST, and the SYN again after {}", seen.join(" and "))
}

/// H27: the server keeps what was begun, and repeats its SYN-ACKs, until the flow is over.
fn half_open_flood() -> String {
    let mut bench = Bench::new(Family::V4, &["half-open-flood n=12"]);
    let at_client = lab::sniff::Sniffer::start(&bench.lab.client, "c0");
    let (mut client, mut server) = bench.pair();
    echo(&mut client, &mut server);
    // The server has repeated its SYN-ACKs once by then.
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1300)), "it is disturbed");
    let half_open = |bench: &Bench| bench.server_states().iter().filter(|state| *state == "03").count();
    assert_eq!(half_open(&bench), 12, "{:?}", bench.server_states());
    echo(&mut client, &mut server);
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect("no error"), 0);
    drop(server);
    bench.events.wait("end of the flow", |log| log.0.iter().any(|e| e.text("event") == "flow-closed"));
    let begin = Instant::now();
    while half_open(&bench) > 0 {
        assert!(begin.elapsed() < SLACK, "{:?}", bench.server_states());
        nix::poll::poll(&mut [], 5u8).expect("a pause");
    }
    let strangers = at_client.stop().into_iter().filter(|s| s.from.port() >= 61_000 || s.to.port() >= 61_000);
    assert_eq!(strangers.count(), 0, "the client's host hears of it");
    assert_eq!(bench.log().fired(), ["half-open-flood server upstream knob"]);
    "12 in SYN-RECEIVED, also after 1.3 s; none after the flow".to_owned()
}

/// H30: connected, and the greeting does not come.
fn stall() -> String {
    let mut bench = Bench::new(Family::V4, &["stall hold=2s"]);
    let begin = Instant::now();
    let (mut client, time) = bench.connect();
    took("connect", time, Duration::ZERO);
    let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
    SockRef::from(&client).set_tcp_keepalive(&keepalive.with_retries(1)).expect("Linux has it");
    server.write_all(b"220 ready").expect("taken");
    client.write_all(b"EHLO").expect("taken");
    server.read_exact(&mut [0; 4]).expect("the other direction is open");
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1500)), "it comes too early");
    client.read_exact(&mut [0; 9]).expect("the greeting");
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(2) + SLACK, "{waited:?}");
    assert_eq!(bench.log().fired(), ["stall client downstream knob", "stall client downstream release"]);
    format!("connect {:.3} s, greeting after {:.2} s", time.as_secs_f64(), waited.as_secs_f64())
}
