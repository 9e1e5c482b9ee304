//! Suspected loss of SYNs: connects that took as long as a kernel waits before it sends a SYN or SYN-ACK again.
//!
//! Who measures one leg only knows of a lost SYN by nothing else: an answer after 1.02 s is one of 20 ms to the second SYN.
//! Without a fault it is the network, or a listen queue that was full.

use serde::Serialize;

use super::latencies::{Kind, Latencies};
use super::latency::Latency;
use crate::time::Duration;

/// When SYNs and SYN-ACKs are sent again, in seconds after the first. Linux before 6.5 and all SYN-ACKs: 1, 3, 7, 15, 31, 63;
/// Linux from 6.5 on (`tcp_syn_linear_timeouts` = 4): 1, 2, 3, 4, 5, 7, 11, 19, 35, 67.
const STEPS: [u64; 13] = [1, 2, 3, 4, 5, 7, 11, 15, 19, 31, 35, 63, 67];

/// Connects that took a retransmission step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Suspect {
    /// The step, in seconds. A value from here to a tenth more, or to the next step, is one: timers are late, and the
    /// answer takes its own time.
    pub seconds: u64,
    /// How many.
    pub count: u64,
}

/// A latency of connects of which some sit at retransmission steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SynLoss {
    /// `connect`, or `server_connect`: then it is the way to the server that loses them, or its queue.
    pub latency: &'static str,
    /// How many connects there are.
    pub connects: u64,
    /// The steps, and how many sit at each.
    pub steps: Vec<Suspect>,
    /// How many of them would sit at none without what faults have added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_faults: Option<u64>,
}

impl SynLoss {
    /// How many sit at a step.
    #[must_use]
    pub fn suspected(&self) -> u64 {
        self.steps.iter().map(|step| step.count).sum()
    }
}

/// Where SYNs seem to be lost; nothing if nowhere.
#[must_use]
pub fn syn_loss(latencies: &Latencies) -> Vec<SynLoss> {
    let found = [Kind::Connect, Kind::ServerConnect].into_iter().map(|kind| {
        let steps = suspects(latencies.get(kind));
        let suspected: u64 = steps.iter().map(|step| step.count).sum();
        let without_fault =
            suspects(latencies.get(Kind::ConnectWithoutFault)).iter().map(|step| step.count).sum();
        SynLoss {
            latency: kind.name(),
            connects: latencies.get(kind).count(),
            steps,
            by_faults: (kind == Kind::Connect).then(|| suspected.saturating_sub(without_fault)),
        }
    });
    found.filter(|loss| !loss.steps.is_empty()).collect()
}

/// The steps that values of a connect sit at; values that never finished sit at none.
fn suspects(latency: &Latency) -> Vec<Suspect> {
    let ends = STEPS.iter().skip(1).copied().chain([u64::MAX]);
    let found = STEPS.into_iter().zip(ends).map(|(seconds, next)| {
        let (from, tenth) = (Duration::from_secs(seconds), Duration::from_millis(seconds * 1100));
        let count = latency.finished_between(from, tenth.min(Duration::from_secs(next)));
        Suspect { seconds, count }
    });
    found.filter(|suspect| suspect.count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_sits_at_the_step_that_it_follows_by_less_than_a_tenth() {
        let mut latency = Latency::default();
        // Measured with Linux 6.12: see docs/truth.md; 19.4 s is the eighth SYN.
        for millis in [0, 20, 600, 999, 1000, 1020, 1099, 1101, 1900, 2040, 3100, 7100, 7701, 19_400, 69_200]
        {
            latency.record(Duration::from_millis(millis));
        }
        let found: Vec<_> = suspects(&latency).iter().map(|s| (s.seconds, s.count)).collect();
        assert_eq!(found, [(1, 3), (2, 1), (3, 1), (7, 1), (19, 1), (67, 1)]);
    }

    #[test]
    fn who_gave_up_at_a_step_was_not_answered_at_it() {
        let mut latency = Latency::default();
        latency.unfinished(Duration::from_secs(3));
        latency.record(Duration::from_millis(3010));
        assert_eq!(suspects(&latency), [Suspect { seconds: 3, count: 1 }]);
    }
}
