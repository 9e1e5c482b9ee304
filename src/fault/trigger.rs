//! Bounds: when a fault acts. They are the same for all faults; a kind says which of them it takes.
//!
//! `after` and `after_bytes` open the fault (both, if both are given), `for` closes it again, counted from its first chance to
//! act; with `every` it opens again and again. With `at` they count from a moment of the run, the same for all flows. Within that
//! time `nth` or `first` choose among the segments that the fault is about, and `share` rolls the dice for each.

use super::Progress;
use super::attributes::{AttributeDoc, Attributes, Reader, Unit};
use super::error::Error;
use super::ordinals::Ordinals;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::trace::Direction;

/// The documentation of all bounds.
pub const BOUNDS: &[AttributeDoc] = &[
    AttributeDoc {
        name: "first",
        unit: Unit::First,
        default: "",
        zero: "",
        doc: "Acts on this many segments of the flow from the first on, or on \"all\". A count, not a time: how long \
              n lost segments last depends on the sender's retransmission schedule; for a time use `for`.",
    },
    AttributeDoc {
        name: "nth",
        unit: Unit::Ordinals,
        default: "",
        zero: "",
        doc: "Acts on these segments of the flow only, counted from 1 among those that the fault is about.",
    },
    AttributeDoc {
        name: "after_bytes",
        unit: Unit::Bytes,
        default: "",
        zero: "from the start",
        doc: "Acts only once this many payload bytes have arrived in the fault's direction.",
    },
    AttributeDoc {
        name: "after",
        unit: Unit::Duration { max_secs: 86_400 },
        default: "",
        zero: "from the start",
        doc: "Acts only this long after the flow's first SYN (handshake faults) or after the client's handshake was \
              complete (all others).",
    },
    AttributeDoc {
        name: "for",
        unit: Unit::Duration { max_secs: 86_400 },
        default: "",
        zero: "never acts",
        doc: "Acts only for this long, counted from its first chance to act, or from `at`.",
    },
    AttributeDoc {
        name: "at",
        unit: Unit::Duration { max_secs: 2_592_000 },
        default: "",
        zero: "from the start of the run",
        doc: "Acts only from this time of the run on, on flows old and new alike; `for` and `every` count from there, not \
              from the flow. `after` and `after_bytes` are asked of each flow besides.",
    },
    AttributeDoc {
        name: "every",
        unit: Unit::Duration { max_secs: 86_400 },
        default: "",
        zero: "refused, as is all below 1ms",
        doc: "Acts at the start of every period of this length, each time as long as `for` (or `hold`) says, which must be shorter. \
              `first` and `nth` count on from period to period.",
    },
    AttributeDoc {
        name: "share",
        unit: Unit::Share,
        default: "",
        zero: "never acts",
        doc: "Acts on this share of the segments, by the seeded dice of this rule and flow. \
              (`match.share` is the share of the flows.)",
    },
];

/// A shorter period would wake a flow without a pause.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

/// When a fault acts.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Segments from the first on; `None` is all.
    pub first: Option<u64>,
    /// These segments only; `None` is all.
    pub nth: Option<Ordinals>,
    /// Payload bytes in the fault's direction before it acts.
    pub after_bytes: u64,
    /// Time before it acts.
    pub after: Duration,
    /// How long it acts; `None` is to the end of the flow.
    pub lasts: Option<Duration>,
    /// Time since the start of the run before it acts; `lasts` and `every` count from there.
    pub at: Option<Duration>,
    /// Period after which it acts again, longer than `lasts` and at least 1 ms.
    pub every: Option<Duration>,
    /// Share of the segments.
    pub share: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            first: None,
            nth: None,
            after_bytes: 0,
            after: Duration::ZERO,
            lasts: None,
            at: None,
            every: None,
            share: 1.0,
        }
    }
}

impl Bounds {
    /// Reads those bounds that `docs` contains.
    pub(super) fn read(given: &Attributes, docs: &[AttributeDoc]) -> Result<Self, Error> {
        let mut bounds = Self::default();
        let reader = Reader::new(given, docs);
        for doc in docs.iter().filter(|d| BOUNDS.iter().any(|b| b.name == d.name)) {
            match doc.name {
                "first" => bounds.first = reader.first("first")?,
                "nth" => bounds.nth = reader.ordinals("nth")?,
                "after_bytes" => bounds.after_bytes = reader.bytes("after_bytes")?.unwrap_or(0),
                "after" => bounds.after = reader.duration("after")?.unwrap_or_default(),
                "for" => bounds.lasts = reader.duration("for")?,
                "at" => bounds.at = reader.duration("at")?,
                "every" => bounds.every = reader.duration("every")?,
                "share" => bounds.share = reader.share("share")?.unwrap_or(1.0),
                other => unreachable!("the bound {other} has no reader"),
            }
        }
        if given.contains_key("first") && given.contains_key("nth") {
            return Err(
                Error::key("nth", "cannot stand with `first`").hint("\"1-3\" is the same as first = 3")
            );
        }
        Ok(bounds)
    }

    /// Refuses a timeline on which the fault never or always acts. Called when the fault has set what follows from its own
    /// attributes, as `hold` of `zero-window-stall` does.
    pub(super) fn check(&self, reader: &Reader<'_>) -> Result<(), Error> {
        let told = |time: Duration| humantime::format_duration(time).to_string();
        let wrong = |name: &str, why: &str| Err(reader.wrong(name, why));
        match (self.every, self.lasts) {
            (Some(every), _) if every < SHORTEST_PERIOD => return wrong("every", "shorter than 1ms"),
            (Some(_), None) => return wrong("every", "needs `for`: how long of each period it acts"),
            (Some(_), Some(lasts)) if lasts.is_zero() => return wrong("every", "never acts: it lasts 0"),
            (Some(every), Some(lasts)) if lasts >= every => {
                return wrong("every", &format!("no pause: each time it lasts {}", told(lasts)));
            }
            _ => {}
        }
        match (self.at, self.lasts) {
            (Some(_), Some(lasts)) if lasts.is_zero() => wrong("at", "never acts: it lasts 0"),
            (Some(at), Some(lasts)) if self.every.is_none() && self.after >= at + lasts => {
                let why =
                    format!("never acts: when it ends no flow is {} old, as `after` says", told(self.after));
                wrong("at", &why)
            }
            _ => Ok(()),
        }
    }

    fn counts(&self, nth: u64) -> bool {
        self.first.is_none_or(|first| nth <= first) && self.nth.as_ref().is_none_or(|set| set.contains(nth))
    }
}

/// How far a flow has come, seen from one fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct SoFar {
    pub(super) now: Instant,
    /// What `after` counts from; `None` if that has not happened.
    pub(super) base: Option<Instant>,
    /// Payload bytes in the fault's direction.
    pub(super) bytes: u64,
}

impl SoFar {
    pub(super) const fn new(
        now: Instant,
        base: Option<Instant>,
        progress: &Progress,
        direction: Direction,
    ) -> Self {
        let bytes = match direction {
            Direction::Upstream => progress.upstream_bytes,
            Direction::Downstream => progress.downstream_bytes,
        };
        Self { now, base, bytes }
    }
}

/// The bounds of one rule at work on one flow.
#[derive(Debug, Default)]
pub(super) struct Trigger {
    seen: u64,
    started: Option<Instant>,
    wake: Option<Instant>,
}

impl Trigger {
    /// True between `after` or `at` and the end of `for`, again and again with `every`.
    pub(super) fn is_open(&mut self, bounds: &Bounds, so_far: SoFar) -> bool {
        self.wake = None;
        let Some(base) = so_far.base else { return false };
        let at = bounds.at.map(|at| Instant::ZERO + at);
        if self.started.is_none() {
            let due = (base + bounds.after).max(at.unwrap_or_default());
            if so_far.bytes < bounds.after_bytes {
                return false;
            }
            if so_far.now < due {
                self.wake = Some(due);
                return false;
            }
        }
        let chance = *self.started.get_or_insert(so_far.now);
        let Some(lasts) = bounds.lasts else { return true };
        // With `at` a flow may come into the middle of a period.
        let since = so_far.now.since(at.unwrap_or(chance)).as_nanos();
        let (lasts, every) =
            (lasts.as_nanos(), bounds.every.map(|every| every.max(SHORTEST_PERIOD).as_nanos()));
        let since = every.map_or(since, |every| since % every);
        let open = since < lasts;
        let edge = if open { Some(lasts) } else { every };
        let left = edge.map(|edge| u64::try_from(edge - since).unwrap_or(u64::MAX));
        self.wake = left.map(|left| so_far.now + Duration::from_nanos(left));
        open
    }

    /// Counts a segment that the fault is about, and gives its number if the fault acts on it.
    pub(super) fn on_segment(&mut self, bounds: &Bounds, so_far: SoFar, dice: &mut Rng) -> Option<u64> {
        if !self.is_open(bounds, so_far) {
            return None;
        }
        self.seen += 1;
        // Always rolled, so that a bound does not shift the dice of the segments after it.
        let lucky = dice.chance(bounds.share);
        (lucky && bounds.counts(self.seen)).then_some(self.seen)
    }

    /// Forgets when it wanted to be asked.
    pub(super) const fn rest(&mut self) {
        self.wake = None;
    }

    /// When the answer of [`Self::is_open`] changes by time alone.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, bytes: u64) -> SoFar {
        SoFar { now: Instant::from_millis(millis), base: Some(Instant::from_millis(1000)), bytes }
    }

    fn read(text: &[(&str, &str)]) -> Result<Bounds, Error> {
        let given = text.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        Bounds::read(&given, BOUNDS)
    }

    /// Which of ten segments, 100 ms apart from 1 s on with 10 more bytes each, are hit.
    fn hits(text: &[(&str, &str)]) -> Vec<u64> {
        let bounds = read(text).unwrap();
        let (mut trigger, mut dice) = (Trigger::default(), Rng::for_rule(42, 1, 0));
        let act = |i: &u64| trigger.on_segment(&bounds, at(900 + 100 * i, 10 * i), &mut dice).is_some();
        (1..=10).filter(act).collect()
    }

    #[test]
    fn bounds_choose_segments() {
        let all: Vec<u64> = (1..=10).collect();
        for (sentence, bounds, expected) in [
            ("no bound: all", &[][..], &all[..]),
            ("first = all: all", &[("first", "all")], &all),
            ("first counts from the first", &[("first", "3")], &[1, 2, 3]),
            ("nth chooses", &[("nth", "2,5-6,9..")], &[2, 5, 6, 9, 10]),
            ("after waits", &[("after", "750ms")], &[9, 10]),
            ("after_bytes waits", &[("after_bytes", "95")], &[10]),
            (
                "after and after_bytes wait for both",
                &[("after", "200ms"), ("after_bytes", "50")],
                &[5, 6, 7, 8, 9, 10],
            ),
            ("for ends, counted from the first chance", &[("for", "250ms")], &[1, 2, 3]),
            ("for starts after after", &[("after", "300ms"), ("for", "200ms")], &[4, 5]),
            ("first counts within after", &[("after", "300ms"), ("first", "2")], &[4, 5]),
            ("for = 0 never acts", &[("for", "0")], &[]),
            ("share = 0 never acts", &[("share", "0")], &[]),
            ("share = 1 always acts", &[("share", "1")], &all),
        ] {
            assert_eq!(hits(bounds), expected, "{sentence}");
        }
    }

    #[test]
    fn share_rolls_for_each_segment_and_bounds_do_not_shift_the_dice() {
        let half = hits(&[("share", "0.5")]);
        assert!((2..=8).contains(&half.len()), "{half:?}");
        assert_eq!(hits(&[("share", "0.5")]), half, "the same dice again");
        let late: Vec<u64> = half.iter().copied().filter(|n| *n >= 4).collect();
        assert_eq!(hits(&[("share", "0.5"), ("nth", "4..")]), late);
    }

    #[test]
    fn nothing_happens_before_the_base_is_known() {
        let mut trigger = Trigger::default();
        let never = SoFar { base: None, ..at(5000, 999) };
        assert!(!trigger.is_open(&Bounds::default(), never));
        assert_eq!(trigger.poll_timeout(), None);
    }

    #[test]
    fn time_bounds_ask_to_be_woken_at_their_edges() {
        let bounds = read(&[("after", "2s"), ("for", "3s")]).unwrap();
        let mut trigger = Trigger::default();
        let mut look = |millis| (trigger.is_open(&bounds, at(millis, 0)), trigger.poll_timeout());
        assert_eq!(look(1000), (false, Some(Instant::from_millis(3000))));
        assert_eq!(look(2999), (false, Some(Instant::from_millis(3000))));
        assert_eq!(look(3000), (true, Some(Instant::from_millis(6000))));
        assert_eq!(look(5999), (true, Some(Instant::from_millis(6000))));
        assert_eq!(look(6000), (false, None));
        assert_eq!(look(9000), (false, None), "it does not come back");
    }

    /// Whether it is open at these milliseconds, and when it wants to be asked again.
    fn looks(text: &[(&str, &str)], base: u64, at: &[u64]) -> Vec<(bool, Option<u64>)> {
        let (bounds, mut trigger) = (read(text).unwrap(), Trigger::default());
        let base = Some(Instant::from_millis(base));
        let look = |millis: &u64| {
            let so_far = SoFar { now: Instant::from_millis(*millis), base, bytes: 0 };
            (trigger.is_open(&bounds, so_far), trigger.poll_timeout().map(Instant::as_millis))
        };
        at.iter().map(look).collect()
    }

    #[test]
    fn every_opens_at_the_start_of_each_period_counted_from_the_first_chance() {
        let bounds = [("after", "2s"), ("every", "10s"), ("for", "3s")];
        assert_eq!(
            looks(&bounds, 1000, &[1000, 3000, 5999, 6000, 12_999, 13_000, 15_999, 16_000, 33_500]),
            [
                (false, Some(3000)),
                (true, Some(6000)),
                (true, Some(6000)),
                (false, Some(13_000)),
                (false, Some(13_000)),
                (true, Some(16_000)),
                (true, Some(16_000)),
                (false, Some(23_000)),
                (true, Some(36_000)),
            ]
        );
    }

    #[test]
    fn at_is_a_moment_of_the_run_for_old_and_new_flows_alike() {
        let bounds = [("at", "10s"), ("for", "3s")];
        let old = looks(&bounds, 1000, &[1000, 9999, 10_000, 12_999, 13_000, 60_000]);
        let (wait, open, over) = ((false, Some(10_000)), (true, Some(13_000)), (false, None));
        assert_eq!(old, [wait, wait, open, open, over, over]);
        assert_eq!(looks(&bounds, 12_000, &[12_000, 12_999, 13_000]), [open, open, over], "in the middle");
        assert_eq!(looks(&bounds, 13_000, &[13_000]), [over], "too late");
        assert_eq!(looks(&[("at", "10s")], 60_000, &[60_000]), [(true, None)], "without an end");
        let grown = looks(&[("at", "10s"), ("for", "3s"), ("after", "2s")], 9500, &[10_000, 11_500, 13_000]);
        assert_eq!(grown, [(false, Some(11_500)), open, over], "old enough only in the middle");
    }

    #[test]
    fn at_and_every_make_periods_of_the_run() {
        let bounds = [("at", "10s"), ("every", "5s"), ("for", "1s")];
        for base in [0, 9000] {
            assert_eq!(
                looks(&bounds, base, &[9000, 10_000, 11_000, 15_500, 16_000]),
                [
                    (false, Some(10_000)),
                    (true, Some(11_000)),
                    (false, Some(15_000)),
                    (true, Some(16_000)),
                    (false, Some(20_000)),
                ]
            );
        }
        assert_eq!(looks(&bounds, 23_000, &[23_000]), [(false, Some(25_000))], "younger than all that");
    }

    #[test]
    fn segments_are_counted_on_from_period_to_period() {
        assert_eq!(hits(&[("every", "300ms"), ("for", "100ms")]), [1, 4, 7, 10]);
        assert_eq!(hits(&[("every", "300ms"), ("for", "100ms"), ("first", "2")]), [1, 4]);
        assert_eq!(hits(&[("at", "1250ms"), ("for", "200ms")]), [4, 5]);
    }

    #[test]
    fn a_timeline_that_never_or_always_acts_is_refused() {
        let checked = |text: &[(&str, &str)]| {
            let given: Attributes = text.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
            let bounds = Bounds::read(&given, BOUNDS).unwrap();
            bounds.check(&Reader::new(&given, BOUNDS)).map_err(|e| e.to_string())
        };
        for (text, problem) in [
            (&[("every", "5s")][..], "every = \"5s\": needs `for`: how long of each period it acts"),
            (&[("every", "0"), ("for", "1s")], "every = \"0\": shorter than 1ms"),
            (&[("every", "999us"), ("for", "1us")], "every = \"999us\": shorter than 1ms"),
            (&[("every", "5s"), ("for", "0")], "every = \"5s\": never acts: it lasts 0"),
            (&[("every", "5s"), ("for", "5s")], "every = \"5s\": no pause: each time it lasts 5s"),
            (&[("every", "5s"), ("for", "1m")], "every = \"5s\": no pause: each time it lasts 1m"),
            (&[("at", "5s"), ("for", "0")], "at = \"5s\": never acts: it lasts 0"),
            (
                &[("at", "5s"), ("for", "1s"), ("after", "6s")],
                "at = \"5s\": never acts: when it ends no flow is 6s old, as `after` says",
            ),
        ] {
            let error = checked(text).unwrap_err();
            assert_eq!(error.split_once("; allowed: 0 to ").map(|(told, _)| told), Some(problem));
        }
        for fine in [
            &[("at", "5s")][..],
            &[("at", "0"), ("for", "1s")],
            &[("every", "5s"), ("for", "4999ms")],
            &[("at", "5s"), ("for", "1s"), ("after", "5999ms")],
            &[("at", "5s"), ("for", "1s"), ("every", "2s"), ("after", "6s")],
            &[("for", "0")],
        ] {
            assert_eq!(checked(fine), Ok(()), "{fine:?}");
        }
    }

    #[test]
    fn first_and_nth_exclude_each_other() {
        let error = read(&[("first", "2"), ("nth", "3")]).unwrap_err().to_string();
        assert_eq!(error, "nth: cannot stand with `first`\nhint: \"1-3\" is the same as first = 3");
    }
}
