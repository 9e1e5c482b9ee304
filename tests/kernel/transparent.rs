//! What only a gateway can keep: fields of the headers, ports, and the moods of a busy server.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::lab::sniff::Sniffer;
use crate::lab::{Lab, PATIENCE, accept, address, client_ip, drain, errno, outcome, reset, server_at};
use crate::{Row, Seen};

pub(crate) const ROWS: &[Row] = &[
    ("ECN is agreed on by the peers", ecn),
    ("traffic class and hop count are those of the peers", header_fields),
    ("a client port that the server has closed may connect again at once", port_again),
    ("a full accept queue makes the client try again", full_accept_queue),
    ("a tiny receive buffer gets all bytes", tiny_buffer),
    ("TCP Fast Open loses no byte", fast_open),
    ("Multipath TCP falls back, or works", multipath),
];

fn ecn(lab: &Lab, family: Family) -> Seen {
    let mut seen = Vec::new();
    for (client, server) in [("1", "1"), ("1", "0"), ("0", "1")] {
        lab.client.sysctl("net/ipv4/tcp_ecn", client);
        lab.server.sysctl("net/ipv4/tcp_ecn", server);
        let cables = [Sniffer::start(&lab.client, "c0"), Sniffer::start(&lab.server, "s0")];
        let (mut one, mut other) = lab.pair(family);
        one.write_all(b"hello").expect("an open connection");
        other.read_exact(&mut [0; 5]).expect("an open connection");
        for (name, cable) in ["client's", "server's"].into_iter().zip(cables) {
            let segments = cable.stop();
            let bits =
                |s: &crate::lab::sniff::Seen| format!("{} ECE {} CWR {}", s.flags(), s.tcp.ece, s.tcp.cwr);
            seen.extend(segments.iter().filter(|s| s.tcp.syn).map(|s| format!("{name} cable: {}", bits(s))));
            let data = segments.iter().find(|s| s.len > 0).expect("the word");
            seen.push(format!("{name} cable: data with ECN bits {}", data.tos & 3));
        }
    }
    seen
}

/// What the peers of a connection see of each other's IP headers, without ECN.
fn header_fields(lab: &Lab, family: Family) -> Seen {
    const DSCP_EF: u32 = 46 << 2;
    let listener = lab.listen(family);
    let set = |socket: &SockRef<'_>| match family {
        Family::V4 => socket.set_tos_v4(DSCP_EF).and_then(|()| socket.set_ttl_v4(37)),
        Family::V6 => socket.set_tclass_v6(DSCP_EF).and_then(|()| socket.set_unicast_hops_v6(37)),
    };
    set(&SockRef::from(&*listener)).expect("options of TCP sockets");
    let cables = [Sniffer::start(&lab.client, "c0"), Sniffer::start(&lab.server, "s0")];
    let to = server_at(family);
    let socket = lab.client.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)));
    let socket = socket.expect("a socket");
    set(&SockRef::from(&socket)).expect("options of TCP sockets");
    socket.connect_timeout(&to.into(), PATIENCE).expect("the server listens");
    let mut client = TcpStream::from(socket);
    let (mut server, _) = accept(&listener).expect("the client has connected");
    set(&SockRef::from(&server)).expect("options of TCP sockets");
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut client, &mut server];
        ends[from].write_all(b"hello").expect("an open connection");
        ends[to].read_exact(&mut [0; 5]).expect("an open connection");
    }
    let of = |name: &'static str, cable: Sniffer, from: IpAddr| {
        let segments = cable.stop().into_iter().filter(move |s| s.from.ip() == from);
        let fields: BTreeSet<_> = segments.map(|s| (s.tcp.syn, s.ttl, s.tos >> 2)).collect();
        format!("{name}: SYN, TTL, DSCP {fields:?}")
    };
    let [at_client, at_server] = cables;
    vec![of("client sees", at_client, to.ip()), of("server sees", at_server, client_ip(family))]
}

/// Connects from a port of our choice.
fn connect_from(lab: &Lab, to: SocketAddr, port: u16) -> std::io::Result<TcpStream> {
    let from = SocketAddr::new(address(if to.is_ipv4() { Family::V4 } else { Family::V6 }, 1, 2), port);
    let socket =
        lab.client.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

fn port_again(lab: &Lab, family: Family) -> Seen {
    let listener = lab.listen(family);
    let talk = |by_reset: bool| {
        let start = Instant::now();
        let client = connect_from(lab, server_at(family), 40_000);
        let seen = outcome(&client);
        let Ok(mut client) = client else { return seen };
        let (mut server, _) = accept(&listener).expect("the client has connected");
        client.write_all(b"hello").expect("an open connection");
        server.read_exact(&mut [0; 5]).expect("an open connection");
        // The server is first, so that its side is the one that waits 2 MSL.
        if by_reset {
            reset(server)
        } else {
            drop(server)
        }
        let (_, end) = drain(&mut client);
        assert!(start.elapsed() < Duration::from_millis(800), "no SYN was sent twice: {:?}", start.elapsed());
        drop(client);
        // Until the client's FIN is acknowledged, its own kernel does not give the port away.
        thread::sleep(Duration::from_millis(50));
        format!("{seen} {end}")
    };
    [false, false, true, false, true, true].map(talk).into()
}

/// A server that accepts nobody for a while.
fn full_accept_queue(lab: &Lab, family: Family) -> Seen {
    let at = server_at(family);
    let listener: TcpListener = lab.server.run(|| {
        let socket =
            Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&at.into()).expect("a free port");
        socket.listen(0).expect("a bound socket");
        socket.into()
    });
    let first = lab.connect(at).expect("there is room for one");
    thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    let second = thread::scope(|scope| {
        let dialling = scope.spawn(|| lab.connect(at));
        thread::sleep(Duration::from_millis(400));
        drop(accept(&listener).expect("the first one"));
        dialling.join().expect("no panic")
    });
    let took = start.elapsed();
    // The SYN that found no room is repeated by the client's own clock, after a second.
    assert!((Duration::from_millis(900)..Duration::from_millis(1_700)).contains(&took), "{took:?}");
    drop(first);
    vec![format!("second: {}", outcome(&second)), format!("accepted: {}", outcome(&accept(&listener)))]
}

fn tiny_buffer(lab: &Lab, family: Family) -> Seen {
    let listener = lab.listen(family);
    SockRef::from(&*listener).set_recv_buffer_size(2_048).expect("an option of sockets");
    let (mut client, mut server) = lab.pair_by(&listener);
    let bytes: Vec<u8> = (0..400_000u32).map(|i| (i / 7) as u8).collect();
    let sent = bytes.clone();
    let writer = thread::spawn(move || client.write_all(&sent));
    let (got, end) = drain(&mut server);
    vec![
        format!("write: {}", outcome(&writer.join().expect("no panic"))),
        format!("read: {} equal {} {end}", got.len(), got == bytes),
    ]
}

/// Two connections with data in the SYN: the first one gets a cookie, the second one uses it, if the way lets it.
fn fast_open(lab: &Lab, family: Family) -> Seen {
    for host in [&lab.client, &lab.server] {
        // For clients, for servers, and for all listeners.
        host.sysctl("net/ipv4/tcp_fastopen", "1027");
    }
    let to = server_at(family);
    let listener = lab.listen(family);
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    let talk = |_| {
        let socket =
            lab.client.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)));
        let socket = socket.expect("a socket");
        let sent = sendto(socket.as_raw_fd(), b"early data", &SockaddrStorage::from(to), flags);
        assert_eq!(sent, Ok(10));
        let (mut server, _) = accept(&listener).expect("the client connects");
        server.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        let mut early = [0; 10];
        let read = server.read_exact(&mut early);
        let wrote = server.write_all(b"answer");
        drop(server);
        let mut client = TcpStream::from(socket);
        let (answer, end) = drain(&mut client);
        let (early, answer) =
            (String::from_utf8_lossy(&early), String::from_utf8_lossy(&answer).into_owned());
        format!("server: {} {early:?} {}, client: {answer:?} {end}", outcome(&read), outcome(&wrote))
    };
    [0, 1, 2].map(talk).into()
}

fn multipath(lab: &Lab, family: Family) -> Seen {
    const MPTCP: i32 = 262;
    let to = server_at(family);
    let socket = |host: &crate::lab::ns::Ns| {
        host.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::from(MPTCP))))
            .unwrap_or_else(|e| panic!("a kernel with Multipath TCP: {}", errno(&e)))
    };
    let listening = socket(&lab.server);
    listening.set_reuse_address(true).expect("an option");
    listening.bind(&to.into()).expect("a free port");
    listening.listen(16).expect("a bound socket");
    let listener = TcpListener::from(listening);
    let dialling = socket(&lab.client);
    dialling.connect_timeout(&to.into(), PATIENCE).expect("the server listens");
    let (mut client, (mut server, _)) =
        (TcpStream::from(dialling), accept(&listener).expect("the client connects"));
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i / 11) as u8).collect();
    let sent = bytes.clone();
    let writer = thread::spawn(move || client.write_all(&sent));
    let (got, end) = drain(&mut server);
    let write = outcome(&writer.join().expect("no panic"));
    vec![format!("write: {write}, read: {} equal {} {end}", got.len(), got == bytes)]
}
