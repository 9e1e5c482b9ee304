//! Counts and latencies, made from nothing but trace events.
//!
//! A [`Measure`] is a [`Sink`] that keeps a few instants per open flow and forgets them when the flow closes. It does not
//! ask for single segments; the SYNs, which every sink is told of, are enough.
//!
//! ```text
//! client                       halfopen                       server
//!   │── SYN ──────────────────────▶│ opened
//!   │                              │── SYN ──────────────────────▶│ dialled (first), last_syn
//!   │                              │◀───────────────── SYN-ACK ───│ answered
//!   │◀───────────────── SYN-ACK ───│ offered (first)
//!   │── ACK ──────────────────────▶│ established
//! ```
//!
//! | latency | from | to |
//! |---|---|---|
//! | `connect` | opened | established |
//! | `client_rtt` | offered | established |
//! | `server_connect` | dialled | answered |
//! | `server_net` | last_syn | answered |
//!
//! `connect` is what the client felt: its first SYN and its final ACK travel the same way, so their distance here is the
//! time from `connect()` to its return there. All are timed from the **first** SYN or SYN-ACK but `server_net`, so a
//! handshake that needed a retransmission reads as slow as it was. In exec mode `server_connect` is the time of the kernel's
//! own connect.
//!
//! A step that never finished (silence, a client that gave up, a flow still opening at the end) counts with the time it had
//! lasted, as a lower bound: see [`Latency`]. A refusal is an answer, not a connect: it counts as an outcome only.

mod assertion;
mod latency;

use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;

pub use assertion::{Assertion, Judgement, Mistake, Observed, Reading};
pub use latency::{Bound, Latency, PERCENTILES};

use crate::time::Instant;
use crate::trace::{Did, Event, FlowId, Leg, Outcome, Record, Resend, Sink, State};
use crate::wire::Flags;

/// Most open flows whose instants are kept. Later ones are counted, not timed ([`Counters::untimed`]).
pub const TIMED_FLOWS: usize = 1 << 18;

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
    /// Flows beyond [`TIMED_FLOWS`], whose latencies are missing.
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
    fn count(&mut self, outcome: Outcome) {
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

/// The latencies of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latencies {
    /// First client SYN → final ACK: what the client felt.
    pub connect: Latency,
    /// First SYN-ACK to the client → final ACK.
    pub client_rtt: Latency,
    /// First SYN to the server → its SYN-ACK; in exec mode, the time of the kernel's connect.
    pub server_connect: Latency,
    /// Last SYN to the server → its SYN-ACK.
    pub server_net: Latency,
}

/// Takes the events of a run and keeps its totals.
#[derive(Debug, Default)]
pub struct Measure {
    counters: Counters,
    latencies: Latencies,
    rules: Vec<RuleCount>,
    limits: Vec<NameCount>,
    discarded: Vec<NameCount>,
    flows: HashMap<FlowId, Instants, foldhash::fast::RandomState>,
}

/// What is kept of an open flow.
#[derive(Debug)]
struct Instants {
    opened: Instant,
    offered: Option<Instant>,
    established: bool,
    dialled: Option<Instant>,
    last_syn: Instant,
    answered: bool,
}

impl Measure {
    /// Counts these rules from 0, so that one which never matches is seen; each is its name and its fault's name.
    pub fn new(rules: impl IntoIterator<Item = (Arc<str>, &'static str)>) -> Self {
        let rules =
            rules.into_iter().map(|(rule, fault)| RuleCount { rule, fault, matched: 0, fired: 0 }).collect();
        Self { rules, ..Self::default() }
    }

    /// The totals so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The latencies so far.
    #[must_use]
    pub const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// All rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[RuleCount] {
        &self.rules
    }

    /// The limits that were hit, by config key, in the order of their first hit.
    #[must_use]
    pub fn limits(&self) -> &[NameCount] {
        &self.limits
    }

    /// Why packets were discarded.
    #[must_use]
    pub fn discarded(&self) -> &[NameCount] {
        &self.discarded
    }

    /// Counts a limit that was hit where no event could tell it.
    pub fn limit_hit(&mut self, limit: &'static str, times: u64) {
        count(&mut self.limits, limit, times);
    }

    /// Ends the run: what is still open is counted as such, and handshakes still under way as unfinished.
    pub fn finish(&mut self, now: Instant) {
        let mut open: Vec<_> = self.flows.keys().copied().collect();
        open.sort_unstable();
        for flow in open {
            self.close(now, flow, Outcome::Open);
        }
    }

    fn open(&mut self, at: Instant, flow: FlowId, rules: &[Arc<str>]) {
        self.counters.flows += 1;
        self.counters.open += 1;
        for name in rules {
            self.rule(name, "").matched += 1;
        }
        if self.flows.len() >= TIMED_FLOWS {
            self.counters.untimed += 1;
            return;
        }
        let instants = Instants {
            opened: at,
            offered: None,
            established: false,
            dialled: None,
            last_syn: at,
            answered: false,
        };
        self.flows.insert(flow, instants);
        self.counters.opening += 1;
    }

    fn close(&mut self, at: Instant, flow: FlowId, outcome: Outcome) {
        self.counters.outcomes.count(outcome);
        self.counters.open = self.counters.open.saturating_sub(1);
        let Some(flow) = self.flows.remove(&flow) else { return };
        if flow.established {
            return;
        }
        self.counters.opening = self.counters.opening.saturating_sub(1);
        if matches!(outcome, Outcome::RefusedRst | Outcome::RefusedIcmp) {
            return;
        }
        self.latencies.connect.unfinished(at.since(flow.opened));
        if let Some(offered) = flow.offered {
            self.latencies.client_rtt.unfinished(at.since(offered));
        }
        if let (Some(dialled), false) = (flow.dialled, flow.answered) {
            self.latencies.server_connect.unfinished(at.since(dialled));
            self.latencies.server_net.unfinished(at.since(flow.last_syn));
        }
    }

    fn client_established(&mut self, at: Instant, flow: FlowId) {
        let Some(flow) = self.flows.get_mut(&flow) else { return };
        if std::mem::replace(&mut flow.established, true) {
            return;
        }
        self.counters.opening = self.counters.opening.saturating_sub(1);
        self.latencies.connect.record(at.since(flow.opened));
        if let Some(offered) = flow.offered {
            self.latencies.client_rtt.record(at.since(offered));
        }
    }

    fn server_answered(&mut self, at: Instant, flow: FlowId) {
        let Some(flow) = self.flows.get_mut(&flow) else { return };
        let Some(dialled) = flow.dialled else { return };
        if std::mem::replace(&mut flow.answered, true) {
            return;
        }
        self.latencies.server_connect.record(at.since(dialled));
        self.latencies.server_net.record(at.since(flow.last_syn));
    }

    fn server_dialled(&mut self, at: Instant, flow: FlowId) {
        if let Some(flow) = self.flows.get_mut(&flow) {
            flow.dialled.get_or_insert(at);
            flow.last_syn = at;
        }
    }

    fn rule(&mut self, name: &Arc<str>, fault: &'static str) -> &mut RuleCount {
        let at = self.rules.iter().position(|r| r.rule == *name).unwrap_or_else(|| {
            self.rules.push(RuleCount { rule: name.clone(), fault, matched: 0, fired: 0 });
            self.rules.len() - 1
        });
        &mut self.rules[at]
    }
}

impl Sink for Measure {
    fn record(&mut self, Record { at, flow, leg, event }: Record) {
        match (leg, event) {
            (_, Event::FlowOpened { rules, .. }) => self.open(at, flow, &rules),
            (_, Event::FlowClosed { outcome, upstream_bytes, downstream_bytes }) => {
                self.counters.upstream_bytes += upstream_bytes;
                self.counters.downstream_bytes += downstream_bytes;
                self.close(at, flow, outcome);
            }
            (Some(Leg::Client), Event::SegmentOut { segment }) if segment.flags.has(Flags::SYN) => {
                if let Some(flow) = self.flows.get_mut(&flow) {
                    flow.offered.get_or_insert(at);
                }
            }
            (Some(Leg::Client), Event::Established) => self.client_established(at, flow),
            (Some(Leg::Server), Event::StateChanged { to: State::SynSent, .. })
            | (Some(Leg::Server), Event::Resent { why: Resend::Syn, .. }) => self.server_dialled(at, flow),
            (Some(Leg::Server), Event::Established | Event::Dialled { error: None }) => {
                self.server_answered(at, flow);
            }
            (_, Event::Resent { why: Resend::Rto | Resend::Rack | Resend::Tlp, .. }) => {
                self.counters.retransmissions += 1;
            }
            (_, Event::Fired { rule, fault, did, .. }) if did != Did::Release => {
                self.counters.fired += 1;
                let rule = self.rule(&rule, fault);
                rule.fired += 1;
                rule.fault = fault;
            }
            (_, Event::Discarded { reason }) => count(&mut self.discarded, reason, 1),
            (_, Event::LimitHit { limit }) => count(&mut self.limits, limit, 1),
            _ => {}
        }
    }

    fn wants_segments(&self) -> bool {
        false
    }
}

fn count(names: &mut Vec<NameCount>, name: &'static str, times: u64) {
    match names.iter_mut().find(|n| n.name == name) {
        Some(found) => found.count += times,
        None => names.push(NameCount { name, count: times }),
    }
}

#[cfg(test)]
mod tests;
