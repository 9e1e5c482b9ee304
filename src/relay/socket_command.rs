//! What a flow commands of the kernel socket that is one of its legs, and what it hears of it.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::wire::Segment;

/// What the kernel's SYN or SYN-ACK offers besides its own choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOffer {
    /// At most this MSS, in bytes.
    pub mss: Option<u16>,
    /// At most about this window, in bytes, and later ones as well.
    pub window: Option<u32>,
}

impl SocketOffer {
    /// That of a segment which stands for the kernel's, where 65535 is the kernel's own window.
    #[must_use]
    pub fn of(segment: &Segment) -> Self {
        let window = segment.window.0;
        Self { mss: segment.options.mss, window: (window < u16::MAX).then_some(window.into()) }
    }
}

/// What the engine is to do with the socket. Commands of one flow are carried out in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketCommand {
    /// Connect to the server, without waiting. Answered by [`SocketEvent::Connected`] or [`SocketEvent::Failed`].
    Dial {
        /// The client.
        client: SocketAddr,
        /// The server that the client dialled.
        server: SocketAddr,
        /// What its SYN offers.
        offer: SocketOffer,
    },
    /// Read at most this many bytes more than allowed so far. A fresh socket may read nothing.
    Read {
        /// Additional bytes.
        credit: u32,
    },
    /// Write these bytes. The engine keeps what the kernel does not take and reports each step by
    /// [`SocketEvent::Sent`].
    Write {
        /// The bytes.
        data: Bytes,
        /// The last byte is urgent (`MSG_OOB`).
        urgent: bool,
    },
    /// From now on bytes may cross between this socket and that of the other leg, either way, without being handed over:
    /// [`SocketEvent::Crossed`]. The engine sees to their order.
    Join,
    /// No byte crosses any more, either way.
    Part,
    /// Write now what the kernel takes: the next command forgets the rest.
    Flush,
    /// After all writes: `shutdown(SHUT_WR)`.
    Shutdown,
    /// Cut the connection off from its peer, whatever either end says, or let it be heard again. A socket that cannot be cut off stays
    /// as it is.
    Silence(bool),
    /// Offer about this many bytes from now on, or as many as the kernel likes.
    Window(Option<u32>),
    /// Read nothing, whatever may be read, until it is taken back: the kernel's window closes when its buffer is full.
    Stall(bool),
    /// Ask the server whether it lives; answered by [`SocketEvent::ProbeAnswered`] if it does.
    Probe,
    /// Tell by [`SocketEvent::Left`] when the last byte of all writes is on its way to the peer: only then a RST takes none.
    Watch,
    /// Forget what is not written and close with a RST (`SO_LINGER` 0); a dial is given up. No event follows.
    Abort,
    /// Both directions are finished: close. No event follows.
    Close,
}

/// How a server turned a dial down, and so what the client gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// RST.
    Reset,
    /// An ICMP error with this type and code, of the family that the flow has.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Nothing: the client's own timer must run out.
    Silence,
}

/// What happened to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// The dial succeeded.
    Connected,
    /// The dial failed; the engine has closed the socket.
    Failed {
        /// The name of the error, e.g. `ECONNREFUSED`.
        errno: &'static str,
        /// What the client gets to see.
        refusal: Refusal,
    },
    /// Bytes from the server.
    Data {
        /// The bytes.
        data: Bytes,
        /// The last byte is urgent (the out-of-band mark is right after it).
        urgent: bool,
    },
    /// Bytes from this socket, for which it had credit, have crossed to that of the other leg.
    Crossed {
        /// How many.
        bytes: u32,
        /// How many of them the kernel has not taken there. They are writes of that socket now.
        waiting: u32,
    },
    /// The kernel took this many bytes of the writes.
    Sent(u32),
    /// The server lives.
    ProbeAnswered,
    /// The kernel has sent the last byte of the writes, or the peer has taken none of them for a minute.
    Left,
    /// The server's FIN, after all its data.
    Eof,
    /// The server reset the connection (`ECONNRESET`, `EPIPE`); the engine has closed the socket.
    Reset,
    /// The kernel gave the server up (`ETIMEDOUT` and other errors of an open socket); the engine has closed the socket.
    TimedOut,
}
