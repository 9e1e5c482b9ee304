//! Against real sockets on this machine's loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};

use bytes::Bytes;
use mio::{Events, Poll};
use socket2::SockRef;

use super::*;
use crate::relay::Refusal;

const FLOW: FlowKey = FlowKey { slot: 7, generation: 1 };

/// A loop around the sockets.
struct Bench {
    poll: Poll,
    caller: Caller,
}

impl Bench {
    fn new(udp_flows: usize) -> Self {
        let poll = Poll::new().unwrap();
        let mut caller = Caller::new(AddressMap::default(), udp_flows);
        caller.start(poll.registry().try_clone().unwrap(), 10).unwrap();
        Self { poll, caller }
    }

    /// Waits for readiness until `found` finds something; the tests' own limit keeps it from waiting for ever.
    fn until<T>(&mut self, mut found: impl FnMut(&mut Caller) -> Option<T>) -> T {
        let mut events = Events::with_capacity(64);
        for _ in 0..1000 {
            if let Some(it) = found(&mut self.caller) {
                return it;
            }
            self.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "nothing happens any more");
            for event in &events {
                self.caller.on_ready(event);
            }
        }
        panic!("not found");
    }

    fn event(&mut self) -> SocketEvent {
        self.until(|caller| {
            let (flow, event) = caller.poll_event()?;
            assert_eq!(flow, FLOW);
            Some(event)
        })
    }

    fn command(&mut self, command: SocketCommand) {
        self.caller.command(FLOW, command);
    }

    /// A connection: its far end, and this end as [`FLOW`].
    fn connected() -> (Self, TcpStream) {
        let mut bench = Self::new(8);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bench.command(SocketCommand::Dial { server: listener.local_addr().unwrap() });
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(bench.event(), SocketEvent::Connected);
        (bench, stream)
    }

    /// Reads data events until the stream is this long.
    fn data(&mut self, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < len {
            match self.event() {
                SocketEvent::Data { data, .. } => all.extend(data),
                other => panic!("{other:?} after {} bytes", all.len()),
            }
        }
        all
    }

    fn packet(&mut self) -> BytesMut {
        let mut packet = BytesMut::new();
        self.until(|caller| caller.poll_packet(&mut packet).then_some(()));
        packet
    }
}

#[test]
fn a_refused_dial_is_a_reset() {
    let mut bench = Bench::new(8);
    let server = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.command(SocketCommand::Dial { server });
    let refused = SocketEvent::Failed { errno: "ECONNREFUSED", refusal: Refusal::Reset };
    assert_eq!(bench.event(), refused);
    assert!(bench.caller.sockets.is_empty());

    // An address inside that stands for none outside.
    bench.caller.addresses.host_loopback = HostLoopback::Off;
    bench.command(SocketCommand::Dial { server: "[::1]:80".parse().unwrap() });
    assert_eq!(bench.event(), refused);
}

#[test]
fn no_byte_is_read_without_credit() {
    let (mut bench, mut far) = Bench::connected();
    far.write_all(&[7; 5000]).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert!(bench.caller.poll_event().is_none());
    bench.command(SocketCommand::Read { credit: 1000 });
    assert_eq!(bench.data(1000).len(), 1000);
    assert!(bench.caller.poll_event().is_none());
    bench.command(SocketCommand::Read { credit: 100_000 });
    assert_eq!(bench.data(4000).len(), 4000);
    assert_eq!(bench.event(), SocketEvent::Eof);
    assert!(bench.caller.poll_event().is_none(), "the end is told once");
}

#[test]
fn what_the_kernel_does_not_take_waits_and_the_fin_follows_it() {
    let (mut bench, mut far) = Bench::connected();
    let total = 32 << 20;
    bench.command(SocketCommand::Write { data: Bytes::from(vec![9; total]), urgent: false });
    bench.command(SocketCommand::Shutdown);
    let mut sent = 0;
    while let Some((_, event)) = bench.caller.poll_event() {
        let SocketEvent::Sent(n) = event else { panic!("{event:?}") };
        sent += n as usize;
    }
    assert!((1..total).contains(&sent), "{sent} of {total} went into a socket that nobody reads");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all.len()
    });
    while sent < total {
        let SocketEvent::Sent(n) = bench.event() else { panic!("not sent") };
        sent += n as usize;
    }
    assert_eq!((reader.join().unwrap(), sent), (total, total));
}

#[test]
fn a_reset_comes_after_what_was_received_before_it() {
    let (mut bench, mut far) = Bench::connected();
    far.write_all(b"last words").unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    bench.command(SocketCommand::Read { credit: 100 });
    assert_eq!(bench.data(10), b"last words");
    assert_eq!(bench.event(), SocketEvent::Reset);
    assert!(bench.caller.sockets.is_empty());
}

#[test]
fn a_reset_is_told_even_when_nothing_may_be_read() {
    let (mut bench, mut far) = Bench::connected();
    far.write_all(b"unread").unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    assert_eq!(bench.event(), SocketEvent::Reset);
}

#[test]
fn an_abort_resets_the_server() {
    let (mut bench, mut far) = Bench::connected();
    bench.command(SocketCommand::Abort);
    assert_eq!(far.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(bench.caller.by_flow.is_empty());
}

#[test]
fn a_close_after_both_fins_is_silent() {
    let (mut bench, mut far) = Bench::connected();
    far.shutdown(Shutdown::Write).unwrap();
    bench.command(SocketCommand::Read { credit: 1 });
    assert_eq!(bench.event(), SocketEvent::Eof);
    bench.command(SocketCommand::Shutdown);
    assert!(bench.caller.poll_event().is_none());
    bench.command(SocketCommand::Close);
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_urgent_byte_keeps_its_place_both_ways() {
    let (mut bench, far) = Bench::connected();
    let far_ref = SockRef::from(&far);
    far_ref.set_out_of_band_inline(true).unwrap();
    far_ref.send(b"ab").unwrap();
    far_ref.send_out_of_band(b"!").unwrap();
    far_ref.send(b"cd").unwrap();
    bench.command(SocketCommand::Read { credit: 100 });
    let mut seen = Vec::new();
    while seen.len() < 5 {
        if let SocketEvent::Data { data, urgent } = bench.event() {
            seen.extend(data);
            assert_eq!(urgent, seen.len() == 3, "the mark is after byte 3 of {seen:?}");
        }
    }
    bench.command(SocketCommand::Write { data: Bytes::from_static(b"xy!"), urgent: true });
    bench.command(SocketCommand::Write { data: Bytes::from_static(b"z"), urgent: false });
    assert!(matches!(bench.event(), SocketEvent::Sent(_)));
    let mut bytes = [0; 9];
    assert_eq!((&far).read(&mut bytes).unwrap(), 2, "a read stops before the urgent byte");
    assert!(sys::at_urgent_byte(&far).unwrap());
    assert_eq!(((&far).read(&mut bytes).unwrap(), &bytes[..2]), (2, &b"!z"[..]));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the kernel's time is real")]
fn a_probe_is_answered_by_a_living_server() {
    let (mut bench, _far) = Bench::connected();
    let start = std::time::Instant::now();
    for _ in 0..2 {
        // The kernel does not probe before a second of silence.
        std::thread::sleep(Duration::from_millis(1100));
        bench.command(SocketCommand::Probe);
        while bench.caller.poll_event().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "no answer");
            let now = Instant::from_nanos(start.elapsed().as_nanos() as u64);
            std::thread::sleep(bench.caller.poll_timeout().unwrap().since(now));
            bench.caller.on_timeout(Instant::from_nanos(start.elapsed().as_nanos() as u64));
        }
        assert!(bench.caller.probes.is_empty());
    }
}

#[test]
fn many_events_are_handed_out_in_bursts_and_none_is_lost() {
    let (mut bench, mut far) = Bench::connected();
    let writer = std::thread::spawn(move || far.write_all(&vec![7; 32 << 20]).unwrap());
    bench.command(SocketCommand::Read { credit: 32 << 20 });
    let (mut total, mut burst, mut longest) = (0, 0, 0);
    while total < 32 << 20 {
        match bench.caller.poll_event() {
            Some((_, SocketEvent::Data { data, .. })) => {
                total += data.len();
                burst += 1;
                longest = longest.max(burst);
            }
            Some((_, other)) => panic!("{other:?}"),
            None if bench.caller.poll_timeout() == Some(Instant::ZERO) => burst = 0,
            None => {
                burst = 0;
                let mut events = Events::with_capacity(8);
                bench.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
                events.iter().for_each(|event| bench.caller.on_ready(event));
            }
        }
    }
    writer.join().unwrap();
    assert!((2..=BURST).contains(&longest), "{longest}");
}

fn udp(src: &str, dst: SocketAddr, payload: &[u8]) -> BytesMut {
    let mut packet = BytesMut::new();
    datagram::emit_udp(src.parse().unwrap(), dst, payload, &mut packet);
    packet
}

#[test]
fn datagrams_go_out_and_their_answers_come_back() {
    let mut bench = Bench::new(8);
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dst = server.local_addr().unwrap();
    let mut sources = Vec::new();
    for (src, payload) in [("10.0.2.100:1", "one"), ("10.0.2.100:2", "two"), ("10.0.2.100:1", "three")] {
        bench.caller.on_packet(Instant::ZERO, &udp(src, dst, payload.as_bytes()), false);
        let mut bytes = [0; 9];
        let (len, from) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], payload.as_bytes());
        sources.push(from);
        server.send_to(b"answer", from).unwrap();
        let packet = bench.packet();
        let Ok(Some(Datagram::Udp { src: from, dst: to, payload })) = datagram::parse(&packet, false) else {
            panic!("not UDP")
        };
        assert_eq!((from, to.to_string().as_str(), &packet[payload]), (dst, src, &b"answer"[..]));
    }
    assert_eq!(sources[0], sources[2], "one pair of addresses is one socket");
    assert_ne!(sources[0], sources[1]);
}

#[test]
fn a_closed_udp_port_is_told_by_icmp() {
    let mut bench = Bench::new(8);
    let dst = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let question = udp("10.0.2.100:1", dst, b"anyone?");
    bench.caller.on_packet(Instant::ZERO, &question, false);
    let packet = bench.packet();
    assert_eq!(packet[20..22], [3, 3]);
    assert_eq!(packet[28..56], question[..28], "it quotes the headers of the datagram");
}

#[test]
fn the_longest_idle_udp_flow_gives_way() {
    let mut bench = Bench::new(2);
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dst = server.local_addr().unwrap();
    bench.caller.on_packet(Instant::ZERO, &udp("10.0.2.100:1", dst, b""), false);
    bench.caller.on_timeout(Instant::ZERO + SWEEP);
    for src in ["10.0.2.100:2", "10.0.2.100:3"] {
        assert_eq!(bench.caller.poll_limit(), None);
        bench.caller.on_packet(Instant::ZERO, &udp(src, dst, b""), false);
    }
    assert_eq!((bench.caller.poll_limit(), bench.caller.poll_limit()), (Some("limits.udp_flows"), None));
    // Nothing is said for a while: all go, and the clock stops.
    let mut sweeps = 0;
    while let Some(at) = bench.caller.poll_timeout() {
        bench.caller.on_timeout(at);
        sweeps += 1;
    }
    assert_eq!(sweeps, 5);
    assert!(bench.caller.udp.is_empty());
}

#[test]
fn only_the_gateway_answers_pings() {
    let mut bench = Bench::new(2);
    let mut packet = BytesMut::new();
    for (to, answers) in [(address::GATEWAY_V4, true), (Ipv4Addr::new(192, 0, 2, 1), false)] {
        let mut request = BytesMut::new();
        datagram::emit_echo_reply(to.into(), address::INSIDE_V4.into(), &[0; 16], &mut request);
        request[20] = 8; // a request, with the checksum of a reply
        bench.caller.on_packet(Instant::ZERO, &request, true);
        assert_eq!(bench.caller.poll_packet(&mut packet), answers, "{to}");
    }
}
