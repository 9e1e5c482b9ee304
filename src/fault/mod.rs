//! Faults: named misbehaviours around a connection, never inside it.
//!
//! A [`Rule`] says which flows ([`Match`]), what (a [`Fault`] made by a [`Kind`] of the catalogue) and when ([`Bounds`]).
//! When a flow's first SYN arrives, [`Rules::plan`] gives it a [`Plan`] with the rules that match:
//!
//! ```text
//!   segment ──▶ Fault::selects ──▶ bounds and dice ──▶ Fault::on_segment ──▶ Verdict   ┐
//!   leg     ──▶ Fault::turn    ──▶ bounds          ──▶ Knobs                           ├ Event::Fired
//!   flow    ──▶ Fault::action  ──▶ bounds          ──▶ Action                          ┘
//! ```
//!
//! A fault keeps no state, so one value serves all flows; counts, times and dice belong to the plan. Decisions come from the
//! seed, the flow's number, the rule's place and the order of segments, never from another flow or rule. Only the choice of
//! flows may look at neighbours ([`Circumstances`]), at when they came and went.
//! To add a fault: one file in `catalog/`, one line in [`KINDS`], one golden ladder.

pub mod attributes;
mod catalog;
mod circumstances;
mod error;
mod hold;
mod kind;
mod loss;
mod ordinals;
mod peer;
mod plan;
mod rules;
mod spec;
mod spread;
#[cfg(test)]
mod testing;
mod trigger;

use std::fmt;

use crate::rng::Rng;
use crate::tcp::Knobs;
use crate::time::{Duration, Instant};
use crate::trace::{Did, Direction, Leg};
use crate::wire::Segment;
pub use attributes::{AttributeDoc, Attributes, Directions, Unit, Value};
pub use catalog::{KINDS, kind};
pub use circumstances::{Asked, Circumstances, Neighbourhood, Turn, Turns};
pub use error::{Error, nearest};
pub use hold::Held;
pub use kind::{Build, Engine, Kind, Source, Topic};
pub use loss::{Loss, LossState};
pub use ordinals::Ordinals;
pub use peer::Peer;
pub use plan::Plan;
pub use rules::{MATCH, Match, Rule, Rules};
pub use spec::RuleSpec;
pub use spread::{Distribution, Spread};
pub use trigger::{BOUNDS, Bounds};

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

impl Point {
    /// The direction in which a segment travels here.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match (self.leg, self.way) {
            (Leg::Client, Way::In) | (Leg::Server, Way::Out) => Direction::Upstream,
            (Leg::Server, Way::In) | (Leg::Client, Way::Out) => Direction::Downstream,
        }
    }
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

/// What a fault does. When it does so is up to the bounds of its rule.
pub trait Fault: fmt::Debug + Send + Sync {
    /// The direction of the segments or bytes that it is about.
    fn direction(&self) -> Direction;

    /// Why this engine cannot do it with these attributes, if it cannot.
    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let _ = engine;
        None
    }

    /// True for a segment that it is about; the bounds count these.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let _ = (at, seg, progress);
        false
    }

    /// Acts on a selected segment within the bounds, the `nth` from 1. `None` leaves it alone.
    fn on_segment(&self, nth: u64, dice: &mut Rng, seg: &mut Segment) -> Option<Did> {
        let _ = (nth, dice, seg);
        None
    }

    /// Turns knobs of this leg; false if it does not touch this leg.
    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        let _ = (leg, knobs);
        false
    }

    /// What it does once, when its bounds are met.
    fn action(&self) -> Option<Action> {
        None
    }
}
