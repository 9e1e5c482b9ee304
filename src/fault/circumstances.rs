//! What a rule may ask of the flows around a new one.

use super::attributes::{AttributeDoc, Reader, Unit};
use super::error::Error;
use super::ordinals::Ordinals;
use crate::time::{Duration, Instant};

/// What is known of the neighbours of a new flow when its first SYN arrives. What no rule asks for need not be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// When the SYN arrived.
    pub now: Instant,
    /// Time since the first SYN of the last flow before this one to the same server address and port.
    pub sibling: Option<Duration>,
    /// Time since the end of the last flow with the same addresses and ports.
    pub reused: Option<Duration>,
    /// Time since the first SYN of another flow from the same client address had a later timestamp than this one has.
    pub stamp_behind: Option<Duration>,
    /// Open flows to the same server address and port, this one included.
    pub crowd: u64,
}

impl Circumstances {
    /// A flow without neighbours.
    #[must_use]
    pub const fn alone(now: Instant) -> Self {
        Self { now, sibling: None, reused: None, stamp_behind: None, crowd: 1 }
    }
}

impl Default for Circumstances {
    fn default() -> Self {
        Self::alone(Instant::ZERO)
    }
}

/// What some rule asks of neighbours, and how far back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The longest `match.sibling`.
    pub sibling: Option<Duration>,
    /// The longest `match.reused`.
    pub reused: Option<Duration>,
    /// The longest `match.stamp_behind`.
    pub stamp_behind: Option<Duration>,
    /// A `match.crowd`.
    pub crowd: bool,
}

/// The documentation of the keys of `match` that are about neighbours.
pub(super) const NEIGHBOURS: [AttributeDoc; 4] = [
    AttributeDoc {
        name: "sibling",
        unit: Unit::Duration { max_secs: 3_600 },
        default: "",
        zero: "in the same instant",
        doc: "Only flows whose first SYN comes within this time after that of another flow to the same server address and \
              port, as the losers of a race in conntrack. Each shard (`engine.shards`) knows only its own flows.",
    },
    AttributeDoc {
        name: "reused",
        unit: Unit::Duration { max_secs: 86_400 },
        default: "",
        zero: "in the same instant",
        doc: "Only flows with the addresses and ports of one that ended within this time, however it ended. Each shard \
              (`engine.shards`) knows only its own flows.",
    },
    AttributeDoc {
        name: "stamp_behind",
        unit: Unit::Duration { max_secs: 86_400 },
        default: "",
        zero: "in the same instant",
        doc: "Only flows whose SYN has an earlier timestamp than another flow's first SYN had that came from the same client \
              address within this time: several hosts behind one address. A SYN that is behind does not set the clock back; \
              one without a timestamp is not asked. Each shard (`engine.shards`) knows only its own flows.",
    },
    AttributeDoc {
        name: "crowd",
        unit: Unit::Ordinals,
        default: "",
        zero: "",
        doc: "Only flows that are these among the open ones to the same server address and port: \"129..\" is all that come \
              while 128 or more are open. Each shard (`engine.shards`) knows only its own flows.",
    },
];

/// The conditions of one rule about neighbours; `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbourhood {
    /// Longest time since a sibling.
    pub sibling: Option<Duration>,
    /// Longest time since the same addresses and ports were in use.
    pub reused: Option<Duration>,
    /// Longest time since a later timestamp.
    pub stamp_behind: Option<Duration>,
    /// Ordinals among the open flows to the server.
    pub crowd: Option<Ordinals>,
}

impl Neighbourhood {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            sibling: reader.duration("sibling")?,
            reused: reader.duration("reused")?,
            stamp_behind: reader.duration("stamp_behind")?,
            crowd: reader.ordinals("crowd")?,
        })
    }

    /// True if all conditions are met.
    #[must_use]
    pub fn contains(&self, flow: &Circumstances) -> bool {
        let within = |since: Option<Duration>, window: Option<Duration>| {
            window.is_none_or(|window| since.is_some_and(|since| since <= window))
        };
        within(flow.sibling, self.sibling)
            && within(flow.reused, self.reused)
            && within(flow.stamp_behind, self.stamp_behind)
            && self.crowd.as_ref().is_none_or(|ordinals| ordinals.contains(flow.crowd))
    }

    /// Adds what this asks.
    pub(super) fn ask(&self, asked: &mut Asked) {
        asked.sibling = asked.sibling.max(self.sibling);
        asked.reused = asked.reused.max(self.reused);
        asked.stamp_behind = asked.stamp_behind.max(self.stamp_behind);
        asked.crowd |= self.crowd.is_some();
    }
}

/// Which of the flows of its rule a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How many flows the rule has matched, this one included; from 1.
    pub nth: u64,
    /// Time from the first SYN of the first of them to that of this one.
    pub since_first: Duration,
    /// Time from the first SYN of the one before to that of this one; zero for the first.
    pub since_last: Duration,
    /// Time from its first SYN until somebody has served it who serves the rule's flows one after the other, each for as long as
    /// [`super::Fault::service`] says. Zero for a fault that serves nobody.
    pub served: Duration,
}

/// Counts the flows that each rule has matched. One for each shard; a new set of rules begins anew.
#[derive(Clone, Debug, Default)]
pub struct Turns(Vec<Option<Taken>>);

/// The flows that one rule has matched: how many, when the first and the last came, and when the last has been served.
#[derive(Clone, Copy, Debug)]
struct Taken {
    count: u64,
    first: Instant,
    last: Instant,
    free: Instant,
}

impl Turns {
    /// The turn of a flow that rule number `rule` matches, and that is served for `service`.
    pub(super) fn take(&mut self, rule: usize, now: Instant, service: Duration) -> Turn {
        if self.0.len() <= rule {
            self.0.resize(rule + 1, None);
        }
        let taken = self.0[rule].get_or_insert(Taken { count: 0, first: now, last: now, free: now });
        taken.count += 1;
        taken.free = taken.free.max(now) + service;
        let since_last = now.since(std::mem::replace(&mut taken.last, now));
        Turn {
            nth: taken.count,
            since_first: now.since(taken.first),
            since_last,
            served: taken.free.since(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::attributes::Attributes;

    fn neighbourhood(text: &[(&str, &str)]) -> Neighbourhood {
        let given: Attributes = text.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        Neighbourhood::read(&Reader::new(&given, &NEIGHBOURS)).unwrap()
    }

    #[test]
    fn every_condition_must_be_met_and_what_is_unknown_meets_none() {
        let alone = Circumstances::default();
        let ms = |millis| Some(Duration::from_millis(millis));
        for (text, flow, expected) in [
            (&[][..], alone, true),
            (&[("sibling", "1ms")], alone, false),
            (&[("sibling", "1ms")], Circumstances { sibling: ms(1), ..alone }, true),
            (&[("sibling", "1ms")], Circumstances { sibling: ms(2), ..alone }, false),
            (&[("sibling", "0")], Circumstances { sibling: ms(0), ..alone }, true),
            (&[("reused", "2m")], Circumstances { reused: ms(120_000), ..alone }, true),
            (&[("reused", "2m")], Circumstances { sibling: ms(1), ..alone }, false),
            (&[("stamp_behind", "60s")], Circumstances { stamp_behind: ms(5), ..alone }, true),
            (&[("stamp_behind", "60s")], alone, false),
            (&[("crowd", "1")], alone, true),
            (&[("crowd", "129..")], Circumstances { crowd: 128, ..alone }, false),
            (&[("crowd", "129..")], Circumstances { crowd: 129, ..alone }, true),
            (&[("crowd", "2"), ("reused", "1s")], Circumstances { crowd: 2, ..alone }, false),
        ] {
            assert_eq!(neighbourhood(text).contains(&flow), expected, "{text:?} {flow:?}");
        }
    }

    #[test]
    fn what_is_asked_reaches_as_far_back_as_the_longest_window() {
        let mut asked = Asked::default();
        for rule in [&[("sibling", "1ms")][..], &[("sibling", "5ms"), ("crowd", "2..")], &[]] {
            neighbourhood(rule).ask(&mut asked);
        }
        let expected = Asked { sibling: Some(Duration::from_millis(5)), crowd: true, ..Asked::default() };
        assert_eq!(asked, expected);
    }

    #[test]
    fn each_rule_counts_its_own_flows_from_the_first() {
        let mut turns = Turns::default();
        let mut take = |rule, millis| {
            let turn = turns.take(rule, Instant::from_millis(millis), Duration::ZERO);
            (turn.nth, turn.since_first.as_millis(), turn.since_last.as_millis())
        };
        assert_eq!([take(2, 100), take(2, 150), take(0, 160)], [(1, 0, 0), (2, 50, 50), (1, 0, 0)]);
        assert_eq!([take(2, 400), take(1, 400), take(0, 500)], [(3, 300, 250), (1, 0, 0), (2, 340, 340)]);
    }

    #[test]
    fn flows_are_served_one_after_the_other_and_an_idle_server_takes_the_next_at_once() {
        let mut turns = Turns::default();
        let service = Duration::from_millis(100);
        let arrivals = [0, 0, 0, 250, 1000, 1050];
        let served = arrivals.map(|at| turns.take(0, Instant::from_millis(at), service).served.as_millis());
        assert_eq!(served, [100, 200, 300, 150, 100, 150]);
    }
}
