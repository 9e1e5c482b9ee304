//! Kernel sockets as server legs: what the flows want is done with them, and what happens to them is told. For exec and
//! listen mode.
//!
//! Where a kernel socket makes a difference to a direct connection:
//!
//! | what | here |
//! |---|---|
//! | the server sees | this host's address, another port, and the SYN options of its kernel |
//! | the client gives up dialling | the kernel repeats the SYN by itself until the client's next one is overdue; up to two more |
//! | a dial fails for `EPERM`, or `EACCES` over IPv4 | no ICMP error means that; the client sees `EHOSTUNREACH` |
//! | the client asks by a keepalive probe | the kernel asks the server, and the client is answered when the server has answered |
//! | the server asks by a keepalive probe | the kernel answers as long as halfopen lives |
//! | urgent data | cross with their mark; a mark that is overtaken by the next one is lost, as in any TCP |

mod dial;
pub(super) mod errors;
mod probe;
pub(super) mod ready;
mod socket;
mod sys;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use hashbrown::HashMap;
use mio::event::Event;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slab::Slab;

use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;

pub(super) use dial::Dial;
use dial::Patience;
use probe::{Probe, State};
use ready::Ready;
use socket::{Look, Socket};

/// Events that are handed out in a row; then the other side has its turn.
const BURST: u32 = 64;

/// The sockets of one shard. Their tokens are every other one from the first: the owner has those between.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    registry: Option<Registry>,
    first_token: usize,
    sockets: Slab<Socket>,
    by_flow: HashMap<FlowKey, usize>,
    /// Sockets that may have something to do.
    ready: Ready,
    events: VecDeque<(FlowKey, SocketEvent)>,
    probes: Vec<Probe>,
    patience: Vec<Patience>,
    /// Events since the last pause.
    burst: u32,
    buf: BytesMut,
}

impl Sockets {
    /// Called once, before the loop.
    pub(super) fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        // Two thousand flows are more than the usual soft limit of 1024 descriptors. A command keeps its own limit.
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard
        {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        self.registry = Some(registry);
        self.first_token = first_token;
        Ok(())
    }

    /// Where to register further descriptors, and the token of the how-manieth of them.
    pub(super) fn others(&self) -> Option<(&Registry, impl Fn(usize) -> Token + use<>)> {
        let first = self.first_token;
        Some((self.registry.as_ref()?, move |id| Token(first + 2 * id + 1)))
    }

    /// Dials, one address after the other until one answers.
    pub(super) fn dial(&mut self, flow: FlowKey, dial: Dial) {
        if let Some(failed) = self.dial_next(flow, dial) {
            self.events.push_back((flow, failed));
        }
    }

    /// Dials the next address; the end of the dial, if there is none.
    fn dial_next(&mut self, flow: FlowKey, mut dial: Dial) -> Option<SocketEvent> {
        while let Some(server) = dial.pop() {
            match self.open(flow, server, dial) {
                Ok(()) => return None,
                Err((e, failed)) => {
                    dial = failed;
                    dial.failed(&e);
                }
            }
        }
        Some(dial.end())
    }

    fn open(&mut self, flow: FlowKey, server: SocketAddr, dial: Dial) -> Result<(), (io::Error, Dial)> {
        let has_more = dial.has_more();
        let mut socket = match Socket::dial(flow, server) {
            Ok(socket) => socket,
            Err(e) => return Err((e, dial)),
        };
        let entry = self.sockets.vacant_entry();
        let id = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        if let Some(registry) = &self.registry
            && let Err(e) = registry.register(&mut socket.stream, Token(self.first_token + 2 * id), interest)
        {
            return Err((e, dial));
        }
        socket.dial = Some(Box::new(dial));
        self.by_flow.insert(flow, id);
        entry.insert(socket);
        if has_more {
            self.patience.push(Patience::new(flow, id));
        }
        Ok(())
    }

    fn close(&mut self, id: usize) -> Socket {
        let socket = self.sockets.remove(id);
        self.by_flow.remove(&socket.flow);
        socket
    }

    /// Carries out a command of a flow; a dial is [`Self::dial`].
    pub(super) fn command(&mut self, flow: FlowKey, command: SocketCommand) {
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
                self.close(id);
                return;
            }
            SocketCommand::Close => {
                self.close(id);
                return;
            }
        }
        self.ready.push(id);
    }

    /// A descriptor is ready: one of the sockets, or else the how-manieth of the owner's.
    pub(super) fn on_ready(&mut self, event: &Event) -> Option<usize> {
        let slot = event.token().0.checked_sub(self.first_token)?;
        let id = slot / 2;
        if slot % 2 == 1 {
            return Some(id);
        }
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.note(event);
            self.ready.push(id);
        }
        None
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self) -> Option<(FlowKey, SocketEvent)> {
        if pauses(&mut self.burst) {
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
                Look::Failed(error) => {
                    if let Some(failed) = self.give_up(id, &error) {
                        return Some((flow, failed));
                    }
                }
                Look::Nothing => {}
            }
        }
        self.burst = 0;
        None
    }

    /// An address did not answer, or not well: the next one is dialled. The end of the dial, if there is none.
    fn give_up(&mut self, id: usize, error: &io::Error) -> Option<SocketEvent> {
        let mut socket = self.close(id);
        let flow = socket.flow;
        let mut dial = *socket.dial.take()?;
        drop(socket);
        dial.failed(error);
        self.dial_next(flow, dial)
    }

    /// When [`Self::on_timeout`] wants to be called; a time in the past if events are left for the next turn.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if !self.events.is_empty() || !self.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        let patience = self.patience.iter().map(Patience::next);
        self.probes.iter().map(Probe::next).chain(patience).min()
    }

    /// Runs what is due.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        let Self { probes, by_flow, sockets, events, patience, .. } = self;
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
        let mut spent = Vec::new();
        patience.retain_mut(|patience| {
            let dials = sockets.get(patience.socket).is_some_and(|socket| {
                socket.flow == patience.flow && socket.dial.as_ref().is_some_and(|dial| dial.has_more())
            });
            let ends = dials && patience.ends(now);
            if ends {
                spent.push(patience.socket);
            }
            dials && !ends
        });
        for id in spent {
            let flow = self.sockets[id].flow;
            if let Some(failed) = self.give_up(id, &Errno::ETIMEDOUT.into()) {
                self.events.push_back((flow, failed));
            }
        }
    }
}

/// Counts one more of a burst; true if it is time for a pause, which begins a new one.
pub(super) fn pauses(burst: &mut u32) -> bool {
    *burst += 1;
    let pause = *burst > BURST;
    if pause {
        *burst = 0;
    }
    pause
}

#[cfg(test)]
mod tests;
