//! The rows of a ladder, kept in bounded memory: plain data and ACKs of a long transfer are folded as they come.

use std::sync::Arc;

use super::track::{Again, Meaning, Seg};
use crate::report::text::Role;
use crate::time::Duration;
use crate::trace::{Did, Leg, Resend, SegmentNote, State};

/// Rows of a transfer that are drawn before a fold, and after it.
const HEAD: usize = 6;
const TAIL: usize = 3;
/// A fold stands for at least this many rows.
const WORTH_FOLDING: usize = 4;
/// Most rows of a ladder.
pub(super) const ROWS: usize = 1000;

/// Whether a segment comes from the peer of its leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Passed,
    Dropped,
    Held,
}

/// What a fault did to a segment.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) rule: Arc<str>,
    pub(super) did: Did,
}

/// A segment.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) at: Duration,
    pub(super) leg: Leg,
    pub(super) way: Way,
    pub(super) key: SegmentNote,
    pub(super) seg: Seg,
    pub(super) fate: Fate,
    pub(super) marks: Vec<Mark>,
    pub(super) again: Option<Again>,
    pub(super) resent: Option<Resend>,
    /// How long it was held, if it was.
    pub(super) released: Option<Duration>,
    pub(super) meaning: Meaning,
    /// The peer's state after it.
    pub(super) peer: State,
}

impl Arrow {
    /// True if a fault has made it.
    pub(super) fn is_injected(&self) -> bool {
        self.marks.iter().any(|mark| mark.did == Did::Inject)
    }

    /// True if it goes from left to right.
    pub(super) fn is_rightwards(&self) -> bool {
        (self.leg == Leg::Client) == (self.way == Way::In)
    }

    /// True if many of these in a row can be folded into one line.
    fn is_bulk(&self) -> bool {
        matches!(self.meaning, Meaning::Data | Meaning::Ack | Meaning::FirstAck)
            && self.fate == Fate::Passed
            && self.marks.is_empty()
            && self.again.is_none()
            && self.released.is_none()
            && self.seg.window > 0
            && self.seg.urgent == 0
    }
}

/// States to draw at the four ends; `None` where nothing changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct States {
    pub(super) peers: [Option<State>; 2],
    pub(super) ours: [Option<State>; 2],
}

impl States {
    pub(super) const fn peer(&mut self, leg: Leg) -> &mut Option<State> {
        &mut self.peers[leg as usize]
    }

    pub(super) const fn ours(&mut self, leg: Leg) -> &mut Option<State> {
        &mut self.ours[leg as usize]
    }
}

/// Rows that are not drawn one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fold {
    /// Segments of both legs, as on the wire.
    pub(super) segments: u64,
    /// Payload bytes that arrived from the client.
    pub(super) upstream: u64,
    /// Payload bytes that left for the client.
    pub(super) downstream: u64,
}

impl Fold {
    fn add(&mut self, item: &Item) {
        let Item::Arrow(arrow) = item else { return };
        self.segments += u64::from(arrow.seg.segs.max(1));
        match (arrow.leg, arrow.way) {
            (Leg::Client, Way::In) => self.upstream += u64::from(arrow.seg.len),
            (Leg::Client, Way::Out) => self.downstream += u64::from(arrow.seg.len),
            (Leg::Server, _) => {}
        }
    }
}

/// A row.
#[derive(Debug)]
pub(super) enum Item {
    Arrow(Box<Arrow>),
    States(States),
    Note { at: Duration, leg: Option<Leg>, role: Role, text: String },
    Fold(Fold),
}

/// All rows of a ladder.
#[derive(Debug)]
pub(super) struct Rows {
    items: Vec<Item>,
    most: usize,
    /// Where the current run of foldable rows begins.
    run: usize,
    omitted: u64,
}

impl Rows {
    /// At most so many; later ones are only counted.
    pub(super) const fn new(most: usize) -> Self {
        Self { items: Vec::new(), most, run: 0, omitted: 0 }
    }

    pub(super) fn push(&mut self, item: Item) {
        if self.items.len() >= self.most {
            self.omitted += 1;
            return;
        }
        let bulk = matches!(&item, Item::Arrow(arrow) if arrow.is_bulk());
        self.items.push(item);
        if bulk {
            self.fold();
        } else {
            self.run = self.items.len();
        }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Rows beyond the limit.
    pub(super) const fn omitted(&self) -> u64 {
        self.omitted
    }

    /// The arrow of this segment, if it was drawn at this very moment.
    pub(super) fn recent(
        &mut self,
        at: Duration,
        leg: Leg,
        way: Way,
        note: &SegmentNote,
    ) -> Option<&mut Arrow> {
        self.items.iter_mut().rev().take(TAIL).find_map(|item| match item {
            Item::Arrow(a) if (a.at, a.leg, a.way) == (at, leg, way) && a.key == *note => Some(&mut **a),
            _ => None,
        })
    }

    fn fold(&mut self) {
        let at = self.run + HEAD;
        let last = self.items.len() - TAIL.min(self.items.len());
        if let Some(Item::Fold(_)) = self.items.get(at) {
            if last > at + 1 {
                let item = self.items.remove(at + 1);
                if let Item::Fold(fold) = &mut self.items[at] {
                    fold.add(&item);
                }
            }
        } else if last >= at + WORTH_FOLDING {
            let mut fold = Fold::default();
            self.items.drain(at..last).for_each(|item| fold.add(&item));
            self.items.insert(at, Item::Fold(fold));
        }
    }
}
