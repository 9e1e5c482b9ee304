//! Round-trip time and retransmission timeout: RFC 6298 with Linux's floor, and the windowed minimum that RACK needs.

use super::Config;
use crate::time::{Duration, Instant};

/// RTO before the first measurement (RFC 6298 rule 2.1).
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// RTO without a measurement after a SYN was sent twice (RFC 6298 rule 5.7, Linux `TCP_TIMEOUT_FALLBACK`).
const FALLBACK_RTO: Duration = Duration::from_secs(3);
/// How long a minimum counts. Linux `tcp_min_rtt_wlen`: 300 s.
const MIN_RTT_WINDOW: Duration = Duration::from_secs(300);

/// Smoothed round-trip time of one connection. Feed it only what Karn's algorithm allows (RFC 9293 MUST-18).
#[derive(Clone, Debug)]
pub struct RttEstimator {
    rto_min: Duration,
    rto_max: Duration,
    without_sample: Duration,
    smoothed: Option<Smoothed>,
    /// Best samples of three overlapping parts of the window, best first (Kathleen Nichols' filter, as in Linux).
    minima: [Minimum; 3],
}

#[derive(Clone, Copy, Debug)]
struct Smoothed {
    srtt: Duration,
    rttvar: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Minimum {
    at: Instant,
    rtt: Duration,
}

impl RttEstimator {
    /// An estimator without a measurement.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            rto_min: config.rto_min,
            rto_max: config.rto_max,
            without_sample: INITIAL_RTO,
            smoothed: None,
            minima: [Minimum::default(); 3],
        }
    }

    /// The SYN had to be sent again and its answer could not be timed: data starts with an RTO of 3 s. Without effect
    /// once there is a measurement, which timestamps give even then.
    pub fn syn_was_resent(&mut self) {
        self.without_sample = FALLBACK_RTO;
    }

    /// Takes one measurement.
    pub fn sample(&mut self, now: Instant, rtt: Duration) {
        let first = self.smoothed.is_none();
        self.smoothed =
            Some(self.smoothed.map_or(Smoothed { srtt: rtt, rttvar: rtt / 2 }, |old| old.update(rtt)));
        self.update_minimum(Minimum { at: now, rtt }, first);
    }

    /// The smoothed round-trip time, once measured.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        self.smoothed.map(|s| s.srtt)
    }

    /// The smallest round-trip time of the last 5 minutes; zero before the first measurement.
    #[must_use]
    pub const fn min_rtt(&self) -> Duration {
        self.minima[0].rtt
    }

    /// The retransmission timeout without backoff. Linux puts the floor under the variance, not under the sum, so that
    /// a steady path still gets 200 ms of patience on top of its round trip.
    #[must_use]
    pub fn rto(&self) -> Duration {
        self.backoff(0)
    }

    /// The retransmission timeout after `n` retransmissions in a row: doubled each time, never above the maximum.
    #[must_use]
    pub fn backoff(&self, n: u32) -> Duration {
        let base = self.smoothed.map_or(self.without_sample, |s| {
            s.srtt.saturating_add(s.rttvar.saturating_mul(4).max(self.rto_min))
        });
        base.saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX)).min(self.rto_max)
    }

    fn update_minimum(&mut self, new: Minimum, first: bool) {
        let m = &mut self.minima;
        if first || new.rtt <= m[0].rtt || new.at - m[2].at > MIN_RTT_WINDOW {
            *m = [new; 3];
            return;
        }
        if new.rtt <= m[1].rtt {
            (m[1], m[2]) = (new, new);
        } else if new.rtt <= m[2].rtt {
            m[2] = new;
        }
        // The best grows old: the second best takes its place. A part of the window without a better sample still
        // leaves one behind, so that there is always a successor.
        let age = new.at - m[0].at;
        if age > MIN_RTT_WINDOW {
            *m = [m[1], m[2], new];
            if new.at - m[0].at > MIN_RTT_WINDOW {
                *m = [m[1], m[2], new];
            }
        } else if m[1].at == m[0].at && age > MIN_RTT_WINDOW / 4 {
            (m[1], m[2]) = (new, new);
        } else if m[2].at == m[1].at && age > MIN_RTT_WINDOW / 2 {
            m[2] = new;
        }
    }
}

impl Smoothed {
    /// RFC 6298 rule 2.3 with alpha 1/8 and beta 1/4. A sample below the average raises the variance only by 1/32:
    /// a path that got faster is no reason to wait longer (Linux, `tcp_rtt_estimator`).
    fn update(self, rtt: Duration) -> Self {
        let deviation = self.srtt.abs_diff(rtt);
        let gain = if rtt < self.srtt && deviation > self.rttvar { 32 } else { 4 };
        let rttvar = self.rttvar - self.rttvar / gain + deviation / gain;
        Self { srtt: self.srtt - self.srtt / 8 + rtt / 8, rttvar }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn after(samples: &[u64]) -> RttEstimator {
        let mut est = RttEstimator::new(&Config::default());
        for (i, &rtt) in samples.iter().enumerate() {
            est.sample(Instant::from_millis(i as u64 * 1000), ms(rtt));
        }
        est
    }

    #[test]
    fn rto_follows_the_samples() {
        let steady = |n: usize, rtt: u64| vec![rtt; n];
        let rows: &[(&str, Vec<u64>, u64)] = &[
            ("one second before the first sample", vec![], 1000),
            ("the first sample counts as srtt and half of it as variance", vec![200], 200 + 400),
            ("a fast path has a floor of 200 ms over its round trip", vec![1], 201),
            ("a steady path keeps the floor", steady(100, 40), 240),
            ("a sample of zero is allowed", vec![0], 200),
        ];
        for (row, samples, rto) in rows {
            let got = after(samples).rto();
            assert!(got.abs_diff(ms(*rto)) < Duration::from_micros(10), "{row}: {got:?}");
        }
    }

    #[test]
    fn a_slower_path_raises_the_rto_at_once_and_a_faster_one_does_not() {
        let base = vec![100; 50];
        assert!(after(&[base.clone(), vec![400]].concat()).rto() > ms(400));
        assert!(after(&[base, vec![1]].concat()).rto() < ms(300));
    }

    #[test]
    fn backoff_doubles_up_to_the_maximum() {
        let est = after(&vec![100; 100]);
        let schedule: Vec<u128> = (0..4).map(|n| est.backoff(n).as_millis()).collect();
        assert_eq!(schedule, [300, 600, 1200, 2400]);
        for n in [9, 31, 32, 63, u32::MAX] {
            assert_eq!(est.backoff(n), Duration::from_secs(120), "{n}");
        }
        assert_eq!(after(&[500_000]).rto(), Duration::from_secs(120));
    }

    #[test]
    fn an_untimed_resent_syn_means_three_seconds_until_a_sample_comes() {
        let mut est = RttEstimator::new(&Config::default());
        est.syn_was_resent();
        assert_eq!(est.rto(), Duration::from_secs(3));
        est.sample(Instant::ZERO, ms(10));
        assert_eq!(est.rto(), ms(210));
    }

    #[test]
    fn min_rtt_is_the_minimum_of_five_minutes() {
        let mut est = RttEstimator::new(&Config::default());
        assert_eq!(est.min_rtt(), Duration::ZERO);
        let at = |s: u64| Instant::from_millis(s * 1000);
        est.sample(at(0), ms(50));
        est.sample(at(1), ms(10));
        for s in 2..=300 {
            est.sample(at(s), ms(30));
            assert_eq!(est.min_rtt(), ms(10), "second {s}");
        }
        for s in 301..=310 {
            est.sample(at(s), ms(30));
        }
        assert_eq!(est.min_rtt(), ms(30), "the old minimum is forgotten");
        est.sample(at(2000), ms(70));
        assert_eq!(est.min_rtt(), ms(70), "a window without samples leaves nothing");
    }
}
