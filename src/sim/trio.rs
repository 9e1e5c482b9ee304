//! Two hosts with halfopen between them: one flow through a [`Table`], in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::host::Host;
use super::link::Link;
use super::world::{Setup, client_tuple};
use crate::cx::Cx;
use crate::fault::{Harm, Rules};
use crate::relay::{FlowIds, FlowKey, Output, Route, Settings, Table};
use crate::tcp::{Config, IcmpError, TxCaps};
use crate::time::{Duration, Instant, earliest};
use crate::trace::{Leg, NoSink, Sink};
use crate::wire::{IcmpNote, Segment, Tuple};

/// Steps at one moment after which the world is thought to run in circles.
const CIRCLES: u32 = 100_000;

/// A host and its cable to halfopen.
#[derive(Debug)]
pub struct Side {
    /// The host.
    pub host: Host,
    /// From the host.
    pub from: Link,
    /// To the host.
    pub to: Link,
}

/// Client, halfopen, server.
#[derive(Debug)]
pub struct Trio<S: Sink> {
    /// The time.
    pub now: Instant,
    /// Who dials.
    pub client: Side,
    /// Who answers.
    pub server: Side,
    /// What halfopen tells.
    pub sink: S,
    table: Table,
    deadlines: BTreeMap<u32, (FlowKey, Instant)>,
    caps: TxCaps,
    steps: (Instant, u32),
}

impl<S: Sink> Trio<S> {
    /// Three parties before the first SYN. The weather of `setup` is that of both cables.
    pub fn new(setup: Setup, rules: Rules, sink: S) -> Self {
        let tuple = client_tuple(setup.ipv6);
        let config = |secret| Arc::new(Config { secret: [setup.seed, secret], ..setup.config.clone() });
        let side = |host, streams: [u64; 2], weather: [_; 2]| Side {
            host,
            from: Link::new(weather[0], setup.seed, streams[0]),
            to: Link::new(weather[1], setup.seed, streams[1]),
        };
        let client = Host::client(&config(1), tuple, setup.client_syn, setup.client);
        let server = Host::server(&config(2), tuple.reverse(), setup.server_syn, setup.server);
        let settings = Settings { tcp: config(3), ..Settings::default() };
        let harm = rules.rules().iter().map(|rule| rule.fault.harm()).max();
        let mut trio = Self {
            now: Instant::ZERO,
            client: side(client, [1, 2], [setup.upstream, setup.downstream]),
            server: side(server, [3, 4], [setup.downstream, setup.upstream]),
            sink,
            table: Table::new(Arc::new(settings), Arc::new(rules), FlowIds::default(), setup.seed),
            deadlines: BTreeMap::new(),
            caps: TxCaps { max_payload: setup.max_payload },
            steps: (Instant::ZERO, 0),
        };
        let corrupted = harm == Some(Harm::Bytes);
        (trio.client.host.corrupted, trio.server.host.corrupted) = (corrupted, corrupted);
        trio.client.host.start(&mut Cx::new(trio.now, &mut NoSink));
        trio
    }

    /// Runs for a while, or until nothing is left to happen.
    ///
    /// # Errors
    /// A broken rule of a host.
    pub fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let deadline = self.now + time;
        while self.step(deadline)? {}
        self.now = deadline;
        Ok(())
    }

    /// True if halfopen remembers nothing of the flow.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.table.is_empty()
    }

    /// What halfopen holds of the flow although nothing will move it.
    ///
    /// # Errors
    /// Bytes that wait without a timer, or a count of bytes that did not return to zero.
    pub fn check_rest(&self) -> Result<(), String> {
        let queued = self.table.queued();
        if queued > 0 && (self.table.is_empty() || self.deadlines.is_empty()) {
            return Err(format!("{queued} bytes are held, and no timer runs"));
        }
        Ok(())
    }

    /// Ends the run: flows that are still open tell so.
    pub fn close(&mut self) {
        self.table.close_all(&mut Cx::new(self.now, &mut self.sink));
    }

    /// Lets everybody speak, then moves to the next moment at which something happens. False if there is none up to
    /// `deadline`.
    fn step(&mut self, deadline: Instant) -> Result<bool, String> {
        self.serve();
        for side in [&mut self.client, &mut self.server] {
            side.transmit(self.now, self.caps);
            if let Some(rule) = &side.host.broken {
                return Err(format!("at {} s: a host breaks a rule: {rule}", self.now));
            }
        }
        let flows = self.deadlines.values().map(|(_, at)| *at).min();
        let sides = earliest(self.client.poll_timeout(), self.server.poll_timeout());
        let Some(next) = earliest(sides, flows).filter(|at| *at <= deadline) else { return Ok(false) };
        self.now = self.now.max(next);
        self.steps = if self.steps.0 == self.now { (self.now, self.steps.1 + 1) } else { (self.now, 0) };
        if self.steps.1 > CIRCLES {
            return Err(format!("at {} s: time stands still", self.now));
        }
        self.deliver();
        Ok(true)
    }

    /// What halfopen has to send.
    fn serve(&mut self) {
        while let Some(key) = self.table.next_touched() {
            let (now, caps) = (self.now, self.caps);
            while let Some(output) = self.table.poll_output(&mut Cx::new(now, &mut self.sink), key, caps) {
                self.carry_out(output);
            }
            match self.table.settle(&mut Cx::new(now, &mut self.sink), key) {
                Some(at) => self.deadlines.insert(key.slot, (key, at)),
                None => self.deadlines.remove(&key.slot),
            };
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            // The hosts have one connection; what a fault begins beside it is lost.
            Output::Segment { tuple, .. }
                if ![tuple, tuple.reverse()].contains(&self.client.host.tuple()) => {}
            Output::Segment { tuple, segment } => {
                let leg = if tuple.dst == self.client.host.tuple().src { Leg::Client } else { Leg::Server };
                let now = self.now;
                if let Some(error) = self.side(leg).to.send(now, &segment, tuple.is_ipv6()) {
                    let IcmpError { kind, code, mtu, seq } = error;
                    let note = IcmpNote { from: tuple.dst.ip(), quoted: tuple, seq, kind, code, mtu };
                    self.table.on_icmp(&mut Cx::new(now, &mut self.sink), &note);
                }
            }
            Output::Icmp { note, .. } => {
                let error = IcmpError { kind: note.kind, code: note.code, mtu: note.mtu, seq: note.seq };
                self.client.host.on_icmp(&mut Cx::new(self.now, &mut NoSink), error);
            }
            Output::Socket { command, .. } => unreachable!("both legs are our TCP: {command:?}"),
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        for leg in [Leg::Client, Leg::Server] {
            self.side(leg).deliver(now);
            let tuple = self.side(leg).host.tuple();
            while let Some(segment) = self.side(leg).from.receive(now) {
                self.on_segment(tuple, segment);
            }
        }
        let due =
            self.deadlines.values().filter(|(_, at)| *at <= now).map(|(key, _)| *key).collect::<Vec<_>>();
        for key in due {
            self.table.on_timeout(&mut Cx::new(now, &mut self.sink), key);
        }
    }

    fn side(&mut self, leg: Leg) -> &mut Side {
        if leg == Leg::Client { &mut self.client } else { &mut self.server }
    }

    /// A segment reaches halfopen. One that belongs to no flow passes, as the gateway lets it.
    fn on_segment(&mut self, tuple: Tuple, segment: Segment) {
        let cx = &mut Cx::new(self.now, &mut self.sink);
        match self.table.route(cx, tuple, &segment, segment.payload.len() as usize) {
            Route::To(key, leg) => self.table.on_segment(cx, key, leg, segment),
            Route::Foreign => self.carry_out(Output::Segment { tuple, segment }),
            Route::Dropped => {}
        }
    }
}

impl Side {
    fn transmit(&mut self, now: Instant, caps: TxCaps) {
        let mut sink = NoSink;
        let cx = &mut Cx::new(now, &mut sink);
        while let Some(segment) = self.host.poll_transmit(cx, caps) {
            if let Some(error) = self.from.send(now, &segment, self.host.tuple().is_ipv6()) {
                self.host.on_icmp(cx, error);
            }
        }
        self.host.settle(cx);
    }

    fn deliver(&mut self, now: Instant) {
        let mut sink = NoSink;
        let cx = &mut Cx::new(now, &mut sink);
        while let Some(segment) = self.to.receive(now) {
            self.host.on_segment(cx, segment);
        }
        if self.host.poll_timeout().is_some_and(|at| at <= now) {
            self.host.on_timeout(cx);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.host.poll_timeout(), earliest(self.from.poll_timeout(), self.to.poll_timeout()))
    }
}
