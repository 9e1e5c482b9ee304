//! Writes whose last byte has to be on its way before a RST: a close with `SO_LINGER` 0 forgets what the kernel has not sent. It tells
//! nobody when it has, so that it is asked again and again, until the peer has taken nothing for a long time.

use std::time::Duration;

use super::At;
use crate::time::Instant;

/// A peer that reads takes what waits within a round trip or two.
const FIRST_WAIT: Duration = Duration::from_millis(1);
/// Between two looks it takes twice as long each time, but no longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(1024);
/// Nobody waits longer for a peer that takes nothing: Linux's `tcp_fin_timeout` for an orphan.
const PATIENCE: Duration = Duration::from_secs(60);

/// One socket.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) at: At,
    wait: Duration,
    next: Instant,
    /// Bytes that had not left at the last look, and since when it is so many.
    left_over: Option<(usize, Instant)>,
}

impl Watch {
    pub(super) const fn new(at: At) -> Self {
        Self { at, wait: FIRST_WAIT, next: Instant::ZERO, left_over: None }
    }

    /// When to ask whether it is due.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Looks how many bytes have not left, if it is time; true if there is nothing to wait for any more.
    pub(super) fn is_over(&mut self, now: Instant, left_over: impl FnOnce() -> usize) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.wait;
        self.wait = LONGEST_WAIT.min(self.wait * 2);
        let bytes = left_over();
        let since = self.left_over.filter(|(before, _)| *before == bytes).map_or(now, |(_, since)| since);
        self.left_over = Some((bytes, since));
        bytes == 0 || now.since(since) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::FlowKey;
    use crate::trace::Leg;

    #[test]
    fn it_is_looked_for_at_once_and_then_less_and_less_often() {
        let mut watch = Watch::new((FlowKey { slot: 0, generation: 0 }, Leg::Client));
        let start = Instant::from_millis(1000);
        assert!(!watch.is_over(start, || 9));
        assert!(!watch.is_over(start, || panic!("it is not time")));
        let mut look = |bytes| {
            let now = watch.next();
            (now.since(start).as_millis(), watch.is_over(now, || bytes))
        };
        let looks = (0..12).map(|_| look(9));
        let times = [1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047, 3071];
        assert_eq!(looks.collect::<Vec<_>>(), times.map(|at| (at, false)));
        assert_eq!(look(0), (4095, true));
    }

    #[test]
    fn a_peer_that_takes_nothing_for_a_minute_is_not_waited_for() {
        let mut watch = Watch::new((FlowKey { slot: 0, generation: 0 }, Leg::Client));
        let mut until = |bytes| {
            let looks = std::iter::repeat_with(|| (watch.next(), watch.is_over(watch.next(), || bytes)));
            looks.take(100).find(|(_, over)| *over).map(|(at, _)| at)
        };
        let first = until(9).expect("it is over");
        assert!(first >= Instant::from_millis(60_000) && first < Instant::from_millis(62_000), "{first:?}");
        let second = until(8).expect("it is over");
        assert!(second >= first + PATIENCE, "it has taken one: {second:?}");
    }
}
