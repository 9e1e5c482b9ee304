//! What is behind the addresses of listen mode: an upstream for each, which its connections go on to by a kernel socket.
//!
//! An upstream that is a name is looked up anew for each connection, and all its addresses are dialled in the order in which
//! the resolver gives them (RFC 6724), until one answers. Connections that come while a lookup is under way share it; nothing
//! is remembered beyond that. A name that cannot be looked up refuses the client.

mod lookup;

use std::io;
use std::net::SocketAddr;

use mio::event::Event;
use mio::{Interest, Registry, Token};

use super::Outside;
use super::sockets::{Addresses, Dialling, Sockets, is_of_this_host};
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;
use crate::trace::Leg;
use lookup::Lookup;

pub use lookup::look_up;

/// An address where clients arrive, and where their connections go on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address; unspecified (`0.0.0.0`, `::`): all addresses of this host and that family.
    pub listen: SocketAddr,
    /// A name or an address.
    pub host: String,
    /// The port there.
    pub port: u16,
}

impl Listener {
    /// True if a connection to `address` of this host is for this listener.
    fn takes(&self, address: SocketAddr) -> bool {
        let Self { listen, .. } = self;
        let any = listen.ip().is_unspecified() && listen.is_ipv4() == address.is_ipv4();
        listen.port() == address.port() && (any || listen.ip() == address.ip())
    }
}

/// The upstreams of all listeners.
#[derive(Debug)]
pub struct Upstreams {
    listeners: Vec<Listener>,
    first_token: usize,
    sockets: Sockets,
    /// For the listener of the same index.
    lookups: Vec<Lookup>,
    /// Flows whose upstream is being looked up, with its index and whether their client came by IPv6.
    waiting: Vec<(FlowKey, usize, bool)>,
}

impl Upstreams {
    /// The upstreams of these listeners.
    #[must_use]
    pub fn new(listeners: Vec<Listener>) -> Self {
        let lookups = listeners.iter().map(|listener| Lookup::new(&listener.host, listener.port)).collect();
        Self { listeners, first_token: 0, sockets: Sockets::default(), lookups, waiting: Vec::new() }
    }

    fn dial(&mut self, flow: FlowKey, dialled: SocketAddr) {
        let exact = self.listeners.iter().position(|listener| listener.listen == dialled);
        let any = || self.listeners.iter().position(|listener| listener.takes(dialled));
        // Only what is for a listener comes here.
        let Some(index) = exact.or_else(any) else { return self.dial_all(flow, &[], dialled.is_ipv6()) };
        match self.lookups[index].start() {
            Some(address) => self.dial_all(flow, &[address], dialled.is_ipv6()),
            None => self.waiting.push((flow, index, dialled.is_ipv6())),
        }
    }

    fn dial_all(&mut self, flow: FlowKey, addresses: &[SocketAddr], ipv6: bool) {
        let others: Vec<SocketAddr> = addresses.iter().copied().filter(|to| !self.is_own(*to)).collect();
        if others.len() < addresses.len() {
            tracing::warn!(?addresses, "the upstream is this listener itself; it would call itself for ever");
        }
        self.sockets.dial((flow, Leg::Server), Addresses::new(others, ipv6));
    }

    /// True for an address where we listen ourselves.
    fn is_own(&self, address: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| {
            listener.takes(address) && (listener.listen.ip() == address.ip() || is_of_this_host(address.ip()))
        })
    }

    /// A lookup has ended: the flows that wait for it dial.
    fn take_answers(&mut self) {
        for index in 0..self.lookups.len() {
            let Some(addresses) = self.lookups[index].poll() else { continue };
            let (ready, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.waiting).into_iter().partition(|(_, of, _)| *of == index);
            self.waiting = waiting;
            for (flow, _, ipv6) in ready {
                self.dial_all(flow, &addresses, ipv6);
            }
        }
    }
}

impl Dialling for Upstreams {
    fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }
}

impl Outside for Upstreams {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        for (index, lookup) in self.lookups.iter_mut().enumerate() {
            if let Some(bell) = lookup.run()? {
                registry.register(bell, Token(first_token + 2 * index + 1), Interest::READABLE)?;
            }
        }
        self.sockets.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        match command {
            SocketCommand::Dial { server, .. } => self.dial(flow, server),
            command => {
                if matches!(command, SocketCommand::Abort | SocketCommand::Close) {
                    self.waiting.retain(|(waiting, ..)| *waiting != flow);
                }
                self.sockets.command((flow, leg), command);
            }
        }
    }

    fn on_ready(&mut self, event: &Event) {
        let Some(slot) = event.token().0.checked_sub(self.first_token) else { return };
        if slot % 2 == 1 {
            self.take_answers();
        } else {
            self.sockets.on_ready(slot / 2, event);
        }
    }

    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        self.sockets.poll_event()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.sockets.is_busy() { Some(Instant::ZERO) } else { self.sockets.poll_timeout() }
    }

    fn on_timeout(&mut self, now: Instant) {
        self.sockets.on_timeout(now);
    }
}

#[cfg(test)]
mod tests;
