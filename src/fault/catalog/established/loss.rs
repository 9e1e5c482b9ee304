//! `loss`: the path loses segments, alone or in bursts.

use std::sync::Arc;

use crate::fault::attributes::{DIRECTIONS_BOTH, Reader};
use crate::fault::catalog::stretch::Stretch;
use crate::fault::{
    AttributeDoc, Bounds, Engine, Error, Fault, Kind, Loss, LossState, Moment, Play, Point, Progress, Scene,
    Source, Topic, Unit, Verdict,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "loss",
    summary: "loses segments by chance or by count, alone or in bursts, of all kinds or of some",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "loss p=0.01 burst=3",
    attributes: &[
        Loss::P,
        Loss::BURST,
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "both",
            zero: "",
            doc: "What is lost: upstream of what goes to the server, downstream of what goes to the client.",
        },
        Stretch::LEG,
        AttributeDoc {
            name: "kinds",
            unit: Unit::Words(&["any", "data", "ack", "syn", "fin"]),
            default: "any",
            zero: "",
            doc: "Which segments can be lost: any; those with data, pure acknowledgements, those with SYN, those with FIN.",
        },
        AttributeDoc {
            name: "size",
            unit: Unit::Bytes,
            default: "0",
            zero: "any",
            doc: "Only segments with at least this many payload bytes can be lost.",
        },
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E19",
        incident: "bursts of 3 and more are the rule on congested and wireless paths (Gilbert-Elliott); the sender's schedule was \
                   measured on Linux 6.18",
    },
    also: &[],
    scene: Scene { rule: "loss p=1 nth=2-4 kinds=data direction=upstream", play: Play::Pause },
    sees: "time: the sender's kernel repeats after 0.21, 0.42, 0.84 s, or at once when later segments arrive; no byte is lost.",
    build,
};

fn build(reader: &Reader<'_>, bounds: &mut Bounds) -> Result<Arc<dyn Fault>, Error> {
    let chance = reader.share(Loss::P.name)?.unwrap_or(0.0);
    if chance < 1.0 && (bounds.first.is_some() || bounds.nth.is_some()) {
        let name = if bounds.first.is_some() { "first" } else { "nth" };
        return Err(reader.wrong(name, "chooses by count and `p` by chance: give p=1 with it"));
    }
    let kinds = reader.words("kinds")?.unwrap_or_default();
    if kinds.len() > 1 && kinds.contains(&"any") {
        return Err(reader.wrong("kinds", "any is all of them: give it alone"));
    }
    let has = |kind: &str| kinds.contains(&"any") || kinds.contains(&kind);
    Ok(Arc::new(Lossy {
        loss: Loss::read(reader)?,
        stretch: Stretch::read(reader)?,
        any: has("any"),
        data: has("data"),
        ack: has("ack"),
        flags: [(Flags::SYN, "syn"), (Flags::FIN, "fin")]
            .into_iter()
            .filter(|(_, kind)| has(kind))
            .fold(Flags::default(), |all, (flag, _)| all | flag),
        size: reader.bytes("size")?.unwrap_or(0),
    }))
}

#[derive(Debug)]
struct Lossy {
    loss: Loss,
    stretch: Stretch,
    any: bool,
    data: bool,
    ack: bool,
    /// SYN or FIN, if those can be lost.
    flags: Flags,
    size: u64,
}

/// Bursts of one direction are no bursts of the other: upstream and downstream.
type State = [LossState; 2];

impl Fault for Lossy {
    fn direction(&self) -> Direction {
        self.stretch.direction()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        self.stretch.refusal(engine)
    }

    fn per_segment(&self) -> bool {
        true
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        let pure_ack = seg.payload.is_empty()
            && seg.has(Flags::ACK)
            && !seg.flags.any(Flags::SYN | Flags::FIN | Flags::RST);
        let kind = self.any
            || self.data && !seg.payload.is_empty()
            || self.ack && pure_ack
            || seg.flags.any(self.flags);
        self.stretch.has(at) && kind && u64::from(seg.payload.len()) >= self.size
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        let state = &mut moment.memory.of::<State>()[moment.at.direction() as usize];
        if self.loss.lose(state, moment.dice) { Verdict::Drop } else { Verdict::Pass }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::trace::Leg;

    fn data(len: usize) -> Segment {
        Segment { payload: Bytes::from(vec![0; len]).into(), ..seg(Flags::ACK) }
    }

    #[test]
    fn kinds_and_sizes_choose_what_can_be_lost() {
        let sent = [
            seg(Flags::SYN),
            seg(Flags::ACK),
            data(1),
            data(100),
            seg(Flags::FIN | Flags::ACK),
            seg(Flags::RST),
        ];
        for (sentence, rule, lost) in [
            ("any is all, RST too", "loss p=1", "DDDDDD"),
            ("nothing is lost without chance", "loss p=0", "PPPPPP"),
            ("data", "loss p=1 kinds=data", "PPDDPP"),
            ("pure ACKs only", "loss p=1 kinds=ack", "PDPPPP"),
            ("SYN and FIN", "loss p=1 kinds=syn,fin", "DPPPDP"),
            ("large ones", "loss p=1 size=100", "PPPDPP"),
            ("by count among those that can be lost", "loss p=1 kinds=data nth=2", "PPPDPP"),
        ] {
            let mut flow = Flow::of(rule);
            let seen: String = sent.iter().map(|seg| flow.letter(Leg::Client, Way::In, seg)).collect();
            assert_eq!(seen, lost, "{sentence}");
        }
    }

    #[test]
    fn the_stretch_is_one_leg_and_its_directions() {
        let points = [
            (Leg::Client, Way::In),
            (Leg::Server, Way::Out),
            (Leg::Server, Way::In),
            (Leg::Client, Way::Out),
        ];
        for (rule, lost) in [
            ("loss p=1", "DPPD"),
            ("loss p=1 direction=upstream", "DPPP"),
            ("loss p=1 direction=downstream", "PPPD"),
            ("loss p=1 leg=server", "PDDP"),
            ("loss p=1 leg=server direction=upstream", "PDPP"),
        ] {
            let mut flow = Flow::of(rule);
            let seen: String = points.iter().map(|(leg, way)| flow.letter(*leg, *way, &data(1))).collect();
            assert_eq!(seen, lost, "{rule}");
        }
        assert!(refused("loss leg=server", Engine::Exec).is_some_and(|why| why.contains("kernel socket")));
        assert_eq!(refused("loss", Engine::Exec), None);
    }

    /// The mean length of what is lost in a row, and the share.
    fn measured(rule: &str) -> (f64, f64) {
        let mut flow = Flow::of(rule);
        let lost: Vec<bool> =
            (0..40_000).map(|_| flow.letter(Leg::Client, Way::In, &data(1)) == 'D').collect();
        let all = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.split(|lost| !lost).filter(|burst| !burst.is_empty()).count() as f64;
        (all / bursts, all / lost.len() as f64)
    }

    #[test]
    fn bursts_are_as_long_as_told() {
        let (burst, share) = measured("loss p=0.1 burst=4");
        assert!((burst - 4.0).abs() < 0.4 && (share - 0.1).abs() < 0.01, "{burst} {share}");
        let (burst, share) = measured("loss p=0.1");
        assert!((burst - 1.11).abs() < 0.05 && (share - 0.1).abs() < 0.01, "{burst} {share}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (rule, why) in [
            ("loss first=3", "chooses by count and `p` by chance: give p=1 with it"),
            ("loss nth=3 p=0.5", "chooses by count and `p` by chance: give p=1 with it"),
            ("loss kinds=any,syn", "any is all of them: give it alone"),
        ] {
            assert!(error(rule).contains(why), "{}", error(rule));
        }
    }
}
