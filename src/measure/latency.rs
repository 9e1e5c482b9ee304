//! One latency: an HDR histogram that is made when the first value comes, and knows which values are lower bounds.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use crate::time::Duration;

/// Smallest value told apart: 1 µs. Smaller ones count as this.
pub(super) const LOW_MICROS: u64 = 1;
/// Largest value told apart: 150 s, above the 135 s after which Linux gives up a connect. Larger ones count as this.
pub(super) const HIGH_MICROS: u64 = 150_000_000;

/// The percentiles of every table and report.
pub const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// How exact values are kept, and so how much memory they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// To 0.1 %, in 150 KiB.
    #[default]
    Fine,
    /// To 1 %, in 22 KiB: for one of many groups.
    Coarse,
}

impl Detail {
    /// Significant decimal digits.
    const fn digits(self) -> u8 {
        match self {
            Self::Fine => 3,
            Self::Coarse => 2,
        }
    }
}

/// A distribution of durations from 1 µs to 150 s. Takes no memory before its first value, then that of its [`Detail`], and as
/// much again once a value is unfinished.
///
/// Values of steps that never finished are part of the distribution, because leaving them out would hide a black hole.
/// They are lower bounds, and so is every quantile at or above the smallest of them.
#[derive(Clone, Default)]
pub struct Latency {
    detail: Detail,
    /// All values, in microseconds.
    all: Option<Box<Histogram<u64>>>,
    /// Of these, the unfinished ones.
    unfinished: Option<Box<Histogram<u64>>>,
    /// The largest value, exactly; of what was read from a file, as its histogram has it.
    max: u64,
}

/// A quantile. Ordered only with care: a lower bound may stand for any larger value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The value.
    pub value: Duration,
    /// True if the true value may be larger, because a step that never finished is part of it.
    pub at_least: bool,
}

impl Latency {
    /// Nothing yet, to be kept with this detail.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self { detail, ..Self::default() }
    }

    /// Adds a step that took `value`.
    pub fn record(&mut self, value: Duration) {
        let micros = micros(value);
        self.max = self.max.max(micros);
        histogram(&mut self.all, self.detail).saturating_record(micros);
    }

    /// Adds a step that was given up after `value`.
    pub fn unfinished(&mut self, value: Duration) {
        self.record(value);
        histogram(&mut self.unfinished, self.detail).saturating_record(micros(value));
    }

    /// Adds all values of another one. Nothing is lost, whatever their details: the result has the finer one.
    pub fn add(&mut self, other: &Self) {
        if other.detail == Detail::Fine && self.detail == Detail::Coarse {
            self.detail = Detail::Fine;
        }
        for (mine, theirs) in [(&mut self.all, &other.all), (&mut self.unfinished, &other.unfinished)] {
            let Some(theirs) = theirs else { continue };
            add(histogram(mine, self.detail), theirs);
        }
        self.max = self.max.max(other.max);
    }

    /// Adds histograms in microseconds: all values, or the unfinished among values that are added besides.
    pub(super) fn add_read(&mut self, read: &Histogram<u64>, unfinished: bool) {
        if unfinished {
            add(histogram(&mut self.unfinished, self.detail), read);
        } else {
            self.max = self.max.max(read.max().clamp(LOW_MICROS, HIGH_MICROS));
            add(histogram(&mut self.all, self.detail), read);
        }
    }

    /// Forgets the values and keeps their memory for the next ones.
    pub fn clear(&mut self) {
        for histogram in [&mut self.all, &mut self.unfinished].into_iter().flatten() {
            histogram.reset();
        }
        self.max = 0;
    }

    /// All values as a histogram of microseconds; none without values.
    #[must_use]
    pub fn histogram(&self) -> Option<&Histogram<u64>> {
        self.all.as_deref().filter(|all| !all.is_empty())
    }

    /// Of [`Self::histogram`], the values that never finished.
    #[must_use]
    pub fn unfinished_histogram(&self) -> Option<&Histogram<u64>> {
        self.unfinished.as_deref().filter(|unfinished| !unfinished.is_empty())
    }

    /// How many values there are, with the unfinished ones.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram().map_or(0, Histogram::len)
    }

    /// How many of them never finished.
    #[must_use]
    pub fn unfinished_count(&self) -> u64 {
        self.unfinished_histogram().map_or(0, Histogram::len)
    }

    /// How many values finished within `from..to`, as exactly as values are told apart: a value counts as the largest that
    /// is not told apart from it.
    #[must_use]
    pub fn finished_between(&self, from: Duration, to: Duration) -> u64 {
        let range = micros(from)..micros(to);
        let between = |histogram: &Histogram<u64>| {
            let steps = histogram.iter_recorded().filter(|step| range.contains(&step.value_iterated_to()));
            steps.map(|step| step.count_at_value()).sum::<u64>()
        };
        let unfinished = self.unfinished_histogram().map_or(0, between);
        self.histogram().map_or(0, between) - unfinished
    }

    /// The value that `percentile` percent of all values do not exceed; none without values.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> Option<Bound> {
        let histogram = self.histogram()?;
        Some(self.bound(histogram.value_at_percentile(percentile).min(self.max)))
    }

    /// The largest value.
    #[must_use]
    pub fn max(&self) -> Option<Bound> {
        self.histogram().map(|_| self.bound(self.max))
    }

    fn bound(&self, micros: u64) -> Bound {
        let at_least = self
            .unfinished_histogram()
            .is_some_and(|unfinished| micros >= unfinished.lowest_equivalent(unfinished.min()));
        Bound { value: Duration::from_micros(micros), at_least }
    }
}

fn histogram(slot: &mut Option<Box<Histogram<u64>>>, detail: Detail) -> &mut Histogram<u64> {
    slot.get_or_insert_with(|| {
        let histogram = Histogram::new_with_bounds(LOW_MICROS, HIGH_MICROS, detail.digits());
        Box::new(histogram.expect("the bounds are constants within what the histogram takes"))
    })
}

/// Value by value, because the other one may have bounds of its own; what is beyond ours counts as the end.
fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    if from.high() <= to.high() && to.add(from).is_ok() {
        return;
    }
    for step in from.iter_recorded() {
        to.saturating_record_n(step.value_iterated_to(), step.count_at_value());
    }
}

fn micros(value: Duration) -> u64 {
    u64::try_from(value.as_micros()).unwrap_or(u64::MAX).clamp(LOW_MICROS, HIGH_MICROS)
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count())
            .field("unfinished", &self.unfinished_count())
            .finish()
    }
}

impl Serialize for Latency {
    /// `{"count": 3, "unfinished": 0, "p50_us": 210, …, "p999_us": 999, "max_us": 1020}`; no quantiles without values.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("count", &self.count())?;
        map.serialize_entry("unfinished", &self.unfinished_count())?;
        let quantiles = PERCENTILES.iter().map(|(name, p)| (*name, self.percentile(*p)));
        for (name, bound) in quantiles.chain([("max", self.max())]) {
            if let Some(bound) = bound {
                map.serialize_entry(&format!("{}_us", name.replace('.', "")), &bound.value.as_micros())?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allocated_before_the_first_value() {
        let latency = Latency::default();
        assert!(latency.all.is_none() && latency.unfinished.is_none());
        assert_eq!((latency.count(), latency.percentile(50.0), latency.max()), (0, None, None));
    }

    #[test]
    fn quantiles_are_right_to_a_thousandth_and_saturate_at_the_ends() {
        let mut latency = Latency::default();
        for millis in 1..=1000 {
            latency.record(Duration::from_millis(millis));
        }
        for (p, millis) in [(50.0, 500.0), (90.0, 900.0), (99.0, 990.0), (100.0, 1000.0)] {
            let bound = latency.percentile(p).unwrap();
            let error = (bound.value.as_secs_f64() * 1000.0 / millis - 1.0).abs();
            assert!(error < 0.001 && !bound.at_least, "{p}: {bound:?}");
        }
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(10_000));
        assert_eq!(latency.max().unwrap().value, Duration::from_secs(150));
        assert_eq!(latency.count(), 1002);
    }

    #[test]
    fn quantiles_from_the_first_unfinished_value_on_are_lower_bounds() {
        let mut latency = Latency::default();
        for _ in 0..9 {
            latency.record(Duration::from_millis(1));
        }
        latency.unfinished(Duration::from_secs(3));
        assert!(!latency.percentile(50.0).unwrap().at_least);
        assert!(!latency.percentile(90.0).unwrap().at_least);
        assert!(latency.percentile(99.0).unwrap().at_least);
        assert!(latency.max().unwrap().at_least);
        assert_eq!((latency.count(), latency.unfinished_count()), (10, 1));
    }
}
