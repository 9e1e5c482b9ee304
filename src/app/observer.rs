//! Watches a run without holding it up.
//!
//! ```text
//!  data path ── Tap ──┬─▶ Measure (always, at once) ◀── taken by the thread of --hlog FILE, see `hlog`
//!   (a Sink)          └─▶ Mailbox (bounded) ─▶ the observer's thread ─┬─▶ --events FILE
//!                                                                     ├─▶ --pcap FILE
//!                                                                     ├─▶ ladders: of the first flows, the worst, the newest so far
//!                                                                     └─▶ log lines
//! ```
//!
//! Counting is cheap and exact, so it happens in the data path. Everything that formats or writes is done by a thread of
//! its own; when that cannot keep up, events are lost and counted (`limits.events`), or their payload is (`limits.capture`), and
//! the data path goes on.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tracing::Level;

use super::hlog::Keeper;
use super::pcap::{Pcap, Writer};
use crate::control::Endpoint;
use crate::engine::Clock;
use crate::measure::{Counters, Kind, Latencies, Latency, Measure, NameCount};
use crate::report::{Ladder, Ladders, Worst};
use crate::time::{Duration, Instant};
use crate::trace::{Event, FlowId, Record, Sink};

/// What to watch besides the totals.
#[derive(Debug)]
pub struct Watch {
    /// Write all events here, one JSON object per line.
    pub events: Option<File>,
    /// Capture the segments here.
    pub pcap: Option<Pcap>,
    /// Write the latencies here, as an interval log.
    pub hlog: Option<File>,
    /// How long its intervals are (`measure.interval`).
    pub interval: Duration,
    /// Tell metrics here.
    pub metrics: Option<Endpoint>,
    /// Answer `halfopen flows` and `halfopen stats` here.
    pub control: Option<Endpoint>,
    /// The clock of the run.
    pub clock: Clock,
    /// Most payload bytes that wait for the observer's thread (`limits.capture`).
    pub waiting_bytes: usize,
    /// Keep ladders of the first flows until the end.
    pub ladders: bool,
    /// Keep those of the worst flows, too; this many open ones are followed at most (`limits.ladders`).
    pub worst: Option<usize>,
    /// Keep ladders of so many of the newest flows (`control.history`), for who asks while the run goes on.
    pub history: usize,
    /// Log each flow at debug level, each segment at trace level, if these levels are enabled.
    pub log: bool,
    /// Most events that wait for the observer's thread (`limits.events`).
    pub waiting: usize,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            events: None,
            pcap: None,
            hlog: None,
            interval: Duration::from_secs(10),
            metrics: None,
            control: None,
            clock: Clock::start(),
            waiting_bytes: 64 << 20,
            ladders: false,
            worst: None,
            history: 0,
            log: false,
            waiting: 1 << 16,
        }
    }
}

/// A running observer.
#[derive(Debug)]
pub struct Observer {
    measure: Arc<Mutex<Measure>>,
    /// Latencies that were taken from it.
    taken: Arc<Mutex<Latencies>>,
    keeper: Option<Keeper>,
    kept: Arc<Mutex<Kept>>,
    thread: Option<(Arc<Mailbox>, JoinHandle<Told>)>,
    segments: bool,
    snaplen: u32,
}

/// The end of a run, as it was observed.
#[derive(Debug)]
pub struct Report {
    /// Totals and latencies, finished.
    pub measure: Measure,
    /// The ladders, if they were asked for.
    pub ladders: Ladders,
    /// Those of the worst flows, if they were asked for.
    pub worst: Worst,
    /// Why the event file is not complete.
    pub events_error: Option<io::Error>,
    /// Why the capture is not complete.
    pub pcap_error: Option<io::Error>,
    /// Why the log of the latencies is not complete.
    pub hlog_error: Option<io::Error>,
}

impl Observer {
    /// Watches from here on; `measure` knows the rules.
    pub fn start(measure: Measure, watch: Watch) -> io::Result<Self> {
        let Watch { events, pcap, hlog, interval, clock, waiting_bytes, worst, log, waiting, .. } = watch;
        let kept = Kept::new(watch.ladders, watch.history);
        let log = log && tracing::enabled!(Level::DEBUG);
        let snaplen = pcap.as_ref().map_or(0, |pcap| pcap.snaplen);
        let segments = events.is_some()
            || pcap.is_some()
            || kept.any()
            || worst.is_some()
            || (log && tracing::enabled!(Level::TRACE));
        let kept = Arc::new(Mutex::new(kept));
        let thread = if segments || log {
            let mailbox = Arc::new(Mailbox::new(waiting, waiting_bytes));
            let reader = Arc::clone(&mailbox);
            let mut teller = Teller {
                events: events.map(BufWriter::new),
                error: None,
                pcap: pcap.map(|pcap| Writer::new(pcap, clock.epoch())),
                pcap_error: None,
                log,
                kept: Arc::clone(&kept),
                worst: worst.map(Worst::new),
            };
            let tell = move || {
                let end = reader.read(|records| teller.tell(records));
                teller.finish(end)
            };
            Some((mailbox, std::thread::Builder::new().name("observer".to_owned()).spawn(tell)?))
        } else {
            None
        };
        let measure = Arc::new(Mutex::new(measure));
        let taken = Arc::default();
        let keep = |file| Keeper::start(file, clock, interval, Arc::clone(&measure), Arc::clone(&taken));
        let keeper = hlog.map(keep).transpose()?;
        Ok(Self { measure, taken, keeper, kept, thread, segments, snaplen })
    }

    /// A sink for one thread of the data path.
    #[must_use]
    pub fn tap(&self) -> Tap {
        Tap {
            measure: Arc::clone(&self.measure),
            mailbox: self.thread.as_ref().map(|(mailbox, _)| Arc::clone(mailbox)),
            segments: self.segments,
            snaplen: self.snaplen,
        }
    }

    /// The totals so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.measure).counters()
    }

    /// The limits that were hit so far, in the order of their first hit.
    #[must_use]
    pub fn limits(&self) -> Vec<NameCount> {
        lock(&self.measure).limits().to_vec()
    }

    /// The values of a latency so far.
    #[must_use]
    pub fn latency(&self, kind: Kind) -> Latency {
        let taken = lock(&self.taken);
        let mut latency = lock(&self.measure).latencies().get(kind).clone();
        latency.add(taken.get(kind));
        latency
    }

    /// Totals and latencies.
    pub(super) fn measure(&self) -> &Arc<Mutex<Measure>> {
        &self.measure
    }

    /// Latencies that were taken from them.
    pub(super) fn taken(&self) -> &Arc<Mutex<Latencies>> {
        &self.taken
    }

    /// The ladders so far.
    pub(super) fn kept(&self) -> &Arc<Mutex<Kept>> {
        &self.kept
    }

    /// Ends it: waits until everything is written. All taps must have done their work.
    #[must_use]
    pub fn finish(self, now: Instant) -> Report {
        let kept = self.keeper.map(Keeper::stop);
        let mut measure = std::mem::take(&mut *lock(&self.measure));
        measure.finish(now);
        let hlog_error = kept.and_then(|kept| kept.finish(&mut measure, now));
        let Some((mailbox, thread)) = self.thread else {
            let (ladders, worst) = (Ladders::default(), Worst::default());
            return Report { measure, ladders, worst, events_error: None, pcap_error: None, hlog_error };
        };
        let End { lost, cut, .. } = mailbox.close(now);
        let told = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let Told { worst, error: events_error, pcap_error } = told;
        let ladders = lock(&self.kept).first.take().unwrap_or_default();
        let limits =
            [("limits.events", lost), ("limits.capture", cut), ("limits.ladders", worst.unfollowed())];
        for (limit, times) in limits.into_iter().filter(|(_, times)| *times > 0) {
            measure.limit_hit(limit, times);
        }
        Report { measure, ladders, worst, events_error, pcap_error, hlog_error }
    }
}

/// Takes the events of one thread of the data path; never waits for a file.
#[derive(Debug)]
pub struct Tap {
    measure: Arc<Mutex<Measure>>,
    mailbox: Option<Arc<Mailbox>>,
    segments: bool,
    snaplen: u32,
}

impl Sink for Tap {
    fn record(&mut self, record: Record) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.push(record.clone());
        }
        lock(&self.measure).record(record);
    }

    fn wants_segments(&self) -> bool {
        self.segments
    }

    fn snaplen(&self) -> u32 {
        self.snaplen
    }
}

/// Events on their way to the observer's thread.
#[derive(Debug)]
struct Mailbox {
    most: usize,
    most_bytes: usize,
    state: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Record>,
    bytes: usize,
    end: End,
    closed: bool,
}

/// What was lost on the way, and when the run ended.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// Events.
    lost: u64,
    /// Payloads of events.
    cut: u64,
    at: Instant,
}

impl Mailbox {
    fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, state: Mutex::default(), filled: Condvar::new() }
    }

    fn push(&self, mut record: Record) {
        let mut state = lock(&self.state);
        if state.records.len() >= self.most {
            state.end.lost += 1;
            return;
        }
        if let Some(segment) = record.event.segment_mut() {
            if state.bytes + segment.data.len() > self.most_bytes {
                segment.data = Bytes::new();
                state.end.cut += 1;
            }
            state.bytes += segment.data.len();
        }
        state.records.push(record);
        if state.records.len() == 1 {
            self.filled.notify_one();
        }
    }

    /// Ends [`Self::read`] after the last event. Tells what was lost.
    fn close(&self, now: Instant) -> End {
        let mut state = lock(&self.state);
        state.closed = true;
        state.end.at = now;
        self.filled.notify_one();
        state.end
    }

    /// Gives out events in batches until the mailbox is closed and empty.
    fn read(&self, mut take: impl FnMut(&[Record])) -> End {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            let mut state = self
                .filled
                .wait_while(lock(&self.state), |state| state.records.is_empty() && !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            if state.records.is_empty() {
                return state.end;
            }
            std::mem::swap(&mut batch, &mut state.records);
            state.bytes = 0;
            drop(state);
            take(&batch);
        }
    }
}

/// Turns events into lines.
#[derive(Debug)]
struct Teller {
    events: Option<BufWriter<File>>,
    error: Option<io::Error>,
    pcap: Option<Writer>,
    pcap_error: Option<io::Error>,
    log: bool,
    kept: Arc<Mutex<Kept>>,
    worst: Option<Worst>,
}

/// Ladders that are kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Those of the first flows, for the end.
    first: Option<Ladders>,
    /// Those of the newest flows.
    history: Option<Ladders>,
}

impl Kept {
    fn new(first: bool, history: usize) -> Self {
        Self { first: first.then(Ladders::default), history: (history > 0).then(|| Ladders::newest(history)) }
    }

    /// True if any are.
    pub(super) const fn any(&self) -> bool {
        self.first.is_some() || self.history.is_some()
    }

    /// The ladder of a flow so far, if it is kept.
    pub(super) fn get(&self, flow: FlowId) -> Option<&Ladder> {
        [&self.history, &self.first].into_iter().flatten().find_map(|ladders| ladders.get(flow))
    }
}

/// What the teller leaves.
#[derive(Debug)]
struct Told {
    worst: Worst,
    error: Option<io::Error>,
    pcap_error: Option<io::Error>,
}

impl Teller {
    /// Takes all that waits. The file is complete up to here afterwards, for those who read along.
    fn tell(&mut self, records: &[Record]) {
        if let Some(file) = &mut self.events
            && let Err(error) =
                records.iter().try_for_each(|record| write_line(file, record)).and_then(|()| file.flush())
        {
            tracing::warn!(%error, "writing events stopped");
            self.error = Some(error);
            self.events = None;
        }
        if let Some(pcap) = &mut self.pcap
            && let Err(error) = pcap.record(records)
        {
            tracing::warn!(%error, "capturing stopped");
            self.pcap_error = Some(error);
            self.pcap = None;
        }
        if self.log {
            records.iter().for_each(log);
        }
        let mut kept = lock(&self.kept);
        let Kept { first, history } = &mut *kept;
        for ladders in [first, history].into_iter().flatten() {
            records.iter().for_each(|record| ladders.record(record.clone()));
        }
        drop(kept);
        if let Some(worst) = &mut self.worst {
            records.iter().for_each(|record| worst.record(record.clone()));
        }
    }

    fn finish(self, end: End) -> Told {
        let Self { worst, error, pcap, mut pcap_error, .. } = self;
        if let Some(Err(error)) = pcap.map(|pcap| pcap.end(end.at, end.lost)) {
            pcap_error = Some(error);
        }
        Told { worst: worst.unwrap_or_default(), error, pcap_error }
    }
}

fn write_line(file: &mut BufWriter<File>, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *file, record)?;
    file.write_all(b"\n")
}

/// Flows and limits are debug, segments and states trace.
fn log(Record { flow, leg, event, .. }: &Record) {
    let leg = leg.map_or("", |leg| leg.name());
    match event {
        Event::FlowOpened { client, server, rules } => {
            tracing::debug!(%flow, %client, %server, ?rules, "flow opened");
        }
        Event::FlowClosed { outcome, upstream_bytes, downstream_bytes } => {
            tracing::debug!(%flow, outcome = outcome.name(), upstream_bytes, downstream_bytes, "flow closed");
        }
        Event::Killed { how } => tracing::debug!(%flow, ?how, "flow killed"),
        Event::Fired { rule, fault, did, direction, segment } => {
            let segment = segment.as_ref().map(ToString::to_string);
            tracing::debug!(%flow, leg, %rule, fault, ?did, ?direction, segment, "fault fired");
        }
        Event::LimitHit { limit } => tracing::debug!(%flow, limit, "limit reached"),
        Event::SegmentIn { segment } => tracing::trace!(%flow, leg, %segment, "segment in"),
        Event::SegmentOut { segment } => tracing::trace!(%flow, leg, %segment, "segment out"),
        Event::StateChanged { from, to } => tracing::trace!(%flow, leg, %from, %to, "state changed"),
        event => tracing::trace!(%flow, leg, ?event, "event"),
    }
}

/// A thread that panicked with the lock has at worst left one event half counted.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
