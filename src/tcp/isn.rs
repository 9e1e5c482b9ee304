//! Initial sequence numbers and timestamp offsets that nobody outside can compute (RFC 9293 MUST-8, SHLD-1, MUST-9).

use std::hash::{Hash as _, Hasher as _};

use siphasher::sip::SipHasher24;

use crate::time::Instant;
use crate::wire::{SeqNum, Tuple};

/// ISN = M + F(tuple, secret), where M ticks every 4 µs (RFC 6528 §3).
pub(super) fn initial(secret: [u64; 2], tuple: Tuple, now: Instant) -> SeqNum {
    SeqNum((now.as_micros() / 4) as u32) + keyed(secret, tuple, 1)
}

/// What is added to the millisecond clock for TSval, so that it tells neither uptime nor order of connections (RFC 7323 §7.1).
pub(super) fn timestamp_offset(secret: [u64; 2], tuple: Tuple) -> u32 {
    keyed(secret, tuple, 2)
}

fn keyed(secret: [u64; 2], tuple: Tuple, purpose: u8) -> u32 {
    let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
    (tuple, purpose).hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> Tuple {
        Tuple { src: ([10, 0, 0, 1], port).into(), dst: ([10, 0, 0, 2], 80).into() }
    }

    /// RFC 9293 MUST-8: the same tuple gets a larger number a little later, 250 per millisecond.
    #[test]
    fn the_isn_follows_the_clock() {
        let at = |ms| initial([1, 2], tuple(5), Instant::from_millis(ms));
        assert_eq!(at(1001).diff(at(1000)), 250);
    }

    /// RFC 9293 SHLD-1, MUST-9: tuple and secret both matter.
    #[test]
    fn the_isn_depends_on_tuple_and_secret() {
        let now = Instant::ZERO;
        assert_ne!(initial([1, 2], tuple(5), now), initial([1, 2], tuple(6), now));
        assert_ne!(initial([1, 2], tuple(5), now), initial([1, 3], tuple(5), now));
        assert_ne!(timestamp_offset([1, 2], tuple(5)), initial([1, 2], tuple(5), now).0);
    }
}
