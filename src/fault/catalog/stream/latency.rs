//! `latency`: bytes take longer.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    AttributeDoc, Engine, Fault, Harm, Kind, Play, Scene, Shape, Source, Spread, Topic, Unit,
};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "latency",
    summary: "holds the bytes of one direction back for a while, in order",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "latency direction=downstream latency=100ms jitter=20ms",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the bytes.",
        },
        AttributeDoc {
            name: "latency",
            unit: Unit::Duration { max_secs: 3600 },
            default: "100ms",
            zero: "no delay",
            doc: "How long bytes wait. They are acknowledged before; only the application notices.",
        },
        Spread::JITTER,
        Spread::DISTRIBUTION,
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source { id: "X1", incident: "Toxiproxy's toxic of this name" },
    also: &[],
    scene: Scene { rule: "latency latency=500ms", play: Play::Talk },
    sees: "each reply comes later by the latency; connect() is not touched.",
    build: |reader, _| {
        let latency = Spread::read(reader, "latency")?;
        Ok(Arc::new(Latency { direction: reader.direction("direction")?, latency }))
    },
};

#[derive(Debug)]
struct Latency {
    direction: Direction,
    latency: Spread,
}

impl Fault for Latency {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn harm(&self) -> Harm {
        Harm::Nothing
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.latency = Some(self.latency);
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error};

    #[test]
    fn one_direction_is_held_back_within_the_bounds() {
        let mut flow = Flow::of("latency latency=80ms jitter=10ms after_bytes=5 direction=upstream");
        flow.established();
        let held =
            |shape: Shape| shape.latency.map(|spread| (spread.base.as_millis(), spread.jitter.as_millis()));
        assert_eq!(held(flow.received(4, 9).shape(Direction::Upstream)), None);
        assert_eq!(held(flow.received(5, 9).shape(Direction::Upstream)), Some((80, 10)));
        assert_eq!(held(flow.shape(Direction::Downstream)), None);
        assert_eq!(flow.fired(), ["0.000 server upstream knob"]);
    }

    #[test]
    fn more_jitter_than_latency_is_refused() {
        let error = error("latency latency=10ms jitter=11ms");
        assert!(error.starts_with("fault.latency.jitter = \"11ms\": more than the latency"), "{error}");
    }
}
