//! `slow-close`: the end of a stream comes late.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{Alias, AttributeDoc, Engine, Fault, Harm, Kind, Play, Scene, Shape, Source, Topic, Unit};
use crate::time::Duration;
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "slow-close",
    summary: "holds the end of one direction back for a while after its last byte",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "slow-close direction=downstream delay=5s",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "Whose end comes late: downstream the server's, upstream the client's.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "5s",
            zero: "no delay",
            doc: "How long the FIN waits after the last byte has left. The closer's FIN is acknowledged at once.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &["delay"],
    source: Source { id: "X3", incident: "Toxiproxy's toxic slow_close" },
    also: &[Alias { id: "T2", name: "fin-delay", rule: "slow-close delay=5s" }],
    scene: Scene { rule: "slow-close delay=1s", play: Play::ServerCloses },
    sees: "all data come in time and end-of-file late: what ends with the connection (HTTP/1.0, FTP, COPY) takes longer.",
    build: |reader, _| {
        Ok(Arc::new(SlowClose {
            direction: reader.direction("direction")?,
            delay: reader.duration("delay")?.unwrap_or_default(),
        }))
    },
};

#[derive(Debug)]
struct SlowClose {
    direction: Direction,
    delay: Duration,
}

impl Fault for SlowClose {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn harm(&self) -> Harm {
        Harm::Nothing
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.fin_delay = self.delay;
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;

    #[test]
    fn the_end_of_one_direction_waits_within_the_bounds() {
        for (rule, upstream, downstream) in [
            ("slow-close", 0, 5),
            ("slow-close direction=upstream delay=2s", 2, 0),
            ("slow-close after=1s", 0, 0),
            ("slow-close delay=0", 0, 0),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let seen = [Direction::Upstream, Direction::Downstream].map(|way| flow.shape(way).fin_delay);
            assert_eq!(seen, [upstream, downstream].map(Duration::from_secs), "{rule}");
        }
    }
}
