//! The instants of one open flow, and what follows from them.
//!
//! What is kept must be small, because there may be very many idle flows: 56 bytes, and a piece more while a handshake or
//! an end is under way.

use super::counters::Owner;
use super::latencies::Step;
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg, Outcome};

/// Microseconds since the flow was opened. Handshakes are shorter than its 71 minutes; what is longer counts as that.
type Micros = u32;
/// It has not happened.
const NEVER: Micros = Micros::MAX;

/// What is kept of an open flow.
#[derive(Debug)]
pub(super) struct Flow {
    opened: Instant,
    /// The client's first payload; [`Instant::FAR`] before it.
    asked: Instant,
    pub(super) common: Common,
    handshake: Option<Box<Handshake>>,
    ends: Option<Box<[End; 2]>>,
    /// How long the client's connect took.
    connect: Micros,
    /// The first payload to the client has left.
    told: bool,
    /// A kernel socket has accepted the client: nobody knows how long its connect took.
    accepted: bool,
}

/// What it may have in common with others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    /// The first 64 rules that matched, a bit each.
    pub(super) rules: u64,
    /// Index of the target.
    pub(super) target: u8,
    /// How often a SYN was sent again: by the client, or by us where that is more often.
    pub(super) retransmits: u8,
    /// IPv6.
    pub(super) v6: bool,
    /// Type and code of the last ICMP error about it that came from the network.
    pub(super) icmp: Option<(u8, u8)>,
}

/// The instants of a handshake that is not complete on both legs.
#[derive(Debug)]
struct Handshake {
    /// The first and the last SYN to the server; [`NEVER`] before it.
    dialled: Micros,
    last_syn: Micros,
    /// The first SYN to the server has left, or is lost already.
    sent: bool,
    answered: bool,
    /// The first SYN-ACK to the client.
    offered: Micros,
    established: bool,
    /// What faults have taken so far.
    by_fault: Micros,
    /// Since when a fault keeps the handshake from its next step, and from which.
    blocked: Option<(Micros, Pass)>,
    /// What has passed, without what faults have taken, when the server answered.
    answered_without_fault: Micros,
    /// What halfopen has taken itself; [`NEVER`] if it cannot be told.
    own: Micros,
}

/// The steps of a handshake, in their order. Who has taken one has taken those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pass {
    /// A SYN towards the server.
    Syn,
    /// The server's SYN-ACK.
    Answer,
    /// The SYN-ACK to the client.
    Offer,
    /// The client's final ACK.
    FinalAck,
}

/// The end of one leg.
#[derive(Clone, Copy, Debug)]
struct End {
    /// [`Instant::FAR`] before they happen.
    our_fin: Instant,
    peer_fin: Instant,
    acked: Instant,
    reset: Instant,
    /// Who keeps it in TIME-WAIT, as far as the state of our end tells.
    owner: Option<Owner>,
}

/// What a completed connect amounts to.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) connect: Duration,
    pub(super) without_fault: Duration,
    /// If any.
    pub(super) by_fault: Option<Duration>,
    pub(super) by_proxy: Option<Duration>,
    pub(super) client_rtt: Option<Duration>,
}

/// What an answer of the server amounts to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) server_connect: Duration,
    pub(super) server_net: Duration,
}

/// What had lasted when the flow ended before it was complete.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    pub(super) connect: Option<Duration>,
    /// Nothing where a fault stood in the way at the end: such a flow says nothing about the network.
    pub(super) without_fault: Option<Duration>,
    pub(super) by_fault: Option<Step>,
    pub(super) client_rtt: Option<Duration>,
    pub(super) server: Option<Answered>,
}

/// What the end of a leg amounts to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) leg: Leg,
    pub(super) fin_ack: Option<Step>,
    pub(super) fin_fin: Option<Step>,
    /// Who keeps the leg in TIME-WAIT, if it was closed in order.
    pub(super) owner: Option<Owner>,
}

const fn time(micros: Micros) -> Duration {
    Duration::from_micros(micros as u64)
}

impl Flow {
    pub(super) fn new(opened: Instant, rules: u64, target: u8, v6: bool) -> Self {
        let handshake = Handshake {
            dialled: NEVER,
            last_syn: NEVER,
            sent: false,
            answered: false,
            offered: NEVER,
            established: false,
            by_fault: 0,
            blocked: None,
            answered_without_fault: NEVER,
            own: NEVER,
        };
        Self {
            opened,
            asked: Instant::FAR,
            common: Common { rules, target, retransmits: 0, v6, icmp: None },
            handshake: Some(Box::new(handshake)),
            ends: None,
            connect: NEVER,
            told: false,
            accepted: false,
        }
    }

    fn micros(&self, at: Instant) -> Micros {
        Micros::try_from(at.since(self.opened).as_micros()).unwrap_or(NEVER - 1)
    }

    /// The time since the client's first SYN.
    pub(super) fn age(&self, at: Instant) -> Duration {
        at.since(self.opened)
    }

    /// How long the connect took, if it is complete.
    pub(super) fn connect(&self) -> Option<Duration> {
        (self.connect != NEVER).then(|| time(self.connect))
    }

    /// A SYN of the client; the first one opened the flow.
    pub(super) fn client_syn(&mut self, at: Instant) {
        if self.connect == NEVER && at > self.opened {
            self.common.retransmits = self.common.retransmits.saturating_add(1);
        }
    }

    /// A SYN of ours was sent again, for the `count`th time.
    pub(super) fn syn_again(&mut self, count: u32) {
        if self.connect == NEVER {
            let count = u8::try_from(count).unwrap_or(u8::MAX);
            self.common.retransmits = self.common.retransmits.max(count);
        }
    }

    /// The server leg begins to dial, or sends its SYN again.
    pub(super) fn dial(&mut self, at: Instant) {
        let at = self.micros(at);
        if let Some(handshake) = &mut self.handshake
            && !handshake.answered
        {
            handshake.passes(at, Pass::Syn);
            if handshake.dialled == NEVER {
                handshake.dialled = at;
                handshake.own = handshake.without_fault(at);
            }
            handshake.last_syn = at;
        }
    }

    /// A SYN leaves for the server.
    pub(super) fn syn_out(&mut self, at: Instant) {
        self.syn_tried(at);
        self.dial(at);
    }

    /// It was to leave, whether or not a fault lets it.
    fn syn_tried(&mut self, at: Instant) {
        let at = self.micros(at);
        if let Some(handshake) = &mut self.handshake
            && !std::mem::replace(&mut handshake.sent, true)
            && handshake.dialled != NEVER
        {
            handshake.passes(at, Pass::Syn);
            handshake.dialled = at;
            handshake.own = handshake.without_fault(at);
        }
    }

    /// A fault loses or holds a segment; `pass` is the step that waits for it now.
    pub(super) fn blocked(&mut self, at: Instant, leg: Leg, pass: Pass) {
        match (pass, leg) {
            (Pass::Syn, Leg::Server) => self.syn_tried(at),
            (Pass::Offer, _) => self.offer_tried(at),
            _ => {}
        }
        let at = self.micros(at);
        if let Some(handshake) = &mut self.handshake
            && !handshake.established
        {
            let (since, before) = handshake.blocked.unwrap_or((at, pass));
            handshake.blocked = Some((since, before.max(pass)));
        }
    }

    /// True until the client's handshake is complete, once it has its SYN-ACK.
    pub(super) fn awaits_final_ack(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.offered != NEVER && !handshake.established)
    }

    /// The server has answered.
    pub(super) fn answered(&mut self, at: Instant) -> Option<Answered> {
        let since = self.micros(at);
        let handshake = self.handshake.as_mut()?;
        if handshake.dialled == NEVER || std::mem::replace(&mut handshake.answered, true) {
            return None;
        }
        handshake.passes(since, Pass::Answer);
        handshake.answered_without_fault = handshake.without_fault(since);
        let answered = handshake.waited_for_answer(since);
        self.forget_handshake();
        Some(answered)
    }

    /// A SYN-ACK leaves for the client.
    pub(super) fn offer(&mut self, at: Instant) {
        self.offer_tried(at);
        let at = self.micros(at);
        if let Some(handshake) = &mut self.handshake {
            handshake.passes(at, Pass::Offer);
            handshake.offered = handshake.offered.min(at);
        }
    }

    /// The first SYN-ACK was to leave, whether or not a fault lets it: that much of the time was halfopen's own.
    fn offer_tried(&mut self, at: Instant) {
        let at = self.micros(at);
        if let Some(handshake) = &mut self.handshake
            && handshake.offered == NEVER
            && handshake.blocked.is_none_or(|(_, pass)| pass < Pass::Offer)
        {
            handshake.own = match handshake.answered_without_fault {
                // A fault has accepted the client first.
                NEVER => NEVER,
                answered => {
                    handshake.own.saturating_add(handshake.without_fault(at).saturating_sub(answered))
                }
            };
        }
    }

    /// The client's handshake is complete.
    pub(super) fn established(&mut self, at: Instant) -> Option<Connected> {
        let since = self.micros(at);
        let handshake = self.handshake.as_mut()?;
        if std::mem::replace(&mut handshake.established, true) {
            return None;
        }
        handshake.passes(since, Pass::FinalAck);
        self.connect = since;
        let known = |micros: Micros| (micros != NEVER).then(|| time(micros));
        let answered = handshake.answered_without_fault != NEVER;
        let connected = Connected {
            connect: time(since),
            without_fault: time(handshake.without_fault(since)),
            by_fault: known(handshake.by_fault).filter(|time| !time.is_zero()),
            by_proxy: known(handshake.own).filter(|_| answered),
            client_rtt: known(handshake.offered).map(|offered| time(since).saturating_sub(offered)),
        };
        self.forget_handshake();
        Some(connected)
    }

    /// A kernel socket has accepted the client.
    pub(super) fn accept(&mut self) {
        self.accepted = true;
        if let Some(handshake) = &mut self.handshake {
            handshake.established = true;
        }
    }

    pub(super) const fn is_accepted(&self) -> bool {
        self.accepted
    }

    fn forget_handshake(&mut self) {
        if self.handshake.as_ref().is_some_and(|handshake| handshake.answered && handshake.established) {
            self.handshake = None;
        }
    }

    /// The first payload of a direction passed by. For the first one to the client: how long it took.
    pub(super) fn payload(&mut self, at: Instant, direction: Direction) -> Option<Duration> {
        match direction {
            Direction::Upstream => {
                self.asked = self.asked.min(at);
                None
            }
            Direction::Downstream if std::mem::replace(&mut self.told, true) => None,
            Direction::Downstream if self.asked <= at => Some(at.since(self.asked)),
            Direction::Downstream => self.connect().map(|connect| at.since(self.opened + connect)),
        }
    }

    fn end(&mut self, leg: Leg) -> &mut End {
        let never = Instant::FAR;
        let end = End { our_fin: never, peer_fin: never, acked: never, reset: never, owner: None };
        &mut self.ends.get_or_insert_with(|| Box::new([end; 2]))[leg as usize]
    }

    /// A FIN on a leg, `ours` or that of its peer.
    pub(super) fn fin(&mut self, at: Instant, leg: Leg, ours: bool) {
        let end = self.end(leg);
        let first = if ours { &mut end.our_fin } else { &mut end.peer_fin };
        *first = at.min(*first);
    }

    /// Our end has gone through its last states.
    pub(super) fn owned(&mut self, leg: Leg, owner: Owner) {
        self.end(leg).owner = Some(owner);
    }

    /// The peer has acknowledged our FIN, as far as the state of the leg tells.
    pub(super) fn fin_acked(&mut self, at: Instant, leg: Leg) {
        let end = self.end(leg);
        end.acked = at.min(end.acked);
    }

    /// The peer of a leg has reset it.
    pub(super) fn reset(&mut self, at: Instant, leg: Leg) {
        if self.ends.is_some() {
            let end = self.end(leg);
            end.reset = at.min(end.reset);
        }
    }

    /// What was not complete when the flow ended.
    pub(super) fn given_up(&self, at: Instant) -> GivenUp {
        let Some(handshake) = &self.handshake else { return GivenUp::default() };
        let since = self.micros(at);
        let server =
            (handshake.dialled != NEVER && !handshake.answered).then(|| handshake.waited_for_answer(since));
        if handshake.established {
            return GivenUp { server, ..GivenUp::default() };
        }
        let by_fault = handshake.by_fault_until(since);
        let (without_fault, by_fault) = match handshake.blocked {
            Some(_) => (None, Some(Step::Unfinished(time(by_fault)))),
            None => (Some(time(since - by_fault)), (by_fault > 0).then(|| Step::Took(time(by_fault)))),
        };
        let offered = (handshake.offered != NEVER).then(|| time(handshake.offered));
        GivenUp {
            connect: Some(time(since)),
            without_fault,
            by_fault,
            client_rtt: offered.map(|offered| time(since).saturating_sub(offered)),
            server,
        }
    }

    /// How long the client has waited in vain for a payload, if the flow did not end well.
    pub(super) fn unanswered(&self, at: Instant, outcome: Outcome) -> Option<Duration> {
        let waits = !self.told && self.asked <= at;
        let cut = matches!(outcome, Outcome::Timeout | Outcome::Reset | Outcome::Open | Outcome::Killed);
        (waits && cut).then(|| at.since(self.asked))
    }

    /// What the ends of the legs amount to.
    pub(super) fn ends(&self, at: Instant, outcome: Outcome) -> impl Iterator<Item = Ended> {
        let ends = self.ends.as_deref().copied();
        let legs = [Leg::Client, Leg::Server];
        ends.into_iter()
            .flat_map(move |ends| legs.into_iter().zip(ends))
            .map(move |(leg, end)| end.amounts_to(leg, at, outcome))
    }
}

impl Handshake {
    /// A step is taken: what a fault kept from it is over.
    fn passes(&mut self, at: Micros, pass: Pass) {
        if self.blocked.is_some_and(|(_, waits_for)| waits_for <= pass) {
            self.by_fault = self.by_fault_until(at);
            self.blocked = None;
        }
    }

    fn by_fault_until(&self, at: Micros) -> Micros {
        let now = self.blocked.map_or(0, |(since, _)| at.saturating_sub(since));
        self.by_fault.saturating_add(now).min(at)
    }

    /// What has passed since the client's first SYN, without what faults have taken.
    fn without_fault(&self, at: Micros) -> Micros {
        at - self.by_fault_until(at)
    }

    fn waited_for_answer(&self, at: Micros) -> Answered {
        let since = |from: Micros| time(at).saturating_sub(time(from));
        Answered { server_connect: since(self.dialled), server_net: since(self.last_syn) }
    }
}

impl End {
    fn amounts_to(&self, leg: Leg, at: Instant, outcome: Outcome) -> Ended {
        let Self { our_fin, peer_fin, acked, reset, owner } = *self;
        let sent = our_fin <= at;
        // A leg that is reset or given up changes its state as one does whose last FIN is acknowledged.
        let cut = acked == reset || (acked == at && matches!(outcome, Outcome::Timeout | Outcome::Reset));
        let fin_ack = match () {
            () if !sent => None,
            () if acked <= at && !cut => Some(Step::Took(acked.since(our_fin))),
            () => Some(Step::Unfinished(reset.min(at).since(our_fin))),
        };
        let (first, last) = (our_fin.min(peer_fin), our_fin.max(peer_fin));
        let fin_fin = match () {
            () if first > at => None,
            () if last <= at => Some(Step::Took(last.since(first))),
            () => Some(Step::Unfinished(reset.min(at).since(first))),
        };
        let in_order = matches!((fin_ack, fin_fin), (Some(Step::Took(_)), Some(Step::Took(_))));
        Ended { leg, fin_ack, fin_fin, owner: owner.filter(|_| in_order) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be 2^18 of them.
    #[test]
    fn what_is_kept_of_an_idle_flow_is_small() {
        assert!(size_of::<Flow>() <= 56, "{} bytes", size_of::<Flow>());
        assert!(size_of::<Handshake>() <= 64, "{} bytes", size_of::<Handshake>());
    }
}
