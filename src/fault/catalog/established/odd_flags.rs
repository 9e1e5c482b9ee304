//! `odd-flags`: segments with data carry control bits that nobody asked for.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS_BOTH;
use crate::fault::catalog::stretch::Stretch;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

/// The words and what they set.
const FLAGS: [(&str, Flags); 5] = [
    ("urg", Flags::URG),
    ("reserved", Flags::RESERVED),
    ("ece", Flags::ECE),
    ("cwr", Flags::CWR),
    ("ae", Flags::AE),
];

pub(in crate::fault) const KIND: Kind = Kind {
    name: "odd-flags",
    summary: "sets the urgent pointer, reserved bits or ECN bits on segments with data",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "odd-flags flags=urg pointer=1 nth=1",
    attributes: &[
        AttributeDoc {
            name: "flags",
            unit: Unit::Words(&["urg", "reserved", "ece", "cwr", "ae"]),
            default: "urg",
            zero: "",
            doc: "What is set: URG with a `pointer`; the three reserved bits; bits of ECN, which a connection without ECN does not know.",
        },
        AttributeDoc {
            name: "pointer",
            unit: Unit::Count { from: 0, to: 65_535 },
            default: "1",
            zero: "as 1, on Linux",
            doc: "The urgent pointer: the urgent byte is the one before it, counted from the segment's first.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "downstream",
            zero: "",
            doc: "Whose segments: upstream what goes to the server, downstream what goes to the client.",
        },
        Stretch::LEG,
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E29",
        incident: "RFC 6093: middleboxes clear and set the urgent pointer as they like; Linux takes the urgent byte out of the stream, and \
                   ignores reserved bits (RFC 9293 §3.1)",
    },
    also: &[],
    scene: Scene { rule: "odd-flags flags=urg,reserved", play: Play::Talk },
    sees: "urg: one byte of each such segment is missing in what recv() gives; the last one waits for recv(MSG_OOB), with SIGURG and POLLPRI. \
           Other bits: nothing.",
    build: |reader, _| {
        let words = reader.words("flags")?.unwrap_or_default();
        let chosen = FLAGS.into_iter().filter(|(word, _)| words.contains(word));
        let pointer = reader.count("pointer")?.and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        if !words.contains(&"urg") && pointer != 1 {
            return Err(reader.wrong("pointer", "counts with flags=urg only"));
        }
        Ok(Arc::new(OddFlags {
            flags: chosen.fold(Flags::default(), |all, (_, flag)| all | flag),
            pointer,
            stretch: Stretch::read(reader)?,
        }))
    },
};

#[derive(Debug)]
struct OddFlags {
    flags: Flags,
    pointer: u16,
    stretch: Stretch,
}

impl Fault for OddFlags {
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

    fn on_segment(&self, _: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        seg.flags = seg.flags | self.flags;
        if self.flags.has(Flags::URG) {
            seg.urgent = self.pointer;
        }
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::trace::Leg;
    use crate::wire::SegmentNote;

    #[test]
    fn bits_are_set_on_data_only() {
        for (rule, data) in [
            ("odd-flags", "P.U 0:1(1) ack 0 win 0 urg 1"),
            ("odd-flags pointer=7", "P.U 0:1(1) ack 0 win 0 urg 7"),
            ("odd-flags flags=reserved", "P.r 0:1(1) ack 0 win 0"),
            ("odd-flags flags=ece,cwr,ae", "P.EWe 0:1(1) ack 0 win 0"),
            ("odd-flags direction=upstream", "P. 0:1(1) ack 0 win 0"),
        ] {
            let mut flow = Flow::of(rule);
            let at = Point { leg: Leg::Client, way: Way::Out };
            let mut segment = Segment { payload: (&b"x"[..]).into(), ..seg(Flags::PSH | Flags::ACK) };
            flow.judge(at, &mut segment);
            assert_eq!(SegmentNote::from(&segment).to_string(), data, "{rule}");
            let mut ack = seg(Flags::ACK);
            assert_eq!(flow.judge(at, &mut ack), Verdict::Pass, "{rule}");
        }
        assert!(error("odd-flags flags=ece pointer=2").contains("counts with flags=urg only"));
        assert!(refused("odd-flags leg=server", Engine::Exec).is_some());
    }
}
