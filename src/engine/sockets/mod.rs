//! Kernel sockets that are legs of flows: what a flow commands is done without waiting, and what happens is told in turn.
//!
//! Where a kernel socket as the server leg makes a difference to a direct connection:
//!
//! | what | here |
//! |---|---|
//! | the server sees | this host's address, another port, and the SYN options of its kernel |
//! | the client gives up dialling | the kernel repeats the SYN by itself until the client's next one is overdue; up to two more, three where it holds the client's SYN |
//! | a dial fails for `EPERM`, or `EACCES` over IPv4 | no ICMP error means that; the client sees `EHOSTUNREACH` |
//! | the client asks by a keepalive probe | the kernel asks the server, and the client is answered when the server has answered |
//! | the server asks by a keepalive probe | the kernel answers as long as halfopen lives |
//! | urgent data | cross with their mark; a mark that is overtaken by the next one is lost, as in any TCP |
//!
//! Where both legs are kernel sockets and nobody wants to see the bytes, many at once cross by `splice`.

mod accepting;
mod addresses;
pub(super) mod doors;
pub(super) mod errors;
mod offer;
mod probe;
mod queue;
pub(super) mod ready;
mod socket;
mod splice;
pub(super) mod sys;
mod transparent;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use hashbrown::HashMap;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slab::Slab;
use socket2::{Domain, Protocol, Type};

use crate::relay::{FlowKey, SocketCommand, SocketEvent};
use crate::time::Instant;
use crate::trace::Leg;
pub use accepting::Accepting;
pub(super) use accepting::Dialling;
pub(super) use addresses::Addresses;
use addresses::Patience;
use probe::{Probe, State};
pub use queue::{AnswerMarks, Queue, UNREACHABLE};
use ready::Ready;
use socket::{Look, MAX_READ, Socket};
use splice::Splice;
pub use transparent::{Transparent, be_transparent};
use watch::Watch;

/// Events that are handed out in a row; then the other side has its turn.
pub(super) const BURST: u32 = 64;

/// A socket that does not block, for a connection to `server`.
pub(super) fn fresh(server: SocketAddr) -> io::Result<socket2::Socket> {
    socket2::Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

/// Starts to connect.
pub(super) fn connect(socket: &socket2::Socket, server: SocketAddr) -> io::Result<()> {
    match socket.connect(&server.into()) {
        Err(e) if e.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(e),
        _ => Ok(()),
    }
}

/// True if a socket here may have this address.
pub(super) fn is_of_this_host(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// A leg of a flow.
pub(super) type At = (FlowKey, Leg);

/// How the packet filter knows whose packets go nowhere, by the mark of the socket.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The mark of sockets whose packets go their way.
    pub own: u32,
    /// That of those whose packets are lost, in both directions.
    pub silent: u32,
}

/// The sockets of one shard.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    registry: Option<Registry>,
    first_token: usize,
    sockets: Slab<Socket>,
    by_leg: HashMap<At, usize>,
    /// Sockets that may have something to do.
    ready: Ready,
    events: VecDeque<(At, SocketEvent)>,
    probes: Vec<Probe>,
    watches: Vec<Watch>,
    patience: Vec<Patience>,
    /// What cuts a connection off, where something can.
    cut: Option<Cut>,
    /// Events since the last pause.
    burst: u32,
    buf: BytesMut,
    splice: Splice,
}

/// Raises the limit of open descriptors to the most that this process may have.
pub(super) fn allow_all_descriptors() -> io::Result<()> {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?),
        _ => Ok(()),
    }
}

impl Sockets {
    /// Every second token from `first_token` on is for a socket; those between are for others.
    pub(super) fn start(&mut self, registry: Registry, first_token: usize) -> io::Result<()> {
        // Two thousand flows are more than the usual soft limit of 1024 descriptors. A command of ours keeps its own limit.
        allow_all_descriptors()?;
        self.registry = Some(registry);
        self.first_token = first_token;
        Ok(())
    }

    /// From now on connections can be cut off.
    pub(super) const fn cut_by(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Where other sockets of this shard register.
    pub(super) const fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }

    /// Dials one address after the other until one answers.
    pub(super) fn dial(&mut self, at: At, addresses: Addresses) {
        if let Some(failed) = self.dial_next(at, addresses) {
            self.events.push_back((at, failed));
        }
    }

    /// Dials the next address; the end of the dial, if there is none.
    fn dial_next(&mut self, at: At, mut addresses: Addresses) -> Option<SocketEvent> {
        while let Some(server) = addresses.pop() {
            match self.begin(at, addresses.connect(server), addresses) {
                Ok(()) => return None,
                Err((e, left)) => {
                    addresses = left;
                    addresses.failed(&e);
                }
            }
        }
        Some(addresses.end())
    }

    /// The socket of a dial, with the addresses that are left if it fails.
    fn begin(
        &mut self,
        at: At,
        socket: io::Result<socket2::Socket>,
        left: Addresses,
    ) -> Result<(), (io::Error, Addresses)> {
        match socket.and_then(|socket| self.insert(Socket::dialling(at, socket))) {
            Ok(id) => {
                if left.has_more() {
                    self.patience.push(Patience::new(at, id));
                }
                self.sockets[id].left = Some(Box::new(left));
                Ok(())
            }
            Err(e) => Err((e, left)),
        }
    }

    /// An address did not answer, or not well: the next one is dialled. The end of the dial, if there is none.
    fn give_up(&mut self, id: usize, error: &io::Error) -> Option<SocketEvent> {
        let at = self.sockets[id].at;
        let left = self.sockets[id].left.take();
        self.close(id);
        let mut left = *left?;
        left.failed(error);
        self.dial_next(at, left)
    }

    /// A client's socket becomes the client leg of its flow. Without a flow the client gets a RST.
    pub(super) fn settle(&mut self, client: Option<TcpStream>, flow: Option<FlowKey>) {
        let Some(stream) = client else { return };
        let Some(flow) = flow else {
            // The close makes the RST.
            drop(socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)));
            return;
        };
        let at = (flow, Leg::Client);
        if self.insert(Socket::accepted(at, stream)).is_err() {
            self.events.push_back((at, SocketEvent::Reset));
        }
    }

    fn insert(&mut self, mut socket: Socket) -> io::Result<usize> {
        let entry = self.sockets.vacant_entry();
        let id = entry.key();
        let token = Token(self.first_token + 2 * id);
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        if let Some(registry) = &self.registry {
            registry.register(&mut socket.stream, token, interest)?;
        }
        self.by_leg.insert(socket.at, id);
        entry.insert(socket);
        Ok(id)
    }

    fn close(&mut self, id: usize) {
        self.part(id);
        let socket = self.sockets.remove(id);
        self.by_leg.remove(&socket.at);
    }

    /// Bytes may cross between this socket and that of the other leg.
    fn join(&mut self, id: usize) {
        if let Some(&other) = self.by_leg.get(&other_leg(self.sockets[id].at)) {
            self.sockets[id].to = Some(other as u32);
            self.sockets[other].to = Some(id as u32);
        }
    }

    /// Nothing crosses any more from this socket, or to it.
    fn part(&mut self, id: usize) {
        let socket = &mut self.sockets[id];
        socket.to = None;
        if let Some(&other) = self.by_leg.get(&other_leg(socket.at)) {
            self.sockets[other].to = None;
        }
    }

    /// Carries out a command other than [`SocketCommand::Dial`].
    pub(super) fn command(&mut self, at: At, command: SocketCommand) {
        // Commands may cross with the socket's own end.
        let Some(&id) = self.by_leg.get(&at) else { return };
        let socket = &mut self.sockets[id];
        match command {
            SocketCommand::Dial { .. } => {}
            SocketCommand::Read { credit } => socket.allow(credit),
            SocketCommand::Write { data, urgent } => socket.write(data, urgent),
            SocketCommand::Flush => drop(socket.flush()),
            SocketCommand::Shutdown => socket.shut_down(),
            SocketCommand::Silence(silent) => {
                if let Some(cut) = self.cut {
                    socket.mark(if silent { cut.silent } else { cut.own }, silent);
                }
            }
            SocketCommand::Window(most) => return socket.set_window(most),
            SocketCommand::Stall(stalled) => socket.stalled = stalled,
            SocketCommand::Join => return self.join(id),
            SocketCommand::Part => return self.part(id),
            SocketCommand::Probe => {
                socket.probe();
                self.probes.retain(|probe| probe.at != at);
                self.probes.push(Probe::new(at));
            }
            SocketCommand::Watch => self.watches.push(Watch::new(at)),
            SocketCommand::Abort => {
                socket.reset_on_close();
                return self.close(id);
            }
            SocketCommand::Close => return self.close(id),
        }
        self.ready.push(id);
    }

    /// The socket of slot `id` is ready.
    pub(super) fn on_ready(&mut self, id: usize, event: &Event) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.note(event);
            self.ready.push(id);
        }
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self) -> Option<(FlowKey, Leg, SocketEvent)> {
        if pauses(&mut self.burst) {
            return None;
        }
        if let Some(((flow, leg), event)) = self.events.pop_front() {
            return Some((flow, leg, event));
        }
        while let Some(id) = self.ready.pop() {
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            let ((flow, leg), to) = (socket.at, socket.to);
            match self.look(id) {
                Look::More(event) => {
                    self.ready.push(id);
                    if let SocketEvent::Crossed { bytes, waiting } = event {
                        // As many reads as it stands for.
                        self.burst += bytes / MAX_READ as u32;
                        if let Some(to) = to.filter(|_| waiting > 0) {
                            // It has more to write, or an error to tell.
                            self.ready.push(to as usize);
                        }
                    }
                    return Some((flow, leg, event));
                }
                Look::Last(event) => {
                    self.close(id);
                    return Some((flow, leg, event));
                }
                Look::Failed(error) => {
                    if let Some(failed) = self.give_up(id, &error) {
                        return Some((flow, leg, failed));
                    }
                }
                Look::Nothing => {}
            }
        }
        self.burst = 0;
        None
    }

    fn look(&mut self, id: usize) -> Look {
        let Self { sockets, buf, splice, .. } = self;
        match sockets[id].to.and_then(|to| sockets.get2_mut(id, to as usize)) {
            Some((socket, to)) => socket.look(buf, Some(to), splice),
            None => sockets[id].look(buf, None, splice),
        }
    }

    /// The limit that was hit since the last call.
    pub(super) const fn poll_limit(&mut self) -> Option<&'static str> {
        self.splice.poll_limit()
    }

    /// True if there are events for the next turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.events.is_empty() || !self.ready.is_empty()
    }

    /// When [`Self::on_timeout`] wants to be called, besides being busy.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let watches = self.watches.iter().map(Watch::next);
        let probes = self.probes.iter().map(Probe::next);
        probes.chain(watches).chain(self.patience.iter().map(Patience::next)).min()
    }

    /// Runs what is due.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        let Self { probes, watches, by_leg, sockets, events, patience, .. } = self;
        watches.retain_mut(|watch| {
            let Some(&id) = by_leg.get(&watch.at) else { return false };
            let over = watch.is_over(now, || sockets[id].left_over());
            if over {
                events.push_back((watch.at, SocketEvent::Left));
            }
            !over
        });
        probes.retain_mut(|probe| {
            let Some(&id) = by_leg.get(&probe.at) else { return false };
            match probe.state(now) {
                State::Waiting => true,
                State::Lost => false,
                State::Look(since) => {
                    let answered = sockets[id].was_heard_within(since);
                    if answered {
                        events.push_back((probe.at, SocketEvent::ProbeAnswered));
                    }
                    !answered
                }
            }
        });
        let mut spent = Vec::new();
        patience.retain_mut(|patience| {
            let dials = sockets.get(patience.socket).is_some_and(|socket| {
                socket.at == patience.at && socket.left.as_ref().is_some_and(|left| left.has_more())
            });
            let ends = dials && patience.ends(now);
            if ends {
                spent.push(patience.socket);
            }
            dials && !ends
        });
        for id in spent {
            let at = self.sockets[id].at;
            if let Some(failed) = self.give_up(id, &Errno::ETIMEDOUT.into()) {
                self.events.push_back((at, failed));
            }
        }
    }
}

/// The other leg of the same flow.
const fn other_leg((flow, leg): At) -> At {
    (flow, leg.other())
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
