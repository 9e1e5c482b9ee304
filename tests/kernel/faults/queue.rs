//! Lost SYN-ACKs and ACKs, full accept queues, ghosts, and SYNs that are lost for what other flows do, against Linux.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use etherparse::TcpOptionElement;
use halfopen::setup::netlink::{Family, Netlink};
use nix::poll::PollFlags;
use socket2::{Domain, Socket, Type};

use super::bench::{Bench, Proof, is_ready, near, took};
use crate::lab::events::{Entry, Log, since_first};
use crate::lab::forge::{Forged, Forger};
use crate::lab::sniff::Sniffer;
use crate::lab::{self, Lab};

pub(super) const PROOFS: &[Proof] = &[
    Proof {
        fault: "syn-ack-drop",
        entry: "H3",
        expected: "connect() late by the client's SYN schedule: 1.0 s for one lost SYN-ACK, at most 400 ms more; a silent client is sent it again after 1, 3, 7 s (15 % + 60 ms)",
        run: syn_ack_drop,
    },
    Proof {
        fault: "final-ack-drop",
        entry: "H4",
        expected: "connect() at once; the greeting of a server that speaks first comes after 1.0 s, the request of a client that does at once; at most 400 ms more",
        run: final_ack_drop,
    },
    Proof {
        fault: "accept-queue-full",
        entry: "H5",
        expected: "two slots, two releases a second, three clients at once: connected after 0, 0 and 1.0 s, answered after 0.5, 1.0 and 1.5 s; at most 400 ms more",
        run: accept_queue_full,
    },
    Proof {
        fault: "accept-stall",
        entry: "H6",
        expected: "connect() at once, SYN-ACKs after 1 and 3 s; with a hold of 2 s the server accepts after 3.0 s, at most 400 ms more, and gets the request",
        run: accept_stall,
    },
    Proof {
        fault: "accept-stall",
        entry: "H6",
        expected: "abort: the client gets ECONNRESET, and the server's host knows no connection",
        run: accept_stall_abort,
    },
    Proof {
        fault: "ghost-connection",
        entry: "H7",
        expected: "connect() at once by a SYN-ACK with MSS only, then not a segment for 3 s, whatever the client writes; the server accepts nothing",
        run: ghost_connection,
    },
    Proof {
        fault: "ghost-connection",
        entry: "H7",
        expected: "hold of 1 s: the first repetition of the request after it is accepted (1.0 to 2.5 s) and answered",
        run: ghost_becomes_real,
    },
    Proof {
        fault: "syn-drop",
        entry: "H2",
        expected: "of two connects to one server within 20 ms the later takes 1.0 s, at most 400 ms more, the earlier none",
        run: later_sibling,
    },
    Proof {
        fault: "syn-drop",
        entry: "H2",
        expected: "sticky: the later of two connects within 20 ms does not open for 2.5 s, a new port connects at once",
        run: sticky_sibling,
    },
    Proof {
        fault: "syn-drop",
        entry: "H13",
        expected: "a host with one clock for all connections (tcp_timestamps = 2) that is behind that of another host with the same address does not connect for 2.5 s; from another address it does at once",
        run: behind_one_address,
    },
    Proof {
        fault: "syn-drop",
        entry: "H14",
        expected: "a connect from a port that was just used takes 1.0 s more, at most 400 ms more; from another port none",
        run: reused_port,
    },
];

/// How long a connect that must not succeed is watched.
const WATCHED: Duration = Duration::from_millis(2500);

/// Begins to connect from a port of our choice (0: any) and an address.
fn begin(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("a free port");
    socket.set_nonblocking(true).expect("a live socket");
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => socket.into(),
        other => panic!("connect gave {other:?}"),
    }
}

fn any_port(family: Family) -> SocketAddr {
    SocketAddr::new(lab::client_ip(family), 0)
}

/// Waits until it is connected.
fn connected(stream: &TcpStream) {
    assert!(lab::wait(stream.as_fd(), PollFlags::POLLOUT, lab::PATIENCE), "it never connects");
    assert!(stream.take_error().expect("a live socket").is_none(), "it connects without an error");
    stream.set_nonblocking(false).expect("a live socket");
    stream.set_read_timeout(Some(lab::PATIENCE)).expect("a live socket");
}

/// Connects from there, and tells how long it took.
fn connect_from(lab: &Lab, from: SocketAddr) -> (TcpStream, Duration) {
    let to = lab.dialled(lab::server_at(Family::V4));
    lab.client.run(|| {
        let start = Instant::now();
        let stream = begin(from, to);
        connected(&stream);
        (stream, start.elapsed())
    })
}

/// H3: the client repeats its SYN and is answered again. A client that does not, as no kernel behaves, shows our own timer.
fn syn_ack_drop() -> String {
    let mut bench = Bench::new(Family::V6, &["syn-ack-drop"]);
    let (_stream, time) = bench.connect();
    let first = took("connect with 1 lost SYN-ACK", time, Duration::from_secs(1));
    let log = bench.log();
    assert_eq!(log.fired(), ["syn-ack-drop client downstream drop S."]);
    assert_eq!(log.segments("segment-out", "server", "S").len(), 1, "one dial\n{log}");

    let bench = Bench::new(Family::V4, &["syn-ack-drop first=all"]);
    let mut forger = Forger::new(&bench.lab);
    let from = SocketAddr::new(lab::client_ip(Family::V4), 40_001);
    forger.send(&Forged::new(from, lab::server_at(Family::V4), 2).packet());
    fn dropped(log: &Log) -> Vec<&Entry> {
        log.0.iter().filter(|e| e.text("event") == "fired").collect()
    }
    let log = bench.events.wait("fourth SYN-ACK", |log| dropped(log).len() >= 4);
    format!("{first}; a silent client's at {}", near(&since_first(&dropped(&log)), &[0.0, 1.0, 3.0, 7.0]))
}

/// H4: who speaks first decides whether anybody notices.
fn final_ack_drop() -> String {
    let bench = Bench::new(Family::V4, &["final-ack-drop"]);
    let start = Instant::now();
    let (mut client, time) = bench.connect();
    let mut seen = vec![took("connect", time, Duration::ZERO)];
    let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
    server.write_all(b"220 ready\r\n").expect("sent");
    client.read_exact(&mut [0; 11]).expect("the greeting");
    seen.push(took("greeting", start.elapsed(), Duration::from_secs(1)));

    let bench = Bench::new(Family::V6, &["final-ack-drop"]);
    let start = Instant::now();
    let (mut client, _) = bench.connect();
    client.write_all(b"request").expect("sent");
    let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
    server.read_exact(&mut [0; 7]).expect("the request");
    seen.push(took("request", start.elapsed(), Duration::ZERO));
    seen.join(", ")
}

/// Accepts so many connections and sends back one byte on each.
fn echo(listener: &TcpListener, count: usize) {
    thread::scope(|scope| {
        for _ in 0..count {
            let (mut stream, _) = lab::accept(listener).expect("a client connects");
            scope.spawn(move || {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a byte");
                stream.write_all(&byte).expect("sent");
            });
        }
    });
}

/// H5: two connect and hang, the third loses its SYN; each is answered when it is accepted.
fn accept_queue_full() -> String {
    let bench = Bench::in_one_shard(Family::V4, &["accept-queue-full slots=2 release=2"]);
    let seen = thread::scope(|scope| {
        scope.spawn(|| echo(&bench.listener, 3));
        let start = Instant::now();
        let to = lab::server_at(Family::V4);
        let mut clients: Vec<TcpStream> =
            bench.lab.client.run(|| (0..3).map(|_| begin(any_port(Family::V4), to)).collect());
        let mut seen = Vec::new();
        let mut write = |client: &mut TcpStream, millis: u64| {
            connected(client);
            seen.push(took("connected", start.elapsed(), Duration::from_millis(millis)));
            client.write_all(b"x").expect("sent");
        };
        write(&mut clients[0], 0);
        write(&mut clients[1], 0);
        clients[0].read_exact(&mut [0]).expect("the answer");
        let first = took("answered", start.elapsed(), Duration::from_millis(500));
        write(&mut clients[2], 1000);
        seen.push(first);
        for (client, millis) in clients[1..].iter_mut().zip([1000, 1500]) {
            client.read_exact(&mut [0]).expect("the answer");
            seen.push(took("answered", start.elapsed(), Duration::from_millis(millis)));
        }
        seen
    });
    seen.join(", ")
}

/// H6: the ACK and the data are ignored until a slot is free.
fn accept_stall() -> String {
    let mut bench = Bench::new(Family::V4, &["accept-stall hold=2s"]);
    let start = Instant::now();
    let (mut client, time) = bench.connect();
    let mut seen = vec![took("connect", time, Duration::ZERO)];
    client.write_all(b"request").expect("sent");
    let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
    seen.push(took("accept", start.elapsed(), Duration::from_secs(3)));
    let mut request = [0; 7];
    server.read_exact(&mut request).expect("the request");
    assert_eq!(&request, b"request");
    let log = bench.log();
    let times = since_first(&log.segments("segment-out", "client", "S."));
    seen.push(format!("SYN-ACKs at {}", near(&times, &[0.0, 1.0, 3.0])));
    assert!(log.fired().iter().all(|fired| fired.starts_with("accept-stall client upstream drop")), "{log}");
    seen.join(", ")
}

/// H6 with abort: the RST may come before connect() has returned, and is then its error.
fn accept_stall_abort() -> String {
    let mut seen = Vec::new();
    for family in Family::ALL {
        let bench = Bench::new(family, &["accept-stall abort=true"]);
        let read = bench.lab.connect(lab::server_at(family)).and_then(|mut client| client.read(&mut [0]));
        assert_eq!(lab::outcome(&read), "ECONNRESET");
        bench.events.wait("end of the flow", |log| log.0.iter().any(|e| e.text("event") == "flow-closed"));
        assert!(!lab::wait(bench.listener.as_fd(), PollFlags::POLLIN, Duration::from_millis(200)));
        assert_eq!(bench.server_states(), [""; 0], "the server's host knows nothing");
        seen.push(lab::outcome(&read));
    }
    format!("{}, nothing at the server", seen.join(" and "))
}

/// H7: connected, and nobody there.
fn ghost_connection() -> String {
    let mut bench = Bench::new(Family::V6, &["ghost-connection recover_on_data=false"]);
    let (mut client, time) = bench.connect();
    let connect = took("connect", time, Duration::ZERO);
    client.write_all(b"request").expect("sent");
    let ready = is_ready(&client, PollFlags::POLLIN | PollFlags::POLLHUP, Duration::from_secs(3));
    assert!(!ready, "something came");
    assert!(!lab::wait(bench.listener.as_fd(), PollFlags::POLLIN, Duration::ZERO), "the server accepts");
    let log = bench.log();
    let sent: Vec<&str> =
        log.0.iter().filter(|e| e.is("segment-out", "client")).map(|e| e.text("segment")).collect();
    assert!(sent.len() == 1 && sent[0].contains("<mss 1440>"), "{sent:?}\n{log}");
    let repeated = log.fired().iter().filter(|fired| fired.ends_with("drop P.")).count();
    assert!(repeated >= 4, "the client repeats itself\n{log}");
    format!("{connect}, then silence for 3 s; the request came {repeated} times")
}

/// H7: the first data after the hold.
fn ghost_becomes_real() -> String {
    let bench = Bench::new(Family::V4, &["ghost-connection hold=1s"]);
    let start = Instant::now();
    let (mut client, _) = bench.connect();
    client.write_all(b"request").expect("sent");
    let (mut server, _) = lab::accept(&bench.listener).expect("the server accepts");
    let accepted = start.elapsed();
    assert!(accepted > Duration::from_secs(1) && accepted < WATCHED, "accepted after {accepted:?}");
    server.read_exact(&mut [0; 7]).expect("the request");
    server.write_all(b"reply").expect("sent");
    client.read_exact(&mut [0; 5]).expect("the reply");
    format!("accepted after {:.2} s and answered", accepted.as_secs_f64())
}

/// Two connects one right after the other.
fn siblings(bench: &Bench) -> [TcpStream; 2] {
    let to = bench.lab.dialled(lab::server_at(Family::V4));
    bench.lab.client.run(|| [(); 2].map(|()| begin(any_port(Family::V4), to)))
}

/// H2: the loser of a race. The window is wider than the millisecond of the field, for the machine may be loaded.
fn later_sibling() -> String {
    let bench = Bench::in_one_shard(Family::V4, &["syn-drop match.sibling=20ms first=1"]);
    let start = Instant::now();
    let [earlier, later] = siblings(&bench);
    connected(&earlier);
    let first = took("earlier", start.elapsed(), Duration::ZERO);
    connected(&later);
    format!("{first}, {}", took("later", start.elapsed(), Duration::from_secs(1)))
}

/// H2: the bad entry persists.
fn sticky_sibling() -> String {
    let bench = Bench::in_one_shard(Family::V4, &["syn-drop match.sibling=20ms first=all for=120s"]);
    let [earlier, later] = siblings(&bench);
    connected(&earlier);
    assert!(!lab::wait(later.as_fd(), PollFlags::POLLOUT, WATCHED), "the later one connects");
    let (_third, time) = connect_from(&bench.lab, any_port(Family::V4));
    format!("not in 2.5 s; {}", took("from a new port", time, Duration::ZERO))
}

/// H13: the other host behind the address is a forged SYN whose clock is ahead.
fn behind_one_address() -> String {
    let bench = Bench::in_one_shard(Family::V4, &["syn-drop match.stamp_behind=60s first=all for=60s"]);
    // Linux 6.18 gives each connection a clock of its own otherwise, by which a host is behind itself half of the time.
    bench.lab.client.sysctl("net/ipv4/tcp_timestamps", "2");
    let sniffer = Sniffer::start(&bench.lab.client, "c0");
    let (_first, time) = bench.connect();
    took("the first", time, Duration::ZERO);
    let seen = sniffer.stop();
    let syn = seen.iter().find(|s| s.flags() == "S" && s.to.port() == lab::PORT).expect("a SYN was seen");
    let stamp = syn.tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::Timestamp(val, _)) => Some(val),
        _ => None,
    });
    let ahead = stamp.expect("Linux sends timestamps").wrapping_add(1_000_000);
    let client = lab::client_ip(Family::V4);
    let mut forged = Forged::new(SocketAddr::new(client, 1234), lab::server_at(Family::V4), 2);
    forged.options = [&[1, 1, 8, 10][..], &ahead.to_be_bytes(), &[0; 4]].concat();
    Forger::new(&bench.lab).send(&forged.packet());
    let opened = |log: &Log| log.0.iter().filter(|e| e.text("event") == "flow-opened").count();
    bench.events.wait("flow of the other host", |log| opened(log) == 2);

    let to = lab::server_at(Family::V4);
    let behind = bench.lab.client.run(|| begin(any_port(Family::V4), to));
    let connects = lab::wait(behind.as_fd(), PollFlags::POLLOUT, WATCHED);
    assert!(!connects, "it connects\n{}", bench.events.read());
    let other: IpAddr = lab::address(Family::V4, 1, 3);
    bench.lab.client.run(|| {
        let mut netlink = Netlink::open().expect("netlink");
        let index = netlink.link("c0").expect("the device").index;
        netlink.add_address(index, other, lab::prefix(Family::V4)).expect("an address");
    });
    let (_second, time) = connect_from(&bench.lab, SocketAddr::new(other, 0));
    format!("not in 2.5 s; {}", took("from another address", time, Duration::ZERO))
}

/// H14: the table of a balancer still has the last connection from that port.
fn reused_port() -> String {
    let bench = Bench::in_one_shard(Family::V4, &["syn-drop match.reused=120s first=1"]);
    let from = |port| SocketAddr::new(lab::client_ip(Family::V4), port);
    let (stream, time) = connect_from(&bench.lab, from(40_010));
    let mut seen = vec![took("first", time, Duration::ZERO)];
    lab::reset(stream);
    bench.events.wait("end of the flow", |log| log.0.iter().any(|e| e.text("event") == "flow-closed"));
    for (port, seconds) in [(40_010, 1), (40_011, 0)] {
        let (_stream, time) = connect_from(&bench.lab, from(port));
        seen.push(took(&format!("then from port {port}"), time, Duration::from_secs(seconds)));
    }
    seen.join(", ")
}
