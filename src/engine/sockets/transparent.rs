//! Kernel sockets with the addresses of others (TPROXY): what the packet filter leads to our listeners has the address that
//! the client dialled, and the server is dialled from the address of the client.
//!
//! A gateway keeps the port of the client, too, unless the kernel has it in use: by a connection of this host, or by one before
//! to the same server that waits in TIME-WAIT. In a sidecar the application has it, and the kernel gives another one.
//!
//! Where the kernel holds the client's SYN, its flow begins with that SYN, and only its answer leads the client to a listener.

use std::io;
use std::net::{SocketAddr, TcpListener};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use socket2::{SockRef, Socket};

use super::accepting::Dialling;
use super::{Addresses, Cut, Queue, Sockets, connect, fresh, is_of_this_host, offer, sys};
use crate::engine::{Answer, Outside};
use crate::relay::{FlowKey, SocketCommand, SocketEvent, SocketOffer};
use crate::time::Instant;
use crate::trace::Leg;
use crate::wire::{Segment, Tuple};

/// Lets a socket have an address that this host does not have, of the family of `at`; what it sends has this mark.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`.
pub fn be_transparent(socket: &Socket, at: SocketAddr, mark: u32) -> io::Result<()> {
    match at {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    socket.set_mark(mark)
}

/// Where a dial comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    client: SocketAddr,
    keeps_port: bool,
    mark: u32,
    offer: SocketOffer,
}

impl Source {
    /// Starts to connect.
    pub(super) fn connect(self, server: SocketAddr) -> io::Result<Socket> {
        if !self.keeps_port {
            return self.connect_by(0, server);
        }
        match self.connect_by(self.client.port(), server) {
            // `EACCES`: a port of the system's.
            Err(e) if matches!(errno(&e), Errno::EADDRINUSE | Errno::EADDRNOTAVAIL | Errno::EACCES) => {
                self.connect_by(0, server)
            }
            other => other,
        }
    }

    fn connect_by(self, port: u16, server: SocketAddr) -> io::Result<Socket> {
        let socket = fresh(server)?;
        be_transparent(&socket, server, self.mark)?;
        offer::of_dial(&SockRef::from(&socket), self.offer);
        match port {
            // A client from outside and a leg to a service of this host with the same port would be one connection to its kernel.
            // When Linux connects, it takes even ports first, and when it only binds, odd ones.
            0 if is_of_this_host(server.ip()) => set_dscp(&socket, server)?,
            0 => sys::bind_address_no_port(&socket)?,
            // The client may use its port towards several servers.
            _ => socket.set_reuse_address(true)?,
        }
        socket.bind(&SocketAddr::new(self.client.ip(), port).into())?;
        connect(&socket, server)?;
        Ok(socket)
    }
}

/// A RST without a connection, as of a port where nobody listens, takes over the DSCP of what it answers (Linux over IPv6 since
/// 5.10). By that the packet filter knows those for our legs from those that it makes itself for clients. Nothing else asks for it
/// on this host.
fn set_dscp(socket: &Socket, server: SocketAddr) -> io::Result<()> {
    const LOWER_EFFORT: u32 = 1 << 2;
    match server {
        SocketAddr::V4(_) => socket.set_tos_v4(LOWER_EFFORT),
        SocketAddr::V6(_) => socket.set_tclass_v6(LOWER_EFFORT),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Dials each server from the address of its client.
#[derive(Debug)]
pub struct Transparent {
    first_token: usize,
    sockets: Sockets,
    /// Our listeners themselves.
    doors: Vec<SocketAddr>,
    keeps_port: bool,
    mark: u32,
    /// The SYNs of clients that have no answer yet; without it a client is accepted before its server is dialled.
    queue: Option<Queue>,
}

impl Transparent {
    /// What stands behind these listeners; what its sockets send has a mark.
    ///
    /// # Errors
    /// If a listener has no address.
    pub fn new(
        listeners: &[TcpListener],
        keeps_port: bool,
        cut: Cut,
        queue: Option<Queue>,
    ) -> io::Result<Self> {
        let doors = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let mut sockets = Sockets::default();
        sockets.cut_by(cut);
        Ok(Self { first_token: 0, sockets, doors, keeps_port, mark: cut.own, queue })
    }
}

impl Dialling for Transparent {
    fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    /// Who dials a listener itself has nobody behind it.
    fn takes(&self, tuple: Tuple) -> bool {
        !self.doors.contains(&tuple.dst)
    }

    fn holds_syns(&self) -> bool {
        self.queue.is_some()
    }
}

impl Outside for Transparent {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        if let Some(queue) = &self.queue {
            let token = Token(first_token + 1);
            registry.register(&mut SourceFd(&queue.descriptor()), token, Interest::READABLE)?;
        }
        self.sockets.start(registry, first_token)
    }

    fn poll_syn(&mut self, now: Instant) -> Option<(Tuple, Segment)> {
        self.queue.as_mut()?.poll(now)
    }

    fn answer(&mut self, syn: Tuple, answer: Answer) {
        if let Some(queue) = &mut self.queue {
            queue.answer(syn, answer);
        }
    }

    fn poll_limit(&mut self) -> Option<&'static str> {
        self.queue.as_mut()?.has_overflowed().then_some("NFQUEUE")
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        let at = (flow, leg);
        match command {
            SocketCommand::Dial { client, server, offer } => {
                let source = Source { client, keeps_port: self.keeps_port, mark: self.mark, offer };
                self.sockets.dial(at, Addresses::new([server], server.is_ipv6()).from(source));
            }
            command => self.sockets.command(at, command),
        }
    }

    fn on_ready(&mut self, event: &Event) {
        match (event.token().0.checked_sub(self.first_token), &mut self.queue) {
            (Some(1), Some(queue)) => queue.on_ready(),
            (Some(slot), _) => self.sockets.on_ready(slot / 2, event),
            (None, _) => {}
        }
    }

    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        self.sockets.poll_event()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let busy = self.sockets.is_busy() || self.queue.as_ref().is_some_and(Queue::is_busy);
        if busy { Some(Instant::ZERO) } else { self.sockets.poll_timeout() }
    }

    fn on_timeout(&mut self, now: Instant) {
        self.sockets.on_timeout(now);
    }
}
