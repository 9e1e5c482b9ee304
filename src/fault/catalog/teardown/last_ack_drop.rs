//! `last-ack-drop`: the last segment of a connection gets lost.

use std::sync::Arc;

use super::{SERVER_IS_SOCKET, where_it_leaves};
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Verdict,
};
use crate::trace::{Direction, State};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "last-ack-drop",
    summary: "swallows the ACK that ends a connection",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "last-ack-drop direction=upstream first=1",
    attributes: &[AttributeDoc {
        name: "direction",
        unit: DIRECTIONS,
        default: "upstream",
        zero: "",
        doc: "Whose ACK is lost: upstream the client's, where the server closes last; downstream the server's, where the client does.",
    }],
    bounds: &["first", "nth", "share"],
    default_bound: Some(("first", "1")),
    scales: &[],
    source: Source {
        id: "T20",
        incident: "RFC 9293 §3.6: what TIME-WAIT is for; firewalls that drop their entry at the second FIN lose this ACK",
    },
    also: &[],
    scene: Scene { rule: "last-ack-drop", play: Play::Talk },
    sees: "nothing. The side that closed last stays in LAST-ACK and repeats its FIN, and TIME-WAIT acknowledges it again.",
    build: |reader, _| Ok(Arc::new(LastAckDrop { direction: reader.direction("direction")? })),
};

#[derive(Debug)]
struct LastAckDrop {
    direction: Direction,
}

impl Fault for LastAckDrop {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let socket = engine == Engine::Exec && self.direction == Direction::Upstream;
        socket.then_some(SERVER_IS_SOCKET)
    }

    /// What TIME-WAIT says.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at == where_it_leaves(self.direction)
            && progress.state(at.leg) == State::TimeWait
            && seg.has(Flags::ACK)
            && !seg.flags.any(Flags::FIN | Flags::RST | Flags::SYN)
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::trace::Leg;

    #[test]
    fn only_what_time_wait_says_is_lost() {
        for (rule, leg, expected) in [
            ("last-ack-drop", Leg::Server, "DPP"),
            ("last-ack-drop first=2", Leg::Server, "DDP"),
            ("last-ack-drop first=all direction=downstream", Leg::Client, "DDD"),
            ("last-ack-drop first=all", Leg::Client, "PPP"),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            (flow.progress.client_state, flow.progress.server_state) = (State::FinWait2, State::FinWait2);
            assert_eq!(flow.letter(leg, Way::Out, &seg(Flags::ACK)), 'P', "{rule}: not yet");
            (flow.progress.client_state, flow.progress.server_state) = (State::TimeWait, State::TimeWait);
            let seen: String = (0..3).map(|_| flow.letter(leg, Way::Out, &seg(Flags::ACK))).collect();
            assert_eq!(seen, expected, "{rule}");
        }
    }

    #[test]
    fn exec_can_do_it_to_the_client_only() {
        assert_eq!(refused("last-ack-drop direction=downstream", Engine::Exec), None);
        assert!(refused("last-ack-drop", Engine::Exec).is_some_and(|why| why.contains("socket")));
    }
}
