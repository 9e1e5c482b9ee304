//! `fin-overtakes`: the FIN arrives before the last bytes.

use std::sync::Arc;

use super::tail::{Tail, bare_end, cut};
use super::{SERVER_IS_SOCKET, fin_number, where_it_leaves};
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::time::{Duration, Instant};
use crate::trace::Direction;
use crate::wire::{Flags, Segment, SeqNum};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "fin-overtakes",
    summary: "lets the FIN overtake the last bytes, which come late or never",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "fin-overtakes direction=downstream bytes=500 hold=300ms",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "Whose FIN overtakes its data: downstream the server's, upstream the client's.",
        },
        AttributeDoc {
            name: "bytes",
            unit: Unit::Bytes,
            default: "1000",
            zero: "nothing is overtaken",
            doc: "The last bytes of the stream that are overtaken. They are kept back until the end is known: where no FIN \
                  follows before our TCP sends them again (after 200 ms for up to one segment, sooner for more), they come as \
                  late as a lost segment.",
        },
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 300 },
            default: "300ms",
            zero: "right behind the FIN",
            doc: "How long after the FIN the overtaken bytes arrive.",
        },
        AttributeDoc {
            name: "lose",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "True: the overtaken bytes never arrive, however often they are sent.",
        },
    ],
    bounds: &["after_bytes", "after"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T3",
        incident: "paths of unequal length, and drivers with several queues; measured on Linux 6.18",
    },
    also: &[],
    scene: Scene { rule: "fin-overtakes bytes=500 hold=100ms", play: Play::ServerCloses },
    sees: "nothing of the overtaken bytes and no end-of-file until they arrive, then both. Lost: never end-of-file.",
    build: |reader, _| {
        let bytes = reader.bytes("bytes")?.unwrap_or_default();
        Ok(Arc::new(FinOvertakes {
            direction: reader.direction("direction")?,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            hold: reader.duration("hold")?.unwrap_or_default(),
            lose: reader.flag("lose")?.unwrap_or(false),
        }))
    },
};

#[derive(Debug)]
struct FinOvertakes {
    direction: Direction,
    bytes: u32,
    hold: Duration,
    lose: bool,
}

#[derive(Debug, Default)]
struct State {
    tail: Tail,
    /// The first overtaken byte and when it may arrive, once the FIN has left.
    overtaken: Option<(SeqNum, Option<Instant>)>,
}

impl Fault for FinOvertakes {
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
        let ends = seg.flags.any(Flags::FIN) || !seg.payload.is_empty();
        at == where_it_leaves(self.direction) && ends && !seg.flags.any(Flags::SYN | Flags::RST)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let mut state = std::mem::take(moment.memory.of::<State>());
        let verdict = match state.overtaken {
            Some((from, until)) => {
                let missing = until.is_none_or(|until| moment.now < until);
                if missing { without(from, seg) } else { Verdict::Pass }
            }
            None if seg.has(Flags::FIN) => self.overtake(&mut state, moment, seg),
            None => state.tail.on_data(moment, seg, self.bytes),
        };
        *moment.memory.of::<State>() = state;
        verdict
    }
}

impl FinOvertakes {
    fn overtake(&self, state: &mut State, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let with_data = !seg.payload.is_empty();
        let tail = state.tail.on_end(moment, seg, self.bytes);
        let from = tail.front().map_or_else(|| fin_number(seg), |first| first.seq);
        state.overtaken = Some((from, (!self.lose).then(|| moment.now + self.hold)));
        if !self.lose {
            // A delay of its own, however short, lets the FIN go first.
            let hold = self.hold.max(Duration::from_micros(1));
            tail.into_iter().for_each(|segment| moment.send(moment.at.leg, segment, hold));
        }
        if with_data { Verdict::Rewrite } else { Verdict::Pass }
    }
}

/// A segment sent again, without the bytes from this number on.
fn without(from: SeqNum, seg: &mut Segment) -> Verdict {
    let end = fin_number(seg);
    if end.at_or_before(from) {
        return Verdict::Pass;
    }
    if seg.seq.before(from) {
        *seg = cut(seg, 0, from.diff(seg.seq) as u32);
        return Verdict::Rewrite;
    }
    if seg.has(Flags::FIN) {
        *seg = bare_end(seg);
        return Verdict::Rewrite;
    }
    Verdict::Drop
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, refused};
    use crate::trace::Leg;

    const OUT: Point = Point { leg: Leg::Client, way: Way::Out };
    const ACK: Flags = Flags::ACK;
    const FIN: Flags = Flags::FIN.with(Flags::ACK);

    fn data(seq: u32, len: usize, flags: Flags) -> Segment {
        Segment { seq: SeqNum(seq), flags, payload: [7; 100][..len].into(), ..Segment::default() }
    }

    /// What leaves at this moment or later: time, first number, bytes, `F` for a FIN.
    fn leaves(flow: &mut Flow, mut seg: Segment) -> Vec<String> {
        let told = |seg: &Segment, after: u128| {
            let fin = if seg.has(Flags::FIN) { " F" } else { "" };
            format!("{after}: {} +{}{fin}", seg.seq.0, seg.payload.len())
        };
        let verdict = flow.judge(OUT, &mut seg);
        let deeds = flow.deeds().into_iter().map(|deed| match deed {
            Deed::Send { segment, after, .. } => told(&segment, after.as_millis()),
            other => panic!("{other:?}"),
        });
        let own = (verdict != Verdict::Drop).then(|| told(&seg, 0));
        deeds.chain(own).collect()
    }

    #[test]
    fn the_last_bytes_come_after_the_fin_to_the_byte() {
        for (rule, with_fin) in
            [("fin-overtakes bytes=150", false), ("fin-overtakes bytes=150 hold=1s", true)]
        {
            let mut flow = Flow::of(rule);
            flow.established();
            assert_eq!(leaves(&mut flow, data(1, 100, ACK)), [""; 0], "kept");
            assert_eq!(
                leaves(&mut flow, data(101, 100, ACK)),
                ["0: 1 +50"],
                "50 bytes are not the last 150 any more"
            );
            let later = if with_fin { 1000 } else { 300 };
            let (fin, at) = if with_fin {
                (data(201, 100, FIN), [51, 151, 201])
            } else {
                (data(201, 0, FIN), [51, 51, 101])
            };
            let mut expected = Vec::new();
            if with_fin {
                expected.extend(["0: 51 +50".to_owned(), "0: 101 +50".to_owned()]);
                expected.extend([format!("{later}: 151 +50"), format!("{later}: 201 +100")]);
                expected.push("0: 301 +0 F".to_owned());
            } else {
                expected.extend([format!("{later}: {} +50", at[0]), format!("{later}: 101 +100")]);
                expected.push("0: 201 +0 F".to_owned());
            }
            assert_eq!(leaves(&mut flow, fin), expected, "{rule}");
        }
    }

    #[test]
    fn bytes_that_no_fin_follows_pass_when_they_are_sent_again() {
        let mut flow = Flow::of("fin-overtakes");
        flow.established();
        assert_eq!(leaves(&mut flow, data(1, 100, ACK)), [""; 0]);
        assert_eq!(leaves(flow.at(200), data(1, 100, ACK)), ["0: 1 +100"]);
        assert_eq!(leaves(&mut flow, data(101, 0, FIN)), ["0: 101 +0 F"], "nothing is kept any more");
    }

    #[test]
    fn what_is_sent_again_behind_the_fin_waits_as_well_or_is_lost_for_ever() {
        for (rule, late) in [("fin-overtakes bytes=50", true), ("fin-overtakes bytes=50 lose=true", false)] {
            let mut flow = Flow::of(rule);
            flow.established();
            assert_eq!(leaves(&mut flow, data(1, 100, ACK)), ["0: 1 +50"]);
            leaves(&mut flow, data(101, 0, FIN));
            for at in [100, 299, 300, 3_000_000] {
                let whole = late && at >= 300;
                let flow = flow.at(at);
                assert_eq!(
                    leaves(flow, data(1, 100, ACK)),
                    [if whole { "0: 1 +100" } else { "0: 1 +50" }],
                    "{rule} {at}"
                );
                assert_eq!(
                    leaves(flow, data(51, 50, FIN)),
                    [if whole { "0: 51 +50 F" } else { "0: 101 +0 F" }]
                );
                assert_eq!(leaves(flow, data(51, 50, ACK)).len(), usize::from(whole));
            }
        }
    }

    #[test]
    fn exec_can_do_it_to_the_client_only() {
        assert_eq!(refused("fin-overtakes", Engine::Exec), None);
        assert!(
            refused("fin-overtakes direction=upstream", Engine::Exec)
                .is_some_and(|why| why.contains("socket"))
        );
    }
}
