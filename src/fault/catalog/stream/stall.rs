//! `stall`: connected, and then nothing comes.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{AttributeDoc, Engine, Fault, Kind, Play, Scene, Shape, Source, Topic, Unit};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "stall",
    summary: "lets no byte of one direction out for a while, from a byte on",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "stall direction=downstream hold=30s",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "Whose bytes wait: downstream the server's, upstream the client's.",
        },
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "30s",
            zero: "no stall",
            doc: "How long they wait, counted from the end of the handshake or, with `after_bytes`, from that byte on. The end of \
                  the stream waits behind them. What waits was acknowledged, as far as there is room for it.",
        },
    ],
    bounds: &["after_bytes", "after", "at", "every"],
    default_bound: Some(("after_bytes", "0")),
    scales: &["hold"],
    source: Source {
        id: "H30",
        incident: "the most frequent \"connect works, then it hangs\": a TLS handshake or greeting that never comes",
    },
    also: &[],
    scene: Scene { rule: "stall hold=2s", play: Play::Talk },
    sees: "connect() succeeds and send() too, and recv() blocks for the hold; no error comes, and keepalive is answered.",
    build: |reader, bounds| {
        bounds.lasts = reader.duration("hold")?;
        Ok(Arc::new(Stall { direction: reader.direction("direction")? }))
    },
};

#[derive(Debug)]
struct Stall {
    direction: Direction,
}

impl Fault for Stall {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.stalled = true;
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;
    use crate::time::Instant;

    #[test]
    fn one_direction_stands_still_for_the_hold_from_a_byte_on() {
        let (up, down) = (Direction::Upstream, Direction::Downstream);
        // Bytes received of both directions at 0, 100, ... ms.
        let bytes = [(0, 0), (10, 0), (10, 50), (10, 90), (10, 90)];
        for (rule, direction, expected) in [
            ("stall hold=150ms", down, "SS..."),
            ("stall hold=150ms", up, "....."),
            ("stall hold=150ms direction=upstream after_bytes=1", up, ".SS.."),
            ("stall hold=250ms after_bytes=50", down, "..SSS"),
            ("stall hold=250ms after=100ms", down, ".SSS."),
            ("stall hold=0", down, "....."),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let stalled = |(i, (upstream, downstream)): (u64, (u64, u64))| {
                let shape = flow.at(100 * i).received(upstream, downstream).shape(direction);
                if shape.stalled { 'S' } else { '.' }
            };
            let seen: String = (0..).zip(bytes).map(stalled).collect();
            assert_eq!(seen, expected, "{rule} {direction:?}");
        }
    }

    #[test]
    fn it_asks_to_be_woken_when_the_hold_is_over() {
        let mut flow = Flow::of("stall hold=2s");
        flow.at(100).established();
        assert!(flow.shape(Direction::Downstream).stalled);
        assert_eq!(flow.timeout(), Some(Instant::from_millis(2100)));
        assert!(!flow.at(2100).shape(Direction::Downstream).stalled);
        assert_eq!(flow.fired(), ["0.100 client downstream knob", "2.100 client downstream release"]);
    }
}
