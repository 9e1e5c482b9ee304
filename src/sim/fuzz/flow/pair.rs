//! A flow between two kernel sockets: the kernel holds the client's SYN until the flow answers it, or has accepted the client
//! already.
//!
//! What must hold besides: the engine is told nothing that it cannot do (see [`Socket`]); bytes cross in order, whoever carries
//! them; the flow knows how many wait and how many the kernels have taken; it keeps no socket when it ends; and without harm
//! it ends well once both peers have finished.

use std::sync::Arc;

use super::socket::Socket;
use super::{BUFFER, END, MAX_OPS, MAX_OUTPUTS, MAX_STILL, harm, plan};
use crate::cx::Cx;
use crate::fault::{Engine, Harm, KINDS, Rule};
use crate::relay::{Caps, Flow, Output, Settings, SocketCommand, SocketEvent, Uplink};
use crate::sim::world::client_tuple;
use crate::tcp::{Config, TxCaps};
use crate::time::{Duration, Instant};
use crate::trace::{Event, FlowId, Kill, Leg, Outcome, Record, Sink};
use crate::wire::{Flags, Options, Segment, SeqNum, Tuple};

/// The bits of the second byte of an input that ask for this.
pub(super) const MODE: u8 = 6;
/// SEG.SEQ of the client's SYN.
const ISN: SeqNum = SeqNum(u32::MAX - 100);
/// The legs.
const BOTH: [Leg; 2] = [Leg::Client, Leg::Server];
/// What a leg may hold while memory is short.
const SCARCE: u32 = 16 << 10;
/// What a peer sends that has much to say.
const BULK: u32 = 3 * BUFFER / 2;
/// Turns after which peers that take everything and finish are through, whatever a fault delays.
const MAX_TURNS: u32 = 2_000;

/// What was told of the flow.
#[derive(Debug, Default)]
struct Told {
    opened: u32,
    /// The outcome, and the bytes that the server and the client got.
    closed: Vec<(Outcome, u64, u64)>,
}

impl Sink for Told {
    fn record(&mut self, record: Record) {
        match record.event {
            Event::FlowOpened { .. } => self.opened += 1,
            Event::FlowClosed { outcome, upstream_bytes, downstream_bytes } => {
                self.closed.push((outcome, upstream_bytes, downstream_bytes));
            }
            _ => {}
        }
    }
    fn wants_segments(&self) -> bool {
        false
    }
}

/// One input being run.
pub(super) struct Pair {
    now: Instant,
    flow: Flow,
    tuple: Tuple,
    harm: Harm,
    has_faults: bool,
    sockets: [Socket; 2],
    /// What the kernel is told to do with the SYN that it holds.
    answered: bool,
    refused: bool,
    /// Bytes may cross by themselves.
    joined: bool,
    /// Memory is short.
    scarce: bool,
    /// More happens before the flow is asked what it wants: an engine serves it once for a batch.
    busy: bool,
    /// Both peers finish at the end, before they reset.
    gentle: bool,
    killed: Option<Kill>,
    /// A kernel or a peer has ended something by itself.
    broken: bool,
    told: Told,
}

impl Pair {
    /// A fault; the mode: IPv6 (1), both sockets (6), the client is accepted first (8), no fault (16), a gentle end (32) with
    /// more bytes than a leg may hold (64); another fault; the directions of both, each in two bits.
    pub(super) fn new([fault, mode, other, directions]: [u8; 4]) -> Self {
        let has = |bit: u8| mode & bit != 0;
        let tuple = client_tuple(has(1));
        let engine = if has(8) { Engine::PlainSockets } else { Engine::Sockets };
        let chosen = [rule(fault, directions & 3, engine), rule(other, directions >> 2 & 3, engine)];
        let rules: Vec<_> = chosen.into_iter().flatten().filter(|_| !has(16)).collect();
        let (harm, has_faults) = (harm(&rules), !rules.is_empty());
        let plan = plan(rules, engine, tuple);
        let settings = Arc::new(Settings {
            tcp: Arc::new(Config { buffer: BUFFER, ..Config::default() }),
            uplink: if has(8) { Uplink::Transparent } else { Uplink::HeldSyn },
            ..Settings::default()
        });
        let mut told = Told::default();
        let mut sockets = BOTH.map(|leg| Socket::new(leg, true, harm < Harm::Bytes));
        sockets.iter_mut().for_each(|socket| socket.bulk = if has(64) { BULK } else { 0 });
        let mut cx = Cx::new(Instant::ZERO, &mut told);
        let flow = if has(8) {
            sockets[Leg::Client as usize].accept();
            Flow::accepted(&mut cx, &settings, FlowId(1), tuple, None, plan)
        } else {
            Flow::new(&mut cx, &settings, FlowId(1), tuple, tuple.src.port(), &syn(ISN), plan)
        };
        Self {
            now: Instant::ZERO,
            flow,
            tuple,
            harm,
            has_faults,
            sockets,
            answered: false,
            refused: false,
            joined: false,
            scarce: false,
            busy: false,
            gentle: has(32),
            killed: None,
            broken: false,
            told,
        }
    }

    /// Operations of six bytes each; see [`Self::apply`].
    pub(super) fn run(mut self, ops: &[[u8; 6]]) {
        self.say(ISN);
        for op in ops.iter().take(MAX_OPS) {
            if self.flow.is_done() {
                break;
            }
            self.apply(*op);
        }
        self.busy = false;
        self.drain();
        if self.gentle {
            self.finish();
        }
        self.end();
    }

    /// One operation. The highest bit of its first byte says whose socket it is about, the next whether more follows in the same
    /// batch, the lowest three what happens.
    fn apply(&mut self, [op, a, how, _, d, _]: [u8; 6]) {
        let leg = if op & 0x80 == 0 { Leg::Client } else { Leg::Server };
        let len = u32::from(a) << (d & 7);
        self.busy = op & 0x40 != 0 && op & 7 < 6;
        let socket = &mut self.sockets[leg as usize];
        match (op & 7, leg) {
            (6, _) => return self.wait(Duration::from_millis(1 << (a % 16))),
            (7, _) => {
                self.drain();
                let next = self.flow.poll_timeout();
                return self.wait(next.map_or(Duration::ZERO, |at| at - self.now));
            }
            (5, _) if how & 7 != 0 => return self.control(how & 7),
            (what, Leg::Server) if socket.is_there() && !socket.connected => {
                let event = socket.dial_ends(what, how);
                return self.tell(leg, Some(event));
            }
            (what, Leg::Client) if !socket.connected => return self.approach(what),
            _ if !socket.is_open() => return,
            _ => {}
        }
        let event = match op & 7 {
            0 if self.joined && how & 2 != 0 => return self.cross(leg, len, how),
            1 => socket.leave(),
            // Most ends would come too early.
            4 if how & 3 != 0 => return,
            what => socket.next_event(what, len, how),
        };
        self.tell(leg, event);
    }

    /// The client comes nearer: it sends its SYN again, or its kernel's answer to the SYN-ACK.
    fn approach(&mut self, what: u8) {
        match what {
            0 | 3 => self.say(ISN),
            1 if self.answered && self.flow.awaits_client() => {
                self.sockets[Leg::Client as usize].accept();
                self.flow.on_accepted(&mut Cx::new(self.now, &mut self.told));
                self.drain();
            }
            _ => {}
        }
    }

    fn control(&mut self, what: u8) {
        let how = match what {
            1 => Kill::Rst,
            2 => Kill::Fin,
            3 => Kill::Vanish,
            4 => {
                self.scarce = !self.scarce;
                return;
            }
            // On a connection that is there the kernel knows the answer.
            5 if self.sockets[Leg::Client as usize].connected && !self.is_plain() => {
                return self.say(ISN + 7);
            }
            _ => return,
        };
        let open = !self.flow.is_lingering();
        if self.flow.kill(&mut Cx::new(self.now, &mut self.told), how).is_ok() {
            assert!(open, "killed twice");
            self.killed = Some(how);
            self.sockets.iter_mut().for_each(|socket| socket.cut_short = true);
        }
        self.drain();
    }

    /// True if a listener has accepted the client: there is no SYN.
    fn is_plain(&self) -> bool {
        !self.answered && self.sockets[Leg::Client as usize].connected
    }

    /// Bytes cross by themselves, if the engine knows that all before them are with the other kernel.
    fn cross(&mut self, leg: Leg, len: u32, how: u8) {
        let [client, server] = &mut self.sockets;
        let (from, to) = if leg == Leg::Client { (client, server) } else { (server, client) };
        let bytes = from.readable(len);
        if bytes == 0 || from.read != to.written || to.waiting > 0 || to.shut || !to.is_open() {
            return;
        }
        let waiting = bytes * u32::from(how >> 4) / 15;
        (from.read, from.credit) = (from.read + bytes, from.credit - bytes);
        (to.written, to.waiting) = (to.written + bytes, waiting);
        self.tell(leg, Some(SocketEvent::Crossed { bytes, waiting }));
    }

    fn tell(&mut self, leg: Leg, event: Option<SocketEvent>) {
        let Some(event) = event else { return };
        self.broken |=
            matches!(event, SocketEvent::Reset | SocketEvent::TimedOut | SocketEvent::Failed { .. });
        self.flow.on_socket(&mut Cx::new(self.now, &mut self.told), leg, event);
        self.drain();
    }

    /// A SYN of the client.
    fn say(&mut self, seq: SeqNum) {
        // What begins another connection is for another flow.
        if !self.is_plain() && !self.flow.is_superseded_by(&syn(seq)) {
            let cx = &mut Cx::new(self.now, &mut self.told);
            self.flow.on_segment(cx, Leg::Client, syn(seq));
        }
        self.drain();
    }

    /// Time passes.
    fn wait(&mut self, time: Duration) {
        self.drain();
        let until = self.now + time;
        let mut still = 0;
        while let Some(at) = self.flow.poll_timeout().filter(|at| *at <= until && !self.flow.is_done()) {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(still < MAX_STILL, "time stands still at {}", self.now);
            self.now = self.now.max(at);
            self.flow.on_timeout(&mut Cx::new(self.now, &mut self.told));
            self.drain();
        }
        self.now = until;
    }

    /// Lets the flow say all it wants to.
    fn drain(&mut self) {
        if self.busy {
            return;
        }
        self.check_told();
        let caps =
            Caps { tx: TxCaps { max_payload: 65_160 }, buffer: if self.scarce { SCARCE } else { BUFFER } };
        for _ in 0..MAX_OUTPUTS {
            match self.flow.poll_output(&mut Cx::new(self.now, &mut self.told), caps) {
                None => return self.check(),
                Some(Output::Segment { tuple, segment }) => self.answer(tuple, &segment),
                Some(Output::Icmp { note, .. }) => {
                    assert_eq!(note.quoted, self.tuple);
                    self.refuse();
                }
                Some(Output::Socket { leg, command }) => self.obey(leg, command),
            }
            self.check_told();
        }
        panic!("outputs never end");
    }

    fn obey(&mut self, leg: Leg, command: SocketCommand) {
        match command {
            SocketCommand::Join => {
                assert!(!self.joined && self.sockets.iter().all(Socket::is_open), "joined too early");
                self.joined = true;
            }
            SocketCommand::Part => self.joined = false,
            _ => {}
        }
        self.sockets[leg as usize].obey(command);
    }

    /// What a segment has the kernel do with the SYN that it holds.
    fn answer(&mut self, tuple: Tuple, segment: &Segment) {
        assert_eq!(tuple, self.tuple.reverse(), "there are segments for the client alone");
        assert!(segment.payload.is_empty() && segment.ack == ISN + 1, "{segment:?}");
        match segment.flags {
            flags if flags.has(Flags::RST) => self.refuse(),
            flags => {
                assert_eq!(flags, Flags::SYN | Flags::ACK);
                // A fault may have held it, and the client has sent its SYN again since.
                assert!(!self.refused || self.has_faults, "answered after a refusal");
                self.answered = true;
            }
        }
    }

    fn refuse(&mut self) {
        // A flow that has ended has a RST for a SYN that comes late.
        let late = self.flow.is_lingering();
        assert!(late || !self.answered && !self.sockets[0].connected, "refused after an answer");
        self.refused = true;
    }

    /// The end is told at once, with what the kernels have taken until then.
    fn check_told(&self) {
        assert_eq!(self.told.opened, 1, "opened");
        assert_eq!(self.told.closed.len(), usize::from(self.flow.is_lingering()), "closed");
        let told = self.told.closed.first().map(|(outcome, ..)| *outcome);
        assert_eq!(self.flow.outcome(), told, "outcome");
    }

    fn check(&self) {
        let waiting: u32 = self.sockets.iter().filter(|s| s.is_open()).map(|s| s.waiting).sum();
        assert_eq!(self.flow.queued(), waiting, "bytes wait");
        assert!(self.flow.held() <= 4 * BUFFER, "{} bytes are held", self.flow.held());
        let [client, server] = &self.sockets;
        assert!(self.harm >= Harm::Bytes || server.written <= client.read, "bytes from nowhere");
        assert!(self.harm >= Harm::Bytes || client.written <= server.read, "bytes from nowhere");
        let left = self.sockets.iter().any(|s| s.left && s.is_there());
        let forgotten = self.killed == Some(Kill::Vanish);
        assert!(!left || forgotten, "no RST after the last byte");
        let crosses = self.joined && self.sockets.iter().all(Socket::is_there);
        assert!(!crosses || !forgotten, "bytes cross in a flow that has vanished");
        assert!(!self.joined || self.harm < Harm::Ends, "bytes cross that a fault wants to see");
        if self.flow.is_done() {
            assert!(!self.sockets.iter().any(Socket::is_there), "a socket is left: {:?}", self.sockets);
        }
    }

    /// Both peers take everything, and finish.
    fn finish(&mut self) {
        for turn in 0..MAX_TURNS {
            let moved = self.turn();
            match self.flow.poll_timeout() {
                _ if self.flow.is_done() => break,
                Some(at) => self.wait((at - self.now).min(Duration::from_secs(1 + u64::from(turn)))),
                None if moved => {}
                None => break,
            }
            if turn + 1 == MAX_TURNS {
                // A fault that makes it this slow does not end it.
                return;
            }
        }
        if self.harm == Harm::Nothing && !self.broken && self.killed.is_none() && self.sockets[0].connected {
            let closed = self.told.closed.first().map(|(outcome, ..)| *outcome);
            assert_eq!(closed, Some(Outcome::Ok), "both peers have finished: {:?}", self.flow);
            let [client, server] = &self.sockets;
            assert_eq!((client.read, server.read), (server.written, client.written), "bytes are missing");
            assert!(self.flow.is_done(), "the flow never ends: {:?}", self.flow);
        }
    }

    /// All that can happen to the sockets in peace, once; true if something did.
    fn turn(&mut self) -> bool {
        let [client, server] = &mut self.sockets;
        let mut moved = false;
        if server.is_there() && !server.connected {
            let event = server.dial_ends(0, 0);
            self.tell(Leg::Server, Some(event));
        } else if !client.connected {
            let was = self.answered;
            self.approach(u8::from(was));
            moved = self.answered != was || self.sockets[0].connected;
        }
        let nexts: [fn(&mut Socket) -> Option<SocketEvent>; 4] = [
            |socket| socket.take(u32::MAX),
            |socket| socket.next_event(0, if socket.read < socket.bulk { u32::MAX } else { 100 }, 0),
            |socket| if socket.read < socket.bulk { None } else { socket.finish() },
            Socket::leave,
        ];
        for (leg, next) in BOTH.into_iter().flat_map(|leg| nexts.map(|next| (leg, next))) {
            let socket = &mut self.sockets[leg as usize];
            let event = if socket.is_open() { next(socket) } else { None };
            moved |= event.is_some();
            self.tell(leg, event);
        }
        moved
    }

    /// Both peers reset, unless the flow is to forget them by itself.
    fn end(&mut self) {
        if self.killed != Some(Kill::Vanish) || !self.gentle {
            for leg in BOTH {
                let event = self.sockets[leg as usize].end();
                self.tell(leg, event);
            }
        }
        self.wait(END);
        assert!(self.flow.is_done(), "the flow never ends: {:?}", self.flow);
    }
}

fn syn(seq: SeqNum) -> Segment {
    let options = Options { mss: Some(1460), ..Options::default() };
    Segment { seq, flags: Flags::SYN, options, ..Segment::default() }
}

/// No fault, or the example of one that can be done there, in one of its directions if it has several.
fn rule(fault: u8, direction: u8, engine: Engine) -> Option<Rule> {
    let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.engines.contains(&engine)).collect();
    let example = kinds[(usize::from(fault) % (kinds.len() + 1)).checked_sub(1)?].example;
    let build = |text: &str| text.parse().ok().and_then(|spec| Rule::build(spec).ok());
    let directed = match direction {
        1 => build(&format!("{example} direction=upstream")),
        2 => build(&format!("{example} direction=downstream")),
        3 => build(&format!("{example} direction=both")),
        _ => None,
    };
    directed.or_else(|| build(example)).filter(|rule| rule.refusal(engine).is_none())
}
