//! The outgoing stream from SND.UNA on: shared slices, found by their position.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::Payload;

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
        if self.chunks.is_empty() && self.chunks.capacity() > 64 {
            self.chunks = VecDeque::new();
        }
    }

    /// The bytes from position `from` to `to`, shared.
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
        out
    }

    /// The end of the largest piece from `from` to `to` that has at most `parts` slices (writev takes a limited number).
    pub(super) fn limit_parts(&self, from: u64, to: u64, parts: usize) -> u64 {
        let first = self.chunks.partition_point(|(at, data)| at + data.len() as u64 <= from);
        match self.chunks.get(first + parts) {
            Some((at, _)) => to.min(*at),
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
        assert_eq!(b.limit_parts(4, 10, 1), 5);
        b.release(99);
        assert_eq!((b.len(), b.end()), (0, 10));
        b.push(Bytes::from_static(b"!"));
        assert_eq!(b.slice(10, 11).to_vec(), b"!");
    }
}
