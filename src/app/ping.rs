//! A run of `ping`: attempts until they are all made, or until a signal.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::Ended;
use super::live::LiveLine;
use super::observer::{Observer, Watch};
use crate::config::Scaling;
use crate::engine::Clock;
use crate::engine::ping::{self as engine, Via};
use crate::measure::{Kind, Measure};
use crate::ping::{Ended as Attempt, Settings};
use crate::report::text::duration;
use crate::report::{latency_line, status_line};
use crate::time::Duration;

/// How often the live line is drawn, and the pinger asked whether it still runs.
const TICK: Duration = Duration::from_millis(100);

/// Pings until all attempts have ended, or until SIGINT or SIGTERM. `secret` keys the numbers of our own TCP.
pub fn ping(settings: Settings, via: Via, secret: [u64; 2], watch: Watch, live: bool) -> io::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let clock = Clock::start();
    let observer = Observer::start(Measure::default(), Watch { clock, ..watch })?;
    let pinger = engine::start(settings, via, secret, clock, observer.tap(), log)?;
    let mut line = LiveLine::new(live);
    let mut tick = tokio::time::interval(TICK);
    runtime.block_on(async {
        while !pinger.has_ended() {
            tokio::select! {
                _ = tick.tick() => line.draw(|| {
                    let connect = latency_line(Kind::Connect.name(), &observer.latency(Kind::Connect));
                    status_line(&observer.counters()) + &connect
                }),
                _ = terminate.recv() => pinger.stop(),
                _ = interrupt.recv() => pinger.stop(),
            }
        }
    });
    line.clear();
    let engine_error = pinger.join().err();
    let at = clock.now();
    let (report, scaling) = (observer.finish(at), Scaling::default());
    Ok(Ended { report, seed: None, scaling, at, epoch: clock.epoch(), engine_error, abandoned: false })
}

/// One line per attempt.
fn log(attempt: &Attempt) {
    let Attempt { attempt, target, outcome, took, retransmits } = attempt;
    let (outcome, connect) = (outcome.name(), duration(*took));
    tracing::debug!(%attempt, %target, outcome, connect, retransmits, "ended");
}
