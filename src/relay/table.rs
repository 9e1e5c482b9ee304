//! All flows of one shard: where an arriving packet belongs, and how much of everything there may be.
//!
//! One cycle: arrivals ([`Table::route`], [`Table::on_segment`], …) touch flows; then each touched flow is served once:
//! [`Table::poll_output`] until `None`, and [`Table::settle`].

mod control;
mod ports;

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use slab::Slab;

use super::flow::{Caps, Flow, Output};
use super::neighbours::Neighbours;
use super::settings::{Settings, Uplink};
use super::socket_command::SocketEvent;
pub use control::Looked;

use crate::cx::Cx;
use crate::fault::{Plan, Rules};
use crate::tcp::{SynOptions, TxCaps};
use crate::time::Instant;
use crate::trace::{Event, FlowId, Leg, Outcome};
use crate::wire::{Flags, IcmpNote, Segment, Tuple};

/// Names one flow of one table. A key whose flow is gone reaches nothing, even if its slot is taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Slot of the table; small numbers, used again.
    pub slot: u32,
    /// The flow's number, as far as it fits.
    pub generation: u32,
}

/// Gives flows their numbers, from 1; one for all shards. With one shard the numbers follow the order of the SYNs.
#[derive(Clone, Debug, Default)]
pub struct FlowIds(Arc<AtomicU64>);

impl FlowIds {
    fn next(&self) -> FlowId {
        FlowId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Where a segment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this leg.
    To(FlowKey, Leg),
    /// To nobody: it is dropped, and the reason is told.
    Dropped,
    /// To a connection that we do not know: it goes on unchanged.
    Foreign,
}

/// What a flow gets to see of a window once half of the memory is used.
const SCARCE_BUFFER: u32 = 16 << 10;

/// All flows of one shard.
#[derive(Debug)]
pub struct Table {
    settings: Arc<Settings>,
    rules: Arc<Rules>,
    entries: Slab<Entry>,
    index: HashTable<LegSlot>,
    hasher: FixedState,
    ids: FlowIds,
    /// False: SYNs of new flows are treated like any segment of nobody.
    opening: bool,
    touched: VecDeque<FlowKey>,
    half_open: usize,
    /// Lingering flows from the oldest; keys whose flow is gone are left in for a while.
    lingering_order: VecDeque<FlowKey>,
    lingering: usize,
    /// Payload bytes held in all flows.
    queued: u64,
    /// Legs whose flow was dropped while their kernel socket was open.
    orphans: Vec<(FlowKey, Leg)>,
    neighbours: Neighbours,
    /// Where answers come from to connections that faults have begun and nobody completes. At most `limits.half_open`.
    strays: HashMap<Tuple, FlowId, FixedState>,
    /// The source port of the next server leg, where it is not the client's.
    next_port: u16,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    touched: bool,
    /// What the table has counted for this flow.
    half_open: bool,
    lingering: bool,
    queued: u32,
    /// Its strays are noted.
    strays: bool,
}

/// A slot and a leg, in four bytes; the addresses are in the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LegSlot(u32);

impl LegSlot {
    const fn new(slot: u32, leg: Leg) -> Self {
        Self(slot << 1 | leg as u32)
    }

    const fn slot(self) -> u32 {
        self.0 >> 1
    }

    const fn leg(self) -> Leg {
        if self.0 & 1 == Leg::Client as u32 { Leg::Client } else { Leg::Server }
    }
}

impl Table {
    /// An empty table. `hash_seed` should differ from run to run, so that nobody can choose addresses that collide.
    #[must_use]
    pub fn new(settings: Arc<Settings>, rules: Arc<Rules>, ids: FlowIds, hash_seed: u64) -> Self {
        let neighbours = Neighbours::new(rules.asked(), settings.limits.neighbours);
        Self {
            settings,
            rules,
            entries: Slab::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(hash_seed),
            ids,
            opening: true,
            touched: VecDeque::new(),
            half_open: 0,
            lingering_order: VecDeque::new(),
            lingering: 0,
            queued: 0,
            orphans: Vec::new(),
            neighbours,
            strays: HashMap::with_hasher(FixedState::with_seed(hash_seed)),
            next_port: 0,
        }
    }

    /// Rules for flows from now on. Their turns are counted from 1; what they ask of neighbours that the rules before them
    /// did not ask is unknown of flows that have come and gone.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        let open = self.entries.iter().filter(|(_, entry)| !entry.lingering);
        self.neighbours.ask(rules.asked(), open.map(|(_, entry)| entry.flow.arriving(Leg::Client)));
        self.rules = rules;
    }

    /// Takes no new flows from now on: their SYNs are foreign.
    pub fn stop_opening(&mut self) {
        self.opening = false;
    }

    /// Flows that are not closed.
    #[must_use]
    pub fn open_flows(&self) -> usize {
        self.entries.len() - self.lingering
    }

    /// True if nothing is remembered of any flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Payload bytes held in all flows.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        self.queued
    }

    /// Finds the leg of a segment, of which the payload may still be missing; `payload` says how long it is. A SYN opens a
    /// flow, and supersedes one that is at its end.
    pub fn route(&mut self, cx: &mut Cx<'_>, tuple: Tuple, segment: &Segment, payload: usize) -> Route {
        if let Some(reason) = tuple.martian() {
            cx.emit(Event::Discarded { reason });
            return Route::Dropped;
        }
        match self.find(tuple) {
            Some((key, Leg::Client)) if self.flow(key).is_superseded_by(segment) => {
                self.flow_mut(key).tell_closed(cx, Outcome::Aborted);
                self.remove(cx, key);
                self.admit(cx, tuple, segment)
            }
            Some((key, leg)) => {
                let flow = self.flow(key);
                let full = payload > 0 && self.queued >= self.settings.limits.bytes;
                if full && !flow.fills_gap(leg, segment) {
                    cx.for_flow(flow.id()).emit(Event::LimitHit { limit: "limits.bytes" });
                    return Route::Dropped;
                }
                Route::To(key, leg)
            }
            None if segment.has(Flags::SYN) && !segment.flags.any(Flags::ACK | Flags::RST | Flags::FIN) => {
                self.admit(cx, tuple, segment)
            }
            None => match self.strays.get(&tuple) {
                None => Route::Foreign,
                Some(flow) => {
                    // The client's host, which has no such connection, would answer by a RST.
                    let reason = "answers a connection that a fault has begun";
                    cx.for_flow(*flow).emit(Event::Discarded { reason });
                    Route::Dropped
                }
            },
        }
    }

    /// A segment for a leg that [`Self::route`] found.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, key: FlowKey, leg: Leg, segment: Segment) {
        if let Some(flow) = self.touch(key) {
            flow.on_segment(cx, leg, segment);
        }
    }

    /// An ICMP error. False if it is about nobody's segment; then it goes on unchanged.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, note: &IcmpNote) -> bool {
        let Some((key, leg)) = self.find(note.quoted.reverse()) else { return false };
        if let Some(flow) = self.touch(key) {
            flow.on_icmp(cx, leg, note);
        }
        true
    }

    /// Something happened to the kernel socket of a leg.
    pub fn on_socket(&mut self, cx: &mut Cx<'_>, key: FlowKey, leg: Leg, event: SocketEvent) {
        if let Some(flow) = self.touch(key) {
            flow.on_socket(cx, leg, event);
        }
    }

    /// A deadline that [`Self::settle`] returned has come.
    pub fn on_timeout(&mut self, cx: &mut Cx<'_>, key: FlowKey) {
        if let Some(flow) = self.touch(key) {
            flow.on_timeout(cx);
        }
    }

    /// The next flow that has to be served.
    pub fn next_touched(&mut self) -> Option<FlowKey> {
        self.touched.pop_front()
    }

    /// The next leg whose kernel socket is to be aborted, because its flow is no more.
    pub fn next_orphan(&mut self) -> Option<(FlowKey, Leg)> {
        self.orphans.pop()
    }

    /// The next thing that a flow wants sent.
    pub fn poll_output(&mut self, cx: &mut Cx<'_>, key: FlowKey, tx: TxCaps) -> Option<Output> {
        let scarce = self.queued > self.settings.limits.bytes / 2;
        let buffer = self.settings.tcp.buffer;
        let caps = Caps { tx, buffer: if scarce { buffer.min(SCARCE_BUFFER) } else { buffer } };
        self.entry(key)?.flow.poll_output(cx, caps)
    }

    /// Ends the service of a touched flow: counts it anew, and drops it if it is done. Returns its deadline.
    pub fn settle(&mut self, cx: &mut Cx<'_>, key: FlowKey) -> Option<Instant> {
        let entry = self.entry(key)?;
        entry.touched = false;
        if entry.flow.is_done() {
            self.remove(cx, key);
            return None;
        }
        let strays = entry.flow.strays().next().is_some();
        if strays != entry.strays {
            self.note_strays(cx, key);
        }
        let entry = self.entry(key)?;
        let deadline = entry.flow.poll_timeout();
        if deadline.is_none() {
            entry.flow.relax();
        }
        let flow = &entry.flow;
        let tuple = flow.arriving(Leg::Client);
        let (queued, half_open, lingering) = (flow.held(), flow.is_half_open(), flow.is_lingering());
        let queued_before = std::mem::replace(&mut entry.queued, queued);
        let half_open_before = std::mem::replace(&mut entry.half_open, half_open);
        let lingering_before = std::mem::replace(&mut entry.lingering, lingering);
        self.queued = self.queued + u64::from(queued) - u64::from(queued_before);
        self.half_open = self.half_open + usize::from(half_open) - usize::from(half_open_before);
        if lingering && !lingering_before {
            self.neighbours.on_end(cx, tuple);
            self.linger(cx, key);
        }
        deadline
    }

    /// Drops all flows without a word on the wire, and tells of each that it was still open.
    pub fn close_all(&mut self, cx: &mut Cx<'_>) {
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.drain() {
            let mut flow = entry.flow;
            flow.tell_closed(cx, Outcome::Open);
        }
        self.index.clear();
        self.touched.clear();
        self.lingering_order.clear();
        self.neighbours.clear();
        self.strays.clear();
        (self.half_open, self.lingering, self.queued) = (0, 0, 0);
    }

    /// Notes the connections that a fault has begun beside a flow, or forgets them. What is beyond the limit is not noted: its
    /// answers reach the client's host, which ends it.
    fn note_strays(&mut self, cx: &mut Cx<'_>, key: FlowKey) {
        let Some(entry) = self.entries.get_mut(key.slot as usize) else { return };
        let id = entry.flow.id();
        entry.strays = entry.flow.strays().next().is_some();
        if !entry.strays {
            self.strays.retain(|_, flow| *flow != id);
            return;
        }
        for stray in entry.flow.strays() {
            if self.half_open + self.strays.len() >= self.settings.limits.half_open {
                cx.for_flow(id).emit(Event::LimitHit { limit: "limits.half_open" });
                break;
            }
            self.strays.insert(stray, id);
        }
    }

    fn entry(&mut self, key: FlowKey) -> Option<&mut Entry> {
        self.entries.get_mut(key.slot as usize).filter(|entry| entry.flow.id().0 as u32 == key.generation)
    }

    fn flow(&self, key: FlowKey) -> &Flow {
        &self.entries[key.slot as usize].flow
    }

    fn flow_mut(&mut self, key: FlowKey) -> &mut Flow {
        &mut self.entries[key.slot as usize].flow
    }

    /// The flow, which will be served.
    fn touch(&mut self, key: FlowKey) -> Option<&mut Flow> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.flow.id().0 as u32 != key.generation {
            return None;
        }
        if !std::mem::replace(&mut entry.touched, true) {
            self.touched.push_back(key);
        }
        Some(&mut entry.flow)
    }

    fn find(&self, tuple: Tuple) -> Option<(FlowKey, Leg)> {
        let found = self.index.find(self.hasher.hash_one(tuple), |at| {
            self.entries[at.slot() as usize].flow.arriving(at.leg()) == tuple
        })?;
        let slot = found.slot();
        let generation = self.entries[slot as usize].flow.id().0 as u32;
        Some((FlowKey { slot, generation }, found.leg()))
    }

    /// Opens a flow for a first SYN, if there is room.
    fn admit(&mut self, cx: &mut Cx<'_>, tuple: Tuple, syn: &Segment) -> Route {
        if !self.opening {
            return Route::Foreign;
        }
        if !self.has_room(cx) {
            return Route::Dropped;
        }
        let Some(source_port) = self.source_port(cx, tuple) else { return Route::Dropped };
        let (id, plan) = self.plan(cx, tuple, syn);
        let flow = Flow::new(cx, &self.settings, id, tuple, source_port, syn, plan);
        Route::To(self.insert(flow), Leg::Client)
    }

    /// Opens a flow for a client that a kernel socket has accepted. Its server leg is our own TCP if `offer` says what its SYN
    /// offers, which comes from the client's address; else it is a kernel socket, too. `None`: there is no room, the addresses
    /// are in use, or no new flows are taken; then the client gets a RST.
    pub fn accept(&mut self, cx: &mut Cx<'_>, tuple: Tuple, offer: Option<SynOptions>) -> Option<FlowKey> {
        if self.settings.uplink == Uplink::HeldSyn {
            return self.accept_held(cx, tuple);
        }
        if !self.opening || !self.has_room(cx) {
            return None;
        }
        if offer.is_some()
            && let Some((key, _)) = self.find(tuple.reverse())
        {
            if !self.entries[key.slot as usize].lingering {
                cx.emit(Event::Discarded { reason: "the addresses are those of another flow" });
                return None;
            }
            // It only waits out its TIME-WAIT, and gives way as it does in Linux (RFC 6191).
            self.remove(cx, key);
        }
        let (id, plan) = self.plan(cx, tuple, &Segment::default());
        let flow = Flow::accepted(cx, &self.settings, id, tuple, offer, plan);
        let key = self.insert(flow);
        self.touch(key);
        Some(key)
    }

    /// The client whose SYN the kernel was told to answer. Another one has found our listener by itself.
    fn accept_held(&mut self, cx: &mut Cx<'_>, tuple: Tuple) -> Option<FlowKey> {
        let (key, _) = self.find(tuple).filter(|(key, _)| self.flow(*key).awaits_client())?;
        self.touch(key)?.on_accepted(cx);
        Some(key)
    }

    /// False if a flow more would be beyond a limit, which is told.
    fn has_room(&self, cx: &mut Cx<'_>) -> bool {
        let limits = &self.settings.limits;
        let full = match () {
            () if self.half_open >= limits.half_open => "limits.half_open",
            () if self.open_flows() >= limits.flows => "limits.flows",
            () => return true,
        };
        cx.emit(Event::LimitHit { limit: full });
        false
    }

    /// The number of a new flow, and its faults.
    fn plan(&mut self, cx: &mut Cx<'_>, tuple: Tuple, syn: &Segment) -> (FlowId, Plan) {
        let id = self.ids.next();
        let circumstances = self.neighbours.on_open(cx, tuple, syn);
        (id, self.rules.plan(id, tuple.src, tuple.dst, &circumstances, &mut self.neighbours.turns))
    }

    fn insert(&mut self, flow: Flow) -> FlowKey {
        let (legs, generation) = (flow.packet_legs(), flow.id().0 as u32);
        self.half_open += 1;
        let slot = self.entries.insert(Entry {
            flow,
            touched: false,
            half_open: true,
            lingering: false,
            queued: 0,
            strays: false,
        });
        let slot = u32::try_from(slot).expect("limits.flows and limits.lingering are at most 2^24");
        for leg in legs {
            let hash = self.hasher.hash_one(self.entries[slot as usize].flow.arriving(leg));
            let (entries, hasher) = (&self.entries, &self.hasher);
            self.index.insert_unique(hash, LegSlot::new(slot, leg), |at| {
                hasher.hash_one(entries[at.slot() as usize].flow.arriving(at.leg()))
            });
        }
        FlowKey { slot, generation }
    }

    fn remove(&mut self, cx: &mut Cx<'_>, key: FlowKey) {
        for leg in self.flow(key).packet_legs() {
            let hash = self.hasher.hash_one(self.flow(key).arriving(leg));
            let wanted = LegSlot::new(key.slot, leg);
            if let Ok(found) = self.index.find_entry(hash, |at| *at == wanted) {
                found.remove();
            }
        }
        let entry = self.entries.remove(key.slot as usize);
        if entry.strays {
            self.strays.retain(|_, flow| *flow != entry.flow.id());
        }
        let sockets = [Leg::Client, Leg::Server].into_iter().filter(|leg| entry.flow.has_socket(*leg));
        self.orphans.extend(sockets.map(|leg| (key, leg)));
        if !entry.lingering {
            self.neighbours.on_end(cx, entry.flow.arriving(Leg::Client));
        }
        self.queued -= u64::from(entry.queued);
        self.half_open -= usize::from(entry.half_open);
        self.lingering -= usize::from(entry.lingering);
    }

    /// Remembers a closed flow, and forgets the oldest if these are too many.
    fn linger(&mut self, cx: &mut Cx<'_>, key: FlowKey) {
        self.lingering += 1;
        self.lingering_order.push_back(key);
        let limit = self.settings.limits.lingering;
        if self.lingering > limit {
            cx.emit(Event::LimitHit { limit: "limits.lingering" });
        }
        while self.lingering > limit || self.lingering_order.len() > 2 * limit + 64 {
            let Some(oldest) = self.lingering_order.pop_front() else { break };
            if self.entry(oldest).is_some() {
                self.remove(cx, oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
