//! The faults against unmodified Linux hosts, through the gateway: what the application sees, and the event log.
//!
//! A delay is bounded from below by what the fault does, and from above by [`SLACK`] more, which a loaded machine may need.
//! Schedules of the kernel's own timers are compared by [`near`].

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::{Domain, SockRef, Socket, Type};

use crate::Single;
use crate::lab::events::{Entry, Events, Log, since_first};
use crate::lab::{self, Lab, Way, errno};

pub(crate) const SINGLES: &[Single] = &[
    ("syn-drop delays connect by the client's own schedule", syn_drop),
    ("syn-ack-delay is what connect takes longer", syn_ack_delay),
    ("zero-window-stall blocks the writer and lets it go on", zero_window_stall),
    ("ack-delay makes write-write-read wait for the ACK", ack_delay),
    ("fin-drop leaves the closer in FIN-WAIT-1 and the other side without EOF", fin_drop),
    ("rst-inject resets both sides at the first byte", rst_inject),
    ("rst-inject to one side leaves the other in silence until it speaks", rst_inject_to_one_side),
    ("the same seed gives the same event log twice", same_seed),
];

/// How much later than it could a thing may happen on a loaded machine.
const SLACK: Duration = Duration::from_millis(400);

/// Three hosts, a gateway with faults, and its events.
struct Bench {
    lab: Lab,
    events: Events,
    listener: TcpListener,
    family: Family,
}

impl Bench {
    fn new(family: Family, faults: &[&str]) -> Self {
        let events = Events::new();
        let mut options = vec!["--seed", "42", "--grace", "0", "--events", events.path()];
        options.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
        let lab = Lab::with(Way::Proxied, &options);
        let listener = lab.listen(family);
        Self { lab, events, listener, family }
    }

    /// A connection, and how long it took.
    fn connect(&self) -> (TcpStream, Duration) {
        let begin = Instant::now();
        let stream = self.lab.connect(lab::server_at(self.family)).expect("the server listens");
        (stream, begin.elapsed())
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        self.lab.pair_by(&self.listener)
    }

    /// Ends the gateway and gives its events.
    fn log(&mut self) -> Log {
        self.events.after(self.lab.halfopen.take().expect("it runs until now"))
    }
}

/// Asserts that something took as long as it should.
#[track_caller]
fn took(what: &str, time: Duration, expected: Duration) {
    assert!(time >= expected && time < expected + SLACK, "{what} took {time:?} instead of {expected:?}");
}

/// Asserts that times in seconds begin like a timer of the kernel as measured on Linux 6.18: each within 15 % and 60 ms.
#[track_caller]
fn near(times: &[f64], schedule: &[f64]) {
    let fits = |(at, expected): (&f64, &f64)| (at - expected).abs() <= 0.06 + 0.15 * expected;
    let fit = times.len() >= schedule.len() && times.iter().zip(schedule).all(fits);
    assert!(fit, "{times:.3?} does not begin like {schedule:?}");
}

fn is_ready(stream: &TcpStream, what: PollFlags, within: Duration) -> bool {
    lab::wait(stream.as_fd(), what, within)
}

/// H1: connect() is late by the client's own SYN schedule. Linux 6.5 and later repeat a SYN every second at first
/// (`tcp_syn_linear_timeouts`), older ones double the wait.
fn syn_drop() {
    let linear = fs::exists("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").expect("/proc is there");
    for (family, lost, seconds) in [(Family::V4, 1, 1), (Family::V6, 2, if linear { 2 } else { 3 })] {
        let mut bench = Bench::new(family, &[&format!("syn-drop first={lost}")]);
        let (_stream, time) = bench.connect();
        took(&format!("connect with {lost} lost SYNs"), time, Duration::from_secs(seconds));
        let log = bench.log();
        assert_eq!(
            log.segments("segment-in", "client", "S").len(),
            lost + 1,
            "the gateway sees each SYN\n{log}"
        );
        assert_eq!(log.segments("segment-out", "server", "S").len(), 1, "the server only the last\n{log}");
        assert_eq!(log.fired(), vec!["syn-drop client upstream drop S"; lost]);
    }
}

/// H22: connect() takes the delay; beyond 1 s the client repeats its SYN, and is connected all the same by the first answer.
fn syn_ack_delay() {
    for (family, delay, millis, syns) in [(Family::V4, "200ms", 200, 1), (Family::V6, "1.5s", 1500, 2)] {
        let mut bench = Bench::new(family, &[&format!("syn-ack-delay delay={delay}")]);
        let (_stream, time) = bench.connect();
        took(&format!("connect with a delay of {delay}"), time, Duration::from_millis(millis));
        let log = bench.log();
        let seen = log.segments("segment-in", "client", "S");
        assert_eq!(seen.len(), syns, "{log}");
        near(&since_first(&seen), &[0.0, 1.02][..syns]);
        assert_eq!(
            log.segments("segment-out", "server", "S").len(),
            1,
            "the server has answered: no second dial\n{log}"
        );
        assert_eq!(log.fired()[0], "syn-ack-delay client downstream hold S.");
    }
}

/// E1: send() blocks without an error while probes are answered, goes on after the hold, and no byte is lost.
fn zero_window_stall() {
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
    near(&since_first(&seen[last_data..]), &[0.0, 0.21, 0.63, 1.46, 3.1]);
}

fn count(mut stream: TcpStream) -> usize {
    let mut total = 0;
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer).expect("the stream goes on") {
            0 => return total,
            n => total += n,
        }
    }
}

/// E7: write-write-read waits for the ACK of the first write, unless TCP_NODELAY is set.
fn ack_delay() {
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
}

/// T1: the closer stays in FIN-WAIT-1 and repeats its FIN; the other side reads no end of file, and its data still arrive.
/// With SACK, Linux's first repetition is a tail loss probe, which does not count as a timeout: one step more at the start.
fn fin_drop() {
    let schedules = [
        (Family::V4, "3", &[0.0, 0.21, 0.42, 0.84, 1.68, 3.3][..]),
        (Family::V6, "0", &[0.0, 0.21, 0.64, 1.5, 3.1]),
    ];
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
        assert_eq!(server_states(&bench), ["04"], "the closer stays in FIN-WAIT-1");
        client.write_all(b"ping").expect("the other direction is open");
        let mut ping = [0; 4];
        server.read_exact(&mut ping).expect("the other direction is open");
        assert_eq!(&ping, b"ping");
        let log = bench.log();
        let fins: Vec<_> =
            log.0.iter().filter(|e| e.is("segment-in", "server") && e.flags().contains('F')).collect();
        near(&since_first(&fins), schedule);
        assert!(
            log.fired().iter().all(|f| f.starts_with("fin-drop server downstream ")),
            "{:?}",
            log.fired()
        );
        assert_eq!(log.fired().len(), fins.len(), "every FIN is swallowed");
    }
}

/// The states of the connections of the server's port in the server's kernel, numbered as in Linux: 04 is FIN-WAIT-1.
fn server_states(bench: &Bench) -> Vec<String> {
    let file = if bench.family == Family::V4 { "tcp" } else { "tcp6" };
    let read = || fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("/proc is there");
    let table = bench.lab.server.run(read);
    let port = format!(":{:04X}", lab::PORT);
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let connections = fields.filter(|fields| fields[1].ends_with(&port) && fields[3] != "0A");
    connections.map(|fields| fields[3].to_owned()).collect()
}

/// E16: both applications read ECONNRESET at the first data, and write EPIPE after it.
fn rst_inject() {
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
}

/// E16: a peer that gets no RST sees silence until it speaks, then RST.
fn rst_inject_to_one_side() {
    let bench = Bench::new(Family::V6, &["rst-inject to=client after=300ms"]);
    let (mut client, mut server) = bench.pair();
    let read = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(errno(&read), "ECONNRESET");
    assert!(!is_ready(&server, PollFlags::POLLIN, Duration::from_millis(500)), "the server hears nothing");
    server.write_all(b"x").expect("sent");
    let read = server.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(errno(&read), "ECONNRESET");
}

/// The same seed gives the same event log twice, modulo time and the numbers that the hosts choose.
fn same_seed() {
    let run = || {
        let mut bench = Bench::new(
            Family::V4,
            &["syn-drop match.share=0.3 first=1", "syn-ack-delay match.share=0.5 delay=50ms jitter=30ms"],
        );
        for port in 40_000..40_010 {
            let mut stream = connect_from(&bench.lab, port);
            let (mut server, _) = lab::accept(&bench.listener).expect("it has connected");
            stream.write_all(b"hello").expect("sent");
            server.read_exact(&mut [0; 5]).expect("delivered");
            lab::reset(stream);
            bench.events.wait("end of the flow", |log| {
                log.0.iter().filter(|e| e.text("event") == "flow-closed").count() > port as usize - 40_000
            });
        }
        let log = bench.log();
        let line = |e: &Entry| {
            let names = ["event", "leg", "client", "server", "rule", "from", "to", "outcome"]
                .map(|field| e.text(field).to_owned());
            format!("{} {} {} {}", e.flow(), names.join(" "), e.did_exactly(), e.flags())
        };
        log.0.iter().map(line).collect::<Vec<String>>()
    };
    let (first, second) = (run(), run());
    assert!(
        first.iter().any(|line| line.contains("syn-drop"))
            && first.iter().any(|line| line.contains("syn-ack-delay"))
    );
    assert_eq!(first, second);
}

/// Connects from a port of our choice.
fn connect_from(lab: &Lab, port: u16) -> TcpStream {
    lab.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(lab::client_ip(Family::V4), port).into()).expect("a free port");
        socket
            .connect_timeout(&lab::server_at(Family::V4).into(), lab::PATIENCE)
            .expect("the server listens");
        socket.into()
    })
}
