//! `corrupt`: bits flip on the way, seen by the checksum or not.

use std::sync::Arc;

use bytes::Bytes;

use crate::fault::attributes::DIRECTIONS_BOTH;
use crate::fault::catalog::stretch::Stretch;
use crate::fault::{
    AttributeDoc, Engine, Fault, Harm, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::trace::Direction;
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "corrupt",
    summary: "flips bits of segments with data, so that the checksum is wrong or, worse, right",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "corrupt share=0.01 mode=payload",
    attributes: &[
        AttributeDoc {
            name: "mode",
            unit: Unit::Word(&["checksum", "payload"]),
            default: "checksum",
            zero: "",
            doc: "checksum: it is wrong, and the receiver's kernel counts the segment (InCsumErrors) and throws it away. payload: one bit of the \
                  data is flipped, and the checksum is right again, as after a router with bad memory.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "downstream",
            zero: "",
            doc: "What is corrupted: upstream what goes to the server, downstream what goes to the client.",
        },
        Stretch::LEG,
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: Some(("share", "0.01")),
    scales: &[],
    source: Source {
        id: "E22",
        incident: "Stone, Partridge: When the CRC and TCP checksum disagree (SIGCOMM 2000); switches, routers and network cards with \
                   bad memory",
    },
    also: &[],
    scene: Scene { rule: "corrupt nth=1", play: Play::Talk },
    sees: "mode=checksum: time, as with loss. mode=payload: wrong bytes, and no error; only a checksum of the application's own finds them.",
    build: |reader, _| {
        let payload = reader.word("mode")? == Some("payload");
        Ok(Arc::new(Corrupt { payload, stretch: Stretch::read(reader)? }))
    },
};

#[derive(Debug)]
struct Corrupt {
    payload: bool,
    stretch: Stretch,
}

impl Fault for Corrupt {
    fn direction(&self) -> Direction {
        self.stretch.direction()
    }

    fn harm(&self) -> Harm {
        if self.payload { Harm::Bytes } else { Harm::Ends }
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        self.stretch.refusal(engine)
    }

    fn per_segment(&self) -> bool {
        true
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        self.stretch.has(at) && !seg.payload.is_empty()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if self.payload {
            let mut bytes = seg.payload.to_vec();
            let bit = moment.dice.below(8 * bytes.len() as u64) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            seg.payload = Bytes::from(bytes).into();
            return Verdict::Rewrite;
        }
        match moment.at.way {
            // What a kernel does with it (RFC 9293 MUST-3); halfopen is the receiver here.
            Way::In => Verdict::Drop,
            Way::Out => {
                seg.bad_checksum = true;
                Verdict::Rewrite
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::trace::Leg;
    use crate::wire::Flags;

    fn data() -> Segment {
        Segment { payload: Bytes::from(vec![0; 1000]).into(), ..seg(Flags::ACK) }
    }

    const TO_CLIENT: Point = Point { leg: Leg::Client, way: Way::Out };

    #[test]
    fn a_wrong_checksum_leaves_the_data_as_they_are() {
        let mut segment = data();
        assert_eq!(Flow::of("corrupt nth=1").judge(TO_CLIENT, &mut segment), Verdict::Rewrite);
        assert_eq!(segment, Segment { bad_checksum: true, ..data() });
        let mut ack = seg(Flags::ACK);
        assert_eq!(Flow::of("corrupt nth=1").judge(TO_CLIENT, &mut ack), Verdict::Pass, "only data");
    }

    #[test]
    fn what_comes_in_with_a_wrong_checksum_is_thrown_away_by_halfopen_itself() {
        let mut flow = Flow::of("corrupt nth=1 direction=upstream");
        assert_eq!(flow.letter(Leg::Client, Way::In, &data()), 'D');
        assert_eq!(flow.letter(Leg::Client, Way::In, &data()), 'P');
    }

    #[test]
    fn one_bit_of_the_data_flips_by_the_dice() {
        let flipped = |flow: &mut Flow| {
            let mut segment = data();
            assert_eq!(flow.judge(TO_CLIENT, &mut segment), Verdict::Rewrite);
            assert!(!segment.bad_checksum);
            let bytes = segment.payload.to_vec();
            assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
            bytes.iter().position(|byte| *byte != 0).unwrap()
        };
        let run = || {
            let mut flow = Flow::of("corrupt first=all mode=payload");
            [flipped(&mut flow), flipped(&mut flow), flipped(&mut flow)]
        };
        assert_eq!(run(), run(), "the same seed flips the same bits");
        assert_ne!(run()[0], run()[1], "and another one each time");
    }

    #[test]
    fn a_kernel_socket_is_out_of_reach() {
        assert!(refused("corrupt leg=server", Engine::Exec).is_some());
        assert_eq!(refused("corrupt mode=payload direction=upstream", Engine::Exec), None);
    }
}
