//! Which segments a path loses.

use super::attributes::{AttributeDoc, Reader, Unit};
use super::error::Error;
use crate::rng::Rng;

/// Loss that comes alone or in bursts: the Gilbert model, of which Bernoulli's is a case.
///
/// A path is good or bad; in the bad state every segment is lost, in the good one none. `p` is the share of all segments
/// that is lost in the long run, `burst` the mean number of segments lost in a row. Independent losses with share `p` come
/// in bursts of 1/(1-p) by chance; a shorter `burst` than that, such as 1, means just these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Probability that a segment after one that arrived is lost.
    begins: f64,
    /// Probability that a segment after a lost one is lost too.
    goes_on: f64,
    /// Probability that the first segment is lost.
    share: f64,
}

/// What became of the last segment; one for each flow, rule and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossState {
    /// There was none.
    #[default]
    Fresh,
    /// It arrived.
    Good,
    /// It was lost.
    Bad,
}

impl Loss {
    /// The documentation of `p`.
    pub const P: AttributeDoc = AttributeDoc {
        name: "p",
        unit: Unit::Share,
        default: "0.01",
        zero: "no loss",
        doc: "The share of the segments that is lost in the long run.",
    };

    /// The documentation of `burst`.
    pub const BURST: AttributeDoc = AttributeDoc {
        name: "burst",
        unit: Unit::Count { from: 1, to: 1000 },
        default: "1",
        zero: "",
        doc: "The mean number of segments lost in a row (Gilbert-Elliott); 1 is independent losses, which come in bursts of \
              1/(1-p) by chance.",
    };

    /// Loss of the share `p` (0 to 1) in bursts of `burst` segments (1 or more) on average.
    #[must_use]
    pub fn new(p: f64, burst: f64) -> Self {
        let share = p.clamp(0.0, 1.0);
        // 1 - share is how often independent losses end.
        let ends = burst.max(1.0).recip().min(1.0 - share);
        // In the long run as many bursts begin as end: (1 - share) * begins = share * ends.
        let begins = if share < 1.0 { share * ends / (1.0 - share) } else { 1.0 };
        Self { begins, goes_on: 1.0 - ends, share }
    }

    /// Reads the attributes `p` and `burst`.
    pub fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let (p, burst) = (reader.share(Self::P.name)?, reader.count(Self::BURST.name)?);
        Ok(Self::new(p.unwrap_or(0.0), burst.unwrap_or(1) as f64))
    }

    /// True if the next segment is lost. Always consumes one number.
    pub fn lose(&self, state: &mut LossState, dice: &mut Rng) -> bool {
        let lost = dice.chance(match state {
            LossState::Fresh => self.share,
            LossState::Good => self.begins,
            LossState::Bad => self.goes_on,
        });
        *state = if lost { LossState::Bad } else { LossState::Good };
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::attributes::Attributes;

    fn losses(loss: Loss, seed: u64, count: usize) -> Vec<bool> {
        let (mut state, mut dice) = (LossState::default(), Rng::new(seed, 1));
        (0..count).map(|_| loss.lose(&mut state, &mut dice)).collect()
    }

    /// Share of the lost, and mean length of a run of them.
    fn measured(lost: &[bool]) -> (f64, f64) {
        let all = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.split(|lost| !lost).filter(|burst| !burst.is_empty()).count() as f64;
        (all / lost.len() as f64, all / bursts)
    }

    #[test]
    fn share_and_mean_burst_are_as_told() {
        for (p, burst) in [(0.01, 3.0), (0.01, 10.0), (0.1, 2.0), (0.5, 4.0), (0.9, 20.0), (0.2, 1000.0)] {
            let (share, mean) = measured(&losses(Loss::new(p, burst), 42, 4_000_000));
            assert!((share / p - 1.0).abs() < 0.05, "p {p} burst {burst}: share {share}");
            assert!((mean / burst - 1.0).abs() < 0.05, "p {p} burst {burst}: mean burst {mean}");
        }
    }

    #[test]
    fn a_burst_of_one_is_independent_loss_roll_by_roll() {
        for p in [0.0, 0.01, 0.3, 0.9, 1.0] {
            let mut dice = Rng::new(7, 1);
            let independent: Vec<bool> = (0..10_000).map(|_| dice.chance(p)).collect();
            assert_eq!(losses(Loss::new(p, 1.0), 7, 10_000), independent, "{p}");
        }
        assert_eq!(Loss::new(0.5, 1.5), Loss::new(0.5, 1.0), "chance alone makes bursts of 2");
    }

    #[test]
    fn the_ends_are_never_and_always() {
        for burst in [1.0, 3.0, 1000.0] {
            assert!(losses(Loss::new(0.0, burst), 1, 1000).iter().all(|lost| !lost));
            assert!(losses(Loss::new(1.0, burst), 1, 1000).iter().all(|lost| *lost));
        }
    }

    #[test]
    fn the_same_seed_loses_the_same_segments() {
        let loss = Loss::new(0.1, 3.0);
        assert_eq!(losses(loss, 5, 1000), losses(loss, 5, 1000));
        assert_ne!(losses(loss, 5, 1000), losses(loss, 6, 1000));
    }

    #[test]
    fn it_is_read_from_p_and_burst() {
        let read = |text: &[(&str, &str)]| {
            let given: Attributes = text.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
            Loss::read(&Reader::new(&given, &[Loss::P, Loss::BURST])).map_err(|e| e.to_string())
        };
        assert_eq!(read(&[]), Ok(Loss::new(0.01, 1.0)));
        assert_eq!(read(&[("p", "0.2"), ("burst", "3")]), Ok(Loss::new(0.2, 3.0)));
        assert_eq!(
            read(&[("burst", "0")]),
            Err("burst = \"0\": too small; allowed: a whole number from 1 to 1000".to_owned())
        );
    }
}
