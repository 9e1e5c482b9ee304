//! `late-segment`: an old segment comes back after the close.

use std::sync::Arc;

use super::{SERVER_IS_SOCKET, fin_number, rst, where_it_leaves};
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict,
};
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "late-segment",
    summary: "sends an old segment once more after the close",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "late-segment direction=downstream segment=data delay=1s",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "Who gets it: downstream the client, upstream the server.",
        },
        AttributeDoc {
            name: "segment",
            unit: Unit::Word(&["data", "fin", "rst"]),
            default: "data",
            zero: "",
            doc: "What comes: the last segment with data, the FIN, or a RST with the number behind the FIN.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "1s",
            zero: "right after the FIN",
            doc: "How long after the FIN of this direction.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T16",
        incident: "RFC 1337: old duplicates after the close, and what they do to TIME-WAIT",
    },
    also: &[Alias { id: "T14", name: "time-wait-assassination", rule: "late-segment segment=rst" }],
    scene: Scene { rule: "late-segment delay=1s", play: Play::Talk },
    sees: "nothing. A host that has closed for good answers RST; one in TIME-WAIT answers old data or FIN by an ACK, and is freed \
           early by an exact RST unless tcp_rfc1337 = 1.",
    build: |reader, _| {
        let what = match reader.word("segment")? {
            Some("fin") => What::Fin,
            Some("rst") => What::Rst,
            _ => What::Data,
        };
        let delay = reader.duration("delay")?.unwrap_or_default();
        Ok(Arc::new(LateSegment { direction: reader.direction("direction")?, what, delay }))
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Data,
    Fin,
    Rst,
}

#[derive(Debug)]
struct LateSegment {
    direction: Direction,
    what: What,
    delay: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The last segment with data.
    data: Option<Segment>,
    ended: bool,
}

impl Fault for LateSegment {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let socket = engine == Engine::Exec && self.direction == Direction::Upstream;
        socket.then_some(SERVER_IS_SOCKET)
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        let about = seg.has(Flags::FIN) || !seg.payload.is_empty();
        at == where_it_leaves(self.direction) && about && !seg.flags.any(Flags::SYN | Flags::RST)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let state = moment.memory.of::<State>();
        if !seg.payload.is_empty() && self.what == What::Data {
            let last = seg.clone().split().last();
            state.data = last.map(|last| Segment { flags: last.flags.without(Flags::FIN), ..last });
        }
        if !seg.has(Flags::FIN) || std::mem::replace(&mut state.ended, true) {
            return Verdict::Pass;
        }
        let late = match self.what {
            What::Data => state.data.take(),
            What::Fin => Some(super::tail::bare_end(seg)),
            What::Rst => Some(Segment { ip: seg.ip, ..rst(fin_number(seg) + 1) }),
        };
        if let Some(late) = late {
            // Held at least a moment, so that it does not overtake the FIN.
            moment.send(moment.at.leg, late, self.delay.max(Duration::from_micros(1)));
        }
        Verdict::Pass
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
    fn one_old_segment_comes_after_the_fin() {
        for (rule, seq, len, flags) in [
            ("late-segment", 11, 10, Flags::ACK),
            ("late-segment segment=fin", 21, 0, Flags::FIN | Flags::ACK),
            ("late-segment segment=rst", 22, 0, Flags::RST),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let out = Point { leg: Leg::Client, way: Way::Out };
            for (seq, flags) in
                [(1, Flags::ACK), (11, Flags::FIN | Flags::ACK), (11, Flags::FIN | Flags::ACK)]
            {
                let mut seg = Segment { seq: SeqNum(seq), flags, ..Segment::default() };
                seg.payload = [7; 10][..].into();
                assert_eq!(flow.judge(out, &mut seg), Verdict::Pass);
            }
            let deeds = flow.deeds();
            let [Deed::Send { leg: Leg::Client, segment, after }] = &deeds[..] else {
                panic!("{rule}: {deeds:?}")
            };
            let seen = (segment.seq, segment.payload.len(), segment.flags, after.as_millis());
            assert_eq!(seen, (SeqNum(seq), len, flags, 1000), "{rule}");
        }
    }

    #[test]
    fn without_data_there_is_nothing_to_send_again() {
        let mut flow = Flow::of("late-segment");
        flow.established();
        let fin = Segment { flags: Flags::FIN | Flags::ACK, ..Segment::default() };
        flow.letter(Leg::Client, Way::Out, &fin);
        assert_eq!(flow.deeds(), []);
    }

    #[test]
    fn exec_can_do_it_to_the_client_only() {
        assert_eq!(refused("late-segment", Engine::Exec), None);
        assert!(
            refused("late-segment direction=upstream", Engine::Exec)
                .is_some_and(|why| why.contains("socket"))
        );
    }
}
