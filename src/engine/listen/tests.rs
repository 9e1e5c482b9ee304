//! Against real sockets and the system's resolver on this machine's loopback.

use std::net::TcpListener;
use std::time::Duration;

use mio::{Events, Poll};

use super::*;
use crate::relay::{Refusal, SocketOffer};

const FLOW: FlowKey = FlowKey { slot: 7, generation: 1 };
const OTHER: FlowKey = FlowKey { slot: 8, generation: 2 };

fn listener(listen: &str, host: &str, port: u16) -> Listener {
    Listener { listen: listen.parse().unwrap(), host: host.to_owned(), port }
}

struct Bench {
    poll: Poll,
    upstreams: Upstreams,
}

impl Bench {
    fn new(listeners: Vec<Listener>) -> Self {
        let poll = Poll::new().unwrap();
        let mut upstreams = Upstreams::new(listeners);
        upstreams.start(poll.registry().try_clone().unwrap(), 10).unwrap();
        Self { poll, upstreams }
    }

    fn dial(&mut self, flow: FlowKey, server: &str) {
        let (client, server) = ("192.0.2.2:1234".parse().unwrap(), server.parse().unwrap());
        self.upstreams.command(
            flow,
            Leg::Server,
            SocketCommand::Dial { client, server, offer: SocketOffer::default() },
        );
    }

    fn event(&mut self) -> (FlowKey, SocketEvent) {
        let mut events = Events::with_capacity(64);
        for _ in 0..100 {
            if let Some((flow, leg, event)) = self.upstreams.poll_event() {
                assert_eq!(leg, Leg::Server);
                return (flow, event);
            }
            self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "nothing happens any more");
            events.iter().for_each(|event| self.upstreams.on_ready(event));
        }
        panic!("not found");
    }
}

fn refused() -> SocketEvent {
    SocketEvent::Failed { errno: "ECONNREFUSED", refusal: Refusal::Reset }
}

#[test]
fn each_listener_has_its_upstream_and_an_exact_address_is_first() {
    let (one, two) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let mut bench = Bench::new(vec![
        listener("0.0.0.0:80", "127.0.0.1", port(&one)),
        listener("192.0.2.1:80", "127.0.0.1", port(&two)),
    ]);
    bench.dial(FLOW, "192.0.2.1:80");
    assert_eq!(bench.event(), (FLOW, SocketEvent::Connected));
    two.accept().unwrap();
    bench.dial(OTHER, "192.0.2.9:80");
    assert_eq!(bench.event(), (OTHER, SocketEvent::Connected));
    one.accept().unwrap();
    bench.dial(OTHER, "[2001:db8::1]:80");
    assert_eq!(bench.event(), (OTHER, refused()), "0.0.0.0 is IPv4");
}

#[test]
fn a_name_is_looked_up_once_for_all_that_wait_for_it() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench =
        Bench::new(vec![listener("0.0.0.0:80", "localhost", server.local_addr().unwrap().port())]);
    for _ in 0..2 {
        bench.dial(FLOW, "192.0.2.1:80");
        bench.dial(OTHER, "192.0.2.1:80");
        let mut connected = [bench.event(), bench.event()];
        connected.sort_by_key(|(flow, _)| flow.slot);
        assert_eq!(connected, [(FLOW, SocketEvent::Connected), (OTHER, SocketEvent::Connected)]);
        for flow in [FLOW, OTHER] {
            server.accept().unwrap();
            bench.upstreams.command(flow, Leg::Server, SocketCommand::Abort);
        }
    }
}

#[test]
fn a_name_that_nobody_has_refuses() {
    let mut bench = Bench::new(vec![listener("0.0.0.0:80", &"x".repeat(64), 80)]);
    bench.dial(FLOW, "192.0.2.1:80");
    assert_eq!(bench.event(), (FLOW, refused()));
}

#[test]
fn a_flow_that_ends_before_its_upstream_is_found_dials_nobody() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench =
        Bench::new(vec![listener("0.0.0.0:80", "localhost", server.local_addr().unwrap().port())]);
    bench.dial(FLOW, "192.0.2.1:80");
    bench.upstreams.command(FLOW, Leg::Server, SocketCommand::Abort);
    bench.dial(OTHER, "192.0.2.1:80");
    assert_eq!(bench.event(), (OTHER, SocketEvent::Connected));
    server.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_listener_that_would_call_itself_refuses() {
    let mut bench = Bench::new(vec![listener("0.0.0.0:8099", "localhost", 8099)]);
    bench.dial(FLOW, "127.0.0.1:8099");
    assert_eq!(bench.event(), (FLOW, refused()));
}
