//! The outgoing stream from SND.UNA on: shared slices, found by their position.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::{Payload, join_small};

/// Most slices of one transmission: `writev` takes 1024, and long chains of tiny slices cost more than they save.
const MOST_PARTS: usize = 60;

/// Bytes queued for the peer, sent or not, until they are acknowledged.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    /// Position of each slice's first byte, and the slice.
    chunks: VecDeque<(u64, Bytes)>,
    start: u64,
    end: u64,
}

impl SendBuffer {
    /// Position after the last byte.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes held.
    pub(super) const fn len(&self) -> u32 {
        (self.end - self.start) as u32
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            let at = self.end;
            self.end += data.len() as u64;
            if !self.chunks.back_mut().is_some_and(|(_, last)| join_small(last, &data)) {
                self.chunks.push_back((at, data));
            }
        }
    }

    /// Frees everything before `to`.
    pub(super) fn release(&mut self, to: u64) {
        let to = to.min(self.end);
        while let Some((at, data)) = self.chunks.front_mut() {
            let len = data.len() as u64;
            if *at + len > to {
                if *at < to {
                    let gone = (to - *at) as usize;
                    *data = data.slice(gone..);
                    *at = to;
                }
                break;
            }
            self.chunks.pop_front();
        }
        self.start = self.start.max(to);
    }

    /// Gives back what an idle queue does not need.
    pub(super) fn relax(&mut self) {
        self.chunks.shrink_to_fit();
    }

    /// The bytes from position `from` to `to`, shared; in one copy if they are too many slices.
    pub(super) fn slice(&self, from: u64, to: u64) -> Payload {
        let mut out = Payload::empty();
        let first = self.chunks.partition_point(|(at, data)| at + data.len() as u64 <= from);
        for (at, data) in self.chunks.range(first..) {
            if *at >= to {
                break;
            }
            let a = from.saturating_sub(*at) as usize;
            let b = ((to - at) as usize).min(data.len());
            out.push(data.slice(a..b));
        }
        if out.parts().len() > MOST_PARTS { Bytes::from(out.to_vec()).into() } else { out }
    }

    /// The end of the largest piece from `from` to `to` that is to be sent at once: of at most [`MOST_PARTS`] slices, but not
    /// less than `least` bytes, for a stream of single bytes would never fill a segment.
    pub(super) fn limit_parts(&self, from: u64, to: u64, least: u64) -> u64 {
        let first = self.chunks.partition_point(|(at, data)| at + data.len() as u64 <= from);
        match self.chunks.get(first + MOST_PARTS) {
            Some((at, _)) => to.min((*at).max(from + least)),
            None => to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_releases_inside_a_slice() {
        let mut b = SendBuffer::default();
        b.push(Bytes::from_static(b"hello"));
        b.push(Bytes::from_static(b"world"));
        assert_eq!(b.slice(3, 7).to_vec(), b"lowo");
        b.release(4);
        assert_eq!((b.len(), b.slice(4, 10).to_vec()), (6, b"oworld".to_vec()));
        b.release(99);
        assert_eq!((b.len(), b.end()), (0, 10));
        b.push(Bytes::from_static(b"!"));
        assert_eq!(b.slice(10, 11).to_vec(), b"!");
    }

    /// Else a peer that writes single bytes while nobody reads would cost far more memory than the limits say.
    #[test]
    fn single_bytes_are_kept_in_few_slices() {
        let mut b = SendBuffer::default();
        (0..100_000u32).for_each(|i| b.push(vec![i as u8].into()));
        assert_eq!((b.len(), b.chunks.len()), (100_000, 100_000 / 2047 + 1));
        assert_eq!(b.slice(70_000, 70_003).to_vec(), [112, 113, 114]);
        b.release(99_999);
        b.push(Bytes::from_static(b"!"));
        assert_eq!(b.slice(99_999, 100_001).to_vec(), [159, b'!']);
    }

    /// Each pair is too long to be made one.
    #[test]
    fn a_transmission_has_a_bounded_number_of_slices() {
        let mut b = SendBuffer::default();
        for _ in 0..50 {
            b.push(vec![b'x'; 2047].into());
            b.push(Bytes::from_static(b"y"));
        }
        let end = b.end();
        assert_eq!(b.limit_parts(0, end, 536), 30 * 2048);
        assert_eq!(b.limit_parts(0, end, 65_000), 65_000, "but not less than asked for");
        assert_eq!(b.limit_parts(40 * 2048, end, 536), end);
        assert_eq!(b.slice(0, 30 * 2048).parts().len(), 60);
        let copied = b.slice(0, 65_000);
        assert_eq!((copied.len(), copied.parts().len()), (65_000, 1));
    }
}
