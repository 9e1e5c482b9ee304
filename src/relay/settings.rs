//! What the relay is told by the config.

use std::net::IpAddr;
use std::sync::Arc;

use crate::tcp;

/// Everything the relay needs to know; shared by all flows of a run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The numbers of our TCP, on both legs.
    pub tcp: Arc<tcp::Config>,
    /// Bounds.
    pub limits: Limits,
    /// How the server is reached.
    pub uplink: Uplink,
}

/// How the server is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplink {
    /// By our own TCP, with the client's address and port (gateway).
    #[default]
    Transparent,
    /// By our own TCP, with the client's address and another port (sidecar): client and both legs share one network
    /// namespace, whose kernel knows the client's port as that of the client's own connection.
    OtherPort(SourcePorts),
    /// The same with the client's own port (sidecar), where the kernel does not look for the socket of a packet before its route.
    SamePort,
    /// By a kernel socket in the caller's network (exec).
    Socket,
    /// The same, and the client's side is a kernel socket, too, whose kernel holds the client's SYN until it hears what becomes
    /// of it (gateway, sidecar).
    HeldSyn,
}

/// The ports that server legs come from, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// At least 1.
    pub first: u16,
    /// At least `first`.
    pub last: u16,
}

impl Uplink {
    /// What is added to a received TTL when it is carried to the other leg. In a gateway the kernel forwards a packet
    /// twice, to our device and from it, and takes one each time; a router would take one in all. In a sidecar it
    /// forwards once, where nothing stands between the peers without us, and not at all if both are on this host. In exec
    /// mode the device is the first hop, where nothing has been taken yet.
    #[must_use]
    pub fn hops_to_give_back(self, client: IpAddr, server: IpAddr) -> u8 {
        match self {
            Self::Transparent => 1,
            Self::OtherPort(_) | Self::SamePort => u8::from(client != server && !server.is_loopback()),
            Self::Socket | Self::HeldSyn => 0,
        }
    }
}

/// Bounds of one shard. Reaching one is counted under its config key, and never an error for the flows that are there.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `limits.flows`: flows at once, from their first SYN until both legs are closed. A SYN beyond it is dropped without
    /// an answer, as by a host with a full SYN queue: the client sends it again.
    pub flows: usize,
    /// `limits.half_open`: flows among them whose client has not completed its handshake. A SYN beyond it is dropped
    /// without an answer.
    pub half_open: usize,
    /// `limits.lingering`: closed flows that are remembered because a leg is in TIME-WAIT, or a peer must still hear a
    /// RST if it speaks. Beyond it the oldest is forgotten, as Linux does with `tcp_max_tw_buckets`.
    pub lingering: usize,
    /// `limits.bytes`: payload bytes held in all flows, queued or out of order. From half of it on every flow is offered
    /// small windows; at the limit arriving data are dropped, unless they let others go, and the peers send them again.
    pub bytes: u64,
    /// `limits.held_segments`: segments of one flow that its faults hold back. One more is lost, and TCP sends it again.
    pub held_segments: usize,
    /// `limits.neighbours`: servers, clients and pairs of addresses of which rules know what the flows around a new one
    /// do, each kind by itself; see [`crate::fault::Circumstances`]. Beyond it the one that was noted longest ago is
    /// forgotten.
    pub neighbours: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 65_536,
            half_open: 16_384,
            lingering: 65_536,
            bytes: 256 << 20,
            held_segments: 1024,
            neighbours: 65_536,
        }
    }
}
