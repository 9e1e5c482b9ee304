//! Both sides of a flow as kernel sockets: listeners that accept clients, and sockets that dial their servers.
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
use socket2::Socket;

use super::{Sockets, connect, fresh, pauses, sys};
use crate::engine::{Accepted, Outside};
use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::{Duration, Instant, earliest};
use crate::trace::Leg;
use crate::wire::Tuple;

/// How long to wait before the next accept once the process has no descriptor left. The clients wait in the accept queue.
const SHORTAGE: Duration = Duration::from_millis(100);

/// How servers are found and dialled.
pub trait Dial: fmt::Debug + Send {
    /// The server of a client that this listener has accepted at the address `local`.
    fn server(&self, listener: usize, local: SocketAddr) -> SocketAddr {
        let _ = listener;
        local
    }

    /// Starts to connect, without waiting.
    fn dial(&mut self, client: SocketAddr, server: SocketAddr) -> io::Result<Socket>;
}

/// Dials from the client's address to the server that the client has dialled, as TPROXY makes possible (`IP_TRANSPARENT`).
#[derive(Clone, Copy, Debug)]
pub struct Transparent {
    /// The mark of our sockets (`SO_MARK`), by which the packets of these are told from those of clients.
    pub mark: u32,
    /// With the client's port, too: not where client and proxy share a network namespace, whose kernel knows the port as that
    /// of the client's own connection.
    pub same_port: bool,
}

impl Dial for Transparent {
    fn dial(&mut self, client: SocketAddr, server: SocketAddr) -> io::Result<Socket> {
        let socket = fresh(server)?;
        socket.set_mark(self.mark)?;
        make_transparent(&socket, server.is_ipv6())?;
        // One client may reach two servers from one port.
        socket.set_reuse_address(true)?;
        let port = if self.same_port { client.port() } else { 0 };
        socket.bind(&SocketAddr::new(client.ip(), port).into())?;
        connect(&socket, server)?;
        Ok(socket)
    }
}

/// Lets a socket have addresses that are not of this machine. Needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
///
/// # Errors
/// Without the capability.
pub fn make_transparent(socket: &Socket, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        false => socket.set_ip_transparent_v4(true),
        true => sys::set_ipv6_transparent(socket),
    }
}

/// Accepts clients, and dials their servers.
#[derive(Debug)]
pub struct Accepting {
    listeners: Vec<TcpListener>,
    dial: Box<dyn Dial>,
    sockets: Sockets,
    first_token: usize,
    /// Listeners that may have clients.
    ready: VecDeque<usize>,
    /// The client that is to be settled.
    client: Option<TcpStream>,
    /// When to accept again after a shortage.
    resumes: Option<Instant>,
    shortage: bool,
    burst: u32,
}

impl Accepting {
    /// The listeners must not block.
    #[must_use]
    pub fn new(listeners: Vec<std::net::TcpListener>, dial: Box<dyn Dial>) -> Self {
        Self {
            listeners: listeners.into_iter().map(TcpListener::from_std).collect(),
            dial,
            sockets: Sockets::default(),
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
            let Some(listener) = self.listeners.get(id) else { break };
            match listener.accept() {
                Ok((stream, client)) => {
                    // It fails for a client that is gone already.
                    let Ok(local) = stream.local_addr() else { continue };
                    self.client = Some(stream);
                    let (src, dst) = (plain(client), self.dial.server(id, plain(local)));
                    return Some(Tuple { src, dst });
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        // The listener stays ready: nobody tells when there is a descriptor again.
                        (self.shortage, self.resumes) = (true, Some(Instant::ZERO));
                        return None;
                    }
                    // An error of one client, such as `ECONNABORTED`: accept(2) says to go on.
                    errno if errno != Some(Errno::EAGAIN) => {}
                    _ => {
                        self.ready.pop_front();
                    }
                },
            }
        }
        None
    }
}

impl Outside for Accepting {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        for (id, listener) in self.listeners.iter_mut().enumerate() {
            registry.register(listener, Token(first_token + 2 * id + 1), Interest::READABLE)?;
        }
        self.sockets.start(registry, first_token)
    }

    fn command(&mut self, flow: FlowKey, leg: Leg, command: SocketCommand) {
        let at = (flow, leg);
        match command {
            SocketCommand::Dial { server } => {
                let client = self.sockets.peer((flow, Leg::Client));
                let socket = client.and_then(|client| self.dial.dial(plain(client), server));
                self.sockets.dial(at, socket, server.is_ipv6());
            }
            command => self.sockets.command(at, command),
        }
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
            Some(flow) => self.sockets.adopt((flow, Leg::Client), stream),
            // The close makes the RST.
            None => drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        }
    }

    fn stop(&mut self) {
        // Closed listeners: what comes from now on meets the network as it is.
        self.listeners.clear();
        self.ready.clear();
    }

    fn on_ready(&mut self, event: &Event) {
        let Some(slot) = event.token().0.checked_sub(self.first_token) else { return };
        let id = slot / 2;
        if slot % 2 == 0 {
            self.sockets.on_ready(id, event);
        } else if !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        self.sockets.poll_event()
    }

    fn on_packet(&mut self, _: Instant, _: &[u8], _: bool) -> bool {
        false
    }

    fn poll_packet(&mut self, _: &mut BytesMut) -> bool {
        false
    }

    fn poll_limit(&mut self) -> Option<&'static str> {
        std::mem::take(&mut self.shortage).then_some("RLIMIT_NOFILE")
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let accepts = !self.ready.is_empty() && self.resumes.is_none();
        if self.sockets.is_busy() || accepts {
            return Some(Instant::ZERO);
        }
        earliest(self.sockets.poll_timeout(), self.resumes)
    }

    fn on_timeout(&mut self, now: Instant) {
        match self.resumes {
            Some(Instant::ZERO) => self.resumes = Some(now + SHORTAGE),
            Some(at) if at <= now => self.resumes = None,
            _ => {}
        }
        self.sockets.on_timeout(now);
    }
}

/// An IPv4 address that a dual-stack socket tells as one of IPv6, as such.
fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests;
