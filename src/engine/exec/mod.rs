//! The caller's network behind an `exec` command: kernel sockets for its TCP flows, a relay for its UDP, and an answer to
//! pings of the gateway.
//!
//! Where a kernel socket makes a difference to a direct connection:
//!
//! | what | here |
//! |---|---|
//! | the server sees | the caller's address, another port, and the SYN options of the caller's kernel |
//! | the client gives up dialling | the kernel repeats the SYN by itself until the client's next one is overdue; up to two more |
//! | a dial fails for `EPERM`, or `EACCES` over IPv4 | no ICMP error means that; the client sees `EHOSTUNREACH` |
//! | the client asks by a keepalive probe | the kernel asks the server, and the client is answered when the server has answered |
//! | the server asks by a keepalive probe | the kernel answers as long as halfopen lives |
//! | urgent data | cross with their mark; a mark that is overtaken by the next one is lost, as in any TCP |

pub mod address;
mod errors;
mod probe;
mod ready;
mod socket;
mod sys;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use hashbrown::HashMap;
use mio::event::Event;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slab::Slab;

use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;
use crate::wire::datagram::{self, Datagram};

use super::Outside;
pub use address::{AddressMap, HostLoopback};
use probe::{Probe, State};
use ready::Ready;
use socket::{Look, Socket};
use udp::{Outgoing, UdpRelay};

/// How often idle UDP flows are looked for. They are forgotten after 60 to 75 seconds.
const SWEEP: Duration = Duration::from_secs(15);
/// Answers to pings that wait to be sent.
const MAX_ECHOES: usize = 64;
/// Events, and packets, that are handed out in a row; then the other side has its turn.
const BURST: u32 = 64;

/// The caller's network.
#[derive(Debug)]
pub struct Caller {
    addresses: AddressMap,
    registry: Option<Registry>,
    first_token: usize,
    sockets: Slab<Socket>,
    by_flow: HashMap<FlowKey, usize>,
    /// Sockets that may have something to do.
    ready: Ready,
    events: VecDeque<(FlowKey, SocketEvent)>,
    probes: Vec<Probe>,
    /// Events and packets since the last pause.
    event_burst: u32,
    packet_burst: u32,
    udp: UdpRelay,
    udp_limit_hit: bool,
    echoes: VecDeque<BytesMut>,
    next_sweep: Option<Instant>,
    buf: BytesMut,
}

impl Caller {
    /// `udp_flows` is the most UDP flows at a time (`limits.udp_flows`).
    #[must_use]
    pub fn new(addresses: AddressMap, udp_flows: usize) -> Self {
        Self {
            addresses,
            registry: None,
            first_token: 0,
            sockets: Slab::new(),
            by_flow: HashMap::new(),
            ready: Ready::default(),
            events: VecDeque::new(),
            probes: Vec::new(),
            event_burst: 0,
            packet_burst: 0,
            udp: UdpRelay::new(udp_flows),
            udp_limit_hit: false,
            echoes: VecDeque::new(),
            next_sweep: None,
            buf: BytesMut::new(),
        }
    }

    fn dial(&mut self, flow: FlowKey, server: SocketAddr) {
        if let Err(e) = self.open(flow, server) {
            let refusal = errors::refusal(&e, server.is_ipv6());
            self.events.push_back((flow, SocketEvent::Failed { errno: errors::name(&e), refusal }));
        }
    }

    fn open(&mut self, flow: FlowKey, server: SocketAddr) -> io::Result<()> {
        let outside = self.addresses.outside(server).ok_or(Errno::ECONNREFUSED)?;
        let mut socket = Socket::dial(flow, outside, server.is_ipv6())?;
        let entry = self.sockets.vacant_entry();
        let token = Token(self.first_token + 2 * entry.key());
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        if let Some(registry) = &self.registry {
            registry.register(&mut socket.stream, token, interest)?;
        }
        self.by_flow.insert(flow, entry.key());
        entry.insert(socket);
        Ok(())
    }

    fn close(&mut self, id: usize) {
        let socket = self.sockets.remove(id);
        self.by_flow.remove(&socket.flow);
    }
}

impl Outside for Caller {
    fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        // Two thousand flows are more than the usual soft limit of 1024 descriptors. The command keeps its own limit.
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard
        {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        self.registry = Some(registry);
        self.first_token = first_token;
        Ok(())
    }

    fn command(&mut self, flow: FlowKey, command: SocketCommand) {
        if let SocketCommand::Dial { server } = command {
            return self.dial(flow, server);
        }
        // Commands may cross with the socket's own end.
        let Some(&id) = self.by_flow.get(&flow) else { return };
        let socket = &mut self.sockets[id];
        match command {
            SocketCommand::Dial { .. } => {}
            SocketCommand::Read { credit } => socket.allow(credit),
            SocketCommand::Write { data, urgent } => socket.write(data, urgent),
            SocketCommand::Shutdown => socket.shut_down(),
            SocketCommand::Probe => {
                socket.probe();
                self.probes.retain(|probe| probe.flow != flow);
                self.probes.push(Probe::new(flow));
            }
            SocketCommand::Abort => {
                socket.reset_on_close();
                return self.close(id);
            }
            SocketCommand::Close => return self.close(id),
        }
        self.ready.push(id);
    }

    fn on_ready(&mut self, event: &Event) {
        let Some(slot) = event.token().0.checked_sub(self.first_token) else { return };
        let id = slot / 2;
        if slot % 2 == 1 {
            self.udp.on_ready(id);
        } else if let Some(socket) = self.sockets.get_mut(id) {
            socket.note(event);
            self.ready.push(id);
        }
    }

    fn poll_event(&mut self) -> Option<(FlowKey, SocketEvent)> {
        if pauses(&mut self.event_burst) {
            return None;
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        while let Some(id) = self.ready.pop() {
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            let flow = socket.flow;
            match socket.look(&mut self.buf) {
                Look::More(event) => {
                    self.ready.push(id);
                    return Some((flow, event));
                }
                Look::Last(event) => {
                    self.close(id);
                    return Some((flow, event));
                }
                Look::Nothing => {}
            }
        }
        self.event_burst = 0;
        None
    }

    fn on_packet(&mut self, now: Instant, packet: &[u8], needs_csum: bool) {
        match datagram::parse(packet, needs_csum) {
            Ok(Some(Datagram::Udp { src, dst, payload })) => {
                let Some(registry) = &self.registry else { return };
                let first = self.first_token;
                let outside = self.addresses.outside(dst);
                let out = Outgoing { src, dst, outside, packet, payload: &packet[payload] };
                self.udp_limit_hit |= self.udp.send(registry, |id| Token(first + 2 * id + 1), out);
                self.next_sweep.get_or_insert(now + SWEEP);
            }
            Ok(Some(Datagram::Echo { src, dst, message })) => {
                if address::is_gateway(dst) && self.echoes.len() < MAX_ECHOES {
                    let mut reply = BytesMut::new();
                    datagram::emit_echo_reply(src, dst, &packet[message], &mut reply);
                    self.echoes.push_back(reply);
                }
            }
            // Router solicitations, multicast listener reports and the like: there is nobody to hear them.
            Ok(None) | Err(_) => {}
        }
    }

    fn poll_packet(&mut self, packet: &mut BytesMut) -> bool {
        packet.clear();
        if pauses(&mut self.packet_burst) {
            return false;
        }
        if let Some(reply) = self.echoes.pop_front() {
            packet.extend_from_slice(&reply);
            return true;
        }
        let any = self.udp.poll_packet(packet);
        if !any {
            self.packet_burst = 0;
        }
        any
    }

    fn poll_limit(&mut self) -> Option<&'static str> {
        std::mem::take(&mut self.udp_limit_hit).then_some("limits.udp_flows")
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let pending = !self.events.is_empty() || !self.ready.is_empty() || self.udp.is_pending();
        if pending {
            return Some(Instant::ZERO);
        }
        self.probes.iter().map(Probe::next).chain(self.next_sweep).min()
    }

    fn on_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_some_and(|at| at <= now) {
            self.udp.sweep();
            self.next_sweep = (!self.udp.is_empty()).then(|| now + SWEEP);
        }
        let Self { probes, by_flow, sockets, events, .. } = self;
        probes.retain_mut(|probe| {
            let Some(&id) = by_flow.get(&probe.flow) else { return false };
            match probe.state(now) {
                State::Waiting => true,
                State::Lost => false,
                State::Look(since) => {
                    let answered = sockets[id].was_heard_within(since);
                    if answered {
                        events.push_back((probe.flow, SocketEvent::ProbeAnswered));
                    }
                    !answered
                }
            }
        });
    }
}

/// Counts one more of a burst; true if it is time for a pause, which begins a new one.
fn pauses(burst: &mut u32) -> bool {
    *burst += 1;
    let pause = *burst > BURST;
    if pause {
        *burst = 0;
    }
    pause
}

#[cfg(test)]
mod tests;
