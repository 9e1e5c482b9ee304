//! Faults: named misbehaviours around a connection, never inside it.
//!
//! A [`Plan`] holds the faults that the rules chose for one flow. The relay asks it about every segment
//! ([`Plan::on_segment`]), about the knobs of each leg ([`Plan::knobs`]) and about actions of its own
//! ([`Plan::poll_action`]). An empty plan costs one test.

use crate::cx::Cx;
use crate::tcp::Knobs;
use crate::time::{Duration, Instant};
use crate::trace::Leg;
use crate::wire::Segment;

/// Whether a segment comes from the leg's peer or goes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the peer, before our TCP sees it.
    In,
    /// To the peer, after our TCP made it.
    Out,
}

/// Where a segment is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The leg.
    pub leg: Leg,
    /// The way.
    pub way: Way,
}

/// What a plan says of a segment. A rewrite changes the segment in place and passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Pass,
    /// Vanishes.
    Drop,
    /// Goes on after this time, past the rest of the plan.
    Hold(Duration),
    /// Goes on, followed by this many copies.
    Duplicate(u8),
}

/// What a plan wants done to the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// RST with exact numbers to these peers. A peer that is not reset sees silence until it speaks, then RST.
    Reset {
        /// To the client.
        client: bool,
        /// To the server.
        server: bool,
    },
}

/// How far a flow has come; what bounds are measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When the first SYN arrived.
    pub opened: Instant,
    /// When the client's handshake was complete.
    pub established: Option<Instant>,
    /// Payload bytes received from the client, in order.
    pub upstream_bytes: u64,
    /// Payload bytes received from the server, in order.
    pub downstream_bytes: u64,
    /// The server leg is a kernel socket (exec): its segments cannot be touched.
    pub server_is_socket: bool,
}

/// The faults of one flow.
#[derive(Debug, Default)]
pub struct Plan {}

#[allow(unused_variables)]
impl Plan {
    /// True without faults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }
    /// Judges one segment and may rewrite it. Emits [`crate::trace::Event::Fired`].
    pub fn on_segment(
        &mut self,
        cx: &mut Cx<'_>,
        at: Point,
        seg: &mut Segment,
        progress: &Progress,
    ) -> Verdict {
        todo!()
    }
    /// The knobs of a leg as they should be now. Called after progress and after timeouts.
    pub fn knobs(&mut self, cx: &mut Cx<'_>, leg: Leg, progress: &Progress) -> Knobs {
        todo!()
    }
    /// The next action that is due. Called after progress and after timeouts.
    pub fn poll_action(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<Action> {
        todo!()
    }
    /// When to ask again for knobs and actions, if a time bound is running.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
}
