//! Ends by RST, and ends that meet something else on the way, against Linux.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;

use super::bench::{Bench, Proof, is_ready, took};
use super::teardown::{talk, until};
use crate::lab::{self, PATIENCE, drain, errno, outcome};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "rst-instead-of-fin",
        entry: "T9",
        expected: "every byte that was received, then ECONNRESET; with delay=500ms that much later, at most 400 ms more; the server that closed reads end-of-file",
        run: rst_instead_of_fin,
    },
    Proof {
        fault: "rst-overtakes-tail",
        entry: "T10",
        expected: "3000 bytes and close(), bytes=1000: the client reads 2000 bytes, then ECONNRESET; RST at the end of the data, challenge ACK, RST exact",
        run: rst_overtakes_tail,
    },
    Proof {
        fault: "rst-overtakes-tail",
        entry: "T10",
        expected: "early 413: a server that closes with the upload unread; the client reads 2000 of 3000 bytes, then ECONNRESET",
        run: early_reply_is_truncated,
    },
    Proof {
        fault: "keepalive-race",
        entry: "T11",
        expected: "fin-then-rst: send() ok, recv() 0, then send() EPIPE; rst-only: recv() ECONNRESET, then send() EPIPE; fin: recv() 0, send() ok; the server reads end-of-file and no second request",
        run: keepalive_race,
    },
    Proof {
        fault: "keepalive-race",
        entry: "T11",
        expected: "a request at once is served with idle = 5s, and one after 1 s as well",
        run: keepalive_in_time,
    },
    Proof {
        fault: "late-segment",
        entry: "T14",
        expected: "an exact RST frees the client's TIME-WAIT; with tcp_rfc1337=1 it stays",
        run: time_wait_assassination,
    },
    Proof {
        fault: "late-segment",
        entry: "T16",
        expected: "old data for a TIME-WAIT draw an ACK, and the RST to that frees it; old data for a server that has closed draw a RST",
        run: late_segment,
    },
    Proof {
        fault: "rst-inject",
        entry: "T17",
        expected: "before_reply=true at=4s: a connection without a reply reads ECONNRESET, one with a reply goes on",
        run: listener_restart,
    },
];

/// T9: a RST behind the data is harmless on Linux, until one reads beyond them.
fn rst_instead_of_fin() -> String {
    let bench = Bench::new(Family::V4, &["rst-instead-of-fin"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    server.write_all(&[7; 3000]).expect("sent");
    server.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(server.read(&mut [0; 1]).expect("no error"), 0, "the server is closed in peace");
    assert_eq!(drain(&mut client), (vec![7; 3000], "ECONNRESET".to_owned()));

    let bench = Bench::new(Family::V6, &["rst-instead-of-fin delay=500ms"]);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    server.write_all(b"goodbye").expect("sent");
    drop(server);
    assert_eq!(drain(&mut client), (b"goodbye".to_vec(), "ECONNRESET".to_owned()));
    let late = took("ECONNRESET with the delay", begin.elapsed(), Duration::from_millis(500));
    format!("3000 bytes, then ECONNRESET; the server read() = 0; {late}")
}

/// T10: the RST that overtakes is challenged, and the answer to the challenge kills the connection before its tail.
fn rst_overtakes_tail() -> String {
    let mut bench = Bench::new(Family::V4, &["rst-overtakes-tail bytes=1000"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    server.read_exact(&mut [0; 7]).expect("the request arrives");
    server.write_all(&[7; 3000]).expect("sent");
    drop(server);
    assert_eq!(drain(&mut client), (vec![7; 2000], "ECONNRESET".to_owned()));
    let log = bench.log();
    let resets: Vec<&str> = log
        .0
        .iter()
        .filter(|e| e.is("segment-out", "client") && e.flags().contains('R'))
        .map(|e| e.flags())
        .collect();
    // Each ACK that was under way draws one; only that to the challenge has the right number.
    assert!(resets[0] == "R." && resets.len() > 1 && resets[1..].iter().all(|flags| *flags == "R"), "{log}");
    "2000 bytes, then ECONNRESET; RST, challenge ACK, RST".to_owned()
}

/// T10 as it happens to uploads: the server answers and closes with unread data, which is a RST (no FIN).
fn early_reply_is_truncated() -> String {
    let bench = Bench::new(Family::V4, &["rst-overtakes-tail bytes=1000"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(&[1; 20_000]).expect("sent");
    server.read_exact(&mut [0; 100]).expect("the upload begins");
    assert!(is_ready(&server, PollFlags::POLLIN, PATIENCE), "the upload goes on");
    server.write_all(&[7; 3000]).expect("sent");
    drop(server);
    assert_eq!(drain(&mut client), (vec![7; 2000], "ECONNRESET".to_owned()));
    "2000 bytes, then ECONNRESET".to_owned()
}

/// T11: what the client sees depends on the order of FIN, RST and its own calls.
fn keepalive_race() -> String {
    let mut told = Vec::new();
    for (style, read, write) in
        [("fin-then-rst", "EOF", "EPIPE"), ("rst-only", "ECONNRESET", "EPIPE"), ("fin", "EOF", "ok")]
    {
        let bench = Bench::new(Family::V4, &[&format!("keepalive-race idle=300ms style={style}")]);
        let (mut client, mut server) = bench.pair();
        talk(&mut client, &mut server);
        assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(400)), "{style}: idle, and open");
        client.write_all(b"request").expect("a socket that looks open");
        if style == "fin-then-rst" {
            // Both have come when the connection is dead.
            assert!(lab::wait(client.as_fd(), PollFlags::empty(), PATIENCE), "no RST");
        }
        assert_eq!(drain(&mut client), (vec![], read.to_owned()), "{style}: recv");
        assert_eq!(outcome(&client.write(b"again")), write, "{style}: send");
        assert_eq!(drain(&mut server), (vec![], "EOF".to_owned()), "{style}: the server");
        told.push(format!("{style}: recv {read}, send {write}"));
    }
    told.join("; ")
}

/// T11: connections in use are left alone.
fn keepalive_in_time() -> String {
    let bench = Bench::new(Family::V6, &["keepalive-race idle=5s"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    talk(&mut client, &mut server);
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_secs(1)), "idle, and open");
    talk(&mut client, &mut server);
    "three requests served".to_owned()
}

/// Client and server close, in this order; the client has its TIME-WAIT.
fn closed(bench: &Bench) {
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    close_in_turn(client, server);
    until("TIME-WAIT", || bench.client_states(), &["06"]);
}

fn close_in_turn(client: TcpStream, mut server: TcpStream) {
    drop(client);
    assert_eq!(drain(&mut server), (vec![], "EOF".to_owned()));
}

/// T14: RFC 1337.
fn time_wait_assassination() -> String {
    for (rfc1337, states) in [("0", &[][..]), ("1", &["06"])] {
        let mut bench = Bench::new(Family::V4, &["late-segment segment=rst delay=1s"]);
        bench.lab.client.sysctl("net/ipv4/tcp_rfc1337", rfc1337);
        closed(&bench);
        let resets = |log: &lab::events::Log| log.segments("segment-out", "client", "R").len();
        bench.events.wait("late RST", |log| resets(log) == 1);
        if states.is_empty() {
            until("freed", || bench.client_states(), states);
        } else {
            // What the RST could do it would have done by the time at which a later connection works.
            let (mut client, mut server) = bench.pair();
            talk(&mut client, &mut server);
            let mut seen = bench.client_states();
            seen.sort();
            assert_eq!(seen, ["01", "06"], "tcp_rfc1337");
        }
        bench.log();
    }
    "TIME-WAIT gone after the RST; with tcp_rfc1337=1 still there".to_owned()
}

/// T16: old data after the close.
fn late_segment() -> String {
    let mut bench = Bench::new(Family::V4, &["late-segment delay=1s"]);
    closed(&bench);
    until("freed", || bench.client_states(), &[]);
    let log = bench.log();
    assert_eq!(log.segments("segment-out", "client", "R").len(), 1, "{log}");

    let mut bench = Bench::new(Family::V4, &["late-segment direction=upstream delay=1s"]);
    closed(&bench);
    let refused = |log: &lab::events::Log| !log.segments("segment-in", "server", "R").is_empty();
    bench.events.wait("RST of the server", refused);
    bench.log();
    "TIME-WAIT answers by an ACK, is reset and gone; a closed server answers RST".to_owned()
}

/// T17, its first half: what waits in the queues of a listener dies with it.
fn listener_restart() -> String {
    let rule = "rst-inject to=client before_reply=true after_bytes=0 at=4s for=10s";
    let bench = Bench::new(Family::V4, &[rule]);
    let (mut served, mut server) = bench.pair();
    talk(&mut served, &mut server);
    let (mut waiting, mut its_server) = bench.pair();
    waiting.write_all(b"request").expect("sent");
    its_server.read_exact(&mut [0; 7]).expect("the request arrives");
    let read = waiting.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(errno(&read), "ECONNRESET");
    talk(&mut served, &mut server);
    "ECONNRESET without a reply; the other connection served a second request".to_owned()
}
