//! `syn-drop`: the client's SYN is lost on its way.

use std::sync::Arc;

use crate::fault::{
    Alias, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Verdict, Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "syn-drop",
    summary: "loses the client's SYN before anything has seen it",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "syn-drop first=2",
    attributes: &[],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: Some(("first", "1")),
    scales: &[],
    source: Source {
        id: "H1",
        incident: "kubernetes/kubernetes#76699: SYN retransmissions through a NodePort; aws/amazon-vpc-cni-k8s#516: SYNs lost \
                   in a race of source NAT",
    },
    also: &[
        Alias { id: "H2", name: "conntrack-insert-failed", rule: "syn-drop match.sibling=1ms first=1" },
        Alias {
            id: "H2",
            name: "conntrack-entry-persists",
            rule: "syn-drop match.sibling=1ms first=all for=120s",
        },
        // Linux gives each connection a clock of its own against this; of such a client half of all connections are behind.
        Alias {
            id: "H13",
            name: "tw-recycle-nat",
            rule: "syn-drop match.stamp_behind=60s first=all for=60s",
        },
        Alias { id: "H14", name: "port-reuse-drop", rule: "syn-drop match.reused=120s first=1" },
    ],
    scene: Scene { rule: "syn-drop first=2", play: Play::Talk },
    sees: "connect() late by the client's own SYN schedule: 1.0, 2.0, 3.1, 4.1, 5.1, 7.1 s for 1 to 6 lost SYNs on Linux 6.5 \
           and later, 1, 3, 7, 15 s before; ETIMEDOUT when all are lost.",
    build: |_, _| Ok(Arc::new(SynDrop)),
};

#[derive(Debug)]
struct SynDrop;

impl Fault for SynDrop {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        // Not a SYN on an established connection: that one is a challenge (RFC 5961 §4), not a handshake.
        at == Point { leg: Leg::Client, way: Way::In }
            && seg.has(Flags::SYN)
            && !seg.has(Flags::ACK)
            && progress.established.is_none()
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{Flow, seg};
    use crate::fault::{Point, Verdict, Way};
    use crate::trace::Leg;
    use crate::wire::Flags;

    /// What Linux 6.18 was seen to send to a silent server, in milliseconds.
    const SCHEDULE: [u64; 7] = [0, 1000, 2000, 3100, 4100, 5100, 7100];

    #[test]
    fn syns_are_lost_within_the_bounds() {
        for (rule, lost) in [
            ("syn-drop", "DPPPPPP"),
            ("syn-drop first=2", "DDPPPPP"),
            ("syn-drop first=all", "DDDDDDD"),
            ("syn-drop nth=2,4", "PDPDPPP"),
            ("syn-drop for=3s", "DDDPPPP"),
            ("syn-drop for=3200ms", "DDDDPPP"),
            ("syn-drop after=2s", "PPDDDDD"),
            ("syn-drop after=2s first=1", "PPDPPPP"),
            ("syn-drop share=1", "DDDDDDD"),
            ("syn-drop share=0", "PPPPPPP"),
        ] {
            let mut flow = Flow::of(rule);
            let seen = SCHEDULE.map(|at| flow.at(at).letter(Leg::Client, Way::In, &seg(Flags::SYN)));
            assert_eq!(String::from_iter(seen), lost, "{rule}");
        }
    }

    #[test]
    fn only_syns_from_the_client_are_meant() {
        let mut flow = Flow::of("syn-drop first=all");
        for (leg, way, flags) in [
            (Leg::Server, Way::Out, Flags::SYN),
            (Leg::Server, Way::In, Flags::SYN | Flags::ACK),
            (Leg::Client, Way::In, Flags::ACK),
            (Leg::Client, Way::In, Flags::SYN | Flags::ACK),
        ] {
            assert_eq!(
                flow.judge(Point { leg, way }, &mut seg(flags)),
                Verdict::Pass,
                "{leg:?} {way:?} {flags:?}"
            );
        }
        flow.established();
        assert_eq!(
            flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)),
            'P',
            "an established connection is left alone"
        );
        assert_eq!(flow.fired(), [""; 0]);
    }
}
