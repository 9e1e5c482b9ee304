//! The faults where the server leg is a kernel socket: what the applications see is what they see through a gateway.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::SockRef;

use crate::Single;
use crate::lab::events::{Events, Log};
use crate::lab::{self, Lab, Listener, Way, errno};

pub(crate) const SINGLES: &[Single] = &[
    ("syn-drop delays connect, and the server sees one SYN only", syn_drop),
    ("syn-ack-delay is what connect takes longer", syn_ack_delay),
    ("zero-window-stall blocks the writer and lets it go on", zero_window_stall),
    ("ack-delay makes write-write-read wait for the ACK", ack_delay),
    ("fin-drop hides the server's end from the client", fin_drop_downstream),
    ("fin-drop hides the client's end from the server", fin_drop_upstream),
    ("rst-inject resets both sides at the first byte", rst_inject),
    ("rst-inject to one side leaves the other in silence until it speaks", rst_inject_to_one_side),
    ("corrupt makes the command's kernel throw segments away", corrupt),
    ("loss in bursts loses no byte", loss),
    ("idle-timeout resets who speaks next, client and server", idle_timeout),
    ("bandwidth lets the server's bytes pass at the rate and stops it", bandwidth),
    ("latency holds the server's bytes back", latency),
    ("refuse gives the errno of its style, and dials nobody", refuse),
    ("accept-first connects to a closed port, and waits for an open one", accept_first),
    ("odd answers to the SYN do not keep Linux from connecting", odd_answers),
    ("half-close-broken ends the other direction when the server ends one", half_close_broken),
    ("rst-instead-of-fin resets the client behind the last byte, and closes the server", rst_instead_of_fin),
    ("rst-overtakes-tail truncates the reply", rst_overtakes_tail),
    ("keepalive-race loses the request after an idle time", keepalive_race),
    ("a fault that needs the server's segments is refused with the reason", refused),
];

/// How much later than it could a thing may happen on a loaded machine.
const SLACK: Duration = Duration::from_millis(600);

/// A command with a fault on its connections to the server's port, and the events.
pub(crate) struct Bench {
    lab: Lab,
    events: Events,
    listener: Listener,
}

impl Bench {
    pub(crate) fn new(family: Family, fault: &str) -> Self {
        let events = Events::new();
        // Only the server's port: the laboratory itself uses others before.
        let rule = format!("{fault} match.server=:{}", lab::PORT);
        let lab = Lab::with(Way::Exec, &["--seed", "42", "--events", events.path(), "--fault", &rule]);
        let listener = lab.listen(family);
        Self { lab, events, listener }
    }

    pub(crate) fn pair(&self) -> (TcpStream, TcpStream) {
        self.lab.pair_by(&self.listener)
    }

    /// A connection, and how long it took.
    fn connect(&self) -> (TcpStream, Duration) {
        let begin = Instant::now();
        let stream =
            self.lab.connect(self.listener.local_addr().expect("bound")).expect("the server listens");
        (stream, begin.elapsed())
    }

    /// Waits until the faults have done this often something, and tells what.
    pub(crate) fn fired(&self, times: usize) -> Vec<String> {
        self.events.wait("fault that fired", |log: &Log| log.fired().len() >= times).fired()
    }
}

/// 64 KiB from the server, to the byte.
fn download(bench: &Bench) {
    let (mut client, mut server) = bench.pair();
    let sent: Vec<u8> = (0..64 << 10).map(|n: u32| (n % 251) as u8).collect();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || server.write_all(&bytes).expect("sent"));
    let (got, end) = lab::drain(&mut client);
    writing.join().expect("it only writes");
    assert!(got == sent && end == "EOF", "{} bytes, then {end}", got.len());
}

fn corrupt() {
    let bench = Bench::new(Family::V4, "corrupt nth=3,5");
    download(&bench);
    assert_eq!(bench.fired(2), vec!["corrupt client downstream rewrite ."; 2]);
    let text = bench.lab.client.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.expect("/proc is there");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp: ")).map(|line| line.split(' '));
    let (mut names, mut counts) = (tcp.next().expect("names"), tcp.next().expect("counts"));
    let at = names.position(|name| name == "InCsumErrors").expect("Linux counts it");
    assert_eq!(counts.nth(at), Some("2"));
}

fn loss() {
    let bench = Bench::new(Family::V6, "loss p=0.05 burst=2");
    download(&bench);
    assert!(!bench.fired(1).is_empty());
}

#[track_caller]
pub(crate) fn took(what: &str, time: Duration, expected: Duration) {
    assert!(time >= expected && time < expected + SLACK, "{what} took {time:?} instead of {expected:?}");
}

pub(crate) fn is_ready(stream: &TcpStream, what: PollFlags, within: Duration) -> bool {
    lab::wait(stream.as_fd(), what, within)
}

fn syn_drop() {
    let bench = Bench::new(Family::V6, "syn-drop first=1");
    let (_stream, time) = bench.connect();
    took("connect with a lost SYN", time, Duration::from_secs(1));
    assert_eq!(bench.fired(1), ["syn-drop client upstream drop S"]);
    assert!(lab::accept(&bench.listener).is_ok());
    let another = is_ready_to_accept(&bench.listener, Duration::from_millis(300));
    assert!(!another, "one dial");
}

fn is_ready_to_accept(listener: &TcpListener, within: Duration) -> bool {
    lab::wait(listener.as_fd(), PollFlags::POLLIN, within)
}

fn syn_ack_delay() {
    let bench = Bench::new(Family::V4, "syn-ack-delay delay=300ms");
    let (_stream, time) = bench.connect();
    took("connect with a delay of 300 ms", time, Duration::from_millis(300));
    assert_eq!(bench.fired(1), ["syn-ack-delay client downstream hold S."]);
}

fn zero_window_stall() {
    const HOLD: Duration = Duration::from_secs(3);
    let bench = Bench::new(Family::V4, "zero-window-stall hold=3s after_bytes=64KiB");
    let (mut client, server) = bench.pair();
    let reader = std::thread::spawn(move || lab::drain(&mut { server }).0.len());
    SockRef::from(&client).set_send_buffer_size(64 << 10).expect("a live socket");
    client.set_nonblocking(true).expect("a live socket");
    let (mut written, mut longest) = (0, Duration::ZERO);
    while written < 2 << 20 {
        match client.write(&[7; 16 << 10]) {
            Ok(n) => written += n,
            Err(_) => {
                let begin = Instant::now();
                assert!(is_ready(&client, PollFlags::POLLOUT, lab::PATIENCE), "it never goes on");
                longest = longest.max(begin.elapsed());
            }
        }
    }
    assert!(longest + SLACK > HOLD && longest < HOLD + SLACK, "blocked for {longest:?} instead of {HOLD:?}");
    drop(client);
    assert_eq!(reader.join().expect("it only counts"), written, "every byte arrives");
}

fn ack_delay() {
    let bench = Bench::new(Family::V4, "ack-delay delay=40ms");
    let (mut client, mut server) = bench.pair();
    let echo = std::thread::spawn(move || {
        let mut pair = [0; 2];
        while server.read_exact(&mut pair).is_ok() && server.write_all(&pair).is_ok() {}
    });
    let rounds: Vec<Duration> = (0..10)
        .map(|_| {
            let begin = Instant::now();
            client.write_all(b"a").expect("sent");
            client.write_all(b"b").expect("sent");
            client.read_exact(&mut [0; 2]).expect("echoed");
            begin.elapsed()
        })
        .collect();
    let least = rounds.iter().min().expect("ten of them");
    // The 40 ms begin with the byte before, so that a slow echo takes some of them.
    took("the fastest round", *least, Duration::from_millis(20));
    drop(client);
    echo.join().expect("it only echoes");
}

/// `finisher` ends its direction; `other` must not hear of it, and the opposite direction stays open.
fn fin_is_dropped(bench: &Bench, mut finisher: TcpStream, mut other: TcpStream) {
    finisher.write_all(b"all there is").expect("sent");
    finisher.shutdown(Shutdown::Write).expect("a live socket");
    let mut all = [0; 12];
    other.read_exact(&mut all).expect("the data arrive");
    assert_eq!(&all, b"all there is");
    assert!(!is_ready(&other, PollFlags::POLLIN, Duration::from_millis(1500)), "it reads an end of file");
    other.write_all(b"ping").expect("the other direction is open");
    finisher.read_exact(&mut [0; 4]).expect("the other direction is open");
    let fired = bench.fired(2);
    assert!(fired.iter().all(|fired| fired.starts_with("fin-drop client ")), "{fired:?}");
}

fn fin_drop_downstream() {
    let bench = Bench::new(Family::V4, "fin-drop direction=downstream first=all");
    let (client, server) = bench.pair();
    fin_is_dropped(&bench, server, client);
}

fn fin_drop_upstream() {
    let bench = Bench::new(Family::V6, "fin-drop direction=upstream first=all");
    let (client, server) = bench.pair();
    fin_is_dropped(&bench, client, server);
}

fn rst_inject() {
    let bench = Bench::new(Family::V4, "rst-inject to=both");
    let (mut client, mut server) = bench.pair();
    let early = is_ready(&client, PollFlags::POLLIN, Duration::from_millis(300));
    assert!(!early, "no reset before the first byte");
    client.write_all(b"x").expect("sent");
    for (name, stream) in [("client", &mut client), ("server", &mut server)] {
        let read = stream.read(&mut [0; 1]).expect_err("a reset");
        assert_eq!(errno(&read), "ECONNRESET", "{name}");
        let write = stream.write(b"y").expect_err("a dead socket");
        assert_eq!(errno(&write), "EPIPE", "{name}");
    }
}

fn rst_inject_to_one_side() {
    for (fault, client_first) in
        [("rst-inject to=client after=300ms", true), ("rst-inject to=server after=300ms", false)]
    {
        let bench = Bench::new(Family::V6, fault);
        let (client, server) = bench.pair();
        let (mut told, mut untold) = if client_first { (client, server) } else { (server, client) };
        let read = told.read(&mut [0; 1]).expect_err("a reset");
        assert_eq!(errno(&read), "ECONNRESET", "{fault}");
        assert!(
            !is_ready(&untold, PollFlags::POLLIN, Duration::from_millis(500)),
            "{fault}: it hears something"
        );
        untold.write_all(b"x").expect("sent");
        let read = untold.read(&mut [0; 1]).expect_err("a reset");
        assert_eq!(errno(&read), "ECONNRESET", "{fault}");
    }
}

fn idle_timeout() {
    for client_first in [true, false] {
        let bench = Bench::new(Family::V4, "idle-timeout idle=1s style=rst-on-next");
        let (mut client, mut server) = bench.pair();
        client.write_all(b"ping").expect("sent");
        server.read_exact(&mut [0; 4]).expect("before the end it passes");
        let (mut first, second) = if client_first { (client, server) } else { (server, client) };
        let early = is_ready(&first, PollFlags::POLLIN, Duration::from_millis(1500));
        assert!(!early, "it hears something while nobody speaks");
        first.write_all(b"more").expect("taken by the kernel");
        assert_eq!(errno(&first.read(&mut [0; 4]).expect_err("a reset")), "ECONNRESET");
        assert!(
            !is_ready(&second, PollFlags::POLLIN, Duration::from_millis(300)),
            "the other hears something"
        );
        let leg = if client_first { "client downstream" } else { "server upstream" };
        let fired = bench.fired(1);
        assert!(fired.contains(&format!("idle-timeout {leg} inject")), "{fired:?}");
    }
}

fn bandwidth() {
    let bench = Bench::new(Family::V6, "bandwidth rate=100kB/s");
    let (mut client, mut server) = bench.pair();
    // More than all kernels on the way hold together, however far they stretch their buffers (tcp_rmem and tcp_wmem).
    let writing = std::thread::spawn(move || server.write_all(&vec![7; 64 << 20]));
    let begin = Instant::now();
    client.read_exact(&mut [0; 200_000]).expect("it arrives");
    let time = begin.elapsed();
    assert!(time >= Duration::from_millis(1900) && time < Duration::from_secs(4), "{time:?}");
    assert!(!writing.is_finished(), "the writer is through");
    drop(client);
    let error = writing.join().expect("it only writes").expect_err("its peer is gone");
    assert!(["ECONNRESET", "EPIPE"].contains(&&*errno(&error)), "{error}");
}

fn latency() {
    let bench = Bench::new(Family::V4, "latency latency=300ms");
    let (mut client, mut server) = bench.pair();
    let begin = Instant::now();
    client.write_all(b"ping").expect("sent");
    server.read_exact(&mut [0; 4]).expect("upstream is not touched");
    server.write_all(&[7; 100_000]).expect("taken");
    client.read_exact(&mut [0; 100_000]).expect("all arrives");
    took("a reply", begin.elapsed(), Duration::from_millis(300));
}

fn refuse() {
    for (family, style, expected) in [
        (Family::V4, "rst", "ECONNREFUSED"),
        (Family::V4, "icmp-net", "ENETUNREACH"),
        (Family::V6, "icmp-admin", "EACCES"),
    ] {
        let bench = Bench::new(family, &format!("refuse style={style}"));
        let error = bench.lab.connect(lab::server_at(family)).expect_err("it is refused");
        assert_eq!(errno(&error), expected, "{style}");
        assert!(!is_ready_to_accept(&bench.listener, Duration::from_millis(200)), "{style}: no dial");
    }
}

fn accept_first() {
    for (family, on_fail, expected) in [(Family::V4, "rst", "ECONNRESET"), (Family::V6, "fin", "EOF")] {
        let Bench { lab, listener, events } =
            Bench::new(family, &format!("accept-first delay=300ms on_fail={on_fail}"));
        drop(listener);
        let mut client = lab.connect(lab::server_at(family)).expect("it is accepted first");
        assert_eq!(lab::drain(&mut client).1, expected);
        drop(client);
        events.wait("end of the flow", |log: &Log| log.0.iter().any(|e| e.text("outcome") == "refused-rst"));
    }
    let bench = Bench::new(Family::V4, "accept-first delay=300ms");
    let begin = Instant::now();
    let (mut client, time) = bench.connect();
    took("connect", time, Duration::ZERO);
    client.write_all(b"all there is").expect("sent");
    client.shutdown(Shutdown::Write).expect("a live socket");
    let (mut server, _) = lab::accept(&bench.listener).expect("it is dialled");
    took("accept", begin.elapsed(), Duration::from_millis(300));
    let (bytes, end) = lab::drain(&mut server);
    assert_eq!((&bytes[..], &end[..]), (&b"all there is"[..], "EOF"));
    server.write_all(b"reply").expect("the other direction is open");
    drop(server);
    assert_eq!(lab::drain(&mut client), (b"reply".to_vec(), "EOF".to_owned()));
}

fn odd_answers() {
    for (family, fault) in [
        (Family::V4, "challenge-ack"),
        (Family::V6, "wrong-syn-ack"),
        (Family::V4, "simultaneous-open"),
        (Family::V6, "simultaneous-open gap=0"),
    ] {
        let bench = Bench::new(family, fault);
        let (mut client, time) = bench.connect();
        took(fault, time, Duration::ZERO);
        let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
        client.write_all(b"ping").expect("sent");
        server.read_exact(&mut [0; 4]).expect("it arrives");
    }
}

fn half_close_broken() {
    for (style, client_end) in [("fin", "EOF"), ("rst", "ECONNRESET")] {
        let rule = format!("half-close-broken direction=downstream style={style}");
        let bench = Bench::new(Family::V4, &rule);
        let (mut client, mut server) = bench.pair();
        server.write_all(b"goodbye").expect("sent");
        client.read_exact(&mut [0; 7]).expect("it arrives");
        server.shutdown(Shutdown::Write).expect("a live socket");
        assert_eq!(lab::drain(&mut client), (vec![], client_end.to_owned()), "{style}");
        assert_eq!(lab::drain(&mut server).1, client_end, "{style}: the server, though the client is open");
    }
}

fn rst_instead_of_fin() {
    let bench = Bench::new(Family::V4, "rst-instead-of-fin");
    let (mut client, mut server) = bench.pair();
    server.write_all(&[7; 3000]).expect("sent");
    server.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(lab::drain(&mut client), (vec![7; 3000], "ECONNRESET".to_owned()));
    assert_eq!(lab::drain(&mut server), (vec![], "EOF".to_owned()));
}

fn rst_overtakes_tail() {
    let bench = Bench::new(Family::V6, "rst-overtakes-tail bytes=1000");
    let (mut client, mut server) = bench.pair();
    server.write_all(&[7; 3000]).expect("sent");
    server.shutdown(Shutdown::Write).expect("a live socket");
    assert_eq!(lab::drain(&mut client), (vec![7; 2000], "ECONNRESET".to_owned()));
}

fn keepalive_race() {
    for (style, end) in [("fin-then-rst", "EOF"), ("rst-only", "ECONNRESET"), ("fin", "EOF")] {
        let bench = Bench::new(Family::V4, &format!("keepalive-race idle=300ms style={style}"));
        let (mut client, mut server) = bench.pair();
        client.write_all(b"request").expect("sent");
        server.read_exact(&mut [0; 7]).expect("it arrives");
        server.write_all(b"reply").expect("sent");
        client.read_exact(&mut [0; 5]).expect("it arrives");
        assert!(!is_ready(&client, PollFlags::POLLIN, Duration::from_millis(400)), "{style}: idle, and open");
        client.write_all(b"request").expect("a socket that looks open");
        assert_eq!(lab::drain(&mut client), (vec![], end.to_owned()), "{style}");
        assert_eq!(lab::drain(&mut server), (vec![], "EOF".to_owned()), "{style}: no second request");
    }
}

fn refused() {
    for fault in ["zero-window-stall direction=downstream", "ack-delay direction=downstream"] {
        let output = lab::process::output(&lab::ns::Ns::new(), &["exec", "--fault", fault, "--", "true"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the exec engine cannot do") && said.contains("kernel socket"), "{said}");
        assert_eq!(output.status.code(), Some(125), "{said}");
    }
}
