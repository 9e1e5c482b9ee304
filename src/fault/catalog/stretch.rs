//! Which stretch of the path a fault is on: one leg, and one direction there or both.

use super::SERVER_IS_SOCKET;
use crate::fault::attributes::Reader;
use crate::fault::{AttributeDoc, Directions, Engine, Error, Point, Unit};
use crate::trace::{Direction, Leg};

/// Between halfopen and one of the peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    leg: Leg,
    directions: Directions,
}

impl Stretch {
    /// The documentation of `leg`.
    pub(super) const LEG: AttributeDoc = AttributeDoc {
        name: "leg",
        unit: Unit::Word(&["client", "server"]),
        default: "client",
        zero: "",
        doc: "Between which peer and halfopen. What the peer sends meets the fault before halfopen's TCP, so the peer's TCP repairs \
              it; what the peer gets meets it after halfopen's TCP, which repairs it then.",
    };

    /// Reads `leg` and `direction`.
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let leg = if reader.word(Self::LEG.name)? == Some("server") { Leg::Server } else { Leg::Client };
        Ok(Self { leg, directions: reader.directions("direction")? })
    }

    /// True if a segment that is met here is on it.
    pub(super) fn has(&self, at: Point) -> bool {
        at.leg == self.leg && self.directions.contains(at.direction())
    }

    /// The direction whose bytes count.
    pub(super) const fn direction(&self) -> Direction {
        self.directions.first()
    }

    /// The leg.
    pub(super) const fn leg(&self) -> Leg {
        self.leg
    }

    /// Why this engine cannot reach it, if it cannot.
    pub(super) fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Exec && self.leg == Leg::Server).then_some(SERVER_IS_SOCKET)
    }
}
