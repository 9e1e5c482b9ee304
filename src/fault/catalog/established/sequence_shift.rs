//! `sequence-shift`: a middlebox gives one direction other sequence numbers.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::stretch::Stretch;
use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment, SeqNum};

/// So near 2^32 that the numbers wrap within the first KB.
const ISS: &str = "0xffffff00";

pub(in crate::fault) const KIND: Kind = Kind {
    name: "sequence-shift",
    summary: "shifts the sequence numbers of one direction, and forgets those in SACK blocks",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "sequence-shift direction=upstream offset=1000000007 sack=untranslated",
    attributes: &[
        AttributeDoc {
            name: "mode",
            unit: Unit::Word(&["offset", "iss"]),
            default: "offset",
            zero: "",
            doc: "offset: all connections by the same `offset`. iss: each by what makes its initial sequence number `iss`.",
        },
        AttributeDoc {
            name: "offset",
            unit: Unit::Number { from: -2_147_483_648, to: 2_147_483_647 },
            default: "1000000007",
            zero: "changes nothing",
            doc: "Added to the sequence numbers of the direction, and taken from the acknowledgement numbers of the other one.",
        },
        AttributeDoc {
            name: "iss",
            unit: Unit::Count { from: 0, to: 4_294_967_295 },
            default: ISS,
            zero: "the SYN has the number 0",
            doc: "The number of the SYN, or SYN-ACK, that starts the direction.",
        },
        AttributeDoc {
            name: "sack",
            unit: Unit::Word(&["untranslated", "translated"]),
            default: "untranslated",
            zero: "",
            doc: "untranslated: the edges of SACK blocks keep the other side's numbers, and their receiver cannot use them. translated: they are \
                  shifted as well, and nobody notices anything.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Whose numbers are shifted: upstream those of what goes to the server, downstream those of what goes to the client. The SACK blocks \
                  that matter come the other way.",
        },
        Stretch::LEG,
    ],
    // From the SYN to the end, or the connection breaks.
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E23",
        incident: "Cisco FWSM and ASA: TCP sequence number randomisation breaks SACK, says their documentation",
    },
    also: &[Alias {
        id: "E25",
        name: "seq-wrap",
        rule: "sequence-shift mode=iss direction=downstream sack=translated",
    }],
    scene: Scene { rule: "sequence-shift mode=iss direction=downstream sack=translated", play: Play::Talk },
    sees: "nothing as long as nothing is lost. With loss, sack=untranslated makes recovery slow, with needless retransmissions and stalls.",
    build: |reader, _| {
        let given = |name: &str, default: &str| reader.text(name) != default;
        let iss = reader.word("mode")? == Some("iss");
        if !iss && given("iss", ISS) {
            return Err(reader.wrong("iss", "counts with mode=iss only"));
        }
        if iss && given("offset", "1000000007") {
            return Err(reader.wrong("offset", "follows from `iss` with mode=iss"));
        }
        let iss = reader.count("iss")?.and_then(|n| u32::try_from(n).ok()).filter(|_| iss);
        Ok(Arc::new(SequenceShift {
            // Modulo 2^32, so that a negative one goes back.
            offset: reader.number("offset")?.unwrap_or(0) as u32,
            iss,
            sack: reader.word("sack")? == Some("translated"),
            stretch: Stretch::read(reader)?,
        }))
    },
};

#[derive(Debug)]
struct SequenceShift {
    offset: u32,
    iss: Option<u32>,
    /// SACK blocks are translated.
    sack: bool,
    stretch: Stretch,
}

/// The offset of this flow, once a SYN has told it.
type State = Option<u32>;

impl SequenceShift {
    fn offset(&self, moment: &mut Moment<'_>, seg: &Segment, forward: bool) -> Option<u32> {
        let Some(iss) = self.iss else { return Some(self.offset) };
        let state = moment.memory.of::<State>();
        if forward && seg.has(Flags::SYN) {
            *state = Some((SeqNum(iss) - seg.seq.0).0);
        }
        *state
    }
}

impl Fault for SequenceShift {
    fn direction(&self) -> Direction {
        self.stretch.direction()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        self.stretch.refusal(engine)
    }

    /// Of all that the peer sends and gets, or the connection breaks.
    fn is_outermost(&self) -> bool {
        true
    }

    /// Both ways: numbers here, acknowledgements there.
    fn selects(&self, at: Point, _: &Segment, _: &Progress) -> bool {
        at.leg == self.stretch.leg()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let forward = self.stretch.has(moment.at);
        let Some(offset) = self.offset(moment, seg, forward) else { return Verdict::Pass };
        if forward {
            seg.seq += offset;
            return Verdict::Rewrite;
        }
        if !seg.has(Flags::ACK) {
            // A SYN has nothing to acknowledge yet. A RST without ACK took its number from an acknowledgement, which is translated.
            return Verdict::Pass;
        }
        seg.ack = seg.ack - offset;
        if self.sack {
            for block in &mut seg.options.sack {
                (block.left, block.right) = (block.left - offset, block.right - offset);
            }
        }
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, error, refused};
    use crate::trace::Leg;
    use crate::wire::SegmentNote;

    /// What becomes of a segment in the notation.
    fn shifted(flow: &mut Flow, leg: Leg, way: Way, text: &str) -> String {
        let note: SegmentNote = text.parse().unwrap();
        let mut segment = Segment {
            seq: note.seq,
            ack: note.ack,
            flags: note.flags,
            options: note.options,
            ..Segment::default()
        };
        flow.judge(Point { leg, way }, &mut segment);
        SegmentNote::from(&segment).to_string()
    }

    #[test]
    fn numbers_are_shifted_one_way_and_back_the_other_way() {
        let mut flow = Flow::of("sequence-shift offset=1000 sack=translated");
        for (sentence, way, before, after) in [
            ("SYN", Way::In, "S 7:7(0) win 0", "S 1007:1007(0) win 0"),
            ("SYN-ACK", Way::Out, "S. 5:5(0) ack 1008 win 0", "S. 5:5(0) ack 8 win 0"),
            ("ACK", Way::In, ". 8:8(0) ack 6 win 0", ". 1008:1008(0) ack 6 win 0"),
            (
                "SACK of the shifted direction",
                Way::Out,
                ". 6:6(0) ack 1008 win 0 <nop,nop,sack 1 {1010:1020}>",
                ". 6:6(0) ack 8 win 0 <nop,nop,sack 1 {10:20}>",
            ),
            (
                "SACK of the other direction",
                Way::In,
                ". 8:8(0) ack 6 win 0 <nop,nop,sack 1 {10:20}>",
                ". 1008:1008(0) ack 6 win 0 <nop,nop,sack 1 {10:20}>",
            ),
            ("its wrap", Way::In, ". 4294967290:4294967290(0) ack 6 win 0", ". 994:994(0) ack 6 win 0"),
            ("the wrap back", Way::Out, ". 6:6(0) ack 4 win 0", ". 6:6(0) ack 4294966300 win 0"),
            ("RST", Way::In, "R 8:8(0) win 0", "R 1008:1008(0) win 0"),
            ("RST of the other end", Way::Out, "R 6:6(0) win 0", "R 6:6(0) win 0"),
            ("the same with ACK", Way::Out, "R. 0:0(0) ack 1008 win 0", "R. 0:0(0) ack 8 win 0"),
        ] {
            assert_eq!(shifted(&mut flow, Leg::Client, way, before), after, "{sentence}");
        }
        let other = "P. 8:8(0) ack 6 win 0";
        assert_eq!(
            shifted(&mut flow, Leg::Server, Way::In, other),
            other,
            "the other leg has its own numbers"
        );
    }

    #[test]
    fn untranslated_sack_keeps_the_numbers_of_the_other_side() {
        let mut flow = Flow::of("sequence-shift offset=1000");
        let sack = ". 6:6(0) ack 1008 win 0 <nop,nop,sack 1 {1010:1020}>";
        let seen = shifted(&mut flow, Leg::Client, Way::Out, sack);
        assert_eq!(seen, ". 6:6(0) ack 8 win 0 <nop,nop,sack 1 {1010:1020}>");
    }

    #[test]
    fn an_initial_number_can_be_chosen() {
        let mut flow = Flow::of("sequence-shift mode=iss iss=0xfffffffe direction=downstream");
        let (to, from) = (Way::Out, Way::In);
        for (sentence, way, before, after) in [
            ("the client's SYN comes first", from, "S 7:7(0) win 0", "S 7:7(0) win 0"),
            ("SYN-ACK", to, "S. 500:500(0) ack 8 win 0", "S. 4294967294:4294967294(0) ack 8 win 0"),
            ("again", to, "S. 500:500(0) ack 8 win 0", "S. 4294967294:4294967294(0) ack 8 win 0"),
            ("ACK", from, ". 8:8(0) ack 4294967295 win 0", ". 8:8(0) ack 501 win 0"),
            ("beyond the wrap", to, ". 511:511(0) ack 8 win 0", ". 9:9(0) ack 8 win 0"),
            ("and back", from, ". 8:8(0) ack 9 win 0", ". 8:8(0) ack 511 win 0"),
        ] {
            assert_eq!(shifted(&mut flow, Leg::Client, way, before), after, "{sentence}");
        }
    }

    #[test]
    fn what_does_not_count_is_refused() {
        assert!(error("sequence-shift iss=5").contains("counts with mode=iss only"));
        assert!(error("sequence-shift mode=iss offset=5").contains("follows from `iss`"));
        assert!(error("sequence-shift after=1s").contains("after"), "no bounds");
        assert!(refused("sequence-shift leg=server", Engine::Exec).is_some());
    }
}
