//! Seeded chance. Every flow and every rule has a stream of its own, so that adding a rule or a flow does not change the
//! dice of another, and the same seed gives the same faults at any speed.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// One independent stream of random numbers. The stream of a given seed never changes between versions (ChaCha8).
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    stream: u64,
    /// Numbers of 64 bits that were consumed before the first whose value mattered.
    skipped: u64,
    /// Made when a value matters: most rules on most flows never roll their dice, and ChaCha has 300 bytes.
    core: Option<Box<ChaCha8Rng>>,
}

impl Rng {
    /// The stream `stream` of `seed`.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream, skipped: 0, core: None }
    }

    /// The stream of rule number `rule` on flow number `flow`.
    #[must_use]
    pub const fn for_rule(seed: u64, flow: u64, rule: usize) -> Self {
        Self::new(seed, flow.wrapping_mul(0x1_0000).wrapping_add(rule as u64 + 1))
    }

    fn core(&mut self) -> &mut ChaCha8Rng {
        self.core.get_or_insert_with(|| {
            let mut core = ChaCha8Rng::seed_from_u64(self.seed);
            core.set_stream(self.stream);
            // Words of 32 bits.
            core.set_word_pos(2 * u128::from(self.skipped));
            Box::new(core)
        })
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.core().next_u64()
    }

    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        self.core().next_u32()
    }

    /// True with probability `p`; `p <= 0` is never, `p >= 1` is always. Always consumes one number.
    pub fn chance(&mut self, p: f64) -> bool {
        if self.core.is_none() && !(p > 0.0 && p < 1.0) {
            self.skipped += 1;
            return p >= 1.0;
        }
        self.unit() < p
    }

    /// A uniform number from 0 to below 1, of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A normal number of mean 0 and standard deviation 1: the sum of twelve uniform ones, so from -6 to 6. Always
    /// consumes twelve numbers. (The usual ways need functions that differ between machines, or a number of rolls that
    /// is not known before.)
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// An exponential number of mean 1, from 0 to 36.8. Always consumes one number.
    pub fn exponential(&mut self) -> f64 {
        -ln(1.0 - self.unit())
    }

    /// A Pareto number of least value 1 and shape 3: it is above x in 1/x³ of the cases, its mean is 1.5. Always consumes
    /// three numbers.
    pub fn pareto(&mut self) -> f64 {
        // The greatest of three uniform numbers is below v in v³ of the cases.
        let greatest = (0..3).map(|_| 1.0 - self.unit()).fold(0.0, f64::max);
        1.0 / greatest
    }

    /// A uniform number below `n` (0 if `n` is 0).
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

/// The natural logarithm of a normal number above 0, with an error of a few units in the last place. That of the standard
/// library may differ between machines; then a seed would not repeat its run on another one.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52 & 0x7ff) as f64 - 1023.0;
    let mut mantissa = f64::from_bits(bits & (u64::MAX >> 12) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        (mantissa, exponent) = (mantissa / 2.0, exponent + 1.0);
    }
    // ln m = 2 artanh s, and |s| < 0.172, so ten terms leave less than 1e-17.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let (mut power, mut sum) = (s, 0.0);
    for odd in 0..10 {
        sum += power / f64::from(2 * odd + 1);
        power *= s * s;
    }
    2.0 * sum + exponent * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promised across versions: a seed printed in an old report repeats its run today.
    #[test]
    fn streams_are_stable_and_independent() {
        let mut a = Rng::new(42, 0);
        let mut b = Rng::new(42, 1);
        let (a1, b1) = (a.next_u64(), b.next_u64());
        assert_ne!(a1, b1);
        assert_eq!(Rng::new(42, 0).next_u64(), a1);
        assert_eq!(Rng::for_rule(42, 0, 0).next_u64(), b1);
    }

    #[test]
    fn what_needs_no_dice_consumes_a_number_all_the_same() {
        for skipped in [0, 1, 7, 8, 31, 1000] {
            let (mut rolled, mut settled) = (Rng::new(42, 5), Rng::new(42, 5));
            for n in 0..skipped {
                rolled.next_u64();
                assert_eq!(settled.chance(f64::from(n % 2)), n % 2 == 1);
            }
            assert!(settled.core.is_none());
            assert_eq!(settled.next_u64(), rolled.next_u64());
            assert!(settled.chance(1.0) && !settled.chance(0.0));
            rolled.next_u64();
            rolled.next_u64();
            assert_eq!(settled.next_u64(), rolled.next_u64());
        }
    }

    #[test]
    fn chance_respects_its_ends() {
        let mut r = Rng::new(1, 1);
        assert!((0..100).all(|_| !r.chance(0.0)));
        assert!((0..100).all(|_| r.chance(1.0)));
        let hits = (0..10_000).filter(|_| r.chance(0.2)).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
        assert!((0..100).all(|_| r.below(7) < 7));
    }

    #[test]
    fn the_logarithm_is_that_of_the_standard_library_as_far_as_that_is_exact() {
        let mut r = Rng::new(3, 3);
        let ends = [1.0, 0.5, 0.75, 1.0 / (1u64 << 53) as f64, std::f64::consts::SQRT_2];
        for x in ends.into_iter().chain((0..10_000).map(|_| 1.0 - r.unit())) {
            assert!((ln(x) - x.ln()).abs() <= 1e-14 * x.ln().abs(), "ln {x} = {}", ln(x));
        }
    }

    #[test]
    fn shapes_have_their_mean_their_spread_and_their_ends() {
        let draws = |roll: fn(&mut Rng) -> f64| {
            let mut r = Rng::new(42, 9);
            (0..100_000).map(|_| roll(&mut r)).collect::<Vec<f64>>()
        };
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
        let share = |all: &[f64], hit: fn(f64) -> bool| {
            all.iter().filter(|x| hit(**x)).count() as f64 / all.len() as f64
        };
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 0.01, "{found}, not {expected}");

        let unit = draws(Rng::unit);
        near(mean(&unit), 0.5);
        assert!(unit.iter().all(|x| (0.0..1.0).contains(x)));
        let normal = draws(Rng::normal);
        near(mean(&normal), 0.0);
        near(mean(&normal.iter().map(|x| x * x).collect::<Vec<_>>()), 1.0);
        near(share(&normal, |x| x.abs() < 1.0), 0.683);
        let exponential = draws(Rng::exponential);
        near(mean(&exponential), 1.0);
        near(share(&exponential, |x| x > 2.0), 0.135);
        assert!(exponential.iter().all(|x| (0.0..36.8).contains(x)));
        let pareto = draws(Rng::pareto);
        near(mean(&pareto), 1.5);
        near(share(&pareto, |x| x > 2.0), 0.125);
        assert!(pareto.iter().all(|x| *x >= 1.0));
    }
}
