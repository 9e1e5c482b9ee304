//! The last bytes of a direction, kept back on their way out until it is known whether the stream ends behind them. For the
//! faults in which that end overtakes them.

use std::collections::VecDeque;

use crate::fault::{Moment, Verdict};
use crate::time::Duration;
use crate::wire::{Flags, Segment, SeqNum};

/// What is kept back. Bytes that nothing follows are sent again by our TCP (RFC 8985 §7.2, RFC 6298), and then
/// pass.
#[derive(Debug, Default)]
pub(super) struct Tail {
    kept: VecDeque<Segment>,
    /// The number after the last byte that was new.
    next: Option<SeqNum>,
}

impl Tail {
    /// A single segment with data. New data push out what no longer belongs to the last `most` bytes.
    pub(super) fn on_data(&mut self, moment: &mut Moment<'_>, seg: &mut Segment, most: u32) -> Verdict {
        let end = seg.seq + seg.payload.len();
        if self.next.is_some_and(|next| seg.seq.before(next)) {
            self.kept.retain(|kept| (kept.seq + kept.payload.len()).after(end));
            return Verdict::Pass;
        }
        self.next = Some(end);
        let mut over = (self.bytes() + seg.payload.len()).saturating_sub(most);
        while over > 0
            && let Some(first) = self.kept.pop_front()
        {
            let len = first.payload.len();
            let gone = over.min(len);
            over -= gone;
            moment.send(moment.at.leg, cut(&first, 0, gone), Duration::ZERO);
            if gone < len {
                self.kept.push_front(cut(&first, gone, len));
            }
        }
        let len = seg.payload.len();
        if over == len {
            return Verdict::Pass;
        }
        self.kept.push_back(cut(seg, over, len));
        if over == 0 {
            return Verdict::Drop;
        }
        *seg = cut(seg, 0, over);
        Verdict::Rewrite
    }

    /// The end of the stream, perhaps with data; it leaves as a bare FIN (or RST) ahead of what this gives back.
    pub(super) fn on_end(
        &mut self,
        moment: &mut Moment<'_>,
        seg: &mut Segment,
        most: u32,
    ) -> VecDeque<Segment> {
        if !seg.payload.is_empty() {
            let mut data = cut(seg, 0, seg.payload.len());
            if self.on_data(moment, &mut data, most) != Verdict::Drop {
                moment.send(moment.at.leg, data, Duration::ZERO);
            }
            *seg = bare_end(seg);
        }
        std::mem::take(&mut self.kept)
    }

    fn bytes(&self) -> u32 {
        self.kept.iter().map(|kept| kept.payload.len()).sum()
    }
}

/// A segment without its data, where they ended.
pub(super) fn bare_end(seg: &Segment) -> Segment {
    let flags = seg.flags.without(Flags::PSH);
    Segment {
        seq: seg.seq + seg.payload.len(),
        flags,
        payload: seg.payload.slice(0, 0),
        gso_size: 0,
        ..seg.clone()
    }
}

/// Bytes `from` to `to` of a segment, without its FIN.
pub(super) fn cut(seg: &Segment, from: u32, to: u32) -> Segment {
    let flags = seg.flags.without(Flags::FIN);
    let flags = if to < seg.payload.len() { flags.without(Flags::PSH) } else { flags };
    Segment { seq: seg.seq + from, flags, payload: seg.payload.slice(from, to), ..seg.clone() }
}
