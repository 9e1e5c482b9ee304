//! Refused connections, and such as are accepted too early, against Linux.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::bench::{Bench, Proof, is_ready, near, took};
use crate::lab::events::since_first;
use crate::lab::{self, errno, outcome, server_at};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "refuse",
        entry: "H17",
        expected: "ECONNREFUSED at once, or the delay later, at most 400 ms more; the server hears nothing",
        run: refused_by_rst,
    },
    Proof {
        fault: "refuse",
        entry: "H18",
        expected: "style=bad-rst is ignored: connect() runs on for 3.5 s and repeats its SYN",
        run: refused_by_a_bad_rst,
    },
    Proof {
        fault: "refuse",
        entry: "H19",
        expected: "within 400 ms: port ECONNREFUSED, host and ttl EHOSTUNREACH, net ENETUNREACH, admin EHOSTUNREACH (IPv6: EACCES)",
        run: refused_by_icmp,
    },
    Proof {
        fault: "refuse",
        entry: "H19",
        expected: "icmp_interval=30s: the second of two connections is refused by the answer to its second SYN, after 1.0 s, at most 400 ms more",
        run: refused_by_a_slow_router,
    },
    Proof {
        fault: "refuse",
        entry: "H20",
        expected: "style=silence: connect() runs on, SYNs at 0, 1.0, 2.0, 3.1 s (15 % + 60 ms), the server hears nothing",
        run: refused_by_silence,
    },
    Proof {
        fault: "accept-first",
        entry: "H21",
        expected: "connect() to a closed port succeeds within 400 ms; then end-of-file (fin), ECONNRESET (rst), nothing for 1.5 s (hang)",
        run: accepted_by_a_load_balancer,
    },
    Proof {
        fault: "accept-first",
        entry: "H21",
        expected: "a server that is dialled 700 ms late gets all that was sent meanwhile, and its greeting arrives; connect() is not late",
        run: accepted_before_the_server,
    },
];

/// What connect() gives, and when.
fn dial(bench: &Bench) -> (String, Duration) {
    let begin = Instant::now();
    let result = bench.lab.connect(server_at(bench.family));
    (outcome(&result), begin.elapsed())
}

/// A connect that is still running after `time`, or how it ended.
fn runs_on(bench: &Bench, time: Duration) -> String {
    let to = server_at(bench.family);
    let socket =
        bench.lab.client.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)));
    let socket = socket.expect("a socket");
    socket.set_nonblocking(true).expect("an open socket");
    let begun = bench.lab.client.run(|| socket.connect(&to.into())).expect_err("it takes at least a moment");
    assert_eq!(errno(&begun), "EINPROGRESS");
    match lab::wait(socket.as_fd(), PollFlags::POLLOUT, time) {
        false => "connecting".to_owned(),
        true => format!("{:?}", socket.take_error().expect("an open socket")),
    }
}

/// Asserts that the server has heard nothing, and gives the times of the client's SYNs.
fn syns(bench: &mut Bench) -> Vec<f64> {
    let log = bench.log();
    assert_eq!(
        log.0.iter().filter(|e| e.is("segment-out", "server")).count(),
        0,
        "the server is dialled\n{log}"
    );
    since_first(&log.segments("segment-in", "client", "S"))
}

/// H17.
fn refused_by_rst() -> String {
    let mut seen = Vec::new();
    for (family, rule, delay) in [(Family::V4, "refuse", 0), (Family::V6, "refuse delay=300ms", 300)] {
        let mut bench = Bench::new(family, &[rule]);
        let (end, time) = dial(&bench);
        assert_eq!(end, "ECONNREFUSED");
        seen.push(took("ECONNREFUSED", time, Duration::from_millis(delay)));
        assert_eq!(syns(&mut bench).len(), 1);
    }
    seen.join("; ")
}

/// H18: Linux repeats its SYN shortly after a segment that acknowledges something else, and does not believe the RST.
fn refused_by_a_bad_rst() -> String {
    let mut seen = Vec::new();
    for family in Family::ALL {
        let mut bench = Bench::new(family, &["refuse style=bad-rst"]);
        assert_eq!(runs_on(&bench, Duration::from_millis(3500)), "connecting");
        let syns = syns(&mut bench);
        assert!(syns.len() >= 3, "{syns:?}");
        let times: Vec<String> = syns.iter().take(5).map(|at| format!("{at:.2}")).collect();
        seen.push(format!("SYNs at {} s", times.join(", ")));
    }
    format!("connecting after 3.5 s; {}", seen.join("; "))
}

/// H19 and the table of errnos.
fn refused_by_icmp() -> String {
    let mut seen = Vec::new();
    for (style, v4, v6) in [
        ("icmp-port", "ECONNREFUSED", "ECONNREFUSED"),
        ("icmp-host", "EHOSTUNREACH", "EHOSTUNREACH"),
        ("icmp-net", "ENETUNREACH", "ENETUNREACH"),
        ("icmp-admin", "EHOSTUNREACH", "EACCES"),
        ("icmp-ttl", "EHOSTUNREACH", "EHOSTUNREACH"),
    ] {
        for (family, expected) in [(Family::V4, v4), (Family::V6, v6)] {
            let mut bench = Bench::new(family, &[&format!("refuse style={style}")]);
            let (end, time) = dial(&bench);
            assert_eq!(end, expected, "{style} {family:?}");
            took(style, time, Duration::ZERO);
            assert_eq!(syns(&mut bench).len(), 1, "{style}");
        }
        let both = if v4 == v6 { v4.to_owned() } else { format!("{v4}, {v6} with IPv6") };
        seen.push(format!("{}: {both}", style.trim_start_matches("icmp-")));
    }
    seen.join("; ")
}

/// H19 behind a router that limits its errors.
fn refused_by_a_slow_router() -> String {
    let mut bench = Bench::new(Family::V4, &["refuse style=icmp-host icmp_interval=30s"]);
    let mut seen = Vec::new();
    for seconds in [0, 1] {
        let (end, time) = dial(&bench);
        assert_eq!(end, "EHOSTUNREACH");
        seen.push(took("EHOSTUNREACH", time, Duration::from_secs(seconds)));
    }
    assert_eq!(syns(&mut bench).len(), 3);
    seen.join(", then ")
}

/// H20.
fn refused_by_silence() -> String {
    let mut bench = Bench::new(Family::V4, &["refuse style=silence"]);
    assert_eq!(runs_on(&bench, Duration::from_millis(3600)), "connecting");
    format!("connecting after 3.6 s; SYNs at {}", near(&syns(&mut bench), &[0.0, 1.02, 2.04, 3.07]))
}

/// H21 with a server that refuses: the port looks open.
fn accepted_by_a_load_balancer() -> String {
    let mut seen = Vec::new();
    for (family, on_fail) in [(Family::V4, "fin"), (Family::V6, "rst"), (Family::V4, "hang")] {
        // Late enough that connect() has returned.
        let Bench { lab, listener, events, .. } =
            Bench::new(family, &[&format!("accept-first on_fail={on_fail} delay=300ms")]);
        drop(listener);
        let begin = Instant::now();
        let mut client = lab.connect(server_at(family)).expect("it is accepted first");
        took("connect to a closed port", begin.elapsed(), Duration::ZERO);
        client.write_all(b"hello").expect("taken");
        let end = match on_fail {
            "hang" => {
                assert!(
                    !is_ready(&client, PollFlags::POLLIN, Duration::from_millis(1500)),
                    "something comes"
                );
                "nothing for 1.5 s".to_owned()
            }
            _ => lab::drain(&mut client).1,
        };
        drop(client);
        let expected = match on_fail {
            "fin" => "EOF",
            "rst" => "ECONNRESET",
            _ => "nothing for 1.5 s",
        };
        assert_eq!(end, expected);
        let log =
            events.wait("end of the flow", |log| log.0.iter().any(|e| e.text("event") == "flow-closed"));
        let closed = log.0.iter().find(|e| e.text("event") == "flow-closed").expect("waited for");
        assert_eq!(closed.text("outcome"), "refused-rst", "{log}");
        seen.push(format!("{on_fail}: connected, then {end}"));
    }
    seen.join("; ")
}

/// H21 with a server that is there: bytes, and the end of the stream, wait for it.
fn accepted_before_the_server() -> String {
    const DELAY: Duration = Duration::from_millis(700);
    let mut bench = Bench::new(Family::V6, &["accept-first delay=700ms"]);
    let begin = Instant::now();
    let (mut client, time) = bench.connect();
    took("connect", time, Duration::ZERO);
    client.write_all(&[7; 30_000]).expect("taken");
    client.shutdown(std::net::Shutdown::Write).expect("a live socket");
    let (mut server, _) = lab::accept(&bench.listener).expect("it is dialled");
    let late = took("accept", begin.elapsed(), DELAY);
    server.write_all(b"220 ready").expect("taken");
    let (bytes, end) = lab::drain(&mut server);
    assert_eq!((bytes.len(), end.as_str()), (30_000, "EOF"));
    drop(server);
    let mut greeting = Vec::new();
    client.read_to_end(&mut greeting).expect("the greeting");
    assert_eq!(greeting, b"220 ready");
    assert_eq!(bench.log().fired(), ["accept-first client downstream inject"]);
    format!("connect after {:.2} s, {late}; 30000 bytes, EOF and greeting arrive", time.as_secs_f64())
}
