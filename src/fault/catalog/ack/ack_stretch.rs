//! `ack-stretch`: acknowledgements that come few or in heaps.

use std::sync::Arc;

use super::is_pure_ack;
use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::tcp::Knobs;
use crate::tcp::knobs::AckKnob;
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

/// The default of `n`.
const N: u64 = 8;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "ack-stretch",
    summary: "acknowledges many segments at once, or holds ACKs and releases them back to back",
    topic: Topic::Ack,
    engines: &[Engine::Tun, Engine::Exec],
    example: "ack-stretch direction=upstream n=8 time=20ms",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction of the data whose ACKs are meant; upstream: those that the client gets.",
        },
        AttributeDoc {
            name: "mode",
            unit: Unit::Word(&["stretch", "compress"]),
            default: "stretch",
            zero: "",
            doc: "`stretch` sends one ACK for many segments; `compress` holds pure ACKs and releases all of them back to back.",
        },
        AttributeDoc {
            name: "n",
            unit: Unit::Count { from: 1, to: 1000 },
            default: "8",
            zero: "",
            doc: "Full segments that one ACK acknowledges, with mode=stretch. RFC 9293 asks for 2.",
        },
        AttributeDoc {
            name: "time",
            unit: Unit::Duration { max_secs: 60 },
            default: "20ms",
            zero: "every ACK leaves at once",
            doc: "How long an ACK waits at most (stretch), or the first ACK of a heap (compress).",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E9",
        incident: "Linux's tcp_comp_sack_delay_ns and RFC 3449: modems and wireless links thin and bunch the ACKs",
    },
    also: &[],
    scene: Scene { rule: "ack-stretch n=8 time=50ms", play: Play::Upload },
    sees: "a sender that sends in bursts and slower, for its window grows and moves with ACKs. No error.",
    build: |reader, _| {
        let (n, time) = (reader.count("n")?.unwrap_or(N), reader.duration("time")?.unwrap_or_default());
        let mode = match reader.word("mode")? {
            Some("compress") if n != N => {
                return Err(reader.wrong("n", "belongs to mode=stretch: heaps of ACKs end by time"));
            }
            Some("compress") => Mode::Compress,
            _ => Mode::Stretch { n: n as u32 },
        };
        Ok(Arc::new(AckStretch { direction: reader.direction("direction")?, mode, time }))
    },
};

#[derive(Debug)]
enum Mode {
    Stretch { n: u32 },
    Compress,
}

#[derive(Debug)]
struct AckStretch {
    direction: Direction,
    mode: Mode,
    time: Duration,
}

/// When the heap of ACKs is released.
#[derive(Debug, Default)]
struct Release(Instant);

impl Fault for AckStretch {
    fn direction(&self) -> Direction {
        self.direction
    }

    /// The ACKs of a kernel socket cannot be made fewer; those of the client can be held in their place.
    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let stretches = matches!(self.mode, Mode::Stretch { .. });
        (stretches && engine == Engine::Exec && self.direction == Direction::Downstream)
            .then_some(SERVER_IS_SOCKET)
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        matches!(self.mode, Mode::Compress) && is_pure_ack(self.direction, at, seg, progress)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        let release: &mut Release = moment.memory.of();
        if release.0 <= moment.now {
            release.0 = moment.now + self.time;
        }
        match release.0.since(moment.now) {
            Duration::ZERO => Verdict::Pass,
            wait => Verdict::Hold(wait),
        }
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        let Mode::Stretch { n } = self.mode else { return false };
        knobs.ack = AckKnob::Delay { delay: self.time, every: Some(n) };
        leg == self.direction.enters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::wire::Flags;

    #[test]
    fn stretch_turns_the_knob_and_touches_no_segment() {
        for (rule, leg, n, millis) in [
            ("ack-stretch", Leg::Client, 8, 20),
            ("ack-stretch n=3 time=1s direction=downstream", Leg::Server, 3, 1000),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            flow.received(9, 9);
            let delay = Duration::from_millis(millis);
            assert_eq!(flow.knobs(leg).ack, AckKnob::Delay { delay, every: Some(n) }, "{rule}");
            assert_eq!(flow.knobs(leg.other()).ack, AckKnob::Natural, "{rule}");
            assert_eq!(flow.letter(leg, Way::Out, &seg(Flags::ACK)), 'P', "{rule}");
        }
    }

    #[test]
    fn compress_releases_all_acks_of_a_heap_at_the_same_time() {
        let mut flow = Flow::of("ack-stretch mode=compress time=20ms");
        flow.established();
        flow.received(9, 9);
        let released: Vec<_> = [0, 5, 19, 20, 30, 100]
            .into_iter()
            .map(|at| {
                let here = Point { leg: Leg::Client, way: Way::Out };
                match flow.at(at).judge(here, &mut seg(Flags::ACK)) {
                    Verdict::Hold(wait) => at + wait.as_millis() as u64,
                    verdict => panic!("{verdict:?}"),
                }
            })
            .collect();
        assert_eq!(released, [20, 20, 20, 40, 40, 120]);
        assert_eq!(flow.knobs(Leg::Client).ack, AckKnob::Natural);
        assert_eq!(flow.letter(Leg::Client, Way::Out, &seg(Flags::FIN | Flags::ACK)), 'P');
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(error("ack-stretch mode=compress n=4").contains("mode=stretch"));
        assert!(refused("ack-stretch direction=downstream", Engine::Exec).is_some());
        assert_eq!(refused("ack-stretch direction=downstream mode=compress", Engine::Exec), None);
        assert_eq!(refused("ack-stretch", Engine::Exec), None);
        let mut none = Flow::of("ack-stretch mode=compress time=0");
        none.established();
        none.received(9, 9);
        assert_eq!(none.letter(Leg::Client, Way::Out, &seg(Flags::ACK)), 'P', "0 is no wait");
    }
}
