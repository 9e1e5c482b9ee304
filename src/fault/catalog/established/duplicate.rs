//! `duplicate`: the path delivers segments more than once.

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
    name: "duplicate",
    summary: "delivers segments more than once, at once or later",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "duplicate share=0.05 copies=2",
    attributes: &[
        AttributeDoc {
            name: "copies",
            unit: Unit::Count { from: 1, to: 16 },
            default: "1",
            zero: "",
            doc: "How many more come.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "0",
            zero: "at once",
            doc: "How much later they come.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "both",
            zero: "",
            doc: "What comes more than once: upstream what goes to the server, downstream what goes to the client.",
        },
        Stretch::LEG,
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: Some(("share", "0.05")),
    scales: &[],
    source: Source {
        id: "E20",
        incident: "RFC 2883: paths duplicate segments, and senders repeat what was only late; the receiver tells by D-SACK",
    },
    also: &[],
    scene: Scene {
        rule: "duplicate after_bytes=1 first=2 copies=2 delay=100ms direction=downstream",
        play: Play::Pause,
    },
    sees: "nothing: each byte is read once. The receiver answers each copy with an ACK.",
    build: |reader, _| {
        Ok(Arc::new(Duplicate {
            copies: reader.count("copies")?.and_then(|n| u8::try_from(n).ok()).unwrap_or(1),
            delay: reader.duration("delay")?.unwrap_or_default(),
            stretch: Stretch::read(reader)?,
        }))
    },
};

#[derive(Debug)]
struct Duplicate {
    copies: u8,
    delay: Duration,
    stretch: Stretch,
}

impl Fault for Duplicate {
    fn direction(&self) -> Direction {
        self.stretch.direction()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        self.stretch.refusal(engine)
    }

    fn per_segment(&self) -> bool {
        true
    }

    fn selects(&self, at: Point, _: &Segment, _: &Progress) -> bool {
        self.stretch.has(at)
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        match self.delay.is_zero() {
            true => Verdict::Duplicate(self.copies),
            false => Verdict::Echo(self.copies, self.delay),
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
    fn copies_come_at_once_or_later() {
        for (rule, verdict) in [
            ("duplicate nth=1", Verdict::Duplicate(1)),
            ("duplicate nth=1 copies=16", Verdict::Duplicate(16)),
            ("duplicate nth=1 copies=2 delay=1s", Verdict::Echo(2, Duration::from_secs(1))),
            ("duplicate nth=2", Verdict::Pass),
            ("duplicate nth=1 direction=downstream", Verdict::Pass),
            ("duplicate nth=1 leg=server", Verdict::Pass),
        ] {
            let at = Point { leg: Leg::Client, way: Way::In };
            assert_eq!(Flow::of(rule).judge(at, &mut seg(Flags::ACK)), verdict, "{rule}");
        }
        assert!(error("duplicate copies=17").contains("too large"));
        assert!(refused("duplicate leg=server", Engine::Exec).is_some());
    }
}
