//! `window-shrink`: a receiver that takes back the window that it has offered.

use std::sync::Arc;

use super::{DIRECTION, refusal, unscaled_bytes};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::tcp::Knobs;
use crate::tcp::knobs::WindowKnob;
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "window-shrink",
    summary: "moves the right edge of one writer's window left, below what it has sent, for a while",
    topic: Topic::Window,
    engines: &[Engine::Tun, Engine::Exec],
    example: "window-shrink direction=upstream to=1000B hold=5s after_bytes=16KiB",
    attributes: &[
        DIRECTION,
        AttributeDoc {
            name: "to",
            unit: Unit::Bytes,
            default: "1000B",
            zero: "the window closes",
            doc: "What is left of the window, counted from what has arrived; at most 65535 bytes, for our SYN offers a scale \
                  factor of 0.",
        },
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "5s",
            zero: "no change",
            doc: "How long the window stays small; an update gives it back.",
        },
        AttributeDoc {
            name: "take",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "Whether what fits the window that is left is taken and acknowledged; then the window is closed, and Linux \
                  repeats the first full segment beyond it. False: the receiver has no memory at all, and nothing is \
                  acknowledged.",
        },
    ],
    bounds: &["after_bytes", "after", "at", "every"],
    default_bound: Some(("after_bytes", "16KiB")),
    scales: &[],
    source: Source {
        id: "E5",
        incident: "RFC 7323 section 2.4 and Linux's tcp_shrink_window: receivers that run out of memory take windows back",
    },
    also: &[],
    scene: Scene { rule: "window-shrink to=1000B hold=1200ms", play: Play::Upload },
    sees: "the transfer stops and goes on, without an error and without a wrong byte. Linux repeats pieces of the size that is \
           left after 0.2, 0.6, 1.4, 3.1 s, doubling, and notices the update at the next of these.",
    build: |reader, bounds| {
        bounds.lasts = reader.duration("hold")?;
        Ok(Arc::new(WindowShrink {
            direction: reader.direction("direction")?,
            to: unscaled_bytes(reader, "to")?,
            take: reader.flag("take")?.unwrap_or(false),
        }))
    },
};

#[derive(Debug)]
struct WindowShrink {
    direction: Direction,
    to: u32,
    take: bool,
}

/// The writer has been told, and what fits may come.
#[derive(Debug, Default)]
struct Told(bool);

impl Fault for WindowShrink {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        refusal(engine, self.direction)
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at.leg == self.direction.enters()
            && match at.way {
                Way::In => seg.seq_len() > 0,
                Way::Out => self.take,
            }
    }

    /// What comes before the news has left was sent into the window as it was: it is what the new edge must lie below.
    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        let told: &mut Told = moment.memory.of();
        told.0 |= moment.at.way == Way::Out;
        if told.0 { Verdict::Pass } else { Verdict::Drop }
    }

    fn unscaled(&self, leg: Leg) -> bool {
        leg == self.direction.enters()
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        knobs.window = WindowKnob::Edge { first: self.to, step: 0, pause: Duration::ZERO, refuse: true };
        leg == self.direction.enters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::wire::{Flags, Payload};

    fn data() -> Segment {
        Segment { payload: Payload::from(bytes::Bytes::from_static(b"x")), ..seg(Flags::ACK) }
    }

    #[test]
    fn the_edge_is_moved_for_the_hold_and_nothing_beyond_it_is_taken() {
        let small = WindowKnob::Edge { first: 1000, step: 0, pause: Duration::ZERO, refuse: true };
        for (rule, letters) in [
            ("window-shrink hold=2s after_bytes=10", "PPDDP"),
            ("window-shrink hold=2s after_bytes=10 take=true", "PPDPP"),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let (mut seen, mut windows) = (String::new(), Vec::new());
            for (at, bytes) in [(0, 0), (100, 9), (200, 10), (2199, 10), (2200, 10)] {
                flow.at(at).received(bytes, 0);
                windows.push(flow.knobs(Leg::Client).window);
                seen.push(flow.letter(Leg::Client, Way::In, &data()));
                for way in [Way::In, Way::Out] {
                    assert_eq!(flow.letter(Leg::Client, way, &seg(Flags::ACK)), 'P', "ACKs go on");
                }
                assert_eq!(flow.letter(Leg::Server, Way::In, &data()), 'P', "the other way goes on");
            }
            assert_eq!(seen, letters, "{rule}");
            let natural = WindowKnob::Natural;
            assert_eq!(windows, [natural, natural, small, small, natural], "{rule}");
        }
    }

    #[test]
    fn windows_that_no_field_can_say_are_refused() {
        assert!(error("window-shrink to=64KiB").contains("65535"));
        assert!(Flow::of("window-shrink").plan.is_unscaled(Leg::Client));
        assert!(refused("window-shrink direction=downstream", Engine::Exec).is_some());
        assert_eq!(refused("window-shrink", Engine::Exec), None);
    }
}
