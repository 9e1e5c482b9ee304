//! Sequence numbers: modulo 2^32 (RFC 9293 §3.4), with comparison by name because their order is not total.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A sequence number. Deliberately not `Ord`: serial numbers have no total order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// Signed distance `self - other`; right as long as the two are within 2 GiB of each other.
    #[must_use]
    pub const fn diff(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// `self < other` in serial order.
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.diff(other) < 0
    }

    /// `self <= other` in serial order.
    #[must_use]
    pub const fn at_or_before(self, other: Self) -> bool {
        self.diff(other) <= 0
    }

    /// `self > other` in serial order.
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        self.diff(other) > 0
    }

    /// `self >= other` in serial order.
    #[must_use]
    pub const fn at_or_after(self, other: Self) -> bool {
        self.diff(other) >= 0
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;
    fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;
    fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where one end of a connection stands, in the names of RFC 9293 §3.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// SND.UNA: the oldest number that the peer has not acknowledged.
    pub snd_una: SeqNum,
    /// SND.NXT: the next number that this end sends.
    pub snd_nxt: SeqNum,
    /// RCV.NXT: the next number that this end expects; zero in SYN-SENT.
    pub rcv_nxt: SeqNum,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let (a, b) = (SeqNum(u32::MAX - 5), SeqNum(10));
        assert!(a.before(b) && b.after(a) && a.at_or_before(a) && a.at_or_after(a));
        assert_eq!(b.diff(a), 16);
        assert_eq!(a + 16, b);
        assert_eq!(b - 16, a);
    }
}
