//! A run for those who ask about it: metrics, and the control socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::observer::{Kept, Observer, lock};
use super::time_scale;
use crate::config::Scaling;
use crate::control::Snapshot;
use crate::control::api::{Instance, NoLadder};
use crate::control::http::Source;
use crate::control::metrics::Packets;
use crate::engine::{Clock, Gauges, Handle, Remote};
use crate::measure::{Latencies, Measure};
use crate::report::summary::TimeScale;
use crate::report::{Style, Text};
use crate::time::Instant;
use crate::trace::FlowId;

/// Where everything about a run is.
#[derive(Debug)]
pub(super) struct Totals {
    measure: Arc<Mutex<Measure>>,
    /// Latencies that were taken from it.
    taken: Arc<Mutex<Latencies>>,
    kept: Arc<Mutex<Kept>>,
    gauges: Arc<Gauges>,
    shards: Remote,
    ready: Arc<AtomicBool>,
    seed: u64,
    clock: Clock,
    scaling: Arc<Mutex<Scaling>>,
}

impl Totals {
    pub(super) fn new(
        observer: &Observer,
        engine: &Handle,
        ready: &Arc<AtomicBool>,
        (seed, clock): (u64, Clock),
        scaling: &Arc<Mutex<Scaling>>,
    ) -> Self {
        Self {
            measure: Arc::clone(observer.measure()),
            taken: Arc::clone(observer.taken()),
            kept: Arc::clone(observer.kept()),
            gauges: Arc::clone(engine.gauges()),
            shards: engine.remote(),
            ready: Arc::clone(ready),
            seed,
            clock,
            scaling: Arc::clone(scaling),
        }
    }
}

impl Source for Totals {
    /// The data path waits at most for a copy of the histograms that have values, 150 KiB each.
    fn snapshot(&self) -> Snapshot {
        let taken = lock(&self.taken);
        let mut measure = lock(&self.measure).so_far();
        measure.give_back(&taken);
        Snapshot {
            measure,
            waiting_bytes: self.gauges.queued(),
            packets: Packets { received: self.gauges.received(), sent: self.gauges.sent() },
        }
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn limit_hit(&self, limit: &'static str) {
        lock(&self.measure).limit_hit(limit, 1);
    }
}

impl Instance for Totals {
    fn shards(&self) -> &Remote {
        &self.shards
    }

    fn flows(&self) -> u64 {
        lock(&self.measure).counters().flows
    }

    fn run(&self) -> (u64, Instant, Option<TimeScale>) {
        (self.seed, self.clock.now(), time_scale(&lock(&self.scaling)))
    }

    fn ladder(&self, flow: FlowId, style: &Style) -> Result<Text, NoLadder> {
        let kept = lock(&self.kept);
        if !kept.any() {
            return Err(NoLadder::NoHistory);
        }
        kept.get(flow).map(|ladder| ladder.draw(style)).ok_or(NoLadder::NotKept)
    }
}
