//! Attempts by kernel sockets: what needs no privilege. The kernel sends and repeats the SYN, and tells how often.

use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr};

use mio::event::Event as Ready;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::{FIRST_FREE_TOKEN, OPEN_FILES, SOURCE_PORTS, Way, dialling, on_server_leg, sys};
use crate::cx::Cx;
use crate::engine::sockets::{errors, sys::tcp_info};
use crate::ping::{Pinger, Start};
use crate::relay::Refusal;
use crate::time::Instant;
use crate::trace::{Event, FlowId, Outcome};

/// All attempts in flight.
#[derive(Debug)]
pub(super) struct Kernel {
    registry: Registry,
    sockets: Slab<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    id: FlowId,
    stream: TcpStream,
    ipv6: bool,
    connected: bool,
}

impl Kernel {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, sockets: Slab::new() }
    }

    /// Begins to connect.
    fn dial(&mut self, target: SocketAddr) -> io::Result<TcpStream> {
        let socket =
            Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        sys::want_icmp_errors(&socket, target.is_ipv6())?;
        match socket.connect(&target.into()) {
            Err(e) if e.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(e),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let token = Token(FIRST_FREE_TOKEN + self.sockets.vacant_key());
        self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    fn connected(cx: &mut Cx<'_>, pinger: &mut Pinger, attempt: &mut Attempt) {
        attempt.connected = true;
        on_server_leg(cx, attempt.id, Event::Dialled { error: None });
        attempt.tell_resent(cx, pinger);
        pinger.answered(cx, attempt.id);
        // It fails on a connection that is reset already, which the next read tells.
        let _ = attempt.stream.shutdown(Shutdown::Write);
    }

    /// The handshake has failed: that is how the attempt ends.
    fn failed(cx: &mut Cx<'_>, pinger: &mut Pinger, attempt: &Attempt, error: &io::Error) {
        attempt.tell_resent(cx, pinger);
        on_server_leg(cx, attempt.id, Event::Dialled { error: Some(errors::name(error)) });
        let icmp = sys::icmp_error(&attempt.stream);
        end_failed(cx, pinger, attempt.id, error, attempt.ipv6, icmp);
    }
}

/// `icmp` is what the network said, if it is known; else it is inferred from the error.
fn end_failed(
    cx: &mut Cx<'_>,
    pinger: &mut Pinger,
    id: FlowId,
    error: &io::Error,
    ipv6: bool,
    icmp: Option<(u8, u8)>,
) {
    let refusal = match icmp {
        Some((kind, code)) => Refusal::Icmp { kind, code },
        None => errors::refusal(error, ipv6),
    };
    let outcome = match refusal {
        Refusal::Reset => Outcome::RefusedRst,
        Refusal::Silence => Outcome::Timeout,
        Refusal::Icmp { kind, code } => {
            on_server_leg(cx, id, Event::Icmp { kind, code, sent: false });
            Outcome::RefusedIcmp
        }
    };
    pinger.end(cx, id, outcome);
}

impl Attempt {
    fn tell_resent(&self, cx: &mut Cx<'_>, pinger: &mut Pinger) {
        let count = tcp_info(&self.stream).map_or(0, |info| info.tcpi_total_retrans);
        if count > 0 {
            pinger.resent(cx, self.id, count);
        }
    }

    /// Reads and forgets what the target sends; true at its end.
    fn drain(&mut self) -> bool {
        let mut buf = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl Way for Kernel {
    fn start(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, start: Start) {
        let Start { attempt: id, target, .. } = start;
        match self.dial(target) {
            Ok(stream) => {
                pinger.opened(cx, start, stream.local_addr().ok());
                on_server_leg(cx, id, dialling());
                let attempt = Attempt { id, stream, ipv6: target.is_ipv6(), connected: false };
                self.sockets.insert(attempt);
            }
            Err(e) => {
                pinger.opened(cx, start, None);
                let limit = match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EMFILE | Errno::ENFILE) => Some(OPEN_FILES),
                    // All are taken, most of them by TIME-WAIT.
                    Some(Errno::EADDRNOTAVAIL) => Some(SOURCE_PORTS),
                    _ => None,
                };
                if let Some(limit) = limit {
                    cx.emit(Event::LimitHit { limit });
                    pinger.end(cx, id, Outcome::Aborted);
                    return;
                }
                on_server_leg(cx, id, dialling());
                on_server_leg(cx, id, Event::Dialled { error: Some(errors::name(&e)) });
                end_failed(cx, pinger, id, &e, target.is_ipv6(), None);
            }
        }
    }

    fn on_ready(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, ready: &Ready) -> io::Result<()> {
        let key = ready.token().0 - FIRST_FREE_TOKEN;
        // It may have been ended since the kernel told of it.
        let Some(attempt) = self.sockets.get_mut(key) else { return Ok(()) };
        if !attempt.connected {
            let outcome = match attempt.stream.take_error() {
                Ok(Some(e)) | Err(e) => Err(e),
                Ok(None) => attempt.stream.peer_addr().map(|_| ()),
            };
            match outcome {
                Ok(()) => Self::connected(cx, pinger, attempt),
                Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(e) => {
                    Self::failed(cx, pinger, attempt, &e);
                    self.sockets.remove(key);
                    return Ok(());
                }
            }
        }
        if attempt.drain() {
            pinger.end(cx, attempt.id, Outcome::Ok);
            self.sockets.remove(key);
        }
        Ok(())
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, pinger: &mut Pinger, attempt: FlowId) {
        let key = self.sockets.iter().find(|(_, found)| found.id == attempt).map(|(key, _)| key);
        if let Some(attempt) = key.map(|key| self.sockets.remove(key)) {
            if !attempt.connected {
                attempt.tell_resent(cx, pinger);
            }
            pinger.end(cx, attempt.id, Outcome::Timeout);
        }
    }

    fn on_timeout(&mut self, _: &mut Cx<'_>, _: &mut Pinger) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
