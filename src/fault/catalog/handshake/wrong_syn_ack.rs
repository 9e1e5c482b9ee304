//! `wrong-syn-ack`: a broken SYN proxy acknowledges another SYN than the client's.

use std::sync::Arc;

use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment, SeqNum};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "wrong-syn-ack",
    summary: "sends the SYN-ACK with a wrong acknowledgement number",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "wrong-syn-ack offset=9 first=1",
    attributes: &[AttributeDoc {
        name: "offset",
        unit: Unit::Number { from: -2_147_483_648, to: 2_147_483_647 },
        default: "9",
        zero: "refused: that is the right number",
        doc: "What is added to the acknowledgement number.",
    }],
    bounds: &["first", "after", "for", "at", "every"],
    default_bound: Some(("first", "1")),
    scales: &[],
    source: Source {
        id: "H29",
        incident: "broken SYN proxies; measured on Linux 6.18: RST, and a fresh SYN 15 ms later",
    },
    also: &[],
    scene: Scene { rule: "wrong-syn-ack", play: Play::Talk },
    sees: "Linux answers by a RST and sends its SYN again after 15 ms; with one wrong SYN-ACK connect() is hardly late, with \
           all of them wrong it ends in ETIMEDOUT.",
    build: |reader, bounds| {
        let offset = reader.number("offset")?.unwrap_or_default();
        if offset == 0 {
            return Err(reader.wrong("offset", "the right number is no fault"));
        }
        // The client's RSTs are selected as well, and must not count.
        let first = bounds.first.take();
        Ok(Arc::new(WrongSynAck { offset: offset as i32, first }))
    },
};

#[derive(Debug)]
struct WrongSynAck {
    offset: i32,
    /// So many SYN-ACKs; `None` is all.
    first: Option<u64>,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
struct SoFar {
    syn_acks: u64,
    /// The number that was acknowledged instead.
    wrong: Option<SeqNum>,
}

impl Fault for WrongSynAck {
    fn direction(&self) -> Direction {
        Direction::Downstream
    }

    /// Our SYN-ACKs, and RSTs of a client that is not connected.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at.leg == Leg::Client
            && progress.established.is_none()
            && match at.way {
                Way::Out => seg.has(Flags::SYN | Flags::ACK),
                Way::In => seg.has(Flags::RST),
            }
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let so_far = moment.memory.of::<SoFar>();
        if seg.has(Flags::RST) {
            // It answers a number that our TCP has never sent, and reaches who did: not the server.
            return if so_far.wrong == Some(seg.seq) { Verdict::Drop } else { Verdict::Pass };
        }
        so_far.syn_acks += 1;
        if self.first.is_some_and(|first| so_far.syn_acks > first) {
            return Verdict::Pass;
        }
        seg.ack += self.offset as u32;
        so_far.wrong = Some(seg.ack);
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, seg};

    fn acks(rule: &str) -> Vec<i32> {
        let mut flow = Flow::of(rule);
        let right = SeqNum(u32::MAX - 3);
        let ack = |_| {
            let mut syn_ack = Segment { ack: right, ..seg(Flags::SYN | Flags::ACK) };
            flow.judge(Point { leg: Leg::Client, way: Way::Out }, &mut syn_ack);
            let rst = Segment { seq: syn_ack.ack, ..seg(Flags::RST) };
            let swallowed = flow.letter(Leg::Client, Way::In, &rst) == 'D';
            let offset = syn_ack.ack.diff(right);
            assert_eq!(swallowed, offset != 0, "{rule}: the RST that a wrong number draws");
            offset
        };
        (0..3).map(ack).collect()
    }

    #[test]
    fn the_first_syn_acks_are_wrong_by_the_offset() {
        for (rule, expected) in [
            ("wrong-syn-ack", [9, 0, 0]),
            ("wrong-syn-ack offset=-1 first=2", [-1, -1, 0]),
            ("wrong-syn-ack offset=-2147483648 first=all", [i32::MIN; 3]),
        ] {
            assert_eq!(acks(rule), expected, "{rule}");
        }
        let error = error("wrong-syn-ack offset=0");
        assert!(error.contains("the right number is no fault"), "{error}");
    }

    #[test]
    fn other_resets_pass() {
        let mut flow = Flow::of("wrong-syn-ack");
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::RST)), 'P', "the client gives up by itself");
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)), 'P');
        flow.established();
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::RST)), 'P');
    }
}
