//! `ecn-blackhole`: a middlebox that takes the ECN bits for something else.

use std::sync::Arc;

use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "ecn-blackhole",
    summary: "loses SYNs that ask for ECN, or clears the marks of the data",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "ecn-blackhole style=drop",
    attributes: &[AttributeDoc {
        name: "style",
        unit: Unit::Word(&["drop", "bleach"]),
        default: "drop",
        zero: "",
        doc: "Drop: SYNs with ECE and CWR are lost, those without pass. Bleach: the handshake is left alone, and ECT and CE \
              are cleared in every packet, on both sides (exec: on the client's).",
    }],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H25",
        incident: "RFC 3168 §6.1.1.1: hosts and firewalls that drop or reset what asks for ECN; Linux has tcp_ecn_fallback for them",
    },
    also: &[Alias { id: "H25", name: "ecn-bleach", rule: "ecn-blackhole style=bleach" }],
    scene: Scene { rule: "ecn-blackhole", play: Play::Extensions },
    sees: "with tcp_ecn = 1 connect() takes 1.0 s more, and the connection goes without ECN; by default Linux does not ask. \
           Bleached marks are not seen at all: congestion is only noticed by loss.",
    build: |reader, _| Ok(Arc::new(EcnBlackhole { bleach: reader.word("style")? == Some("bleach") })),
};

#[derive(Debug)]
struct EcnBlackhole {
    bleach: bool,
}

impl Fault for EcnBlackhole {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Sockets && self.bleach)
            .then_some("the kernel sends the packets of its sockets itself")
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        match self.bleach {
            true => seg.ip.ecn() != 0,
            false => {
                at == Point { leg: Leg::Client, way: Way::In }
                    && seg.has(Flags::SYN | Flags::ECE | Flags::CWR)
                    && !seg.has(Flags::ACK)
            }
        }
    }

    fn on_segment(&self, _: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if !self.bleach {
            return Verdict::Drop;
        }
        seg.ip.tos &= !3;
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, seg};
    use crate::wire::IpMeta;

    #[test]
    fn a_syn_that_asks_for_ecn_is_lost() {
        for (flags, lost) in [
            (Flags::SYN, 'P'),
            (Flags::SYN | Flags::ECE, 'P'),
            (Flags::SYN | Flags::ECE | Flags::CWR, 'D'),
            (Flags::SYN | Flags::ECE | Flags::CWR | Flags::AE, 'D'),
            (Flags::SYN | Flags::ECE | Flags::CWR | Flags::ACK, 'P'),
            (Flags::ACK | Flags::ECE | Flags::CWR, 'P'),
        ] {
            let mut flow = Flow::of("ecn-blackhole");
            assert_eq!(flow.letter(Leg::Client, Way::In, &seg(flags)), lost, "{flags}");
            let mut bleached = Flow::of("ecn-blackhole style=bleach");
            assert_eq!(bleached.letter(Leg::Client, Way::In, &seg(flags)), 'P', "{flags}");
        }
    }

    #[test]
    fn marks_are_cleared_everywhere_and_dscp_stays() {
        for (leg, way, tos, after) in [
            (Leg::Client, Way::In, 0b1011_1011, Some(0b1011_1000)),
            (Leg::Client, Way::Out, 0b10, Some(0)),
            (Leg::Client, Way::Out, 0b1011_1000, None),
            (Leg::Server, Way::Out, 0b10, Some(0)),
            (Leg::Server, Way::In, 0b11, Some(0)),
        ] {
            let mut flow = Flow::of("ecn-blackhole style=bleach");
            let mut data = Segment { ip: IpMeta { ttl: 64, tos }, ..seg(Flags::ACK) };
            let verdict = flow.judge(Point { leg, way }, &mut data);
            assert_eq!(verdict, if after.is_some() { Verdict::Rewrite } else { Verdict::Pass });
            assert_eq!(data.ip.tos, after.unwrap_or(tos));
        }
    }
}
