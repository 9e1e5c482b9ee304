//! `reorder`: later segments overtake earlier ones.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS_BOTH;
use crate::fault::catalog::stretch::Stretch;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "reorder",
    summary: "lets later segments overtake a segment with data, by count or by time",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "reorder share=0.05 segments=3",
    attributes: &[
        AttributeDoc {
            name: "segments",
            unit: Unit::Count { from: 0, to: 100 },
            default: "3",
            zero: "only `delay` counts",
            doc: "How many later segments overtake it. From 3 on the sender takes it for lost (RFC 5681 §3.2; Linux until it has \
                  learnt better).",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "100ms",
            zero: "refused: nothing overtakes",
            doc: "How long it waits for them at the most; without `segments` how late it is.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "both",
            zero: "",
            doc: "What is overtaken: upstream what goes to the server, downstream what goes to the client.",
        },
        Stretch::LEG,
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: Some(("share", "0.05")),
    scales: &[],
    source: Source {
        id: "E21",
        incident: "RFC 4737: parallel links and queues reorder; Linux takes a hole for a loss after 3 duplicate ACKs \
                   (net.ipv4.tcp_reordering)",
    },
    also: &[],
    scene: Scene { rule: "reorder nth=2 segments=3 direction=downstream", play: Play::Download },
    sees: "nothing but time: a needless retransmission and a halved rate; each byte is read once and in order.",
    build: |reader, _| {
        let delay = reader.duration("delay")?.unwrap_or_default();
        if delay.is_zero() {
            return Err(reader.wrong("delay", "nothing can overtake what does not wait"));
        }
        let segments = reader.count("segments")?.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
        Ok(Arc::new(Reorder { segments, delay, stretch: Stretch::read(reader)? }))
    },
};

#[derive(Debug)]
struct Reorder {
    segments: u8,
    delay: Duration,
    stretch: Stretch,
}

impl Fault for Reorder {
    fn direction(&self) -> Direction {
        self.stretch.direction()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        self.stretch.refusal(engine)
    }

    fn per_segment(&self) -> bool {
        true
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        self.stretch.has(at) && !seg.payload.is_empty()
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        match self.segments {
            0 => Verdict::Hold(self.delay),
            segments => Verdict::Behind(segments, self.delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::trace::Leg;
    use crate::wire::Flags;

    #[test]
    fn data_wait_for_later_segments_or_for_a_time() {
        let data = || Segment { payload: (&b"x"[..]).into(), ..seg(Flags::ACK) };
        let tenth = Duration::from_millis(100);
        for (rule, first, ack, second) in [
            ("reorder nth=1", Verdict::Behind(3, tenth), Verdict::Pass, Verdict::Pass),
            ("reorder nth=2 segments=1", Verdict::Pass, Verdict::Pass, Verdict::Behind(1, tenth)),
            ("reorder nth=1 segments=0", Verdict::Hold(tenth), Verdict::Pass, Verdict::Pass),
            ("reorder nth=1 direction=downstream", Verdict::Pass, Verdict::Pass, Verdict::Pass),
        ] {
            let mut flow = Flow::of(rule);
            let at = Point { leg: Leg::Client, way: Way::In };
            let seen = [data(), seg(Flags::ACK), data()].map(|mut seg| flow.judge(at, &mut seg));
            assert_eq!(seen, [first, ack, second], "{rule}");
        }
        assert!(error("reorder delay=0").contains("nothing can overtake what does not wait"));
        assert!(refused("reorder leg=server", Engine::Exec).is_some());
    }
}
