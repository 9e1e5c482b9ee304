//! Bounds: when a fault acts. They are the same for all faults; a kind says which of them it takes.
//!
//! `after` and `after_bytes` open the fault (both, if both are given), `for` closes it again, counted from its first chance to
//! act. Within that time `nth` or `first` choose among the segments that the fault is about, and `share` rolls the dice for each.

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
        doc: "Acts only for this long, counted from its first chance to act.",
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
    /// Share of the segments.
    pub share: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { first: None, nth: None, after_bytes: 0, after: Duration::ZERO, lasts: None, share: 1.0 }
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
    /// True between `after` and the end of `for`.
    pub(super) fn is_open(&mut self, bounds: &Bounds, so_far: SoFar) -> bool {
        self.wake = None;
        let Some(base) = so_far.base else { return false };
        if self.started.is_none() {
            let due = base + bounds.after;
            if so_far.bytes < bounds.after_bytes {
                return false;
            }
            if so_far.now < due {
                self.wake = Some(due);
                return false;
            }
        }
        let started = *self.started.get_or_insert(so_far.now);
        let Some(lasts) = bounds.lasts else { return true };
        let open = so_far.now < started + lasts;
        self.wake = open.then_some(started + lasts);
        open
    }

    /// Counts a segment that the fault is about, and gives its number if the fault acts on it.
    pub(super) fn on_segment(&mut self, bounds: &Bounds, so_far: SoFar, dice: &mut Rng) -> Option<u64> {
        if !self.is_open(bounds, so_far) {
            return None;
        }
        self.wake = None; // the next segment asks anyway
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

    #[test]
    fn first_and_nth_exclude_each_other() {
        let error = read(&[("first", "2"), ("nth", "3")]).unwrap_err().to_string();
        assert_eq!(error, "nth: cannot stand with `first`\nhint: \"1-3\" is the same as first = 3");
    }
}
