//! Both sides of a flow as kernel sockets: listeners that accept clients, before sockets that dial their servers. No privilege is needed.
//!
//! Unless the kernel holds the SYN of a client (`queue`), it completes the handshake before anybody knows of it. So a client whose
//! server refuses or is silent has a connection at first, and then a RST. Options are not mirrored; acknowledgements, windows and
//! retransmissions are the kernel's. Bytes, half-close, the order of bytes before a FIN or a RST, and back-pressure are as with our own TCP.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use super::Sockets;
use super::doors::{Client, Doors};
use crate::engine::{Accepted, Answer, Outside};
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::{Instant, earliest};
use crate::trace::Leg;
use crate::wire::{Segment, Tuple};

/// The tokens of listeners are behind those of this many sockets and as many others: more than there can be descriptors.
const FIRST_LISTENER: usize = 1 << 30;

/// Kernel sockets that dial, and that may have clients, too.
pub(in crate::engine) trait Dialling: Outside + fmt::Debug {
    /// The sockets.
    fn sockets(&mut self) -> &mut Sockets;

    /// False for a client that is to be reset.
    fn takes(&self, _tuple: Tuple) -> bool {
        true
    }

    /// True if the kernel accepts only those clients whose SYNs were answered by [`Outside::answer`].
    fn holds_syns(&self) -> bool {
        false
    }
}

/// Accepts clients.
#[derive(Debug)]
pub struct Accepting<D> {
    doors: Doors,
    dialling: D,
    /// That of the first listener.
    first_token: usize,
    /// The client that is to be settled.
    client: Option<TcpStream>,
}

impl<D> Accepting<D> {
    /// The listeners must not block.
    #[must_use]
    pub fn new(listeners: Vec<std::net::TcpListener>, dialling: D) -> Self {
        Self { doors: Doors::new(listeners), dialling, first_token: 0, client: None }
    }
}

impl<D: Dialling> Outside for Accepting<D> {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token + 2 * FIRST_LISTENER + 1;
        let first = self.first_token;
        self.doors.register(&registry, |id| Token(first + id))?;
        self.dialling.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        self.dialling.command(flow, leg, command);
    }

    fn poll_syn(&mut self, now: Instant) -> Option<(Tuple, Segment)> {
        self.dialling.poll_syn(now)
    }

    fn answer(&mut self, syn: Tuple, answer: Answer) {
        self.dialling.answer(syn, answer);
    }

    fn poll_accepted(&mut self) -> Option<Accepted> {
        loop {
            let Client { stream, from, .. } = self.doors.accept()?;
            // It fails for a client that is gone already.
            let Ok(local) = stream.local_addr() else { continue };
            let tuple = Tuple { src: plain(from), dst: plain(local) };
            self.client = Some(stream);
            if self.dialling.takes(tuple) {
                return Some(Accepted { tuple, offer: None });
            }
            self.settle(None);
        }
    }

    fn settle(&mut self, flow: Option<FlowKey>) {
        self.dialling.sockets().settle(self.client.take(), flow);
    }

    fn stop(&mut self) {
        // Closed listeners: what comes from now on meets the network as it is. Where SYNs are held, only those come whose flows
        // are there.
        if !self.dialling.holds_syns() {
            self.doors.close();
        }
    }

    fn on_ready(&mut self, event: &Event) {
        match event.token().0.checked_sub(self.first_token) {
            None => self.dialling.on_ready(event),
            Some(id) => self.doors.on_ready(id),
        }
    }

    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        self.dialling.poll_event()
    }

    fn on_packet(&mut self, now: Instant, packet: &[u8], needs_csum: bool) -> bool {
        self.dialling.on_packet(now, packet, needs_csum)
    }

    fn poll_packet(&mut self, packet: &mut BytesMut) -> bool {
        self.dialling.poll_packet(packet)
    }

    fn poll_limit(&mut self) -> Option<&'static str> {
        self.doors
            .poll_limit()
            .or_else(|| self.dialling.sockets().poll_limit())
            .or_else(|| self.dialling.poll_limit())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.doors.is_busy() {
            return Some(Instant::ZERO);
        }
        earliest(self.dialling.poll_timeout(), self.doors.poll_timeout())
    }

    fn on_timeout(&mut self, now: Instant) {
        self.doors.on_timeout(now);
        self.dialling.on_timeout(now);
    }
}

/// An IPv4 address that a dual-stack socket tells as one of IPv6, as such.
fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests;
