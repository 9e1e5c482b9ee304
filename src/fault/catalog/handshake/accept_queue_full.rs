//! `accept-queue-full`: a server that accepts more slowly than clients come.

use std::sync::Arc;

use super::pick;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Shape, Source, Topic, Turn,
    Unit, Verdict,
};
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "accept-queue-full",
    summary: "lets so many connections in, accepts them slowly, and loses the SYNs of all others until there is room",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "accept-queue-full slots=129 release=10",
    attributes: &[
        AttributeDoc {
            name: "slots",
            unit: Unit::Count { from: 1, to: 1_000_000 },
            default: "129",
            zero: "",
            doc: "Connections that wait to be accepted. Linux lets in one more than the backlog of listen(): 129 for 128.",
        },
        AttributeDoc {
            name: "release",
            unit: Unit::Count { from: 0, to: 1_000_000 },
            default: "10",
            zero: "nobody is ever accepted",
            doc: "Connections that are accepted per second, one after the other in the order of their first SYNs. Each shard \
                  (`engine.shards`) has a queue of its own.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H5",
        incident: "gwsystems/sledge#395: a backlog of 128 gave 202 of 50,000 requests more than 1 s, 4096 none; \
                   Xilinx-CNS/onload#182",
    },
    also: &[],
    scene: Scene { rule: "accept-queue-full slots=1 release=1", play: Play::Talk },
    sees: "the first connections open at once and then hang without an answer until they are accepted; connect() of all others \
           is late by the client's own SYN schedule, 1.0, 2.0, 3.1 s on Linux 6.5 and later.",
    build: |reader, _| {
        Ok(Arc::new(AcceptQueueFull {
            slots: reader.count("slots")?.unwrap_or(1),
            release: reader.count("release")?.unwrap_or(0),
        }))
    },
};

#[derive(Debug)]
struct AcceptQueueFull {
    slots: u64,
    release: u64,
}

impl AcceptQueueFull {
    /// Time between two releases; `None`: there are none.
    fn interval(&self) -> Option<Duration> {
        1_000_000_000u64.checked_div(self.release).map(Duration::from_nanos)
    }

    /// When there is a slot for the flow at `place`, counted from its first SYN; `None` is never.
    fn admitted(&self, place: Turn) -> Option<Duration> {
        let Some(interval) = self.interval() else {
            return (place.nth <= self.slots).then_some(Duration::ZERO);
        };
        // One after the other is served: a slot is free once all but the last `slots` before it have been.
        let slots = u32::try_from(self.slots).unwrap_or(u32::MAX);
        Some(place.served.saturating_sub(interval.saturating_mul(slots)))
    }
}

impl Fault for AcceptQueueFull {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn service(&self) -> Duration {
        self.interval().unwrap_or_default()
    }

    fn lasts(&self, place: Turn) -> Option<Duration> {
        self.interval().map(|_| place.served)
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        pick::is_syn(at, seg, progress)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        let waited = moment.now.since(moment.progress.opened);
        let free = self.admitted(moment.place).is_some_and(|at| at <= waited);
        if free { Verdict::Pass } else { Verdict::Drop }
    }

    /// A connection that waits is acknowledged by the kernel, and read and written by nobody.
    fn shape(&self, _: Direction, shape: &mut Shape) -> bool {
        shape.stalled = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{CLIENT, Flow, SERVER, rules, seg};
    use crate::fault::{Circumstances, Turns, Way};
    use crate::time::Instant;
    use crate::trace::{FlowId, Leg};
    use crate::wire::Flags;

    /// What becomes of the SYNs of the `nth` flow, all of which come at once.
    fn syns(rule: &str, nth: u64) -> (Flow, String) {
        let rules = rules(42, Engine::Tun, rule).unwrap();
        let mut turns = Turns::default();
        let mut flow = Flow::numbered(&rules, 1);
        for number in 1..=nth {
            let addresses = [CLIENT, SERVER].map(|text| text.parse().unwrap());
            let alone = Circumstances::default();
            flow.plan = rules.plan(FlowId(number), addresses[0], addresses[1], &alone, &mut turns);
        }
        let syn = seg(Flags::SYN);
        let seen = [0, 1000, 2000, 3100].map(|at| flow.at(at).letter(Leg::Client, Way::In, &syn));
        (flow, String::from_iter(seen))
    }

    #[test]
    fn flows_beyond_the_slots_lose_their_syns_until_their_turn() {
        for (rule, letters) in [
            ("accept-queue-full slots=2 release=2", ["PPPP", "PPPP", "DPPP", "DPPP", "DDPP"]),
            ("accept-queue-full slots=1 release=1", ["PPPP", "DPPP", "DDPP", "DDDP", "DDDD"]),
            ("accept-queue-full slots=3 release=0", ["PPPP", "PPPP", "PPPP", "DDDD", "DDDD"]),
            ("accept-queue-full", ["PPPP"; 5]),
        ] {
            for (nth, letters) in (1..).zip(letters) {
                assert_eq!(syns(rule, nth).1, letters, "{rule}: flow {nth}");
            }
        }
    }

    #[test]
    fn a_flow_is_stalled_until_it_is_accepted() {
        for (rule, nth, accepted) in [
            ("accept-queue-full slots=2 release=2", 1, Some(500)),
            ("accept-queue-full slots=2 release=2", 2, Some(1000)),
            ("accept-queue-full slots=2 release=2", 5, Some(2500)),
            ("accept-queue-full slots=2 release=0", 1, None),
        ] {
            let (mut flow, _) = syns(rule, nth);
            let before = accepted.map_or(1_000_000, |at| at - 1);
            for direction in [Direction::Upstream, Direction::Downstream] {
                assert!(flow.at(before).shape(direction).stalled, "{rule}: flow {nth}");
                assert_eq!(flow.timeout(), accepted.map(Instant::from_millis));
                if let Some(at) = accepted {
                    assert!(!flow.at(at).shape(direction).stalled, "{rule}: flow {nth}");
                }
            }
        }
    }

    #[test]
    fn a_slot_is_free_once_all_but_so_many_before_have_been_accepted() {
        let full = AcceptQueueFull { slots: 2, release: 10 };
        let millis = Duration::from_millis;
        // A flow on its own is accepted 100 ms after its SYN, whatever was before; the third in a burst waits for a slot.
        for (served, admitted) in [(100, 0), (200, 0), (300, 100), (1000, 800)] {
            let place = Turn {
                nth: 500,
                since_first: Duration::from_secs(60),
                since_last: Duration::ZERO,
                served: millis(served),
            };
            assert_eq!(full.admitted(place), Some(millis(admitted)));
            assert_eq!(full.lasts(place), Some(millis(served)));
        }
    }
}
