//! Segments that wait for their time.

use std::collections::BTreeMap;

use crate::cx::Cx;
use crate::time::Instant;
use crate::trace::Event;

/// Things held until a deadline, first come first served among equal deadlines. A full queue loses the new one, as a router's
/// queue does; TCP sends it again.
#[derive(Debug)]
pub struct Held<T> {
    waiting: BTreeMap<(Instant, u64), T>,
    /// How many were ever held; keeps the order among equal deadlines.
    count: u64,
    limit: usize,
}

impl<T> Held<T> {
    /// Room for `limit` things, the config key `limits.held_segments`.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { waiting: BTreeMap::new(), count: 0, limit }
    }

    /// Holds until `until`.
    pub fn push(&mut self, cx: &mut Cx<'_>, until: Instant, held: T) {
        if self.waiting.len() >= self.limit {
            cx.emit(Event::LimitHit { limit: "limits.held_segments" });
            return;
        }
        self.waiting.insert((until, self.count), held);
        self.count += 1;
    }

    /// The next one whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Those that `due` wants, in the order in which their time would come.
    pub fn take(&mut self, mut due: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let wanted = self.waiting.iter_mut().filter_map(|(key, held)| due(held).then_some(*key));
        let wanted: Vec<_> = wanted.collect();
        wanted.iter().filter_map(|key| self.waiting.remove(key)).collect()
    }

    /// When the next one is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(until, _)| *until)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Record;

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_earliest_deadline_leaves_first_and_equal_ones_keep_their_order() {
        let mut log: Vec<Record> = Vec::new();
        let mut cx = Cx::new(ms(0), &mut log);
        let mut held = Held::new(8);
        for (until, name) in [(30, "d"), (10, "a"), (20, "b"), (20, "c")] {
            held.push(&mut cx, ms(until), name);
        }
        assert_eq!((held.len(), held.poll_timeout()), (4, Some(ms(10))));
        assert_eq!(held.pop_due(ms(9)), None);
        assert_eq!(
            [held.pop_due(ms(20)), held.pop_due(ms(20)), held.pop_due(ms(20))],
            [Some("a"), Some("b"), Some("c")]
        );
        assert_eq!((held.pop_due(ms(20)), held.poll_timeout()), (None, Some(ms(30))));
        held.clear();
        assert_eq!((held.is_empty(), held.poll_timeout()), (true, None));
    }

    #[test]
    fn a_full_queue_loses_the_new_one_and_says_so() {
        let mut log: Vec<Record> = Vec::new();
        let mut cx = Cx::new(ms(0), &mut log);
        let mut held = Held::new(2);
        for n in 1..=3 {
            held.push(&mut cx, ms(5), n);
        }
        assert_eq!([held.pop_due(ms(5)), held.pop_due(ms(5)), held.pop_due(ms(5))], [Some(1), Some(2), None]);
        let events: Vec<_> = log.into_iter().map(|r| r.event).collect();
        assert_eq!(events, [Event::LimitHit { limit: "limits.held_segments" }]);
    }

    #[test]
    fn some_may_be_taken_before_their_time_in_the_order_of_it() {
        let mut log: Vec<Record> = Vec::new();
        let mut cx = Cx::new(ms(0), &mut log);
        let mut held = Held::new(8);
        for (until, n) in [(30, 3), (10, 1), (20, 2), (20, 4)] {
            held.push(&mut cx, ms(until), n);
        }
        let taken = held.take(|n| {
            *n -= 1;
            *n % 2 == 1
        });
        assert_eq!(taken, [1, 3], "what was 2 and 4, both of 20 ms");
        assert_eq!(
            [held.pop_due(ms(99)), held.pop_due(ms(99))],
            [Some(0), Some(2)],
            "the rest was changed too"
        );
    }
}
