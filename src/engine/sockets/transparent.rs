//! Kernel sockets with the addresses of others (TPROXY): what the packet filter leads to our listeners has the address that
//! the client dialled, and the server is dialled from the address of the client.
//!
//! A gateway keeps the port of the client, too, unless the kernel has it in use: by a connection of this host, or by one before
//! to the same server that waits in TIME-WAIT. In a sidecar the application has it, and the kernel gives another one.

use std::io;
use std::net::{SocketAddr, TcpListener};

use mio::Registry;
use mio::event::Event;
use nix::errno::Errno;
use socket2::Socket;

use super::accepting::Dialling;
use super::{Addresses, Sockets, connect, fresh, sys};
use crate::engine::Outside;
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;
use crate::trace::Leg;
use crate::wire::Tuple;

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
        match port {
            0 => sys::bind_address_no_port(&socket)?,
            // The client may use its port towards several servers.
            _ => socket.set_reuse_address(true)?,
        }
        socket.bind(&SocketAddr::new(self.client.ip(), port).into())?;
        connect(&socket, server)?;
        Ok(socket)
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
}

impl Transparent {
    /// What stands behind these listeners; what its sockets send has this mark.
    ///
    /// # Errors
    /// If a listener has no address.
    pub fn new(listeners: &[TcpListener], keeps_port: bool, mark: u32) -> io::Result<Self> {
        let doors = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        Ok(Self { first_token: 0, sockets: Sockets::default(), doors, keeps_port, mark })
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
}

impl Outside for Transparent {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        self.sockets.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        let at = (flow, leg);
        match command {
            SocketCommand::Dial { client, server } => {
                let source = Source { client, keeps_port: self.keeps_port, mark: self.mark };
                self.sockets.dial(at, Addresses::new([server], server.is_ipv6()).from(source));
            }
            command => self.sockets.command(at, command),
        }
    }

    fn on_ready(&mut self, event: &Event) {
        if let Some(slot) = event.token().0.checked_sub(self.first_token) {
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
