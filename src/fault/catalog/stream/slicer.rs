//! `slicer`: bytes come in crumbs.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{AttributeDoc, Engine, Fault, Harm, Kind, Play, Scene, Shape, Slice, Source, Topic, Unit};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "slicer",
    summary: "cuts the bytes of one direction into small pieces, with a pause after each",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "slicer direction=downstream average_size=64 size_variation=32 delay=10ms",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the bytes.",
        },
        AttributeDoc {
            name: "average_size",
            unit: Unit::Count { from: 1, to: 1 << 20 },
            default: "64",
            zero: "",
            doc: "Bytes of a piece on average.",
        },
        AttributeDoc {
            name: "size_variation",
            unit: Unit::Count { from: 0, to: 1 << 20 },
            default: "0",
            zero: "all pieces are equal",
            doc: "By how many bytes a piece is smaller or larger at most, evenly; less than average_size.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 3600 },
            default: "10ms",
            zero: "no pause: TCP may put the pieces together again",
            doc: "Time between two pieces. Toxiproxy counts it in microseconds.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source { id: "X6", incident: "Toxiproxy's toxic of this name" },
    also: &[],
    scene: Scene { rule: "slicer average_size=500 delay=200ms", play: Play::Talk },
    sees: "each read() gives a few bytes, and whoever takes one read() for one message fails.",
    build: |reader, _| {
        let size = reader.count("average_size")?.unwrap_or(1);
        let variation = reader.count("size_variation")?.unwrap_or(0);
        if variation >= size {
            return Err(reader.wrong("size_variation", "not less than average_size"));
        }
        let slice = Slice {
            size: size as u32,
            variation: variation as u32,
            delay: reader.duration("delay")?.unwrap_or_default(),
        };
        Ok(Arc::new(Slicer { direction: reader.direction("direction")?, slice }))
    },
};

#[derive(Debug)]
struct Slicer {
    direction: Direction,
    slice: Slice,
}

impl Fault for Slicer {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn harm(&self) -> Harm {
        Harm::Nothing
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.slice = Some(self.slice);
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error};
    use crate::time::Duration;

    #[test]
    fn one_direction_is_cut_within_the_bounds() {
        let slice =
            |size, variation, millis| Some(Slice { size, variation, delay: Duration::from_millis(millis) });
        for (rule, expected) in [
            ("slicer", slice(64, 0, 10)),
            ("slicer average_size=1 delay=0", slice(1, 0, 0)),
            ("slicer average_size=100 size_variation=99 delay=1s", slice(100, 99, 1000)),
            ("slicer after=1s", None),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            assert_eq!(flow.shape(Direction::Downstream).slice, expected, "{rule}");
            assert_eq!(flow.shape(Direction::Upstream).slice, None, "{rule}");
        }
    }

    /// Toxiproxy dies of the first.
    #[test]
    fn pieces_without_a_byte_are_refused() {
        for (rule, problem) in [
            ("slicer average_size=0", "fault.slicer.average_size = \"0\": "),
            (
                "slicer average_size=10 size_variation=10",
                "fault.slicer.size_variation = \"10\": not less than average_size",
            ),
        ] {
            let error = error(rule);
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
