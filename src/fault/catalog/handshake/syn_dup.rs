//! `syn-dup`: the network delivers a SYN more than once, perhaps much later.

use std::sync::Arc;

use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "syn-dup",
    summary: "sends copies of the SYN to the server, at once or when the connection is already open",
    topic: Topic::Handshake,
    engines: &[Engine::Tun],
    example: "syn-dup copies=3 late=500ms",
    attributes: &[
        AttributeDoc {
            name: "copies",
            unit: Unit::Count { from: 1, to: 64 },
            default: "1",
            zero: "",
            doc: "How many copies of each SYN.",
        },
        AttributeDoc {
            name: "late",
            unit: Unit::Duration { max_secs: 300 },
            default: "0",
            zero: "the copies follow at once",
            doc: "How long after the SYN the first copy comes; each further one comes as much later.",
        },
    ],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H28",
        incident: "RFC 9293 §3.5 figure 9, the old duplicate SYN; RFC 5961 §4 for the open connection; measured on Linux 6.18",
    },
    also: &[],
    scene: Scene { rule: "syn-dup late=600ms", play: Play::Pause },
    sees: "nothing: Linux answers a repeated SYN at most twice a second by its SYN-ACK, and on the open connection by a \
           challenge ACK; the connection survives.",
    build: |reader, _| {
        let copies = reader.count("copies")?.unwrap_or(1) as u8;
        Ok(Arc::new(SynDup { copies, late: reader.duration("late")?.unwrap_or_default() }))
    },
};

#[derive(Debug)]
struct SynDup {
    copies: u8,
    late: Duration,
}

impl Fault for SynDup {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at == Point { leg: Leg::Server, way: Way::Out } && seg.has(Flags::SYN) && !seg.has(Flags::ACK)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if self.late.is_zero() {
            return Verdict::Duplicate(self.copies);
        }
        for n in 1..=u32::from(self.copies) {
            moment.send(Leg::Server, seg.clone(), self.late * n);
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, refused, seg};

    #[test]
    fn copies_follow_at_once_or_one_after_the_other() {
        let at = Point { leg: Leg::Server, way: Way::Out };
        for (rule, verdict, later) in [
            ("syn-dup", Verdict::Duplicate(1), &[][..]),
            ("syn-dup copies=64", Verdict::Duplicate(64), &[]),
            ("syn-dup copies=3 late=500ms", Verdict::Pass, &[500, 1000, 1500]),
        ] {
            let mut flow = Flow::of(rule);
            assert_eq!(flow.judge(at, &mut seg(Flags::SYN)), verdict, "{rule}");
            let deeds = flow.deeds().into_iter();
            let times: Vec<u64> = deeds
                .map(|deed| match deed {
                    Deed::Send { leg: Leg::Server, segment, after } if segment.flags == Flags::SYN => {
                        after.as_millis() as u64
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(times, later, "{rule}");
        }
    }

    #[test]
    fn only_syns_to_the_server_are_copied() {
        for (leg, way, flags) in [
            (Leg::Client, Way::In, Flags::SYN),
            (Leg::Client, Way::Out, Flags::SYN | Flags::ACK),
            (Leg::Server, Way::Out, Flags::SYN | Flags::ACK),
            (Leg::Server, Way::Out, Flags::ACK),
        ] {
            assert_eq!(Flow::of("syn-dup").letter(leg, way, &seg(flags)), 'P');
        }
        assert!(refused("syn-dup", Engine::Exec).is_some(), "a kernel socket sends its own SYNs");
    }
}
