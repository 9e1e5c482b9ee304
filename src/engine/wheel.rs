//! A hierarchical timer wheel over the slots of a table: arming, moving and firing a deadline cost the same however many
//! flows there are.
//!
//! A deadline that moves to a later time, which nearly every segment makes it do, costs nothing: the wheel fires at the
//! old time, sees that it is not due yet, and arms itself again.

use crate::relay::FlowKey;
use crate::time::Instant;

/// One tick is 2^20 ns, about a millisecond: what `epoll` can wait for.
const TICK_BITS: u32 = 20;
/// 64 slots per level, so that one word tells which are occupied.
const SLOT_BITS: u32 = 6;
/// Five levels span 2^30 ticks, 13 days; what is further away waits in the last level and is armed again from there.
const LEVELS: usize = 5;
const SPAN: u64 = 1 << (SLOT_BITS * LEVELS as u32);
/// End of a list.
const NIL: u32 = u32::MAX;

/// Where a node hangs.
const UNARMED: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    generation: u32,
    /// When the owner wants to be called; [`Instant::FAR`] for never.
    wanted: Instant,
    /// The tick under which it hangs.
    tick: u64,
    /// Level and slot, or [`UNARMED`].
    place: u16,
    previous: u32,
    next: u32,
}

/// The wheel. One deadline per slot of the table.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    heads: Vec<u32>,
    occupied: [u64; LEVELS],
    /// All ticks before this one are through.
    elapsed: u64,
    /// Taken from the wheel, not yet handed out.
    due: Vec<u32>,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            heads: vec![NIL; LEVELS << SLOT_BITS],
            occupied: [0; LEVELS],
            elapsed: 0,
            due: Vec::new(),
        }
    }
}

impl Wheel {
    /// Sets or moves the deadline of a flow; `None` takes it away. The flow that had the slot before is forgotten.
    pub fn set(&mut self, key: FlowKey, deadline: Option<Instant>) {
        let wanted = deadline.unwrap_or(Instant::FAR);
        let slot = key.slot as usize;
        if slot >= self.nodes.len() {
            if deadline.is_none() {
                return;
            }
            let empty = Node {
                generation: 0,
                wanted: Instant::FAR,
                tick: 0,
                place: UNARMED,
                previous: NIL,
                next: NIL,
            };
            self.nodes.resize(slot + 1, empty);
        }
        let node = &mut self.nodes[slot];
        node.generation = key.generation;
        node.wanted = wanted;
        let armed_in_time = node.place != UNARMED && node.tick <= tick_after(wanted);
        if wanted != Instant::FAR && !armed_in_time {
            self.unlink(key.slot);
            self.link(key.slot);
        }
    }

    /// The next flow whose deadline has come. Its deadline is taken away.
    pub fn poll(&mut self, now: Instant) -> Option<FlowKey> {
        let today = now.as_nanos() >> TICK_BITS;
        loop {
            while let Some(slot) = self.due.pop() {
                let node = &mut self.nodes[slot as usize];
                if node.wanted <= now {
                    node.wanted = Instant::FAR;
                    return Some(FlowKey { slot, generation: node.generation });
                }
                // Moved since it was armed, or armed anew since it was taken.
                if node.wanted != Instant::FAR && node.place == UNARMED {
                    self.link(slot);
                }
            }
            match self.next_occupied() {
                Some((level, place, tick)) if tick <= today => {
                    self.elapsed = tick;
                    self.take(level, place);
                }
                _ => {
                    self.elapsed = self.elapsed.max(today);
                    return None;
                }
            }
        }
    }

    /// When [`Self::poll`] should be called next: never later than the earliest deadline (rounded up to a tick).
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(Instant::from_nanos(self.elapsed << TICK_BITS));
        }
        self.next_occupied().map(|(_, _, tick)| Instant::from_nanos(tick << TICK_BITS))
    }

    /// The earliest occupied place: its level, its index and its first tick.
    fn next_occupied(&self) -> Option<(usize, usize, u64)> {
        // A lower level holds only what comes before anything in a higher one.
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let bits = SLOT_BITS * level as u32;
        let here = (self.elapsed >> bits) & 63;
        let ahead = self.occupied[level].rotate_right(here as u32).trailing_zeros();
        let slot = (here + u64::from(ahead)) & 63;
        let turn = self.elapsed >> (bits + SLOT_BITS) << (bits + SLOT_BITS);
        let mut tick = turn + (slot << bits);
        if slot < here {
            tick += 1 << (bits + SLOT_BITS);
        }
        Some((level, (level << SLOT_BITS) + slot as usize, tick.max(self.elapsed)))
    }

    /// Hands out or spreads what hangs in a place whose time has come.
    fn take(&mut self, level: usize, place: usize) {
        let mut at = std::mem::replace(&mut self.heads[place], NIL);
        self.occupied[level] &= !(1 << (place & 63));
        while at != NIL {
            let node = &mut self.nodes[at as usize];
            let next = node.next;
            (node.place, node.next, node.previous) = (UNARMED, NIL, NIL);
            self.due.push(at);
            at = next;
        }
    }

    fn link(&mut self, slot: u32) {
        let tick = tick_after(self.nodes[slot as usize].wanted).clamp(self.elapsed, self.elapsed + SPAN - 1);
        let differs = (self.elapsed ^ tick) | 63;
        let level = ((63 - differs.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
        let index = (tick >> (SLOT_BITS * level)) & 63;
        let place = ((level as usize) << SLOT_BITS) + index as usize;
        self.occupied[level as usize] |= 1 << index;
        let head = std::mem::replace(&mut self.heads[place], slot);
        if head != NIL {
            self.nodes[head as usize].previous = slot;
        }
        let node = &mut self.nodes[slot as usize];
        (node.tick, node.place, node.previous, node.next) = (tick, place as u16, NIL, head);
    }

    fn unlink(&mut self, slot: u32) {
        let Node { place, previous, next, .. } = self.nodes[slot as usize];
        if place == UNARMED {
            return;
        }
        match previous {
            NIL => self.heads[usize::from(place)] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NIL {
            self.nodes[next as usize].previous = previous;
        }
        if self.heads[usize::from(place)] == NIL {
            self.occupied[usize::from(place >> SLOT_BITS)] &= !(1 << (place & 63));
        }
        self.nodes[slot as usize].place = UNARMED;
    }
}

/// The first tick that does not begin before `at`, so that nothing fires early.
const fn tick_after(at: Instant) -> u64 {
    at.as_nanos().saturating_add((1 << TICK_BITS) - 1) >> TICK_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::time::Duration;

    fn key(slot: u32) -> FlowKey {
        FlowKey { slot, generation: 7 }
    }

    fn fired(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut slots: Vec<u32> = std::iter::from_fn(|| wheel.poll(now)).map(|key| key.slot).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_deadline_fires_once_never_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::default();
        wheel.set(key(3), Some(Instant::from_millis(200)));
        assert_eq!(fired(&mut wheel, Instant::from_millis(199)), Vec::<u32>::new());
        let next = wheel.next().unwrap();
        assert!(next <= Instant::from_millis(202), "{next}");
        assert_eq!(fired(&mut wheel, Instant::from_millis(202)), [3]);
        assert_eq!((fired(&mut wheel, Instant::from_millis(900)), wheel.next()), (vec![], None));
    }

    #[test]
    fn a_deadline_that_moves_later_is_not_touched_until_the_old_time() {
        let mut wheel = Wheel::default();
        wheel.set(key(0), Some(Instant::from_millis(10)));
        wheel.set(key(0), Some(Instant::from_millis(5000)));
        assert!(wheel.next().unwrap() <= Instant::from_millis(12), "still armed at the old time");
        assert_eq!(fired(&mut wheel, Instant::from_millis(20)), Vec::<u32>::new());
        assert_eq!(fired(&mut wheel, Instant::from_millis(5002)), [0]);
    }

    #[test]
    fn a_deadline_further_away_than_the_wheel_is_wide_still_fires() {
        let mut wheel = Wheel::default();
        let month = Instant::ZERO + Duration::from_secs(30 * 86_400);
        wheel.set(key(0), Some(month));
        let mut now = Instant::ZERO;
        for _ in 0..10 {
            now = wheel.next().unwrap();
            if !fired(&mut wheel, now).is_empty() {
                break;
            }
        }
        assert!(now >= month && now <= month + Duration::from_millis(2), "{now}");
    }

    proptest! {
        /// Against the obvious implementation: same flows, never early, never more than a tick late.
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(steps in prop::collection::vec((0u32..40, 0u64..300_000, 0u8..10), 1..400)) {
            let (mut wheel, mut model) = (Wheel::default(), BTreeMap::new());
            let mut now = Instant::ZERO;
            for (slot, millis, kind) in steps {
                match kind {
                    0..6 => {
                        let at = now + Duration::from_millis(millis);
                        wheel.set(key(slot), Some(at));
                        model.insert(slot, at);
                    }
                    6 => {
                        wheel.set(key(slot), None);
                        model.remove(&slot);
                    }
                    _ => {
                        now += Duration::from_millis(millis / 7);
                        let tick = Duration::from_nanos(1 << TICK_BITS);
                        for fired in fired(&mut wheel, now) {
                            let wanted = model.remove(&fired);
                            prop_assert!(wanted.is_some_and(|at| at <= now), "{fired} fired early or twice");
                        }
                        prop_assert!(model.values().all(|at| *at + tick > now), "a deadline was missed");
                        if let Some(first) = model.values().min() {
                            prop_assert!(wheel.next().is_some_and(|next| next <= *first + tick));
                        }
                    }
                }
            }
        }
    }
}
