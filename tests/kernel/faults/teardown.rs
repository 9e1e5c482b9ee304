//! The end of a connection against Linux.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;

use super::bench::{Bench, Proof, is_ready, near, took};
use crate::lab::events::since_first;
use crate::lab::{PATIENCE, drain, pending_error};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "half-close-broken",
        entry: "T7",
        expected: "after shutdown(WR) the client reads end-of-file instead of the reply; the server gets the whole request",
        run: half_close_broken,
    },
    Proof {
        fault: "fin-drop",
        entry: "T1",
        expected: "the closer stays in FIN-WAIT-1 and sends its FIN at 0.21, 0.42, 0.84, 1.68 s (a tail loss probe first; without it 0.21, 0.64, 1.5, 3.1 s); no EOF at the other side",
        run: fin_drop,
    },
    Proof {
        fault: "half-close-broken",
        entry: "T7",
        expected: "style=rst: after shutdown(WR) the client reads ECONNRESET instead of the reply, and the server ECONNRESET",
        run: half_close_broken_by_rst,
    },
    Proof {
        fault: "half-close-broken",
        entry: "T7",
        expected: "direction=downstream: when the server shuts down its direction it reads end-of-file itself, though the client has not closed",
        run: half_close_broken_downstream,
    },
    Proof {
        fault: "fin-overtakes",
        entry: "T3",
        expected: "2000 bytes, bytes=1000 hold=1s: the client reads 1000, then nothing for 1 s (at most 400 ms more), then 1000 and end-of-file",
        run: fin_overtakes,
    },
    Proof {
        fault: "fin-overtakes",
        entry: "T3",
        expected: "lose=true: the client reads 1000 of 2000 bytes, and in 1.5 s neither more nor end-of-file",
        run: fin_overtakes_and_data_are_lost,
    },
    Proof {
        fault: "fin-wait2-stuck",
        entry: "T4",
        expected: "after close() FIN-WAIT-2 is freed after tcp_fin_timeout, here 2 s (at most 2 s more), and late data draw a RST; after shutdown(WR) it is still there after 3.5 s",
        run: fin_wait2_stuck,
    },
    Proof {
        fault: "fin-inject",
        entry: "T5",
        expected: "in the middle of a request the client reads 0, stays in CLOSE-WAIT, and its writes still arrive",
        run: fin_inject,
    },
    Proof {
        fault: "fin-inject",
        entry: "T12",
        expected: "the server gets the request; the client reads end-of-file instead of the reply, without an error",
        run: graceful_close_crosses,
    },
    Proof {
        fault: "fin-inject",
        entry: "T19",
        expected: "to=both after=1s: both read end-of-file 1 s after the connect, at most 400 ms more",
        run: max_age,
    },
    Proof {
        fault: "half-closed-timeout",
        entry: "T6",
        expected: "silent: 0.5 s after the client's FIN the reply and the server's FIN are lost; client FIN-WAIT-2, server LAST-ACK, no end-of-file",
        run: half_closed_timeout,
    },
    Proof {
        fault: "half-closed-timeout",
        entry: "T8",
        expected: "style=fin: end-of-file instead of the reply 0.5 s after shutdown(WR), style=rst: ECONNRESET; at most 400 ms more",
        run: half_closed_timeout_told,
    },
    Proof {
        fault: "client-closes-first",
        entry: "T13",
        expected: "no end-of-file in 0.3 s though the server has closed; the client closes and has TIME-WAIT; with relieve=rst it has none",
        run: client_closes_first,
    },
    Proof {
        fault: "simultaneous-close",
        entry: "T15",
        expected: "the client is in CLOSING for delay = 1 s (at most 400 ms more), then in TIME-WAIT",
        run: simultaneous_close,
    },
    Proof {
        fault: "last-ack-drop",
        entry: "T20",
        expected: "first=3: the server stays in LAST-ACK and sends its FIN at 0.21, 0.42 and 0.84 s again (15 % + 60 ms), then is gone",
        run: last_ack_drop,
    },
];

/// Waits until the kernel's table says so, and tells how long it took.
#[track_caller]
pub(super) fn until(what: &str, states: impl Fn() -> Vec<String>, expected: &[&str]) -> Duration {
    let begin = Instant::now();
    loop {
        let seen = states();
        if seen == expected {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: {seen:?} instead of {expected:?}");
        nix::poll::poll(&mut [], 5u8).expect("a pause");
    }
}

/// A request and its reply.
pub(super) fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    let say = |from: &mut TcpStream, to: &mut TcpStream, words: &[u8; 7]| {
        from.write_all(words).expect("sent");
        let mut read = [0; 7];
        to.read_exact(&mut read).expect("it arrives");
        assert_eq!(&read, words);
    };
    say(client, server, b"request");
    say(server, client, b"a reply");
}

/// T1: the closer stays in FIN-WAIT-1 and repeats its FIN; the other side reads no end of file, and its data still arrive.
/// With SACK, Linux's first repetition is a tail loss probe, which does not count as a timeout: one step more at the start.
fn fin_drop() -> String {
    let schedules = [
        (Family::V4, "3", &[0.0, 0.21, 0.42, 0.84, 1.68, 3.3][..]),
        (Family::V6, "0", &[0.0, 0.21, 0.64, 1.5, 3.1]),
    ];
    let mut seen = Vec::new();
    for (family, tcp_early_retrans, schedule) in schedules {
        let mut bench = Bench::new(family, &["fin-drop direction=downstream first=all"]);
        bench.lab.server.sysctl("net/ipv4/tcp_early_retrans", tcp_early_retrans);
        let (mut client, mut server) = bench.pair();
        server.write_all(b"all there is").expect("sent");
        server.shutdown(Shutdown::Write).expect("a live socket");
        let mut all = [0; 12];
        client.read_exact(&mut all).expect("the data arrive");
        assert_eq!(&all, b"all there is");
        let eof = is_ready(&client, PollFlags::POLLIN, Duration::from_millis(3700));
        assert!(!eof, "the client reads an end of file");
        assert_eq!(bench.server_states(), ["04"], "the closer stays in FIN-WAIT-1");
        client.write_all(b"ping").expect("the other direction is open");
        let mut ping = [0; 4];
        server.read_exact(&mut ping).expect("the other direction is open");
        assert_eq!(&ping, b"ping");
        let log = bench.log();
        let fins: Vec<_> =
            log.0.iter().filter(|e| e.is("segment-in", "server") && e.flags().contains('F')).collect();
        seen.push(near(&since_first(&fins), schedule));
        assert!(
            log.fired().iter().all(|f| f.starts_with("fin-drop server downstream ")),
            "{:?}",
            log.fired()
        );
        assert_eq!(log.fired().len(), fins.len(), "every FIN is swallowed");
    }
    format!("FIN-WAIT-1, no EOF; FINs at {}", seen.join(" and "))
}

/// T7: the reply after the client's FIN is lost.
fn half_close_broken() -> String {
    let bench = Bench::new(Family::V4, &["half-close-broken"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    client.shutdown(Shutdown::Write).expect("a live socket");
    let mut request = Vec::new();
    server.read_to_end(&mut request).expect("FIN");
    assert_eq!(request, b"request");
    server.write_all(b"reply").expect("taken by the kernel");
    assert_eq!(client.read(&mut [0; 5]).expect("no error"), 0, "end of file");
    "read() = 0; the server read 7 bytes and end-of-file".to_owned()
}

/// T7 with RST in both directions.
fn half_close_broken_by_rst() -> String {
    let bench = Bench::new(Family::V4, &["half-close-broken style=rst"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    server.read_exact(&mut [0; 7]).expect("the request arrives");
    client.shutdown(Shutdown::Write).expect("a live socket");
    let ends = [drain(&mut client), drain(&mut server)];
    assert_eq!(ends, [(vec![], "ECONNRESET".to_owned()), (vec![], "ECONNRESET".to_owned())]);
    "ECONNRESET at both".to_owned()
}

/// T7 the other way round.
fn half_close_broken_downstream() -> String {
    let bench = Bench::new(Family::V6, &["half-close-broken direction=downstream"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    server.write_all(b"goodbye").expect("sent");
    server.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(drain(&mut client), (b"goodbye".to_vec(), "EOF".to_owned()));
    assert_eq!(server.read(&mut [0; 1]).expect("no error"), 0, "end of file, though the client is open");
    "server read() = 0; the client got every byte".to_owned()
}

/// A server that sends 2000 bytes and finishes; the client has read the first 1000. And when that began.
fn overtaken(rule: &str) -> (Bench, TcpStream, TcpStream, Instant) {
    let bench = Bench::new(Family::V4, &[rule]);
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    server.write_all(&[7; 2000]).expect("sent");
    server.shutdown(Shutdown::Write).expect("a live socket");
    client.read_exact(&mut [0; 1000]).expect("the first half arrives");
    (bench, client, server, begin)
}

/// T3: Linux shows nothing until the data arrive, then data and end of file.
fn fin_overtakes() -> String {
    let (mut bench, mut client, _server, begin) = overtaken("fin-overtakes bytes=1000 hold=1s");
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(300)), "nothing in between");
    let (rest, end) = drain(&mut client);
    let late = took("the rest and end-of-file", begin.elapsed(), Duration::from_secs(1));
    assert_eq!((rest, end.as_str()), (vec![7; 1000], "EOF"));
    let log = bench.log();
    let sent: Vec<_> = log
        .0
        .iter()
        .filter(|e| e.is("segment-out", "client") && (e.len() > 0 || e.flags() == "F."))
        .collect();
    let fin = sent.iter().position(|e| e.flags() == "F.").expect("a bare FIN");
    let behind: u32 = sent[fin..].iter().map(|e| e.len()).sum();
    assert_eq!(behind, 1000, "bytes behind the FIN");
    format!("1000 bytes; {late}")
}

/// T3 with the tail lost.
fn fin_overtakes_and_data_are_lost() -> String {
    let (bench, client, _server, _) = overtaken("fin-overtakes bytes=1000 lose=true");
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1500)), "no byte, no end of file");
    assert_eq!(bench.client_states(), ["01"], "the client knows of no FIN");
    "1000 bytes, then nothing for 1.5 s; the client stays ESTABLISHED".to_owned()
}

/// T4: an orphan is freed after tcp_fin_timeout, a socket that somebody still reads is not.
fn fin_wait2_stuck() -> String {
    let bench = Bench::new(Family::V4, &["fin-wait2-stuck"]);
    bench.lab.client.sysctl("net/ipv4/tcp_fin_timeout", "2");
    let (client, mut server) = bench.pair();
    let (waiting, waited_for) = bench.pair();
    let begin = Instant::now();
    waiting.shutdown(Shutdown::Write).expect("a live socket");
    drop(waited_for);
    drop(client);
    until("both wait", || bench.client_states(), &["05", "05"]);
    until("one is freed", || bench.client_states(), &["05"]);
    let freed = begin.elapsed();
    assert!((2.0..4.0).contains(&freed.as_secs_f64()), "freed after {freed:?}");
    server.write_all(b"late").expect("taken by the kernel");
    assert_eq!(pending_error(&server), "EPIPE", "a reset after end of file: nobody is there");
    let rest = Duration::from_millis(3500).saturating_sub(begin.elapsed());
    assert!(!is_ready(&waiting, PollFlags::POLLIN, rest), "no end of file");
    assert_eq!(bench.client_states(), ["05"]);
    format!(
        "freed after {:.1} s, then RST; FIN-WAIT-2 after 3.5 s with a socket that is still read",
        freed.as_secs_f64()
    )
}

/// T5: CLOSE-WAIT in the middle of a request.
fn fin_inject() -> String {
    let bench = Bench::new(Family::V6, &["fin-inject to=client after_bytes=4"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"half").expect("sent");
    assert_eq!(client.read(&mut [0; 1]).expect("no error"), 0, "end of file");
    assert_eq!(bench.client_states(), ["08"], "CLOSE-WAIT");
    client.write_all(b"rest").expect("the other direction is open");
    let mut request = [0; 8];
    server.read_exact(&mut request).expect("the other direction is open");
    assert_eq!(&request, b"halfrest");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(300)), "the server hears nothing");
    assert_eq!(bench.client_states(), ["08"]);
    "read() = 0; CLOSE-WAIT; the server got what was written after it".to_owned()
}

/// T12: the server's FIN crosses the request.
fn graceful_close_crosses() -> String {
    let bench = Bench::new(Family::V4, &["fin-inject to=client direction=upstream after_bytes=1"]);
    let (mut client, mut server) = bench.pair();
    client.write_all(b"request").expect("sent");
    server.read_exact(&mut [0; 7]).expect("the request arrives");
    server.write_all(b"a reply").expect("taken");
    assert_eq!(drain(&mut client), (vec![], "EOF".to_owned()));
    client.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(drain(&mut server), (vec![], "EOF".to_owned()), "the reply was acknowledged");
    "the server read 7 bytes; the client read() = 0".to_owned()
}

/// T19: a maximal age, by FIN.
fn max_age() -> String {
    let bench = Bench::new(Family::V4, &["fin-inject to=both after_bytes=0 after=1s"]);
    let begin = Instant::now();
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    let ends = [drain(&mut client), drain(&mut server)];
    assert_eq!(ends, [(vec![], "EOF".to_owned()), (vec![], "EOF".to_owned())]);
    took("end-of-file at both", begin.elapsed(), Duration::from_secs(1))
}

/// T6: conntrack forgets a half-closed flow.
fn half_closed_timeout() -> String {
    let bench = Bench::new(Family::V4, &["half-closed-timeout timeout=500ms"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    client.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(drain(&mut server), (vec![], "EOF".to_owned()));
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(600)), "the server thinks");
    server.write_all(b"too late").expect("taken by the kernel");
    drop(server);
    assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1500)), "no reply, no end of file");
    assert_eq!(
        (bench.client_states(), bench.server_states()),
        (vec!["05".to_owned()], vec!["09".to_owned()])
    );
    "no reply and no end-of-file in 1.5 s; client FIN-WAIT-2, server LAST-ACK".to_owned()
}

/// T8: socat's -t.
fn half_closed_timeout_told() -> String {
    let seen = [("fin", "EOF"), ("rst", "ECONNRESET")].map(|(style, expected)| {
        let bench = Bench::new(Family::V4, &[&format!("half-closed-timeout timeout=500ms style={style}")]);
        let (mut client, mut server) = bench.pair();
        talk(&mut client, &mut server);
        let begin = Instant::now();
        client.shutdown(Shutdown::Write).expect("a live socket");
        assert_eq!(drain(&mut client), (vec![], expected.to_owned()));
        took(&format!("{style}: {expected}"), begin.elapsed(), Duration::from_millis(500))
    });
    seen.join("; ")
}

/// T13: TIME-WAIT belongs to who closes first.
fn client_closes_first() -> String {
    for (rule, states) in [("client-closes-first", &["06"][..]), ("client-closes-first relieve=rst", &[])] {
        let bench = Bench::new(Family::V4, &[rule]);
        let (mut client, mut server) = bench.pair();
        talk(&mut client, &mut server);
        drop(server);
        assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(300)), "no end of file");
        drop(client);
        until(rule, || bench.client_states(), states);
    }
    "TIME-WAIT at the client; none with relieve=rst".to_owned()
}

/// T15: the FINs cross as the client sees it.
fn simultaneous_close() -> String {
    let bench = Bench::new(Family::V4, &["simultaneous-close delay=1s"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    drop(client);
    assert_eq!(drain(&mut server), (vec![], "EOF".to_owned()));
    drop(server);
    until("CLOSING", || bench.client_states(), &["0B"]);
    let closing = until("TIME-WAIT", || bench.client_states(), &["06"]);
    assert!(closing < Duration::from_millis(1400), "{closing:?}");
    "CLOSING, then TIME-WAIT".to_owned()
}

/// T20: LAST-ACK repeats its FIN, and TIME-WAIT acknowledges it again.
fn last_ack_drop() -> String {
    let mut bench = Bench::new(Family::V4, &["last-ack-drop first=3"]);
    let (mut client, mut server) = bench.pair();
    talk(&mut client, &mut server);
    drop(client);
    assert_eq!(drain(&mut server), (vec![], "EOF".to_owned()));
    drop(server);
    until("LAST-ACK", || bench.server_states(), &["09"]);
    until("the end", || bench.server_states(), &[]);
    let log = bench.log();
    let fins = log.segments("segment-in", "server", "F.");
    let times = near(&since_first(&fins), &[0.0, 0.21, 0.42, 0.84]);
    assert_eq!((fins.len(), log.fired().len()), (4, 3), "{log}");
    format!("LAST-ACK; FINs at {times}; then gone")
}
