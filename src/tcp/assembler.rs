//! Data that arrived before its turn, in offsets of the stream (bytes from its start), which unlike sequence numbers
//! have a total order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use crate::wire::{Payload, join_small};

/// The out-of-order queue of one direction. First received wins: bytes that are already held are never replaced.
///
/// Invariants: ranges are not empty, do not touch each other, and each has exactly one entry in `by_age`.
#[derive(Debug, Default)]
pub struct Assembler {
    /// By first offset.
    ranges: BTreeMap<u64, Held>,
    /// First offset of each range by the age of its latest segment.
    by_age: BTreeMap<u64, u64>,
    /// The next age.
    clock: u64,
    bytes: u32,
}

/// One contiguous range.
#[derive(Debug)]
struct Held {
    end: u64,
    age: u64,
    pieces: VecDeque<Bytes>,
}

/// What became of a segment's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// Bytes that were not there before.
    pub new: u32,
    /// First contiguous part that had been received before: the D-SACK block (RFC 2883).
    pub duplicate: Option<Range<u64>>,
    /// Nothing was kept because there are too many ranges.
    pub limit_hit: bool,
}

impl Assembler {
    /// Takes the data of a segment that starts at stream offset `offset`. `window` is what the receiver accepts: its
    /// start is the next offset in order, its end the right edge; data outside is cut off. A segment that would begin
    /// range number `max_ranges + 1` is not kept, unless it is next in order.
    pub fn insert(
        &mut self,
        window: &Range<u64>,
        offset: u64,
        payload: &Payload,
        max_ranges: usize,
    ) -> Inserted {
        let segment = offset..offset.saturating_add(u64::from(payload.len()));
        let cut = segment.start.max(window.start)..segment.end.min(window.end);
        let old = segment.start..segment.end.min(window.start);
        let mut out = Inserted { duplicate: (!old.is_empty()).then_some(old), ..Inserted::default() };
        if cut.is_empty() {
            return out;
        }
        let mut touched = self.take_touching(&cut);
        if touched.is_empty() && self.ranges.len() >= max_ranges && cut.start > window.start {
            out.limit_hit = true;
            return out;
        }
        // Walks the segment and fills what is missing between the ranges that it touches.
        let mut start = cut.start;
        let mut at = cut.start;
        let mut joined = VecDeque::new();
        while let Some((first, held)) = touched.pop() {
            start = start.min(first);
            let again = first.max(cut.start)..held.end.min(cut.end);
            if out.duplicate.is_none() && !again.is_empty() {
                out.duplicate = Some(again);
            }
            if at < first {
                out.new += fill(&mut joined, payload, offset, at..first);
            }
            join(&mut joined, held.pieces);
            at = at.max(held.end);
        }
        if at < cut.end {
            out.new += fill(&mut joined, payload, offset, at..cut.end);
        }
        self.bytes += out.new;
        self.put(start, at.max(cut.end), joined);
        out
    }

    /// The next piece in order, where `next` is the offset of the next byte in order. Call until `None`.
    pub fn pop_ready(&mut self, next: u64) -> Option<Bytes> {
        loop {
            let entry = self.ranges.first_entry().filter(|e| *e.key() <= next)?;
            let first = *entry.key();
            let mut held = entry.remove();
            let mut piece = held.pieces.pop_front().expect("a range is never empty");
            let end = first + piece.len() as u64;
            self.bytes -= piece.len() as u32;
            self.by_age.remove(&held.age);
            if end < held.end {
                self.by_age.insert(held.age, end);
                self.ranges.insert(end, held);
            }
            if end > next {
                return Some(piece.split_off((next - first) as usize));
            }
        }
    }

    /// The ranges held, the one with the latest segment first (RFC 2018 §4).
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.by_age.values().rev().map(|first| *first..self.ranges[first].end)
    }

    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True if nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes held.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { clock: self.clock, ..Self::default() };
    }

    /// Takes out the ranges that overlap or adjoin `cut`, the last one first.
    fn take_touching(&mut self, cut: &Range<u64>) -> Vec<(u64, Held)> {
        let mut touched = Vec::new();
        while let Some((&first, held)) = self.ranges.range(..=cut.end).next_back()
            && held.end >= cut.start
        {
            self.by_age.remove(&held.age);
            let held = self.ranges.remove(&first).expect("just found");
            touched.push((first, held));
        }
        touched
    }

    fn put(&mut self, first: u64, end: u64, pieces: VecDeque<Bytes>) {
        let age = self.clock;
        self.clock += 1;
        self.by_age.insert(age, first);
        self.ranges.insert(first, Held { end, age, pieces });
    }
}

/// Appends the part `missing` of a segment that starts at `offset`.
fn fill(pieces: &mut VecDeque<Bytes>, payload: &Payload, offset: u64, missing: Range<u64>) -> u32 {
    let part = payload.slice((missing.start - offset) as u32, (missing.end - offset) as u32);
    let len = part.len();
    join(pieces, part.into_parts().collect());
    len
}

/// Appends `right` to `left`, moving the shorter one, so that filling a gap from either end stays cheap.
fn join(left: &mut VecDeque<Bytes>, mut right: VecDeque<Bytes>) {
    if let (Some(a), Some(b)) = (left.back_mut(), right.front())
        && join_small(a, b)
    {
        right.pop_front();
    }
    if left.len() < right.len() {
        std::mem::swap(left, &mut right);
        for piece in right.into_iter().rev() {
            left.push_front(piece);
        }
    } else {
        left.append(&mut right);
    }
}

#[cfg(test)]
mod tests;
