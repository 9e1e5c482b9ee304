//! Two runs side by side: the differences of their quantiles, and how sure they are.
//!
//! The interval is that of a bootstrap: what other values the two runs might have shown by chance. A quantile of a sample that
//! is drawn anew from `n` values is the value of rank `k` of `n`, where the ranks of the drawn values are uniform: so its
//! place in the distribution is Beta(k, n + 1 - k), and drawing that one number replaces drawing all `n`.

use serde::Serialize;

use super::latencies::{Kind, Latencies};
use super::latency::{Bound, Latency};
use crate::rng::Rng;

/// How often quantiles are drawn anew.
const REPEATS: usize = 2000;
/// The share of the draws that lie within the interval.
const CONFIDENCE: f64 = 0.95;
/// The quantiles that are compared.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// One quantile of two runs. Times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The latency's name.
    pub latency: &'static str,
    /// The quantile, such as `p99`.
    pub quantile: &'static str,
    /// Of the first run.
    pub first_us: u64,
    /// It may be larger, because a step that never finished is part of it.
    pub first_at_least: bool,
    /// Of the second run.
    pub second_us: u64,
    /// The same for the second run.
    pub second_at_least: bool,
    /// Second less first; none if one of them is only a lower bound.
    pub difference_us: Option<i64>,
    /// The lower end of the interval that has the difference in 95 % of the cases; none if steps that never finished
    /// make it endless.
    pub low_us: Option<i64>,
    /// The upper end.
    pub high_us: Option<i64>,
}

impl Difference {
    /// True if the interval does not contain 0: the runs differ.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.low_us.is_some_and(|low| low > 0) || self.high_us.is_some_and(|high| high < 0)
    }
}

/// Compares all latencies that have values in both runs, at the quantiles for which both have enough values: ten above it.
/// The same seed gives the same intervals.
#[must_use]
pub fn compare(first: &Latencies, second: &Latencies, seed: u64) -> Vec<Difference> {
    let mut out = Vec::new();
    for kind in Kind::ALL {
        let (Some(a), Some(b)) = (Sample::of(first.get(kind)), Sample::of(second.get(kind))) else {
            continue;
        };
        for (index, (quantile, percent)) in PERCENTILES.into_iter().enumerate() {
            let enough = |sample: &Sample| sample.len() as f64 * (100.0 - percent) / 100.0 >= 10.0 - 1e-6;
            // The median is always worth a look.
            if index > 0 && !(enough(&a) && enough(&b)) {
                continue;
            }
            let stream = (kind as u64) * PERCENTILES.len() as u64 + index as u64;
            out.push(difference(kind.name(), quantile, percent, [&a, &b], &mut Rng::new(seed, stream)));
        }
    }
    out
}

fn difference(
    latency: &'static str,
    quantile: &'static str,
    percent: f64,
    [a, b]: [&Sample; 2],
    rng: &mut Rng,
) -> Difference {
    let [first, second] = [a, b].map(|sample| sample.at(sample.rank(percent)));
    let mut draws: Vec<i64> = Vec::with_capacity(REPEATS);
    let (mut first_endless, mut second_endless) = (false, false);
    for _ in 0..REPEATS {
        let [x, y] = [a, b].map(|sample| sample.draw(percent, rng));
        first_endless |= x.1;
        second_endless |= y.1;
        draws.push(y.0 as i64 - x.0 as i64);
    }
    draws.sort_unstable();
    let outside = ((1.0 - CONFIDENCE) / 2.0 * REPEATS as f64) as usize;
    let known = !first.1 && !second.1;
    Difference {
        latency,
        quantile,
        first_us: first.0,
        first_at_least: first.1,
        second_us: second.0,
        second_at_least: second.1,
        difference_us: known.then(|| second.0 as i64 - first.0 as i64),
        // A first value that may be larger makes the difference smaller without a limit, a second one larger.
        low_us: (!first_endless && !first.1).then(|| draws[outside]),
        high_us: (!second_endless && !second.1).then(|| draws[REPEATS - 1 - outside]),
    }
}

/// A distribution as ranks and values.
struct Sample {
    /// Rank of the last value of a step, and the value, in order.
    steps: Vec<(u64, u64)>,
    /// From this value on they are lower bounds.
    bounds_from: u64,
}

impl Sample {
    fn of(latency: &Latency) -> Option<Self> {
        let histogram = latency.histogram()?;
        let mut rank = 0;
        let step = |count: u64, value: u64| {
            rank += count;
            (rank, value)
        };
        let mut step = step;
        let max = latency.max().map_or(0, |Bound { value, .. }| value.as_micros() as u64);
        let steps = histogram.iter_recorded();
        let steps = steps.map(|at| step(at.count_at_value(), at.value_iterated_to().min(max))).collect();
        let unfinished = latency.unfinished_histogram();
        let bounds_from = unfinished.map_or(u64::MAX, |some| some.lowest_equivalent(some.min()));
        Some(Self { steps, bounds_from })
    }

    fn len(&self) -> u64 {
        self.steps.last().map_or(0, |(rank, _)| *rank)
    }

    /// The rank of a percentile, from 1.
    fn rank(&self, percent: f64) -> u64 {
        ((self.len() as f64 * percent / 100.0).ceil() as u64).clamp(1, self.len())
    }

    /// The value of a rank, and whether it is a lower bound.
    fn at(&self, rank: u64) -> (u64, bool) {
        let index = self.steps.partition_point(|(last, _)| *last < rank).min(self.steps.len() - 1);
        let (_, value) = self.steps[index];
        (value, value >= self.bounds_from)
    }

    /// The same quantile of a sample drawn anew.
    fn draw(&self, percent: f64, rng: &mut Rng) -> (u64, bool) {
        let (k, n) = (self.rank(percent), self.len());
        let (below, above) = (gamma(k, rng), gamma(n + 1 - k, rng));
        let place = below / (below + above);
        self.at(((place * n as f64).ceil() as u64).clamp(1, n))
    }
}

/// A number of the gamma distribution of a whole `shape`: a sum of so many exponential ones; from 64 on by the cube of a normal
/// one (Wilson and Hilferty), whose error is far below the width of what is drawn from it.
fn gamma(shape: u64, rng: &mut Rng) -> f64 {
    if shape < 64 {
        return (0..shape).map(|_| rng.exponential()).sum();
    }
    let shape = shape as f64;
    let cube = 1.0 - 1.0 / (9.0 * shape) + rng.normal() / (3.0 * shape.sqrt());
    shape * cube * cube * cube
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    /// `n` exponential values of this mean in milliseconds.
    fn run(n: u64, mean: f64, seed: u64) -> (Latencies, Vec<u64>) {
        let mut rng = Rng::new(seed, 99);
        let mut latencies = Latencies::default();
        let mut values = Vec::new();
        for _ in 0..n {
            let micros = (rng.exponential() * mean * 1000.0) as u64 + 1;
            latencies.get_mut(Kind::Connect).record(Duration::from_micros(micros));
            values.push(micros);
        }
        (latencies, values)
    }

    #[test]
    fn the_interval_is_that_of_drawing_all_values_anew() {
        let ((a, mut a_values), (b, mut b_values)) = (run(400, 10.0, 1), run(300, 12.0, 2));
        a_values.sort_unstable();
        b_values.sort_unstable();
        let mut rng = Rng::new(5, 5);
        for (index, percent) in [(0, 50.0), (1, 90.0)] {
            let mut drawn = |values: &[u64]| {
                let mut sample: Vec<u64> =
                    (0..values.len()).map(|_| values[rng.below(values.len() as u64) as usize]).collect();
                sample.sort_unstable();
                sample[(sample.len() as f64 * percent / 100.0).ceil() as usize - 1] as i64
            };
            let mut draws: Vec<i64> = (0..4000).map(|_| drawn(&b_values) - drawn(&a_values)).collect();
            draws.sort_unstable();
            let found = &compare(&a, &b, 1)[index];
            let (low, high) = (draws[100] as f64, draws[3899] as f64);
            let width = high - low;
            for (found, expected) in [(found.low_us, low), (found.high_us, high)] {
                let off = (found.unwrap() as f64 - expected).abs() / width;
                assert!(off < 0.1, "p{percent}: {found:?}, not {expected}; the interval is {width} wide");
            }
        }
    }

    #[test]
    fn a_clear_difference_is_clear_and_none_is_none_and_the_seed_decides() {
        let ((a, _), (b, _), (c, _)) = (run(5000, 10.0, 1), run(5000, 10.0, 2), run(5000, 15.0, 3));
        let same = compare(&a, &b, 1);
        let names: Vec<_> = same.iter().map(|row| row.quantile).collect();
        assert_eq!(names, ["p50", "p90", "p99"], "only five values are above p99.9");
        assert!(same.iter().all(|row| !row.is_clear()), "{same:?}");
        let other = compare(&a, &c, 1);
        assert!(other.iter().all(|row| row.is_clear() && row.difference_us > Some(0)), "{other:?}");
        assert_eq!(compare(&a, &c, 1), other);
        assert_ne!(compare(&a, &c, 2), other);
    }

    #[test]
    fn what_never_finished_leaves_the_interval_open_on_its_side() {
        let (a, _) = run(1000, 1.0, 1);
        let (mut b, _) = run(900, 1.0, 2);
        for _ in 0..100 {
            b.get_mut(Kind::Connect).unfinished(Duration::from_secs(3));
        }
        let rows = compare(&a, &b, 1);
        assert!(rows[0].difference_us.is_some() && rows[0].high_us.is_some(), "the median is below them");
        let p99 = &rows[2];
        assert_eq!((p99.second_at_least, p99.difference_us, p99.high_us), (true, None, None));
        assert!(p99.low_us.unwrap() > 2_000_000 && p99.is_clear(), "at least so much slower: {p99:?}");
    }
}
