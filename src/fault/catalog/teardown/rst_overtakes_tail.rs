//! `rst-overtakes-tail`: a RST arrives before the last bytes, which are lost with it.

use std::sync::Arc;

use super::tail::Tail;
use super::{SERVER_IS_SOCKET, into_rst, where_it_leaves};
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "rst-overtakes-tail",
    summary: "lets a RST overtake the last bytes of a stream that ends, and loses them",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "rst-overtakes-tail direction=downstream bytes=1000",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "Whose last bytes are lost: downstream the server's, upstream the client's.",
        },
        AttributeDoc {
            name: "bytes",
            unit: Unit::Bytes,
            default: "1000",
            zero: "nothing is lost: the RST comes behind the last byte",
            doc: "The last bytes of the stream. They are kept back until the end is known: where neither FIN nor RST \
                  follows before our TCP sends them again (after 200 ms for up to one segment, sooner for more), they come as \
                  late as a lost segment.",
        },
    ],
    bounds: &["after_bytes", "after"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T10",
        incident: "hyperium/hyper#3078, nodejs/node#9085, h2o/h2o#2534: a server that answers 413 before it has read the body, and closes",
    },
    also: &[],
    scene: Scene { rule: "rst-overtakes-tail bytes=500", play: Play::ServerCloses },
    sees: "a truncated reply, then ECONNRESET: the early RST draws a challenge ACK, and the RST that answers it is exact.",
    build: |reader, _| {
        let bytes = reader.bytes("bytes")?.unwrap_or_default();
        let direction = reader.direction("direction")?;
        Ok(Arc::new(RstOvertakesTail { direction, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }))
    },
};

#[derive(Debug)]
struct RstOvertakesTail {
    direction: Direction,
    bytes: u32,
}

#[derive(Debug, Default)]
struct State {
    tail: Tail,
    ended: bool,
}

impl Fault for RstOvertakesTail {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let socket = engine == Engine::Exec && self.direction == Direction::Upstream;
        socket.then_some(SERVER_IS_SOCKET)
    }

    fn per_segment(&self) -> bool {
        true
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        let about = seg.flags.any(Flags::FIN | Flags::RST) || !seg.payload.is_empty();
        at == where_it_leaves(self.direction) && about && !seg.has(Flags::SYN)
    }

    /// The sender's FIN or RST becomes a RST with its number, which the receiver does not expect yet. What it answers is met
    /// by a leg that has forgotten everything, and draws the exact RST by itself (RFC 9293 §3.10.7.1).
    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let mut state = std::mem::take(moment.memory.of::<State>());
        let verdict = if state.ended {
            Verdict::Pass
        } else if seg.flags.any(Flags::FIN | Flags::RST) {
            state.ended = true;
            state.tail.on_end(moment, seg, self.bytes);
            into_rst(seg);
            moment.act(Action::forget(moment.at.leg));
            moment.act(Action::finish(moment.at.leg.other()));
            Verdict::Rewrite
        } else {
            state.tail.on_data(moment, seg, self.bytes)
        };
        *moment.memory.of::<State>() = state;
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, refused};
    use crate::fault::{Deed, Way};
    use crate::trace::Leg;
    use crate::wire::SeqNum;

    const OUT: Point = Point { leg: Leg::Client, way: Way::Out };

    #[test]
    fn the_end_becomes_a_rst_behind_the_bytes_that_are_lost() {
        for end in [Flags::FIN | Flags::ACK, Flags::RST | Flags::ACK] {
            let mut flow = Flow::of("rst-overtakes-tail bytes=30");
            flow.established();
            let mut data = Segment { seq: SeqNum(1), flags: Flags::ACK, ..Segment::default() };
            data.payload = [7; 100][..].into();
            assert_eq!(flow.judge(OUT, &mut data), Verdict::Rewrite, "the first 70 bytes go on");
            assert_eq!(data.payload.len(), 70);
            let mut last = Segment { seq: SeqNum(101), ack: SeqNum(9), flags: end, ..Segment::default() };
            assert_eq!(flow.judge(OUT, &mut last), Verdict::Rewrite);
            assert_eq!((last.seq, last.ack, last.flags), (SeqNum(101), SeqNum(9), Flags::RST | Flags::ACK));
            let acts = [Action::forget(Leg::Client), Action::finish(Leg::Server)].map(Deed::Act);
            assert_eq!(flow.deeds(), acts);
            let mut answer = Segment { seq: SeqNum(71), flags: Flags::RST, ..Segment::default() };
            assert_eq!(flow.judge(OUT, &mut answer), Verdict::Pass, "the answer to the challenge");
        }
    }

    #[test]
    fn exec_can_do_it_to_the_client_only() {
        assert_eq!(refused("rst-overtakes-tail", Engine::Exec), None);
        assert!(
            refused("rst-overtakes-tail direction=upstream", Engine::Exec)
                .is_some_and(|why| why.contains("socket"))
        );
    }
}
