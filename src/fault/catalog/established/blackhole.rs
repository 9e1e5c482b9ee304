//! `blackhole`: the path dies under an open connection, in one direction or both.

use std::sync::Arc;

use crate::fault::attributes::{DIRECTIONS_BOTH, Directions};
use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Verdict,
    Way,
};
use crate::tcp::Knobs;
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "blackhole",
    summary: "drops everything from a time or byte on, FIN and RST too",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "blackhole direction=both after=10s",
    attributes: &[AttributeDoc {
        name: "direction",
        unit: DIRECTIONS_BOTH,
        default: "both",
        zero: "",
        doc: "What vanishes. One direction alone is the asymmetric case: with downstream, requests are executed and their \
              replies are lost.",
    }],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: Some(("after_bytes", "1")),
    scales: &["after", "for", "at", "every"],
    source: Source {
        id: "E14",
        incident: "kubernetes/client-go#374, grpc/grpc-go#3206, redis/lettuce#2082: a dead peer is noticed after 15 minutes",
    },
    also: &[Alias { id: "E15", name: "one-way-blackhole", rule: "blackhole direction=downstream" }],
    scene: Scene { rule: "blackhole after_bytes=1", play: Play::Pause },
    sees: "writes succeed into the buffer and nothing comes back; the kernel repeats for about 15 minutes \
           (tcp_retries2 = 15) before ETIMEDOUT. TCP_USER_TIMEOUT and deadlines end it sooner.",
    build: |reader, _| Ok(Arc::new(Blackhole { directions: reader.directions("direction")? })),
};

#[derive(Debug)]
struct Blackhole {
    directions: Directions,
}

impl Fault for Blackhole {
    fn direction(&self) -> Direction {
        match self.directions {
            Directions::One(direction) => direction,
            Directions::Both => Direction::Upstream,
        }
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let one_way = self.directions != Directions::Both;
        (engine == Engine::Sockets && one_way).then_some("a kernel socket is cut off both ways")
    }

    /// What had come in before still goes out.
    fn selects(&self, at: Point, _: &Segment, _: &Progress) -> bool {
        at.way == Way::In && self.directions.contains(at.direction())
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        Verdict::Drop
    }

    /// What our own TCP would send into the hole would only be noise.
    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        knobs.mute = true;
        self.directions.contains(leg.outward())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, seg};
    use crate::wire::Flags;

    #[test]
    fn everything_that_comes_in_is_lost_within_the_bounds() {
        for (rule, client, server) in [
            ("blackhole", "PDDD", "PDDD"),
            ("blackhole direction=upstream", "PDDD", "PPPP"),
            ("blackhole direction=downstream after_bytes=20", "PPPP", "PPDD"),
            ("blackhole after=150ms", "PPDD", "PPDD"),
            ("blackhole after=50ms for=150ms", "PDDP", "PDDP"),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let mut seen = [String::new(), String::new()];
            for step in 0..4 {
                flow.at(100 * step).received(10 * step, 10 * step);
                seen[0].push(flow.letter(Leg::Client, Way::In, &seg(Flags::ACK)));
                seen[1].push(flow.letter(Leg::Server, Way::In, &seg(Flags::RST)));
            }
            assert_eq!(seen, [client, server], "{rule}");
        }
    }

    #[test]
    fn our_own_tcp_falls_silent_towards_the_hole() {
        for (rule, client, server) in [
            ("blackhole", true, true),
            ("blackhole direction=upstream", false, true),
            ("blackhole direction=downstream after_bytes=0", true, false),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            flow.received(1, 1);
            let mute = [flow.knobs(Leg::Client).mute, flow.knobs(Leg::Server).mute];
            assert_eq!(mute, [client, server], "{rule}");
        }
    }
}
