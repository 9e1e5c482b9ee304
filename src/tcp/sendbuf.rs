//! The outgoing stream from SND.UNA on: shared slices, found by their position.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::Payload;

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
            self.chunks.push_back((at, data));
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
    /// A peer that writes single bytes must not stop the stream, and gets full segments.
    #[test]
    fn many_tiny_slices_are_copied_into_one() {
        let mut b = SendBuffer::default();
        (0..1000).for_each(|_| b.push(Bytes::from_static(b"x")));
        assert_eq!(b.limit_parts(0, 1000, 536), 536);
        assert_eq!(b.limit_parts(900, 1000, 536), 1000);
        let payload = b.slice(0, 536);
        assert_eq!((payload.len(), payload.parts().len()), (536, 1));
        b.push(Bytes::from(vec![b'y'; 5000]));
        assert_eq!(b.limit_parts(950, 6000, 536), 6000, "fifty slices and a large one");
    }
}
