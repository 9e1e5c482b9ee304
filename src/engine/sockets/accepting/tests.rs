//! Flows with kernel sockets on both sides, against real sockets on this machine's loopback.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use socket2::SockRef;

use super::*;
use crate::engine::sockets::Addresses;
use crate::engine::{Clock, Handle, Settings, start};
use crate::fault::Rules;
use crate::relay;
use crate::trace::{Event as Told, Outcome, Record, Sink};

/// What the loop begins with.
const FIRST_TOKEN: usize = 2;
/// The tests' own limit.
const LONG: Duration = Duration::from_secs(10);

struct Tell(Sender<Record>);

impl Sink for Tell {
    fn record(&mut self, record: Record) {
        let _ = self.0.send(record);
    }
}

/// All clients are for one server.
#[derive(Debug)]
struct To(SocketAddr, Sockets);

impl Dialling for To {
    fn sockets(&mut self) -> &mut Sockets {
        &mut self.1
    }
}

impl Outside for To {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        assert_eq!(first_token, FIRST_TOKEN);
        self.1.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        match command {
            SocketCommand::Dial { .. } => self.1.dial((flow, leg), Addresses::new([self.0], false)),
            command => self.1.command((flow, leg), command),
        }
    }

    fn on_ready(&mut self, event: &Event) {
        self.1.on_ready((event.token().0 - FIRST_TOKEN) / 2, event);
    }

    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        self.1.poll_event()
    }

    fn on_packet(&mut self, _: Instant, _: &[u8], _: bool) -> bool {
        false
    }

    fn poll_packet(&mut self, _: &mut BytesMut) -> bool {
        false
    }

    fn poll_limit(&mut self) -> Option<&'static str> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.1.is_busy() { Some(Instant::ZERO) } else { self.1.poll_timeout() }
    }

    fn on_timeout(&mut self, now: Instant) {
        self.1.on_timeout(now);
    }
}

struct Bench {
    handle: Handle,
    at: SocketAddr,
    told: Receiver<Record>,
}

impl Bench {
    fn new(server: SocketAddr, flows: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let limits = relay::Limits { flows, ..relay::Limits::default() };
        let settings = Settings {
            relay: relay::Settings { limits, ..relay::Settings::default() },
            rules: Arc::new(Rules::default()),
            hash_seed: 1,
            clock: Clock::start(),
        };
        let (tell, told) = channel();
        let outside = Accepting::new(vec![listener], To(server, Sockets::default()));
        let handle = start(&settings, Vec::new(), Some(Box::new(outside)), || Tell(tell.clone())).unwrap();
        Self { handle, at, told }
    }

    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// How a client fares that is not wanted. The reset may be there before its connect has returned.
    fn refused(&self) -> io::ErrorKind {
        TcpStream::connect(self.at).and_then(|mut client| client.read(&mut [0])).unwrap_err().kind()
    }

    fn outcome(&self) -> Outcome {
        loop {
            if let Told::FlowClosed { outcome, .. } = self.told.recv_timeout(LONG).unwrap().event {
                return outcome;
            }
        }
    }
}

/// Both ends of a connection.
fn pair(bench: &Bench, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = bench.client();
    let (server, _) = server.accept().unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    (client, server)
}

fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn every_byte_crosses_and_each_half_closes_by_itself() {
    let (listener, at) = server();
    let bench = Bench::new(at, 8);
    let (mut client, mut server) = pair(&bench, &listener);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        assert!(rest(&server) == sent);
    });
    server.write_all(b"after the client's FIN").unwrap();
    drop(server);
    assert_eq!(rest(&client), b"after the client's FIN");
    assert_eq!(bench.outcome(), Outcome::Ok);
}

#[test]
fn a_server_that_refuses_gives_the_client_a_reset() {
    let (listener, at) = server();
    drop(listener);
    let bench = Bench::new(at, 8);
    assert_eq!(bench.refused(), io::ErrorKind::ConnectionReset);
    assert_eq!(bench.outcome(), Outcome::RefusedRst);
}

#[test]
fn a_reset_crosses_either_way() {
    let (listener, at) = server();
    let bench = Bench::new(at, 8);
    for client_resets in [true, false] {
        let (client, server) = pair(&bench, &listener);
        let (resetting, mut other) = if client_resets { (client, server) } else { (server, client) };
        SockRef::from(&resetting).set_linger(Some(Duration::ZERO)).unwrap();
        drop(resetting);
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(bench.outcome(), Outcome::Reset);
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    let (listener, at) = server();
    let bench = Bench::new(at, 8);
    let (mut client, server) = pair(&bench, &listener);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while let Ok(n) = client.write(&[7; 1 << 16]) {
        written += n;
        assert!(written < 100 << 20, "nothing holds the writer back");
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&server).len(), written);
}

#[test]
fn a_client_beyond_the_limit_is_reset_and_counted() {
    let (listener, at) = server();
    let bench = Bench::new(at, 1);
    let (_client, _server) = pair(&bench, &listener);
    assert_eq!(bench.refused(), io::ErrorKind::ConnectionReset);
    let limit = bench.told.iter().find_map(|record| match record.event {
        Told::LimitHit { limit } => Some(limit),
        _ => None,
    });
    assert_eq!(limit, Some("limits.flows"));
}

#[test]
fn a_stop_closes_the_listener_and_lets_open_flows_end() {
    let (listener, at) = server();
    let bench = Bench::new(at, 8);
    let (client, server) = pair(&bench, &listener);
    bench.handle.stop(LONG);
    // The engine obeys in its own time.
    while TcpStream::connect(bench.at).is_ok() {}
    drop(client);
    assert_eq!(rest(&server), b"");
    drop(server);
    assert_eq!(bench.outcome(), Outcome::Ok);
    bench.handle.join().unwrap();
}
