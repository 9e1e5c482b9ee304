//! Buffers to read packets into. Memory that was used a moment ago is in the cache and needs no page fault; fresh memory costs
//! more than all of our own work on a super-segment.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::tun::MAX_READ;

/// Most buffers that are waited for: 4 MiB, some windows.
const MOST: usize = 64;

/// Buffers whose bytes were given away, from the oldest.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    given: VecDeque<BytesMut>,
}

impl Buffers {
    /// Gives away what is in `buf`, and puts another buffer in its place.
    pub(super) fn give(&mut self, buf: &mut BytesMut) -> Bytes {
        let given = buf.split().freeze();
        let spent = std::mem::replace(buf, self.take());
        self.given.push_back(spent);
        given
    }

    /// The oldest buffer if nobody holds its bytes any more, else a new one.
    fn take(&mut self) -> BytesMut {
        if let Some(mut oldest) = self.given.pop_front() {
            if oldest.try_reclaim(MAX_READ) {
                return oldest;
            }
            if self.given.len() + 1 < MOST {
                self.given.push_front(oldest);
            }
        }
        BytesMut::with_capacity(MAX_READ)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_bytes_are_dropped() {
        let mut buffers = Buffers::default();
        let mut buf = BytesMut::with_capacity(MAX_READ);
        buf.extend_from_slice(b"first");
        let place = buf.as_ptr();
        let first = buffers.give(&mut buf);
        assert_ne!(buf.as_ptr(), place, "the bytes are still held");
        drop(first);
        buf.extend_from_slice(b"second");
        drop(buffers.give(&mut buf));
        assert_eq!(buf.as_ptr(), place);
        assert!(buf.is_empty() && buf.capacity() >= MAX_READ);
    }

    #[test]
    fn no_more_than_the_limit_is_waited_for() {
        let mut buffers = Buffers::default();
        let mut buf = BytesMut::with_capacity(MAX_READ);
        let held: Vec<Bytes> = (0..3 * MOST)
            .map(|_| {
                buf.extend_from_slice(b"held");
                buffers.give(&mut buf)
            })
            .collect();
        assert_eq!((held.len(), buffers.given.len()), (3 * MOST, MOST));
    }
}
