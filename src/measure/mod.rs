//! Counts and latencies, made from nothing but trace events.
//!
//! A [`Measure`] is a [`Sink`] that keeps a few instants per open flow and forgets them when the flow closes. It does not
//! ask for single segments; those with SYN, FIN or RST, which every sink is told of, are enough.
//!
//! ```text
//! client                       halfopen                       server
//!   │── SYN ──────────────────────▶│ opened
//!   │                              │── SYN ──────────────────────▶│ dialled (first), last_syn
//!   │                              │◀───────────────── SYN-ACK ───│ answered
//!   │◀───────────────── SYN-ACK ───│ offered (first)
//!   │── ACK ──────────────────────▶│ established
//!   │── request ──────────────────▶│ asked
//!   │◀────────────────── answer ───│ told
//! ```
//!
//! | latency | from | to |
//! |---|---|---|
//! | `connect` | opened | established |
//! | `connect_without_fault` | the same, without `added_by_fault` | |
//! | `added_by_fault` | a fault loses or holds a segment of the handshake | the step that waited for it is taken |
//! | `added_by_proxy` | opened, and answered | dialled, and offered; without `added_by_fault` |
//! | `client_rtt` | offered | established |
//! | `server_connect` | dialled | answered |
//! | `server_net` | last_syn | answered |
//! | `ttfb` | asked; where the server speaks first, established | told |
//! | `client_fin_ack`, `server_fin_ack` | our first FIN on that leg | its acknowledgement |
//! | `client_fin_fin`, `server_fin_fin` | the first FIN on that leg | the FIN of its other side |
//!
//! `connect` is what the client felt: its first SYN and its final ACK travel the same way, so their distance here is the
//! time from `connect()` to its return there. All are timed from the **first** SYN or SYN-ACK but `server_net`, so a
//! handshake that needed a retransmission reads as slow as it was. In exec mode `server_connect` is the time of the kernel's
//! own connect, and the server leg has no FINs to see.
//!
//! Who closed a leg first keeps it in TIME-WAIT: that is counted ([`TimeWait`]), for legs that were closed in order. How long it
//! lasts is not measured: ours by `tcp.time_wait`, a peer's where nobody sees it.
//!
//! `added_by_fault` is exact where a fault loses or holds segments: whatever passes until the same step is taken, also the time
//! until a peer sends again. What a peer does after a segment that a fault has rewritten or invented counts as its own.
//!
//! In a ping the client is halfopen itself: `opened` is the intended start, and `added_by_proxy` how late the SYN left.
//!
//! A step that never finished (silence, a client that gave up, a flow still opening at the end) counts with the time it had
//! lasted, as a lower bound: see [`Latency`]. A refusal is an answer, not a connect: it counts as an outcome only.

mod assertion;
mod compare;
mod counters;
mod flow;
pub mod hlog;
mod latencies;
mod latency;
mod syn_loss;

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;

pub use assertion::{Assertion, Judgement, Mistake, Observed, Reading};
pub use compare::{Difference, compare};
use counters::Owner;
pub use counters::{Counters, NameCount, Outcomes, Owners, RuleCount, TimeWait};
pub use latencies::{By, Group, Kind, Latencies, MOST_GROUPS};
pub use latency::{Bound, Detail, Latency, PERCENTILES};
pub use syn_loss::{Suspect, SynLoss, syn_loss};

use crate::time::Instant;
use crate::trace::{Did, Direction, Event, FlowId, Leg, Outcome, Record, Resend, SegmentNote, Sink, State};
use crate::wire::{Flags, icmp};
use flow::{Answered, Common, Flow, Pass};
use latencies::Step;

/// Most open flows whose instants are kept. Later ones are counted, not timed ([`Counters::untimed`]).
pub const TIMED_FLOWS: usize = 1 << 18;
/// The target of a flow beyond [`MOST_GROUPS`].
const NO_TARGET: u8 = u8::MAX;

/// Takes the events of a run and keeps its totals.
#[derive(Debug)]
pub struct Measure {
    counters: Counters,
    latencies: Latencies,
    rules: Vec<RuleCount>,
    limits: Vec<NameCount>,
    discarded: Vec<NameCount>,
    icmp: Vec<NameCount>,
    flows: HashMap<FlowId, Flow, foldhash::fast::RandomState>,
    /// The targets that are told apart.
    targets: Vec<(SocketAddr, Arc<str>)>,
    outcomes: [Arc<str>; 8],
    retransmits: [Arc<str>; 4],
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            counters: Counters::default(),
            latencies: Latencies::default(),
            rules: Vec::new(),
            limits: Vec::new(),
            discarded: Vec::new(),
            icmp: Vec::new(),
            flows: HashMap::default(),
            targets: Vec::new(),
            outcomes: Outcomes::NAMES.map(Arc::from),
            retransmits: ["0", "1", "2", "3+"].map(Arc::from),
        }
    }
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

    /// Gives out the latencies so far and goes on with `fresh`, which has no values. Takes no time: the data path may wait.
    pub const fn take_latencies(&mut self, fresh: Latencies) -> Latencies {
        std::mem::replace(&mut self.latencies, fresh)
    }

    /// Adds latencies that were taken before.
    pub fn give_back(&mut self, taken: &Latencies) {
        self.latencies.add(taken);
    }

    /// The totals and latencies so far, without what is known of the flows that are open.
    #[must_use]
    pub fn so_far(&self) -> Self {
        Self {
            counters: self.counters,
            latencies: self.latencies.clone(),
            rules: self.rules.clone(),
            limits: self.limits.clone(),
            discarded: self.discarded.clone(),
            ..Self::default()
        }
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

    /// Which ICMP errors of the network refused flows.
    #[must_use]
    pub fn refused_icmp(&self) -> &[NameCount] {
        &self.icmp
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

    fn open(&mut self, at: Instant, flow: FlowId, server: SocketAddr, rules: &[Arc<str>]) {
        self.counters.flows += 1;
        self.counters.open += 1;
        let mut matched = 0;
        for name in rules {
            let index = self.rule_index(name, "");
            self.rules[index].matched += 1;
            matched |= 1u64.checked_shl(index as u32).unwrap_or(0);
        }
        if self.flows.len() >= TIMED_FLOWS {
            self.counters.untimed += 1;
            return;
        }
        let target = self.target(server);
        self.flows.insert(flow, Flow::new(at, matched, target, server.is_ipv6()));
        self.counters.opening += 1;
    }

    fn target(&mut self, server: SocketAddr) -> u8 {
        let known = self.targets.iter().position(|(target, _)| *target == server);
        let index = known.or_else(|| {
            (self.targets.len() < MOST_GROUPS).then(|| {
                self.targets.push((server, server.to_string().into()));
                self.targets.len() - 1
            })
        });
        index.map_or(NO_TARGET, |index| index as u8)
    }

    fn close(&mut self, at: Instant, id: FlowId, outcome: Outcome) {
        self.counters.outcomes.count(outcome);
        self.counters.open = self.counters.open.saturating_sub(1);
        let Some(flow) = self.flows.remove(&id) else { return };
        let refused = matches!(outcome, Outcome::RefusedRst | Outcome::RefusedIcmp);
        if flow.connect().is_none() && !flow.is_accepted() {
            self.counters.opening = self.counters.opening.saturating_sub(1);
        }
        if !refused {
            self.give_up(at, &flow);
        }
        if let Some((kind, code)) = flow.common.icmp.filter(|_| outcome == Outcome::RefusedIcmp) {
            count(&mut self.icmp, icmp::name(flow.common.v6, kind, code), 1);
        }
        if let Some(waited) = flow.unanswered(at, outcome) {
            self.latencies.get_mut(Kind::Ttfb).unfinished(waited);
        }
        for ended in flow.ends(at, outcome) {
            let (fin_ack, fin_fin) = match ended.leg {
                Leg::Client => (Kind::ClientFinAck, Kind::ClientFinFin),
                Leg::Server => (Kind::ServerFinAck, Kind::ServerFinFin),
            };
            self.step(fin_ack, ended.fin_ack);
            self.step(fin_fin, ended.fin_fin);
            if let Some(owner) = ended.owner {
                self.counters.time_wait.count(ended.leg, owner);
            }
        }
        if flow.is_accepted() {
            return;
        }
        let step = match flow.connect() {
            Some(connect) => Step::Took(connect),
            None if refused => Step::Took(flow.age(at)),
            None => Step::Unfinished(flow.age(at)),
        };
        self.latencies.group(Kind::Connect, By::Outcome, &self.outcomes[outcome as usize]).step(step);
    }

    /// Counts what the flow had not completed.
    fn give_up(&mut self, at: Instant, flow: &Flow) {
        let given_up = flow.given_up(at);
        if let Some(connect) = given_up.connect {
            self.step(Kind::Connect, Some(Step::Unfinished(connect)));
            self.connect_groups(flow.common, Step::Unfinished(connect));
        }
        self.step(Kind::ConnectWithoutFault, given_up.without_fault.map(Step::Unfinished));
        self.step(Kind::AddedByFault, given_up.by_fault);
        self.step(Kind::ClientRtt, given_up.client_rtt.map(Step::Unfinished));
        if let Some(Answered { server_connect, server_net }) = given_up.server {
            self.server_connect(flow.common.target, Step::Unfinished(server_connect));
            self.step(Kind::ServerNet, Some(Step::Unfinished(server_net)));
        }
    }

    fn client_established(&mut self, at: Instant, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Some(connected) = flow.established(at) else { return };
        let common = flow.common;
        self.counters.opening = self.counters.opening.saturating_sub(1);
        let connect = Step::Took(connected.connect);
        self.step(Kind::Connect, Some(connect));
        self.step(Kind::ConnectWithoutFault, Some(Step::Took(connected.without_fault)));
        self.step(Kind::AddedByFault, connected.by_fault.map(Step::Took));
        self.step(Kind::AddedByProxy, connected.by_proxy.map(Step::Took));
        self.step(Kind::ClientRtt, connected.client_rtt.map(Step::Took));
        self.connect_groups(common, connect);
    }

    fn server_answered(&mut self, at: Instant, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let target = flow.common.target;
        let Some(Answered { server_connect, server_net }) = flow.answered(at) else { return };
        self.server_connect(target, Step::Took(server_connect));
        self.step(Kind::ServerNet, Some(Step::Took(server_net)));
    }

    fn server_connect(&mut self, target: u8, step: Step) {
        self.step(Kind::ServerConnect, Some(step));
        if let Some((_, name)) = self.targets.get(usize::from(target)) {
            self.latencies.group(Kind::ServerConnect, By::Target, name).step(step);
        }
    }

    fn connect_groups(&mut self, flow: Common, step: Step) {
        let retransmits = &self.retransmits[usize::from(flow.retransmits).min(self.retransmits.len() - 1)];
        self.latencies.group(Kind::Connect, By::Retransmits, retransmits).step(step);
        for (_, rule) in
            self.rules.iter().take(MOST_GROUPS).enumerate().filter(|(i, _)| flow.rules >> i & 1 == 1)
        {
            self.latencies.group(Kind::Connect, By::Rule, &rule.rule).step(step);
        }
        if let Some((_, name)) = self.targets.get(usize::from(flow.target)) {
            self.latencies.group(Kind::Connect, By::Target, name).step(step);
        }
    }

    fn step(&mut self, kind: Kind, step: Option<Step>) {
        if let Some(step) = step {
            self.latencies.get_mut(kind).step(step);
        }
    }

    /// A segment with SYN, FIN or RST that arrived, or that left.
    fn segment(&mut self, at: Instant, id: FlowId, leg: Leg, flags: Flags, out: bool) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flags.has(Flags::SYN) {
            match (leg, out) {
                (Leg::Client, true) => flow.offer(at),
                (Leg::Server, true) => flow.syn_out(at),
                (Leg::Client, false) => flow.client_syn(at),
                (Leg::Server, false) => {}
            }
        }
        if flags.has(Flags::FIN) {
            flow.fin(at, leg, out);
        }
        if flags.has(Flags::RST) && !out {
            flow.reset(at, leg);
        }
    }

    /// A fault loses or holds a segment.
    fn kept_back(&mut self, at: Instant, id: FlowId, leg: Leg, direction: Direction, segment: &SegmentNote) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let flags = segment.flags;
        let pass = match (leg, direction) {
            _ if flags.has(Flags::RST) => None,
            (_, Direction::Upstream) if flags.has(Flags::SYN) => Some(Pass::Syn),
            (Leg::Server, Direction::Downstream) if flags.has(Flags::SYN) => Some(Pass::Answer),
            (Leg::Client, Direction::Downstream) if flags.has(Flags::SYN) => Some(Pass::Offer),
            (Leg::Client, Direction::Upstream) if flow.awaits_final_ack() => Some(Pass::FinalAck),
            _ => None,
        };
        if let Some(pass) = pass {
            flow.blocked(at, leg, pass);
        }
        if flags.has(Flags::FIN) && direction == leg.outward() {
            flow.fin(at, leg, true);
        }
    }

    fn rule_index(&mut self, name: &Arc<str>, fault: &'static str) -> usize {
        self.rules.iter().position(|r| r.rule == *name).unwrap_or_else(|| {
            self.rules.push(RuleCount { rule: name.clone(), fault, matched: 0, fired: 0 });
            self.rules.len() - 1
        })
    }

    fn fired(&mut self, rule: &Arc<str>, fault: &'static str) {
        self.counters.fired += 1;
        let index = self.rule_index(rule, fault);
        let rule = &mut self.rules[index];
        rule.fired += 1;
        rule.fault = fault;
    }
}

/// True for the change of state that the acknowledgement of our FIN makes.
const fn acknowledges_fin(from: State, to: State) -> bool {
    matches!(
        (from, to),
        (State::FinWait1, State::FinWait2)
            | (State::FinWait1 | State::Closing, State::TimeWait)
            | (State::LastAck, State::Closed)
    )
}

impl Sink for Measure {
    fn record(&mut self, Record { at, flow, leg, event }: Record) {
        match (leg, event) {
            (_, Event::FlowOpened { server, rules, .. }) => self.open(at, flow, server, &rules),
            (_, Event::FlowClosed { outcome, upstream_bytes, downstream_bytes }) => {
                self.counters.upstream_bytes += upstream_bytes;
                self.counters.downstream_bytes += downstream_bytes;
                self.close(at, flow, outcome);
            }
            (Some(leg), Event::SegmentOut { segment }) => self.segment(at, flow, leg, segment.flags, true),
            (Some(leg), Event::SegmentIn { segment }) => self.segment(at, flow, leg, segment.flags, false),
            (Some(Leg::Client), Event::Established) => self.client_established(at, flow),
            // A kernel socket has accepted the client; our own TCP goes by SYN-RECEIVED.
            (Some(Leg::Client), Event::StateChanged { from: State::Closed, to: State::Established }) => {
                if let Some(flow) = self.flows.get_mut(&flow) {
                    flow.accept();
                    self.counters.opening = self.counters.opening.saturating_sub(1);
                }
            }
            (Some(Leg::Server), Event::StateChanged { to: State::SynSent, .. }) => {
                if let Some(flow) = self.flows.get_mut(&flow) {
                    flow.dial(at);
                }
            }
            (Some(Leg::Server), Event::Resent { why: Resend::Syn, count }) => {
                if let Some(flow) = self.flows.get_mut(&flow) {
                    flow.dial(at);
                    flow.syn_again(count);
                }
            }
            (Some(Leg::Server), Event::Icmp { kind, code, sent: false }) => {
                if let Some(flow) = self.flows.get_mut(&flow) {
                    flow.common.icmp = Some((kind, code));
                }
            }
            (Some(Leg::Server), Event::Established | Event::Dialled { error: None }) => {
                self.server_answered(at, flow);
            }
            (Some(leg), Event::StateChanged { from, to }) => {
                let Some(flow) = self.flows.get_mut(&flow) else { return };
                if acknowledges_fin(from, to) {
                    flow.fin_acked(at, leg);
                }
                if let Some(owner) = Owner::after(from, to) {
                    flow.owned(leg, owner);
                }
            }
            (_, Event::FirstPayload { direction }) => {
                let took = self.flows.get_mut(&flow).and_then(|flow| flow.payload(at, direction));
                self.step(Kind::Ttfb, took.map(Step::Took));
            }
            (_, Event::Resent { why: Resend::Rto | Resend::Rack | Resend::Tlp, .. }) => {
                self.counters.retransmissions += 1;
            }
            (leg, Event::Fired { rule, fault, did, direction, segment }) if did != Did::Release => {
                self.fired(&rule, fault);
                if let (Some(leg), Some(segment)) = (leg, segment)
                    && matches!(did, Did::Drop | Did::Hold(_) | Did::Behind(_))
                {
                    self.kept_back(at, flow, leg, direction, &segment);
                }
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
