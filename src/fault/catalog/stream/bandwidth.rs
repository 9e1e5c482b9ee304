//! `bandwidth`: bytes pass at a rate, with a queue before it.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{Alias, AttributeDoc, Engine, Fault, Harm, Kind, Play, Scene, Shape, Source, Topic, Unit};
use crate::trace::Direction;

/// Less than a few segments makes a window that opens by crumbs.
const LEAST_BUFFER: u64 = 4 << 10;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "bandwidth",
    summary: "lets the bytes of one direction pass at a rate, and stops the writer when its queue is full",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "bandwidth direction=downstream rate=100kB/s buffer=64KiB",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the bytes.",
        },
        AttributeDoc {
            name: "rate",
            unit: Unit::Rate,
            default: "100kB/s",
            zero: "nothing passes, and the connection stays open",
            doc: "How fast bytes pass, per flow.",
        },
        AttributeDoc {
            name: "buffer",
            unit: Unit::Bytes,
            default: "64KiB",
            zero: "refused, as is all below 4KiB",
            doc: "Most bytes that wait for the rate; then the writer's window closes. A large one is bufferbloat: what is \
                  written behind it waits buffer / rate. More than `tcp.buffer` of the config is never held.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source { id: "X2", incident: "Toxiproxy's toxic of this name" },
    also: &[
        Alias { id: "E27", name: "bufferbloat", rule: "bandwidth rate=1Mbit buffer=125kB" },
        Alias { id: "E28", name: "rate", rule: "bandwidth rate=1Mbit" },
    ],
    scene: Scene { rule: "bandwidth rate=40kB/s", play: Play::Download },
    sees: "the reader gets bytes at the rate and the writer's send() blocks; with a large buffer each reply behind a bulk \
           transfer comes late by buffer / rate.",
    build: |reader, _| {
        let buffer = reader.bytes("buffer")?.unwrap_or_default();
        if buffer < LEAST_BUFFER {
            return Err(reader.wrong("buffer", "less than 4KiB: too little for a few segments"));
        }
        Ok(Arc::new(Bandwidth {
            direction: reader.direction("direction")?,
            rate: reader.rate("rate")?.unwrap_or_default(),
            buffer: u32::try_from(buffer).unwrap_or(u32::MAX),
        }))
    },
};

#[derive(Debug)]
struct Bandwidth {
    direction: Direction,
    rate: u64,
    buffer: u32,
}

impl Fault for Bandwidth {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn harm(&self) -> Harm {
        if self.rate == 0 { Harm::Ends } else { Harm::Nothing }
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        match self.rate {
            0 => shape.stalled = true,
            rate => shape.rate = Some(rate),
        }
        shape.buffer = Some(self.buffer);
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error};

    #[test]
    fn one_direction_has_the_rate_and_the_buffer_within_the_bounds() {
        let seen = |shape: Shape| (shape.rate, shape.stalled, shape.buffer);
        for (rule, expected) in [
            ("bandwidth", (Some(100_000), false, Some(65_536))),
            ("bandwidth rate=1Mbit buffer=125kB", (Some(125_000), false, Some(125_000))),
            ("bandwidth rate=0", (None, true, Some(65_536))),
            ("bandwidth after=1s", (None, false, None)),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            assert_eq!(seen(flow.shape(Direction::Downstream)), expected, "{rule}");
            assert_eq!(seen(flow.shape(Direction::Upstream)), (None, false, None), "{rule}");
        }
    }

    #[test]
    fn a_queue_of_less_than_a_few_segments_is_refused() {
        let error = error("bandwidth buffer=1000");
        assert!(error.starts_with("fault.bandwidth.buffer = \"1000\": less than 4KiB"), "{error}");
    }
}
