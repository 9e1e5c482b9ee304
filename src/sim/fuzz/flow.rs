//! Operations on one flow: two peers that say anything at any time, honest or not, right up to the end.
//!
//! What must hold: nothing panics; outputs end; time moves on; bytes that leave are the bytes that came, in their place;
//! queues stay in their bounds; what waits has a timer; without a fault every segment is as [`Watch`] wants it; and once
//! both peers have reset, the flow ends, and says so once. What must hold besides between two kernel sockets: see `pair`.

mod pair;
mod peer;
mod socket;

use std::sync::Arc;

use pair::Pair;
use peer::{Peer, offer};
use socket::Socket;

use crate::cx::Cx;
use crate::fault::{Circumstances, Engine, Harm, KINDS, Plan, Rule, Rules, Turns};
use crate::relay::{Caps, Flow, Output, Settings, Uplink};
use crate::sim::world::client_tuple;
use crate::tcp::{Config, Knobs, TxCaps};
use crate::time::{Duration, Instant};
use crate::trace::{Event, FlowId, Leg, Record, Sink};
use crate::wire::{Flags, IcmpNote, Segment, SeqNum, Tuple};

/// Operations of one input; more are not looked at.
const MAX_OPS: usize = 200;
/// Segments after which an input is thought to be answered for ever.
const MAX_OUTPUTS: u32 = 20_000;
/// Timeouts at one moment after which time is thought to stand still.
const MAX_STILL: u32 = 1_000;
/// What each leg may hold.
const BUFFER: u32 = 128 << 10;
/// Time within which a flow must end after both peers have reset it: a path that a fault has cut is waited for in vain for
/// three hours, a client that is silent in its handshake less, and TIME-WAIT lasts a minute.
const END: Duration = Duration::from_secs(4 * 3600);

/// Four bytes of setup (see `Run::new`), then operations of six bytes each (see `Run::apply`). Where the second byte says that
/// both legs are sockets, see `Pair::new` instead.
pub fn flow(data: &[u8]) {
    let Some((setup, ops)) = data.split_first_chunk::<4>() else { return };
    if setup[1] & pair::MODE == pair::MODE {
        return Pair::new(*setup).run(ops.as_chunks().0);
    }
    let mut run = Run::new(*setup);
    for op in ops.as_chunks().0.iter().take(MAX_OPS) {
        if run.flow.is_done() {
            break;
        }
        run.apply(*op);
        run.drain();
        run.check();
    }
    run.end();
}

/// Counts how often a flow was opened and closed.
#[derive(Debug, Default)]
struct Told {
    opened: u32,
    closed: u32,
}

impl Sink for Told {
    fn record(&mut self, record: Record) {
        self.opened += u32::from(matches!(record.event, Event::FlowOpened { .. }));
        self.closed += u32::from(matches!(record.event, Event::FlowClosed { .. }));
    }
    fn wants_segments(&self) -> bool {
        false
    }
}

/// One input being run.
struct Run {
    now: Instant,
    flow: Flow,
    honest: bool,
    /// A fault may keep our own TCP from sending, and its timers with it.
    mute: bool,
    peers: [Peer; 2],
    /// In exec mode, instead of the second peer.
    socket: Option<Socket>,
    told: Told,
}

impl Run {
    /// Which fault, IPv6 or not and whether the server is reached by a socket, what the SYN offers, what the SYN-ACK offers.
    fn new([fault, mode, client, server]: [u8; 4]) -> Self {
        let tuple = client_tuple(mode & 1 == 1);
        let socket = mode & 2 == 2;
        let settings = Settings {
            tcp: Arc::new(Config { buffer: BUFFER, ..Config::default() }),
            uplink: if socket { Uplink::Socket } else { Uplink::Transparent },
            ..Settings::default()
        };
        let rules: Vec<_> = rule(fault).into_iter().collect();
        let (mute, harm) = (rules.iter().any(may_mute), harm(&rules));
        let plan = plan(rules, if socket { Engine::Exec } else { Engine::Tun }, tuple);
        let intact = harm < Harm::Bytes;
        let socket = socket.then(|| Socket::new(Leg::Server, false, intact));
        let mut told = Told::default();
        let honest = plan.is_empty();
        let mut peers = [
            Peer::new(Leg::Client, offer(client, tuple), SeqNum(u32::MAX - 100), intact),
            Peer::new(Leg::Server, offer(server, tuple), SeqNum(1000), intact),
        ];
        let syn = peers[0].honest(Instant::ZERO, Flags::default(), 0, 64_240);
        peers[0].next = syn.end();
        let mut cx = Cx::new(Instant::ZERO, &mut told);
        let flow = Flow::new(&mut cx, &Arc::new(settings), FlowId(1), tuple, tuple.src.port(), &syn, plan);
        let mut run = Self { now: Instant::ZERO, flow, honest, mute, peers, socket, told };
        run.say(Leg::Client, syn);
        run.drain();
        run
    }

    /// One operation. The highest bit of its first byte says which peer speaks, the lowest three what it does.
    fn apply(&mut self, [op, a, b, c, d, e]: [u8; 6]) {
        let leg = if op & 0x80 == 0 { Leg::Client } else { Leg::Server };
        let peer = &self.peers[leg as usize];
        let window = u16::from_be_bytes([b, c]);
        let len = u32::from(a) << (d & 7);
        if let (Leg::Server, 0..6, Some(socket)) = (leg, op & 7, &mut self.socket) {
            if let Some(event) = socket.next_event(op & 7, len, b) {
                self.flow.on_socket(&mut Cx::new(self.now, &mut self.told), Leg::Server, event);
            }
            return;
        }
        match op & 7 {
            0 => self.say(leg, peer.honest(self.now, Flags::PSH, len, window)),
            1 => self.say(leg, peer.honest(self.now, Flags::default(), 0, window)),
            2 => self.say(leg, peer.honest(self.now, Flags::FIN, len, window)),
            3 => {
                let mut segment = peer.honest(self.now, Flags::default(), u32::from(e) << (d & 7), window);
                peer.bend(&mut segment, [op, a, b, c, d]);
                self.say(leg, segment);
            }
            4 => self.say(leg, peer.last.clone()),
            5 => self.icmp(leg, [a, b, c, d]),
            6 => self.wait(Duration::from_millis(1 << (a % 16))),
            _ => self.wait(self.flow.poll_timeout().map_or(Duration::ZERO, |at| at - self.now)),
        }
    }

    fn say(&mut self, leg: Leg, segment: Segment) {
        let peer = &mut self.peers[leg as usize];
        // What lies beyond an honest host's next number was made up by `bend`; the honest host does not go on from there.
        if segment.seq == peer.next {
            peer.next = segment.end();
        }
        peer.last = segment.clone();
        // Farther away nothing is acceptable, and [`Watch`] would take it for the edge of a stream that has wrapped.
        let near = |a: SeqNum, b: SeqNum| (-(1 << 30)..1 << 20).contains(&a.diff(b));
        if near(segment.seq, peer.next) && (!segment.has(Flags::ACK) || near(segment.ack, peer.heard)) {
            peer.watch.received(&segment);
        }
        self.flow.on_segment(&mut Cx::new(self.now, &mut self.told), leg, segment);
    }

    fn icmp(&mut self, leg: Leg, [kind, code, seq, mtu]: [u8; 4]) {
        let quoted = self.flow.arriving(leg).reverse();
        let seq = self.peers[leg as usize].heard - u32::from(seq);
        let note = IcmpNote {
            from: quoted.dst.ip(),
            quoted,
            seq,
            kind: kind & 15,
            code: code & 15,
            mtu: u32::from(mtu) << 3,
        };
        self.flow.on_icmp(&mut Cx::new(self.now, &mut self.told), leg, &note);
    }

    /// Time passes.
    fn wait(&mut self, time: Duration) {
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
        let caps = Caps { tx: TxCaps { max_payload: 65_160 }, buffer: BUFFER };
        for _ in 0..MAX_OUTPUTS {
            match self.flow.poll_output(&mut Cx::new(self.now, &mut self.told), caps) {
                None => return,
                Some(Output::Segment { tuple, segment }) => self.hear(tuple, &segment),
                Some(Output::Icmp { note, .. }) => assert_eq!(note.quoted, self.flow.arriving(Leg::Client)),
                Some(Output::Socket { command, .. }) => match &mut self.socket {
                    Some(socket) => socket.obey(command),
                    None => panic!("{command:?} for a flow without a socket"),
                },
            }
        }
        panic!("outputs never end");
    }

    fn hear(&mut self, tuple: Tuple, segment: &Segment) {
        let stray =
            tuple.dst == self.flow.arriving(Leg::Server).src && tuple != self.flow.arriving(Leg::Client);
        if stray && !self.honest {
            // A fault has begun it beside the flow, from another port of the client.
            assert_eq!(tuple.src.ip(), self.flow.arriving(Leg::Client).src.ip());
            return;
        }
        let leg = if tuple == self.flow.arriving(Leg::Client).reverse() { Leg::Client } else { Leg::Server };
        assert_eq!(tuple, self.flow.arriving(leg).reverse());
        let peer = &mut self.peers[leg as usize];
        peer.hear(segment);
        // A RST without ACK answers a segment that fits no connection, and ends none (RFC 9293 §3.10.7.3).
        if !self.honest || segment.flags == Flags::RST {
            return;
        }
        if let Err(rule) = peer.watch.sent(segment) {
            panic!("{leg:?}: {rule}");
        }
    }

    fn check(&self) {
        let queued = self.flow.queued();
        assert!(queued <= 2 * BUFFER, "{queued} bytes are queued");
        // What waits for a socket has no timer of ours.
        let armed = self.socket.is_some() || self.mute || self.flow.poll_timeout().is_some();
        assert!(queued == 0 || armed, "{queued} bytes wait without a timer");
    }

    /// Both peers reset with the numbers that the flow last acknowledged; a challenge ACK tells newer ones.
    fn end(&mut self) {
        if let Some(event) = self.socket.as_mut().and_then(Socket::end) {
            self.flow.on_socket(&mut Cx::new(self.now, &mut self.told), Leg::Server, event);
        }
        let legs = if self.socket.is_some() { &[Leg::Client][..] } else { &[Leg::Client, Leg::Server] };
        for _ in 0..10 {
            for &leg in legs {
                let peer = &self.peers[leg as usize];
                let seq = peer.acked.unwrap_or(peer.iss + 1);
                let rst =
                    Segment { seq, ack: peer.heard, flags: Flags::RST | Flags::ACK, ..Segment::default() };
                self.say(leg, rst);
                self.drain();
            }
            self.wait(Duration::from_secs(2));
        }
        self.wait(END);
        // A fault may swallow every RST; such a flow is as old as its peers make it, but wakes nobody any more.
        let quiet = !self.honest && self.flow.poll_timeout().is_none();
        assert!(self.flow.is_done() || quiet, "the flow never ends: {:?}", self.flow);
        let closed = u32::from(self.flow.is_done() || self.flow.is_lingering());
        assert_eq!((self.told.opened, self.told.closed), (1, closed), "opened and closed");
    }
}

/// No fault, or the example of one of the catalogue.
fn rule(fault: u8) -> Option<Rule> {
    let kind = (usize::from(fault) % (KINDS.len() + 1)).checked_sub(1).map(|n| KINDS[n])?;
    Some(kind.example.parse().and_then(Rule::build).expect("examples are right"))
}

/// The most that rules do to the applications.
fn harm(rules: &[Rule]) -> Harm {
    rules.iter().map(|rule| rule.fault.harm()).max().unwrap_or(Harm::Nothing)
}

/// True if it may make our TCP mute.
fn may_mute(rule: &Rule) -> bool {
    let mut knobs = Knobs::default();
    [Leg::Client, Leg::Server].into_iter().any(|leg| rule.fault.turn(leg, &mut knobs) && knobs.mute)
}

/// The plan of rules, or none if one of them cannot be done there.
fn plan(rules: Vec<Rule>, engine: Engine, tuple: Tuple) -> Plan {
    Rules::new(1, engine, rules).map_or_else(
        |_| Plan::default(),
        |r| r.plan(FlowId(1), tuple.src, tuple.dst, &Circumstances::default(), &mut Turns::default()),
    )
}
