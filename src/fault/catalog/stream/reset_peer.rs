//! `reset-peer`: data go nowhere, and then both sides are reset.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::Met;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Memory, Play, Progress, Scene, Shape, Source, Topic, Unit,
};
use crate::time::{Duration, Instant};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "reset-peer",
    summary: "loses the data of one direction and resets both sides after a while, an idle connection too",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "reset-peer direction=downstream timeout=1s",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the data that get lost until then, its end too.",
        },
        AttributeDoc {
            name: "timeout",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "0",
            zero: "at once, when its bounds are met",
            doc: "How long after its bounds are met both sides get a RST.",
        },
    ],
    bounds: &["after_bytes", "after", "at"],
    default_bound: None,
    scales: &[],
    source: Source { id: "X5", incident: "Toxiproxy's toxic reset_peer, as documented" },
    also: &[],
    scene: Scene { rule: "reset-peer timeout=1s", play: Play::Pause },
    sees: "recv() gives ECONNRESET, then send() EPIPE; before that, connect() and send() succeed.",
    build: |reader, _| {
        Ok(Arc::new(LoseThenReset {
            direction: reader.direction("direction")?,
            after: reader.duration("timeout")?.unwrap_or_default(),
        }))
    },
};

/// Once its bounds are met, the data of one direction are acknowledged and lost, and some time later both sides are reset.
#[derive(Debug)]
pub(in crate::fault::catalog) struct LoseThenReset {
    pub(in crate::fault::catalog) direction: Direction,
    pub(in crate::fault::catalog) after: Duration,
}

impl Fault for LoseThenReset {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        (shape.lose, shape.lose_fin) = (true, true);
        direction == self.direction
    }

    fn action(&self) -> Option<Action> {
        Some(Action::Reset { client: true, server: true })
    }

    fn notice(&self, now: Instant, _: &Progress, memory: &mut Memory) {
        Met::notice(now, memory);
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        Met::due(memory, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;

    #[test]
    fn the_reset_comes_a_timeout_after_the_bounds_are_met() {
        let reset = Some(Action::Reset { client: true, server: true });
        for (rule, at, bytes) in [
            ("reset-peer", 100, 0),
            ("reset-peer timeout=2s", 2100, 0),
            ("reset-peer timeout=2s after=1s", 3100, 0),
            ("reset-peer timeout=2s after_bytes=10", 2100, 10),
        ] {
            let mut flow = Flow::of(rule);
            flow.at(100).established();
            flow.received(0, bytes);
            // Whoever asks again only when the plan says so meets the moment.
            let mut now = 100;
            let acted = loop {
                match (flow.at(now).action(), flow.timeout()) {
                    (None, Some(next)) => now = next.as_millis(),
                    (action, _) => break action,
                }
            };
            assert_eq!((acted, now), (reset, at), "{rule}");
            assert_eq!((flow.action(), flow.timeout()), (None, None), "{rule}: once");
        }
    }

    #[test]
    fn until_then_the_data_of_one_direction_are_lost_and_so_is_their_end() {
        let mut flow = Flow::of("reset-peer timeout=1s direction=upstream");
        flow.established();
        let lost = |shape: Shape| (shape.lose, shape.lose_fin);
        assert_eq!(lost(flow.shape(Direction::Upstream)), (true, true));
        assert_eq!(lost(flow.shape(Direction::Downstream)), (false, false));
    }
}
