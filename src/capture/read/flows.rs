//! From packets to events: which flow they belong to, what faults did to them, and what our TCP made of them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::blocks::Packet;
use super::own::{Changes, Own};
use crate::capture::comment::Told;
use crate::time::Instant;
use crate::trace::{Did, Event, FlowId, Leg, Record, SegmentNote, Sink, State};
use crate::wire::{Flags, SeqNum, Tuple};

/// Most flows that are known at a time; beyond it the oldest is forgotten.
const FLOWS: usize = 1 << 16;
/// Packets that wait for earlier ones: when a segment was stopped, its packet tells only as it leaves.
const WINDOW: usize = 1 << 10;

/// All flows of a file.
#[derive(Debug, Default)]
pub(super) struct Flows {
    numbers: HashMap<Addresses, u64>,
    known: BTreeMap<u64, Known>,
    /// Flows so far.
    count: u64,
    /// By time, and by their order in the file.
    waiting: BTreeMap<(u64, u64), Step>,
    steps: u64,
}

/// Client and server.
type Addresses = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Known {
    addresses: Addresses,
    /// The client's first number.
    isn: SeqNum,
    ours: [Own; 2],
    /// Nothing more is to come but late segments.
    over: bool,
}

/// Something that happened to a segment.
#[derive(Debug)]
struct Step {
    addresses: Addresses,
    leg: Leg,
    what: What,
    note: SegmentNote,
    told: Vec<Told>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    CameIn,
    /// What a fault had held on its way in goes on to our TCP.
    GoesOn,
    /// A fault stops what our TCP has sent.
    Stops,
    WentOut {
        /// It was stopped before.
        stopped: bool,
    },
}

impl Flows {
    /// Takes the next packet of the file, and gives out what can have nothing before it any more.
    pub(super) fn take(
        &mut self,
        packet: &Packet<'_>,
        tuple: Tuple,
        note: SegmentNote,
        told: Vec<Told>,
        sink: &mut impl Sink,
    ) {
        let (leg, nanos) = (packet.leg, packet.nanos);
        let upstream = (leg == Leg::Client) == packet.inbound;
        let addresses = if upstream { (tuple.src, tuple.dst) } else { (tuple.dst, tuple.src) };
        let hold = told.iter().find_map(|told| match told.did {
            Did::Hold(time) => Some(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            _ => None,
        });
        let step = |what, note, told| Step { addresses, leg, what, note, told };
        match (packet.inbound, hold) {
            (true, None) => self.wait(nanos, step(What::CameIn, note, told)),
            (true, Some(time)) => {
                self.wait(nanos, step(What::CameIn, note.clone(), told));
                self.wait(nanos.saturating_add(time), step(What::GoesOn, note, Vec::new()));
            }
            (false, None) => self.wait(nanos, step(What::WentOut { stopped: false }, note, told)),
            (false, Some(time)) => {
                let (holds, others) = told.into_iter().partition(|told| matches!(told.did, Did::Hold(_)));
                self.wait(nanos.saturating_sub(time), step(What::Stops, note.clone(), holds));
                self.wait(nanos, step(What::WentOut { stopped: true }, note, others));
            }
        }
        while self.waiting.len() > WINDOW {
            self.next(sink);
        }
    }

    /// Gives out everything.
    pub(super) fn finish(&mut self, sink: &mut impl Sink) {
        while self.next(sink) {}
    }

    fn wait(&mut self, nanos: u64, step: Step) {
        self.steps += 1;
        self.waiting.insert((nanos, self.steps), step);
    }

    /// False if there is none.
    fn next(&mut self, sink: &mut impl Sink) -> bool {
        let Some(((nanos, _), step)) = self.waiting.pop_first() else { return false };
        let at = Instant::from_nanos(nanos);
        let number = self.number(&step);
        if number > self.count {
            self.count = number;
            self.open(number, &step);
            let (client, server) = step.addresses;
            let event = Event::FlowOpened { client, server, rules: Vec::new() };
            sink.record(Record { at, flow: FlowId(number), leg: None, event });
        }
        if let Some(known) = self.known.get_mut(&number) {
            known.tell(at, FlowId(number), step, sink);
        }
        true
    }

    /// The number of the flow, or the next one for a new flow: its addresses are new, or a client uses a port again.
    fn number(&self, Step { addresses, leg, what, note, .. }: &Step) -> u64 {
        let known = self.numbers.get(addresses).and_then(|number| Some((*number, self.known.get(number)?)));
        let is_syn = note.flags.has(Flags::SYN) && !note.flags.has(Flags::ACK);
        let asks = is_syn && *leg == Leg::Client && matches!(what, What::CameIn);
        match known {
            Some((number, known)) if !(asks && known.isn != note.seq && known.is_over()) => number,
            _ => self.count + 1,
        }
    }

    fn open(&mut self, number: u64, step: &Step) {
        if self.known.len() >= FLOWS
            && let Some((oldest, known)) = self.known.pop_first()
            && self.numbers.get(&known.addresses) == Some(&oldest)
        {
            self.numbers.remove(&known.addresses);
        }
        let known =
            Known { addresses: step.addresses, isn: step.note.seq, ours: Default::default(), over: false };
        self.known.insert(number, known);
        self.numbers.insert(step.addresses, number);
    }
}

impl Known {
    fn is_over(&self) -> bool {
        self.over || matches!(self.ours[Leg::Client as usize].state, State::Closed | State::TimeWait)
    }

    fn tell(&mut self, at: Instant, flow: FlowId, step: Step, sink: &mut impl Sink) {
        let Step { leg, what, note, told, .. } = step;
        let ours = &mut self.ours[leg as usize];
        let mut say = |event| sink.record(Record { at, flow, leg: Some(leg), event });
        let changed =
            |changes: Changes| changes.into_iter().map(|(from, to)| Event::StateChanged { from, to });
        let met = |did: fn(&Did) -> bool| told.iter().any(|told| did(&told.did));
        let direction = if matches!(what, What::CameIn) { leg.other().outward() } else { leg.outward() };
        let fired = |told: &Told, segment| {
            let Told { rule, fault, did } = told.clone();
            Event::Fired { rule, fault, did, direction, segment }
        };
        self.over |= leg == Leg::Client && note.flags.has(Flags::RST);
        match what {
            What::CameIn => {
                say(Event::SegmentIn { segment: note.clone() });
                told.iter().for_each(|told| say(fired(told, Some(note.clone()))));
                if !met(|did| matches!(did, Did::Drop | Did::Hold(_))) {
                    changed(ours.receive(&note)).for_each(say);
                }
            }
            What::GoesOn => changed(ours.receive(&note)).for_each(say),
            What::Stops => {
                changed(ours.send(&note)).for_each(&mut say);
                told.iter().for_each(|told| say(fired(told, Some(note.clone()))));
            }
            What::WentOut { stopped } => {
                // What a fault has made our TCP knows nothing of.
                if !stopped && (!met(|did| *did == Did::Inject) || ours.has_made(&note)) {
                    changed(ours.send(&note)).for_each(&mut say);
                }
                told.iter().for_each(|told| say(fired(told, about(told.did, &note))));
                if !met(|did| *did == Did::Drop) {
                    say(Event::SegmentOut { segment: note });
                }
            }
        }
    }
}

/// The segment that the event about one that left has told.
fn about(did: Did, note: &SegmentNote) -> Option<SegmentNote> {
    match did {
        // Nobody knows when it was put there; it is told, and then the segment.
        Did::Behind(_) => None,
        // The next one, whatever it is: data of a fault's own are not known by their numbers.
        Did::Inject if note.len > 0 && note.flags.any(Flags::FIN | Flags::RST) => None,
        _ => Some(note.clone()),
    }
}

#[cfg(test)]
impl Flows {
    /// Numbers, flows and steps that are kept.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.numbers.len(), self.known.len(), self.waiting.len()]
    }
}
