//! The ladders of some of the flows of a run.

use std::collections::VecDeque;

use super::{Ladder, mermaid, svg};
use crate::report::{Line, Role, Style, Text};
use crate::trace::{Event, FlowId, Record, Sink};

/// How many of the first flows of a run have a ladder.
pub const FLOWS: usize = 16;

/// The ladders of the first flows of a run, of the newest ones, or that of one flow.
#[derive(Debug, Default)]
pub struct Ladders {
    /// By flow number.
    flows: VecDeque<Ladder>,
    /// Flows without a ladder.
    untold: u64,
    which: Which,
}

/// The flows that have a ladder.
#[derive(Clone, Copy, Debug, Default)]
enum Which {
    #[default]
    First,
    Newest(usize),
    Only(FlowId),
}

impl Ladders {
    /// The ladder of this flow and no other, from the first event that is seen of it.
    #[must_use]
    pub fn only(flow: FlowId) -> Self {
        Self { which: Which::Only(flow), ..Self::default() }
    }

    /// The ladders of the newest flows, this many at a time.
    #[must_use]
    pub fn newest(flows: usize) -> Self {
        Self { which: Which::Newest(flows), ..Self::default() }
    }

    /// The ladder of this flow so far, if there is one.
    #[must_use]
    pub fn get(&self, flow: FlowId) -> Option<&Ladder> {
        self.place(flow).ok().map(|at| &self.flows[at])
    }

    /// Where the ladder of a flow is, or belongs.
    fn place(&self, flow: FlowId) -> Result<usize, usize> {
        self.flows.binary_search_by_key(&flow, Ladder::flow)
    }

    /// Makes room for the ladder of a new flow, if it is to have one.
    fn make_room(&mut self) -> bool {
        match self.which {
            Which::Newest(most) => {
                while self.flows.len() >= most.max(1) {
                    self.flows.pop_front();
                }
                most > 0
            }
            Which::First | Which::Only(_) => self.flows.len() < FLOWS,
        }
    }

    /// The ladders, by flow number.
    pub fn iter(&self) -> impl Iterator<Item = &Ladder> {
        self.flows.iter()
    }

    /// All ladders, one below the other.
    #[must_use]
    pub fn draw(&self, style: &Style) -> Text {
        let mut text = Text::default();
        for ladder in &self.flows {
            text.0.extend(ladder.draw(style).0);
            text.0.push(Line::default());
        }
        if let Some(remark) = self.remark() {
            text.0.push(Line::of(Role::Dim, remark));
        }
        text
    }

    /// All ladders as a Mermaid sequence diagram.
    #[must_use]
    pub fn mermaid(&self) -> String {
        mermaid::draw(self.flows.iter(), self.remark().as_deref())
    }

    /// All ladders as one SVG, without script and without references.
    #[must_use]
    pub fn svg(&self) -> String {
        svg::draw(self.flows.iter(), self.remark().as_deref())
    }

    fn remark(&self) -> Option<String> {
        let untold = self.untold;
        (untold > 0).then(|| format!("{untold} more flows have no ladder; only the first {FLOWS} are drawn"))
    }
}

impl Sink for Ladders {
    fn record(&mut self, record: Record) {
        let begins = match self.which {
            Which::Only(only) => only == record.flow,
            Which::First | Which::Newest(_) => matches!(record.event, Event::FlowOpened { .. }),
        };
        match self.place(record.flow) {
            Ok(at) => self.flows[at].record(&record),
            Err(_) if !begins => {}
            Err(_) if !self.make_room() => self.untold += 1,
            Err(_) => {
                let mut ladder = Ladder::new(record.flow);
                ladder.record(&record);
                // With several shards a flow may be heard of before one with a lower number.
                let at = self.place(record.flow).unwrap_or_else(|at| at);
                self.flows.insert(at, ladder);
            }
        }
    }
}
