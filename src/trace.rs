//! The one vocabulary of what happened. Log lines, counters, histograms, ladders, captures and the event file are all
//! made from these events; nothing else leaves the core but packets.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::{Duration, Instant};
pub use crate::wire::SegmentNote;
pub use read::NotAnEvent;
pub(crate) use read::intern;

mod deed;
mod read;

/// A name out of a bounded set: one of the program's own, or one that was read ([`Record::from_json`]).
type Name = &'static str;

/// The number of a flow: 1 for the first, in the order of their first SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// Towards the client.
    Client,
    /// Towards the server.
    Server,
}

impl Leg {
    /// The opposite leg.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The direction of what goes to this leg's peer.
    #[must_use]
    pub const fn outward(self) -> Direction {
        match self {
            Self::Client => Direction::Downstream,
            Self::Server => Direction::Upstream,
        }
    }

    /// `client` or `server`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Which way bytes or segments travel through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Client to server.
    Upstream,
    /// Server to client.
    Downstream,
}

impl Direction {
    /// The leg on which this direction enters the proxy.
    #[must_use]
    pub const fn enters(self) -> Leg {
        match self {
            Self::Upstream => Leg::Client,
            Self::Downstream => Leg::Server,
        }
    }

    /// The leg on which this direction leaves the proxy.
    #[must_use]
    pub const fn leaves(self) -> Leg {
        self.enters().other()
    }
}

/// The connection states of RFC 9293 §3.3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// No connection.
    #[default]
    Closed,
    /// Waiting for a SYN.
    Listen,
    /// SYN sent, waiting for the answer.
    SynSent,
    /// SYN received and answered, waiting for the ACK.
    SynReceived,
    /// Open in both directions.
    Established,
    /// Our FIN is sent and not acknowledged.
    FinWait1,
    /// Our FIN is acknowledged, the peer still sends.
    FinWait2,
    /// The peer has finished, we still send.
    CloseWait,
    /// Both FINs crossed, ours is not acknowledged.
    Closing,
    /// The peer finished first, our FIN is not acknowledged.
    LastAck,
    /// Closed by us first; waiting 2MSL.
    TimeWait,
}

impl State {
    /// All of them, in the order of the RFC.
    const ALL: [Self; 11] = [
        Self::Closed,
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];

    /// The RFC's spelling, e.g. `SYN-RECEIVED`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// Why bytes or a control bit were sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resend {
    /// The retransmission timer ran out (RFC 6298).
    Rto,
    /// RACK found it lost (RFC 8985 §6.2).
    Rack,
    /// Tail loss probe (RFC 8985 §7).
    Tlp,
    /// Zero-window probe (RFC 9293 §3.8.6.1).
    WindowProbe,
    /// The peer sent its SYN again.
    Syn,
    /// Keepalive probe.
    Keepalive,
}

/// What a fault did to a segment or a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// Suppressed the segment.
    Drop,
    /// Held the segment for this long.
    Hold(#[serde(serialize_with = "seconds", deserialize_with = "read::seconds")] Duration),
    /// Held the segment until this many later ones have passed, or for some time at the most.
    Behind(u8),
    /// Sent this many extra copies.
    Duplicate(u8),
    /// Changed the segment.
    Rewrite,
    /// Sent a segment of its own.
    Inject,
    /// Turned a knob of our TCP.
    Knob,
    /// Gave the knob back.
    Release,
}

fn seconds<S: serde::Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(time.as_secs_f64())
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Connected, and closed in both directions.
    Ok,
    /// Refused by the server's RST.
    RefusedRst,
    /// Refused by an ICMP error.
    RefusedIcmp,
    /// The handshake or a retransmission ran out of time.
    Timeout,
    /// Reset by one of the peers.
    Reset,
    /// The client gave up during the handshake.
    Aborted,
    /// Still open when the run ended.
    Open,
    /// Ended from outside by `halfopen flows kill`.
    Killed,
}

impl Outcome {
    /// As in every report, e.g. `refused-rst`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RefusedRst => "refused-rst",
            Self::RefusedIcmp => "refused-icmp",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Aborted => "aborted",
            Self::Open => "open",
            Self::Killed => "killed",
        }
    }
}

/// How a flow is killed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kill {
    /// By a RST to both ends.
    Rst,
    /// By a FIN to both ends, after all bytes that wait for them.
    Fin,
    /// Without a word: neither end hears of it, and what they still send is swallowed.
    Vanish,
}

impl Kill {
    /// The rest of a sentence that begins with "killed".
    #[must_use]
    pub const fn how(self) -> &'static str {
        match self {
            Self::Rst => "by RST",
            Self::Fin => "by FIN",
            Self::Vanish => "without a word",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A first SYN arrived; `rules` are the names of the rules that match this flow.
    FlowOpened {
        /// The client's address and port.
        client: SocketAddr,
        /// The server's address and port, as the client dialled it.
        server: SocketAddr,
        /// Names of the matching rules, in their order.
        rules: Vec<Arc<str>>,
    },
    /// The server leg of a new flow comes from the client's address and another port than the client's.
    SourcePort {
        /// That port.
        port: u16,
    },
    /// A flow is gone.
    FlowClosed {
        /// How it ended.
        outcome: Outcome,
        /// Payload bytes delivered to the server.
        upstream_bytes: u64,
        /// Payload bytes delivered to the client.
        downstream_bytes: u64,
    },
    /// Somebody outside has ended the flow.
    Killed {
        /// In which way.
        how: Kill,
    },
    /// A segment arrived from this leg's peer.
    SegmentIn {
        /// The segment.
        segment: SegmentNote,
    },
    /// A segment left towards this leg's peer.
    SegmentOut {
        /// The segment.
        segment: SegmentNote,
    },
    /// Our end of this leg changed its state.
    StateChanged {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// This leg's handshake is complete.
    Established,
    /// The first payload of a direction passed the client's side: upstream as it arrived, downstream as it left.
    FirstPayload {
        /// Its direction.
        direction: Direction,
    },
    /// The next `SegmentOut` repeats something.
    Resent {
        /// Why.
        why: Resend,
        /// How many times in a row, from 1.
        count: u32,
    },
    /// A fault acted. A dropped outgoing segment has no `SegmentOut`.
    Fired {
        /// The rule's name.
        rule: Arc<str>,
        /// The fault's name.
        #[serde(deserialize_with = "read::name")]
        fault: Name,
        /// What it did.
        did: Did,
        /// Direction of the segment or effect.
        direction: Direction,
        /// The segment it acted on.
        #[serde(skip_serializing_if = "Option::is_none")]
        segment: Option<SegmentNote>,
    },
    /// An ICMP error about this leg arrived from the network, or was sent to the client.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// True when we sent it.
        sent: bool,
    },
    /// The kernel's connect for this leg ended (exec mode); `error` is its errno name.
    Dialled {
        /// Errno name, absent on success.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "read::optional_name")]
        error: Option<Name>,
    },
    /// An unacceptable segment was answered with an ACK (RFC 5961).
    ChallengeAck,
    /// A packet or segment was discarded.
    Discarded {
        /// Why.
        #[serde(deserialize_with = "read::name")]
        reason: Name,
    },
    /// A limit was hit; `limit` is its config key.
    LimitHit {
        /// Config key of the limit.
        #[serde(deserialize_with = "read::name")]
        limit: Name,
    },
}

impl Event {
    /// Its segment, if it has one.
    pub const fn segment_mut(&mut self) -> Option<&mut SegmentNote> {
        match self {
            Self::SegmentIn { segment } | Self::SegmentOut { segment } => Some(segment),
            Self::Fired { segment, .. } => segment.as_mut(),
            _ => None,
        }
    }
}

/// An event with its place and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// Which flow; 0 for none.
    pub flow: FlowId,
    /// Which leg, if it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leg: Option<Leg>,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Receives events.
pub trait Sink {
    /// Takes one event.
    fn record(&mut self, record: Record);

    /// False if nobody looks at every segment; then `SegmentIn` and `SegmentOut` are built for SYN, FIN and RST only.
    fn wants_segments(&self) -> bool {
        true
    }

    /// How many payload bytes of each segment somebody wants to see; they are copied.
    fn snaplen(&self) -> u32 {
        0
    }
}

/// Keeps all events; for tests, the simulator and ladders.
impl Sink for Vec<Record> {
    fn record(&mut self, record: Record) {
        self.push(record);
    }
}

/// Drops all events.
#[derive(Debug, Default)]
pub struct NoSink;

impl Sink for NoSink {
    fn record(&mut self, _: Record) {}
    fn wants_segments(&self) -> bool {
        false
    }
}
