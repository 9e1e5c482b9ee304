//! `syn-ack-drop`: the answer to the client's SYN gets lost.

use std::sync::Arc;

use super::pick;
use crate::fault::{Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Verdict};
use crate::trace::Direction;
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "syn-ack-drop",
    summary: "loses the SYN-ACK on its way to the client; the server counts the connection as half open",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "syn-ack-drop first=2",
    attributes: &[],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: Some(("first", "1")),
    scales: &[],
    source: Source {
        id: "H3",
        incident: "asymmetric routes and filters that lose answers; tcp_synack_retries: Linux sends a SYN-ACK again after 1, 3, \
                   7, 15, 31 s",
    },
    also: &[],
    scene: Scene { rule: "syn-ack-drop first=2", play: Play::Talk },
    sees: "the same as with a lost SYN: connect() is late by the client's own SYN schedule. The SYN-ACK comes again at 1, 3, 7, \
           15, 31 s and after each SYN, at most every 500 ms.",
    build: |_, _| Ok(Arc::new(SynAckDrop)),
};

#[derive(Debug)]
struct SynAckDrop;

impl Fault for SynAckDrop {
    fn direction(&self) -> Direction {
        Direction::Downstream
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        pick::is_syn_ack(at, seg)
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::Way;
    use crate::fault::testing::{Flow, seg};
    use crate::trace::Leg;
    use crate::wire::Flags;

    /// What Linux sends to a silent client, in milliseconds.
    const SCHEDULE: [u64; 6] = [0, 1000, 3000, 7000, 15_000, 31_000];

    #[test]
    fn syn_acks_are_lost_within_the_bounds() {
        for (rule, lost) in [
            ("syn-ack-drop", "DPPPPP"),
            ("syn-ack-drop first=2", "DDPPPP"),
            ("syn-ack-drop first=all", "DDDDDD"),
            ("syn-ack-drop nth=2", "PDPPPP"),
            ("syn-ack-drop for=5s", "DDDPPP"),
            ("syn-ack-drop after=2s", "PPDDDD"),
            ("syn-ack-drop share=0", "PPPPPP"),
        ] {
            let mut flow = Flow::of(rule);
            let syn_ack = seg(Flags::SYN | Flags::ACK);
            let seen = SCHEDULE.map(|at| flow.at(at).letter(Leg::Client, Way::Out, &syn_ack));
            assert_eq!(String::from_iter(seen), lost, "{rule}");
        }
    }

    #[test]
    fn only_syn_acks_to_the_client_are_meant() {
        let mut flow = Flow::of("syn-ack-drop first=all");
        for (leg, way, flags) in [
            (Leg::Server, Way::In, Flags::SYN | Flags::ACK),
            (Leg::Client, Way::In, Flags::SYN | Flags::ACK),
            (Leg::Client, Way::Out, Flags::ACK),
            (Leg::Client, Way::Out, Flags::RST | Flags::ACK),
        ] {
            assert_eq!(flow.letter(leg, way, &seg(flags)), 'P', "{leg:?} {way:?} {flags:?}");
        }
    }
}
