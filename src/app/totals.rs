//! The totals of a run, for the listener of metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::observer::lock;
use crate::control::metrics::Packets;
use crate::control::{Snapshot, Source};
use crate::engine::Gauges;
use crate::measure::{Latencies, Measure};

/// Where the totals are.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) measure: Arc<Mutex<Measure>>,
    /// Latencies that were taken from it.
    pub(super) taken: Arc<Mutex<Latencies>>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) ready: Arc<AtomicBool>,
}

impl Source for Totals {
    /// The data path waits at most for a copy of the histograms that have values, 150 KiB each.
    fn snapshot(&self) -> Snapshot {
        let taken = lock(&self.taken);
        let measure = lock(&self.measure);
        let mut snapshot = Snapshot {
            counters: measure.counters(),
            latencies: measure.latencies().clone(),
            rules: measure.rules().to_vec(),
            limits: measure.limits().to_vec(),
            discarded: measure.discarded().to_vec(),
            waiting_bytes: self.gauges.queued(),
            packets: Packets { received: self.gauges.received(), sent: self.gauges.sent() },
        };
        drop(measure);
        snapshot.latencies.add(&taken);
        snapshot
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}
