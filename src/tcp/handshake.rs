//! SYN-SENT and SYN-RECEIVED. Their rules return a [`Decision`]; [`super::conn`] applies it.

use super::clock::Clock;
use super::syn::{SynInfo, SynOptions};
use crate::time::{Duration, Instant};
use crate::wire::{Flags, Options, RawWindow, Segment, SeqNum, WindowScale};

/// Linux answers duplicate SYNs and other strangers at most this often (`tcp_invalid_ratelimit`).
pub(super) const INVALID_RATE: Duration = Duration::from_millis(500);

/// What a handshake state makes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Ignore,
    /// RST that answers the segment (RFC 9293 §3.10.7.3 first step, §3.10.7.4 fifth step).
    Reset,
    /// An ACK with our numbers (RFC 5961).
    Challenge,
    /// The peer refused or aborted.
    Refused,
    /// The handshake is complete.
    Open,
    /// Both sides sent a SYN at once (RFC 9293 §3.5 figure 7, MUST-10).
    Crossed,
    /// The peer sent its SYN again.
    Again,
}

/// What both handshake states know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    pub iss: SeqNum,
    /// What our SYN or SYN-ACK offers.
    pub offer: SynOptions,
    /// Bytes of the window that we announce in it.
    pub window: u32,
    pub clock: Clock,
    /// When our SYN or SYN-ACK first left.
    pub first_sent: Option<Instant>,
    /// How often it left.
    pub sent: u32,
    /// It should leave now.
    pub due: bool,
}

/// Our SYN is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct SynSent {
    pub ours: Ours,
    /// A stale connection at the peer answered; the SYN was repeated at once, but only once per [`Self::resend`].
    retried: bool,
}

impl SynSent {
    pub(super) const fn new(ours: Ours) -> Self {
        Self { ours, retried: false }
    }

    /// The application's side sent its SYN again.
    pub(super) const fn resend(&mut self) {
        self.ours.due = true;
        self.retried = false;
    }

    /// RFC 9293 §3.10.7.3.
    pub(super) fn on_segment(&mut self, seg: &Segment) -> Decision {
        let acks_ours = seg.has(Flags::ACK) && seg.ack == self.ours.iss + 1;
        if seg.has(Flags::ACK) && !acks_ours {
            if seg.has(Flags::RST) {
                return Decision::Ignore;
            }
            // Linux sends its SYN again right after this RST: a peer with a stale connection can take it now.
            self.ours.due |= !std::mem::replace(&mut self.retried, true);
            return Decision::Reset;
        }
        if seg.has(Flags::RST) {
            // A RST without an acceptable ACK is blind (RFC 5961 §3.2).
            return if acks_ours { Decision::Refused } else { Decision::Ignore };
        }
        match (seg.has(Flags::SYN), acks_ours) {
            (true, true) => Decision::Open,
            (true, false) => Decision::Crossed,
            (false, _) => Decision::Ignore,
        }
    }

    /// The SYN.
    pub(super) fn syn(&self, now: Instant) -> Segment {
        let ours = &self.ours;
        let ecn = if ours.offer.ecn { Flags::ECE | Flags::CWR } else { Flags::default() };
        Segment {
            seq: ours.iss,
            flags: Flags::SYN | ecn,
            window: RawWindow(u16::try_from(ours.window).unwrap_or(u16::MAX)),
            options: ours.offer.to_wire(crate::wire::Timestamps { val: ours.clock.now(now), ecr: 0 }),
            ..Segment::default()
        }
    }
}

/// Our SYN-ACK is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct SynReceived {
    pub ours: Ours,
    pub peer: SynInfo,
    /// RFC 9293 MUST-11: whether this began with an active open.
    pub active: bool,
    /// When the SYN-ACK leaves again.
    pub rto_at: Option<Instant>,
    /// A real cookie has no state that could send it again ([`super::Knobs::syn_cookie`]).
    pub cookie: bool,
    last_answer: Option<Instant>,
}

impl SynReceived {
    pub(super) const fn new(now: Instant, mut ours: Ours, peer: SynInfo, active: bool) -> Self {
        (ours.clock.recent, ours.clock.recent_at) = (peer.ts_val, now);
        Self { ours, peer, active, rto_at: None, cookie: false, last_answer: None }
    }

    /// From now on no timer runs.
    pub(super) const fn become_cookie(&mut self) {
        (self.cookie, self.rto_at) = (true, None);
    }

    fn rcv_nxt(&self) -> SeqNum {
        self.peer.seq + 1
    }

    /// RFC 9293 §3.10.7.4 for SYN-RECEIVED, with RFC 5961.
    pub(super) fn on_segment(&mut self, now: Instant, seg: &Segment) -> Decision {
        let nxt = self.rcv_nxt();
        let again = seg.has(Flags::SYN) && seg.seq == self.peer.seq && !seg.has(Flags::RST);
        if again && self.active && seg.has(Flags::ACK) && seg.ack == self.ours.iss + 1 {
            // The crossing SYN-ACK lies outside the RFC's window test; Linux has the same exception.
            return Decision::Open;
        }
        if again && !seg.has(Flags::ACK) {
            return self.rate(now, Decision::Again);
        }
        let inside = seg.seq.at_or_after(nxt) && seg.seq.before(nxt + self.ours.window.max(1));
        let reaches = inside || (seg.seq_len() > 0 && seg.seq.before(nxt) && seg.end().after(nxt));
        if !reaches || self.ours.clock.too_old(now, seg) {
            return if seg.has(Flags::RST) { Decision::Ignore } else { self.rate(now, Decision::Challenge) };
        }
        if seg.has(Flags::RST) {
            return if seg.seq == nxt { Decision::Refused } else { self.rate(now, Decision::Challenge) };
        }
        if seg.has(Flags::SYN) {
            return self.rate(now, Decision::Challenge);
        }
        match seg.has(Flags::ACK) {
            false => Decision::Ignore,
            true if seg.ack == self.ours.iss + 1 => Decision::Open,
            true => Decision::Reset,
        }
    }

    fn rate(&mut self, now: Instant, answer: Decision) -> Decision {
        if self.last_answer.is_some_and(|at| now.since(at) < INVALID_RATE) {
            return Decision::Ignore;
        }
        self.last_answer = Some(now);
        answer
    }

    /// The SYN-ACK.
    pub(super) fn syn_ack(&self, now: Instant) -> Segment {
        let ours = &self.ours;
        let stamp = crate::wire::Timestamps { val: ours.clock.now(now), ecr: self.peer.ts_val };
        Segment {
            seq: ours.iss,
            ack: self.rcv_nxt(),
            flags: Flags::SYN | Flags::ACK | if ours.offer.ecn { Flags::ECE } else { Flags::default() },
            window: RawWindow(u16::try_from(ours.window).unwrap_or(u16::MAX)),
            options: ours.offer.to_wire(stamp),
            ..Segment::default()
        }
    }

    /// An ACK that asks whether the peer means it. Unlike in a SYN-ACK its window is scaled, and of the options only the
    /// timestamps are left (RFC 7323 §2.2, §3.2).
    pub(super) fn challenge_ack(&self, now: Instant) -> Segment {
        let syn_ack = self.syn_ack(now);
        let scale = self.peer.options.window_scale.and(self.ours.offer.window_scale);
        let timestamps = syn_ack.options.timestamps.filter(|_| self.peer.options.timestamps);
        Segment {
            seq: self.ours.iss + 1,
            flags: Flags::ACK,
            window: scale.unwrap_or(WindowScale::NONE).raw(self.ours.window),
            options: Options { timestamps, ..Options::default() },
            ..syn_ack
        }
    }
}
