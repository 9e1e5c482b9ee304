//! `ack-storm`: a middlebox that repeats acknowledgements.

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
    name: "ack-storm",
    summary: "sends one peer a bounded burst of duplicate ACKs, between private addresses only",
    topic: Topic::Ack,
    engines: &[Engine::Tun, Engine::Exec],
    example: "ack-storm direction=upstream n=100 per_second=50",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction of the data that is acknowledged again and again; upstream: the client gets the ACKs.",
        },
        AttributeDoc {
            name: "n",
            unit: Unit::Count { from: 1, to: 500 },
            default: "100",
            zero: "",
            doc: "How many, once per flow. They begin with the first segment of this peer within the bounds.",
        },
        AttributeDoc {
            name: "per_second",
            unit: Unit::Count { from: 1, to: 1000 },
            default: "50",
            zero: "",
            doc: "How many in a second, evenly.",
        },
        AttributeDoc {
            name: "behind",
            unit: Unit::Count { from: 0, to: 65_535 },
            default: "2",
            zero: "exact duplicates, which draw no answer",
            doc: "How far their sequence number lies behind the expected one. A host answers what lies outside its window, as in \
                  the loops that middleboxes make of ACKs; Linux at most twice in a second (tcp_invalid_ratelimit).",
        },
    ],
    bounds: &["after_bytes", "after", "at"],
    default_bound: Some(("after_bytes", "1")),
    scales: &[],
    source: Source {
        id: "E30",
        incident: "Linux's tcp_invalid_ratelimit exists because of middleboxes that made endless loops of duplicate ACKs",
    },
    also: &[],
    scene: Scene { rule: "ack-storm n=20 per_second=10", play: Play::Pause },
    sees: "nothing: the kernel answers two of them in a second and goes on. What is loaded are the host and the path.",
    build: |reader, _| {
        Ok(Arc::new(AckStorm {
            direction: reader.direction("direction")?,
            burst: Burst {
                count: reader.count("n")?.unwrap_or(1) as u16,
                gap: Duration::from_secs(1) / reader.count("per_second")?.unwrap_or(1) as u32,
                behind: reader.count("behind")?.unwrap_or_default() as u32,
            },
        }))
    },
};

#[derive(Debug)]
struct AckStorm {
    direction: Direction,
    burst: Burst,
}

/// The burst is sent.
#[derive(Debug, Default)]
struct Done(bool);

impl Fault for AckStorm {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        (engine == Engine::Exec && self.direction == Direction::Downstream).then_some(SERVER_IS_SOCKET)
    }

    /// Nobody asked the hosts of the internet whether they want to be tested.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        progress.is_private
            && progress.established.is_some()
            && at == Point { leg: self.direction.enters(), way: Way::In }
            && !seg.flags.any(Flags::SYN | Flags::RST)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        if !std::mem::replace(&mut moment.memory.of::<Done>().0, true) {
            moment.acknowledge(moment.at.leg, self.burst);
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::trace::Leg;

    fn storm(is_private: bool, leg: Leg, segments: usize) -> Vec<Deed> {
        let mut flow = Flow::of("ack-storm after_bytes=10 n=5 per_second=20");
        flow.established();
        flow.progress.is_private = is_private;
        for bytes in 0..segments {
            flow.received(5 * bytes as u64, 0);
            assert_eq!(flow.letter(leg, Way::In, &seg(Flags::ACK)), 'P');
        }
        flow.deeds()
    }

    #[test]
    fn one_burst_leaves_once_the_bounds_are_met() {
        let burst = Burst { count: 5, gap: Duration::from_millis(50), behind: 2 };
        let expected = Deed::Acknowledge { leg: Leg::Client, burst };
        assert_eq!(storm(true, Leg::Client, 2), []);
        assert_eq!(storm(true, Leg::Client, 3), std::slice::from_ref(&expected));
        assert_eq!(storm(true, Leg::Client, 30), [expected], "never twice");
        assert_eq!(storm(true, Leg::Server, 30), [], "the other peer is left alone");
    }

    #[test]
    fn hosts_of_the_internet_are_left_alone_and_the_burst_has_a_cap() {
        assert_eq!(storm(false, Leg::Client, 30), []);
        assert!(error("ack-storm n=501").contains("500"));
        assert!(error("ack-storm per_second=1001").contains("1000"));
        assert!(refused("ack-storm direction=downstream", Engine::Exec).is_some());
        assert_eq!(refused("ack-storm", Engine::Exec), None);
    }
}
