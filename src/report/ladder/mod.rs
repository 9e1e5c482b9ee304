//! The ladder: a flow as a sequence diagram of both legs, made from its events.
//!
//! ```text
//!       time client                       halfopen                      server
//!   0.000000 │── S 0:0(0) win 64240 ─────────▶│                              │
//!            │ SYN-SENT                       │                              │
//!   0.000102 │                                │── S 0:0(0) win 64240 ───────▶│
//! ```
//!
//! Numbers are relative to each sender's first, windows are in bytes. States stand below the arrow that brought them, at
//! their end of the leg: ours are told by the events, the peers' are inferred from their segments. A dropped segment ends in
//! a cross; what a fault did, and what is a repetition, stands beside the arrow. Long transfers are folded as they come, so
//! a ladder takes bounded memory however long its flow lives.

mod draw;
mod explain;
mod ladders;
mod mermaid;
mod rows;
mod svg;
mod track;
mod words;
mod worst;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

pub use ladders::{FLOWS, Ladders};
use rows::{Arrow, Fate, Item, Mark, ROWS, Rows, States, Way};
pub(in crate::report) use svg::{PALETTE, part, style};
use track::Track;
pub use worst::Worst;

use crate::report::text::{Role, Style, Text, bytes};
use crate::time::{Duration, Instant};
use crate::trace::{Did, Direction, Event, FlowId, Leg, Outcome, Record, Resend, SegmentNote, State};
use crate::wire::Flags;

/// How long after a change of state its segment may leave.
const SENDING: Duration = Duration::from_millis(1);
/// Most held segments that a ladder waits for, and most faults that it names beside an arrow.
const HELD: usize = 64;
/// Characters of a name that are drawn, and kept.
const NAME: usize = 200;

/// The ladder of one flow.
#[derive(Debug)]
pub struct Ladder {
    flow: FlowId,
    opened: Option<(SocketAddr, SocketAddr, Vec<Arc<str>>)>,
    start: Option<Instant>,
    legs: [Track; 2],
    /// The peers' states that were drawn last.
    peers: [State; 2],
    rows: Rows,
    /// States to draw before the next arrow.
    states: States,
    /// States that an arrow of ours is about to bring, and since when.
    sending: [Option<(State, Instant)>; 2],
    /// What the next segment of a leg is: marks of faults, and why it repeats something.
    marks: [Vec<Mark>; 2],
    resent: [Option<Resend>; 2],
    held: VecDeque<(Leg, Way, SegmentNote, Instant)>,
    /// Segments of the faults' own, and copies: how many are still to come.
    made: VecDeque<(Leg, Way, SegmentNote, Mark, u8)>,
    /// Our states now.
    ours: [State; 2],
    end: Option<End>,
}

/// How a flow ended, and when.
#[derive(Debug)]
struct End {
    at: Duration,
    text: String,
    /// It did not: the run ended before.
    open: bool,
}

impl Ladder {
    /// An empty ladder for this flow.
    #[must_use]
    pub fn new(flow: FlowId) -> Self {
        Self::with_rows(flow, ROWS)
    }

    /// With at most so many rows; what comes later is only counted.
    fn with_rows(flow: FlowId, most: usize) -> Self {
        Self {
            flow,
            opened: None,
            start: None,
            legs: [Track::new(true), Track::new(false)],
            peers: [State::Closed, State::Listen],
            rows: Rows::new(most),
            states: States::default(),
            sending: [None; 2],
            marks: [Vec::new(), Vec::new()],
            resent: [None; 2],
            held: VecDeque::new(),
            made: VecDeque::new(),
            ours: [State::Closed; 2],
            end: None,
        }
    }

    /// The ladder of the first flow among these events.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let flow = records.iter().map(|r| r.flow).find(|flow| *flow != FlowId(0)).unwrap_or_default();
        let mut ladder = Self::new(flow);
        for record in records {
            ladder.record(record);
        }
        ladder
    }

    /// The flow's number.
    #[must_use]
    pub const fn flow(&self) -> FlowId {
        self.flow
    }

    /// Takes an event; those of other flows are ignored.
    pub fn record(&mut self, record: &Record) {
        let Record { at, flow, leg, ref event } = *record;
        if flow != self.flow {
            return;
        }
        self.start.get_or_insert(at);
        self.settle(at);
        match (event, leg) {
            (Event::FlowOpened { client, server, rules }, _) => {
                self.opened = Some((*client, *server, rules.iter().take(HELD).map(printable).collect()));
            }
            (Event::SegmentIn { segment }, Some(leg)) => {
                self.segment(at, leg, Way::In, segment, Fate::Passed)
            }
            (Event::SegmentOut { segment }, Some(leg)) => {
                self.segment(at, leg, Way::Out, segment, Fate::Passed)
            }
            (Event::StateChanged { to, .. }, Some(leg)) => self.state(at, leg, *to),
            (Event::Resent { why, .. }, Some(leg)) => self.resent[leg as usize] = Some(*why),
            (Event::Fired { rule, did, direction, segment, .. }, _) => {
                let leg = leg.unwrap_or_else(|| direction.enters());
                let mark = Mark { rule: printable(rule), did: *did };
                self.fired(at, leg, way(leg, *direction), mark, segment.as_ref());
            }
            (Event::Killed { how }, _) => {
                self.note(at, None, Role::Fault, format!("killed {}", how.how()));
            }
            (Event::FlowClosed { outcome, upstream_bytes, downstream_bytes }, _) => {
                let (up, down) = (bytes(*upstream_bytes), bytes(*downstream_bytes));
                let end = match outcome {
                    Outcome::Open => "still open".to_owned(),
                    outcome => format!("closed: {}", outcome.name()),
                };
                let text = format!("{end}; {up} upstream, {down} downstream");
                self.end = Some(End { at: self.relative(at), text, open: *outcome == Outcome::Open });
            }
            (event, leg) => {
                if let Some(text) = describe(event) {
                    let (role, text) = match leg.and_then(|leg| self.maker_of_icmp(event, leg)) {
                        Some(rule) => (Role::Fault, format!("{rule}: {text}")),
                        None => (Role::Dim, text),
                    };
                    self.note(at, leg, role, text);
                }
            }
        }
    }

    /// Draws it.
    #[must_use]
    pub fn draw(&self, style: &Style) -> Text {
        draw::draw(self, style)
    }

    /// `flow 3: 10.0.0.1:4000 → 10.0.0.2:80, rules: fin-drop`, as far as its beginning was seen.
    #[must_use]
    pub fn title(&self) -> String {
        words::title(&Style::default(), self).unwrap_or_else(|| format!("flow {}", self.flow))
    }

    fn segment(&mut self, at: Instant, leg: Leg, way: Way, note: &SegmentNote, fate: Fate) {
        if way == Way::Out && note.flags.has(Flags::RST) {
            self.closed_by_reset(at);
        }
        self.flush_states();
        let delivered = fate == Fate::Passed;
        let track = &mut self.legs[leg as usize];
        let (seg, meaning, mut again) = track.observe(at, way == Way::In, note, delivered);
        let peer = track.peer_state();
        if let Some(mark) = self.maker(leg, way, note, again.is_some()) {
            self.mark(leg, mark);
            again = None;
        }
        let held = self.held.iter().position(|(l, w, n, _)| (*l, *w) == (leg, way) && n == note);
        let released = held.and_then(|i| self.held.remove(i)).map(|(_, _, _, since)| at.since(since));
        let arrow = Arrow {
            at: self.relative(at),
            leg,
            way,
            key: note.clone(),
            seg,
            fate,
            marks: std::mem::take(&mut self.marks[leg as usize]),
            again: again.filter(|_| released.is_none()),
            resent: self.resent[leg as usize].take().filter(|_| way == Way::Out),
            released,
            meaning,
            peer,
        };
        self.rows.push(Item::Arrow(Box::new(arrow)));
        if way == Way::Out
            && let Some((state, _)) = self.sending[leg as usize].take()
        {
            *self.states.ours(leg) = Some(state);
        }
        if std::mem::replace(&mut self.peers[leg as usize], peer) != peer {
            *self.states.peer(leg) = Some(peer);
        }
    }

    fn state(&mut self, at: Instant, leg: Leg, to: State) {
        self.ours[leg as usize] = to;
        if let Some((before, _)) = self.sending[leg as usize].take() {
            *self.states.ours(leg) = Some(before);
            self.flush_states();
        }
        // These states come with a segment of ours that is about to leave; they belong below its arrow.
        if matches!(to, State::SynSent | State::SynReceived | State::FinWait1 | State::LastAck) {
            self.sending[leg as usize] = Some((to, at));
        } else {
            *self.states.ours(leg) = Some(to);
        }
    }

    /// So does CLOSED when it comes with a RST; one to each peer, perhaps.
    fn closed_by_reset(&mut self, at: Instant) {
        for leg in [Leg::Client, Leg::Server] {
            if *self.states.ours(leg) == Some(State::Closed) {
                self.sending[leg as usize] = self.states.ours(leg).take().map(|state| (state, at));
            }
        }
    }

    fn fired(&mut self, at: Instant, leg: Leg, way: Way, mark: Mark, segment: Option<&SegmentNote>) {
        let fate = match mark.did {
            Did::Drop => Fate::Dropped,
            Did::Hold(_) | Did::Behind(_) => Fate::Held,
            Did::Knob | Did::Release => {
                return self.note(at, Some(leg), Role::Fault, format!("{} {}", mark.rule, mark.did));
            }
            Did::Duplicate(_) | Did::Rewrite | Did::Inject => Fate::Passed,
        };
        let Some(note) = segment else {
            if mark.did == Did::Inject && self.legs[leg as usize].has_begun() {
                // The segment that it makes comes next. (A kernel socket has none to show.)
                return self.mark(leg, mark);
            }
            let text = format!("{} {}", mark.rule, mark.did);
            return self.note(at, Some(leg), Role::Fault, text);
        };
        let copies = match mark.did {
            Did::Inject => 1,
            Did::Duplicate(copies) => copies,
            _ => 0,
        };
        if copies > 0 && self.made.len() < HELD {
            let mark = Mark { did: Did::Inject, ..mark.clone() };
            self.made.push_back((leg, way, note.clone(), mark, copies));
        }
        if mark.did == Did::Inject {
            return;
        }
        let at_relative = self.relative(at);
        if let Some(arrow) = self.rows.recent(at_relative, leg, way, note) {
            // The arrow was drawn before its fate was known.
            arrow.fate = fate;
            if arrow.marks.len() < HELD {
                arrow.marks.push(mark);
            }
        } else {
            self.mark(leg, mark);
            if fate != Fate::Passed {
                self.segment(at, leg, way, note, fate);
            }
        }
        if fate == Fate::Held && self.held.len() < HELD {
            self.held.push_back((leg, way, note.clone(), at));
        }
    }

    /// Marks the next segment.
    fn mark(&mut self, leg: Leg, mark: Mark) {
        let marks = &mut self.marks[leg as usize];
        if marks.len() < HELD {
            marks.push(mark);
        }
    }

    /// The rule that has made an ICMP error, if one has: its mark is not for the next segment.
    fn maker_of_icmp(&mut self, event: &Event, leg: Leg) -> Option<Arc<str>> {
        let marks = &mut self.marks[leg as usize];
        let is_made = matches!(event, Event::Icmp { sent: true, .. });
        marks.pop_if(|mark| is_made && mark.did == Did::Inject).map(|mark| mark.rule)
    }

    /// The fault that has made a segment, if one has. A copy with data comes after the original.
    fn maker(&mut self, leg: Leg, way: Way, note: &SegmentNote, again: bool) -> Option<Mark> {
        if note.len > 0 && !again {
            return None;
        }
        let i = self.made.iter().position(|(l, w, n, ..)| (*l, *w) == (leg, way) && n == note)?;
        let (.., mark, left) = &mut self.made[i];
        let mark = mark.clone();
        *left -= 1;
        if *left == 0 {
            self.made.remove(i);
        }
        Some(mark)
    }

    fn note(&mut self, at: Instant, leg: Option<Leg>, role: Role, text: String) {
        if let Some(leg) = leg
            && let Some((state, _)) = self.sending[leg as usize].take()
        {
            *self.states.ours(leg) = Some(state);
        }
        self.flush_states();
        self.rows.push(Item::Note { at: self.relative(at), leg, role, text });
    }

    /// States that waited for an arrow which did not come are drawn without it.
    fn settle(&mut self, now: Instant) {
        for leg in [Leg::Client, Leg::Server] {
            if let Some((state, since)) = self.sending[leg as usize]
                && now.since(since) > SENDING
            {
                self.sending[leg as usize] = None;
                *self.states.ours(leg) = Some(state);
            }
        }
    }

    fn flush_states(&mut self) {
        if self.states != States::default() {
            self.rows.push(Item::States(std::mem::take(&mut self.states)));
        }
    }

    /// States that no arrow has drawn.
    fn last_states(&self) -> States {
        let mut last = self.states;
        for leg in [Leg::Client, Leg::Server] {
            if let Some((state, _)) = self.sending[leg as usize] {
                *last.ours(leg) = Some(state);
            }
        }
        last
    }

    fn relative(&self, at: Instant) -> Duration {
        at.since(self.start.unwrap_or(at))
    }
}

/// What an event without a segment says, if it is worth a row.
fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::Icmp { kind, code, sent: true } => format!("ICMP {kind}/{code} sent to the client"),
        Event::Icmp { kind, code, sent: false } => format!("ICMP {kind}/{code} from the network"),
        Event::Dialled { error: None } => "the kernel's connect() is done".to_owned(),
        Event::Dialled { error: Some(error) } => {
            format!("the kernel's connect(): {}", printable(&Arc::from(*error)))
        }
        Event::ChallengeAck => "answered by a challenge ACK (RFC 5961)".to_owned(),
        Event::Discarded { reason } => format!("discarded: {}", printable(&Arc::from(*reason))),
        Event::LimitHit { limit } => format!("limit reached: {}", printable(&Arc::from(*limit))),
        Event::SourcePort { port } => format!("the server sees port {port}"),
        _ => return None,
    })
}

const fn way(leg: Leg, direction: Direction) -> Way {
    match (leg, direction) {
        (Leg::Client, Direction::Upstream) | (Leg::Server, Direction::Downstream) => Way::In,
        (Leg::Client, Direction::Downstream) | (Leg::Server, Direction::Upstream) => Way::Out,
    }
}

/// A name as it can stand in a line: whoever wrote the events may have had a line break or a terminal's orders in it.
pub(crate) fn printable(name: &Arc<str>) -> Arc<str> {
    let harmless =
        |c: char| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if name.len() <= NAME && name.chars().all(harmless) {
        return name.clone();
    }
    name.chars().take(NAME).map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect::<String>().into()
}
