//! What a fault is told of a segment, and what it can do about it.

use std::any::Any;
use std::fmt;

use super::{Point, Progress, Turn};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::trace::Leg;
use crate::wire::Segment;

/// What a fault says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on as it is.
    Pass,
    /// Goes on as the fault has changed it; the rest of the plan sees it so.
    Rewrite,
    /// Vanishes.
    Drop,
    /// Goes on after this time, past the rest of the plan.
    Hold(Duration),
    /// Goes on behind this many later ones that pass here, in the same way of the same leg, or after this time at the latest;
    /// past the rest of the plan.
    Behind(u8, Duration),
    /// Goes on, followed at once by this many copies.
    Duplicate(u8),
    /// Goes on, followed by this many copies after this time, past the plan.
    Echo(u8, Duration),
}

/// What a fault wants done to the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// RST with exact numbers to these peers. A peer that is not reset sees silence until it speaks, then RST.
    Reset {
        /// To the client.
        client: bool,
        /// To the server.
        server: bool,
    },
    /// FIN to these peers, as if the far one had closed. What the far one still sends is acknowledged and lost.
    Finish {
        /// To the client.
        client: bool,
        /// To the server.
        server: bool,
    },
    /// From now on nothing passes, either way, and our own TCP is silent: a path that has forgotten the flow. What comes in
    /// still meets the plan.
    Silence,
}

/// What a fault does besides its verdict, before the segment goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Sends a segment of its own to the peer of this leg, past the plan.
    Send {
        /// To whose peer.
        leg: Leg,
        /// The segment; its numbers are those of the wire.
        segment: Box<Segment>,
        /// After this time.
        after: Duration,
    },
    /// Answers a segment with an ICMP error, as a router on the path would.
    Icmp {
        /// The leg whose peer sent the segment.
        leg: Leg,
        /// ICMP type, of the family of the flow.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// Next-hop MTU of "fragmentation needed" and "packet too big", else 0.
        mtu: u32,
        /// The segment.
        quoted: Box<Segment>,
    },
    /// Does this to the flow.
    Act(Action),
}

/// What one rule remembers of one flow. Empty until the fault puts something in.
#[derive(Default)]
pub struct Memory(Option<Box<dyn Any + Send>>);

impl Memory {
    /// What is remembered, a default at first. A fault always asks for the same type.
    pub fn of<T: Any + Default + Send>(&mut self) -> &mut T {
        let memory = self.0.get_or_insert_with(|| Box::new(T::default()));
        memory.downcast_mut().expect("a fault remembers one type")
    }

    /// What is remembered, if anything is.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Memory(..)" } else { "Memory" })
    }
}

/// A selected segment within the bounds of the rule: when, where, the how many-eth, and what may be done.
pub struct Moment<'a> {
    /// The number of this segment among the selected ones of the flow, from 1.
    pub nth: u64,
    /// Now.
    pub now: Instant,
    /// Where it is met.
    pub at: Point,
    /// How far the flow has come.
    pub progress: &'a Progress,
    /// Which of the flows of this rule this flow is.
    pub place: Turn,
    /// The dice of this rule on this flow.
    pub dice: &'a mut Rng,
    /// What this rule remembers of this flow.
    pub memory: &'a mut Memory,
    pub(super) deeds: &'a mut Vec<Deed>,
}

impl Moment<'_> {
    /// Sends a segment of the fault's own to the peer of `leg`, after a time.
    pub fn send(&mut self, leg: Leg, segment: Segment, after: Duration) {
        self.deeds.push(Deed::Send { leg, segment: Box::new(segment), after });
    }

    /// Answers `segment` (which came in here) with an ICMP error.
    pub fn icmp(&mut self, segment: &Segment, kind: u8, code: u8, mtu: u32) {
        // Eight bytes of TCP header are quoted: the data are not needed.
        let quoted =
            Box::new(Segment { payload: crate::wire::Payload::empty(), gso_size: 0, ..segment.clone() });
        self.deeds.push(Deed::Icmp { leg: self.at.leg, kind, code, mtu, quoted });
    }

    /// Does something to the flow.
    pub fn act(&mut self, action: Action) {
        self.deeds.push(Deed::Act(action));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_is_empty_until_something_is_put_in() {
        let mut memory = Memory::default();
        assert_eq!(memory.get::<u32>(), None);
        *memory.of::<u32>() += 7;
        assert_eq!(memory.get::<u32>(), Some(&7));
    }
}
