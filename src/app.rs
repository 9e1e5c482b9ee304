//! Wires settings, engine and observers into a run, and ends it in order.

pub mod hlog;
pub mod intercept;
mod live;
pub mod matrix;
pub mod observer;
pub mod pcap;
pub mod ping;
mod service;
mod totals;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::config::{Scaling, Settings};
use crate::control::api::{self, Instance};
use crate::control::http::{self, Source};
use crate::control::{Endpoint, Server};
use crate::engine::tun::Device;
use crate::engine::{self, Clock, Handle, Outside};
use crate::fault::Rules;
use crate::measure::{Counters, Measure, NameCount};
use crate::report::summary::{ScaledTime, TimeScale};
use crate::time::{Duration, Instant};
use observer::{Observer, Report, Watch, lock};
use totals::Totals;

/// A running engine and its observer.
#[derive(Debug)]
pub struct Run {
    engine: Handle,
    observer: Observer,
    clock: Clock,
    seed: u64,
    scaling: Arc<Mutex<Scaling>>,
    /// It takes new flows.
    ready: Arc<AtomicBool>,
    server: Option<Server>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// What was observed.
    pub report: Report,
    /// The seed of its dice, if it has any.
    pub seed: Option<u64>,
    /// What the time scale did to its last rules.
    pub scaling: Scaling,
    /// When it ended.
    pub at: Instant,
    /// Nanoseconds since 1970 when it started.
    pub epoch: u64,
    /// Why the engine stopped by itself, if it did.
    pub engine_error: Option<io::Error>,
    /// The network namespace has lost its owner.
    pub abandoned: bool,
}

impl Run {
    /// Starts one shard per device. `outside` is the caller's network in exec mode.
    pub fn start(
        settings: &Settings,
        watch: Watch,
        devices: Vec<Device>,
        outside: Option<Box<dyn Outside>>,
    ) -> io::Result<Self> {
        let rules = &settings.rules;
        let names = rules.rules().iter().map(|rule| (rule.name.clone(), rule.kind.name));
        let clock = Clock::start();
        let mut watch = Watch { clock, ..watch };
        let endpoints = (watch.metrics.take(), watch.control.take());
        let observer = Observer::start(Measure::new(names), watch)?;
        let engine = engine::Settings {
            relay: settings.relay.clone(),
            rules: Arc::new(rules.clone()),
            hash_seed: settings.hash_seed,
            clock,
        };
        let engine = engine::start(&engine, devices, outside, || observer.tap())?;
        let ready = Arc::new(AtomicBool::new(true));
        let scaling = Arc::new(Mutex::new(settings.scaling.clone()));
        let totals = Totals::new(&observer, &engine, &ready, (rules.seed(), clock), &scaling);
        let server = open(endpoints, Arc::new(totals))?;
        Ok(Self { engine, observer, clock, seed: rules.seed(), scaling, ready, server })
    }

    /// Rules for flows from now on.
    pub fn set_rules(&self, rules: Rules, scaling: Scaling) {
        self.engine.set_rules(&Arc::new(rules));
        *lock(&self.scaling) = scaling;
    }

    /// The totals so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.observer.counters()
    }

    /// The limits that were hit so far, in the order of their first hit.
    #[must_use]
    pub fn limits(&self) -> Vec<NameCount> {
        self.observer.limits()
    }

    /// Payload bytes that wait in all flows.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.engine.gauges().queued()
    }

    /// True once the engine has ended: after [`Self::stop`], or because a device failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.engine.has_ended()
    }

    /// Takes no new flows; the engine ends when the open ones have ended, at the latest after `grace`.
    pub fn stop(&self, grace: Duration) {
        self.ready.store(false, Ordering::Relaxed);
        self.engine.stop(grace);
    }

    /// Waits for the engine's end and closes the books.
    #[must_use]
    pub fn finish(self) -> Ended {
        let Self { engine, observer, clock, seed, scaling, server, .. } = self;
        let engine_error = engine.join().err();
        // Nobody is told totals of a run that is over.
        drop(server);
        let at = clock.now();
        let (report, scaling) = (observer.finish(at), lock(&scaling).clone());
        let epoch = clock.epoch();
        Ended { report, seed: Some(seed), scaling, at, epoch, engine_error, abandoned: false }
    }
}

/// Opens the endpoints that there are: for metrics, and for the control socket.
fn open(
    (metrics, control): (Option<Endpoint>, Option<Endpoint>),
    totals: Arc<Totals>,
) -> io::Result<Option<Server>> {
    let source: Arc<dyn Source> = Arc::clone(&totals) as _;
    let metrics = metrics.map(|endpoint| (endpoint, http::routes(Arc::clone(&source))));
    let control = control.map(|endpoint| (endpoint, api::routes(totals as Arc<dyn Instance>)));
    let endpoints: Vec<_> = metrics.into_iter().chain(control).collect();
    (!endpoints.is_empty()).then(|| Server::start(endpoints, &source)).transpose()
}

/// What the time scale did, for a summary; `None` where it is 1.
#[must_use]
pub fn time_scale(scaling: &Scaling) -> Option<TimeScale> {
    let scaled = scaling.scaled.iter().map(|time| ScaledTime {
        rule: time.rule.clone(),
        attribute: time.attribute,
        from_seconds: time.from.as_secs_f64(),
        seconds: time.to.as_secs_f64(),
    });
    (scaling.factor != 1.0).then(|| TimeScale {
        factor: scaling.factor,
        scaled: scaled.collect(),
        unscaled: scaling.unscaled.clone(),
    })
}

impl Ended {
    /// Names of the rules that never fired.
    #[must_use]
    pub fn idle_rules(&self) -> Vec<&str> {
        self.report.measure.rules().iter().filter(|rule| rule.fired == 0).map(|rule| &*rule.rule).collect()
    }
}
