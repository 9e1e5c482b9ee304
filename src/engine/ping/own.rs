//! Attempts by our own TCP, beside the kernel's.
//!
//! ```text
//!   our TCP ── whole IP packets ─▶ raw socket ─▶ the kernel's routes and neighbours ─▶ target
//!      ▲                                                                                │
//!      └──────── packet socket ◀── copies of what comes for our ports ◀─────────────────┘
//!                                  the kernel's own TCP: a listening socket on each of them, whose filter takes nothing
//! ```
//!
//! The kernel answers a SYN-ACK that it does not expect by RST. A listening socket on our port would do the same, but a socket
//! filter that lets nothing pass discards the segment before that, in silence (`tcp_filter` in `tcp_v4_rcv`). It also keeps the
//! port from everybody else. So nothing of the machine is changed, nothing is left behind however we end, and loopback works as
//! all else does. CAP_NET_RAW is enough. What the packet socket sees has not passed this host's own packet filter yet.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};

use hashbrown::HashMap;
use mio::event::Event as Ready;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;

use super::{FIRST_FREE_TOKEN, SOURCE_PORTS, Way, dialling, on_server_leg, sys};
use crate::cx::Cx;
use crate::engine::sockets::errors;
use crate::ping::{self, Handshake, Pinger, Start};
use crate::time::Instant;
use crate::trace::{Event, FlowId, Outcome};
use crate::wire::{ChecksumMode, IcmpNote, Packet, Segment, Tuple, VnetHdr};

/// Where our attempts come from: above the ports that Linux gives to connections (32768-60999), and above those of a sidecar.
pub const PORTS: RangeInclusive<u16> = 65_000..=65_534;
/// Packets read in a row.
const BATCH: usize = 64;

/// The sockets of this way, opened.
#[derive(Debug)]
pub struct Raw {
    packets: OwnedFd,
    v4: OwnedFd,
    /// `None`: a kernel without IPv6.
    v6: Option<OwnedFd>,
}

/// Why our own TCP cannot be used here.
#[derive(Debug)]
pub struct OpenError {
    what: &'static str,
    /// What the kernel said.
    pub cause: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open a {}: {}", self.what, self.cause)
    }
}

impl std::error::Error for OpenError {}

impl Raw {
    /// Opens what needs a privilege.
    pub fn open() -> Result<Self, OpenError> {
        let error = |what| move |cause| OpenError { what, cause };
        let v6 = match sys::raw_socket(true) {
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            other => Some(other.map_err(error("raw socket"))?),
        };
        Ok(Self {
            v4: sys::raw_socket(false).map_err(error("raw socket"))?,
            v6,
            packets: sys::packet_socket(PORTS).map_err(error("packet socket"))?,
        })
    }

    /// Sends a segment as a whole packet.
    fn send(&self, tuple: Tuple, segment: &Segment, scope: Option<&u32>) -> io::Result<()> {
        let socket = if tuple.is_ipv6() { self.v6.as_ref() } else { Some(&self.v4) };
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        let (_, head) = crate::wire::emit(tuple, segment, ChecksumMode::Full);
        sys::send(socket, &head, tuple.dst.ip(), scope.copied().unwrap_or(0))
    }
}

/// Our ports, each with the socket that keeps the kernel silent about it.
#[derive(Debug)]
struct Ports {
    fresh: RangeInclusive<u16>,
    /// The one that has been idle for longest first.
    idle: VecDeque<u16>,
    kept: HashMap<u16, OwnedFd>,
}

impl Ports {
    /// A port that was never used, or else the one that has been idle for longest.
    fn take(&mut self) -> Option<u16> {
        for port in self.fresh.by_ref() {
            match sys::keep_port(port) {
                Ok(fd) => {
                    self.kept.insert(port, fd);
                    return Some(port);
                }
                // Somebody else has it, another ping perhaps.
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                // Too many descriptors are open: those that are there must do.
                Err(_) => break,
            }
        }
        self.idle.pop_front()
    }
}

/// All attempts in flight.
#[derive(Debug)]
pub(super) struct Own {
    raw: Raw,
    ports: Ports,
    /// The links of targets with link-local addresses.
    scopes: HashMap<IpAddr, u32>,
    own: ping::Own,
    buf: Vec<u8>,
}

impl Own {
    pub(super) fn new(
        raw: Raw,
        handshake: Handshake,
        secret: [u64; 2],
        registry: &Registry,
    ) -> io::Result<Self> {
        let token = Token(FIRST_FREE_TOKEN);
        registry.register(&mut SourceFd(&raw.packets.as_raw_fd()), token, Interest::READABLE)?;
        let ports = Ports { fresh: PORTS, idle: VecDeque::new(), kept: HashMap::new() };
        let scopes = HashMap::new();
        Ok(Self { raw, ports, scopes, own: ping::Own::new(handshake, secret), buf: vec![0; 1 << 16] })
    }

    /// Sends what waits. A packet that does not leave is lost, as on any link.
    fn flush(&mut self, cx: &mut Cx<'_>) {
        while let Some((tuple, segment)) = self.own.poll_transmit() {
            if let Err(e) = self.raw.send(tuple, &segment, self.scopes.get(&tuple.dst.ip())) {
                cx.emit(Event::Discarded { reason: not_sent(&e) });
            }
        }
        while let Some(port) = self.own.poll_released() {
            self.ports.idle.push_back(port);
        }
    }

    fn on_packet(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, len: usize, unfinished: bool) {
        let packet = &self.buf[..len];
        let vnet = VnetHdr { flags: if unfinished { VnetHdr::NEEDS_CSUM } else { 0 }, ..VnetHdr::default() };
        match crate::wire::parse(packet, &vnet) {
            Ok(Packet::Tcp(found)) if self.ports.kept.contains_key(&found.tuple.dst.port()) => {
                let (tuple, segment) = found.with_payload(packet);
                self.own.on_segment(cx, pinger, tuple, segment);
            }
            Ok(Packet::Icmp(note)) => self.on_icmp(cx, pinger, &note),
            Ok(_) => {}
            Err(error) => cx.emit(Event::Discarded { reason: error.reason() }),
        }
    }

    fn on_icmp(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, note: &IcmpNote) {
        if self.ports.kept.contains_key(&note.quoted.src.port()) {
            self.own.on_icmp(cx, pinger, note);
        }
    }
}

impl Way for Own {
    fn start(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, start: Start) {
        let Start { attempt, target, .. } = start;
        if let SocketAddr::V6(v6) = target
            && v6.scope_id() != 0
        {
            self.scopes.insert(target.ip(), v6.scope_id());
        }
        // Without the link, which no packet carries.
        let start = Start { target: SocketAddr::new(target.ip(), target.port()), ..start };
        match source(target) {
            Ok((ip, mss)) => match self.ports.take() {
                Some(port) => self.own.dial(cx, pinger, start, SocketAddr::new(ip, port), mss),
                None => {
                    cx.emit(Event::LimitHit { limit: SOURCE_PORTS });
                    pinger.opened(cx, start, None);
                    pinger.end(cx, attempt, Outcome::Aborted);
                }
            },
            Err(e) => {
                // Without a route a connect fails at once, as with the error of a router.
                pinger.opened(cx, start, None);
                on_server_leg(cx, attempt, dialling());
                let (kind, code) =
                    errors::unreachable(e.raw_os_error().map(Errno::from_raw), target.is_ipv6());
                on_server_leg(cx, attempt, Event::Icmp { kind, code, sent: false });
                pinger.end(cx, attempt, Outcome::RefusedIcmp);
            }
        }
        self.flush(cx);
    }

    fn on_ready(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, _: &Ready) -> io::Result<()> {
        loop {
            for _ in 0..BATCH {
                match sys::receive(&self.raw.packets, &mut self.buf) {
                    Ok((len, unfinished)) => self.on_packet(cx, pinger, len, unfinished),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.flush(cx);
                        return Ok(());
                    }
                    // The interface went down, which packet sockets tell once.
                    Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
                    Err(e) => return Err(e),
                }
            }
            self.flush(cx);
        }
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, attempt: FlowId) {
        self.own.give_up(cx, pinger, attempt);
    }

    fn on_timeout(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger) {
        self.own.on_timeout(cx, pinger);
        self.flush(cx);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.own.poll_timeout()
    }
}

/// The address that a connection to this target comes from, and the MSS that its SYN offers.
fn source(target: SocketAddr) -> io::Result<(IpAddr, u16)> {
    let (ip, mtu) = sys::route(target)?;
    let headers = if target.is_ipv6() { 60 } else { 40 };
    Ok((ip, u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX)))
}

fn not_sent(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => "this host's packet filter refused the packet",
        Some(Errno::ENOBUFS | Errno::EAGAIN) => "the device is full",
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN) => "no route",
        _ => "the kernel refused the packet",
    }
}
