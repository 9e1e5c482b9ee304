//! Two hosts and the cables between them, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;

use super::host::{App, End, Host};
use super::link::{Link, Weather};
use crate::cx::Cx;
use crate::tcp::{Config, SynOptions, TxCaps};
use crate::time::{Duration, Instant, earliest};
use crate::trace::{Leg, NoSink, Sink};
use crate::wire::Tuple;

/// Steps or segments at one moment after which the world is thought to run in circles.
const CIRCLES: u32 = 20_000;

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where all chance comes from.
    pub seed: u64,
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// The numbers of both hosts.
    pub config: Config,
    /// What the client offers.
    pub client_syn: SynOptions,
    /// What the server is ready for.
    pub server_syn: SynOptions,
    /// The application of the client.
    pub client: App,
    /// The application of the server.
    pub server: App,
    /// From the client to the server.
    pub upstream: Weather,
    /// From the server to the client.
    pub downstream: Weather,
    /// Largest super-segment in bytes of payload.
    pub max_payload: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 0,
            ipv6: false,
            config: Config::default(),
            client_syn: super::host::linux_syn(),
            server_syn: super::host::linux_syn(),
            client: App::default(),
            server: App::default(),
            upstream: Weather::default(),
            downstream: Weather::default(),
            max_payload: 65_160,
        }
    }
}

/// Two hosts and a cable.
#[derive(Debug)]
pub struct World<S: Sink = NoSink> {
    /// The time.
    pub now: Instant,
    /// Who dials.
    pub client: Host,
    /// Who answers.
    pub server: Host,
    /// From the client to the server.
    pub upstream: Link,
    /// From the server to the client.
    pub downstream: Link,
    /// What both connections tell.
    pub sink: S,
    caps: TxCaps,
    steps: (Instant, u32),
}

/// The addresses of all simulated flows.
#[must_use]
pub fn client_tuple(ipv6: bool) -> Tuple {
    let (src, dst) =
        if ipv6 { ("[fd00::1]:40000", "[fd00::2]:80") } else { ("10.0.0.1:40000", "10.0.0.2:80") };
    let parse = |s: &str| s.parse::<SocketAddr>().expect("a constant");
    Tuple { src: parse(src), dst: parse(dst) }
}

impl<S: Sink> World<S> {
    /// Hosts before the first SYN.
    pub fn new(setup: Setup, sink: S) -> Self {
        let tuple = client_tuple(setup.ipv6);
        let host_config = |secret| Arc::new(Config { secret: [setup.seed, secret], ..setup.config.clone() });
        let mut world = Self {
            now: Instant::ZERO,
            client: Host::client(&host_config(1), tuple, setup.client_syn, setup.client),
            server: Host::server(&host_config(2), tuple.reverse(), setup.server_syn, setup.server),
            upstream: Link::new(setup.upstream, setup.seed, 1),
            downstream: Link::new(setup.downstream, setup.seed, 2),
            sink,
            caps: TxCaps { max_payload: setup.max_payload },
            steps: (Instant::ZERO, 0),
        };
        let mut cx = Cx::new(world.now, &mut world.sink);
        world.client.start(&mut cx.for_leg(Leg::Client));
        world
    }

    /// Runs until both hosts are done.
    ///
    /// # Errors
    /// A broken rule, or that they are not done after `limit`.
    pub fn run(&mut self, limit: Duration) -> Result<(), String> {
        let deadline = self.now + limit;
        while !self.is_over() {
            if !self.step(deadline)? {
                if self.is_over() || self.is_orphaned() {
                    return Ok(());
                }
                return Err(self.told("both hosts should be done by now"));
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.client.is_done() && self.server.is_done()
    }

    /// One host aborted, its RST was lost, and the other has nothing to say: it cannot know (RFC 9293 §3.5.1, half-open).
    fn is_orphaned(&self) -> bool {
        let quiet = |h: &Host| h.connection().is_none_or(|conn| conn.queued() == 0);
        let aborted = |h: &Host| h.end == Some(End::Aborted);
        (aborted(&self.client) || aborted(&self.server)) && quiet(&self.client) && quiet(&self.server)
    }

    /// Runs for a while, or until nothing is left to happen.
    ///
    /// # Errors
    /// A broken rule.
    pub fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let deadline = self.now + time;
        while self.step(deadline)? {}
        self.now = deadline;
        Ok(())
    }

    /// Lets everybody speak, then moves to the next moment at which something happens. False if there is none up to
    /// `deadline`.
    fn step(&mut self, deadline: Instant) -> Result<bool, String> {
        for leg in [Leg::Client, Leg::Server] {
            if !self.transmit(leg) {
                return Err(self.told(&format!("the {} does not stop sending", leg.name())));
            }
        }
        for (name, host) in [("client", &self.client), ("server", &self.server)] {
            if let Some(rule) = &host.broken {
                return Err(self.told(&format!("the {name} breaks a rule: {rule}")));
            }
        }
        let links = earliest(self.upstream.poll_timeout(), self.downstream.poll_timeout());
        let hosts = earliest(self.client.poll_timeout(), self.server.poll_timeout());
        let Some(next) = earliest(links, hosts).filter(|at| *at <= deadline) else { return Ok(false) };
        self.now = self.now.max(next);
        self.steps = if self.steps.0 == self.now { (self.now, self.steps.1 + 1) } else { (self.now, 0) };
        if self.steps.1 > CIRCLES {
            return Err(self.told("time stands still"));
        }
        self.deliver();
        Ok(true)
    }

    /// False if there is no end to it.
    fn transmit(&mut self, leg: Leg) -> bool {
        let mut cx = Cx::new(self.now, &mut self.sink);
        let mut cx = cx.for_leg(leg);
        let (host, link) = match leg {
            Leg::Client => (&mut self.client, &mut self.upstream),
            Leg::Server => (&mut self.server, &mut self.downstream),
        };
        let mut left = CIRCLES;
        while let Some(segment) = host.poll_transmit(&mut cx, self.caps) {
            left -= 1;
            if left == 0 {
                return false;
            }
            if let Some(error) = link.send(self.now, &segment, host.tuple().is_ipv6()) {
                host.on_icmp(&mut cx, error);
            }
        }
        host.settle(&mut cx);
        true
    }

    fn deliver(&mut self) {
        let mut cx = Cx::new(self.now, &mut self.sink);
        let ways = [
            (Leg::Server, &mut self.upstream, &mut self.server),
            (Leg::Client, &mut self.downstream, &mut self.client),
        ];
        for (leg, link, host) in ways {
            let mut cx = cx.for_leg(leg);
            while let Some(segment) = link.receive(self.now) {
                host.on_segment(&mut cx, segment);
            }
            if host.poll_timeout().is_some_and(|at| at <= self.now) {
                host.on_timeout(&mut cx);
            }
        }
    }

    fn told(&self, what: &str) -> String {
        let host = |h: &Host| {
            let state = h.connection().map(|c| c.state());
            format!("{state:?}, {:?}, {} written, {} received", h.end, h.written, h.received)
        };
        format!(
            "at {} s: {what}\n  client: {}\n  server: {}",
            self.now,
            host(&self.client),
            host(&self.server)
        )
    }
}
