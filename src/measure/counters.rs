//! Counts that need nothing but themselves.

use std::sync::Arc;

use serde::Serialize;

use crate::trace::{Leg, Outcome, State};

/// The totals of a run, small enough to copy for a status line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Flows that have been opened.
    pub flows: u64,
    /// Flows that are open now.
    pub open: u64,
    /// Of these, flows whose client has not completed its handshake.
    pub opening: u64,
    /// Flows that have ended in each way.
    pub outcomes: Outcomes,
    /// Legs that were closed in order, by who keeps them in TIME-WAIT.
    pub time_wait: TimeWait,
    /// Payload bytes delivered to servers by the flows that have ended.
    pub upstream_bytes: u64,
    /// Payload bytes delivered to clients by the flows that have ended.
    pub downstream_bytes: u64,
    /// Retransmissions of ours (timeout, RACK, tail loss probe) on both legs.
    pub retransmissions: u64,
    /// How often faults acted.
    pub fired: u64,
    /// Flows beyond [`super::TIMED_FLOWS`], whose latencies are missing.
    pub untimed: u64,
}

/// How many flows ended in each way; the fields are the names of [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcomes {
    /// Closed in both directions.
    pub ok: u64,
    /// Refused by RST.
    pub refused_rst: u64,
    /// Refused by an ICMP error.
    pub refused_icmp: u64,
    /// Ran out of time.
    pub timeout: u64,
    /// Reset by a peer.
    pub reset: u64,
    /// The client gave up during the handshake.
    pub aborted: u64,
    /// Open when the run ended.
    pub open: u64,
    /// Ended from outside by `halfopen flows kill`.
    pub killed: u64,
}

impl Outcomes {
    pub(super) fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::RefusedRst => &mut self.refused_rst,
            Outcome::RefusedIcmp => &mut self.refused_icmp,
            Outcome::Timeout => &mut self.timeout,
            Outcome::Reset => &mut self.reset,
            Outcome::Aborted => &mut self.aborted,
            Outcome::Open => &mut self.open,
            Outcome::Killed => &mut self.killed,
        } += 1;
    }

    /// Their names, in the order of the fields.
    pub const NAMES: [&'static str; 8] =
        ["ok", "refused-rst", "refused-icmp", "timeout", "reset", "aborted", "open", "killed"];

    /// All outcomes by name, in a fixed order.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { ok, refused_rst, refused_icmp, timeout, reset, aborted, open, killed } = *self;
        Self::NAMES.into_iter().zip([ok, refused_rst, refused_icmp, timeout, reset, aborted, open, killed])
    }

    /// Those that happened.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all().filter(|(_, count)| *count > 0)
    }
}

/// Who has closed first, and so keeps the leg in TIME-WAIT: each leg by itself. How long halfopen does is `tcp.time_wait`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TimeWait {
    /// Towards the clients.
    pub client: Owners,
    /// Towards the servers; nothing in exec mode, where it is the kernel's.
    pub server: Owners,
}

/// How many legs each side keeps in TIME-WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owners {
    /// The peer of the leg: its FIN came first.
    pub peer: u64,
    /// Our own end: its FIN left first.
    pub halfopen: u64,
    /// Both: their FINs have crossed.
    pub both: u64,
}

/// One of [`Owners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Peer,
    Halfopen,
    Both,
}

impl Owner {
    /// Who owns it after this change of our state; `None` if that does not tell.
    pub(super) const fn after(from: State, to: State) -> Option<Self> {
        match (from, to) {
            (State::LastAck, State::Closed) => Some(Self::Peer),
            (State::FinWait1 | State::FinWait2, State::TimeWait) => Some(Self::Halfopen),
            (State::Closing, State::TimeWait) => Some(Self::Both),
            _ => None,
        }
    }
}

impl TimeWait {
    pub(super) const fn count(&mut self, leg: Leg, owner: Owner) {
        let owners = match leg {
            Leg::Client => &mut self.client,
            Leg::Server => &mut self.server,
        };
        *match owner {
            Owner::Peer => &mut owners.peer,
            Owner::Halfopen => &mut owners.halfopen,
            Owner::Both => &mut owners.both,
        } += 1;
    }

    /// Leg, owner and how many, in a fixed order.
    pub fn all(&self) -> impl Iterator<Item = (Leg, &'static str, u64)> {
        [(Leg::Client, self.client), (Leg::Server, self.server)].into_iter().flat_map(|(leg, owners)| {
            let Owners { peer, halfopen, both } = owners;
            [(leg, "peer", peer), (leg, "halfopen", halfopen), (leg, "both", both)]
        })
    }
}

/// How often one rule mattered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleCount {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Its fault's name.
    pub fault: &'static str,
    /// Flows that it matched.
    pub matched: u64,
    /// How often its fault acted; giving a knob back is not counted.
    pub fired: u64,
}

/// How often something with a fixed name happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameCount {
    /// Its name.
    pub name: &'static str,
    /// How often.
    pub count: u64,
}
