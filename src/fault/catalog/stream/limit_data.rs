//! `limit-data`: the connection ends after some bytes.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{AttributeDoc, Engine, Fault, Kind, Limit, Play, Scene, Shape, Source, Topic, Unit};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "limit-data",
    summary: "lets some bytes of one direction through and then ends the connection",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "limit-data direction=downstream bytes=64KiB style=fin",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the bytes that are counted.",
        },
        AttributeDoc {
            name: "bytes",
            unit: Unit::Bytes,
            default: "64KiB",
            zero: "ends at the first byte, which does not arrive",
            doc: "How many bytes arrive. Those after them are acknowledged and lost.",
        },
        AttributeDoc {
            name: "style",
            unit: Unit::Word(&["fin", "rst"]),
            default: "fin",
            zero: "",
            doc: "How both sides are ended. A RST waits until the bytes before it have arrived; behind a kernel socket (exec), \
                  until the kernel has taken them.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source { id: "X7", incident: "Toxiproxy's toxic limit_data" },
    also: &[],
    scene: Scene { rule: "limit-data bytes=1000", play: Play::Pause },
    sees: "the reply is cut off: end-of-file, or ECONNRESET after the bytes, in the middle of a message.",
    build: |reader, _| {
        let limit = Limit {
            bytes: reader.bytes("bytes")?.unwrap_or_default(),
            reset: reader.word("style")? == Some("rst"),
        };
        Ok(Arc::new(LimitData { direction: reader.direction("direction")?, limit }))
    },
};

#[derive(Debug)]
struct LimitData {
    direction: Direction,
    limit: Limit,
}

impl Fault for LimitData {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.limit = Some(self.limit);
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;

    #[test]
    fn one_direction_has_the_limit() {
        for (rule, direction, bytes, reset) in [
            ("limit-data", Direction::Downstream, 65_536, false),
            ("limit-data bytes=0 style=rst", Direction::Downstream, 0, true),
            ("limit-data bytes=10 direction=upstream", Direction::Upstream, 10, false),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            assert_eq!(flow.shape(direction).limit, Some(Limit { bytes, reset }), "{rule}");
            let other =
                if direction == Direction::Upstream { Direction::Downstream } else { Direction::Upstream };
            assert_eq!(flow.shape(other).limit, None, "{rule}");
        }
    }
}
