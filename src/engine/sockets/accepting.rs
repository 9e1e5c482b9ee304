//! Both sides of a flow as kernel sockets: listeners that accept clients, before sockets that dial their servers. No privilege is needed.
//!
//! The kernel completes the handshake of a client before anybody knows of it. So a client whose server refuses or is silent has
//! a connection at first, and then a RST; options are not mirrored; acknowledgements, windows and retransmissions are the
//! kernel's. Bytes, half-close, the order of bytes before a FIN or a RST, and back-pressure are as with our own TCP.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use socket2::SockRef;

use super::{Sockets, pauses};
use crate::engine::{Accepted, Outside};
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::{Duration, Instant, earliest};
use crate::trace::Leg;
use crate::wire::Tuple;

/// How long to wait before the next accept once the process has no descriptor left. The clients wait in the accept queue.
const SHORTAGE: Duration = Duration::from_millis(100);
/// The tokens of listeners are behind those of this many sockets and as many others: more than there can be descriptors.
const FIRST_LISTENER: usize = 1 << 30;

/// Kernel sockets that dial, and that may have clients, too.
pub(in crate::engine) trait Dialling: Outside + fmt::Debug {
    /// The sockets.
    fn sockets(&mut self) -> &mut Sockets;
}

/// Accepts clients.
#[derive(Debug)]
pub struct Accepting<D> {
    listeners: Vec<TcpListener>,
    dialling: D,
    /// That of the first listener.
    first_token: usize,
    /// Listeners that may have clients.
    ready: VecDeque<usize>,
    /// The client that is to be settled.
    client: Option<TcpStream>,
    /// When to accept again after a shortage; zero until the clock has been seen.
    resumes: Option<Instant>,
    shortage: bool,
    burst: u32,
}

impl<D> Accepting<D> {
    /// The listeners must not block.
    #[must_use]
    pub fn new(listeners: Vec<std::net::TcpListener>, dialling: D) -> Self {
        Self {
            listeners: listeners.into_iter().map(TcpListener::from_std).collect(),
            dialling,
            first_token: 0,
            ready: VecDeque::new(),
            client: None,
            resumes: None,
            shortage: false,
            burst: 0,
        }
    }

    /// The addresses of the next client.
    fn accept(&mut self) -> Option<Tuple> {
        while let Some(&id) = self.ready.front() {
            match self.listeners.get(id)?.accept() {
                Ok((stream, client)) => {
                    // It fails for a client that is gone already.
                    let Ok(local) = stream.local_addr() else { continue };
                    self.client = Some(stream);
                    return Some(Tuple { src: plain(client), dst: plain(local) });
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => {
                        self.ready.pop_front();
                    }
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        // The listener stays ready: nobody tells when there is a descriptor again.
                        (self.shortage, self.resumes) = (true, Some(Instant::ZERO));
                        return None;
                    }
                    // An error of one client, such as `ECONNABORTED`: accept(2) says to go on.
                    _ => {}
                },
            }
        }
        None
    }
}

impl<D: Dialling> Outside for Accepting<D> {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token + 2 * FIRST_LISTENER + 1;
        for (id, listener) in self.listeners.iter_mut().enumerate() {
            registry.register(listener, Token(self.first_token + id), Interest::READABLE)?;
        }
        self.dialling.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        self.dialling.command(flow, leg, command);
    }

    fn poll_accepted(&mut self) -> Option<Accepted> {
        if self.resumes.is_some() || pauses(&mut self.burst) {
            return None;
        }
        let Some(tuple) = self.accept() else {
            self.burst = 0;
            return None;
        };
        Some(Accepted { tuple, offer: None })
    }

    fn settle(&mut self, flow: Option<FlowKey>) {
        let Some(stream) = self.client.take() else { return };
        match flow {
            Some(flow) => self.dialling.sockets().adopt((flow, Leg::Client), stream),
            // The close makes the RST.
            None => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        }
    }

    fn stop(&mut self) {
        // Closed listeners: what comes from now on meets the network as it is.
        self.listeners.clear();
        self.ready.clear();
    }

    fn on_ready(&mut self, event: &Event) {
        match event.token().0.checked_sub(self.first_token) {
            None => self.dialling.on_ready(event),
            Some(id) if self.ready.contains(&id) => {}
            Some(id) => self.ready.push_back(id),
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
        let own = std::mem::take(&mut self.shortage).then_some("RLIMIT_NOFILE");
        own.or_else(|| self.dialling.poll_limit())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if !self.ready.is_empty() && self.resumes.is_none() {
            return Some(Instant::ZERO);
        }
        earliest(self.dialling.poll_timeout(), self.resumes)
    }

    fn on_timeout(&mut self, now: Instant) {
        match self.resumes {
            Some(Instant::ZERO) => self.resumes = Some(now + SHORTAGE),
            Some(at) if at <= now => self.resumes = None,
            _ => {}
        }
        self.dialling.on_timeout(now);
    }
}

/// An IPv4 address that a dual-stack socket tells as one of IPv6, as such.
fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests;
