//! Which sockets still have something to do: readiness is edge-triggered, so that it must be remembered.

use std::collections::VecDeque;

/// A queue of slots in which no slot is twice.
#[derive(Debug, Default)]
pub(in crate::engine) struct Ready {
    queue: VecDeque<usize>,
    queued: Vec<bool>,
}

impl Ready {
    /// Puts a slot at the end, unless it waits already.
    pub(in crate::engine) fn push(&mut self, slot: usize) {
        if self.queued.len() <= slot {
            self.queued.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.queued[slot], true) {
            self.queue.push_back(slot);
        }
    }

    /// True if no slot waits.
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes the first slot.
    pub(in crate::engine) fn pop(&mut self) -> Option<usize> {
        let slot = self.queue.pop_front()?;
        self.queued[slot] = false;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_waits_once_and_in_turn() {
        let mut ready = Ready::default();
        for slot in [3, 1, 3, 3, 1] {
            ready.push(slot);
        }
        assert_eq!((ready.pop(), ready.pop(), ready.pop()), (Some(3), Some(1), None));
        ready.push(3);
        assert_eq!(ready.pop(), Some(3));
    }
}
