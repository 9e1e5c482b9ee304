//! `tiny-window`: a receiver with very little room.

use std::sync::Arc;

use super::{DIRECTION, UNSCALED, cap_syn, is_our_syn, refusal};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::tcp::Knobs;
use crate::tcp::knobs::WindowKnob;
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "tiny-window",
    summary: "offers one writer never more than a small window, from the SYN on",
    topic: Topic::Window,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "tiny-window direction=upstream window=512B",
    attributes: &[
        DIRECTION,
        AttributeDoc {
            name: "window",
            unit: Unit::Bytes,
            default: "512B",
            zero: "refused: that is `zero-window-stall`",
            doc: "The most that is offered. Up to 65535 bytes our SYN offers a scale factor of 0, so that it is exact to the \
                  byte; above, it is rounded down to a multiple of the scale. A kernel socket takes 1152 bytes and more: it is \
                  the size of its SO_RCVBUF, of which Linux offers whole segments only, and later up to twice as much.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E4",
        incident: "postfix-users msg20259, squid KnowledgeBase/BrokenWindowSize: a firewall that takes the window scale out of one \
                   SYN leaves 502 bytes of 64 KB",
    },
    also: &[],
    scene: Scene { rule: "tiny-window direction=downstream window=512B", play: Play::Talk },
    sees: "a transfer at one window per round trip, in many small segments: 512 bytes at 50 ms are 10 kB/s. Nothing fails; an \
           idle timeout does not fire, only one for progress does. This is also what a broken window scale leads to.",
    build: |reader, _| {
        let window = reader.bytes("window")?.unwrap_or_default();
        if window == 0 {
            return Err(reader.wrong("window", "a window of zero is `zero-window-stall`"));
        }
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        Ok(Arc::new(TinyWindow { direction: reader.direction("direction")?, window }))
    },
};

/// Half of the smallest buffer that Linux gives a socket (`SOCK_MIN_RCVBUF`).
const SMALLEST: u32 = 1152;
const OFFERS: &str = "its kernel sockets offer 1152 bytes at least: window=1152B";

#[derive(Debug)]
struct TinyWindow {
    direction: Direction,
    window: u32,
}

impl Fault for TinyWindow {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        if engine == Engine::Sockets {
            return (self.window < SMALLEST).then_some(OFFERS);
        }
        refusal(engine, self.direction)
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        is_our_syn(self.direction, at, seg)
    }

    fn on_segment(&self, _: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        cap_syn(seg, self.window)
    }

    fn unscaled(&self, leg: Leg) -> bool {
        leg == self.direction.enters() && u64::from(self.window) <= UNSCALED
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        knobs.window = WindowKnob::Cap(self.window);
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
    fn the_syn_and_all_that_follows_are_capped_towards_the_writer() {
        for (rule, leg, cap, syn) in [
            ("tiny-window", Leg::Client, 512, 512),
            ("tiny-window window=1000 direction=downstream", Leg::Server, 1000, 1000),
            ("tiny-window window=65535", Leg::Client, 65_535, 64_240),
            ("tiny-window window=100kB", Leg::Client, 100_000, 64_240),
        ] {
            let mut flow = Flow::of(rule);
            let syn_ack = Segment { window: RawWindow(64_240), ..seg(Flags::SYN | Flags::ACK) };
            for (at, way, expected) in
                [(leg, Way::Out, syn), (leg, Way::In, 64_240), (leg.other(), Way::Out, 64_240)]
            {
                let mut seen = syn_ack.clone();
                flow.judge(Point { leg: at, way }, &mut seen);
                assert_eq!(seen.window.0, expected, "{rule} {way:?}");
            }
            assert_eq!(flow.plan.is_unscaled(leg), cap <= 65_535, "{rule}");
            assert!(!flow.plan.is_unscaled(leg.other()), "{rule}");
            flow.established();
            assert_eq!(flow.knobs(leg).window, WindowKnob::Cap(cap), "{rule}");
            assert_eq!(flow.knobs(leg.other()).window, WindowKnob::Natural, "{rule}");
        }
    }

    #[test]
    fn with_after_the_syn_is_honest() {
        let mut flow = Flow::of("tiny-window after=1s for=1s");
        let mut syn_ack = Segment { window: RawWindow(64_240), ..seg(Flags::SYN | Flags::ACK) };
        flow.judge(Point { leg: Leg::Client, way: Way::Out }, &mut syn_ack);
        assert_eq!(syn_ack.window.0, 64_240);
        flow.established();
        let seen = [0, 1000, 2000].map(|at| flow.at(at).knobs(Leg::Client).window);
        assert_eq!(seen, [WindowKnob::Natural, WindowKnob::Cap(512), WindowKnob::Natural]);
    }

    #[test]
    fn a_window_of_zero_and_the_windows_of_a_kernel_socket_are_refused() {
        assert!(error("tiny-window window=0").contains("zero-window-stall"));
        assert_eq!(refused("tiny-window", Engine::Exec), None);
        for (window, refuses) in [(1151, true), (1152, false)] {
            let rule = format!("tiny-window window={window}");
            assert_eq!(refused(&rule, Engine::Sockets).is_some(), refuses, "{rule}");
        }
        assert!(refused("tiny-window direction=downstream", Engine::Exec).is_some());
    }
}
