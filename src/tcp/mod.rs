//! An honest TCP (RFC 9293) without I/O: one [`Connection`] per leg, time as an argument.
//!
//! Goals: everything a host of today does (window scaling, timestamps and PAWS, SACK, RACK-TLP, CUBIC, RFC 5961, RFC 6528,
//! ECN, urgent data, ICMP), with Linux as the personality, so that applications meet what they meet in production. Not a
//! goal: sockets. What an application would be is the relay on the other side.
//!
//! ```text
//!            on_segment  on_icmp  on_timeout                    poll_transmit  poll_event  poll_timeout
//!                 |         |         |                                ^            ^           ^
//!                 v         v         v                                |            |           |
//!   Phase:  SynSent -> SynReceived -> Open { send, recv } -> TimeWait -> Closed
//!           handshake.rs              segment_arrives.rs     close.rs
//!                                     send.rs  <- recovery.rs <- scoreboard.rs, rtt.rs, congestion.rs
//!                                     recv.rs  <- assembler.rs
//! ```
//!
//! Handshake states are small, because there may be a flood of them; an open connection is boxed; TIME-WAIT is small again.
//! Inside, both streams count positions from their start in 64 bits: nothing but the wire wraps. The RFC's name of a
//! synchronised state is derived from our FIN and the peer's (`state.rs`).
//!
//! Call order: one input, then [`Connection::poll_transmit`] until `None`, then [`Connection::poll_event`] until `None`, and
//! last [`Connection::poll_timeout`].

pub mod assembler;
mod clock;
mod close;
mod config;
pub mod congestion;
mod conn;
mod coupling;
mod handshake;
mod icmp;
mod isn;
pub mod knobs;
mod open;
mod recovery;
mod recv;
pub mod rtt;
mod scoreboard;
mod segment_arrives;
mod send;
mod sendbuf;
mod state;
mod syn;
#[cfg(test)]
mod tests;

pub use config::{Config, Congestion};
pub use conn::Connection;
pub use icmp::IcmpError;
pub use knobs::Knobs;
pub use syn::{SynInfo, SynOptions, reset_for};

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete.
    Established,
    /// The peer's FIN arrived in order, after all its data.
    FinReceived,
    /// Our FIN is acknowledged.
    FinAcked,
    /// The peer reset the connection (in SYN-SENT: refused it).
    Reset,
    /// An ICMP error ended the handshake (SYN-SENT only).
    Unreachable {
        /// ICMP type, IPv4 or IPv6 by the connection's family.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Retransmissions ran out.
    TimedOut,
    /// The peer asks whether the far end still lives; answer with [`Connection::answer_probe`].
    KeepaliveProbe,
    /// The peer answered our [`Connection::probe`].
    ProbeAnswered,
    /// The connection is gone and can be freed.
    Closed,
}

/// How large a transmission may be.
#[derive(Clone, Copy, Debug)]
pub struct TxCaps {
    /// Most payload bytes of one super-segment.
    pub max_payload: u32,
}
