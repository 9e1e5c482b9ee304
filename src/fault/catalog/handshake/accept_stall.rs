//! `accept-stall`: the server's accept queue fills up between SYN and final ACK.

use std::sync::Arc;

use super::pick;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict,
};
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

/// What `hold` is if nobody says anything.
const HOLD: Duration = Duration::from_secs(8);

pub(in crate::fault) const KIND: Kind = Kind {
    name: "accept-stall",
    summary: "ignores the handshake ACK and all data for a while, as a full accept queue does, and sends the SYN-ACK again",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "accept-stall hold=8s",
    attributes: &[
        AttributeDoc {
            name: "hold",
            // The SYN-ACK is given up 63 s after it was sent first.
            unit: Unit::Duration { max_secs: 60 },
            default: "8s",
            zero: "nothing is ignored",
            doc: "How long, counted from the first ACK, or from `at`. What the client then sends next completes the handshake.",
        },
        AttributeDoc {
            name: "abort",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "Whether every segment is answered with RST (tcp_abort_on_overflow = 1). The first ACK ends the connection \
                  then, and there is nothing to hold.",
        },
    ],
    bounds: &["at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H6",
        incident: "tcp_check_req in Linux drops the ACK when the queue is full; measured on Linux 6.18 with one slot",
    },
    also: &[],
    scene: Scene { rule: "accept-stall hold=2s", play: Play::Talk },
    sees: "connect() returns at once; then the request is repeated without an answer until a slot is free. With abort \
           ECONNRESET on the first read or write.",
    build: |reader, bounds| {
        let hold = reader.duration("hold")?;
        let abort = reader.flag("abort")?.unwrap_or(false);
        if abort && hold != Some(HOLD) {
            return Err(
                reader.wrong("hold", "changes nothing with `abort`: the first ACK ends the connection")
            );
        }
        bounds.lasts = hold;
        Ok(Arc::new(AcceptStall { abort }))
    },
};

#[derive(Debug)]
struct AcceptStall {
    abort: bool,
}

impl Fault for AcceptStall {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        pick::completes(at, seg, progress)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if self.abort {
            // Linux forgets the request as well: whatever the client still sends meets RST, without a further word of ours.
            let reset = Segment { seq: seg.ack, flags: Flags::RST, ..Segment::default() };
            moment.send(Leg::Client, reset, Duration::ZERO);
            moment.act(Action::Reset { client: false, server: true });
        }
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, seg};
    use crate::fault::{Deed, Way};
    use crate::wire::SeqNum;

    fn flow(rule: &str) -> Flow {
        let mut flow = Flow::of(rule);
        flow.answered();
        flow
    }

    #[test]
    fn acks_and_data_are_ignored_for_the_hold_from_the_first_of_them_on() {
        let mut data = seg(Flags::ACK | Flags::PSH);
        data.payload = b"hello"[..].into();
        for (rule, lost) in [
            ("accept-stall", "DDDDDPP"),
            ("accept-stall hold=2s", "DDDPPPP"),
            ("accept-stall hold=0", "PPPPPPP"),
            ("accept-stall at=1s hold=3s", "PDDPPPP"),
        ] {
            let mut flow = flow(rule);
            let times = [500, 1000, 2400, 4000, 8400, 8500, 20_000];
            let seen = times.map(|at| {
                let ack = if at == 1000 { seg(Flags::ACK) } else { data.clone() };
                flow.at(at).letter(Leg::Client, Way::In, &ack)
            });
            assert_eq!(String::from_iter(seen), lost, "{rule}");
        }
    }

    #[test]
    fn a_syn_is_answered_and_a_reset_is_believed() {
        let mut flow = flow("accept-stall");
        for flags in [Flags::SYN, Flags::RST, Flags::RST | Flags::ACK] {
            assert_eq!(flow.letter(Leg::Client, Way::In, &seg(flags)), 'P', "{flags:?}");
        }
    }

    #[test]
    fn with_abort_the_ack_is_answered_with_a_reset_and_the_server_hears_one() {
        let mut flow = flow("accept-stall abort=true");
        let ack = Segment { seq: SeqNum(7), ack: SeqNum(99), ..seg(Flags::ACK) };
        assert_eq!(flow.letter(Leg::Client, Way::In, &ack), 'D');
        let reset = Segment { seq: SeqNum(99), ..seg(Flags::RST) };
        let send = Deed::Send { leg: Leg::Client, segment: Box::new(reset), after: Duration::ZERO };
        let act = Deed::Act(Action::Reset { client: false, server: true });
        assert_eq!(flow.deeds(), [send, act]);
    }

    #[test]
    fn a_hold_with_abort_is_refused() {
        let error = error("accept-stall abort=true hold=2s");
        assert!(
            error.starts_with("fault.accept-stall.hold = \"2s\": changes nothing with `abort`"),
            "{error}"
        );
    }
}
