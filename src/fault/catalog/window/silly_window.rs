//! `silly-window`: a receiver that offers its window in crumbs.

use std::sync::Arc;

use super::{DIRECTION, cap_syn, is_our_syn, refusal, unscaled_bytes};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::tcp::Knobs;
use crate::tcp::knobs::WindowKnob;
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "silly-window",
    summary: "opens one writer's window by a few bytes at a time, each time with an update",
    topic: Topic::Window,
    engines: &[Engine::Tun, Engine::Exec],
    example: "silly-window direction=upstream step=1B pause=50ms",
    attributes: &[
        DIRECTION,
        AttributeDoc {
            name: "step",
            unit: Unit::Bytes,
            default: "1B",
            zero: "refused: that is `zero-window-stall`",
            doc: "Bytes by which the window opens, also in the SYN; what is not used adds up. At most 65535 bytes, for our SYN \
                  offers a scale factor of 0.",
        },
        AttributeDoc {
            name: "pause",
            unit: Unit::Duration { max_secs: 3600 },
            default: "50ms",
            zero: "refused, as is all below 1ms",
            doc: "Time from one step to the next. (`every` is the bound.)",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E6",
        incident: "RFC 9293 section 3.8.6.2 and RFC 813: receivers that offer what little they have freed",
    },
    also: &[],
    scene: Scene { rule: "silly-window direction=downstream step=250B pause=150ms", play: Play::Talk },
    sees: "a transfer that crawls, without an error. A sender that avoids silly segments waits until a full one fits or its \
           persist timer runs out. Linux starts that timer (0.2 s) anew with each update: with a shorter pause nothing leaves \
           until a segment has added up, 36 bytes at the least; with a longer one every step leaves by itself.",
    build: |reader, _| {
        let step = unscaled_bytes(reader, "step")?;
        if step == 0 {
            return Err(reader.wrong("step", "a window that never opens is `zero-window-stall`"));
        }
        let pause = reader.duration("pause")?.unwrap_or_default();
        if pause < Duration::from_millis(1) {
            return Err(reader.wrong("pause", "shorter than 1ms"));
        }
        Ok(Arc::new(SillyWindow { direction: reader.direction("direction")?, step, pause }))
    },
};

#[derive(Debug)]
struct SillyWindow {
    direction: Direction,
    step: u32,
    pause: Duration,
}

impl Fault for SillyWindow {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        refusal(engine, self.direction)
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        is_our_syn(self.direction, at, seg)
    }

    fn on_segment(&self, _: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        cap_syn(seg, self.step)
    }

    fn unscaled(&self, leg: Leg) -> bool {
        leg == self.direction.enters()
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        let (step, pause) = (self.step, self.pause);
        knobs.window = WindowKnob::Edge { first: step, step, pause, refuse: false };
        leg == self.direction.enters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::wire::{Flags, RawWindow};

    #[test]
    fn the_window_opens_in_steps_from_the_syn_on() {
        let mut flow = Flow::of("silly-window step=10B pause=20ms direction=downstream for=1s");
        let mut syn = Segment { window: RawWindow(64_240), ..seg(Flags::SYN) };
        assert_eq!(flow.judge(Point { leg: Leg::Server, way: Way::Out }, &mut syn), Verdict::Rewrite);
        assert_eq!(syn.window.0, 10);
        flow.established();
        let pause = Duration::from_millis(20);
        let crumbs = WindowKnob::Edge { first: 10, step: 10, pause, refuse: false };
        assert_eq!(flow.knobs(Leg::Server).window, crumbs);
        assert_eq!(flow.knobs(Leg::Client).window, WindowKnob::Natural);
        assert!(flow.plan.is_unscaled(Leg::Server) && !flow.plan.is_unscaled(Leg::Client));
        assert_eq!(flow.at(1000).knobs(Leg::Server).window, WindowKnob::Natural);
    }

    #[test]
    fn steps_that_never_come_or_never_end_are_refused() {
        assert!(error("silly-window step=0").contains("zero-window-stall"));
        assert!(error("silly-window pause=0").contains("1ms"));
        assert!(error("silly-window step=100kB").contains("65535"));
        assert!(refused("silly-window direction=downstream", Engine::Exec).is_some());
        assert_eq!(refused("silly-window", Engine::Exec), None);
    }
}
