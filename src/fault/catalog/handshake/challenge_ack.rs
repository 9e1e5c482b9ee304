//! `challenge-ack`: the server still has a connection of an earlier life with these ports, and answers the SYN by an ACK.

use std::sync::Arc;

use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, RawWindow, Segment, SeqNum};

/// Linux answers strangers at most this often (`tcp_invalid_ratelimit`).
const RATE: Duration = Duration::from_millis(500);

pub(in crate::fault) const KIND: Kind = Kind {
    name: "challenge-ack",
    summary: "answers the SYN by the ACK of a stale connection, until a RST ends that one",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "challenge-ack swallow_rst=true for=60s",
    attributes: &[
        AttributeDoc {
            name: "swallow_rst",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "Whether a firewall eats the client's RSTs: the stale connection stays, for as long as `for` says, or for ever.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 60 },
            default: "0",
            zero: "at once",
            doc: "How long after the SYN the ACK comes.",
        },
    ],
    bounds: &["after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H15",
        incident: "google/gvisor#7619: a client that waited 1 s after the challenge ACK of a stale connection (RFC 5961 §4.2)",
    },
    also: &[Alias { id: "H16", name: "closewait-collision", rule: "challenge-ack swallow_rst=true" }],
    scene: Scene { rule: "challenge-ack swallow_rst=true for=800ms", play: Play::Talk },
    sees: "Linux answers by a RST and sends its SYN again after 16 ms: connect() is hardly late. Where the RST is swallowed \
           connect() takes the client's SYN schedule (1.0 s and more), or never ends.",
    build: |reader, _| {
        let swallow_rst = reader.flag("swallow_rst")?.unwrap_or(false);
        Ok(Arc::new(ChallengeAck { swallow_rst, delay: reader.duration("delay")?.unwrap_or_default() }))
    },
};

#[derive(Debug)]
struct ChallengeAck {
    swallow_rst: bool,
    delay: Duration,
}

/// The stale connection.
#[derive(Clone, Copy, Debug, Default)]
struct Stale {
    /// Its numbers, once a SYN has met it: SND.NXT and RCV.NXT.
    numbers: Option<(SeqNum, SeqNum)>,
    answered: Option<Instant>,
    gone: bool,
}

impl Fault for ChallengeAck {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    /// The client's SYNs and RSTs before it is accepted.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at == Point { leg: Leg::Client, way: Way::In }
            && progress.client.is_none()
            && (seg.has(Flags::RST) || (seg.has(Flags::SYN) && !seg.has(Flags::ACK)))
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let now = moment.now;
        let foreign = moment.dice.next_u32();
        // Anything but the next number; half the space away it is neither old nor new by chance.
        let numbers = (SeqNum(foreign), seg.seq + (1 << 30) + (foreign >> 2));
        let stale = moment.memory.of::<Stale>();
        if seg.has(Flags::RST) {
            let exact = stale.numbers.is_some_and(|(_, nxt)| nxt == seg.seq);
            if !exact || stale.gone {
                return Verdict::Pass;
            }
            stale.gone = !self.swallow_rst;
            return Verdict::Drop;
        }
        if stale.gone {
            return Verdict::Pass;
        }
        let (seq, ack) = *stale.numbers.get_or_insert(numbers);
        if stale.answered.is_none_or(|at| now.since(at) >= RATE) {
            stale.answered = Some(now);
            let window = RawWindow(501);
            let answer = Segment { seq, ack, flags: Flags::ACK, window, ..Segment::default() };
            moment.send(Leg::Client, answer, self.delay);
        }
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, seg};

    /// The ACK with which a SYN is answered.
    fn answers(flow: &mut Flow) -> Vec<Segment> {
        let deeds = flow.deeds().into_iter();
        let segments = deeds.map(|deed| match deed {
            Deed::Send { leg: Leg::Client, segment, .. } => *segment,
            other => panic!("{other:?}"),
        });
        segments.collect()
    }

    fn syn(flow: &mut Flow, millis: u64) -> (char, Vec<Segment>) {
        let syn = Segment { seq: SeqNum(u32::MAX - 5), flags: Flags::SYN, ..Segment::default() };
        (flow.at(millis).letter(Leg::Client, Way::In, &syn), answers(flow))
    }

    #[test]
    fn the_ack_has_a_foreign_number_and_its_rst_ends_the_stale_connection() {
        for (rule, after_the_rst) in [("challenge-ack", 'P'), ("challenge-ack swallow_rst=true", 'D')] {
            let mut flow = Flow::of(rule);
            let (verdict, answers) = syn(&mut flow, 0);
            assert_eq!((verdict, answers.len()), ('D', 1), "{rule}");
            let ack = answers[0].ack;
            assert_eq!(answers[0].flags, Flags::ACK);
            assert!(!(0..=1).contains(&ack.diff(SeqNum(u32::MAX - 5))), "{ack:?}");
            let blind = Segment { seq: ack + 1, flags: Flags::RST, ..Segment::default() };
            assert_eq!(flow.letter(Leg::Client, Way::In, &blind), 'P', "it does not end anything");
            let rst = Segment { seq: ack, flags: Flags::RST, ..Segment::default() };
            assert_eq!(flow.at(1).letter(Leg::Client, Way::In, &rst), 'D', "{rule}");
            assert_eq!(syn(&mut flow, 16), (after_the_rst, vec![]), "{rule}");
        }
    }

    #[test]
    fn answers_come_at_most_twice_a_second_with_the_same_numbers_within_the_bounds() {
        let mut flow = Flow::of("challenge-ack swallow_rst=true for=3s");
        let seen = [0, 16, 499, 500, 1016, 2900, 3000].map(|at| syn(&mut flow, at));
        let told: String = seen.iter().map(|(verdict, _)| *verdict).collect();
        let counts = seen.each_ref().map(|(_, answers)| answers.len());
        assert_eq!((told.as_str(), counts), ("DDDDDDP", [1, 0, 0, 1, 1, 1, 0]));
        let numbers: Vec<_> = seen.iter().flat_map(|(_, answers)| answers).map(|s| (s.seq, s.ack)).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
    }

    #[test]
    fn other_segments_are_left_alone() {
        let mut flow = Flow::of("challenge-ack");
        for flags in [Flags::ACK, Flags::FIN | Flags::ACK, Flags::SYN | Flags::ACK] {
            assert_eq!(flow.letter(Leg::Client, Way::In, &seg(flags)), 'P');
        }
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::RST)), 'P', "nothing is stale yet");
    }
}
