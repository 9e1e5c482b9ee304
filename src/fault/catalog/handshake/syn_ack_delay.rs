//! `syn-ack-delay`: the answer to the client's SYN comes late.

use std::sync::Arc;

use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Spread, Topic, Unit,
    Verdict, Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "syn-ack-delay",
    summary: "holds the SYN-ACK back on its way to the client",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "syn-ack-delay delay=200ms jitter=50ms",
    attributes: &[
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "200ms",
            zero: "no delay",
            doc: "How long each SYN-ACK waits, counted from the moment it would have left.",
        },
        Spread::JITTER,
        Spread::DISTRIBUTION,
        AttributeDoc {
            name: "answer_dup",
            unit: Unit::Bool,
            default: "true",
            zero: "",
            doc: "Whether SYN-ACKs after the first (the client repeats its SYN after 1 s) are sent too, each with a delay \
                  of its own, as on a slow path. False: only the first one ever arrives.",
        },
    ],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H22",
        incident: "Shopify/toxiproxy#72, #123, #410: a slow connect, which a proxy that accepts by itself cannot make",
    },
    also: &[],
    scene: Scene { rule: "syn-ack-delay delay=1200ms", play: Play::Talk },
    sees: "connect() takes the delay longer; beyond 1 s the client also repeats its SYN (delay 1.5 s: SYN again at 1.02 s, \
           connected at 1.52 s).",
    build: |reader, _| {
        let answer_dup = reader.flag("answer_dup")?.unwrap_or(true);
        Ok(Arc::new(SynAckDelay { delay: Spread::read(reader, "delay")?, answer_dup }))
    },
};

#[derive(Debug)]
struct SynAckDelay {
    delay: Spread,
    answer_dup: bool,
}

impl Fault for SynAckDelay {
    fn direction(&self) -> Direction {
        Direction::Downstream
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at == Point { leg: Leg::Client, way: Way::Out } && seg.has(Flags::SYN | Flags::ACK)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        if moment.nth > 1 && !self.answer_dup {
            return Verdict::Drop;
        }
        let delay = self.delay.draw(moment.dice);
        if delay.is_zero() { Verdict::Pass } else { Verdict::Hold(delay) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, seg};
    use crate::time::Duration;

    const AT: Point = Point { leg: Leg::Client, way: Way::Out };
    const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);

    fn held(rule: &str) -> Vec<Verdict> {
        let mut flow = Flow::of(rule);
        (0..4).map(|_| flow.judge(AT, &mut seg(SYN_ACK))).collect()
    }

    #[test]
    fn every_syn_ack_waits_and_duplicates_follow_answer_dup() {
        let hold = |millis| Verdict::Hold(Duration::from_millis(millis));
        for (rule, expected) in [
            ("syn-ack-delay", [hold(200), hold(200), hold(200), hold(200)]),
            (
                "syn-ack-delay delay=1.5s answer_dup=false",
                [hold(1500), Verdict::Drop, Verdict::Drop, Verdict::Drop],
            ),
            ("syn-ack-delay delay=1s first=1", [hold(1000), Verdict::Pass, Verdict::Pass, Verdict::Pass]),
            ("syn-ack-delay nth=2", [Verdict::Pass, hold(200), Verdict::Pass, Verdict::Pass]),
            ("syn-ack-delay delay=0", [Verdict::Pass; 4]),
        ] {
            assert_eq!(held(rule), expected, "{rule}");
        }
    }

    #[test]
    fn jitter_varies_evenly_around_the_delay() {
        let mut flow = Flow::of("syn-ack-delay delay=200ms jitter=50ms");
        let mut waits = Vec::new();
        for _ in 0..1000 {
            let Verdict::Hold(wait) = flow.judge(AT, &mut seg(SYN_ACK)) else { panic!("not held") };
            waits.push(wait.as_millis());
        }
        assert!(waits.iter().all(|w| (150..=250).contains(w)), "{waits:?}");
        let early = waits.iter().filter(|w| **w < 200).count();
        assert!((420..580).contains(&early), "{early} of 1000 early");
        assert_eq!(
            held("syn-ack-delay jitter=50ms"),
            held("syn-ack-delay jitter=50ms"),
            "the same seed, the same waits"
        );
    }

    #[test]
    fn other_segments_pass_and_the_jitter_is_checked() {
        let mut flow = Flow::of("syn-ack-delay");
        for (leg, way, flags) in [
            (Leg::Client, Way::Out, Flags::ACK),
            (Leg::Client, Way::In, Flags::SYN),
            (Leg::Server, Way::In, SYN_ACK),
        ] {
            assert_eq!(
                flow.judge(Point { leg, way }, &mut seg(flags)),
                Verdict::Pass,
                "{leg:?} {way:?} {flags:?}"
            );
        }
        assert_eq!(
            error("syn-ack-delay delay=10ms jitter=20ms"),
            "fault.syn-ack-delay.jitter = \"20ms\": more than the delay; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\""
        );
    }
}
