//! `keepalive-swallow`: a middlebox that eats keepalive probes, or answers them for a peer that may be dead.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::{
    AttributeDoc, Burst, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "keepalive-swallow",
    summary: "drops one peer's keepalive probes, or answers them whether or not the far peer lives",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "keepalive-swallow direction=upstream fake=false",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction in which the probes travel; upstream are the client's.",
        },
        AttributeDoc {
            name: "fake",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "Whether the probes are answered, with exact numbers and timestamps, although the far peer does not hear of \
                  them. Before a rule that drops everything, such as `blackhole`, it stands for a dead peer.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E13",
        incident: "load balancers that answer keepalives themselves: SO_KEEPALIVE finds no dead peer behind them",
    },
    also: &[],
    scene: Scene { rule: "keepalive-swallow fake=true", play: Play::Idle },
    sees: "swallowed: ETIMEDOUT on a healthy idle connection, and a RST to the peer, after tcp_keepalive_time and \
           tcp_keepalive_probes intervals (2 h 11 min unless set). Faked: a dead peer is never noticed by SO_KEEPALIVE; only \
           heartbeats of the application find it.",
    build: |reader, _| {
        Ok(Arc::new(KeepaliveSwallow {
            direction: reader.direction("direction")?,
            fake: reader.flag("fake")?.unwrap_or(false),
        }))
    },
};

#[derive(Debug)]
struct KeepaliveSwallow {
    direction: Direction,
    fake: bool,
}

/// The window that the peer was told last is closed: what it probes is the window.
#[derive(Debug, Default)]
struct Closed(bool);

impl Fault for KeepaliveSwallow {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Exec && self.direction == Direction::Downstream).then_some(SERVER_IS_SOCKET)
    }

    /// Linux probes with no byte or an old one just before the number that is due (RFC 9293 §3.8.4).
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let plain = seg.has(Flags::ACK) && !seg.flags.any(Flags::SYN | Flags::FIN | Flags::RST);
        let old = |seg: &Segment| {
            let due = progress.numbers(at.leg).map(|numbers| numbers.rcv_nxt);
            seg.payload.len() <= 1 && due.is_some_and(|due| seg.seq == due - 1)
        };
        at.leg == self.direction.enters() && plain && (at.way == Way::Out || old(seg))
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let closed: &mut Closed = moment.memory.of();
        if moment.at.way == Way::Out {
            closed.0 = seg.window.0 == 0;
            return Verdict::Pass;
        }
        if closed.0 {
            return Verdict::Pass;
        }
        if self.fake {
            let burst = Burst { count: 1, gap: Duration::ZERO, behind: 0 };
            moment.acknowledge(moment.at.leg, burst);
        }
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::trace::Leg;
    use crate::wire::{Numbers, Payload, RawWindow, SeqNum};

    fn flow(rule: &str) -> Flow {
        let mut flow = Flow::of(rule);
        flow.established();
        let numbers = Numbers { snd_una: SeqNum(7), snd_nxt: SeqNum(7), rcv_nxt: SeqNum(100) };
        (flow.progress.client, flow.progress.server) = (Some(numbers), Some(numbers));
        flow
    }

    fn from(seq: u32, flags: Flags, bytes: &'static [u8]) -> Segment {
        let payload = Payload::from(bytes::Bytes::from_static(bytes));
        Segment { seq: SeqNum(seq), payload, ..seg(flags) }
    }

    #[test]
    fn only_probes_of_an_open_connection_are_swallowed() {
        for (sentence, segment, expected) in [
            ("a probe", from(99, Flags::ACK, b""), 'D'),
            ("a probe with an old byte", from(99, Flags::ACK, b"x"), 'D'),
            ("an ACK", from(100, Flags::ACK, b""), 'P'),
            ("older", from(98, Flags::ACK, b""), 'P'),
            ("data again", from(99, Flags::ACK, b"xy"), 'P'),
            ("FIN", from(99, Flags::FIN | Flags::ACK, b""), 'P'),
            ("RST", from(99, Flags::RST | Flags::ACK, b""), 'P'),
        ] {
            let mut flow = flow("keepalive-swallow");
            assert_eq!(flow.letter(Leg::Client, Way::In, &segment), expected, "{sentence}");
            assert_eq!(flow.letter(Leg::Server, Way::In, &segment), 'P', "{sentence} of the server");
            assert_eq!(flow.deeds(), [], "{sentence}");
        }
    }

    #[test]
    fn a_probe_of_a_closed_window_is_none() {
        let mut flow = flow("keepalive-swallow");
        let (probe, told) = (from(99, Flags::ACK, b""), |window| Segment {
            window: RawWindow(window),
            ..from(7, Flags::ACK, b"")
        });
        let mut seen = String::new();
        for window in [0, 500] {
            seen.push(flow.letter(Leg::Client, Way::Out, &told(window)));
            seen.push(flow.letter(Leg::Client, Way::In, &probe));
        }
        assert_eq!(seen, "PPPD");
    }

    #[test]
    fn faked_answers_go_to_who_asked() {
        for (rule, leg) in [
            ("keepalive-swallow fake=true", Leg::Client),
            ("keepalive-swallow fake=true direction=downstream", Leg::Server),
        ] {
            let mut flow = flow(rule);
            assert_eq!(flow.letter(leg, Way::In, &from(99, Flags::ACK, b"")), 'D');
            let burst = Burst { count: 1, gap: Duration::ZERO, behind: 0 };
            assert_eq!(flow.deeds(), [Deed::Acknowledge { leg, burst }], "{rule}");
        }
        assert!(refused("keepalive-swallow direction=downstream", Engine::Exec).is_some());
        assert_eq!(refused("keepalive-swallow", Engine::Exec), None);
    }
}
