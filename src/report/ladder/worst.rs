//! The ladders of the flows that went worst: those that failed, and the slowest. Which these are is known when they end, so
//! every open flow has a ladder until then, up to a limit.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Ladder;
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Event, FlowId, Leg, Outcome, Record, Sink};

/// Most ladders of failed flows that are kept for each outcome, and of slow ones.
const KEPT: usize = 4;
/// Most rows of each; what comes later is only counted.
const ROWS: usize = 200;

/// Follows all flows and keeps the ladders of the worst.
#[derive(Debug, Default)]
pub struct Worst {
    /// Most open flows that are followed.
    most: usize,
    open: BTreeMap<FlowId, Followed>,
    unfollowed: u64,
    failed: Vec<Failed>,
    slowest: Vec<Slow>,
    /// Flows that ended well.
    ok: u64,
}

/// An open flow.
#[derive(Debug)]
struct Followed {
    ladder: Ladder,
    opened: Instant,
    connected: Option<Instant>,
    /// The client's first payload, and the first to it.
    asked: Option<Instant>,
    answered: Option<Instant>,
}

/// The flows that ended in one way other than well.
#[derive(Debug)]
pub struct Failed {
    /// How they ended.
    pub outcome: Outcome,
    /// How many there are.
    pub count: u64,
    /// The ladders of the first ones.
    pub ladders: Vec<Ladder>,
}

/// A flow that ended well.
#[derive(Debug)]
pub struct Slow {
    /// How long its client has waited for the connection and for its first answer.
    pub waited: Duration,
    /// Its ladder.
    pub ladder: Ladder,
}

impl Worst {
    /// Follows at most so many open flows.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Flows that were not followed, because too many were open.
    #[must_use]
    pub const fn unfollowed(&self) -> u64 {
        self.unfollowed
    }

    /// The flows that did not end well, in the order of the first of each kind; those that were open at the end are among
    /// them.
    #[must_use]
    pub fn failed(&self) -> &[Failed] {
        &self.failed
    }

    /// The slowest flows that ended well, the slowest first, and how many there are of which these are the slowest.
    #[must_use]
    pub fn slowest(&self) -> (&[Slow], u64) {
        (&self.slowest, self.ok)
    }

    fn close(&mut self, followed: Followed, outcome: Outcome) {
        let (waited, ladder) = (followed.waited(), followed.ladder);
        if outcome == Outcome::Ok {
            self.ok += 1;
            let at = self.slowest.partition_point(|slow| slow.waited >= waited);
            self.slowest.insert(at, Slow { waited, ladder });
            self.slowest.truncate(KEPT);
            return;
        }
        let at = self.failed.iter().position(|failed| failed.outcome == outcome).unwrap_or_else(|| {
            self.failed.push(Failed { outcome, count: 0, ladders: Vec::new() });
            self.failed.len() - 1
        });
        let failed = &mut self.failed[at];
        failed.count += 1;
        if failed.ladders.len() < KEPT {
            failed.ladders.push(ladder);
        }
    }
}

impl Followed {
    fn record(&mut self, record: &Record) {
        let happened = match (&record.event, record.leg) {
            (Event::Established, Some(Leg::Client)) => Some(&mut self.connected),
            (Event::FirstPayload { direction: Direction::Upstream }, _) => Some(&mut self.asked),
            (Event::FirstPayload { direction: Direction::Downstream }, _) => Some(&mut self.answered),
            _ => None,
        };
        if let Some(happened) = happened {
            happened.get_or_insert(record.at);
        }
        self.ladder.record(record);
    }

    /// How long its client has waited for the connection and for its first answer.
    fn waited(&self) -> Duration {
        let Some(connected) = self.connected else { return Duration::ZERO };
        // Its first payload may come with the ACK that completes the handshake, or before.
        let asked = self.asked.map_or(connected, |asked| asked.max(connected));
        connected.since(self.opened) + self.answered.map_or(Duration::ZERO, |answered| answered.since(asked))
    }
}

impl Sink for Worst {
    fn record(&mut self, mut record: Record) {
        let flow = record.flow;
        if matches!(record.event, Event::FlowOpened { .. }) {
            if self.open.len() >= self.most {
                self.unfollowed += 1;
                return;
            }
            let ladder = Ladder::with_rows(flow, ROWS);
            let (connected, asked, answered) = (None, None, None);
            let followed = Followed { ladder, opened: record.at, connected, asked, answered };
            self.open.insert(flow, followed);
        }
        let Some(followed) = self.open.get_mut(&flow) else { return };
        // A capture beside it wants the payload; a ladder would only keep it alive.
        if let Some(segment) = record.event.segment_mut() {
            segment.data = Bytes::new();
        }
        followed.record(&record);
        if let Event::FlowClosed { outcome, .. } = record.event
            && let Some(followed) = self.open.remove(&flow)
        {
            self.close(followed, outcome);
        }
    }
}
