//! Attempts by our own TCP.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::{Pinger, Start};
use crate::cx::Cx;
use crate::tcp::{Config, Connection, Event, IcmpError, SynOptions, TxCaps, reset_for};
use crate::time::{Duration, Instant, earliest};
use crate::trace::{Event as Trace, FlowId, Leg, NoSink, Outcome, State};
use crate::wire::{Flags, IcmpNote, IpMeta, Segment, Tuple, WindowScale};

/// What Linux scales its window with, where it may be megabytes.
const WINDOW_SCALE: u8 = 7;
/// Bytes that a target may send us before we read them, which is at once.
const BUFFER: u32 = 64 << 10;
/// We send no data.
const CAPS: TxCaps = TxCaps { max_payload: 1 };

/// How far an attempt goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handshake {
    /// SYN, SYN-ACK, RST: the target never accepts a connection.
    Half,
    /// The whole handshake, and a close by FIN in both directions.
    #[default]
    Full,
}

/// A connection of ours; it outlives its attempt in TIME-WAIT.
#[derive(Debug)]
struct Slot {
    attempt: FlowId,
    tuple: Tuple,
    conn: Connection,
    /// SYNs that have left, and when the next one does.
    syns: u32,
    resend: Option<Instant>,
    timer: Option<Instant>,
    ended: bool,
}

/// All attempts by our own TCP. One at most uses a port at a time.
#[derive(Debug)]
pub struct Own {
    config: Arc<Config>,
    handshake: Handshake,
    slots: HashMap<u16, Slot, foldhash::fast::RandomState>,
    timers: BTreeSet<(Instant, u16)>,
    out: VecDeque<(Tuple, Segment)>,
    released: VecDeque<u16>,
}

impl Own {
    /// `secret` keys the initial sequence numbers (RFC 6528) and should be random.
    #[must_use]
    pub fn new(handshake: Handshake, secret: [u64; 2]) -> Self {
        Self {
            config: Arc::new(Config { buffer: BUFFER, secret, ..Config::default() }),
            handshake,
            slots: HashMap::default(),
            timers: BTreeSet::new(),
            out: VecDeque::new(),
            released: VecDeque::new(),
        }
    }

    /// Makes an attempt from this address and port, which no other attempt uses. A connection that is left there in TIME-WAIT is
    /// forgotten; the target can tell the new one by its larger sequence number and timestamp (RFC 6191). `mss` is what the SYN offers.
    pub fn dial(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, start: Start, source: SocketAddr, mss: u16) {
        let offer = SynOptions {
            mss: Some(mss),
            window_scale: Some(WindowScale::new(WINDOW_SCALE)),
            sack: true,
            timestamps: true,
            ecn: false,
        };
        let tuple = Tuple { src: source, dst: start.target };
        pinger.opened(cx, start, Some(source));
        let leg = &mut cx.for_flow(start.attempt);
        let conn =
            Connection::connect(&mut leg.for_leg(Leg::Server), &self.config, tuple, offer, IpMeta::default());
        let attempt = start.attempt;
        let slot = Slot { attempt, tuple, conn, syns: 0, resend: None, timer: None, ended: false };
        self.forget(source.port());
        self.slots.insert(source.port(), slot);
        self.serve(cx, pinger, source.port());
    }

    /// A segment to one of our ports. One that belongs to no connection is answered as a closed port does.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, tuple: Tuple, segment: Segment) {
        let port = tuple.dst.port();
        let Some(slot) = self.slots.get_mut(&port).filter(|slot| slot.tuple == tuple.reverse()) else {
            if !segment.has(Flags::RST) {
                self.out.push_back((tuple.reverse(), reset_for(&segment)));
            }
            return;
        };
        slot.with(cx, |conn, cx| {
            cx.segment_in(&segment);
            conn.on_segment(cx, segment);
        });
        self.serve(cx, pinger, port);
    }

    /// An ICMP error.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, note: &IcmpNote) {
        let port = note.quoted.src.port();
        let Some(slot) = self.slots.get_mut(&port).filter(|slot| slot.tuple == note.quoted) else { return };
        let IcmpNote { kind, code, mtu, seq, .. } = *note;
        slot.with(cx, |conn, cx| {
            cx.emit(Trace::Icmp { kind, code, sent: false });
            conn.on_icmp(cx, IcmpError { kind, code, mtu, seq });
        });
        self.serve(cx, pinger, port);
    }

    /// Gives up an attempt whose time is over: silently before the handshake is complete, else by RST.
    pub fn give_up(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, attempt: FlowId) {
        let found = self.slots.iter_mut().find(|(_, slot)| slot.attempt == attempt);
        let Some((&port, slot)) = found else { return };
        slot.with(cx, |conn, cx| conn.abort(cx));
        self.serve(cx, pinger, port);
    }

    /// Runs what is due.
    pub fn on_timeout(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger) {
        while let Some((_, port)) = self.timers.first().copied().filter(|(at, _)| *at <= cx.now) {
            let Some(slot) = self.slots.get_mut(&port) else { return };
            if slot.resend.take_if(|at| *at <= cx.now).is_some() {
                slot.conn.resend_syn();
            }
            slot.with(cx, |conn, cx| conn.on_timeout(cx));
            self.serve(cx, pinger, port);
        }
    }

    /// When [`Self::on_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next segment to send.
    pub fn poll_transmit(&mut self) -> Option<(Tuple, Segment)> {
        self.out.pop_front()
    }

    /// The next port whose attempt has ended. It should be used again as late as possible: its connection may be in TIME-WAIT.
    pub fn poll_released(&mut self) -> Option<u16> {
        self.released.pop_front()
    }

    /// Does all that follows from an input.
    fn serve(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, port: u16) {
        let Some(slot) = self.slots.get_mut(&port) else { return };
        while let Some(event) = slot.conn.poll_event() {
            let outcome = match event {
                Event::Established => {
                    slot.resend = None;
                    pinger.answered(cx, slot.attempt);
                    match self.handshake {
                        // Before the ACK has left: the target must not accept.
                        Handshake::Half => slot.with(cx, |conn, cx| conn.abort(cx)),
                        Handshake::Full => {
                            slot.transmit(cx, pinger, &mut self.out);
                            slot.with(cx, |conn, cx| conn.shutdown(cx));
                        }
                    }
                    continue;
                }
                Event::Reset => Outcome::RefusedRst,
                Event::Unreachable { .. } => Outcome::RefusedIcmp,
                Event::TimedOut | Event::Closed => Outcome::Timeout,
                _ => continue,
            };
            slot.transmit(cx, pinger, &mut self.out);
            slot.end(cx, pinger, outcome, &mut self.released);
        }
        while slot.with(cx, |conn, cx| conn.recv(cx)).is_some() {}
        slot.transmit(cx, pinger, &mut self.out);
        if slot.conn.state() == State::TimeWait {
            slot.end(cx, pinger, Outcome::Ok, &mut self.released);
        }
        self.settle(port);
    }

    /// Sets the timer of a slot anew, or forgets it if its connection is gone.
    fn settle(&mut self, port: u16) {
        let Some(slot) = self.slots.get_mut(&port) else { return };
        if slot.conn.state() == State::Closed {
            self.forget(port);
            return;
        }
        let timer = earliest(slot.resend, slot.conn.poll_timeout());
        let before = std::mem::replace(&mut slot.timer, timer);
        if before != timer {
            before.map(|at| self.timers.remove(&(at, port)));
            timer.map(|at| self.timers.insert((at, port)));
        }
    }

    fn forget(&mut self, port: u16) {
        if let Some(at) = self.slots.remove(&port).and_then(|slot| slot.timer) {
            self.timers.remove(&(at, port));
        }
    }
}

impl Slot {
    /// What happens after the attempt has ended is told to nobody: its flow is closed.
    fn with<T>(&mut self, cx: &mut Cx<'_>, act: impl FnOnce(&mut Connection, &mut Cx<'_>) -> T) -> T {
        if self.ended {
            return act(&mut self.conn, &mut Cx::new(cx.now, &mut NoSink));
        }
        act(&mut self.conn, &mut cx.for_flow(self.attempt).for_leg(Leg::Server))
    }

    fn transmit(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, out: &mut VecDeque<(Tuple, Segment)>) {
        while let Some(segment) = self.with(cx, |conn, cx| conn.poll_transmit(cx, CAPS)) {
            if segment.has(Flags::SYN) {
                pinger.note_resent(self.attempt, self.syns);
                self.resend = Some(cx.now + until_next_syn(self.syns));
                self.syns += 1;
            }
            self.with(cx, |_, cx| cx.segment_out(&segment));
            out.push_back((self.tuple, segment));
        }
    }

    fn end(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, outcome: Outcome, released: &mut VecDeque<u16>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.resend = None;
            pinger.end(cx, self.attempt, outcome);
            released.push_back(self.tuple.src.port());
        }
    }
}

/// How long after a SYN the next one leaves, if `before` have left before it: as Linux from 6.5 on
/// (`tcp_syn_linear_timeouts` = 4), at 1, 2, 3, 4, 5, 7, 11, 19 … s.
fn until_next_syn(before: u32) -> Duration {
    Duration::from_secs(1 << before.saturating_sub(4).min(6))
}
