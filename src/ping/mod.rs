//! The pinger: opens connections to targets at a fixed rate, whatever becomes of those before (an open loop), and tells what
//! became of each as the events of a flow. It knows no packets and no sockets: who carries an attempt out is one of the two
//! ways, our own TCP ([`Own`]) or kernel sockets (in the host part).
//!
//! ```text
//!   start 0    start 1    start 2    start 3        intended: they stand before the run does
//!   ──┬──────────┬──────────┬──────────┬──────▶
//!     └ SYN ┄┄┄┄┄┄ no answer ┄┄┄┄┄┄┄┄┄┄┄┄┄▶         a target that stalls holds up nobody
//!                └ SYN ── SYN-ACK: `connect` counts from the intended start, also where the SYN left late
//! ```
//!
//! Latencies that count from when the SYN left would leave out the waiting that a stall causes ("coordinated omission"), so
//! they count from when it should have left. What never finished counts as a lower bound, also an attempt that was never
//! made because too many were in flight.

mod own;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::HashMap;

pub use own::{Handshake, Own};

use crate::cx::Cx;
use crate::time::{Duration, Instant, earliest};
use crate::trace::{Event, FlowId, Leg, Outcome, Resend, State};

/// The limit of attempts in flight, by the option that sets it.
const IN_FLIGHT: &str = "--in-flight";

/// What to ping, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one. Their starts are spread evenly over the interval.
    pub targets: Vec<SocketAddr>,
    /// Between two starts at the same target; not 0.
    pub interval: Duration,
    /// Starts at each target; `None`: without end.
    pub count: Option<u64>,
    /// No starts from this time on; `None`: without end.
    pub duration: Option<Duration>,
    /// How long after its intended start an attempt is given up, and how long after its answer a close.
    pub timeout: Duration,
    /// Most attempts in flight, at least 1. One more waits until another ends, and its latency with it.
    pub in_flight: usize,
}

/// An attempt whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its number as a flow.
    pub attempt: FlowId,
    /// Where to connect to.
    pub target: SocketAddr,
    /// When it should start.
    pub intended: Instant,
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its number as a flow.
    pub attempt: FlowId,
    /// Where it connected to.
    pub target: SocketAddr,
    /// What became of its handshake.
    pub outcome: Outcome,
    /// From its intended start until that was known.
    pub took: Duration,
    /// SYNs that were sent again.
    pub retransmits: u32,
}

/// An attempt in flight.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    target: SocketAddr,
    intended: Instant,
    deadline: Instant,
    /// When the handshake was complete.
    answered: Option<Instant>,
    retransmits: u32,
}

/// Keeps the times and the books of all attempts.
#[derive(Debug)]
pub struct Pinger {
    settings: Settings,
    begin: Instant,
    /// Number of the next start, over all targets.
    next: u64,
    /// The next start waits for another attempt to end.
    held: bool,
    stopped: bool,
    attempts: HashMap<FlowId, Attempt, foldhash::fast::RandomState>,
    deadlines: BTreeSet<(Instant, FlowId)>,
    ended: VecDeque<Ended>,
}

impl Pinger {
    /// The first start is at `begin`.
    #[must_use]
    pub fn new(settings: Settings, begin: Instant) -> Self {
        Self {
            settings,
            begin,
            next: 0,
            held: false,
            stopped: false,
            attempts: HashMap::default(),
            deadlines: BTreeSet::new(),
            ended: VecDeque::new(),
        }
    }

    /// The next start; `None` if there is none any more.
    fn upcoming(&self) -> Option<Start> {
        let Settings { targets, interval, count, duration, .. } = &self.settings;
        let many = targets.len() as u64;
        let (round, place) = (self.next / many, self.next % many);
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        // Computed, not added up: a rounding must not grow to a drift.
        let after =
            Duration::from_nanos(round.saturating_mul(interval).saturating_add(interval / many * place));
        let intended = self.begin + after;
        let over = self.stopped
            || count.is_some_and(|count| round >= count)
            || duration.is_some_and(|duration| after >= duration);
        let target = targets[place as usize];
        (!over).then_some(Start { attempt: FlowId(self.next + 1), target, intended })
    }

    /// The next attempt to make now. [`Self::opened`] must follow. One that could not be made before its time was over is
    /// counted as aborted.
    pub fn poll_start(&mut self, cx: &mut Cx<'_>) -> Option<Start> {
        while let Some(start) = self.upcoming().filter(|start| start.intended <= cx.now) {
            let over = start.intended + self.settings.timeout;
            let full = self.attempts.len() >= self.settings.in_flight;
            if over <= cx.now {
                self.note_held(cx, full);
                tell_opened(cx, start, unspecified(start.target));
                tell_closed(&mut at(cx, over, start.attempt), Outcome::Aborted);
                self.ended.push_back(Ended {
                    attempt: start.attempt,
                    target: start.target,
                    outcome: Outcome::Aborted,
                    took: self.settings.timeout,
                    retransmits: 0,
                });
            } else if full {
                self.note_held(cx, true);
                return None;
            } else {
                self.advance();
                return Some(start);
            }
            self.advance();
        }
        None
    }

    const fn advance(&mut self) {
        self.next += 1;
        self.held = false;
    }

    /// Each attempt that the limit holds up counts once.
    fn note_held(&mut self, cx: &mut Cx<'_>, full: bool) {
        if full && !std::mem::replace(&mut self.held, true) {
            cx.emit(Event::LimitHit { limit: IN_FLIGHT });
        }
    }

    /// The attempt is in flight, from this address and port; `None`: it got none.
    pub fn opened(&mut self, cx: &mut Cx<'_>, start: Start, client: Option<SocketAddr>) {
        tell_opened(cx, start, client.unwrap_or_else(|| unspecified(start.target)));
        let Start { attempt, target, intended } = start;
        let deadline = intended + self.settings.timeout;
        self.deadlines.insert((deadline, attempt));
        self.attempts.insert(attempt, Attempt { target, intended, deadline, answered: None, retransmits: 0 });
    }

    /// A SYN of the attempt was sent again, or was found to have been, `count` times so far.
    pub fn resent(&mut self, cx: &mut Cx<'_>, attempt: FlowId, count: u32) {
        if let Some(found) = self.attempts.get_mut(&attempt) {
            found.retransmits = count;
            on_server_leg(cx, attempt, Event::Resent { why: Resend::Syn, count });
        }
    }

    /// The same for a SYN whose sending the connection itself has told.
    fn note_resent(&mut self, attempt: FlowId, count: u32) {
        if let Some(found) = self.attempts.get_mut(&attempt) {
            found.retransmits = count;
        }
    }

    /// The handshake is complete. From now on the attempt has its timeout once more to close.
    pub fn answered(&mut self, cx: &mut Cx<'_>, attempt: FlowId) {
        let Some(found) = self.attempts.get_mut(&attempt) else { return };
        self.deadlines.remove(&(found.deadline, attempt));
        found.answered = Some(cx.now);
        found.deadline = cx.now + self.settings.timeout;
        self.deadlines.insert((found.deadline, attempt));
        cx.for_flow(attempt).for_leg(Leg::Client).emit(Event::Established);
    }

    /// The attempt has ended. `outcome` is that of its handshake; once that is complete it is `ok`, however it closes.
    pub fn end(&mut self, cx: &mut Cx<'_>, attempt: FlowId, outcome: Outcome) {
        let Some(found) = self.attempts.remove(&attempt) else { return };
        self.deadlines.remove(&(found.deadline, attempt));
        let outcome = if found.answered.is_some() { Outcome::Ok } else { outcome };
        tell_closed(&mut cx.for_flow(attempt), outcome);
        let took = found.answered.unwrap_or(cx.now).since(found.intended);
        let Attempt { target, retransmits, .. } = found;
        self.ended.push_back(Ended { attempt, target, outcome, took, retransmits });
    }

    /// The next attempt whose time is over. The way that carries it out must end it, as a timeout.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Option<FlowId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, attempt)| *attempt)
    }

    /// The next attempt that has ended.
    pub fn poll_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// When to ask again for starts and for attempts whose time is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = self.held && self.attempts.len() >= self.settings.in_flight;
        let start = self
            .upcoming()
            .map(|start| if waits { start.intended + self.settings.timeout } else { start.intended });
        earliest(start, self.deadlines.first().map(|(deadline, _)| *deadline))
    }

    /// Makes no more attempts. Those whose time has come are told as open: that they waited would be lost else.
    pub fn stop(&mut self, cx: &mut Cx<'_>) {
        while let Some(start) = self.upcoming().filter(|start| start.intended <= cx.now) {
            tell_opened(cx, start, unspecified(start.target));
            self.advance();
        }
        self.stopped = true;
    }

    /// The attempts whose handshake is complete and whose close is not.
    pub fn closing(&self) -> impl Iterator<Item = FlowId> {
        self.attempts.iter().filter(|(_, attempt)| attempt.answered.is_some()).map(|(id, _)| *id)
    }

    /// True once all attempts are made and have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.upcoming().is_none() && self.attempts.is_empty()
    }
}

/// The address of a client that got none.
const fn unspecified(target: SocketAddr) -> SocketAddr {
    let ip = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

fn at<'a>(cx: &'a mut Cx<'_>, when: Instant, attempt: FlowId) -> Cx<'a> {
    let mut cx = cx.for_flow(attempt);
    cx.now = when;
    cx
}

/// At the intended start: there the client began to wait.
fn tell_opened(cx: &mut Cx<'_>, start: Start, client: SocketAddr) {
    let opened = Event::FlowOpened { client, server: start.target, rules: Vec::new() };
    at(cx, start.intended, start.attempt).emit(opened);
}

fn tell_closed(cx: &mut Cx<'_>, outcome: Outcome) {
    cx.emit(Event::FlowClosed { outcome, upstream_bytes: 0, downstream_bytes: 0 });
}

/// Tells something of the leg to the target.
pub fn on_server_leg(cx: &mut Cx<'_>, attempt: FlowId, event: Event) {
    cx.for_flow(attempt).for_leg(Leg::Server).emit(event);
}

/// The event of a SYN that leaves by a socket whose segments nobody sees.
#[must_use]
pub const fn dialling() -> Event {
    Event::StateChanged { from: State::Closed, to: State::SynSent }
}
