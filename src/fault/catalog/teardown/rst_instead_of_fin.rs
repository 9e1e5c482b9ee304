//! `rst-instead-of-fin`: the connection ends by RST where it should end by FIN.

use std::sync::Arc;

use super::{SERVER_IS_SOCKET, rst_for_fin, where_it_leaves};
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Shape, Source, Topic,
    Unit, Verdict,
};
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "rst-instead-of-fin",
    summary: "ends the stream by RST behind its last byte, where a FIN was due",
    topic: Topic::Teardown,
    engines: &Engine::ALL,
    example: "rst-instead-of-fin direction=downstream",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "Whose FIN becomes a RST: downstream the server's, upstream the client's. The one who sent it is closed in peace.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "0ms",
            zero: "right behind the last byte",
            doc: "How long after the last byte (or after the FIN, if that comes later) the RST follows.",
        },
    ],
    bounds: &["after_bytes", "after"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T9",
        incident: "load balancers, SO_LINGER with time 0, Toxiproxy's reset_peer; Windows then discards what was received, dotnet/runtime#57186",
    },
    also: &[],
    scene: Scene { rule: "rst-instead-of-fin direction=downstream", play: Play::ServerCloses },
    sees: "on Linux every byte that was received, and then ECONNRESET instead of end-of-file.",
    build: |reader, _| {
        let delay = reader.duration("delay")?.unwrap_or_default();
        Ok(Arc::new(RstInsteadOfFin { direction: reader.direction("direction")?, delay }))
    },
};

#[derive(Debug)]
struct RstInsteadOfFin {
    direction: Direction,
    delay: Duration,
}

impl Fault for RstInsteadOfFin {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let socket = engine == Engine::Exec && self.direction == Direction::Upstream;
        socket.then_some(SERVER_IS_SOCKET)
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at == where_it_leaves(self.direction) && seg.has(Flags::FIN)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let verdict = rst_for_fin(moment, seg);
        moment.act(Action::finish(moment.at.leg.other()));
        verdict
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.fin_delay = self.delay;
        direction == self.direction && !self.delay.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, refused};
    use crate::fault::{Deed, Way};
    use crate::trace::Leg;
    use crate::wire::SeqNum;

    #[test]
    fn the_fin_becomes_a_rst_and_its_data_go_first() {
        for (rule, leg) in
            [("rst-instead-of-fin", Leg::Client), ("rst-instead-of-fin direction=upstream", Leg::Server)]
        {
            let mut flow = Flow::of(rule);
            flow.established();
            let fin = Flags::FIN | Flags::ACK;
            let mut last = Segment { seq: SeqNum(100), ack: SeqNum(5), flags: fin, ..Segment::default() };
            last.payload = b"bye"[..].into();
            assert_eq!(
                flow.judge(Point { leg: leg.other(), way: Way::Out }, &mut last.clone()),
                Verdict::Pass
            );
            assert_eq!(flow.judge(Point { leg, way: Way::Out }, &mut last), Verdict::Rewrite, "{rule}");
            assert_eq!((last.seq, last.flags), (SeqNum(103), Flags::RST | Flags::ACK));
            assert!(last.payload.is_empty());
            let deeds = flow.deeds();
            let Deed::Send { segment, after, .. } = &deeds[0] else { panic!("{deeds:?}") };
            assert_eq!(
                (segment.seq, segment.flags, &segment.payload.to_vec()[..]),
                (SeqNum(100), Flags::ACK, &b"bye"[..])
            );
            assert!(after.is_zero());
            let acts = [Action::forget(leg), Action::finish(leg.other())].map(Deed::Act);
            assert_eq!(deeds[1..], acts);
        }
    }

    #[test]
    fn a_delay_keeps_the_end_back() {
        let delays = |rule| {
            let mut flow = Flow::of(rule);
            flow.established();
            [Direction::Upstream, Direction::Downstream].map(|d| flow.shape(d).fin_delay.as_millis())
        };
        assert_eq!(delays("rst-instead-of-fin"), [0, 0]);
        assert_eq!(delays("rst-instead-of-fin delay=1s"), [0, 1000]);
    }

    #[test]
    fn exec_can_do_it_to_the_client_only() {
        assert_eq!(refused("rst-instead-of-fin", Engine::Exec), None);
        assert_eq!(refused("rst-instead-of-fin direction=upstream", Engine::PlainSockets), None);
        assert!(
            refused("rst-instead-of-fin direction=upstream", Engine::Exec)
                .is_some_and(|why| why.contains("socket"))
        );
    }
}
