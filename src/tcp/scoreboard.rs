//! What is in flight: one entry per transmission, cut where the peer's acknowledgements cut it.
//!
//! Positions are offsets in the outgoing stream; the FIN is the position after the last byte.

use std::collections::VecDeque;

use crate::time::{Duration, Instant};

/// One contiguous piece that was sent at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub start: u64,
    pub end: u64,
    /// When it was last sent.
    pub at: Instant,
    /// Sent more than once (Karn: no RTT sample from it).
    pub again: bool,
    /// The peer has it (SACK).
    pub sacked: bool,
    /// Deemed lost, and not sent again since.
    pub lost: bool,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    /// Positions newly acknowledged, cumulatively or selectively.
    pub newly: u32,
    /// Time since the latest first transmission that it covers.
    pub rtt: Option<Duration>,
}

/// RFC 8985 §5.2: the most recently sent piece that is known to be delivered.
#[derive(Clone, Copy, Debug, Default)]
struct Rack {
    /// False until the first delivery.
    known: bool,
    at: Instant,
    end: u64,
    rtt: Duration,
    /// The path's, as of the last look.
    min_rtt: Duration,
    /// Highest position ever delivered.
    highest: u64,
    reordering_seen: bool,
    /// RFC 8985 §6.2 step 4: grows with each D-SACK, up to the RTT.
    window_steps: u32,
}

/// The pieces in flight, in order, without gaps, from SND.UNA to SND.NXT.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    sent: VecDeque<Sent>,
    rack: Rack,
    sacked: u64,
    lost: u64,
}

impl Scoreboard {
    /// Positions that were sent and are neither delivered nor deemed lost (RFC 6675 "pipe").
    pub(super) fn in_flight(&self) -> u64 {
        self.outstanding() - self.sacked - self.lost
    }

    /// Gives back what an idle queue does not need.
    pub(super) fn relax(&mut self) {
        self.sent.shrink_to_fit();
    }

    /// SND.NXT - SND.UNA.
    pub(super) fn outstanding(&self) -> u64 {
        match (self.sent.front(), self.sent.back()) {
            (Some(first), Some(last)) => last.end - first.start,
            _ => 0,
        }
    }

    pub(super) fn has_sacked(&self) -> bool {
        self.sacked > 0
    }

    /// New data left.
    pub(super) fn push(&mut self, start: u64, end: u64, at: Instant) {
        debug_assert!(self.sent.back().is_none_or(|last| last.end == start), "no gaps");
        self.sent.push_back(Sent { start, end, at, again: false, sacked: false, lost: false });
    }

    /// The cumulative acknowledgement moved to `una`.
    pub(super) fn ack(&mut self, una: u64, now: Instant) -> Delivered {
        let (mut out, mut resent) = (Delivered::default(), false);
        while let Some(front) = self.sent.front().copied() {
            if front.start >= una {
                break;
            }
            let piece = if front.end > una { self.split(0, una) } else { front };
            self.sent.pop_front();
            let len = piece.end - piece.start;
            if piece.sacked {
                self.sacked -= len;
            } else {
                self.deliver(&piece, now, &mut out);
            }
            if piece.lost {
                self.lost -= len;
            }
            resent |= piece.again;
        }
        if resent {
            // Karn, and more: what follows a filled hole arrived long before its acknowledgement.
            out.rtt = None;
        }
        out
    }

    /// The peer has the positions from `left` to `right`.
    pub(super) fn sack(&mut self, left: u64, right: u64, now: Instant) -> Delivered {
        let mut out = Delivered::default();
        let mut i = self.sent.partition_point(|s| s.end <= left);
        while let Some(&piece) = self.sent.get(i) {
            if piece.start >= right {
                break;
            }
            if piece.start < left {
                self.split(i, left);
                i += 1;
                continue;
            }
            let piece = if piece.end > right { self.split(i, right) } else { piece };
            if !piece.sacked {
                let len = piece.end - piece.start;
                self.deliver(&piece, now, &mut out);
                self.sacked += len;
                if piece.lost {
                    self.lost -= len;
                }
                let entry = &mut self.sent[i];
                (entry.sacked, entry.lost) = (true, false);
            }
            i += 1;
        }
        out
    }

    /// RFC 8985 §6.2 step 1 to 3.
    fn deliver(&mut self, piece: &Sent, now: Instant, out: &mut Delivered) {
        out.newly = out.newly.saturating_add((piece.end - piece.start) as u32);
        let rtt = now.since(piece.at);
        if !piece.again {
            out.rtt = Some(out.rtt.map_or(rtt, |best| best.min(rtt)));
            if piece.end < self.rack.highest {
                self.rack.reordering_seen = true;
            }
        }
        self.rack.highest = self.rack.highest.max(piece.end);
        if piece.again && rtt < self.rack.min_rtt {
            // The original was delivered, not the copy that left just now.
            return;
        }
        if !self.rack.known || (piece.at, piece.end) > (self.rack.at, self.rack.end) {
            (self.rack.at, self.rack.end, self.rack.rtt, self.rack.known) = (piece.at, piece.end, rtt, true);
        }
    }

    /// A D-SACK came: something was sent again needlessly, so wait longer for the reordered (RFC 8985 §6.2 step 4).
    pub(super) fn on_duplicate_report(&mut self) {
        self.rack.window_steps = (self.rack.window_steps + 1).min(15);
    }

    /// RFC 8985 §6.2 step 5: marks what was sent long enough before something delivered. Returns whether anything new is
    /// lost, and when to look again.
    pub(super) fn detect_loss(&mut self, now: Instant, reordering: Reordering) -> (bool, Option<Instant>) {
        let (mut found, mut again) = (false, None);
        self.rack.min_rtt = reordering.min_rtt;
        let newest = (self.rack.at, self.rack.end);
        // The usual case: everything delivered in order, so nothing older than the newest delivery is left.
        let in_order = self.sacked == 0 && self.sent.front().is_none_or(|s| (s.at, s.end) >= newest);
        if !self.rack.known || in_order {
            return (false, None);
        }
        let wait = self.rack.rtt + self.reordering_window(reordering);
        let mut lost = 0;
        for piece in &mut self.sent {
            if piece.sacked || piece.lost || (piece.at, piece.end) >= newest {
                continue;
            }
            let due = piece.at + wait;
            if due <= now {
                piece.lost = true;
                lost += piece.end - piece.start;
                found = true;
            } else {
                again = Some(again.map_or(due, |t: Instant| t.max(due)));
            }
        }
        self.lost += lost;
        (found, again)
    }

    fn reordering_window(&self, r: Reordering) -> Duration {
        if !self.rack.reordering_seen && (r.in_recovery || self.sacked >= 3 * u64::from(r.mss)) {
            return Duration::ZERO;
        }
        (r.min_rtt / 4 * (self.rack.window_steps + 1)).min(r.srtt)
    }

    /// The retransmission timer ran out: everything that the peer did not report is lost (RFC 8985 §6.3).
    pub(super) fn mark_all_lost(&mut self) {
        for piece in &mut self.sent {
            if !piece.sacked && !piece.lost {
                piece.lost = true;
                self.lost += piece.end - piece.start;
            }
        }
    }

    /// Three duplicate ACKs without SACK, or a partial ACK in recovery: the first segment is lost (RFC 6582 §3.2).
    pub(super) fn mark_first_lost(&mut self, mss: u32) {
        let Some(&first) = self.sent.front() else { return };
        let piece = if first.end - first.start > u64::from(mss) {
            self.split(0, first.start + u64::from(mss))
        } else {
            first
        };
        if !piece.lost && !piece.sacked {
            self.lost += piece.end - piece.start;
            self.sent[0].lost = true;
        }
    }

    /// The first lost piece that waits to be sent again.
    pub(super) fn first_lost(&self) -> Option<Sent> {
        if self.lost == 0 {
            return None;
        }
        self.sent.iter().find(|s| s.lost).copied()
    }

    /// The last piece of at most `mss` positions that the peer does not have; what a tail loss probe sends.
    pub(super) fn last_unsacked(&self, mss: u32) -> Option<(u64, u64)> {
        let last = self.sent.iter().rev().find(|s| !s.sacked)?;
        Some((last.start.max(last.end.saturating_sub(u64::from(mss))), last.end))
    }

    /// The positions from `start` to `end` were sent again.
    pub(super) fn resent(&mut self, start: u64, end: u64, now: Instant) {
        let mut i = self.sent.partition_point(|s| s.end <= start);
        while let Some(&piece) = self.sent.get(i) {
            if piece.start >= end {
                break;
            }
            if piece.start < start {
                self.split(i, start);
                i += 1;
                continue;
            }
            if piece.end > end {
                self.split(i, end);
            }
            let entry = &mut self.sent[i];
            if entry.lost {
                self.lost -= entry.end - entry.start;
            }
            (entry.lost, entry.again, entry.at) = (false, true, now);
            i += 1;
        }
    }

    /// The retransmission timeout was wrong: nothing is lost.
    pub(super) fn unmark_lost(&mut self) {
        self.sent.iter_mut().for_each(|s| s.lost = false);
        self.lost = 0;
    }

    /// The peer reported what it did not acknowledge in the next round: it has thrown it away again.
    pub(super) fn front_sacked(&self) -> bool {
        self.sent.front().is_some_and(|s| s.sacked)
    }

    /// The peer may forget what it SACKed (RFC 2018 §8): an RTO starts from a clean board.
    pub(super) fn forget_sacks(&mut self) {
        self.sent.iter_mut().for_each(|s| s.sacked = false);
        self.sacked = 0;
    }

    /// Cuts entry `i` at `at`; returns the part before.
    fn split(&mut self, i: usize, at: u64) -> Sent {
        let whole = self.sent[i];
        debug_assert!(whole.start < at && at < whole.end, "a cut inside");
        let before = Sent { end: at, ..whole };
        self.sent[i].start = at;
        self.sent.insert(i, before);
        before
    }
}

/// What the reordering window depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reordering {
    pub min_rtt: Duration,
    pub srtt: Duration,
    pub mss: u32,
    pub in_recovery: bool,
}
