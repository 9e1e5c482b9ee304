//! The receiving half: RCV.*, reassembly, what we acknowledge and when, which window we offer.
//!
//! Positions are offsets in the peer's stream: its sequence number is IRS + 1 + position, and its FIN is the position after
//! the last byte. Positions never wrap.

mod offer;

use std::collections::VecDeque;
use std::ops::Range;

use arrayvec::ArrayVec;
use bytes::Bytes;

use super::assembler::Assembler;
use super::knobs::{AckKnob, Knobs};
use super::state::PeerFin;
use crate::time::{Duration, Instant, earliest};
use crate::wire::{Flags, Payload, SackBlock, Segment, SeqNum, WindowScale};
use offer::Offered;

/// Linux `TCP_DELACK_MIN`; RFC 9293 MUST-40 allows up to 0.5 s.
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Linux starts with up to 16 quick ACKs, so that the peer's slow start is not held up.
const QUICK_ACKS: u8 = 16;

/// How a segment lies to the window (RFC 9293 §3.10.7.4, first step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptable {
    Yes,
    /// At RCV.NXT but the window is closed: only ACK, URG and RST count (RFC 9293 MUST-66).
    ControlOnly,
    No,
}

/// What the acknowledgement machinery owes.
#[derive(Clone, Copy, Debug, Default)]
struct AckDebt {
    now: bool,
    at: Option<Instant>,
    /// Bytes of a full-sized segment of this peer, as seen so far (Linux `rcv_mss`).
    full: u32,
    quick: u8,
    /// We answer data with data: ACKs can wait for it.
    interactive: bool,
    last_data: Option<Instant>,
}

/// The receiving half of a synchronised connection.
#[derive(Debug)]
pub(super) struct Recv {
    irs: SeqNum,
    nxt: u64,
    /// Right edge of the offered window. Never moves left (RFC 9293 SHLD-14).
    edge: u64,
    /// How much the application can take beyond `ready`.
    space: u32,
    /// The most that it ever could: RCV.BUFF of the SWS rules.
    buffer: u32,
    scale: WindowScale,
    mss: u32,
    assembler: Assembler,
    /// Most out-of-order ranges.
    ranges: usize,
    /// A range was refused since the last [`Recv::take_limit_hit`].
    limit_hit: bool,
    ready: VecDeque<Bytes>,
    ready_bytes: u32,
    fin_at: Option<u64>,
    pub(super) fin: PeerFin,
    urgent: Option<u64>,
    debt: AckDebt,
    /// RCV.NXT of the last ACK that left; RFC 7323's Last.ACK.sent.
    acked: u64,
    duplicate: Option<Range<u64>>,
    sack_permitted: bool,
    knobs: Knobs,
    /// What a knob makes of the window.
    offered: Offered,
}

impl Recv {
    pub(super) fn new(
        irs: SeqNum,
        window: u32,
        scale: WindowScale,
        mss: u32,
        sack_permitted: bool,
        ranges: usize,
    ) -> Self {
        Self {
            irs,
            nxt: 0,
            edge: u64::from(window),
            space: window,
            buffer: window,
            scale,
            mss: mss.max(1),
            assembler: Assembler::default(),
            ranges,
            limit_hit: false,
            ready: VecDeque::new(),
            ready_bytes: 0,
            fin_at: None,
            fin: PeerFin::None,
            urgent: None,
            debt: AckDebt { quick: QUICK_ACKS, full: mss.clamp(1, 536), ..AckDebt::default() },
            acked: 0,
            duplicate: None,
            sack_permitted,
            knobs: Knobs::default(),
            offered: Offered::new(scale.raw(window)),
        }
    }

    /// RCV.NXT.
    pub(super) fn nxt(&self) -> SeqNum {
        self.seq(self.nxt)
    }

    pub(super) fn seq(&self, position: u64) -> SeqNum {
        self.irs + 1 + position as u32
    }

    /// The acknowledgement number to send: RCV.NXT, unless a knob still holds the news back.
    pub(super) fn ack_number(&self, now: Instant) -> SeqNum {
        let held = matches!(self.knobs.ack, AckKnob::Delay { .. }) && !self.ack_due(now);
        self.seq(if held { self.acked } else { self.nxt })
    }

    /// RFC 7323 §4.3: true if this segment covers Last.ACK.sent, so that its timestamp is the one to echo.
    pub(super) fn covers_last_ack(&self, seq: SeqNum) -> bool {
        seq.at_or_before(self.seq(self.acked))
    }

    /// RFC 9293 §3.10.7.4, first step. Like Linux, an empty segment exactly at the right edge is fine: a sender that has
    /// filled the window acknowledges from there.
    pub(super) fn acceptable(&self, seg: &Segment) -> Acceptable {
        let (nxt, edge) = (self.nxt(), self.seq(self.edge.max(self.nxt)));
        let len = seg.seq_len();
        let inside = |s: SeqNum| s.at_or_after(nxt) && s.before(edge);
        let good = match (len, self.window()) {
            (0, _) => seg.seq.at_or_after(nxt) && seg.seq.at_or_before(edge),
            (_, 0) => false,
            _ => inside(seg.seq) || inside(seg.end() - 1) || (seg.seq.before(nxt) && seg.end().after(edge)),
        };
        match good {
            true => Acceptable::Yes,
            false if self.window() == 0 && seg.seq == nxt => Acceptable::ControlOnly,
            false => Acceptable::No,
        }
    }

    /// The urgent pointer (RFC 9293 §3.10.7.4, sixth step): the octet after the urgent data (MUST-62).
    pub(super) fn urgent(&mut self, seg: &Segment) {
        if seg.has(Flags::URG) && self.fin == PeerFin::None {
            let at = self.position(seg.seq + u32::from(seg.urgent));
            if at > self.nxt && self.urgent.is_none_or(|old| at > old) {
                self.urgent = Some(at);
            }
        }
    }

    pub(super) fn urgent_at(&self) -> Option<u64> {
        self.urgent
    }

    fn position(&self, seq: SeqNum) -> u64 {
        self.nxt.saturating_add_signed(i64::from(seq.diff(self.nxt())))
    }

    /// RFC 9293 §3.10.7.4, seventh and eighth step: takes the data and FIN of an acceptable segment. Returns true if the
    /// peer's FIN was reached.
    pub(super) fn text(&mut self, now: Instant, seg: Segment, our_close: bool) -> bool {
        if self.fin != PeerFin::None {
            if seg.seq_len() > 0 {
                self.owe_now();
            }
            return false;
        }
        let start_raw = i64::from(seg.seq.diff(self.nxt()));
        let len = seg.payload.len();
        let skip = u32::try_from(-start_raw).unwrap_or(0).min(len);
        let start = self.nxt.saturating_add_signed(start_raw + i64::from(skip));
        let room = self.taken_edge().saturating_sub(start).min(u64::from(len)) as u32;
        let end = (skip + room).min(len);
        let payload = seg.payload.slice(skip, end);
        if seg.has(Flags::FIN) && end == len && self.fin_at.is_none() {
            self.fin_at = Some(self.position(seg.seq + len));
        }
        if len > 0 && payload.is_empty() {
            // All old, or all beyond the window: say at once what we have (RFC 9293 §3.10.7.4, first step).
            let old = self.position(seg.seq);
            self.duplicate = (old < self.nxt).then(|| old..(old + u64::from(len)).min(self.nxt));
            self.owe_now();
        }
        if !payload.is_empty() {
            let size = if seg.gso_size == 0 { len } else { u32::from(seg.gso_size) };
            self.debt.full = self.debt.full.max(size.min(self.mss));
            self.take(now, start, payload);
        }
        self.reach_fin(our_close)
    }

    fn take(&mut self, now: Instant, start: u64, payload: Payload) {
        if start == self.nxt && self.assembler.is_empty() {
            self.nxt += u64::from(payload.len());
            self.ready_bytes += payload.len();
            self.ready.extend(payload.into_parts());
        } else {
            // RFC 9293 SHLD-31, MAY-13; RFC 5681 §4.2: a hole, and what fills one, is acknowledged at once.
            self.owe_now();
            let put = self.assembler.insert(&(self.nxt..self.taken_edge()), start, &payload, self.ranges);
            self.limit_hit |= put.limit_hit;
            self.duplicate = put.duplicate;
            while let Some(part) = self.assembler.pop_ready(self.nxt) {
                self.nxt += part.len() as u64;
                self.ready_bytes += part.len() as u32;
                self.ready.push_back(part);
            }
        }
        self.owe_for_data(now);
    }

    fn owe_for_data(&mut self, now: Instant) {
        let idle = self.debt.last_data.map_or(Duration::MAX, |at| now.since(at));
        self.debt.last_data = Some(now);
        // RFC 9293 SHLD-19: at least every second full-sized segment; small ones wait for each other, as on Linux.
        let second = self.nxt - self.acked > u64::from(self.debt.full);
        match self.knobs.ack {
            AckKnob::Natural => {
                if idle > Duration::from_secs(1) {
                    self.debt.quick = QUICK_ACKS;
                }
                if second || self.is_used_up() || (self.debt.quick > 0 && !self.debt.interactive) {
                    self.debt.quick = self.debt.quick.saturating_sub(1);
                    self.debt.now = true;
                } else {
                    self.debt.at.get_or_insert(now + DELAYED_ACK);
                }
            }
            AckKnob::Delay { delay, every } => {
                let waiting = self.nxt - self.acked;
                let many = |n: u32| waiting > u64::from(n.saturating_sub(1)) * u64::from(self.debt.full);
                self.debt.now |= every.is_some_and(many);
                self.debt.at.get_or_insert(now + delay);
            }
        }
    }

    fn reach_fin(&mut self, our_close: bool) -> bool {
        if self.fin_at != Some(self.nxt) || self.fin != PeerFin::None {
            return false;
        }
        self.nxt += 1;
        self.edge = self.edge.max(self.nxt);
        self.fin = if our_close { PeerFin::Second } else { PeerFin::First };
        self.owe_now();
        true
    }

    /// An ACK must leave with the next transmission, whatever a knob says of ordinary data.
    pub(super) fn owe_now(&mut self) {
        self.debt.now = true;
    }

    /// True if an ACK should leave now.
    pub(super) fn ack_due(&self, now: Instant) -> bool {
        self.debt.now || self.debt.at.is_some_and(|at| at <= now)
    }

    /// When an ACK, or by a knob a window update, is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.debt.at, self.moves_at())
    }

    /// An ACK leaves with the number `ack`; `data` if it rides on data.
    pub(super) fn acked(&mut self, now: Instant, ack: SeqNum, data: bool) {
        if data && self.debt.last_data.is_some_and(|at| now.since(at) < DELAYED_ACK) {
            self.debt.interactive = true;
        }
        self.acked = self.position(ack);
        self.duplicate = None;
        if self.acked == self.nxt {
            (self.debt.now, self.debt.at) = (false, None);
        }
    }

    /// True once if out-of-order data had to be refused.
    pub(super) fn take_limit_hit(&mut self) -> bool {
        std::mem::take(&mut self.limit_hit)
    }

    pub(super) fn recv(&mut self) -> Option<Bytes> {
        let part = self.ready.pop_front()?;
        self.ready_bytes -= part.len() as u32;
        self.space = self.space.saturating_sub(part.len() as u32);
        Some(part)
    }

    /// Bytes received and not yet taken.
    pub(super) fn waiting(&self) -> u32 {
        self.ready_bytes + self.assembler.bytes()
    }

    /// Gives back what an idle queue does not need.
    pub(super) fn relax(&mut self) {
        self.ready.shrink_to_fit();
    }

    /// True if data are held that wait for this segment.
    pub(super) fn fills_gap(&self, seg: &Segment) -> bool {
        !self.assembler.is_empty() && seg.seq.at_or_before(self.nxt())
    }

    pub(super) fn has_data(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn set_space(&mut self, bytes: u32) {
        self.space = bytes;
        self.buffer = self.buffer.max(bytes);
    }

    /// The SACK blocks of an ACK: a D-SACK first (RFC 2883), then the most recently changed ranges (RFC 2018 §4).
    pub(super) fn sack_blocks(&self, most: usize) -> ArrayVec<SackBlock, 4> {
        let mut blocks = ArrayVec::new();
        if self.sack_permitted {
            let block = |r: Range<u64>| SackBlock { left: self.seq(r.start), right: self.seq(r.end) };
            let all = self.duplicate.clone().into_iter().chain(self.assembler.ranges());
            blocks.extend(all.map(block).take(most.min(4)));
        }
        blocks
    }

    /// Payload bytes received in order.
    pub(super) fn received(&self) -> u64 {
        self.nxt - u64::from(self.fin != PeerFin::None)
    }
}
