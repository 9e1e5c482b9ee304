//! What a leg is made of: our TCP, a kernel socket, or nothing any more.

use bytes::Bytes;

use super::socket_leg::SocketLeg;
use crate::cx::Cx;
use crate::tcp::{Connection, Event};
use crate::time::Instant;
use crate::trace::{Leg, State};
use crate::wire::IpMeta;

/// The far end of one leg, as the seam sees it.
#[derive(Debug, Default)]
pub(super) enum Link {
    /// Not there yet, or gone. What still arrives is answered like by a host without this connection.
    #[default]
    Gone,
    /// A connection of our own TCP.
    Tcp(Box<TcpLink>),
    /// A kernel socket.
    Socket(Box<SocketLeg>),
}

/// A connection of our own TCP.
#[derive(Debug)]
pub(super) struct TcpLink {
    pub(super) conn: Connection,
    /// It has said [`Event::Closed`]; what it still has to transmit goes out first.
    pub(super) closed: bool,
}

impl Link {
    pub(super) fn tcp(conn: Connection) -> Self {
        Self::Tcp(Box::new(TcpLink { conn, closed: false }))
    }

    pub(super) const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }

    /// True if this leg carries nothing any more, though it may still wait out its TIME-WAIT.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Gone => true,
            Self::Tcp(tcp) => tcp.closed || tcp.conn.state() == State::TimeWait,
            Self::Socket(_) => false,
        }
    }

    pub(super) fn conn(&self) -> Option<&Connection> {
        match self {
            Self::Tcp(tcp) => Some(&tcp.conn),
            _ => None,
        }
    }

    pub(super) fn conn_mut(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Tcp(tcp) => Some(&mut tcp.conn),
            _ => None,
        }
    }

    /// The state of our end.
    pub(super) fn state(&self) -> State {
        match self {
            Self::Gone => State::Closed,
            Self::Tcp(tcp) => tcp.conn.state(),
            Self::Socket(socket) => socket.state(),
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Gone => None,
            Self::Tcp(tcp) => tcp.conn.poll_event(),
            Self::Socket(socket) => socket.poll_event(),
        }
    }

    pub(super) fn recv(&mut self, cx: &mut Cx<'_>) -> Option<Bytes> {
        match self {
            Self::Gone => None,
            Self::Tcp(tcp) => tcp.conn.recv(cx),
            Self::Socket(socket) => socket.recv(),
        }
    }

    /// Bytes for a leg that is gone vanish, as they do in a host that nobody reads from any more.
    pub(super) fn send(&mut self, data: Bytes) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.send(data),
            Self::Socket(socket) => socket.send(data),
        }
    }

    pub(super) fn queued(&self) -> u32 {
        match self {
            Self::Gone => 0,
            Self::Tcp(tcp) => tcp.conn.queued(),
            Self::Socket(socket) => socket.queued(),
        }
    }

    /// Bytes held on this leg: for its peer, or until what is missing before them comes.
    pub(super) fn held(&self) -> u32 {
        self.queued() + self.conn().map_or(0, Connection::received_waiting)
    }

    /// True if bytes wait that only the congestion window holds back: they leave within round trips.
    pub(super) fn has_sendable(&self) -> bool {
        self.conn().is_some_and(Connection::has_sendable)
    }

    pub(super) fn set_receive_space(&mut self, bytes: u32) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.set_receive_space(bytes),
            Self::Socket(socket) => socket.set_receive_space(bytes),
        }
    }

    pub(super) fn shutdown(&mut self, cx: &mut Cx<'_>) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.shutdown(cx),
            Self::Socket(socket) => socket.shutdown(),
        }
    }

    pub(super) fn abort(&mut self, cx: &mut Cx<'_>) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.abort(cx),
            Self::Socket(socket) => socket.abort(),
        }
    }

    pub(super) fn vanish(&mut self, cx: &mut Cx<'_>) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.vanish(cx),
            Self::Socket(socket) => socket.vanish(),
        }
    }

    pub(super) fn probe(&mut self) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.probe(),
            Self::Socket(socket) => socket.probe(),
        }
    }

    pub(super) fn urgent_received(&self) -> Option<u64> {
        match self {
            Self::Gone => None,
            Self::Tcp(tcp) => tcp.conn.urgent_received(),
            Self::Socket(socket) => socket.urgent_received(),
        }
    }

    pub(super) fn set_urgent(&mut self, offset: u64) {
        match self {
            Self::Gone => {}
            Self::Tcp(tcp) => tcp.conn.set_urgent(offset),
            Self::Socket(socket) => socket.set_urgent(offset),
        }
    }

    pub(super) fn set_ip(&mut self, ip: IpMeta) {
        if let Self::Tcp(tcp) = self {
            tcp.conn.set_ip(ip);
        }
    }

    /// True once the peer has finished, or is gone.
    pub(super) fn has_finished(&self) -> bool {
        match self {
            Self::Gone => true,
            Self::Tcp(tcp) => tcp.conn.peer_has_finished(),
            Self::Socket(socket) => socket.has_finished(),
        }
    }

    /// Bytes received from the peer in order, and delivered to it, so far.
    pub(super) fn byte_counts(&self) -> (u64, u64) {
        match self {
            Self::Gone => (0, 0),
            Self::Tcp(tcp) => tcp.conn.byte_counts(),
            Self::Socket(socket) => socket.byte_counts(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.conn().and_then(Connection::poll_timeout)
    }
}

/// Both legs, and what those that are gone have delivered.
#[derive(Debug, Default)]
pub(super) struct Legs {
    links: [Link; 2],
    delivered: [u64; 2],
}

impl std::ops::Index<Leg> for Legs {
    type Output = Link;
    fn index(&self, leg: Leg) -> &Link {
        &self.links[leg as usize]
    }
}

impl std::ops::IndexMut<Leg> for Legs {
    fn index_mut(&mut self, leg: Leg) -> &mut Link {
        &mut self.links[leg as usize]
    }
}

impl Legs {
    /// This leg and the other one.
    pub(super) fn pair(&mut self, leg: Leg) -> (&mut Link, &mut Link) {
        let [client, server] = &mut self.links;
        match leg {
            Leg::Client => (client, server),
            Leg::Server => (server, client),
        }
    }

    /// Payload bytes delivered to the leg's peer.
    pub(super) fn delivered(&self, leg: Leg) -> u64 {
        self.delivered[leg as usize] + self[leg].byte_counts().1
    }

    /// Frees a leg.
    pub(super) fn free(&mut self, leg: Leg) {
        self.delivered[leg as usize] = self.delivered(leg);
        self[leg] = Link::Gone;
    }
}
