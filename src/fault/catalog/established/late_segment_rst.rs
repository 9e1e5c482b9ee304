//! `late-segment-rst`: a segment that comes late meets a host that does not know it, and that host resets the sender.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Memory, Moment, Play, Point, Progress, Scene, Source, Topic,
    Unit, Verdict, Way,
};
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "late-segment-rst",
    summary: "replays an old segment with data to its receiver, then resets its sender with an exact RST",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "late-segment-rst hold=3s after_bytes=1MiB",
    attributes: &[
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 300 },
            default: "3s",
            zero: "the copy comes at once",
            doc: "How late the copy of the segment comes.",
        },
        AttributeDoc {
            name: "rst_after",
            unit: Unit::Duration { max_secs: 300 },
            default: "10ms",
            zero: "at once",
            doc: "How long after the copy the sender gets its RST: a round trip.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the segment: downstream the client gets the copy and the server the RST, upstream the other way round.",
        },
    ],
    bounds: &["nth", "after_bytes", "after", "at"],
    default_bound: Some(("after_bytes", "1MiB")),
    scales: &[],
    source: Source {
        id: "E18",
        incident: "kubernetes/kubernetes#74839, #117924, moby/libnetwork#1090, distribution/distribution#785: conntrack calls a late segment \
                   INVALID, it passes without NAT, and a host without such a socket answers with RST",
    },
    also: &[],
    scene: Scene { rule: "late-segment-rst hold=500ms after_bytes=1", play: Play::Pause },
    sees: "ECONNRESET in the middle of a big transfer: the sender at once, the receiver when it next acknowledges.",
    build: |reader, _| {
        Ok(Arc::new(LateSegmentRst {
            hold: reader.duration("hold")?.unwrap_or_default(),
            rst_after: reader.duration("rst_after")?.unwrap_or_default(),
            direction: reader.direction("direction")?,
        }))
    },
};

#[derive(Debug)]
struct LateSegmentRst {
    hold: Duration,
    rst_after: Duration,
    direction: Direction,
}

/// When the RST is due, once a segment is kept.
type State = Option<Instant>;

impl Fault for LateSegmentRst {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Exec && self.direction == Direction::Upstream).then_some(SERVER_IS_SOCKET)
    }

    /// Where it leaves: its receiver gets the copy.
    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at == Point { leg: self.direction.leaves(), way: Way::Out } && !seg.payload.is_empty()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let due = moment.now + self.hold + self.rst_after;
        let state = moment.memory.of::<State>();
        if state.is_some() {
            return Verdict::Pass;
        }
        *state = Some(due);
        // One segment is late, whatever it left with.
        if let Some(first) = seg.clone().split().next() {
            moment.send(moment.at.leg, first, self.hold);
        }
        Verdict::Pass
    }

    fn action(&self) -> Option<Action> {
        let sender = self.direction.enters();
        Some(Action::Reset { client: sender == Leg::Client, server: sender == Leg::Server })
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        *memory.get::<State>()?
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::wire::{Flags, SeqNum};

    fn data(seq: u32) -> Segment {
        let payload = Bytes::from(vec![0; 2896]).into();
        Segment { seq: SeqNum(seq), payload, gso_size: 1448, ..seg(Flags::ACK) }
    }

    #[test]
    fn one_segment_is_replayed_and_then_its_sender_is_reset_once() {
        for (rule, to, first, kept, reset) in [
            ("late-segment-rst after_bytes=0", Leg::Client, 1, 100, (false, true)),
            ("late-segment-rst nth=2", Leg::Client, 1, 200, (false, true)),
            ("late-segment-rst after_bytes=0 direction=upstream", Leg::Server, 1, 100, (true, false)),
        ] {
            let mut flow = Flow::of(rule);
            flow.at(0).established();
            for (at, seq) in [(100, 100), (200, 200), (300, 300)] {
                assert_eq!(flow.at(at).letter(to, Way::Out, &data(seq)), 'P', "{rule}");
            }
            let deeds = flow.deeds();
            assert_eq!(deeds.len(), first, "{rule}");
            let Deed::Send { leg, segment, after } = &deeds[0] else { panic!("{deeds:?}") };
            assert_eq!((*leg, segment.seq, *after), (to, SeqNum(kept), Duration::from_secs(3)), "{rule}");
            assert_eq!(
                (segment.payload.len(), segment.gso_size),
                (1448, 0),
                "one segment, not a super-segment"
            );
            let due = u64::from(kept) + 3010;
            assert_eq!(flow.at(due - 1).action(), None, "{rule}");
            assert_eq!(flow.timeout(), Some(Instant::from_millis(due)), "{rule}");
            let (client, server) = reset;
            assert_eq!(flow.at(due).action(), Some(Action::Reset { client, server }), "{rule}");
            assert_eq!(flow.at(due + 1).action(), None, "{rule}: once");
        }
    }

    #[test]
    fn nothing_is_reset_before_a_segment_is_kept() {
        let mut flow = Flow::of("late-segment-rst after_bytes=10");
        flow.at(0).established();
        assert_eq!(flow.letter(Leg::Client, Way::Out, &data(1)), 'P');
        assert_eq!((flow.at(9000).received(0, 10).action(), flow.deeds().len()), (None, 0));
    }

    #[test]
    fn a_kernel_socket_gets_no_copy() {
        assert!(refused("late-segment-rst direction=upstream", Engine::Exec).is_some());
        assert_eq!(refused("late-segment-rst", Engine::Exec), None);
    }
}
