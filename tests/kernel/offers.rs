//! What kernel sockets offer to their peers: the MSS and the window of a SYN, and windows that stay small or close.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use etherparse::TcpOptionElement::{MaximumSegmentSize, WindowScale};
use halfopen::setup::netlink::Family;
use libtest_mimic::Trial;
use socket2::{Domain, Socket, Type};

use crate::lab::events::Events;
use crate::lab::sniff::{Seen, Sniffer};
use crate::lab::{Lab, Way, accept, server_at};
use crate::tproxy::{PLACES, untouched};
use crate::{Single, trial};

const SINGLES: &[Single] = &[
    ("SYN and SYN-ACK announce a smaller MSS", small_segments),
    ("a SYN to the server announces no more than that of the client", mirrored),
    ("windows are small from the SYN on, and grow again", small_windows),
    ("a window closes while nobody reads, and opens again", closed_windows),
];

/// More than a window, and than what the kernel sends before the first acknowledgement.
const MUCH: usize = 300_000;

pub(crate) fn trials() -> Vec<Trial> {
    SINGLES.iter().map(|(name, test)| trial(format!("tproxy: {name}"), *test)).collect()
}

/// Each place at the same time.
fn everywhere(test: impl Fn(Way) + Sync) {
    in_all(PLACES.map(|(_, way)| way), test);
}

fn in_all(ways: impl IntoIterator<Item = Way>, test: impl Fn(Way) + Sync) {
    thread::scope(|scope| {
        for way in ways {
            let test = &test;
            scope.spawn(move || test(way));
        }
    });
}

/// What a peer was offered.
#[derive(Debug)]
struct Offer {
    mss: u16,
    /// Of the SYN, in bytes.
    first: u32,
    /// The largest of all.
    most: u32,
    least: u32,
}

/// What `from` has offered to the other end.
fn offer(seen: &[Seen], from: SocketAddr, to: SocketAddr) -> Offer {
    let all: Vec<_> = seen.iter().filter(|s| (s.from, s.to) == (from, to) && !s.tcp.rst).collect();
    let syn = all.iter().find(|s| s.tcp.syn).expect("a SYN is seen");
    let (mut mss, mut scale) = (0, 0);
    for option in syn.tcp.options_iterator().flatten() {
        match option {
            MaximumSegmentSize(of) => mss = of,
            WindowScale(of) => scale = of,
            _ => {}
        }
    }
    let windows = all.iter().filter(|s| !s.tcp.syn).map(|s| u32::from(s.tcp.window_size) << scale);
    let first = u32::from(syn.tcp.window_size);
    let (most, least) = windows.fold((first, first), |(most, least), w| (most.max(w), least.min(w)));
    Offer { mss, first, most, least }
}

/// Connections in one place, as they are seen on the wires of the client and of the server.
struct Watched {
    lab: Lab,
    cables: [Sniffer; 2],
    events: Events,
}

impl Watched {
    fn new(way: Way, rule: &str) -> Self {
        let (mut lab, events) = (untouched(way), Events::new());
        lab.start(&["--fault", rule, "--events", events.path()]);
        let to_client = if way == Way::SidecarSockets { "lo" } else { "c0" };
        let to_server = if way == Way::InboundSockets { "lo" } else { "s0" };
        let cables = [Sniffer::start(&lab.client, to_client), Sniffer::start(&lab.server, to_server)];
        Self { lab, cables, events }
    }

    /// What the client and the server of this connection were offered, and what faults have done.
    fn end(self, client: TcpStream, server: TcpStream) -> ([Offer; 2], Vec<String>) {
        let own = client.local_addr().expect("it is connected");
        let (dialled, at) = (client.peer_addr(), server.local_addr());
        let [dialled, at] = [dialled, at].map(|at| at.expect("it is connected"));
        let peer = server.peer_addr().expect("it is connected");
        // A flow that is open would be waited for.
        drop((client, server));
        let [to_client, to_server] = self.cables.map(Sniffer::stop);
        let mut lab = self.lab;
        let log = self.events.after(lab.halfopen.take().expect("it runs"));
        // On a slow machine a SYN comes again.
        let mut fired = log.fired();
        fired.dedup();
        ([offer(&to_client, dialled, own), offer(&to_server, peer, at)], fired)
    }
}

/// Bytes cross, and none is lost.
fn send_much(from: &mut TcpStream, to: &mut TcpStream, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let mut seen = vec![0; len];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).expect("the peer reads"));
        to.read_exact(&mut seen).expect("all bytes come");
    });
    assert!(seen == bytes, "each byte is as it was");
}

fn small_segments() {
    everywhere(|way| {
        for (rule, [to_client, to_server]) in [
            ("mss-rewrite mss=536", [true, true]),
            ("mss-rewrite mss=536 direction=upstream", [false, true]),
            ("mss-rewrite mss=536 direction=downstream", [true, false]),
        ] {
            let watched = Watched::new(way, rule);
            let (mut client, mut server) = watched.lab.pair(Family::V6);
            send_much(&mut client, &mut server, MUCH);
            send_much(&mut server, &mut client, MUCH);
            let ([client, server], fired) = watched.end(client, server);
            assert_eq!([client.mss == 536, server.mss == 536], [to_client, to_server], "{way:?} {rule}");
            let told = [
                (to_server, "mss-rewrite client upstream rewrite S"),
                (to_client, "mss-rewrite client downstream rewrite S."),
            ];
            let told: Vec<_> = told.into_iter().filter(|(is, _)| *is).map(|(_, told)| told).collect();
            assert_eq!(fired, told, "{way:?} {rule}");
        }
    });
}

/// As one that has less room than the hosts behind it.
fn mirrored() {
    everywhere(|way| {
        let watched = Watched::new(way, "latency latency=0ms");
        let listener = watched.lab.listen(Family::V4);
        let client = watched.lab.client.run(|| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            client.set_tcp_mss(1000).expect("it is fresh");
            client.connect(&server_at(Family::V4).into()).expect("the server listens");
            TcpStream::from(client)
        });
        let (server, _) = accept(&listener).expect("a client");
        let ([_, server], _) = watched.end(client, server);
        assert_eq!(server.mss, 1000, "{way:?}");
    });
}

fn small_windows() {
    const WINDOW: u32 = 4000;
    const SMALLEST: u32 = 1152;
    everywhere(|way| {
        for (direction, leg, window) in [("upstream", 0, WINDOW), ("downstream", 1, SMALLEST)] {
            let rule = format!("tiny-window window={window} direction={direction}");
            let watched = Watched::new(way, &rule);
            let (mut client, mut server) = watched.lab.pair(Family::ALL[leg]);
            send_much(&mut client, &mut server, MUCH);
            send_much(&mut server, &mut client, MUCH);
            let (offers, fired) = watched.end(client, server);
            let (small, other) = (&offers[leg], &offers[1 - leg]);
            assert!(small.first <= window && small.most <= 2 * window, "{way:?} {rule}: {small:?}");
            assert!(other.first > 2 * window, "{way:?} {rule}: {other:?}");
            let told = match leg {
                0 => ["tiny-window client downstream rewrite S.", "tiny-window client upstream knob"],
                _ => ["tiny-window server upstream rewrite S", "tiny-window server downstream knob"],
            };
            assert_eq!(fired, told, "{way:?} {rule}");
        }
        let watched = Watched::new(way, &format!("tiny-window window={WINDOW} for=1s"));
        let (mut client, mut server) = watched.lab.pair(Family::V4);
        watched.events.wait("it ends", |log| log.fired().iter().any(|fired| fired.ends_with("release")));
        send_much(&mut client, &mut server, 2 * MUCH);
        let ([grown, _], _) = watched.end(client, server);
        assert!(grown.first <= WINDOW && grown.most > 4 * WINDOW, "{way:?}: {grown:?}");
    });
}

fn closed_windows() {
    in_all([Way::GatewaySockets, Way::SidecarSockets, Way::InboundSockets, Way::ListenSockets], |way| {
        let watched = Watched::new(way, "zero-window-stall after_bytes=1kB hold=500ms");
        let (mut client, mut server) = watched.lab.pair(Family::V4);
        // More than all buffers on the way.
        send_much(&mut client, &mut server, 20 * MUCH);
        let ([stalled, _], fired) = watched.end(client, server);
        assert_eq!(stalled.least, 0, "{way:?}: {stalled:?}");
        let told = ["zero-window-stall client upstream knob", "zero-window-stall client upstream release"];
        assert_eq!(fired, told, "{way:?}");
    });
}
