//! Against real sockets on this machine's loopback.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use mio::{Events, Poll};

use super::*;
use crate::relay::{Refusal, SocketOffer};

/// A loop around the caller's network.
struct Bench {
    poll: Poll,
    caller: Caller,
}

impl Bench {
    fn new(udp_flows: usize) -> Self {
        let poll = Poll::new().unwrap();
        let mut caller = Caller::new(AddressMap::default(), udp_flows, Vec::new());
        caller.start(poll.registry().try_clone().unwrap(), 10).unwrap();
        Self { poll, caller }
    }

    /// Waits for the next packet; the tests' own limit keeps it from waiting for ever.
    fn packet(&mut self) -> BytesMut {
        let (mut packet, mut events) = (BytesMut::new(), Events::with_capacity(64));
        for _ in 0..1000 {
            if self.caller.poll_packet(&mut packet) {
                return packet;
            }
            self.poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(!events.is_empty(), "nothing happens any more");
            for event in &events {
                self.caller.on_ready(event);
            }
        }
        panic!("not found");
    }
}

#[test]
fn an_address_inside_that_stands_for_none_outside_is_refused() {
    let mut bench = Bench::new(8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    bench.caller.addresses.host_loopback = HostLoopback::Off;
    let flow = FlowKey { slot: 7, generation: 1 };
    let (client, server) = ("10.0.2.100:1234".parse().unwrap(), listener.local_addr().unwrap());
    bench.caller.command(
        flow,
        Leg::Server,
        SocketCommand::Dial { client, server, offer: SocketOffer::default() },
    );
    let refused = SocketEvent::Failed { errno: "ECONNREFUSED", refusal: Refusal::Reset };
    assert_eq!(bench.caller.poll_event(), Some((flow, Leg::Server, refused)));
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
