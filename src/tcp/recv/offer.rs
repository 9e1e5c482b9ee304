//! Which window we offer, what a knob makes of it, and when the peer must hear of it without having sent anything.

use super::Recv;
use crate::tcp::knobs::{Knobs, WindowKnob};
use crate::tcp::state::PeerFin;
use crate::time::{Duration, Instant};
use crate::wire::{RawWindow, Segment};

/// What the peer was told, and what a knob keeps from it.
#[derive(Debug)]
pub(super) struct Offered {
    /// The window field of the last segment.
    field: RawWindow,
    /// The right edge that it gave.
    edge: u64,
    /// A knob hides some of the window, so that the way back needs an update.
    hidden: bool,
    /// It hides all of it.
    shut: bool,
    /// The edge of [`WindowKnob::Edge`].
    limit: Option<Limit>,
}

/// The right edge as a knob moves it.
#[derive(Debug)]
struct Limit {
    at: u64,
    step: u32,
    pause: Duration,
    moves_at: Option<Instant>,
    refuse: bool,
    /// It has moved since the peer was told last.
    news: bool,
}

impl Offered {
    pub(super) const fn new(field: RawWindow) -> Self {
        Self { field, edge: 0, hidden: false, shut: false, limit: None }
    }
}

impl Limit {
    fn of(now: Instant, nxt: u64, knob: WindowKnob) -> Option<Self> {
        let WindowKnob::Edge { first, step, pause, refuse } = knob else { return None };
        let moves_at = (step > 0).then(|| now + pause);
        Some(Self { at: nxt + u64::from(first), step, pause, moves_at, refuse, news: true })
    }

    /// Moves on as time does. Beyond all windows it rests.
    fn advance(&mut self, now: Instant, nxt: u64) {
        while let Some(at) = self.moves_at.filter(|at| *at <= now) {
            self.at = self.at.max(nxt).saturating_add(u64::from(self.step));
            self.news = true;
            let rests = self.pause.is_zero() || self.at - nxt >= 1 << 30;
            self.moves_at = (!rests).then(|| at + self.pause);
        }
    }

    fn left(&self, nxt: u64) -> u32 {
        u32::try_from(self.at.saturating_sub(nxt)).unwrap_or(u32::MAX)
    }
}

impl Recv {
    pub(in crate::tcp) fn set_knobs(&mut self, now: Instant, knobs: Knobs) {
        if self.knobs.ack != knobs.ack && self.acked != self.nxt {
            self.owe_now();
        }
        if self.knobs.window != knobs.window {
            self.offered.limit = Limit::of(now, self.nxt, knobs.window);
        }
        self.knobs = knobs;
    }

    /// Lets time move the edge of a knob.
    pub(in crate::tcp) fn advance(&mut self, now: Instant) {
        if let Some(limit) = &mut self.offered.limit {
            limit.advance(now, self.nxt);
        }
    }

    /// When it moves next.
    pub(super) fn moves_at(&self) -> Option<Instant> {
        let limit = self.offered.limit.as_ref().filter(|_| self.fin == PeerFin::None);
        limit.and_then(|limit| limit.moves_at)
    }

    /// The offered window that is left, whatever a knob makes the field say.
    pub(super) fn window(&self) -> u32 {
        self.edge.saturating_sub(self.nxt) as u32
    }

    /// Where the data end that are taken. Segments beyond it are still acceptable: whatever was in the window once is (RFC
    /// 7323 §2.4), and their ACKs count.
    pub(super) fn taken_edge(&self) -> u64 {
        let limit = self.offered.limit.as_ref().filter(|limit| limit.refuse);
        limit.map_or(self.edge, |limit| self.edge.min(limit.at)).max(self.nxt)
    }

    /// True if the peer has sent all that a knob lets it: it waits for us.
    pub(super) fn is_used_up(&self) -> bool {
        match (self.knobs.window, &self.offered.limit) {
            (WindowKnob::Cap(bytes), _) => self.nxt - self.acked >= u64::from(bytes),
            (_, Some(limit)) => limit.left(self.nxt) == 0,
            _ => false,
        }
    }

    /// The window field, and the right edge moves (RFC 9293 §3.8.6.2.2, MUST-39: never by silly amounts, but for a knob).
    pub(in crate::tcp) fn offer(&mut self) -> RawWindow {
        let wanted = self.wanted_edge();
        if self.edge_may_move() {
            let field = self.scale.raw((wanted - self.nxt) as u32);
            self.edge = self.edge.max(self.nxt + u64::from(self.scale.bytes(field)));
        }
        let left = self.window();
        // Rounding down would move the edge left, so round up, as Linux does; but not each time a little further, or small
        // segments would never meet a closed window. A peer takes the retraction of less than a unit (RFC 7323 §2.4).
        let unit = (1u32 << self.scale.shift()) - 1;
        let up = self.scale.raw(left.saturating_add(unit));
        let creeps = self.nxt + u64::from(self.scale.bytes(up)) > self.edge.max(wanted + u64::from(unit));
        let natural = if creeps { self.scale.raw(left) } else { up };
        self.edge = self.edge.max(self.nxt + u64::from(self.scale.bytes(natural)));
        let field = match self.most() {
            None => natural,
            Some(most) => RawWindow(natural.0.min(self.scale.raw(most).0)),
        };
        let told = &mut self.offered;
        told.edge = self.nxt + u64::from(self.scale.bytes(field));
        (told.field, told.hidden, told.shut) = (field, natural.0 > field.0, natural.0 > 0 && field.0 == 0);
        if let Some(limit) = &mut told.limit {
            limit.news = false;
        }
        field
    }

    /// What the last segment said of the window.
    pub(in crate::tcp) const fn told(&self) -> RawWindow {
        self.offered.field
    }

    /// The most that a knob lets the field say.
    fn most(&self) -> Option<u32> {
        match self.knobs.window {
            WindowKnob::Natural => None,
            WindowKnob::Zero { .. } => Some(0),
            WindowKnob::Cap(bytes) => Some(bytes),
            WindowKnob::Edge { .. } => self.offered.limit.as_ref().map(|limit| limit.left(self.nxt)),
        }
    }

    fn wanted_edge(&self) -> u64 {
        self.nxt + u64::from(self.space.saturating_sub(self.ready_bytes))
    }

    /// RFC 9293 §3.8.6.2.2: the edge moves by a segment, or half of the buffer, or not at all.
    fn edge_may_move(&self) -> bool {
        let step = self.mss.min(self.buffer.max(1).div_ceil(2));
        self.wanted_edge() >= self.edge + u64::from(step)
    }

    /// RFC 9293 §3.8.6.2.2: true if the peer must be told of a larger window.
    pub(in crate::tcp) fn update_due(&self) -> bool {
        if self.fin != PeerFin::None {
            return false;
        }
        match self.knobs.window {
            WindowKnob::Natural => self.offered.hidden || self.has_grown(u32::MAX),
            WindowKnob::Zero { .. } => false,
            WindowKnob::Cap(bytes) => self.has_grown(bytes),
            WindowKnob::Edge { .. } => {
                let most = self.most().unwrap_or(u32::MAX);
                let field = self.scale.raw(self.window().min(most));
                let news = self.offered.limit.as_ref().is_some_and(|limit| limit.news);
                (news && self.nxt + u64::from(self.scale.bytes(field)) != self.offered.edge)
                    || self.has_grown(most)
            }
        }
    }

    /// The application has freed so much that the window grows by at least two segments (or half of `most`) and to twice
    /// what the peer still has, or to anything useful after zero: Linux's rule.
    fn has_grown(&self, most: u32) -> bool {
        let left = self.window().min(most);
        // Only what the field can say is news: less than a unit is not.
        let new = self.scale.bytes(self.scale.raw(self.wanted_edge().saturating_sub(self.nxt) as u32));
        let step = (2 * self.mss).min(self.buffer.max(1).div_ceil(2)).min(most.div_ceil(2)).max(1);
        let new = new.min(most);
        // An update that moves nothing would be due for ever.
        self.edge_may_move() && new >= left.saturating_add(step) && new >= left.saturating_mul(2)
    }

    /// True if window probes must stay unanswered.
    pub(in crate::tcp) fn swallows_probes(&self) -> bool {
        self.knobs.window == WindowKnob::Zero { answer_probes: false }
    }

    /// True for a window probe with a new byte (RFC 9293 §3.8.6.1; Linux sends an old number instead) that must stay
    /// unanswered. The byte would fit, as far as the window before went.
    pub(in crate::tcp) fn swallows(&self, seg: &Segment) -> bool {
        let probe = seg.seq == self.nxt() && seg.payload.len() == 1 && seg.seq_len() == 1;
        probe && self.offered.shut && self.swallows_probes()
    }

    /// True if the peer has been told that it must not send.
    pub(in crate::tcp) fn closed_window(&self) -> bool {
        self.offered.shut || self.window() == 0
    }
}
