//! `ack-drop`: a path that loses acknowledgements and nothing else.

use std::sync::Arc;

use super::is_pure_ack;
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Loss, LossState, Moment, Play, Point, Progress, Scene, Source, Topic,
    Verdict,
};
use crate::trace::Direction;
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "ack-drop",
    summary: "loses pure ACKs of one writer's data, never data, SYN, FIN or RST",
    topic: Topic::Ack,
    engines: &[Engine::Tun, Engine::Exec],
    example: "ack-drop direction=upstream p=0.3",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction of the data whose ACKs are lost; upstream: the client does not hear that its bytes came. Under \
                  exec, downstream is the client's own ACKs: the server's are the kernel's.",
        },
        AttributeDoc {
            default: "0.3",
            doc: "The share of the ACKs that is lost in the long run.",
            ..Loss::P
        },
        Loss::BURST,
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E8",
        incident: "RFC 3449: links whose way back is too narrow for the ACKs lose them",
    },
    also: &[],
    scene: Scene { rule: "ack-drop p=1 first=2", play: Play::TwoWrites },
    sees: "usually nothing, for the next ACK says the same; if it was the last one, the writer repeats its data after 0.2 s. The \
           bytes arrive once: what is done twice then is done by the application.",
    build: |reader, _| {
        Ok(Arc::new(AckDrop { direction: reader.direction("direction")?, loss: Loss::read(reader)? }))
    },
};

#[derive(Debug)]
struct AckDrop {
    direction: Direction,
    loss: Loss,
}

impl Fault for AckDrop {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        is_pure_ack(self.direction, at, seg, progress)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        match self.loss.lose(moment.memory.of::<LossState>(), moment.dice) {
            true => Verdict::Drop,
            false => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::trace::Leg;
    use crate::wire::{Flags, Numbers, Payload, SeqNum};

    #[test]
    fn only_pure_acks_of_data_are_lost() {
        let numbers = Numbers { snd_una: SeqNum(10), snd_nxt: SeqNum(20), rcv_nxt: SeqNum(500) };
        let exact = Segment { seq: SeqNum(20), ..seg(Flags::ACK) };
        let data = Payload::from(bytes::Bytes::from_static(b"x"));
        let flags = |flags| Segment { flags, ..exact.clone() };
        for (sentence, segment, expected) in [
            ("an ACK", exact.clone(), 'D'),
            ("an ACK with ECN echo", flags(Flags::ACK | Flags::ECE), 'D'),
            ("data", Segment { payload: data, ..exact.clone() }, 'P'),
            ("SYN-ACK", flags(Flags::SYN | Flags::ACK), 'P'),
            ("FIN", flags(Flags::FIN | Flags::ACK), 'P'),
            ("RST", flags(Flags::RST | Flags::ACK), 'P'),
            ("a probe", Segment { seq: SeqNum(9), ..exact.clone() }, 'P'),
        ] {
            let mut flow = Flow::of("ack-drop p=1");
            flow.established();
            flow.received(100, 100).progress.client = Some(numbers);
            assert_eq!(flow.letter(Leg::Client, Way::Out, &segment), expected, "{sentence}");
            assert_eq!(flow.letter(Leg::Client, Way::In, &segment), 'P', "{sentence} of the client");
            assert_eq!(flow.letter(Leg::Server, Way::Out, &segment), 'P', "{sentence} to the server");
        }
    }

    #[test]
    fn the_handshake_is_left_alone_and_shares_are_rolled() {
        let mut flow = Flow::of("ack-drop");
        flow.established();
        let ack = seg(Flags::ACK);
        let before: String = (0..50).map(|_| flow.letter(Leg::Client, Way::Out, &ack)).collect();
        assert_eq!(before, "P".repeat(50), "nothing has come that could be acknowledged");
        flow.received(1, 0);
        let lost = (0..1000).filter(|_| flow.letter(Leg::Client, Way::Out, &ack) == 'D').count();
        assert!((250..350).contains(&lost), "{lost}");
    }

    #[test]
    fn behind_a_kernel_socket_the_clients_acks_stand_for_those_of_the_relay() {
        assert_eq!(refused("ack-drop direction=downstream", Engine::Exec), None);
        let mut flow = Flow::of("ack-drop direction=downstream p=1");
        flow.established();
        flow.received(0, 1);
        let mut letters = || {
            let at = [(Leg::Client, Way::In), (Leg::Client, Way::Out), (Leg::Server, Way::Out)];
            at.map(|(leg, way)| flow.letter(leg, way, &seg(Flags::ACK)))
        };
        assert_eq!(letters(), ['P', 'P', 'D']);
        flow.progress.server_is_socket = true;
        let at = [(Leg::Client, Way::In), (Leg::Client, Way::Out), (Leg::Server, Way::Out)];
        let letters = at.map(|(leg, way)| flow.letter(leg, way, &seg(Flags::ACK)));
        assert_eq!(letters, ['D', 'P', 'P']);
    }
}
