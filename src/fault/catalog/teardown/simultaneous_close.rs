//! `simultaneous-close`: the FINs of both sides cross, as one of them sees it.

use std::sync::Arc;

use super::{SERVER_IS_SOCKET, fin_number, where_fin_enters};
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::time::{Duration, Instant};
use crate::trace::Direction;
use crate::wire::{Flags, Segment, SeqNum};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "simultaneous-close",
    summary: "acknowledges a FIN only after the other FIN, so that both seem to cross",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "simultaneous-close direction=upstream",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Who closes and sees the FINs cross: upstream the client, downstream the server.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 60 },
            default: "10ms",
            zero: "right behind the FIN",
            doc: "How long after the other FIN the ACK follows: so long the closer stays in CLOSING.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T15",
        incident: "RFC 9293 §3.6, figure 13: a part of the state machine that few tests ever reach",
    },
    also: &[],
    scene: Scene { rule: "simultaneous-close delay=100ms", play: Play::Talk },
    sees: "nothing: the closer goes by CLOSING to TIME-WAIT. If the other side takes its time to close, the closer repeats its FIN \
           meanwhile.",
    build: |reader, _| {
        let delay = reader.duration("delay")?.unwrap_or_default();
        Ok(Arc::new(SimultaneousClose { direction: reader.direction("direction")?, delay }))
    },
};

#[derive(Debug)]
struct SimultaneousClose {
    direction: Direction,
    delay: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the closer's FIN.
    fin: Option<SeqNum>,
    /// When its ACK leaves, once the other FIN has left.
    acked: Option<Instant>,
}

impl Fault for SimultaneousClose {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let socket = engine == Engine::Exec && self.direction == Direction::Downstream;
        socket.then_some(SERVER_IS_SOCKET)
    }

    /// The closer's FIN, and what is sent to the closer.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let fin = at == where_fin_enters(self.direction, progress) && seg.has(Flags::FIN);
        fin || (at == Point { leg: self.direction.enters(), way: Way::Out } && seg.has(Flags::ACK))
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let state = moment.memory.of::<State>();
        if moment.at.way == Way::In {
            state.fin = Some(fin_number(seg));
            // A leg that is through would answer a FIN sent again by a RST.
            let early = state.acked.is_some_and(|at| moment.now < at);
            return if early { Verdict::Drop } else { Verdict::Pass };
        }
        let open = state.acked.is_none();
        let Some(fin) = state.fin.filter(|fin| open && seg.ack.after(*fin)) else { return Verdict::Pass };
        let whole = seg.ack;
        seg.ack = fin;
        if seg.has(Flags::FIN) {
            // Held at least a moment, so that it does not overtake the FIN.
            let delay = self.delay.max(Duration::from_micros(1));
            state.acked = Some(moment.now + delay);
            let seq = fin_number(seg) + 1;
            let ack = Segment { seq, ack: whole, flags: Flags::ACK, ..super::tail::bare_end(seg) };
            moment.send(moment.at.leg, ack, delay);
        }
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, refused};
    use crate::trace::Leg;

    #[test]
    fn the_closers_fin_is_acknowledged_after_the_other_one() {
        let mut flow = Flow::of("simultaneous-close");
        flow.established();
        let at = |way| Point { leg: Leg::Client, way };
        let seg =
            |seq, ack, flags| Segment { seq: SeqNum(seq), ack: SeqNum(ack), flags, ..Segment::default() };
        let fin = Flags::FIN | Flags::ACK;
        let acked = |flow: &mut Flow, mut seg: Segment| {
            flow.judge(at(Way::Out), &mut seg);
            seg.ack.0
        };
        assert_eq!(acked(&mut flow, seg(1, 100, Flags::ACK)), 100, "before the FIN");
        assert_eq!(flow.judge(at(Way::In), &mut seg(100, 1, fin)), Verdict::Pass);
        assert_eq!(acked(&mut flow, seg(1, 101, Flags::ACK)), 100, "not yet");
        assert_eq!(acked(&mut flow, seg(1, 101, fin)), 100, "the FINs cross");
        let deeds = flow.deeds();
        let [Deed::Send { leg: Leg::Client, segment, after }] = &deeds[..] else { panic!("{deeds:?}") };
        let seen = (segment.seq.0, segment.ack.0, segment.flags, after.as_millis());
        assert_eq!(seen, (2, 101, Flags::ACK, 10));
        assert_eq!(acked(&mut flow, seg(2, 101, Flags::ACK)), 101, "from then on");
        assert_eq!(
            flow.at(9).judge(at(Way::In), &mut seg(100, 1, fin)),
            Verdict::Drop,
            "sent again in CLOSING"
        );
        assert_eq!(flow.at(10).judge(at(Way::In), &mut seg(100, 1, fin)), Verdict::Pass);
    }

    #[test]
    fn exec_can_do_it_to_the_client_only() {
        assert_eq!(refused("simultaneous-close", Engine::Exec), None);
        assert!(
            refused("simultaneous-close direction=downstream", Engine::Exec)
                .is_some_and(|why| why.contains("socket"))
        );
    }
}
