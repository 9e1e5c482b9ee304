//! Faults: named misbehaviours around a connection, never inside it.
//!
//! A [`Rule`] says which flows ([`Match`]), what (a [`Fault`] made by a [`Kind`] of the catalogue) and when ([`Bounds`]).
//! When a flow's first SYN arrives, [`Rules::plan`] gives it a [`Plan`] with the rules that match:
//!
//! ```text
//!   segment ──▶ Fault::selects ──▶ bounds and dice ──▶ Fault::on_segment ──▶ Verdict, Deed ┐
//!   leg     ──▶ Fault::turn    ──▶ bounds          ──▶ Knobs                               ├ Event::Fired
//!   bytes   ──▶ Fault::shape   ──▶ bounds          ──▶ Shape                               │
//!   flow    ──▶ Fault::action  ──▶ bounds          ──▶ Action                              ┘
//! ```
//!
//! A fault keeps no state, so one value serves all flows; counts, times, dice and [`Memory`] belong to the plan. Decisions come
//! from the seed, the flow's number, the rule's place and the order of segments, never from another flow or rule. Only the
//! choice of flows may look at neighbours ([`Circumstances`]), at when they came and went.
//! To add a fault: one file in `catalog/`, one line in [`KINDS`], one golden ladder.

pub mod attributes;
mod catalog;
mod circumstances;
mod entries;
mod error;
mod hold;
mod kind;
mod loss;
mod moment;
mod ordinals;
mod peer;
mod plan;
mod rules;
mod scene;
mod shape;
mod spec;
mod spread;
#[cfg(test)]
mod testing;
mod trigger;

use std::fmt;

use crate::tcp::Knobs;
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg, State};
use crate::wire::{Numbers, Segment};
pub use attributes::{AttributeDoc, Attributes, Directions, Unit, Value};
pub use catalog::{KINDS, kind};
pub use circumstances::{Asked, Circumstances, Neighbourhood, Turn, Turns};
pub use entries::{ENTRIES, Entry, served};
pub use error::{Error, nearest};
pub use hold::Held;
pub use kind::{Alias, Build, Engine, Kind, Source, Topic};
pub use loss::{Loss, LossState};
pub use moment::{AcceptFirst, Action, Burst, Deed, Memory, Moment, OnFail, Verdict};
pub use ordinals::Ordinals;
pub use peer::Peer;
pub use plan::Plan;
pub use rules::{MATCH, Match, Rule, Rules};
pub use scene::{Play, Scene};
pub use shape::{Limit, Shape, Slice};
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
    /// The server leg is a kernel socket (exec, the sockets engine): its segments cannot be touched.
    pub server_is_socket: bool,
    /// The client leg is a kernel socket (a published port of exec, the sockets engine): its segments cannot be touched.
    pub client_is_socket: bool,
    /// The flow is one of IPv6.
    pub ipv6: bool,
    /// Client and server have addresses that are not routed on the internet: loopback, link-local, RFC 1918, RFC 4193.
    pub is_private: bool,
    /// The numbers of the client leg, once it has some.
    pub client: Option<Numbers>,
    /// The numbers of the server leg, once it has some.
    pub server: Option<Numbers>,
    /// The state of our end of the client leg; closed where there is none.
    pub client_state: State,
    /// The state of our end of the server leg; closed where there is none, and where it is a kernel socket.
    pub server_state: State,
}

impl Progress {
    /// True if kernel sockets make the segments of both legs: a FIN that meets the plan only stands for an end.
    #[must_use]
    pub const fn has_no_segments(&self) -> bool {
        self.client_is_socket && self.server_is_socket
    }

    /// Payload bytes received in this direction, in order.
    #[must_use]
    pub const fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Upstream => self.upstream_bytes,
            Direction::Downstream => self.downstream_bytes,
        }
    }

    /// The numbers of a leg, for segments that must be believed.
    #[must_use]
    pub const fn numbers(&self, leg: Leg) -> Option<Numbers> {
        match leg {
            Leg::Client => self.client,
            Leg::Server => self.server,
        }
    }

    /// The state of our end of a leg.
    #[must_use]
    pub const fn state(&self, leg: Leg) -> State {
        match leg {
            Leg::Client => self.client_state,
            Leg::Server => self.server_state,
        }
    }
}

/// The most that a fault does to the applications of a flow, the least first. The random worlds of the simulation hold each
/// fault to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Time: every byte arrives, and both ends close as without it.
    Nothing,
    /// The connection may end early, otherwise or never, and so bytes may be missing at its end. Those before are right.
    Ends,
    /// Bytes may be missing in between, or wrong.
    Bytes,
}

/// What a fault does. When it does so is up to the bounds of its rule.
pub trait Fault: fmt::Debug + Send + Sync {
    /// The direction of the segments or bytes that it is about.
    fn direction(&self) -> Direction;

    /// The most that it does to the applications.
    fn harm(&self) -> Harm {
        Harm::Ends
    }

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

    /// Acts on a selected segment within the bounds.
    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let _ = (moment, seg);
        Verdict::Pass
    }

    /// True if it stands between the peer and all other faults: it meets first what comes in, and last what goes out, what other
    /// faults have held, copied or made as well. It only passes or rewrites.
    fn is_outermost(&self) -> bool {
        false
    }

    /// True if it must meet each segment as it is on the wire: super-segments are cut before it sees them, and both legs send
    /// single segments. This costs most of the speed of a bulk transfer.
    fn per_segment(&self) -> bool {
        false
    }

    /// True if the windows that we offer on this leg must be exact to the byte: our SYN there then offers a scale factor of
    /// 0, and no window is larger than 64 KiB.
    fn unscaled(&self, leg: Leg) -> bool {
        let _ = leg;
        false
    }

    /// Turns knobs of this leg; false if it does not touch this leg.
    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        let _ = (leg, knobs);
        false
    }

    /// Shapes the bytes between the legs; false if it does not touch this direction.
    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        let _ = (direction, shape);
        false
    }

    /// How long it takes to serve one flow, where the rule's flows are served one after the other ([`Turn::served`]).
    fn service(&self) -> Duration {
        Duration::ZERO
    }

    /// How long it acts on this flow, where that depends on which of the rule's flows it is. `None`: as long as the bounds say.
    fn lasts(&self, place: Turn) -> Option<Duration> {
        let _ = place;
        None
    }

    /// How the client is accepted before the server is dialled; `None` is the honest order. Asked at the client's SYN.
    fn accepts_first(&self) -> Option<AcceptFirst> {
        None
    }

    /// What it does once, when its bounds are met and it is due.
    fn action(&self) -> Option<Action> {
        None
    }

    /// Notices how far the flow has come, within the bounds and before [`Self::due`] is asked: for what no segment tells, as
    /// when the bounds were met, or bytes that came by a kernel socket.
    fn notice(&self, now: Instant, progress: &Progress, memory: &mut Memory) {
        let _ = (now, progress, memory);
    }

    /// False as long as a flow that has come this far is none of those that the action is for. Asked within the bounds.
    fn is_for(&self, progress: &Progress) -> bool {
        let _ = progress;
        true
    }

    /// When, within its bounds, the action is due; `None` is not yet. Asked after each segment of the flow.
    fn due(&self, memory: &Memory) -> Option<Instant> {
        let _ = memory;
        Some(Instant::ZERO)
    }
}
