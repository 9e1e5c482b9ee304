//! `timestamp-mangle`: somebody on the path spoils the timestamps.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS_BOTH;
use crate::fault::catalog::stretch::Stretch;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment, Timestamps};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "timestamp-mangle",
    summary: "freezes, zeroes or rewinds the timestamps of an open connection, so that its segments look old",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "timestamp-mangle mode=rewind by=10s after_bytes=64KiB",
    attributes: &[
        AttributeDoc {
            name: "mode",
            unit: Unit::Word(&["freeze", "zero", "rewind"]),
            default: "rewind",
            zero: "",
            doc: "freeze: TSval stays as it is at the start; nothing is old, but round trips look ever longer. zero: TSval is 0, which is old for the \
                  half of the senders whose clock is below 2^31. rewind: TSval is `by` less, which is old until that time has passed.",
        },
        AttributeDoc {
            name: "by",
            unit: Unit::Duration { max_secs: 2_000_000 },
            default: "1h",
            zero: "changes nothing",
            doc: "How far mode=rewind goes back, in ticks of 1 ms as Linux has them.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "downstream",
            zero: "",
            doc: "Whose timestamps: upstream of what goes to the server, downstream of what goes to the client.",
        },
        Stretch::LEG,
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: Some(("after_bytes", "1")),
    scales: &[],
    source: Source {
        id: "E24",
        incident: "PAWS (RFC 7323 §5): Linux throws away what is older than the last, answers pure ACKs at most once per 500 ms \
                   (net.ipv4.tcp_invalid_ratelimit) and data each time",
    },
    also: &[],
    scene: Scene { rule: "timestamp-mangle mode=rewind by=1s", play: Play::Talk },
    sees: "the connection freezes although packets flow both ways; no error before the sender gives up.",
    build: |reader, _| {
        let stretch = Stretch::read(reader)?;
        let by = reader.duration("by")?.unwrap_or_default();
        let mode = match reader.word("mode")? {
            Some("freeze") => Mode::Freeze,
            Some("zero") => Mode::Zero,
            _ => Mode::Rewind(u32::try_from(by.as_millis()).unwrap_or(u32::MAX)),
        };
        Ok(Arc::new(TimestampMangle { mode, stretch }))
    },
};

#[derive(Clone, Copy, Debug)]
enum Mode {
    Freeze,
    Zero,
    /// By this many ticks.
    Rewind(u32),
}

#[derive(Debug)]
struct TimestampMangle {
    mode: Mode,
    stretch: Stretch,
}

/// The frozen TSval, upstream and downstream.
type State = [Option<u32>; 2];

impl Fault for TimestampMangle {
    fn direction(&self) -> Direction {
        self.stretch.direction()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        self.stretch.refusal(engine)
    }

    /// Not those of a SYN: a clock that is always late by the same time is right. PAWS lets RSTs pass.
    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        let open = !seg.flags.any(Flags::SYN | Flags::RST);
        self.stretch.has(at) && open && seg.options.timestamps.is_some()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let Some(Timestamps { val, ecr }) = seg.options.timestamps else { return Verdict::Pass };
        let val = match self.mode {
            Mode::Zero => 0,
            Mode::Rewind(ticks) => val.wrapping_sub(ticks),
            Mode::Freeze => *moment.memory.of::<State>()[moment.at.direction() as usize].get_or_insert(val),
        };
        seg.options.timestamps = Some(Timestamps { val, ecr });
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::trace::Leg;

    #[test]
    fn clocks_stand_still_or_go_back() {
        for (sentence, rule, seen) in [
            ("the clock stands", "timestamp-mangle mode=freeze", [100, 100, 100]),
            ("it is gone", "timestamp-mangle mode=zero", [0, 0, 0]),
            ("it goes back, past zero", "timestamp-mangle by=200ms", [u32::MAX - 99, 0, 100]),
            ("within its bounds", "timestamp-mangle mode=zero nth=2", [100, 0, 300]),
            ("in its direction", "timestamp-mangle mode=zero nth=1 direction=upstream", [100, 200, 300]),
        ] {
            let mut flow = Flow::of(rule);
            flow.received(1, 1);
            let vals = [100, 200, 300].map(|val| {
                let mut segment = seg(Flags::ACK);
                segment.options.timestamps = Some(Timestamps { val, ecr: 7 });
                flow.judge(Point { leg: Leg::Client, way: Way::Out }, &mut segment);
                assert_eq!(
                    segment.options.timestamps.map(|ts| ts.ecr),
                    Some(7),
                    "the echo is another's clock"
                );
                segment.options.timestamps.unwrap().val
            });
            assert_eq!(vals, seen, "{sentence}");
        }
    }

    #[test]
    fn syns_resets_and_segments_without_timestamps_are_left_alone() {
        let mut flow = Flow::of("timestamp-mangle first=all");
        let with = |flags| {
            let mut segment = seg(flags);
            segment.options.timestamps = Some(Timestamps { val: 5, ecr: 7 });
            segment
        };
        let all = [with(Flags::SYN | Flags::ACK), with(Flags::RST), seg(Flags::ACK), with(Flags::ACK)];
        let seen: String = all.iter().map(|segment| flow.letter(Leg::Client, Way::Out, segment)).collect();
        assert_eq!(seen, "PPPR");
        assert!(refused("timestamp-mangle leg=server", Engine::Exec).is_some());
    }
}
