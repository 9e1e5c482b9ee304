//! [`Connection`]: the calls of the core, and the one place where its phase changes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::clock::Clock;
use super::close::TimeWait;
use super::handshake::{Decision, Ours, SynReceived, SynSent};
use super::open::Open;
use super::segment_arrives::Arrived;
use super::syn::{SynInfo, SynOptions, reset_for};
use super::{Config, Event, IcmpError, TxCaps, isn};
use crate::cx::Cx;
use crate::time::{Duration, Instant};
use crate::trace::{Event as Trace, Resend, State};
use crate::wire::{Flags, IpMeta, Segment, Tuple};

/// The window that a SYN announces: Linux's, as it cannot be scaled there.
const SYN_WINDOW: u32 = 64_240;
/// Answers that wait at most; more are dropped as a full queue would.
const MOST_REPLIES: usize = 8;

/// One TCP connection: one leg of a flow.
#[derive(Debug)]
pub struct Connection {
    /// As we send: `src` is our end.
    pub(super) tuple: Tuple,
    pub(super) config: Arc<Config>,
    pub(super) phase: Phase,
    pub(super) events: VecDeque<Event>,
    pub(super) replies: VecDeque<Segment>,
    pub(super) ip_out: IpMeta,
    pub(super) ip_in: IpMeta,
    corked: bool,
    /// What the application sent and closed before the handshake was complete (RFC 9293 §3.10.2, §3.10.4).
    pub(super) early: Vec<Bytes>,
    early_close: bool,
    told: State,
    /// What [`Self::byte_counts`] said when the open phase ended.
    pub(super) last_counts: (u64, u64),
}

/// What the connection is doing.
#[derive(Debug)]
pub(super) enum Phase {
    SynSent(SynSent),
    SynReceived(SynReceived),
    Open(Box<Open>),
    TimeWait(TimeWait),
    Closed,
}

impl Connection {
    /// Active open: SYN-SENT. The SYN leaves with the next [`Self::poll_transmit`], and again only by
    /// [`Self::resend_syn`], in step with the client's own SYNs. `tuple` is as we send.
    pub fn connect(
        cx: &mut Cx<'_>,
        config: &Arc<Config>,
        tuple: Tuple,
        offer: SynOptions,
        ip: IpMeta,
    ) -> Self {
        let phase = Phase::SynSent(SynSent::new(ours(cx.now, config, tuple, offer)));
        Self::new(cx, config, tuple, phase, ip)
    }

    /// Passive open: SYN-RECEIVED. The SYN-ACK with `offer` leaves with the next [`Self::poll_transmit`]; what the SYN did
    /// not offer is left out.
    pub fn accept(
        cx: &mut Cx<'_>,
        config: &Arc<Config>,
        tuple: Tuple,
        syn: &SynInfo,
        offer: SynOptions,
        ip: IpMeta,
    ) -> Self {
        let agreed = offer.agreed(syn.options);
        let offer = SynOptions {
            mss: offer.mss,
            window_scale: agreed.window_scale.and(offer.window_scale),
            ..agreed
        };
        let phase =
            Phase::SynReceived(SynReceived::new(cx.now, ours(cx.now, config, tuple, offer), *syn, false));
        Self::new(cx, config, tuple, phase, ip)
    }

    fn new(cx: &mut Cx<'_>, config: &Arc<Config>, tuple: Tuple, phase: Phase, ip: IpMeta) -> Self {
        let mut conn = Self {
            tuple,
            config: Arc::clone(config),
            phase,
            events: VecDeque::new(),
            replies: VecDeque::new(),
            ip_out: ip,
            ip_in: IpMeta::default(),
            corked: false,
            early: Vec::new(),
            early_close: false,
            told: State::Closed,
            last_counts: (0, 0),
        };
        conn.tell_state(cx);
        conn
    }

    /// A segment from the peer.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, seg: Segment) {
        self.ip_in = seg.ip;
        match &mut self.phase {
            Phase::SynSent(s) => {
                let decision = s.on_segment(&seg);
                self.decide(cx, decision, seg);
            }
            Phase::SynReceived(s) => {
                let decision = s.on_segment(cx.now, &seg);
                self.decide(cx, decision, seg);
            }
            Phase::Open(open) => {
                let arrived = open.on_segment(cx.now, seg);
                self.arrived(cx, arrived);
            }
            Phase::TimeWait(wait) => {
                if wait.on_segment(cx.now, &seg, self.config.time_wait) {
                    self.close(Event::Closed);
                }
            }
            Phase::Closed => {}
        }
        self.tell_state(cx);
    }

    fn decide(&mut self, cx: &mut Cx<'_>, decision: Decision, seg: Segment) {
        match decision {
            Decision::Ignore => cx.emit(Trace::Discarded { reason: "not acceptable in the handshake" }),
            Decision::Reset => self.reply(reset_for(&seg)),
            Decision::Challenge => {
                cx.emit(Trace::ChallengeAck);
                if let Phase::SynReceived(s) = &self.phase {
                    self.reply(s.challenge_ack(cx.now));
                }
            }
            Decision::Refused => self.close(Event::Reset),
            Decision::Again => {
                if let Phase::SynReceived(s) = &mut self.phase {
                    s.ours.due = true;
                }
            }
            Decision::Crossed => {
                if let Phase::SynSent(s) = &self.phase {
                    let mut ours = s.ours;
                    (ours.due, ours.sent) = (true, 0);
                    self.phase = Phase::SynReceived(SynReceived::new(cx.now, ours, SynInfo::of(&seg), true));
                }
            }
            Decision::Open => self.open(cx, seg),
        }
    }

    /// The handshake is complete; `seg` may carry data.
    fn open(&mut self, cx: &mut Cx<'_>, seg: Segment) {
        let (ours, peer) = match &self.phase {
            Phase::SynSent(s) => (s.ours, SynInfo::of(&seg)),
            Phase::SynReceived(s) => (s.ours, s.peer),
            _ => return,
        };
        let mut open = Open::new(&self.config, &ours, &peer, &seg, self.tuple.is_ipv6());
        open.clock.recent_at = cx.now;
        open.clock.update(cx.now, &seg, true);
        if let Some(at) = ours.first_sent.filter(|_| ours.sent == 1) {
            open.send.rtt.sample(cx.now, cx.now.since(at));
        }
        std::mem::take(&mut self.early).into_iter().for_each(|data| open.send.push(data));
        if self.early_close {
            open.send.close();
        }
        self.phase = Phase::Open(Box::new(open));
        self.events.push_back(Event::Established);
        cx.emit(Trace::Established);
        self.tell_state(cx);
        // What the segment carries beyond the handshake. A SYN's own number is consumed, and its window was not scaled (RFC
        // 7323 §2.2).
        let scale = peer.options.window_scale.and(ours.offer.window_scale).unwrap_or_default();
        let rest = match seg.has(Flags::SYN) {
            true => Segment {
                seq: seg.seq + 1,
                flags: seg.flags.without(Flags::SYN | Flags::ECE | Flags::CWR),
                window: scale.raw(u32::from(seg.window.0)),
                ..seg
            },
            false => seg,
        };
        if (rest.seq_len() > 0 || !rest.options.sack.is_empty() || rest.has(Flags::URG))
            && let Phase::Open(open) = &mut self.phase
        {
            let arrived = open.on_segment(cx.now, rest);
            self.arrived(cx, arrived);
        }
    }

    fn arrived(&mut self, cx: &mut Cx<'_>, arrived: Arrived) {
        let Arrived { reset, challenged, discarded, fin_acked, fin, probe, answered } = arrived;
        if let Some(reason) = discarded {
            cx.emit(Trace::Discarded { reason });
        }
        if challenged {
            cx.emit(Trace::ChallengeAck);
        }
        if let Phase::Open(open) = &mut self.phase
            && open.recv.take_limit_hit()
        {
            cx.emit(Trace::LimitHit { limit: "limits.out_of_order_ranges" });
        }
        let happened = [
            (fin, Event::FinReceived),
            (fin_acked, Event::FinAcked),
            (probe, Event::KeepaliveProbe),
            (answered, Event::ProbeAnswered),
        ];
        self.events.extend(happened.into_iter().filter(|(yes, _)| *yes).map(|(_, event)| event));
        if reset {
            self.close(Event::Reset);
        } else {
            self.settle(cx);
        }
    }

    /// Leaves the synchronised phase once both FINs are acknowledged and everything received has been taken.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        let Phase::Open(open) = &mut self.phase else { return };
        if open.recv.has_data() {
            return;
        }
        if open.is_done() {
            self.close(Event::Closed);
        } else if open.state() == State::TimeWait {
            let wait = TimeWait::new(cx.now, open, self.config.time_wait);
            self.last_counts = self.byte_counts();
            self.phase = Phase::TimeWait(wait);
        }
    }

    pub(super) fn close(&mut self, event: Event) {
        self.last_counts = self.byte_counts();
        self.phase = Phase::Closed;
        self.events.push_back(event);
        if event != Event::Closed {
            self.events.push_back(Event::Closed);
        }
    }

    fn reply(&mut self, seg: Segment) {
        if self.replies.len() < MOST_REPLIES {
            self.replies.push_back(seg);
        }
    }

    fn tell_state(&mut self, cx: &mut Cx<'_>) {
        let (from, to) = (self.told, self.state());
        if from != to {
            self.told = to;
            cx.emit(Trace::StateChanged { from, to });
        }
    }

    /// An ICMP error about a segment of ours, already matched to this connection.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, err: IcmpError) {
        let v6 = self.tuple.is_ipv6();
        match &mut self.phase {
            // Linux: every hard or soft error ends a SYN-SENT. RFC 5927 §4.1: it must quote what is in flight.
            Phase::SynSent(s) if err.seq == s.ours.iss && err.is_unreachable(v6) => {
                self.close(Event::Unreachable { kind: err.kind, code: err.code });
            }
            Phase::Open(open) if err.is_too_big(v6) => {
                let in_flight =
                    err.seq.at_or_after(open.send.seq(open.send.una)) && err.seq.before(open.send.nxt());
                if in_flight {
                    open.send.shrink_mss(err.mss(v6, open.clock.on));
                }
            }
            // RFC 9293 MUST-56: never abort an established connection.
            _ => {}
        }
        self.tell_state(cx);
    }

    /// Runs what is due at `cx.now`.
    pub fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        match &mut self.phase {
            Phase::SynReceived(s) => {
                if s.rto_at.is_some_and(|at| at <= cx.now) {
                    s.rto_at = None;
                    if s.ours.sent > self.config.syn_ack_retries {
                        self.close(Event::TimedOut);
                    } else {
                        s.ours.due = true;
                    }
                }
            }
            Phase::Open(open) => {
                let clock = open.clock.on.then(|| open.clock.now(cx.now));
                if open.send.on_timeout(cx.now, clock) {
                    self.close(Event::TimedOut);
                }
            }
            Phase::TimeWait(wait) if wait.until <= cx.now => self.close(Event::Closed),
            Phase::SynSent(_) | Phase::TimeWait(_) | Phase::Closed => {}
        }
        self.tell_state(cx);
    }

    /// The next segment to send, if any. Call until `None` after each input.
    pub fn poll_transmit(&mut self, cx: &mut Cx<'_>, caps: TxCaps) -> Option<Segment> {
        if self.is_mute() {
            self.replies.clear();
            return None;
        }
        if let Some(mut seg) = self.replies.pop_front() {
            seg.ip = IpMeta { ttl: self.ip_out.ttl, tos: self.ip_out.tos & !3 };
            return Some(seg);
        }
        if self.corked {
            return None;
        }
        let now = cx.now;
        let (mut seg, again) = match &mut self.phase {
            Phase::SynSent(s) => {
                (send_syn(&mut s.ours, now).then(|| s.syn(now))?, (s.ours.sent > 1).then_some(Resend::Syn))
            }
            Phase::SynReceived(s) => {
                if !send_syn(&mut s.ours, now) {
                    return None;
                }
                // 1, 3, 7, 15, 31 s after the first, as Linux; RFC 6298 §5.5.
                let wait = Duration::from_secs(1) * (1u32 << (s.ours.sent - 1).min(7));
                s.rto_at = (!s.cookie).then_some(now + wait);
                (s.syn_ack(now), (s.ours.sent > 1).then_some(Resend::Rto))
            }
            Phase::Open(open) => {
                let next = open.poll_transmit(now, caps);
                open.silent = open.knobs.mute && next.is_none();
                next?
            }
            Phase::TimeWait(wait) => (wait.poll_transmit(now)?, None),
            Phase::Closed => return None,
        };
        let ecn = seg.ip.tos & 3;
        seg.ip = IpMeta { ttl: self.ip_out.ttl, tos: (self.ip_out.tos & !3) | ecn };
        if let Some(why) = again {
            cx.emit(Trace::Resent { why, count: self.resends() });
        }
        self.settle(cx);
        self.tell_state(cx);
        Some(seg)
    }

    /// True if a knob keeps everything from leaving.
    const fn is_mute(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.silent)
    }

    fn resends(&self) -> u32 {
        match &self.phase {
            Phase::SynSent(s) => s.ours.sent - 1,
            Phase::SynReceived(s) => s.ours.sent - 1,
            Phase::Open(open) => open.send.recovery.backoff.max(1),
            Phase::TimeWait(_) | Phase::Closed => 0,
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::on_timeout`], and then [`Self::poll_transmit`], want to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::SynReceived(s) => s.rto_at,
            Phase::Open(open) if open.knobs.mute => None,
            // An ACK that may not leave yet needs no timer; it would be due for ever.
            Phase::Open(open) if self.corked => open.send.poll_timeout(),
            Phase::Open(open) => open.poll_timeout(),
            Phase::TimeWait(wait) => Some(wait.until),
            Phase::SynSent(_) | Phase::Closed => None,
        }
    }

    /// Queues bytes for the peer, also before the handshake is complete. Ignored once closed.
    pub fn send(&mut self, data: Bytes) {
        match &mut self.phase {
            Phase::Open(open) => open.send.push(data),
            Phase::SynSent(_) | Phase::SynReceived(_) if !self.early_close => self.early.push(data),
            _ => {}
        }
    }

    /// Next received bytes in order.
    pub fn recv(&mut self, cx: &mut Cx<'_>) -> Option<Bytes> {
        let Phase::Open(open) = &mut self.phase else { return None };
        let data = open.recv.recv();
        self.settle(cx);
        self.tell_state(cx);
        data
    }

    /// CLOSE: a FIN follows the queued data.
    pub fn shutdown(&mut self, cx: &mut Cx<'_>) {
        match &mut self.phase {
            Phase::Open(open) => open.send.close(),
            Phase::SynSent(_) => self.close(Event::Closed),
            Phase::SynReceived(_) => self.early_close = true,
            Phase::TimeWait(_) | Phase::Closed => {}
        }
        self.tell_state(cx);
    }

    /// ABORT: a RST leaves with the next [`Self::poll_transmit`] (none from SYN-SENT); the rest is forgotten.
    pub fn abort(&mut self, cx: &mut Cx<'_>) {
        let rst = match &self.phase {
            Phase::Open(open) => Some(open.reset()),
            Phase::SynReceived(s) => {
                let ack = s.syn_ack(cx.now);
                Some(Segment {
                    seq: ack.seq + 1,
                    ack: ack.ack,
                    flags: Flags::RST | Flags::ACK,
                    ..Segment::default()
                })
            }
            _ => None,
        };
        self.replies.clear();
        self.replies.extend(rst);
        self.vanish(cx);
    }

    /// Disappears without a word.
    pub fn vanish(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.phase, Phase::Closed) {
            self.close(Event::Closed);
        }
        self.tell_state(cx);
    }

    /// Holds back everything but RST: a server leg waits with its handshake ACK until the client's has come.
    pub fn cork(&mut self) {
        self.corked = true;
    }

    /// Ends [`Self::cork`].
    pub fn uncork(&mut self) {
        self.corked = false;
    }

    /// The client sent its SYN again, so we do.
    pub fn resend_syn(&mut self) {
        if let Phase::SynSent(s) = &mut self.phase {
            s.resend();
        }
    }

    /// The RFC's name of the state.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::SynSent(_) => State::SynSent,
            Phase::SynReceived(_) => State::SynReceived,
            Phase::Open(open) => open.state(),
            Phase::TimeWait(_) => State::TimeWait,
            Phase::Closed => State::Closed,
        }
    }
}

fn ours(now: Instant, config: &Config, tuple: Tuple, offer: SynOptions) -> Ours {
    let clock = Clock {
        on: offer.timestamps,
        offset: isn::timestamp_offset(config.secret, tuple),
        ..Clock::default()
    };
    let iss = isn::initial(config.secret, tuple, now);
    Ours { iss, offer, window: config.buffer.min(SYN_WINDOW), clock, first_sent: None, sent: 0, due: true }
}

/// True if a SYN or SYN-ACK leaves now.
fn send_syn(ours: &mut Ours, now: Instant) -> bool {
    if !std::mem::take(&mut ours.due) {
        return false;
    }
    ours.first_sent.get_or_insert(now);
    ours.sent += 1;
    true
}
