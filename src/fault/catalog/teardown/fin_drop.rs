//! `fin-drop`: the end of a stream gets lost.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Verdict, Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "fin-drop",
    summary: "swallows FINs; the data that comes with one still arrives",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "fin-drop direction=downstream first=all",
    attributes: &[AttributeDoc {
        name: "direction",
        unit: DIRECTIONS,
        default: "downstream",
        zero: "",
        doc: "Whose FIN is lost: downstream the server's, upstream the client's.",
    }],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T1",
        incident: "firewalls that have forgotten a flow swallow its FIN; the sender's schedule was measured on Linux 6.18",
    },
    also: &[],
    scene: Scene { rule: "fin-drop direction=downstream first=all", play: Play::ServerCloses },
    sees: "the closer stays in FIN-WAIT-1 (or LAST-ACK) and repeats its FIN after 0.2, 0.4, 0.8, 1.7, 3.3, 6.6, 13, 27 s (without SACK \
           0.2, 0.6, 1.5, 3.1, 6.5, 13, 26 s); the other side never reads end-of-file.",
    build: |reader, _| Ok(Arc::new(FinDrop { direction: reader.direction("direction")? })),
};

#[derive(Debug)]
struct FinDrop {
    direction: Direction,
}

impl Fault for FinDrop {
    fn direction(&self) -> Direction {
        self.direction
    }

    /// The FIN is met where it enters, so that its sender stays without an ACK; where that is a kernel socket, where it leaves.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let here = match self.direction {
            Direction::Downstream if progress.server_is_socket => Point { leg: Leg::Client, way: Way::Out },
            Direction::Upstream if progress.client_is_socket => Point { leg: Leg::Server, way: Way::Out },
            direction => Point { leg: direction.enters(), way: Way::In },
        };
        at == here && seg.has(Flags::FIN)
    }

    fn on_segment(&self, _: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if seg.payload.is_empty() {
            return Verdict::Drop;
        }
        seg.flags = seg.flags.without(Flags::FIN);
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, seg};

    const FIN: Flags = Flags::FIN.with(Flags::ACK);

    /// What Linux was seen to do with an unanswered FIN, in milliseconds.
    const SCHEDULE: [u64; 6] = [0, 210, 640, 1500, 3100, 6500];

    #[test]
    fn fins_are_swallowed_within_the_bounds() {
        for (rule, lost) in [
            ("fin-drop", "DDDDDD"),
            ("fin-drop first=all", "DDDDDD"),
            ("fin-drop first=1", "DPPPPP"),
            ("fin-drop nth=2..", "PDDDDD"),
            ("fin-drop for=1s", "DDDPPP"),
            ("fin-drop after=11s", "PPPDDD"),
            ("fin-drop after_bytes=101", "PPPPPP"),
            ("fin-drop after_bytes=100", "DDDDDD"),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            flow.received(0, 100);
            let seen = SCHEDULE.map(|at| flow.at(10_000 + at).letter(Leg::Server, Way::In, &seg(FIN)));
            assert_eq!(String::from_iter(seen), lost, "{rule}");
        }
    }

    #[test]
    fn a_fin_with_data_loses_only_the_fin() {
        let mut flow = Flow::of("fin-drop");
        let mut last = seg(FIN | Flags::PSH);
        last.payload = b"bye"[..].into();
        assert_eq!(flow.judge(Point { leg: Leg::Server, way: Way::In }, &mut last), Verdict::Rewrite);
        assert_eq!((last.flags, last.payload.to_vec()), (Flags::PSH | Flags::ACK, b"bye".to_vec()));
        assert_eq!(flow.fired(), ["0.000 server downstream rewrite"]);
    }

    #[test]
    fn the_fin_is_met_where_its_sender_is_ours() {
        for (rule, socket, leg, way) in [
            ("fin-drop direction=downstream", false, Leg::Server, Way::In),
            ("fin-drop direction=downstream", true, Leg::Client, Way::Out),
            ("fin-drop direction=upstream", false, Leg::Client, Way::In),
            ("fin-drop direction=upstream", true, Leg::Client, Way::In),
        ] {
            for (other_leg, other_way) in [
                (Leg::Client, Way::In),
                (Leg::Client, Way::Out),
                (Leg::Server, Way::In),
                (Leg::Server, Way::Out),
            ] {
                let mut flow = Flow::of(rule);
                flow.progress.server_is_socket = socket;
                let expected = if (other_leg, other_way) == (leg, way) { 'D' } else { 'P' };
                let seen = flow.letter(other_leg, other_way, &seg(FIN));
                assert_eq!(seen, expected, "{rule}, socket {socket}, {other_leg:?} {other_way:?}");
                assert_eq!(flow.letter(other_leg, other_way, &seg(Flags::ACK)), 'P', "only FINs are meant");
            }
        }
    }
}
