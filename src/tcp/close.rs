//! TIME-WAIT: a small remainder of the connection that answers stragglers for 2MSL (RFC 9293 MUST-13).

use super::clock::Clock;
use super::open::Open;
use crate::time::{Duration, Instant};
use crate::wire::{Flags, RawWindow, Segment, SeqNum};

/// What TIME-WAIT keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeWait {
    nxt: SeqNum,
    rcv_nxt: SeqNum,
    window: RawWindow,
    clock: Clock,
    pub(super) until: Instant,
    ack_due: bool,
}

impl TimeWait {
    pub(super) fn new(now: Instant, open: &mut Open, lasts: Duration) -> Self {
        let ack_due = open.recv.ack_due(now);
        let last = open.control(now, open.send.nxt(), false);
        let (nxt, rcv_nxt) = (last.seq, open.recv.nxt());
        Self { nxt, rcv_nxt, window: last.window, clock: open.clock, until: now + lasts, ack_due }
    }

    /// RFC 9293 §3.10.7.4 for TIME-WAIT. Returns true if the connection is gone. Like Linux (`tcp_rfc1337` = 0) an exact RST
    /// ends it.
    pub(super) fn on_segment(&mut self, now: Instant, seg: &Segment, lasts: Duration) -> bool {
        if seg.has(Flags::RST) {
            return seg.seq == self.rcv_nxt;
        }
        // A FIN that comes again restarts the wait; whatever else takes sequence space draws an ACK as well.
        if seg.has(Flags::FIN) && seg.end() == self.rcv_nxt {
            self.until = now + lasts;
        }
        self.ack_due |= seg.seq_len() > 0 || seg.seq != self.rcv_nxt;
        false
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Segment> {
        std::mem::take(&mut self.ack_due).then(|| {
            let mut ack = Segment {
                seq: self.nxt,
                ack: self.rcv_nxt,
                flags: Flags::ACK,
                window: self.window,
                ..Segment::default()
            };
            ack.options.timestamps = self.clock.option(now);
            ack
        })
    }

    /// RFC 9293 MAY-2, RFC 6191: a newer SYN, by sequence number or timestamp.
    pub(super) fn may_reopen(&self, syn: &Segment) -> bool {
        let plain = syn.has(Flags::SYN) && !syn.flags.any(Flags::RST | Flags::ACK);
        let newer_time = match (self.clock.on, syn.options.timestamps) {
            (true, Some(ts)) => (ts.val.wrapping_sub(self.clock.recent) as i32) > 0,
            _ => false,
        };
        let old_time = self.clock.too_old(self.clock.recent_at, syn);
        plain && (newer_time || (syn.seq.after(self.rcv_nxt) && !old_time))
    }

    pub(super) const fn numbers(&self) -> (SeqNum, SeqNum) {
        (self.nxt, self.rcv_nxt)
    }
}
