//! The event file of a run: what `--events FILE` wrote, one JSON object per line.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use super::process::Halfopen;

/// A place for the event file.
pub(crate) struct Events {
    _dir: TempDir,
    path: PathBuf,
}

impl Events {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("events.jsonl");
        Self { _dir: dir, path }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("temporary directories have plain names")
    }

    /// Ends halfopen in the usual way and reads what it wrote.
    pub(crate) fn after(&self, mut halfopen: Halfopen) -> Log {
        let status = halfopen.end_by(Signal::SIGTERM);
        assert!(status.success(), "halfopen ended with {status}; it said:\n{}", halfopen.said());
        self.read()
    }

    /// What is written.
    pub(crate) fn read(&self) -> Log {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Log(complete
            .lines()
            .map(|line| Entry(serde_json::from_str(line).expect("JSON in every line")))
            .collect())
    }

    /// Waits until what is written fulfils `done`.
    pub(crate) fn wait(&self, what: &str, done: impl Fn(&Log) -> bool) -> Log {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.read();
            if done(&log) {
                return log;
            }
            assert!(Instant::now() < deadline, "no {what} in the event file:\n{log}");
            nix::poll::poll(&mut [], 20u8).expect("a pause");
        }
    }
}

/// One event.
pub(crate) struct Entry(Value);

impl Entry {
    /// A field as text; empty if it is not there.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// What a fault did: `drop`, `hold`, `knob` and so on.
    pub(crate) fn did(&self) -> String {
        match &self.0["did"] {
            Value::Object(with_value) => with_value.keys().next().cloned().unwrap_or_default(),
            word => word.as_str().unwrap_or_default().to_owned(),
        }
    }

    /// What a fault did, with its values.
    pub(crate) fn did_exactly(&self) -> String {
        match &self.0["did"] {
            Value::Null => String::new(),
            did => did.to_string(),
        }
    }

    /// The number of its flow.
    pub(crate) fn flow(&self) -> u64 {
        self.0["flow"].as_u64().expect("every event has its flow")
    }

    /// The control bits of its segment, `S.`; empty without a segment.
    pub(crate) fn flags(&self) -> &str {
        self.text("segment").split(' ').next().unwrap_or_default()
    }

    /// Payload bytes of its segment.
    pub(crate) fn len(&self) -> u32 {
        let inside = |s: &str| Some(s.split_once('(')?.1.split_once(')')?.0.to_owned());
        inside(self.text("segment")).and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// When.
    pub(crate) fn at(&self) -> Duration {
        Duration::from_secs_f64(self.0["at"].as_f64().expect("every event has its time"))
    }

    pub(crate) fn is(&self, event: &str, leg: &str) -> bool {
        self.text("event") == event && self.text("leg") == leg
    }
}

/// All events of a run.
pub(crate) struct Log(pub(crate) Vec<Entry>);

impl Log {
    /// The events of one sort on one leg whose segment has exactly these control bits.
    pub(crate) fn segments(&self, event: &str, leg: &str, flags: &str) -> Vec<&Entry> {
        self.0.iter().filter(|e| e.is(event, leg) && e.flags() == flags).collect()
    }

    /// What faults did: rule, leg, direction, deed, control bits.
    pub(crate) fn fired(&self) -> Vec<String> {
        let words = |e: &Entry| {
            let did = e.did();
            let words = [e.text("rule"), e.text("leg"), e.text("direction"), &did, e.flags()];
            words.join(" ").trim_end().to_owned()
        };
        self.0.iter().filter(|e| e.text("event") == "fired").map(words).collect()
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|entry| writeln!(f, "{}", entry.0))
    }
}

/// Times in seconds since the first of them.
pub(crate) fn since_first(entries: &[&Entry]) -> Vec<f64> {
    let first = entries.first().map_or(Duration::ZERO, |e| e.at());
    entries.iter().map(|e| e.at().saturating_sub(first).as_secs_f64()).collect()
}
