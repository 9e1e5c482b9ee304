//! Faults of ends between kernel sockets: what the client and the server read, and what is told of it, in each place that has them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use libtest_mimic::Trial;
use nix::poll::PollFlags;
use socket2::SockRef;

use crate::held_syn::take_queue;
use crate::lab::events::{Events, Log};
use crate::lab::process::command;
use crate::lab::{Lab, Way, drain, errno, wait};
use crate::setup::fails;
use crate::tproxy::{PLACES, host, run, untouched};
use crate::{Single, VERSIONS, trial};

/// How long half-closed flows last here.
const TIMEOUT: Duration = Duration::from_millis(300);
/// More than a client takes that does not read: the rest waits in halfopen and in its kernel.
const MUCH: usize = 150_000;

/// A flow that meets a fault.
struct Ending {
    rule: &'static str,
    run: fn(Flow<'_>) -> Vec<String>,
    /// What both saw.
    seen: &'static [&'static str],
    /// What the fault did: leg, direction, deed.
    told: &'static [&'static str],
    outcome: &'static str,
}

const BOTH_TOLD: &[&str] = &["client downstream inject", "server upstream inject"];

const ENDINGS: &[Ending] = &[
    Ending {
        rule: "half-close-broken",
        run: client_finishes,
        seen: &["server: request EOF", "client:  EOF"],
        told: BOTH_TOLD,
        outcome: "ok",
    },
    Ending {
        rule: "half-close-broken style=rst",
        run: client_finishes_later,
        seen: &["server:  ECONNRESET", "client:  ECONNRESET"],
        told: BOTH_TOLD,
        outcome: "reset",
    },
    Ending {
        rule: "half-close-broken direction=downstream",
        run: server_finishes,
        seen: &["client: reply EOF", "server:  EOF"],
        told: BOTH_TOLD,
        outcome: "ok",
    },
    Ending {
        rule: "half-close-broken direction=downstream style=rst",
        run: server_finishes_later,
        seen: &["client:  ECONNRESET", "server:  ECONNRESET"],
        told: BOTH_TOLD,
        outcome: "reset",
    },
    // It is the server's FIN that ends both, not the client's.
    Ending {
        rule: "half-close-broken direction=downstream",
        run: client_finishes,
        seen: &["server: request EOF", "client: reply EOF"],
        told: BOTH_TOLD,
        outcome: "ok",
    },
    Ending {
        rule: "half-close-broken share=0",
        run: client_finishes,
        seen: &["server: request EOF", "client: reply EOF"],
        told: &[],
        outcome: "ok",
    },
    Ending {
        rule: "rst-instead-of-fin",
        run: server_finishes,
        seen: &["client: reply ECONNRESET", "server:  EOF"],
        told: &["client downstream rewrite", "server upstream inject"],
        outcome: "reset",
    },
    Ending {
        rule: "rst-instead-of-fin direction=upstream",
        run: client_finishes,
        seen: &["server: request ECONNRESET", "client:  EOF"],
        told: &["server upstream rewrite", "client downstream inject"],
        outcome: "reset",
    },
    Ending {
        rule: "rst-instead-of-fin delay=300ms",
        run: server_finishes_and_its_end_is_late,
        seen: &["client: reply ECONNRESET", "server:  EOF"],
        told: &["client downstream knob", "client downstream rewrite", "server upstream inject"],
        outcome: "reset",
    },
    Ending {
        rule: "rst-instead-of-fin after_bytes=6",
        run: server_finishes,
        seen: &["client: reply EOF", "server: late EOF"],
        told: &[],
        outcome: "ok",
    },
    Ending {
        rule: "rst-instead-of-fin",
        run: client_reads_late,
        seen: &["client: 150000 ECONNRESET"],
        told: &["client downstream rewrite", "server upstream inject"],
        outcome: "reset",
    },
    Ending {
        rule: "half-closed-timeout timeout=300ms style=fin",
        run: half_closed,
        seen: &["server:  EOF", "client:  EOF"],
        told: BOTH_TOLD,
        outcome: "ok",
    },
    Ending {
        rule: "half-closed-timeout timeout=300ms style=rst",
        run: half_closed,
        seen: &["server:  EOF", "client:  ECONNRESET"],
        told: BOTH_TOLD,
        outcome: "reset",
    },
    Ending {
        rule: "client-closes-first",
        run: server_closes_first,
        seen: &["client: reply", "client:  EOF", "server:  EOF"],
        told: &["client downstream knob"],
        outcome: "ok",
    },
    Ending {
        rule: "client-closes-first relieve=rst",
        run: server_closes_first,
        seen: &["client: reply", "client:  ECONNRESET", "server:  EOF"],
        told: &["client downstream knob", "client downstream rewrite"],
        outcome: "reset",
    },
];

pub(crate) fn trials() -> Vec<Trial> {
    let gateway_and_sidecars = PLACES.map(|(place, way)| (format!("tproxy: {place}"), way));
    let behind_a_listener = ("listen: kernel sockets".to_owned(), Way::ListenSockets);
    let mut trials: Vec<Trial> = gateway_and_sidecars
        .into_iter()
        .chain([behind_a_listener])
        .flat_map(|(place, way)| {
            VERSIONS.map(|(family, version)| {
                let name = format!("{place}: ends are as faults want them ({version})");
                trial(name, move || endings(way, family))
            })
        })
        .collect();
    let singles: [Single; 2] = [
        ("a half-closed connection is forgotten", forgotten),
        ("to forget a half-closed connection is refused where none can be cut off", not_forgotten),
    ];
    trials.extend(singles.map(|(name, test)| trial(format!("tproxy: {name}"), test)));
    trials
}

/// One flow of the run.
struct Flow<'a> {
    client: TcpStream,
    server: TcpStream,
    events: &'a Events,
    number: u64,
}

fn endings(way: Way, family: Family) {
    let events = Events::new();
    let rules: Vec<String> =
        (1..).zip(ENDINGS).map(|(flow, ending)| format!("{} match.flows={flow}", ending.rule)).collect();
    let rules = rules.iter().flat_map(|rule| ["--fault", rule]);
    let options: Vec<&str> = ["--grace", "0", "--events", events.path()].into_iter().chain(rules).collect();
    let mut lab = Lab::with(way, &options);
    let listener = lab.listen(family);
    for (number, ending) in (1..).zip(ENDINGS) {
        let (client, server) = lab.pair_by(&listener);
        let seen = (ending.run)(Flow { client, server, events: &events, number });
        assert_eq!(seen, ending.seen, "{way:?} {}\n{}", ending.rule, events.read());
    }
    let over = |log: &Log| log.0.iter().filter(|e| e.text("event") == "flow-closed").count() == ENDINGS.len();
    events.wait("end of each flow", over);
    let log = events.after(lab.halfopen.take().expect("it runs"));
    for (number, ending) in (1..).zip(ENDINGS) {
        let of_flow = || log.0.iter().filter(|e| e.flow() == number);
        let fired = of_flow().filter(|e| e.text("event") == "fired");
        let told: Vec<String> =
            fired.map(|e| [e.text("leg"), e.text("direction"), &e.did()].join(" ")).collect();
        assert_eq!(told, ending.told, "{way:?} {}: {log}", ending.rule);
        let outcomes = of_flow().filter(|e| e.text("event") == "flow-closed").map(|e| e.text("outcome"));
        assert_eq!(outcomes.collect::<Vec<_>>(), [ending.outcome], "{way:?} {}: {log}", ending.rule);
    }
}

/// What is read to the end, and how it ends.
fn rest(who: &str, stream: &mut TcpStream) -> String {
    let (bytes, end) = drain(stream);
    format!("{who}: {} {end}", String::from_utf8_lossy(&bytes))
}

/// A request with a FIN behind it. The server answers, whether or not anybody hears it, and closes.
fn client_finishes(Flow { mut client, mut server, .. }: Flow<'_>) -> Vec<String> {
    client.write_all(b"request").expect("an open connection");
    client.shutdown(Shutdown::Write).expect("an open connection");
    let request = rest("server", &mut server);
    // It fails where the connection is reset.
    let _ = server.write_all(b"reply");
    drop(server);
    vec![request, rest("client", &mut client)]
}

/// The same the other way round; a client that may still send does.
fn server_finishes(Flow { mut client, mut server, .. }: Flow<'_>) -> Vec<String> {
    server.write_all(b"reply").expect("an open connection");
    server.shutdown(Shutdown::Write).expect("an open connection");
    let reply = rest("client", &mut client);
    let _ = client.write_all(b"late");
    drop(client);
    vec![reply, rest("server", &mut server)]
}

fn server_finishes_and_its_end_is_late(flow: Flow<'_>) -> Vec<String> {
    let begin = Instant::now();
    let seen = server_finishes(flow);
    assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
    seen
}

/// A FIN when all bytes before it are read: a RST of our own takes those that wait.
fn finishes_later(finisher: &mut TcpStream, other: &mut TcpStream) {
    finisher.write_all(b"request").expect("an open connection");
    other.read_exact(&mut [0; 7]).expect("an open connection");
    finisher.shutdown(Shutdown::Write).expect("an open connection");
}

fn client_finishes_later(Flow { mut client, mut server, .. }: Flow<'_>) -> Vec<String> {
    finishes_later(&mut client, &mut server);
    vec![rest("server", &mut server), rest("client", &mut client)]
}

fn server_finishes_later(Flow { mut client, mut server, .. }: Flow<'_>) -> Vec<String> {
    finishes_later(&mut server, &mut client);
    vec![rest("client", &mut client), rest("server", &mut server)]
}

/// The RST is decided on while most of the bytes before it wait for a client that reads.
fn client_reads_late(Flow { mut client, mut server, events, number }: Flow<'_>) -> Vec<String> {
    server.write_all(&[7; MUCH]).expect("an open connection");
    drop(server);
    events.wait("RST", |log| log.0.iter().any(|e| e.flow() == number && e.did() == "rewrite"));
    let (bytes, end) = drain(&mut client);
    vec![format!("client: {} {end}", bytes.len())]
}

fn half_closed(Flow { mut client, mut server, .. }: Flow<'_>) -> Vec<String> {
    let begin = Instant::now();
    client.shutdown(Shutdown::Write).expect("an open connection");
    let seen = vec![rest("server", &mut server), rest("client", &mut client)];
    assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
    seen
}

fn server_closes_first(Flow { mut client, mut server, .. }: Flow<'_>) -> Vec<String> {
    server.write_all(b"reply").expect("an open connection");
    server.shutdown(Shutdown::Write).expect("an open connection");
    let mut reply = [0; 5];
    client.read_exact(&mut reply).expect("an open connection");
    let hears = wait(client.as_fd(), PollFlags::POLLIN, Duration::from_millis(200));
    assert!(!hears, "the server's FIN has come before the client's");
    client.shutdown(Shutdown::Write).expect("an open connection");
    let reply = format!("client: {}", String::from_utf8_lossy(&reply));
    vec![reply, rest("client", &mut client), rest("server", &mut server)]
}

/// Each place, at the same time: they wait for timers of the kernel.
fn forgotten() {
    std::thread::scope(|scope| {
        for (_, way) in PLACES {
            scope.spawn(move || forgotten_in(way));
        }
    });
}

fn forgotten_in(way: Way) {
    let events = Events::new();
    let rule = "half-closed-timeout timeout=300ms";
    let lab = Lab::with(way, &["--grace", "0", "--events", events.path(), "--fault", rule]);
    let (mut client, mut server) = lab.pair(Family::V4);
    client.shutdown(Shutdown::Write).expect("an open connection");
    assert_eq!(rest("server", &mut server), "server:  EOF", "the first FIN passes");
    let log = events.wait("cut", |log| log.fired().len() == 2);
    let told =
        ["client downstream knob", "server upstream knob"].map(|did| format!("half-closed-timeout {did}"));
    assert_eq!(log.fired(), told, "{way:?}");
    // The first of them may still be heard: it is told a moment before it is done.
    SockRef::from(&server).set_tcp_user_timeout(Some(Duration::from_secs(1))).expect("a live socket");
    server.set_nonblocking(true).expect("a live socket");
    let end = std::iter::repeat_with(|| {
        wait(server.as_fd(), PollFlags::POLLERR, Duration::from_millis(50));
        server.write(b"x")
    });
    let end = end.take(400).find_map(|written| written.err().map(|e| errno(&e)));
    assert_eq!(end.as_deref(), Some("ETIMEDOUT"), "{way:?}: nobody hears the server\n{}", events.read());
    client.set_nonblocking(true).expect("a live socket");
    assert_eq!(drain(&mut client).1, "EAGAIN", "{way:?}: nobody tells the client");
}

/// Without the queue for SYNs, a gateway and a sidecar can do no more than a listener.
fn not_forgotten() {
    for (_, way) in PLACES {
        let mut lab = untouched(way);
        let _taken = take_queue(&lab, way);
        let args = [&run(way)[..], &["--fault", "half-closed-timeout"]].concat();
        let says = ["rule `half-closed-timeout` cannot be done here", "queue 10400"];
        fails(host(&lab, way), &mut command(host(&lab, way), &args), 69, &says);
        lab.start(&["--fault", "half-closed-timeout style=fin timeout=0ms"]);
        let (mut client, _server) = lab.pair(Family::V4);
        client.shutdown(Shutdown::Write).expect("an open connection");
        assert_eq!(rest("client", &mut client), "client:  EOF", "{way:?}");
    }
}
