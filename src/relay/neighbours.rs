//! What the rules ask of the flows around a new one: a memory that is kept only where some rule asks, and never grows
//! beyond `limits.neighbours`. It depends on nothing but the order and the times of SYNs and ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::cx::Cx;
use crate::fault::{Asked, Circumstances, Turns};
use crate::time::{Duration, Instant};
use crate::trace::Event;
use crate::wire::{Segment, Tuple};

/// The memory of one shard.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    asked: Asked,
    /// Most entries of each memory.
    limit: usize,
    /// Something had to be forgotten, and that is not told yet.
    full: bool,
    /// Counts the flows of each rule.
    pub(super) turns: Turns,
    /// When the last first SYN came to a server.
    syns: Memory<SocketAddr, ()>,
    /// When a flow from this client to this server ended.
    ended: Memory<(SocketAddr, SocketAddr), ()>,
    /// The latest timestamp from a client.
    stamps: Memory<IpAddr, u32>,
    /// How many flows are open to a server.
    open: Memory<SocketAddr, u64>,
}

impl Neighbours {
    /// A memory with room for `limit` entries of each kind, the config key `limits.neighbours`.
    pub(super) fn new(asked: Asked, limit: usize) -> Self {
        Self { asked, limit, ..Self::default() }
    }

    /// From now on this is asked, by new rules. What is still asked stays known; `open` are the open flows.
    pub(super) fn ask(&mut self, asked: Asked, open: impl Iterator<Item = Tuple>) {
        let known = std::mem::take(self);
        *self = Self { asked, limit: known.limit, ..Self::default() };
        if asked.sibling.is_some() {
            self.syns = known.syns;
        }
        if asked.reused.is_some() {
            self.ended = known.ended;
        }
        if asked.stamp_behind.is_some() {
            self.stamps = known.stamps;
        }
        if asked.crowd {
            open.for_each(|tuple| _ = self.joins(Instant::ZERO, tuple.dst));
        }
    }

    /// Forgets all flows, and keeps the counts of the rules.
    pub(super) fn clear(&mut self) {
        let turns = std::mem::take(&mut self.turns);
        *self = Self { turns, ..Self::new(self.asked, self.limit) };
    }

    /// A new flow opens with this first SYN.
    pub(super) fn on_open(&mut self, cx: &mut Cx<'_>, tuple: Tuple, syn: &Segment) -> Circumstances {
        let mut found = Circumstances::alone(cx.now);
        if let Some(window) = self.asked.sibling {
            self.syns.forget_older(cx.now, window);
            found.sibling = self.syns.get(&tuple.dst).map(|known| cx.now - known.at);
            self.full |= self.syns.note(cx.now, self.limit, tuple.dst, ());
        }
        if let Some(window) = self.asked.reused {
            self.ended.forget_older(cx.now, window);
            found.reused = self.ended.get(&(tuple.src, tuple.dst)).map(|known| cx.now - known.at);
        }
        if let (Some(window), Some(stamps)) = (self.asked.stamp_behind, syn.options.timestamps) {
            self.stamps.forget_older(cx.now, window);
            let client = tuple.src.ip();
            // Timestamps wrap as sequence numbers do (RFC 7323 §5.2).
            let later = |known: &&Known<u32>| stamps.val.wrapping_sub(known.value) as i32 >= 0;
            match self.stamps.get(&client).filter(|known| !later(known)) {
                Some(known) => found.stamp_behind = Some(cx.now - known.at),
                None => self.full |= self.stamps.note(cx.now, self.limit, client, stamps.val),
            }
        }
        if self.asked.crowd {
            found.crowd = self.joins(cx.now, tuple.dst);
        }
        self.tell_full(cx);
        found
    }

    /// A flow has ended; its legs may linger.
    pub(super) fn on_end(&mut self, cx: &mut Cx<'_>, tuple: Tuple) {
        if let Some(window) = self.asked.reused {
            self.ended.forget_older(cx.now, window);
            self.full |= self.ended.note(cx.now, self.limit, (tuple.src, tuple.dst), ());
        }
        if self.asked.crowd
            && let Some(known) = self.open.get_mut(&tuple.dst)
        {
            known.value -= 1;
            if known.value == 0 {
                self.open.forget(&tuple.dst);
            }
        }
        self.tell_full(cx);
    }

    /// One more open flow to this server; how many there are.
    fn joins(&mut self, now: Instant, server: SocketAddr) -> u64 {
        let open = self.open.get(&server).map_or(0, |known| known.value) + 1;
        self.full |= self.open.note(now, self.limit, server, open);
        open
    }

    fn tell_full(&mut self, cx: &mut Cx<'_>) {
        if std::mem::take(&mut self.full) {
            cx.emit(Event::LimitHit { limit: "limits.neighbours" });
        }
    }
}

/// What is known of many keys, in the order in which it was noted last.
#[derive(Debug)]
struct Memory<K, V> {
    known: BTreeMap<K, Known<V>>,
    order: BTreeMap<u64, K>,
    /// How much was ever noted.
    notes: u64,
}

#[derive(Debug)]
struct Known<V> {
    value: V,
    at: Instant,
    note: u64,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), order: BTreeMap::new(), notes: 0 }
    }
}

impl<K: Copy + Ord, V> Memory<K, V> {
    fn get(&self, key: &K) -> Option<&Known<V>> {
        self.known.get(key)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut Known<V>> {
        self.known.get_mut(key)
    }

    /// Notes a value. Beyond the limit the oldest note is forgotten; true if it was.
    fn note(&mut self, at: Instant, limit: usize, key: K, value: V) -> bool {
        self.notes += 1;
        let known = Known { value, at, note: self.notes };
        if let Some(before) = self.known.insert(key, known) {
            self.order.remove(&before.note);
        }
        self.order.insert(self.notes, key);
        let full = self.order.len() > limit;
        if full {
            self.forget_oldest();
        }
        full
    }

    fn forget(&mut self, key: &K) {
        if let Some(known) = self.known.remove(key) {
            self.order.remove(&known.note);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.known.remove(&key);
        }
    }

    /// Forgets what was noted more than `window` ago.
    fn forget_older(&mut self, now: Instant, window: Duration) {
        while let Some(oldest) = self.order.first_key_value().and_then(|(_, key)| self.known.get(key))
            && now - oldest.at > window
        {
            self.forget_oldest();
        }
    }
}

#[cfg(test)]
mod tests;
