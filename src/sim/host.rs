//! A host: one application on top of one connection, with the duties of the layer above TCP (a socket) in Linux's way.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::watch::Watch;
use crate::cx::Cx;
use crate::rng::Rng;
use crate::tcp::{Config, Connection, Event, IcmpError, SynInfo, SynOptions, TxCaps, reset_for};
use crate::time::{Duration, Instant, earliest};
use crate::wire::{Flags, IpMeta, Segment, Tuple, WindowScale};

/// How often an application with a read rate reads.
const READ_EVERY: Duration = Duration::from_millis(10);
/// SYNs before the host gives up, as `tcp_syn_retries` 6 and `tcp_syn_linear_timeouts` 4 give.
const SYNS: u32 = 11;

/// What an application does.
#[derive(Clone, Copy, Debug)]
pub struct App {
    /// Bytes to send.
    pub send: u64,
    /// Bytes per write.
    pub chunk: u32,
    /// Time before the first write.
    pub wait: Duration,
    /// Time between two writes.
    pub pause: Duration,
    /// Most bytes that wait in the socket for their acknowledgement.
    pub send_buffer: u32,
    /// Bytes read per second; without it everything is read at once.
    pub read_rate: Option<u64>,
    /// When it closes.
    pub close: Close,
}

/// When an application closes its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// After its last byte, whether or not the peer still sends.
    WhenSent,
    /// After its last byte, once the peer has closed.
    AfterPeer,
    /// It aborts after this many bytes received.
    AbortAt(u64),
}

impl Default for App {
    /// Sends nothing, reads everything, closes after the peer.
    fn default() -> Self {
        Self {
            send: 0,
            chunk: 16 << 10,
            wait: Duration::ZERO,
            pause: Duration::ZERO,
            send_buffer: 256 << 10,
            read_rate: None,
            close: Close::AfterPeer,
        }
    }
}

/// How a host's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By FINs in both directions.
    Closed,
    /// By the peer's RST.
    Reset,
    /// Retransmissions ran out.
    TimedOut,
    /// ICMP ended the handshake.
    Unreachable,
    /// By our own RST.
    Aborted,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    config: Arc<Config>,
    tuple: Tuple,
    syn: SynOptions,
    app: App,
    active: bool,
    conn: Option<Connection>,
    established: bool,
    /// When the SYN is to be sent again, and how many were sent.
    syn_timer: Option<(Instant, u32)>,
    /// Segments that belong to no connection.
    stray: VecDeque<Segment>,
    next_write: Instant,
    next_read: Instant,
    unread: u64,
    eof: bool,
    shut: bool,
    closed: bool,
    watch: Watch,
    /// The first rule of TCP or of its promise to the application that was broken.
    pub broken: Option<String>,
    /// A fault changes bytes on purpose: those that arrive are not compared with those that were sent.
    pub corrupted: bool,
    /// Bytes written so far.
    pub written: u64,
    /// Bytes received in order so far.
    pub received: u64,
    /// How it ended.
    pub end: Option<End>,
    /// What the connection reported, in order.
    pub events: Vec<Event>,
}

impl Host {
    /// A host that dials `tuple.dst`.
    #[must_use]
    pub fn client(config: &Arc<Config>, tuple: Tuple, syn: SynOptions, app: App) -> Self {
        Self::new(config, tuple, syn, app, true)
    }

    /// A host that waits for a SYN on `tuple.src`.
    #[must_use]
    pub fn server(config: &Arc<Config>, tuple: Tuple, syn: SynOptions, app: App) -> Self {
        Self::new(config, tuple, syn, app, false)
    }

    fn new(config: &Arc<Config>, tuple: Tuple, syn: SynOptions, app: App, active: bool) -> Self {
        Self {
            config: Arc::clone(config),
            tuple,
            syn,
            app,
            active,
            conn: None,
            established: false,
            syn_timer: None,
            stray: VecDeque::new(),
            next_write: Instant::ZERO + app.wait,
            next_read: Instant::ZERO,
            unread: 0,
            eof: false,
            shut: false,
            closed: false,
            watch: Watch::new(tuple.is_ipv6()),
            broken: None,
            corrupted: false,
            written: 0,
            received: 0,
            end: None,
            events: Vec::new(),
        }
    }

    /// Where its segments go.
    #[must_use]
    pub const fn tuple(&self) -> Tuple {
        self.tuple
    }

    /// The connection, while there is one.
    #[must_use]
    pub const fn connection(&self) -> Option<&Connection> {
        self.conn.as_ref()
    }

    /// True once everything is over and freed.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.end.is_some() && self.conn.is_none()
    }

    /// Dials.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        self.conn = Some(Connection::connect(cx, &self.config, self.tuple, self.syn, IpMeta::default()));
        self.syn_timer = Some((cx.now + syn_wait(1), 1));
    }

    /// A segment arrives.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, segment: Segment) {
        cx.segment_in(&segment);
        let syn = segment.has(Flags::SYN) && !segment.flags.any(Flags::ACK | Flags::RST);
        if self.conn.is_none() && !self.active && self.end.is_none() && syn {
            let syn = SynInfo::of(&segment);
            self.watch.received(&segment);
            self.conn =
                Some(Connection::accept(cx, &self.config, self.tuple, &syn, self.syn, IpMeta::default()));
        } else if let Some(conn) = &mut self.conn {
            self.watch.received(&segment);
            conn.on_segment(cx, segment);
        } else if !segment.has(Flags::RST) {
            self.stray.push_back(reset_for(&segment));
        }
        self.work(cx);
    }

    /// An ICMP error arrives.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, error: IcmpError) {
        if let Some(conn) = &mut self.conn {
            conn.on_icmp(cx, error);
        }
        self.work(cx);
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        if let Some(conn) = &mut self.conn {
            if conn.poll_timeout().is_some_and(|at| at <= cx.now) {
                conn.on_timeout(cx);
            }
            if let Some((at, sent)) = self.syn_timer
                && at <= cx.now
            {
                self.syn_timer = (sent < SYNS).then(|| (cx.now + syn_wait(sent + 1), sent + 1));
                if self.syn_timer.is_some() {
                    conn.resend_syn();
                } else {
                    conn.vanish(cx);
                    self.end = Some(End::TimedOut);
                }
            }
        }
        self.work(cx);
    }

    /// The next segment to send.
    pub fn poll_transmit(&mut self, cx: &mut Cx<'_>, caps: TxCaps) -> Option<Segment> {
        if let Some(segment) = self.stray.pop_front() {
            return Some(segment);
        }
        let Some(segment) = self.conn.as_mut()?.poll_transmit(cx, caps) else {
            // Only now, for the last words of a connection may be a RST.
            self.conn.take_if(|_| self.closed);
            return None;
        };
        cx.segment_out(&segment);
        if let Err(rule) = self.watch.sent(&segment) {
            self.breaks(rule);
        }
        Some(segment)
    }

    /// After the last segment of a batch: what must hold then.
    pub fn settle(&mut self, cx: &mut Cx<'_>) {
        self.work(cx);
        let Some(conn) = &self.conn else { return };
        if conn.queued() > 0 && self.established && conn.poll_timeout().is_none() {
            let state = conn.state();
            self.breaks(format!("{} bytes are outstanding in {state} without a timer", conn.queued()));
        }
    }

    /// When it wants [`Self::on_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let conn = self.conn.as_ref()?;
        let mut at = earliest(conn.poll_timeout(), self.syn_timer.map(|(at, _)| at));
        if self.app.read_rate.is_some() && self.unread > 0 {
            at = earliest(at, Some(self.next_read));
        }
        if self.established && self.has_room() && self.end.is_none() {
            at = earliest(at, Some(self.next_write));
        }
        at
    }

    fn breaks(&mut self, rule: String) {
        self.broken.get_or_insert(rule);
    }

    fn has_room(&self) -> bool {
        let Some(conn) = &self.conn else { return false };
        self.written < self.app.send && conn.queued() < self.app.send_buffer
    }

    /// What the application does now.
    fn work(&mut self, cx: &mut Cx<'_>) {
        self.take_events();
        self.read(cx);
        if self.established && self.end.is_none() {
            self.write(cx.now);
            self.close(cx);
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.conn.as_mut().and_then(Connection::poll_event) {
            match event {
                Event::Established => {
                    self.established = true;
                    self.syn_timer = None;
                }
                Event::FinReceived => self.eof = true,
                Event::Reset => self.end = Some(End::Reset),
                Event::TimedOut => self.end = Some(End::TimedOut),
                Event::Unreachable { .. } => self.end = Some(End::Unreachable),
                Event::KeepaliveProbe => self.conn.as_mut().expect("it spoke").answer_probe(),
                Event::Closed => {
                    self.end.get_or_insert(End::Closed);
                    self.closed = true;
                    self.syn_timer = None;
                }
                Event::FinAcked | Event::ProbeAnswered => {}
            }
            self.events.push(event);
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let Some(conn) = &mut self.conn else { return };
        while let Some(data) = conn.recv(cx) {
            if !self.corrupted && !pattern_matches(self.active, self.received, &data) {
                let at = self.received;
                self.broken.get_or_insert_with(|| format!("wrong bytes arrive at offset {at}"));
            }
            self.received += data.len() as u64;
            self.unread += data.len() as u64;
        }
        match self.app.read_rate {
            None => self.unread = 0,
            Some(rate) if now >= self.next_read => {
                let share = (u128::from(rate) * READ_EVERY.as_nanos() / 1_000_000_000).max(1);
                self.unread = self.unread.saturating_sub(share as u64);
                self.next_read = now + READ_EVERY;
            }
            Some(_) => {}
        }
        let buffer = u64::from(self.config.buffer);
        conn.set_receive_space(buffer.saturating_sub(self.unread) as u32);
        // A scaled window is rounded up so that its edge does not move left (as Linux does it).
        let unit = 1 << self.syn.window_scale.map_or(0, WindowScale::shift);
        if self.unread >= buffer + unit {
            self.breaks(format!("{} unread bytes exceed the buffer", self.unread));
        }
    }

    fn write(&mut self, now: Instant) {
        while now >= self.next_write && self.has_room() {
            let left = (self.app.send - self.written).min(u64::from(self.app.chunk.max(1)));
            let data = pattern(!self.active, self.written, left);
            self.written += data.len() as u64;
            self.conn.as_mut().expect("has room").send(data);
            if !self.app.pause.is_zero() {
                self.next_write = now + self.app.pause;
            }
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        let Some(conn) = &mut self.conn else { return };
        let sent = self.written == self.app.send;
        let due = match self.app.close {
            Close::WhenSent => sent,
            Close::AfterPeer => sent && self.eof,
            Close::AbortAt(bytes) if self.received >= bytes => {
                conn.abort(cx);
                self.end = Some(End::Aborted);
                return;
            }
            Close::AbortAt(_) => false,
        };
        if due && !self.shut {
            self.shut = true;
            conn.shutdown(cx);
        }
    }
}

/// How long a host waits after its SYN number `sent`: 1, 1, 1, 1, 1, 2, 4 s and so on.
fn syn_wait(sent: u32) -> Duration {
    Duration::from_secs(1 << sent.saturating_sub(5).min(6))
}

/// What Linux offers on Ethernet.
#[must_use]
pub const fn linux_syn() -> SynOptions {
    SynOptions {
        mss: Some(1460),
        window_scale: Some(WindowScale::new(7)),
        sack: true,
        timestamps: true,
        ecn: false,
    }
}

/// Length of the pattern; a prime, so that no shift by a power of two goes unseen.
const PERIOD: usize = 65_521;

fn table(upstream: bool) -> &'static Bytes {
    static TABLES: [OnceLock<Bytes>; 2] = [OnceLock::new(), OnceLock::new()];
    TABLES[usize::from(upstream)].get_or_init(|| {
        let mut rng = Rng::new(0x7ab1e, u64::from(upstream));
        (0..PERIOD).map(|_| rng.next_u32() as u8).collect()
    })
}

/// Up to `len` bytes of the stream of one direction from `offset` on; at least one if `len` is not zero.
#[must_use]
pub fn pattern(downstream: bool, offset: u64, len: u64) -> Bytes {
    let at = (offset % PERIOD as u64) as usize;
    let len = (PERIOD - at).min(usize::try_from(len).unwrap_or(PERIOD));
    table(!downstream).slice(at..at + len)
}

/// Whether `data` is what the stream of one direction has at `offset`.
#[must_use]
pub fn pattern_matches(downstream: bool, mut offset: u64, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let want = pattern(downstream, offset, data.len() as u64);
        if want != data[..want.len()] {
            return false;
        }
        offset += want.len() as u64;
        data = &data[want.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_knows_every_shift() {
        let mut stream = Vec::new();
        while stream.len() < 200_000 {
            stream.extend_from_slice(&pattern(true, stream.len() as u64, 50_000));
        }
        assert!(pattern_matches(true, 0, &stream));
        assert!(!pattern_matches(false, 0, &stream));
        for shift in [1, 2, 1448, 4096, 65_536] {
            assert!(!pattern_matches(true, 0, &stream[shift..]), "{shift}");
        }
    }

    #[test]
    fn syns_follow_the_schedule_of_linux() {
        let mut at = 0;
        let times: Vec<u64> = (1..SYNS).map(|n| (at, at += syn_wait(n).as_secs()).0).collect();
        assert_eq!(times, [0, 1, 2, 3, 4, 5, 7, 11, 19, 35]);
    }
}
