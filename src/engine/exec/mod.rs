//! The caller's network behind an `exec` command: kernel sockets for its TCP flows, a relay for its UDP, and an answer to
//! pings of the gateway.

pub mod address;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::BytesMut;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use super::sockets::doors::{Client, Doors};
use super::sockets::{Addresses, Sockets, pauses};
use super::{Accepted, Outside};
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::tcp::SynOptions;
use crate::time::Instant;
use crate::trace::Leg;
use crate::wire::datagram::{self, Datagram};
use crate::wire::{Tuple, WindowScale};

pub use address::{AddressMap, HostLoopback};
use udp::{Outgoing, UdpRelay};

/// How often idle UDP flows are looked for. They are forgotten after 60 to 75 seconds.
const SWEEP: Duration = Duration::from_secs(15);
/// Answers to pings that wait to be sent.
const MAX_ECHOES: usize = 64;

/// The caller's network.
#[derive(Debug)]
pub struct Caller {
    addresses: AddressMap,
    first_token: usize,
    sockets: Sockets,
    /// Packets since the last pause.
    packet_burst: u32,
    udp: UdpRelay,
    udp_limit_hit: bool,
    echoes: VecDeque<BytesMut>,
    next_sweep: Option<Instant>,
    /// Where clients of published ports arrive.
    doors: Doors,
    /// The first token of these.
    first_door: usize,
    /// The ports inside, by door.
    published: Vec<u16>,
    /// The client that is to be settled.
    client: Option<TcpStream>,
}

/// A port of the command that is reachable from outside.
#[derive(Debug)]
pub struct Published {
    /// Where clients connect; it does not block.
    pub listener: TcpListener,
    /// The port inside.
    pub port: u16,
}

/// What the SYN to a published port offers: as Linux does on an Ethernet.
const fn offer(ipv6: bool) -> SynOptions {
    SynOptions {
        mss: Some(if ipv6 { 1440 } else { 1460 }),
        window_scale: Some(WindowScale::new(7)),
        sack: true,
        timestamps: true,
        ecn: false,
    }
}

impl Caller {
    /// `udp_flows` is the most UDP flows at a time (`limits.udp_flows`).
    #[must_use]
    pub fn new(addresses: AddressMap, udp_flows: usize, published: Vec<Published>) -> Self {
        let ports = published.iter().map(|published| published.port).collect();
        let doors = Doors::new(published.into_iter().map(|published| published.listener));
        Self {
            doors,
            first_door: 0,
            published: ports,
            client: None,
            addresses,
            first_token: 0,
            sockets: Sockets::default(),
            packet_burst: 0,
            udp: UdpRelay::new(udp_flows),
            udp_limit_hit: false,
            echoes: VecDeque::new(),
            next_sweep: None,
        }
    }

    fn dial(&mut self, flow: FlowKey, server: SocketAddr) {
        // The family is the flow's, which is not that of some name servers.
        let outside = Addresses::new(self.addresses.outside(server), server.is_ipv6());
        self.sockets.dial((flow, Leg::Server), outside);
    }
}

impl Outside for Caller {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_door = first_token;
        self.doors.register(&registry, |id| Token(first_token + id))?;
        self.first_token = first_token + self.doors.len();
        self.sockets.start(registry, self.first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        match command {
            SocketCommand::Dial { server, .. } => self.dial(flow, server),
            command => self.sockets.command((flow, leg), command),
        }
    }

    fn on_ready(&mut self, event: &Event) {
        let Some(slot) = event.token().0.checked_sub(self.first_token) else {
            return self.doors.on_ready(event.token().0 - self.first_door);
        };
        let id = slot / 2;
        if slot % 2 == 1 {
            self.udp.on_ready(id);
        } else {
            self.sockets.on_ready(id, event);
        }
    }

    fn poll_accepted(&mut self) -> Option<Accepted> {
        let Client { stream, from, door } = self.doors.accept()?;
        self.client = Some(stream);
        let src = address::seen_inside(from);
        let dst = SocketAddr::new(address::inside(src.is_ipv6()), self.published[door]);
        Some(Accepted { tuple: Tuple { src, dst }, offer: Some(offer(src.is_ipv6())) })
    }

    fn settle(&mut self, flow: Option<FlowKey>) {
        self.sockets.settle(self.client.take(), flow);
    }

    fn stop(&mut self) {
        self.doors.close();
    }

    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        self.sockets.poll_event()
    }

    fn on_packet(&mut self, now: Instant, packet: &[u8], needs_csum: bool) -> bool {
        match datagram::parse(packet, needs_csum) {
            Ok(Some(Datagram::Udp { src, dst, payload })) => {
                let Some(registry) = self.sockets.registry() else { return true };
                let first = self.first_token;
                let outside = self.addresses.outside(dst);
                let out = Outgoing { src, dst, outside, packet, payload: &packet[payload] };
                self.udp_limit_hit |= self.udp.send(registry, |id| Token(first + 2 * id + 1), out);
                self.next_sweep.get_or_insert(now + SWEEP);
            }
            Ok(Some(Datagram::Echo { src, dst, message })) => {
                if address::is_gateway(dst) && self.echoes.len() < MAX_ECHOES {
                    let mut reply = BytesMut::new();
                    datagram::emit_echo_reply(src, dst, &packet[message], &mut reply);
                    self.echoes.push_back(reply);
                }
            }
            // Router solicitations, multicast listener reports and the like: there is nobody to hear them.
            Ok(None) | Err(_) => {}
        }
        true
    }

    fn poll_packet(&mut self, packet: &mut BytesMut) -> bool {
        packet.clear();
        if pauses(&mut self.packet_burst) {
            return false;
        }
        if let Some(reply) = self.echoes.pop_front() {
            packet.extend_from_slice(&reply);
            return true;
        }
        let any = self.udp.poll_packet(packet);
        if !any {
            self.packet_burst = 0;
        }
        any
    }

    fn poll_limit(&mut self) -> Option<&'static str> {
        let udp = std::mem::take(&mut self.udp_limit_hit).then_some("limits.udp_flows");
        udp.or_else(|| self.doors.poll_limit())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.sockets.is_busy() || self.udp.is_pending() || self.doors.is_busy() {
            return Some(Instant::ZERO);
        }
        let doors = self.doors.poll_timeout();
        self.sockets.poll_timeout().into_iter().chain(self.next_sweep).chain(doors).min()
    }

    fn on_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_some_and(|at| at <= now) {
            self.udp.sweep();
            self.next_sweep = (!self.udp.is_empty()).then(|| now + SWEEP);
        }
        self.doors.on_timeout(now);
        self.sockets.on_timeout(now);
    }
}

#[cfg(test)]
mod tests;
