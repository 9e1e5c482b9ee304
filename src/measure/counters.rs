//! Counts that need nothing but themselves.

use std::sync::Arc;

use serde::Serialize;

use crate::trace::Outcome;

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
        } += 1;
    }

    /// Their names, in the order of the fields.
    pub const NAMES: [&'static str; 7] =
        ["ok", "refused-rst", "refused-icmp", "timeout", "reset", "aborted", "open"];

    /// The outcomes that happened, by name, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { ok, refused_rst, refused_icmp, timeout, reset, aborted, open } = *self;
        let counts = [ok, refused_rst, refused_icmp, timeout, reset, aborted, open];
        Self::NAMES.into_iter().zip(counts).filter(|(_, count)| *count > 0)
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
