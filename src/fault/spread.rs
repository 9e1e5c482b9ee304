//! Delays that vary.

use super::attributes::{AttributeDoc, Reader, Unit};
use super::error::Error;
use crate::rng::Rng;
use crate::time::Duration;

/// How a delay varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Not at all.
    Constant,
    /// Evenly.
    Uniform,
    /// By the bell curve.
    Normal,
    /// Upwards, with a tail that halves every 0.69 jitters: a queue in front of one server.
    Exponential,
    /// Upwards, with a heavy tail: mostly little, now and then very much.
    Pareto,
}

/// A delay that varies by seeded dice:
///
/// | distribution | from | to | mean | `jitter` is | dice |
/// |---|---|---|---|---|---|
/// | `constant` | base | base | base | 0 | 0 |
/// | `uniform` | base - jitter | base + jitter | base | the most, either way | 1 |
/// | `normal` | base - min(4 jitter, base) | base + min(4 jitter, base) | base | the standard deviation | 12 |
/// | `exponential` | base | base + 10 jitter | base + jitter | the mean of what is added | 1 |
/// | `pareto` | base | base + 100 jitter | base + jitter | the mean of what is added | 3 |
///
/// What would be beyond an end is at the end. The ends of `normal` are as far from the base below as above, so its mean
/// stays; where jitter is more than a third of the base, the standard deviation gets a little smaller. The tail of
/// `exponential` is cut once in 22,000 draws, that of `pareto` (Lomax of shape 3, as of netem) once in 130,000; both means
/// are true within 0.05 %. `uniform` and `normal` take a jitter of at most the base: a delay is never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// What it varies around, or from.
    pub base: Duration,
    /// How much it varies.
    pub jitter: Duration,
    /// How it varies.
    pub distribution: Distribution,
}

impl Spread {
    /// The documentation of `jitter`.
    pub const JITTER: AttributeDoc = AttributeDoc {
        name: "jitter",
        unit: Unit::Duration { max_secs: 300 },
        default: "0",
        zero: "no variation",
        doc: "How much the delay varies, in the way of `distribution`.",
    };

    /// The documentation of `distribution`.
    pub const DISTRIBUTION: AttributeDoc = AttributeDoc {
        name: "distribution",
        unit: Unit::Word(&["constant", "uniform", "normal", "exponential", "pareto"]),
        default: "uniform",
        zero: "",
        doc: "How the delay varies: not at all; evenly by up to `jitter` either way; by the bell curve with `jitter` as the \
              standard deviation, at most 4 of them; or only upwards, by `jitter` on average: with an exponential tail of at \
              most 10 times, or the heavy Pareto tail of at most 100 times the jitter.",
    };

    /// Reads the attribute `base` (a duration), `jitter` and `distribution`, all of which must be documented.
    pub fn read(reader: &Reader<'_>, base: &str) -> Result<Self, Error> {
        let spread = Self {
            base: reader.duration(base)?.unwrap_or_default(),
            jitter: reader.duration(Self::JITTER.name)?.unwrap_or_default(),
            distribution: match reader.word(Self::DISTRIBUTION.name)? {
                Some("constant") => Distribution::Constant,
                Some("normal") => Distribution::Normal,
                Some("exponential") => Distribution::Exponential,
                Some("pareto") => Distribution::Pareto,
                _ => Distribution::Uniform,
            },
        };
        match spread.distribution {
            Distribution::Constant if !spread.jitter.is_zero() => {
                Err(reader.wrong(Self::JITTER.name, "a constant delay has no jitter"))
            }
            Distribution::Uniform | Distribution::Normal if spread.jitter > spread.base => {
                Err(reader.wrong(Self::JITTER.name, &format!("more than the {base}")))
            }
            _ => Ok(spread),
        }
    }

    /// The next delay.
    pub fn draw(&self, dice: &mut Rng) -> Duration {
        let jitter = self.jitter.as_secs_f64();
        let upwards = |times: f64, most: f64| self.base + seconds(jitter * times.min(most));
        match self.distribution {
            Distribution::Constant => self.base,
            Distribution::Uniform => {
                let width = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2);
                let least = self.base.saturating_sub(self.jitter);
                least + Duration::from_nanos(dice.below(width.saturating_add(1)))
            }
            Distribution::Normal => {
                let reach = (4.0 * jitter).min(self.base.as_secs_f64());
                let by = (jitter * dice.normal()).clamp(-reach, reach);
                if by < 0.0 { self.base.saturating_sub(seconds(-by)) } else { self.base + seconds(by) }
            }
            Distribution::Exponential => upwards(dice.exponential(), 10.0),
            // From 0 with mean 1: Pareto of shape 3 from 1 has the mean 1.5.
            Distribution::Pareto => upwards(2.0 * (dice.pareto() - 1.0), 100.0),
        }
    }
}

/// Seconds that are not negative, as a duration.
fn seconds(secs: f64) -> Duration {
    Duration::from_nanos((secs * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::fault::attributes::Attributes;

    const DOCS: &[AttributeDoc] = &[
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "200ms",
            zero: "",
            doc: "",
        },
        Spread::JITTER,
        Spread::DISTRIBUTION,
    ];

    fn read(text: &[(&str, &str)]) -> Result<Spread, String> {
        let given: Attributes = text.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        Spread::read(&Reader::new(&given, DOCS), "delay").map_err(|e| e.to_string())
    }

    fn draws(spread: &Spread, seed: u64, count: usize) -> Vec<Duration> {
        let mut dice = Rng::new(seed, 1);
        (0..count).map(|_| spread.draw(&mut dice)).collect()
    }

    fn spread(distribution: Distribution, base: u64, jitter: u64) -> Spread {
        Spread { base: Duration::from_micros(base), jitter: Duration::from_micros(jitter), distribution }
    }

    const ALL: [Distribution; 5] = [
        Distribution::Constant,
        Distribution::Uniform,
        Distribution::Normal,
        Distribution::Exponential,
        Distribution::Pareto,
    ];

    /// The least and the most of the table above.
    fn ends(s: &Spread) -> (Duration, Duration) {
        let by = match s.distribution {
            Distribution::Constant => return (s.base, s.base),
            Distribution::Exponential => return (s.base, s.base + 10 * s.jitter),
            Distribution::Pareto => return (s.base, s.base + 100 * s.jitter),
            Distribution::Uniform => s.jitter,
            Distribution::Normal => (4 * s.jitter).min(s.base),
        };
        (s.base - by, s.base + by)
    }

    fn mean(s: &Spread) -> f64 {
        match s.distribution {
            Distribution::Exponential | Distribution::Pareto => (s.base + s.jitter).as_secs_f64(),
            _ => s.base.as_secs_f64(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Fifty thousand draws stay between the ends, have their mean, and come again from the same seed.
        #[test]
        fn draws_keep_to_the_table(
            which in 0usize..5, base in 0u64..300_000_000, part in 0u64..=100, seed: u64,
        ) {
            let jitter = if which == 0 { 0 } else { base * part / 100 };
            let s = spread(ALL[which], base, jitter);
            let all = draws(&s, seed, 50_000);
            let (least, most) = ends(&s);
            prop_assert!(all.iter().all(|d| (least..=most).contains(d)), "{s:?}");
            let found = all.iter().map(Duration::as_secs_f64).sum::<f64>() / all.len() as f64;
            let tolerance = 0.04 * s.jitter.as_secs_f64() + 1e-6;
            prop_assert!((found - mean(&s)).abs() <= tolerance, "{s:?}: mean {found}");
            prop_assert_eq!(draws(&s, seed, 100), &all[..100]);
        }
    }

    #[test]
    fn the_standard_deviation_of_normal_is_its_jitter() {
        let s = spread(Distribution::Normal, 200_000, 50_000);
        let all = draws(&s, 42, 50_000);
        let square = all.iter().map(|d| (d.as_secs_f64() - 0.2).powi(2)).sum::<f64>() / all.len() as f64;
        assert!((square.sqrt() - 0.05).abs() < 0.0005, "{}", square.sqrt());
    }

    #[test]
    fn the_tail_of_pareto_is_heavier_than_that_of_exponential() {
        let beyond = |distribution| {
            let all = draws(&spread(distribution, 0, 1_000), 42, 100_000);
            all.iter().filter(|d| **d > Duration::from_millis(8)).count()
        };
        let (exponential, pareto) = (beyond(Distribution::Exponential), beyond(Distribution::Pareto));
        assert!((15..60).contains(&exponential), "1/2981 of 100000: {exponential}");
        assert!((700..900).contains(&pareto), "1/125 of 100000: {pareto}");
    }

    #[test]
    fn without_jitter_every_delay_is_the_base() {
        for distribution in ALL {
            let s = spread(distribution, 200_000, 0);
            assert_eq!(draws(&s, 1, 50), [Duration::from_millis(200); 50], "{distribution:?}");
        }
    }

    #[test]
    fn a_jitter_that_its_distribution_cannot_have_is_refused() {
        assert_eq!(read(&[]), Ok(spread(Distribution::Uniform, 200_000, 0)));
        let tail = [("delay", "0"), ("jitter", "5ms"), ("distribution", "pareto")];
        assert_eq!(read(&tail), Ok(spread(Distribution::Pareto, 0, 5_000)));
        let allowed = "; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"";
        for (text, problem) in [
            (&[("jitter", "201ms")][..], "jitter = \"201ms\": more than the delay"),
            (&[("jitter", "1s"), ("distribution", "normal")], "jitter = \"1s\": more than the delay"),
            (
                &[("jitter", "1ms"), ("distribution", "constant")],
                "jitter = \"1ms\": a constant delay has no jitter",
            ),
        ] {
            assert_eq!(read(text), Err(format!("{problem}{allowed}")));
        }
    }
}
