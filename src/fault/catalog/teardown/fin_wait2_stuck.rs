//! `fin-wait2-stuck`: the peer acknowledges the FIN and never sends its own.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{AttributeDoc, Engine, Fault, Kind, Play, Scene, Shape, Source, Topic};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "fin-wait2-stuck",
    summary: "acknowledges the closer's FIN and never lets the other FIN through",
    topic: Topic::Teardown,
    engines: &Engine::ALL,
    example: "fin-wait2-stuck direction=downstream",
    attributes: &[AttributeDoc {
        name: "direction",
        unit: DIRECTIONS,
        default: "downstream",
        zero: "",
        doc: "Whose FIN never comes: with downstream the client is stuck, with upstream the server. The one whose FIN it is \
              gets its ACK and notices nothing.",
    }],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T4",
        incident: "envoyproxy/envoy#41086 (sockets leaked for an hour), linkerd/linkerd2#5180, haproxy/haproxy#2520",
    },
    also: &[],
    scene: Scene { rule: "fin-wait2-stuck", play: Play::Talk },
    sees: "the closer stays in FIN-WAIT-2. After close() Linux frees the socket after tcp_fin_timeout (60 s) and answers RST from then on; \
           after shutdown(WR) it waits for ever, and recv() with it.",
    build: |reader, _| Ok(Arc::new(FinWait2Stuck { direction: reader.direction("direction")? })),
};

#[derive(Debug)]
struct FinWait2Stuck {
    direction: Direction,
}

impl Fault for FinWait2Stuck {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.lose_fin = true;
        direction == self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;

    #[test]
    fn one_direction_never_ends_within_the_bounds() {
        for (rule, at, expected) in [
            ("fin-wait2-stuck", 0, [false, true]),
            ("fin-wait2-stuck direction=upstream", 0, [true, false]),
            ("fin-wait2-stuck after=1s", 999, [false, false]),
            ("fin-wait2-stuck after=1s", 1000, [false, true]),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let lost = [Direction::Upstream, Direction::Downstream].map(|d| flow.at(at).shape(d).lose_fin);
            assert_eq!(lost, expected, "{rule} at {at}");
        }
    }
}
