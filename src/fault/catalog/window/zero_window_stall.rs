//! `zero-window-stall`: a reader that stops reading.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::{Alias, AttributeDoc, Engine, Fault, Harm, Kind, Play, Scene, Source, Topic, Unit};
use crate::tcp::Knobs;
use crate::tcp::knobs::WindowKnob;
use crate::trace::{Direction, Leg};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "zero-window-stall",
    summary: "announces a zero window to one writer for a while, then opens it with an update",
    topic: Topic::Window,
    engines: &Engine::ALL,
    example: "zero-window-stall direction=upstream hold=30s after_bytes=64KiB",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction of the bytes that are stopped; upstream stops the client's writes.",
        },
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "30s",
            zero: "no stall",
            doc: "How long the window stays closed. What the writer was already allowed to send is still taken; by a kernel socket, \
                  which is not read any more, as much as its buffer holds.",
        },
        AttributeDoc {
            name: "answer_probes",
            unit: Unit::Bool,
            default: "true",
            zero: "",
            doc: "Whether window probes are acknowledged. False looks like a dead reader: the writer's kernel gives up.",
        },
    ],
    bounds: &["after_bytes", "after", "at", "every"],
    default_bound: Some(("after_bytes", "64KiB")),
    scales: &["hold"],
    source: Source {
        id: "E1",
        incident: "kubernetes/kubernetes#139506: an API server stuck on a client that had stopped reading; google/gvisor#10243",
    },
    also: &[Alias {
        id: "E2",
        name: "zero-window-dead",
        rule: "zero-window-stall answer_probes=false hold=24h",
    }],
    scene: Scene { rule: "zero-window-stall after_bytes=16KiB hold=1500ms", play: Play::Upload },
    sees: "send() blocks (EAGAIN without blocking) and no error comes while probes are answered; Linux probes 0.2, 0.6, 1.5, \
           3.1, 6.5, 13 s after the stall, doubling up to 120 s. TCP_USER_TIMEOUT fires all the same.",
    build: |reader, bounds| {
        bounds.lasts = reader.duration("hold")?;
        let answer_probes = reader.flag("answer_probes")?.unwrap_or(true);
        Ok(Arc::new(ZeroWindowStall { direction: reader.direction("direction")?, answer_probes }))
    },
};

const ANSWERS_PROBES: &str = "the kernel answers window probes by itself";

#[derive(Debug)]
struct ZeroWindowStall {
    direction: Direction,
    answer_probes: bool,
}

impl Fault for ZeroWindowStall {
    fn direction(&self) -> Direction {
        self.direction
    }

    /// Linux's hosts probe for ever as long as they are answered.
    fn harm(&self) -> Harm {
        if self.answer_probes { Harm::Nothing } else { Harm::Ends }
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        match engine {
            Engine::Tun => None,
            Engine::Exec => (self.direction == Direction::Downstream).then_some(SERVER_IS_SOCKET),
            Engine::Sockets | Engine::PlainSockets => (!self.answer_probes).then_some(ANSWERS_PROBES),
        }
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        knobs.window = WindowKnob::Zero { answer_probes: self.answer_probes };
        leg == self.direction.enters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, refused};
    use crate::time::Instant;

    const CLOSED: WindowKnob = WindowKnob::Zero { answer_probes: true };

    #[test]
    fn the_window_closes_after_the_bytes_and_opens_after_the_hold() {
        let mut flow = Flow::of("zero-window-stall hold=5s");
        flow.at(100).established();
        assert_eq!(flow.at(150).received(65_535, 0).knobs(Leg::Client).window, WindowKnob::Natural);
        assert_eq!(flow.timeout(), None);
        assert_eq!(flow.at(200).received(65_536, 0).knobs(Leg::Client).window, CLOSED);
        assert_eq!(flow.timeout(), Some(Instant::from_millis(5200)));
        assert_eq!(flow.knobs(Leg::Server).window, WindowKnob::Natural, "the other leg is honest");
        assert_eq!(flow.at(5199).knobs(Leg::Client).window, CLOSED);
        assert_eq!(flow.at(5200).knobs(Leg::Client).window, WindowKnob::Natural);
        assert_eq!(
            flow.at(9000).received(1 << 30, 0).knobs(Leg::Client).window,
            WindowKnob::Natural,
            "once per flow"
        );
        assert_eq!(flow.fired(), ["0.200 client upstream knob", "5.200 client upstream release"]);
    }

    #[test]
    fn bounds_and_attributes_choose_leg_time_and_probes() {
        for (rule, leg, before, after) in [
            ("zero-window-stall after=1s", Leg::Client, 1099, 1100),
            ("zero-window-stall after=1s direction=downstream", Leg::Server, 1099, 1100),
            ("zero-window-stall after_bytes=0", Leg::Client, 99, 100),
        ] {
            let mut flow = Flow::of(rule);
            flow.at(99).knobs(leg);
            flow.at(100).established();
            let honest = if before < 100 { WindowKnob::Natural } else { flow.at(before).knobs(leg).window };
            assert_eq!(honest, WindowKnob::Natural, "{rule}");
            assert_eq!(flow.at(after).knobs(leg).window, CLOSED, "{rule}");
        }
        let mut dead = Flow::of("zero-window-stall after_bytes=0 answer_probes=false");
        dead.established();
        assert_eq!(dead.knobs(Leg::Client).window, WindowKnob::Zero { answer_probes: false });
        let mut none = Flow::of("zero-window-stall after_bytes=0 hold=0");
        none.established();
        assert_eq!(none.knobs(Leg::Client).window, WindowKnob::Natural);
        assert_eq!(none.fired(), [""; 0]);
    }

    #[test]
    fn exec_refuses_to_stall_the_server() {
        assert_eq!(refused("zero-window-stall", Engine::Exec), None);
        assert_eq!(refused("zero-window-stall direction=downstream", Engine::Tun), None);
        let reason = refused("zero-window-stall direction=downstream", Engine::Exec).unwrap();
        assert!(reason.contains("exec") && reason.contains("kernel socket"), "{reason}");
    }
}
