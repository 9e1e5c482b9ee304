//! `rst-blind`: somebody who cannot see the connection tries to reset it.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::SERVER_IS_SOCKET;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "rst-blind",
    summary: "sends a RST whose number is in the window but not exact, or outside of it",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "rst-blind to=client offset=100",
    attributes: &[
        AttributeDoc {
            name: "to",
            unit: Unit::Word(&["client", "server"]),
            default: "client",
            zero: "",
            doc: "Who gets the RST.",
        },
        AttributeDoc {
            name: "offset",
            unit: Unit::Number { from: -2_147_483_648, to: 2_147_483_647 },
            default: "100",
            zero: "refused: `rst-inject` does that",
            doc: "How far its number is beyond the last byte that was sent to that peer; a negative one, or one beyond the window, is outside.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Whose segments with data are each followed by one, as the bounds say.",
        },
    ],
    bounds: &["first", "nth", "after_bytes", "after", "for", "at", "every", "share"],
    default_bound: Some(("first", "1")),
    scales: &[],
    source: Source {
        id: "E17",
        incident: "RFC 5961 §3.2, CVE-2004-0230: only an exact RST resets, one in the window is asked back by a challenge ACK",
    },
    also: &[],
    scene: Scene { rule: "rst-blind to=client", play: Play::Pause },
    sees: "nothing: the kernel answers one in the window with a challenge ACK and ignores one outside. Firewalls and old stacks drop the connection.",
    build: |reader, _| {
        let offset = reader.number("offset")?.unwrap_or(0);
        if offset == 0 {
            return Err(reader.wrong("offset", "an exact number is what `rst-inject` sends"));
        }
        let to = if reader.word("to")? == Some("server") { Leg::Server } else { Leg::Client };
        // Modulo 2^32, so that a negative one goes back.
        Ok(Arc::new(RstBlind { to, offset: offset as u32, direction: reader.direction("direction")? }))
    },
};

#[derive(Debug)]
struct RstBlind {
    to: Leg,
    offset: u32,
    direction: Direction,
}

impl Fault for RstBlind {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Exec && self.to == Leg::Server).then_some(SERVER_IS_SOCKET)
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let here = match self.direction {
            Direction::Downstream if progress.server_is_socket => Point { leg: Leg::Client, way: Way::Out },
            direction => Point { leg: direction.enters(), way: Way::In },
        };
        at == here && !seg.payload.is_empty() && progress.numbers(self.to).is_some()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        if let Some(numbers) = moment.progress.numbers(self.to) {
            let seq = numbers.snd_nxt + self.offset;
            moment.send(self.to, Segment { seq, flags: Flags::RST, ..Segment::default() }, Duration::ZERO);
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::wire::{Numbers, SeqNum};

    #[test]
    fn the_number_is_off_by_the_offset() {
        let numbers = |nxt| Some(Numbers { snd_una: SeqNum(1), snd_nxt: SeqNum(nxt), rcv_nxt: SeqNum(9) });
        for (rule, leg, seqs) in [
            ("rst-blind", Leg::Client, &[1100][..]),
            ("rst-blind offset=-1001", Leg::Client, &[u32::MAX]),
            ("rst-blind to=server first=2", Leg::Server, &[2100, 2100]),
            ("rst-blind direction=downstream", Leg::Client, &[]),
        ] {
            let mut flow = Flow::of(rule);
            (flow.progress.client, flow.progress.server) = (numbers(1000), numbers(2000));
            let data = Segment { payload: (&b"x"[..]).into(), ..seg(Flags::ACK) };
            for segment in [&data, &seg(Flags::ACK), &data] {
                assert_eq!(flow.letter(Leg::Client, Way::In, segment), 'P', "{rule}");
            }
            let sent: Vec<_> = flow
                .deeds()
                .into_iter()
                .map(|deed| match deed {
                    Deed::Send { leg, segment, after: Duration::ZERO } => (leg, segment.flags, segment.seq.0),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<_> = seqs.iter().map(|seq| (leg, Flags::RST, *seq)).collect();
            assert_eq!(sent, expected, "{rule}");
        }
    }

    #[test]
    fn an_exact_number_and_a_kernel_socket_are_refused() {
        assert!(error("rst-blind offset=0").contains("an exact number is what `rst-inject` sends"));
        assert!(refused("rst-blind to=server", Engine::Exec).is_some());
        assert_eq!(refused("rst-blind", Engine::Exec), None);
    }
}
