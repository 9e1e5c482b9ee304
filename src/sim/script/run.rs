//! Plays a script.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use super::call::event_name;
use super::{Act, Call, Expect, Failure, Pattern, Step};
use crate::cx::Cx;
use crate::sim::host::{pattern, pattern_matches};
use crate::sim::link::split;
use crate::sim::world::client_tuple;
use crate::tcp::{Config, Connection, Event, IcmpError, SynInfo, SynOptions, TxCaps, reset_for};
use crate::time::{Duration, Instant};
use crate::trace::{NoSink, State};
use crate::wire::{Flags, IpMeta, Payload, RawWindow, Segment, SegmentNote, SeqNum, Tuple};

/// How exact a time must be.
const TOLERANCE: Duration = Duration::from_millis(1);
/// How many steps of the past a failure shows.
const SHOWN: usize = 12;

pub(super) struct Run {
    config: Arc<Config>,
    tuple: Tuple,
    now: Instant,
    /// When the last step happened.
    last: Instant,
    conn: Option<Connection>,
    listening: Option<SynOptions>,
    /// Segments that left and no step has met yet.
    left: VecDeque<(Instant, Segment)>,
    events: VecDeque<Event>,
    /// Our first sequence number and timestamp.
    iss: Option<SeqNum>,
    first_timestamp: Option<u32>,
    /// The peer's first sequence number and latest window.
    irs: Option<SeqNum>,
    window: u16,
    written: u64,
    received: u64,
    /// What the application takes; without it, everything at once.
    space: Option<u32>,
    log: Vec<String>,
}

impl Run {
    pub(super) fn new(config: &Config, ipv6: bool) -> Self {
        Self {
            config: Arc::new(config.clone()),
            tuple: client_tuple(ipv6),
            now: Instant::ZERO,
            last: Instant::ZERO,
            conn: None,
            listening: None,
            left: VecDeque::new(),
            events: VecDeque::new(),
            iss: None,
            first_timestamp: None,
            irs: None,
            window: 65_535,
            written: 0,
            received: 0,
            space: None,
            log: Vec::new(),
        }
    }

    pub(super) fn play(mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            let settle = |run: &mut Self| if step.act.joins() { Ok(()) } else { run.settle() };
            let done = self.step(step).and_then(|()| settle(&mut self));
            if let Err(what) = done {
                return Err(self.failure(step.line, &what));
            }
        }
        let line = steps.last().map_or(0, |s| s.line);
        self.nothing_left().map_err(|what| self.failure(line, &format!("after the last step: {what}")))
    }

    fn failure(&self, line: usize, what: &str) -> Failure {
        let mut what = format!("{what}\n  what happened:");
        for entry in &self.log[self.log.len().saturating_sub(SHOWN)..] {
            let _ = write!(what, "\n    {entry}");
        }
        Failure { line, what }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let (from, to) = (self.last + step.after.from, self.last + step.after.to);
        if let Act::Leaves(pattern) = &step.act {
            return self.meet(pattern, from, to, &step.text);
        }
        self.advance(from)?;
        self.nothing_left()?;
        self.last = from;
        match &step.act {
            Act::Leaves(_) => unreachable!("done above"),
            Act::Arrives(pattern) | Act::Joins(pattern) => self.arrive(pattern),
            Act::Call(call) => return self.call(*call),
            Act::Expect(expect) => return self.expect(*expect),
        }
        Ok(())
    }

    /// Lets the time pass until `to`.
    fn advance(&mut self, to: Instant) -> Result<(), String> {
        while let Some(at) = self.timeout().filter(|at| *at <= to) {
            self.fire(at)?;
        }
        self.now = to;
        Ok(())
    }

    fn timeout(&self) -> Option<Instant> {
        self.conn.as_ref()?.poll_timeout()
    }

    fn fire(&mut self, at: Instant) -> Result<(), String> {
        let late = at < self.now;
        self.now = self.now.max(at);
        self.with(Connection::on_timeout);
        self.settle()?;
        if late && self.timeout().is_some_and(|next| next <= at) {
            return Err(format!("the timer of {at} s stays due"));
        }
        Ok(())
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Connection, &mut Cx<'_>) -> R) -> Option<R> {
        let mut sink = NoSink;
        let mut cx = Cx::new(self.now, &mut sink);
        self.conn.as_mut().map(|conn| f(conn, &mut cx))
    }

    /// Takes everything that the connection has to give.
    fn settle(&mut self) -> Result<(), String> {
        while let Some(data) = self.with(Connection::recv).flatten() {
            if !pattern_matches(false, self.received, &data) {
                return Err(format!("wrong bytes at offset {}", self.received));
            }
            self.received += data.len() as u64;
            self.space = self.space.map(|space| space.saturating_sub(data.len() as u32));
        }
        let space = self.space.unwrap_or(self.config.buffer);
        if let Some(conn) = &mut self.conn {
            conn.set_receive_space(space);
            while let Some(event) = conn.poll_event() {
                self.log.push(format!("{} = event {}", self.now, event_name(event)));
                self.events.push_back(event);
            }
        }
        let caps = TxCaps { max_payload: 65_160 };
        while let Some(segment) = self.with(|conn, cx| conn.poll_transmit(cx, caps)).flatten() {
            for one in split(&segment) {
                self.leaves(one);
            }
        }
        Ok(())
    }

    fn leaves(&mut self, segment: Segment) {
        if segment.has(Flags::SYN) {
            self.iss.get_or_insert(segment.seq);
        }
        if let Some(times) = segment.options.timestamps {
            self.first_timestamp.get_or_insert(times.val);
        }
        self.log.push(format!("{} > {}", self.now, self.relative(&segment)));
        self.left.push_back((self.now, segment));
    }

    /// One of our segments in the numbers of the script.
    fn relative(&self, segment: &Segment) -> SegmentNote {
        let mut note = SegmentNote { ip: IpMeta::default(), ..SegmentNote::from(segment) };
        // The RST of a closed host has the peer's numbers.
        note.seq = note.seq - self.iss.unwrap_or_default().0;
        if let Some(times) = &mut note.options.timestamps {
            times.val = times.val.wrapping_sub(self.first_timestamp.unwrap_or_default());
        }
        note
    }

    fn nothing_left(&self) -> Result<(), String> {
        match self.left.front() {
            None => Ok(()),
            Some((at, segment)) => {
                Err(format!("at {at} s a segment left that no step expects:\n  + {}", self.relative(segment)))
            }
        }
    }

    fn meet(&mut self, pattern: &Pattern, from: Instant, to: Instant, text: &str) -> Result<(), String> {
        while self.left.is_empty()
            && let Some(at) = self.timeout().filter(|at| *at <= to + TOLERANCE)
        {
            self.fire(at)?;
        }
        let Some((at, segment)) = self.left.pop_front() else {
            return Err(format!("no segment leaves until {to} s:\n  - {text}"));
        };
        let note = self.relative(&segment);
        let ecn =
            pattern.ecn.map(|_| ["[noecn] ", "[ect1] ", "[ect0] ", "[ce] "][usize::from(segment.ip.ecn())]);
        let mut seen = note.clone();
        if !pattern.window {
            seen.window = pattern.note.window;
        }
        if !pattern.options {
            seen.options = pattern.note.options.clone();
        }
        if seen != pattern.note || pattern.ecn.is_some_and(|ecn| ecn != segment.ip.ecn()) {
            let ecn = ecn.unwrap_or_default();
            return Err(format!("another segment leaves:\n  - {text}\n  + {ecn}{note}"));
        }
        if at + TOLERANCE < from || at > to + TOLERANCE {
            let (after, want) = (at - self.last, from - self.last);
            return Err(format!("it leaves after {after:?}, not after {want:?}:\n  - {text}"));
        }
        self.last = at;
        Ok(())
    }

    fn arrive(&mut self, pattern: &Pattern) {
        let segment = self.absolute(pattern);
        let flags = segment.flags;
        let note = SegmentNote { window: self.window, ..pattern.note.clone() };
        self.log.push(format!("{} < {note}", self.now));
        let open = self.conn.as_ref().is_some_and(|conn| conn.state() != State::Closed);
        let again = self.conn.as_ref().is_some_and(|conn| conn.may_reopen(&segment));
        let fresh = flags.has(Flags::SYN) && !flags.any(Flags::ACK | Flags::RST);
        if open && !again {
            self.with(|conn, cx| conn.on_segment(cx, segment));
        } else if fresh && let Some(offer) = self.listening {
            self.accept(offer, &segment);
        } else if !flags.has(Flags::RST) {
            self.leaves(reset_for(&segment));
        }
    }

    fn accept(&mut self, offer: SynOptions, segment: &Segment) {
        let mut sink = NoSink;
        let mut cx = Cx::new(self.now, &mut sink);
        let (syn, tuple) = (SynInfo::of(segment), self.tuple.reverse());
        (self.iss, self.first_timestamp, self.irs) = (None, None, Some(segment.seq));
        (self.written, self.received) = (0, 0);
        self.conn = Some(Connection::accept(&mut cx, &self.config, tuple, &syn, offer, IpMeta::default()));
    }

    /// A segment of the script in our numbers.
    fn absolute(&mut self, pattern: &Pattern) -> Segment {
        let note = &pattern.note;
        let iss = self.iss.unwrap_or_default().0;
        if note.flags.has(Flags::SYN) {
            self.irs.get_or_insert(note.seq);
        }
        if pattern.window {
            self.window = note.window;
        }
        let mut options = note.options.clone();
        for block in &mut options.sack {
            *block = crate::wire::SackBlock { left: block.left + iss, right: block.right + iss };
        }
        if let Some(times) = &mut options.timestamps {
            times.ecr = times.ecr.wrapping_add(self.first_timestamp.unwrap_or_default());
        }
        let first = note.seq + u32::from(note.flags.has(Flags::SYN));
        let place = first.diff(self.irs.unwrap_or_default() + 1);
        // Bytes before the first one of the stream are zeros.
        let before = place.min(0).unsigned_abs().min(note.len);
        let mut payload = Payload::from(Bytes::from(vec![0; before as usize]));
        while payload.len() < note.len {
            let offset = i64::from(place) + i64::from(payload.len());
            payload.push(pattern_at(offset.unsigned_abs(), u64::from(note.len - payload.len())));
        }
        Segment {
            seq: note.seq,
            ack: if note.flags.has(Flags::ACK) { note.ack + iss } else { note.ack },
            flags: note.flags,
            window: RawWindow(self.window),
            urgent: note.urgent,
            options,
            payload,
            ip: IpMeta { tos: pattern.ecn.unwrap_or_default(), ..IpMeta::default() },
            gso_size: 0,
            bad_checksum: false,
        }
    }

    fn call(&mut self, call: Call) -> Result<(), String> {
        self.log.push(format!("{} ! {call:?}", self.now));
        match call {
            Call::Connect(offer) => {
                let mut sink = NoSink;
                let mut cx = Cx::new(self.now, &mut sink);
                self.conn =
                    Some(Connection::connect(&mut cx, &self.config, self.tuple, offer, IpMeta::default()));
                return Ok(());
            }
            Call::Listen(offer) => {
                self.listening = Some(offer);
                return Ok(());
            }
            _ => {}
        }
        let iss = self.iss.unwrap_or_default();
        let mut written = self.written;
        self.with(|conn, cx| match call {
            Call::Connect(_) | Call::Listen(_) => {}
            Call::Send { bytes, times } => {
                for _ in 0..times {
                    conn.send(stream(written, bytes));
                    written += u64::from(bytes);
                }
            }
            Call::Shutdown => conn.shutdown(cx),
            Call::Abort => conn.abort(cx),
            Call::Vanish => conn.vanish(cx),
            Call::Cork => conn.cork(),
            Call::Uncork => conn.uncork(),
            Call::ResendSyn => conn.resend_syn(),
            Call::Probe => conn.probe(),
            Call::AnswerProbe => conn.answer_probe(),
            Call::Urgent(offset) => conn.set_urgent(offset),
            Call::Space(_) => {}
            Call::Knobs(knobs) => conn.set_knobs(cx.now, knobs),
            Call::Icmp { kind, code, mtu, seq } => {
                conn.on_icmp(cx, IcmpError { kind, code, mtu, seq: iss + seq });
            }
        })
        .ok_or("there is no connection")?;
        self.written = written;
        if let Call::Space(n) = call {
            self.space = Some(n);
        }
        Ok(())
    }

    fn expect(&mut self, expect: Expect) -> Result<(), String> {
        let conn = self.conn.as_ref();
        let (received, acked) = conn.map(Connection::byte_counts).unwrap_or_default();
        let same = |what: &str, want: String, got: String| {
            if want == got { Ok(()) } else { Err(format!("{what}:\n  - {want}\n  + {got}")) }
        };
        match expect {
            Expect::State(state) => {
                let closed = if self.listening.is_some() { State::Listen } else { State::Closed };
                same("state", state.to_string(), conn.map_or(closed, Connection::state).to_string())
            }
            Expect::Event(name) => {
                let told: Vec<_> = self.events.iter().map(|e| event_name(*e)).collect();
                match told.iter().position(|e| *e == name) {
                    Some(at) => self.events.drain(..=at).count(),
                    None => return Err(format!("the application was not told of {name}, but of {told:?}")),
                };
                Ok(())
            }
            Expect::NoEvent(name) => match self.events.iter().any(|e| event_name(*e) == name) {
                true => Err(format!("the application was told of {name}")),
                false => Ok(()),
            },
            Expect::Received(n) => same("bytes received", n.to_string(), received.to_string()),
            Expect::Acked(n) => same("bytes acknowledged", n.to_string(), acked.to_string()),
            Expect::Queued(n) => {
                same("bytes queued", n.to_string(), conn.map_or(0, Connection::queued).to_string())
            }
            Expect::Urgent(n) => {
                let urgent = conn.and_then(Connection::urgent_received);
                same("urgent data end at", format!("{:?}", Some(n)), format!("{urgent:?}"))
            }
        }
    }
}

fn pattern_at(offset: u64, len: u64) -> Bytes {
    pattern(false, offset, len)
}

/// `n` bytes of our stream.
fn stream(offset: u64, n: u32) -> Bytes {
    let mut out = bytes::BytesMut::with_capacity(n as usize);
    while out.len() < n as usize {
        out.extend_from_slice(&pattern(true, offset + out.len() as u64, u64::from(n) - out.len() as u64));
    }
    out.freeze()
}
