//! Writes whose last byte has to be on its way before a RST: a close with `SO_LINGER` 0 forgets what the kernel has not sent. It tells
//! nobody when it has, so that it is asked again and again.

use std::time::Duration;

use super::At;
use crate::time::Instant;

/// A peer that reads takes what waits within a round trip or two.
const FIRST_WAIT: Duration = Duration::from_millis(1);
/// Between two looks it takes twice as long each time, but no longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(128);

/// One socket.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) at: At,
    wait: Duration,
    next: Instant,
}

impl Watch {
    pub(super) const fn new(at: At) -> Self {
        Self { at, wait: FIRST_WAIT, next: Instant::ZERO }
    }

    /// When to ask whether it is due.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// True if it is time to look.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.wait;
            self.wait = LONGEST_WAIT.min(self.wait * 2);
        }
        due
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
        assert!(watch.is_due(start) && !watch.is_due(start));
        let looks = (0..10).map(|_| {
            let now = watch.next();
            assert!(watch.is_due(now));
            now.since(start).as_millis()
        });
        assert_eq!(looks.collect::<Vec<_>>(), [1, 3, 7, 15, 31, 63, 127, 255, 383, 511]);
    }
}
