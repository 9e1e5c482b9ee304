//! UDP of the command: one connected socket in the caller's network per pair of addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use hashbrown::HashMap;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use slab::Slab;

use crate::wire::datagram;

use crate::engine::sockets::{errors::unreachable, ready::Ready};

/// A flow is forgotten after this many sweeps without a datagram.
const IDLE_SWEEPS: u8 = 4;
/// Headers of a datagram that an ICMP error about it must repeat: IPv6 and UDP.
const QUOTE: usize = 40 + 8;

/// The UDP flows.
#[derive(Debug)]
pub(super) struct UdpRelay {
    flows: Slab<Flow>,
    by_addresses: HashMap<(SocketAddr, SocketAddr), usize>,
    limit: usize,
    /// Flows that may have something to read.
    ready: Ready,
    /// Errors on their way to the command.
    errors: Vec<BytesMut>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    /// The command's address.
    inside: SocketAddr,
    /// What it dialled.
    dialled: SocketAddr,
    /// The headers of its latest datagram.
    quote: Vec<u8>,
    idle_sweeps: u8,
}

/// One datagram of the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    /// The command's address.
    pub(super) src: SocketAddr,
    /// What it dialled.
    pub(super) dst: SocketAddr,
    /// Where that is outside, if anywhere.
    pub(super) outside: Option<SocketAddr>,
    /// The whole packet.
    pub(super) packet: &'a [u8],
    /// Its data.
    pub(super) payload: &'a [u8],
}

impl UdpRelay {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            flows: Slab::new(),
            by_addresses: HashMap::new(),
            limit: limit.max(1),
            ready: Ready::default(),
            errors: Vec::new(),
            scratch: vec![0; datagram::MAX_PAYLOAD],
        }
    }

    /// Sends a datagram on. `token` names the socket of a flow. True if an older flow had to go for it.
    pub(super) fn send(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
        out: Outgoing<'_>,
    ) -> bool {
        let group = |a: SocketAddr| a.ip().is_multicast() || a.ip() == Ipv4Addr::BROADCAST;
        if group(out.dst) {
            return false; // nobody outside would be meant
        }
        let (id, evicted) = match self.by_addresses.get(&(out.src, out.dst)) {
            Some(id) => (*id, false),
            None => match self.open(registry, token, out) {
                Ok(opened) => opened,
                Err(e) => {
                    self.refuse(&e, out.packet);
                    return false;
                }
            },
        };
        let flow = &mut self.flows[id];
        flow.idle_sweeps = 0;
        flow.quote.clear();
        flow.quote.extend(&out.packet[..out.packet.len().min(QUOTE)]);
        match flow.socket.send(out.payload) {
            // A full buffer loses the datagram, as it would on any other link.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => self.refuse(&e, out.packet),
            _ => {}
        }
        evicted
    }

    /// Something happened on the socket of this flow.
    pub(super) fn on_ready(&mut self, id: usize) {
        if self.flows.contains(id) {
            self.ready.push(id);
        }
    }

    /// Writes the next packet for the command to `packet`.
    pub(super) fn poll_packet(&mut self, packet: &mut BytesMut) -> bool {
        while self.errors.is_empty() {
            let Some(id) = self.ready.pop() else { return false };
            let Some(flow) = self.flows.get_mut(id) else { continue };
            match flow.socket.recv(&mut self.scratch) {
                Ok(len) => {
                    flow.idle_sweeps = 0;
                    self.ready.push(id);
                    datagram::emit_udp(flow.dialled, flow.inside, &self.scratch[..len], packet);
                    return true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => {
                    self.ready.push(id);
                    let quote = std::mem::take(&mut flow.quote);
                    self.refuse(&e, &quote);
                }
            }
        }
        if let Some(error) = self.errors.pop() {
            packet.extend_from_slice(&error);
        }
        true
    }

    /// Forgets the flows that were idle for long.
    pub(super) fn sweep(&mut self) {
        self.flows.retain(|_, flow| {
            flow.idle_sweeps += 1;
            let keep = flow.idle_sweeps <= IDLE_SWEEPS;
            if !keep {
                self.by_addresses.remove(&(flow.inside, flow.dialled));
            }
            keep
        });
    }

    /// True if [`Self::poll_packet`] may have something.
    pub(super) fn is_pending(&self) -> bool {
        !self.errors.is_empty() || !self.ready.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn open(
        &mut self,
        registry: &Registry,
        token: impl Fn(usize) -> Token,
        out: Outgoing<'_>,
    ) -> io::Result<(usize, bool)> {
        let outside = out.outside.ok_or(Errno::ECONNREFUSED)?;
        let any = if outside.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(outside)?;
        let evicted = self.flows.len() >= self.limit && self.evict();
        let entry = self.flows.vacant_entry();
        let id = entry.key();
        registry.register(&mut socket, token(id), Interest::READABLE)?;
        let (inside, dialled) = (out.src, out.dst);
        entry.insert(Flow { socket, inside, dialled, quote: Vec::new(), idle_sweeps: 0 });
        self.by_addresses.insert((inside, dialled), id);
        Ok((id, evicted))
    }

    /// Makes room: the flow that was idle longest goes.
    fn evict(&mut self) -> bool {
        let Some(id) = self.flows.iter().max_by_key(|(_, flow)| flow.idle_sweeps).map(|(id, _)| id) else {
            return false;
        };
        let flow = self.flows.remove(id);
        self.by_addresses.remove(&(flow.inside, flow.dialled)).is_some()
    }

    /// Tells the command, by an ICMP error about its packet, what our socket was told.
    fn refuse(&mut self, error: &io::Error, packet: &[u8]) {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let told = matches!(
            errno,
            Some(
                Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EACCES | Errno::EPERM
            )
        );
        if !told {
            return;
        }
        let ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let (kind, code) = unreachable(errno, ipv6);
        let mut out = BytesMut::new();
        datagram::emit_error(packet, kind, code, &mut out);
        if !out.is_empty() {
            self.errors.push(out);
        }
    }
}
