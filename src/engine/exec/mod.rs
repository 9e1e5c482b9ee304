//! The caller's network behind an `exec` command: kernel sockets for its TCP flows, a relay for its UDP, and an answer to
//! pings of the gateway.

pub mod address;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mio::event::Event;
use mio::{Registry, Token};

use super::Outside;
use super::sockets::{Addresses, Sockets, pauses};
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;
use crate::trace::Leg;
use crate::wire::datagram::{self, Datagram};

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
}

impl Caller {
    /// `udp_flows` is the most UDP flows at a time (`limits.udp_flows`).
    #[must_use]
    pub fn new(addresses: AddressMap, udp_flows: usize) -> Self {
        Self {
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
        self.first_token = first_token;
        self.sockets.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        match command {
            SocketCommand::Dial { server } => self.dial(flow, server),
            command => self.sockets.command((flow, leg), command),
        }
    }

    fn on_ready(&mut self, event: &Event) {
        let Some(slot) = event.token().0.checked_sub(self.first_token) else { return };
        let id = slot / 2;
        if slot % 2 == 1 {
            self.udp.on_ready(id);
        } else {
            self.sockets.on_ready(id, event);
        }
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
        std::mem::take(&mut self.udp_limit_hit).then_some("limits.udp_flows")
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.sockets.is_busy() || self.udp.is_pending() {
            return Some(Instant::ZERO);
        }
        self.sockets.poll_timeout().into_iter().chain(self.next_sweep).min()
    }

    fn on_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_some_and(|at| at <= now) {
            self.udp.sweep();
            self.next_sweep = (!self.udp.is_empty()).then(|| now + SWEEP);
        }
        self.sockets.on_timeout(now);
    }
}

#[cfg(test)]
mod tests;
