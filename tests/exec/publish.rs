//! `exec --publish`: clients outside, the server inside the command, without any privilege.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use crate::lab::process::{Halfopen, command};
use crate::lab::{self, Lab, Listener, PORT, Way, accept, drain, outcome, server_at, wait};
use crate::{Row, Single, close, stream};

pub(crate) const SINGLES: &[Single] = &[
    ("published: a client that is there before the server listens is reset", too_early),
    (
        "published: a port of 127.0.0.1 is for the caller's host alone, and may be another one inside",
        loopback,
    ),
    ("published: an address that is taken is told, and nothing is run", taken),
    ("published: the end of the command closes the port", ended),
    ("published: a client port that was just used connects again", port_again),
    ("published: fin-drop hides the client's end from the server", fin_drop),
    ("published: zero-window-stall blocks the server's writes and lets them go on", zero_window_stall),
    ("published: rst-inject resets both sides", rst_inject),
    ("published: latency holds the server's bytes back", latency),
];

/// Rows that are done without and with a published port.
pub(crate) fn rows() -> Vec<Row> {
    [close::ROWS, &stream::of_kernel_sockets()].concat()
}

fn too_early() {
    let lab = Lab::new(Way::Publish);
    for family in Family::ALL {
        // The kernel of the caller accepts before anybody can ask inside.
        // The reset may be there before the connect has returned.
        let end = lab.connect(server_at(family)).map(|mut client| drain(&mut client).1);
        assert_eq!(end.unwrap_or_else(|e| outcome::<()>(&Err(e))), "ECONNRESET");
        let (mut client, mut server) = lab.pair(family);
        client.write_all(b"now").expect("an open connection");
        server.read_exact(&mut [0; 3]).expect("an open connection");
    }
}

/// A command that idles, with these options, on the server's host.
fn idle(lab: &mut Lab, options: &[&str]) {
    let (halfopen, inside) = Halfopen::exec(&lab.server, true, options);
    lab.halfopen = Some(halfopen);
    lab.publisher = Some(std::mem::replace(&mut lab.server, inside));
}

fn loopback() {
    let mut lab = Lab::new(Way::Direct);
    idle(&mut lab, &["--publish", "8080:80"]);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80);
    let listener = lab.server.run(|| lab::listen(any).expect("a free port"));
    let outside = SocketAddr::new(server_at(Family::V4).ip(), 8080);
    assert_eq!(outcome(&lab.connect(outside)), "ECONNREFUSED");
    let host = lab.publisher.as_ref().expect("it was just set");
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080);
    let mut client = host.run(|| TcpStream::connect_timeout(&at, lab::PATIENCE)).expect("the port is there");
    let (mut server, peer) = accept(&listener).expect("it has connected");
    let own = client.local_addr().expect("connected");
    assert_eq!(peer, SocketAddr::new(Ipv4Addr::new(10, 0, 2, 2).into(), own.port()));
    client.write_all(b"hello").expect("an open connection");
    client.shutdown(Shutdown::Write).expect("an open connection");
    assert_eq!(drain(&mut server), (b"hello".to_vec(), "EOF".to_owned()));
}

fn taken() {
    let lab = Lab::new(Way::Direct);
    let _listener = lab.listen(Family::V4);
    for (at, why) in [("10.81.2.2:5432", "Address"), ("10.9.9.9:80", "Cannot assign requested address")] {
        let args = ["exec", "--publish", at, "--", "echo", "run"];
        let output = command(&lab.server, &args).output().expect("built with the test");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(125), &b""[..]), "{said}");
        for part in [&format!("cannot publish {at}: {why}"), "hint: publish another port"] {
            assert!(said.contains(part), "{part:?} is missing in:\n{said}");
        }
    }
}

fn ended() {
    let mut lab = Lab::new(Way::Publish);
    let (client, server) = lab.pair(Family::V4);
    drop((client, server));
    lab.halfopen.as_mut().expect("it runs").end_by(Signal::SIGTERM);
    assert_eq!(outcome(&lab.connect(server_at(Family::V4))), "ECONNREFUSED");
}

/// The server closes first, so that nobody but halfopen remembers the addresses.
fn port_again() {
    let lab = Lab::new(Way::Publish);
    let listener = lab.listen(Family::V4);
    let from = SocketAddr::new(lab::client_ip(Family::V4), 5000);
    for _ in 0..3 {
        let mut client = lab.client.run(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_reuse_address(true).expect("an option");
            socket.bind(&from.into()).expect("a free port");
            socket.connect_timeout(&server_at(Family::V4).into(), lab::PATIENCE).expect("the port is there");
            TcpStream::from(socket)
        });
        let (mut server, peer) = accept(&listener).expect("it has connected");
        assert_eq!(peer, from);
        server.shutdown(Shutdown::Write).expect("an open connection");
        assert_eq!(drain(&mut client).1, "EOF");
        drop(client);
        // The client's kernel does not know when its end has reached the server; only then is the port free behind halfopen.
        assert_eq!(drain(&mut server).1, "EOF");
    }
}

/// The server inside with this fault on its port.
fn faulty(fault: &str) -> (Lab, Listener) {
    let rule = format!("{fault} match.server=:{PORT}");
    let lab = Lab::with(Way::Publish, &["--seed", "42", "--fault", &rule]);
    let listener = lab.listen(Family::V4);
    (lab, listener)
}

fn fin_drop() {
    let (lab, listener) = faulty("fin-drop direction=upstream first=all");
    let (mut client, mut server) = lab.pair_by(&listener);
    client.write_all(b"all").expect("an open connection");
    client.shutdown(Shutdown::Write).expect("an open connection");
    server.read_exact(&mut [0; 3]).expect("what came before the end");
    let ended = wait(server.as_fd(), PollFlags::POLLIN, Duration::from_millis(1_500));
    assert!(!ended, "the server hears of it");
}

fn zero_window_stall() {
    const HOLD: Duration = Duration::from_secs(3);
    let (lab, listener) = faulty("zero-window-stall direction=downstream hold=3s after_bytes=64KiB");
    let (mut client, mut server) = lab.pair_by(&listener);
    let reader = std::thread::spawn(move || drain(&mut client).0.len());
    socket2::SockRef::from(&server).set_send_buffer_size(64 << 10).expect("a live socket");
    server.set_nonblocking(true).expect("a live socket");
    let (mut written, mut longest) = (0, Duration::ZERO);
    while written < 2 << 20 {
        match server.write(&[7; 16 << 10]) {
            Ok(n) => written += n,
            Err(_) => {
                let begin = Instant::now();
                assert!(wait(server.as_fd(), PollFlags::POLLOUT, lab::PATIENCE), "it never goes on");
                longest = longest.max(begin.elapsed());
            }
        }
    }
    let slack = Duration::from_millis(600);
    assert!(longest + slack > HOLD && longest < HOLD + slack, "blocked for {longest:?} instead of {HOLD:?}");
    drop(server);
    assert_eq!(reader.join().expect("it only counts"), written, "every byte arrives");
}

fn rst_inject() {
    let (lab, listener) = faulty("rst-inject after_bytes=1");
    let (mut client, mut server) = lab.pair_by(&listener);
    client.write_all(b"x").expect("an open connection");
    assert_eq!(drain(&mut client).1, "ECONNRESET");
    assert_eq!(drain(&mut server).1, "ECONNRESET");
}

fn latency() {
    let (lab, listener) = faulty("latency direction=downstream latency=300ms");
    let (mut client, mut server) = lab.pair_by(&listener);
    let start = Instant::now();
    server.write_all(b"late").expect("an open connection");
    client.read_exact(&mut [0; 4]).expect("it arrives");
    let time = start.elapsed();
    assert!(time >= Duration::from_millis(300) && time < Duration::from_millis(900), "{time:?}");
}
