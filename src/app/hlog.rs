//! Writes the latencies of a run to an interval log (`--hlog`), beside the data path.
//!
//! The data path adds values to the histograms of the current interval. At its end a thread takes them, in exchange for empty
//! ones, and writes them. No queue can be full and nothing waits for a disk: while a write takes its time the current interval
//! goes on, and the log tells how long each was. What was taken comes back at the end, so that the summary has everything,
//! also if the disk had not.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::observer::lock;
use crate::engine::Clock;
use crate::measure::{Latencies, Measure, hlog};
use crate::time::{Duration, Instant};

/// Writes what a [`Measure`] measures.
#[derive(Debug)]
pub(super) struct Keeper {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<Kept>,
}

/// What was written, and all that was measured meanwhile.
#[derive(Debug)]
pub(super) struct Kept {
    file: File,
    error: Option<io::Error>,
    from: Instant,
    /// What was taken, all together; others may look.
    total: Arc<Mutex<Latencies>>,
}

impl Keeper {
    /// Begins the log. `file` is empty.
    pub(super) fn start(
        file: File,
        clock: Clock,
        interval: Duration,
        measure: Arc<Mutex<Measure>>,
        total: Arc<Mutex<Latencies>>,
    ) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let mut kept = Kept { file, error: None, from: clock.now(), total };
        let keep = move || {
            kept.write(&hlog::head(env!("CARGO_PKG_VERSION"), clock.epoch()));
            let mut empty = Latencies::default();
            loop {
                let (flag, told) = &*stopped;
                let wait = told.wait_timeout_while(lock(flag), interval, |stop| !*stop);
                let (stop, _) = wait.unwrap_or_else(PoisonError::into_inner);
                if *stop {
                    return kept;
                }
                drop(stop);
                // Whoever looks at both meets each value in one of them.
                let mut total = lock(&kept.total);
                let taken = lock(&measure).take_latencies(std::mem::take(&mut empty));
                total.add(&taken);
                drop(total);
                kept.interval(&taken, clock.now());
                empty = taken;
                empty.clear();
            }
        };
        let thread = std::thread::Builder::new().name("latencies".to_owned()).spawn(keep)?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread; the current interval is not written yet.
    pub(super) fn stop(self) -> Kept {
        let (flag, told) = &*self.stop;
        *lock(flag) = true;
        told.notify_one();
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Kept {
    /// Writes the last interval and gives all that was taken back to `measure`. Tells why the log is not complete, if it is not.
    pub(super) fn finish(mut self, measure: &mut Measure, now: Instant) -> Option<io::Error> {
        self.interval(measure.latencies(), now);
        measure.give_back(&lock(&self.total));
        self.error
    }

    fn interval(&mut self, latencies: &Latencies, to: Instant) {
        let from = std::mem::replace(&mut self.from, to);
        match hlog::interval(latencies, from, to) {
            Ok(lines) => self.write(&lines),
            Err(problem) => self.fail(io::Error::other(problem)),
        }
    }

    fn write(&mut self, text: &str) {
        if self.error.is_none()
            && let Err(error) = self.file.write_all(text.as_bytes())
        {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: io::Error) {
        tracing::warn!(%error, "writing latencies stopped");
        self.error.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::observer::{Observer, Watch};
    use super::*;
    use crate::measure::Kind;
    use crate::measure::hlog::Reader;
    use crate::trace::{Event, FlowId, Leg, Outcome, Record, Sink as _};

    /// A flow whose connect takes so many milliseconds.
    fn connect(tap: &mut crate::app::observer::Tap, flow: u64, millis: u64) {
        let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let mut tell = |at, leg, event| {
            tap.record(Record { at: Instant::from_millis(at), flow: FlowId(flow), leg, event });
        };
        tell(0, None, Event::FlowOpened { client, server, rules: Vec::new() });
        tell(millis, Some(Leg::Client), Event::Established);
        let outcome = Outcome::Ok;
        tell(millis, None, Event::FlowClosed { outcome, upstream_bytes: 0, downstream_bytes: 0 });
    }

    fn read(log: &str) -> Latencies {
        let mut reader = Reader::default();
        log.lines().for_each(|line| reader.line(line).unwrap());
        reader.finish()
    }

    #[test]
    fn all_intervals_together_are_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hlog");
        let interval = Duration::from_millis(1);
        let watch = Watch { hlog: Some(File::create(&path).unwrap()), interval, ..Watch::default() };
        let observer = Observer::start(Measure::default(), watch).unwrap();
        let mut tap = observer.tap();
        let mut flow = 0;
        // Until there are three intervals with values, whatever the thread does meanwhile.
        while std::fs::read_to_string(&path).unwrap().matches("Tag=connect,").count() < 3 {
            flow += 1;
            connect(&mut tap, flow, flow % 1000);
        }
        let report = observer.finish(Instant::from_millis(9000));
        assert!(report.hlog_error.is_none());
        let log = read(&std::fs::read_to_string(path).unwrap());
        let measured = report.measure.latencies().get(Kind::Connect);
        assert_eq!((measured.count(), log.get(Kind::Connect).count()), (flow, flow));
        assert_eq!(measured.histogram(), log.get(Kind::Connect).histogram());
        assert_eq!(report.measure.latencies().groups().count(), log.groups().count());
    }

    #[test]
    fn a_disk_that_is_full_ends_the_log_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let watch = Watch { hlog: Some(full), interval: Duration::from_millis(1), ..Watch::default() };
        let observer = Observer::start(Measure::default(), watch).unwrap();
        let mut tap = observer.tap();
        (1..=100).for_each(|flow| connect(&mut tap, flow, flow));
        let report = observer.finish(Instant::from_millis(9));
        assert_eq!(report.hlog_error.unwrap().raw_os_error(), Some(28));
        assert_eq!(report.measure.latencies().get(Kind::Connect).count(), 100);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_the_log_and_not_the_data_path() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        // As much as a pipe holds: the next byte waits for a reader.
        writer.write_all(&[b'\n'; 65_536]).unwrap();
        let hlog = Some(File::from(std::os::fd::OwnedFd::from(writer)));
        let watch = Watch { hlog, interval: Duration::from_millis(1), ..Watch::default() };
        let observer = Observer::start(Measure::default(), watch).unwrap();
        let mut tap = observer.tap();
        // It returns, although nobody reads.
        (1..=1000).for_each(|flow| connect(&mut tap, flow, flow));
        assert_eq!(observer.counters().flows, 1000);
        let drain = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        let report = observer.finish(Instant::from_millis(9000));
        assert_eq!(report.measure.latencies().get(Kind::Connect).count(), 1000);
        let log = drain.join().unwrap().unwrap();
        assert_eq!(read(log.trim_start()).get(Kind::Connect).count(), 1000, "nothing is lost on the way");
    }
}
