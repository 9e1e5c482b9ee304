//! `ack-delay`: a receiver that is slow to acknowledge.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::{AttributeDoc, Engine, Fault, Harm, Kind, Play, Scene, Source, Topic, Unit};
use crate::tcp::Knobs;
use crate::tcp::knobs::AckKnob;
use crate::time::Duration;
use crate::trace::{Direction, Leg};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "ack-delay",
    summary: "acknowledges one writer's data late, never at once and never along with data",
    topic: Topic::Ack,
    engines: &[Engine::Tun, Engine::Exec],
    example: "ack-delay direction=upstream delay=40ms",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction of the data that is acknowledged late; upstream slows the client's writes.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 60 },
            default: "40ms",
            zero: "every segment is acknowledged at once",
            doc: "How long an acknowledgement waits. Linux waits 40 to 200 ms, Windows 200 ms.",
        },
        AttributeDoc {
            name: "every_other",
            unit: Unit::Bool,
            default: "true",
            zero: "",
            doc: "Whether a second full segment is acknowledged at once, as RFC 9293 asks of a receiver.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E7",
        incident: "tiberius#46, ray#4318: small writes without TCP_NODELAY wait 40 ms for an ACK",
    },
    also: &[],
    scene: Scene { rule: "ack-delay delay=200ms every_other=false", play: Play::TwoWrites },
    sees: "write-write-read takes 40 ms longer unless the writer sets TCP_NODELAY: the second small write waits for the ACK of \
           the first (Nagle's algorithm).",
    build: |reader, _| {
        Ok(Arc::new(AckDelay {
            direction: reader.direction("direction")?,
            delay: reader.duration("delay")?.unwrap_or_default(),
            every_other: reader.flag("every_other")?.unwrap_or(true),
        }))
    },
};

#[derive(Debug)]
struct AckDelay {
    direction: Direction,
    delay: Duration,
    every_other: bool,
}

impl Fault for AckDelay {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn harm(&self) -> Harm {
        Harm::Nothing
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Exec && self.direction == Direction::Downstream).then_some(SERVER_IS_SOCKET)
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        knobs.ack = AckKnob::Delay { delay: self.delay, every: self.every_other.then_some(2) };
        leg == self.direction.enters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, refused};
    use crate::time::Instant;

    #[test]
    fn acknowledgements_are_delayed_within_the_bounds() {
        let delayed = AckKnob::Delay { delay: Duration::from_millis(40), every: Some(2) };
        let slow = AckKnob::Delay { delay: Duration::from_millis(200), every: None };
        for (rule, leg, expected) in [
            ("ack-delay", Leg::Client, [delayed, delayed, delayed]),
            ("ack-delay", Leg::Server, [AckKnob::Natural; 3]),
            ("ack-delay direction=downstream", Leg::Server, [delayed, delayed, delayed]),
            ("ack-delay delay=200ms every_other=false", Leg::Client, [slow, slow, slow]),
            ("ack-delay after=1s for=1s", Leg::Client, [AckKnob::Natural, delayed, AckKnob::Natural]),
            ("ack-delay after_bytes=10", Leg::Client, [AckKnob::Natural, delayed, delayed]),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            let seen = [0, 1000, 2000].map(|at| flow.at(at).received(at / 100, 0).knobs(leg).ack);
            assert_eq!(seen, expected, "{rule} on the {} leg", leg.name());
        }
    }

    #[test]
    fn the_knob_is_given_back_once() {
        let mut flow = Flow::of("ack-delay after=1s for=1s");
        flow.established();
        for at in [0, 500, 1000, 1500, 2000, 2500] {
            flow.at(at).knobs(Leg::Client);
        }
        assert_eq!(flow.timeout(), None);
        assert_eq!(flow.fired(), ["1.000 client upstream knob", "2.000 client upstream release"]);
    }

    /// Whoever asks again only when the plan says so sees every edge.
    #[test]
    fn by_the_clock_of_the_run_it_comes_and_goes_in_periods() {
        let mut flow = Flow::of("ack-delay at=2s every=10s for=1s");
        flow.at(500).established();
        flow.knobs(Leg::Client);
        for _ in 0..4 {
            let edge = flow.timeout().expect("there is always a next edge").as_millis();
            flow.at(edge).knobs(Leg::Client);
        }
        let edges = ["2.000 client upstream knob", "3.000 client upstream release"].into_iter();
        let edges = edges.chain(["12.000 client upstream knob", "13.000 client upstream release"]);
        assert_eq!(flow.fired(), edges.collect::<Vec<_>>());
    }

    #[test]
    fn it_waits_for_the_handshake_and_asks_to_be_woken_then() {
        let mut flow = Flow::of("ack-delay after=1s");
        flow.at(300).knobs(Leg::Client);
        assert_eq!(flow.timeout(), None);
        flow.established();
        flow.knobs(Leg::Client);
        assert_eq!(flow.timeout(), Some(Instant::from_millis(1300)));
        flow.plan.rest(Leg::Server);
        assert_eq!(flow.timeout(), Some(Instant::from_millis(1300)), "the other leg is not meant");
        flow.plan.rest(Leg::Client);
        assert_eq!(flow.timeout(), None, "a leg that is gone wakes nobody");
    }

    #[test]
    fn exec_refuses_to_delay_towards_the_server() {
        assert_eq!(refused("ack-delay", Engine::Exec), None);
        assert!(refused("ack-delay direction=downstream", Engine::Exec).is_some());
    }
}
