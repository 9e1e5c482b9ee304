//! What acknowledgements and timers do to the sending half: RFC 9293 §3.10.7.4 (ACK), RFC 6298, RFC 6582, RFC 8985.

use arrayvec::ArrayVec;

use super::scoreboard::Reordering;
use super::send::{Piece, Send};
use super::state::OurFin;
use crate::time::{Duration, Instant, earliest};
use crate::trace::Resend;
use crate::wire::{Flags, SackBlock, Segment, SeqNum};

/// Linux `TCP_RTO_MIN` once more: what a peer may delay the ACK of a lone segment (RFC 8985 §7.2 WCDelAckT).
const WORST_DELAYED_ACK: Duration = Duration::from_millis(200);

/// Loss recovery and its timers.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) rto_at: Option<Instant>,
    tlp_at: Option<Instant>,
    persist_at: Option<Instant>,
    rack_at: Option<Instant>,
    /// RTOs in a row without progress.
    pub(super) backoff: u32,
    persist_backoff: u32,
    unanswered: u32,
    /// Recovery ends when this position is acknowledged.
    until: Option<u64>,
    by_rto: bool,
    /// One segment is sent again whatever the congestion window says: the fast retransmit of RFC 5681 §3.2 and RFC 6582.
    pub(super) at_once: bool,
    /// Duplicate ACKs in a row, where the peer cannot SACK.
    pub(super) duplicates: u32,
    /// A tail loss probe is out; one per flight (RFC 8985 §7.3).
    tlp_until: Option<u64>,
    tlp_due: bool,
    /// TSval of the first retransmission after an RTO: an older echo proves the RTO wrong (RFC 3522, Eifel).
    rto_clock: Option<u32>,
    /// A segment that draws an ACK is owed.
    pub(super) probe: Option<Resend>,
    ecn_until: u64,
}

impl Recovery {
    pub(super) const fn why(&self) -> Resend {
        if self.by_rto { Resend::Rto } else { Resend::Rack }
    }
}

/// What an acknowledgement number is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckWorth {
    /// Between SND.UNA and SND.NXT.
    Good,
    /// Older than SND.UNA, but believable (RFC 5961 §5.2).
    Old,
    /// Never sent by us, or too old: answer with an ACK and drop.
    Bad,
}

/// What the peer's timestamps tell of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo {
    /// Round-trip time by TSecr.
    pub rtt: Option<Duration>,
    /// TSecr.
    pub echoed: Option<u32>,
}

impl Send {
    /// RFC 9293 §3.10.7.4, fifth step, with RFC 5961 §5.2.
    pub(super) fn judge(&self, ack: SeqNum) -> AckWorth {
        let ahead = i64::from(ack.diff(self.seq(self.una)));
        if ahead < 0 {
            return if -ahead <= i64::from(self.wnd_max.max(1)) { AckWorth::Old } else { AckWorth::Bad };
        }
        if self.una + ahead as u64 > self.nxt { AckWorth::Bad } else { AckWorth::Good }
    }

    /// Takes a good acknowledgement. Returns true if it newly covers our FIN.
    pub(super) fn on_ack(&mut self, now: Instant, seg: &Segment, echo: Echo) -> bool {
        let to = self.una + u64::from(seg.ack.diff(self.seq(self.una)).unsigned_abs());
        let flight = self.board.outstanding();
        let advanced = to > self.una;
        self.recovery.unanswered = 0;
        let was_window = self.wnd;
        self.update_window(seg);
        let mut delivered = self.board.ack(to, now);
        self.una = to;
        self.buffer.release(to);
        let fin_acked = self.fin == OurFin::Sent && to > self.buffer.end();
        if fin_acked {
            self.fin = OurFin::Acked;
        }
        let (blocks, repeated) = self.true_blocks(&seg.options.sack);
        for block in blocks {
            let more = self.board.sack(block.0, block.1, now);
            delivered.newly = delivered.newly.saturating_add(more.newly);
            delivered.rtt = delivered.rtt.or(more.rtt);
        }
        // A D-SACK was drawn by a copy, but echoes the time of the original: no round trip.
        let by_echo = echo.rtt.filter(|_| advanced && !repeated);
        if let Some(rtt) = delivered.rtt.or(by_echo) {
            self.rtt.sample(now, rtt);
        }
        if advanced {
            self.progress(echo);
        } else if !self.sack && is_duplicate(seg, was_window == self.wnd) && flight > 0 {
            self.recovery.duplicates += 1;
        }
        let srtt = self.rtt.srtt().unwrap_or_default();
        self.cc.on_ack(now, delivered.newly, srtt, self.app_limited());
        self.renew_peak();
        self.find_losses(now);
        self.after_ack(now, advanced);
        fin_acked
    }

    /// RFC 9293 §3.10.7.4: only newer segments update the window; like Linux, an ACK that advances always does.
    fn update_window(&mut self, seg: &Segment) {
        let newer = seg.ack.after(self.seq(self.una))
            || seg.seq.after(self.wl1)
            || (seg.seq == self.wl1 && seg.ack.at_or_after(self.wl2));
        if newer {
            let wnd = self.scale.bytes(seg.window);
            if wnd > self.wnd || (wnd > 0 && self.wnd == 0) {
                self.recovery.persist_at = None;
            }
            if wnd > 0 {
                self.recovery.persist_backoff = 0;
            }
            (self.wnd, self.wl1, self.wl2) = (wnd, seg.seq, seg.ack);
            self.wnd_max = self.wnd_max.max(wnd);
        }
    }

    /// SACK blocks as positions, without nonsense and D-SACK reports (RFC 2883), and whether there was one of those.
    fn true_blocks(&mut self, blocks: &[SackBlock]) -> (ArrayVec<(u64, u64), 4>, bool) {
        let (mut out, mut repeated) = (ArrayVec::new(), false);
        for block in blocks {
            let position =
                |s: SeqNum| i64::from(s.diff(self.seq(self.una))).saturating_add_unsigned(self.una);
            let (left, right) = (position(block.left), position(block.right));
            if left < self.una as i64 {
                self.board.on_duplicate_report();
                repeated = true;
            } else if left < right && right <= self.nxt as i64 {
                out.push((left as u64, right as u64));
            }
        }
        // In the order of the stream: else one ACK with several blocks would look like reordering to RACK.
        out.sort_unstable();
        (out, repeated)
    }

    /// SND.UNA has moved.
    fn progress(&mut self, echo: Echo) {
        let proof = self.recovery.rto_clock.take().zip(echo.echoed);
        if proof.is_some_and(|(first, echoed)| echoed != 0 && (echoed.wrapping_sub(first) as i32) < 0) {
            self.cc.undo();
            self.board.unmark_lost();
            (self.recovery.until, self.recovery.by_rto) = (None, false);
        }
        let partial = self.recovery.until.is_some_and(|until| self.una < until);
        let r = &mut self.recovery;
        (r.backoff, r.duplicates) = (0, 0);
        if r.tlp_until.is_some_and(|until| self.una >= until) {
            r.tlp_until = None;
        }
        if r.until.is_some_and(|until| self.una >= until) {
            (r.until, r.by_rto) = (None, false);
            self.cc.exit_recovery();
        } else if partial && !self.sack && !r.by_rto {
            // RFC 6582 §3.2 step 5: a partial ACK means that the next segment is lost too.
            self.board.mark_first_lost(self.mss);
            self.recovery.at_once = true;
        }
    }

    fn find_losses(&mut self, now: Instant) {
        let (found, again) = if self.sack {
            let r = Reordering {
                min_rtt: self.rtt.min_rtt(),
                srtt: self.rtt.srtt().unwrap_or_default(),
                mss: self.mss,
                in_recovery: self.recovery.until.is_some(),
            };
            self.board.detect_loss(now, r)
        } else if self.recovery.duplicates == 3 && self.recovery.until.is_none() {
            self.board.mark_first_lost(self.mss);
            (true, None)
        } else {
            (false, None)
        };
        self.recovery.rack_at = again;
        if found && self.recovery.until.is_none() {
            self.cc.on_loss();
            self.recovery.until = Some(self.nxt);
            (self.recovery.by_rto, self.recovery.at_once) = (false, true);
        }
    }

    fn after_ack(&mut self, now: Instant, advanced: bool) {
        if self.board.outstanding() == 0 {
            (self.recovery.rto_at, self.recovery.tlp_at) = (None, None);
        } else if advanced {
            // RFC 6298 §5.3.
            self.recovery.rto_at = Some(now + self.rtt.rto());
            self.arm_tlp(now);
        }
    }

    /// The peer echoes a congestion mark (RFC 3168 §6.1.2): once per window of data. Returns true if CWR is due.
    pub(super) fn on_ecn_echo(&mut self) -> bool {
        if self.una < self.recovery.ecn_until {
            return false;
        }
        self.cc.on_ecn();
        self.recovery.ecn_until = self.nxt;
        true
    }

    /// Timers after something left.
    pub(super) fn arm_after_send(&mut self, now: Instant) {
        self.recovery.persist_at = None;
        if self.recovery.rto_at.is_none() {
            // RFC 6298 §5.1.
            self.recovery.rto_at = Some(now + self.rtt.backoff(self.recovery.backoff));
        }
        self.arm_tlp(now);
    }

    /// RFC 8985 §7.2: two round trips after the last transmission, unless the RTO comes first.
    fn arm_tlp(&mut self, now: Instant) {
        let r = &mut self.recovery;
        r.tlp_at = None;
        if !self.sack || r.until.is_some() || r.tlp_until.is_some() || self.board.has_sacked() {
            return;
        }
        let Some(srtt) = self.rtt.srtt() else { return };
        let lone = self.board.outstanding() <= u64::from(self.mss);
        let at = now + srtt * 2 + if lone { WORST_DELAYED_ACK } else { Duration::from_millis(2) };
        r.tlp_at = (r.rto_at.is_none_or(|rto| at < rto)).then_some(at);
    }

    /// Nothing can be sent, nothing is in flight, but something waits: the persist timer asks for the window (RFC 9293
    /// §3.8.6.1, SHLD-29, SHLD-30).
    pub(super) fn arm_persist(&mut self, now: Instant) {
        if self.board.outstanding() > 0 || self.unsent() == 0 {
            self.recovery.persist_at = None;
        } else if self.recovery.persist_at.is_none() {
            self.recovery.persist_at = Some(now + self.rtt.backoff(self.recovery.persist_backoff));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let r = &self.recovery;
        earliest(earliest(r.rto_at, r.tlp_at), earliest(r.persist_at, r.rack_at))
    }

    /// Runs the timers that are due. Returns true if the connection is given up (RFC 9293 §3.8.3, R2).
    pub(super) fn on_timeout(&mut self, now: Instant, clock: Option<u32>) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.recovery.rack_at) {
            self.recovery.rack_at = None;
            self.find_losses(now);
        }
        if due(self.recovery.tlp_at) {
            (self.recovery.tlp_at, self.recovery.tlp_due) = (None, true);
        }
        if due(self.recovery.persist_at) {
            self.recovery.persist_at = None;
            return self.on_persist(now);
        }
        if due(self.recovery.rto_at) {
            return self.on_rto(now, clock);
        }
        false
    }

    fn on_persist(&mut self, now: Instant) -> bool {
        self.recovery.persist_backoff += 1;
        if self.usable() > 0 {
            self.force = true;
            return false;
        }
        self.recovery.unanswered += 1;
        self.recovery.probe = Some(Resend::WindowProbe);
        self.arm_persist(now);
        // RFC 9293 MUST-37: a zero window lasts as long as probes are answered.
        self.recovery.unanswered > self.retries
    }

    fn on_rto(&mut self, now: Instant, clock: Option<u32>) -> bool {
        self.recovery.backoff += 1;
        self.recovery.rto_at = Some(now + self.rtt.backoff(self.recovery.backoff));
        // RFC 9293 SHLD-17: a peer that took its window back but answers is alive.
        self.recovery.unanswered += 1;
        let tries = if self.wnd == 0 { self.recovery.unanswered } else { self.recovery.backoff };
        if tries > self.retries {
            return true;
        }
        if self.board.front_sacked() {
            self.board.forget_sacks();
        }
        self.board.mark_all_lost();
        self.cc.on_rto();
        let r = &mut self.recovery;
        r.rto_clock = r.rto_clock.or(clock);
        (r.until, r.by_rto, r.duplicates) = (Some(self.nxt), true, 0);
        (r.tlp_at, r.tlp_due, r.rack_at) = (None, false, None);
        false
    }

    /// The tail loss probe that is due: new data if there is any, else the last segment again (RFC 8985 §7.3).
    pub(super) fn poll_tlp(&mut self, now: Instant) -> Option<Piece> {
        if !std::mem::take(&mut self.recovery.tlp_due) || self.board.outstanding() == 0 {
            return None;
        }
        self.recovery.tlp_until = Some(self.nxt);
        self.recovery.rto_at = Some(now + self.rtt.rto());
        self.last_piece(now)
    }

    /// A path takes only segments of `mss` payload bytes now (RFC 1191, RFC 8201): what was larger is lost.
    pub(super) fn shrink_mss(&mut self, mss: u32) {
        if mss < self.mss {
            self.mss = mss;
            self.cc.set_mss(mss);
            self.board.mark_all_lost();
        }
    }
}

/// RFC 5681 §2: no data, no window change, same ACK, something outstanding.
fn is_duplicate(seg: &Segment, same_window: bool) -> bool {
    seg.payload.is_empty() && !seg.flags.any(Flags::SYN | Flags::FIN) && same_window
}
