//! One kernel socket: a leg of a flow.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;
use nix::errno::Errno;
use socket2::{SockRef, Socket as NewSocket, TcpKeepalive};

use crate::relay::SocketEvent;
use crate::wire::join_small;

use super::splice::{self, Splice};
use super::{Addresses, At, offer, sys};

/// Most bytes of one read, so that no socket keeps the others waiting.
pub(super) const MAX_READ: usize = 64 << 10;
/// Smaller reads are copied, so that a few bytes which wait for a slow client do not hold a large buffer.
const MIN_SHARED: usize = 4 << 10;
/// Slices of one write.
const MAX_SLICES: usize = 16;
/// "Never", as far as the kernel's keepalive timer goes (`MAX_TCP_KEEPINTVL`).
const LONG: Duration = Duration::from_secs(32_767);
/// `MAX_TCP_KEEPCNT`.
const MANY: u32 = 127;

/// A socket and what waits for it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) at: At,
    pub(super) stream: TcpStream,
    /// What is left to dial, until it is connected.
    pub(super) left: Option<Box<Addresses>>,
    connected: bool,
    /// Bytes that may still be read.
    credit: usize,
    /// They are not for now.
    pub(super) stalled: bool,
    /// Writes that the kernel has not taken, and whether the last byte of each is urgent.
    writes: VecDeque<(Bytes, bool)>,
    /// The mark that follows the writes.
    mark: Option<(u32, bool)>,
    /// `shutdown(SHUT_WR)` follows the writes.
    shutdown: bool,
    /// It follows, or has followed.
    ends: bool,
    /// The peer's FIN was read.
    eof: bool,
    /// The kernel reported an error that no call has returned yet.
    error: bool,
    /// A write has returned the error; what was received before it is still delivered first.
    broken: Option<SocketEvent>,
    probed: bool,
    /// The socket of the other leg, to which bytes may cross.
    pub(super) to: Option<u32>,
    /// Bytes that were told by [`SocketEvent::Data`], modulo 2^32: that many are never under way.
    told: u32,
    /// The same of writes, which are what the socket of the other leg has told.
    given: u32,
}

/// What a look at a socket gave.
#[derive(Debug)]
pub(super) enum Look {
    /// An event; the socket may have more.
    More(SocketEvent),
    /// An event after which the socket is to be closed.
    Last(SocketEvent),
    /// The server did not take the connection.
    Failed(io::Error),
    /// Nothing for now.
    Nothing,
}

impl Socket {
    /// One that connects already, without waiting.
    pub(super) fn dialling(at: At, socket: NewSocket) -> Self {
        Self::new(at, TcpStream::from_std(socket.into()), false)
    }

    /// A client's, which does not block.
    pub(super) fn accepted(at: At, stream: TcpStream) -> Self {
        Self::new(at, stream, true)
    }

    fn new(at: At, stream: TcpStream, connected: bool) -> Self {
        let socket = SockRef::from(&stream);
        // The peer's kernel has done its Nagle already; doing it twice would delay what it sent. Neither fails on a TCP socket.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_out_of_band_inline(true);
        Self {
            at,
            stream,
            left: None,
            connected,
            credit: 0,
            stalled: false,
            writes: VecDeque::new(),
            mark: None,
            shutdown: false,
            ends: false,
            eof: false,
            error: false,
            broken: None,
            probed: false,
            to: None,
            told: 0,
            given: 0,
        }
    }

    pub(super) fn allow(&mut self, credit: u32) {
        self.credit += credit as usize;
    }

    pub(super) fn write(&mut self, data: Bytes, urgent: bool) {
        self.given = self.given.wrapping_add(data.len() as u32);
        let plain = |(last, urgent): &mut (Bytes, bool)| !*urgent && join_small(last, &data);
        let joined = !urgent && self.writes.back_mut().is_some_and(plain);
        if !joined && !data.is_empty() {
            self.writes.push_back((data, urgent));
        }
    }

    pub(super) const fn shut_down(&mut self) {
        (self.shutdown, self.ends) = (true, true);
    }

    /// Notes what readiness says.
    pub(super) fn note(&mut self, event: &mio::event::Event) {
        self.error |= event.is_error();
    }

    /// Does the next thing that can be done without waiting. `buf` is scratch space; `to` is the socket to which bytes may cross.
    pub(super) fn look(&mut self, buf: &mut BytesMut, to: Option<&mut Self>, splice: &mut Splice) -> Look {
        if !self.connected {
            return self.finish_dial();
        }
        match self.flush() {
            0 => {}
            sent => return Look::More(SocketEvent::Sent(sent)),
        }
        // After an error what came before it is still read.
        if self.eof || self.credit == 0 || (self.stalled && !self.error) {
            return self.look_at_error();
        }
        let there = sys::readable(&self.stream);
        if let (Some(to), Ok(splice::BULK..)) = (to, &there)
            && let Some(crossed) = self.cross(to, splice)
        {
            return crossed;
        }
        match there.and_then(|there| self.read(buf, there)) {
            Ok(Some((data, urgent))) => Look::More(SocketEvent::Data { data, urgent }),
            Ok(None) => match self.broken.take() {
                Some(end) => Look::Last(end),
                None => {
                    self.eof = true;
                    Look::More(SocketEvent::Eof)
                }
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Look::Nothing,
            Err(e) => Look::Last(end_of(&e)),
        }
    }

    /// Has many bytes cross, if all that came before them is with the kernel of the other leg.
    fn cross(&mut self, to: &mut Self, splice: &mut Splice) -> Option<Look> {
        let in_order = self.told == to.given && to.writes.is_empty();
        if !in_order || to.ends || to.broken.is_some() || self.credit < splice::BULK {
            return None;
        }
        let crossing = match splice.cross(&self.stream, &to.stream, self.credit) {
            Ok(crossing) => crossing?,
            Err(e) => return Some(Look::Last(end_of(&e))),
        };
        match crossing.rest {
            Ok(rest) if rest.is_empty() => {}
            Ok(rest) => to.writes.push_back((rest, false)),
            Err(e) => to.broken = Some(end_of(&e)),
        }
        self.credit -= crossing.bytes;
        let (bytes, waiting) = (crossing.bytes as u32, crossing.left as u32);
        Some(Look::More(SocketEvent::Crossed { bytes, waiting }))
    }

    fn finish_dial(&mut self) -> Look {
        match self.stream.take_error() {
            // In SYN-SENT a RST gives `ECONNREFUSED`: this one came after the handshake.
            Ok(Some(e)) if e.raw_os_error() == Some(Errno::ECONNRESET as i32) => {
                self.connected = true;
                self.broken = Some(SocketEvent::Reset);
                Look::More(SocketEvent::Connected)
            }
            Ok(Some(e)) | Err(e) => Look::Failed(e),
            Ok(None) => match self.stream.peer_addr() {
                Ok(_) => {
                    self.connected = true;
                    self.left = None;
                    Look::More(SocketEvent::Connected)
                }
                Err(e) if e.kind() == io::ErrorKind::NotConnected => Look::Nothing,
                Err(e) => Look::Failed(e),
            },
        }
    }

    /// An error that neither a read nor a write would return, because there is nothing to read or write now.
    fn look_at_error(&mut self) -> Look {
        if let Some(end) = self.broken.take() {
            return Look::Last(end);
        }
        if !std::mem::take(&mut self.error) {
            return Look::Nothing;
        }
        match self.stream.take_error() {
            Ok(Some(e)) | Err(e) => Look::Last(end_of(&e)),
            Ok(None) => Look::Nothing,
        }
    }

    /// Writes what the kernel takes and returns how many bytes that were; after the last, the FIN.
    pub(super) fn flush(&mut self) -> u32 {
        let mut sent = 0;
        while !self.writes.is_empty() && self.broken.is_none() {
            match self.write_some() {
                Ok(n) => {
                    sent += n as u32;
                    self.advance(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return sent,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.broken = Some(end_of(&e)),
            }
        }
        if self.writes.is_empty()
            && let Some((mark, silent)) = self.mark.take()
        {
            let socket = SockRef::from(&self.stream);
            // It fails without `CAP_NET_ADMIN`, which it has had when the socket was made.
            let _ = socket.set_mark(mark);
            // Its kernel would give it up after about 15 minutes (`tcp_retries2`), and then answer by a RST.
            let _ = socket.set_tcp_user_timeout(silent.then_some(LONG));
        }
        if self.writes.is_empty() && std::mem::take(&mut self.shutdown) {
            // It fails on a socket that is reset, which the next read tells.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        sent
    }

    fn write_some(&mut self) -> io::Result<usize> {
        match self.writes.front() {
            Some((data, true)) if data.len() == 1 => SockRef::from(&self.stream).send_out_of_band(data),
            Some((data, true)) => self.stream.write(&data[..data.len() - 1]),
            _ => {
                let plain = self.writes.iter().take_while(|(_, urgent)| !urgent).take(MAX_SLICES);
                let slices: Vec<IoSlice<'_>> = plain.map(|(data, _)| IoSlice::new(data)).collect();
                self.stream.write_vectored(&slices)
            }
        }
    }

    /// Forgets the first `n` bytes of the writes.
    fn advance(&mut self, mut n: usize) {
        while let Some((data, _)) = self.writes.front_mut() {
            if n < data.len() {
                data.advance(n);
                return;
            }
            n -= data.len();
            self.writes.pop_front();
        }
    }

    /// Reads once what was there; `None` is the end of the stream. A read stops by itself before an urgent byte.
    fn read(&mut self, buf: &mut BytesMut, mut there: usize) -> io::Result<Option<(Bytes, bool)>> {
        let socket = self.stream.as_fd();
        let (n, urgent) = loop {
            // After the question what is there: what comes after this one may be urgent, and is left for the next read.
            let urgent = sys::at_urgent_byte(socket)?;
            let most = if urgent { 1 } else { self.credit.min(MAX_READ).min(there) };
            buf.clear();
            buf.reserve(most);
            let received = match most {
                0 if sys::has_more(socket)? => {
                    there = sys::readable(socket)?;
                    continue;
                }
                0 => Ok(0),
                _ => sys::receive(socket, buf, most),
            };
            match received {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break (result?, urgent),
            }
        };
        self.credit -= n;
        self.told = self.told.wrapping_add(n as u32);
        Ok(match n {
            0 => None,
            n if n < MIN_SHARED => Some((Bytes::copy_from_slice(buf), urgent)),
            _ => Some((buf.split().freeze(), urgent)),
        })
    }

    /// Makes the kernel ask the peer whether it lives, by one keepalive probe now.
    pub(super) fn probe(&mut self) {
        let socket = SockRef::from(&self.stream);
        if !std::mem::replace(&mut self.probed, true) {
            // No probes but those that the other side asks for, and no end other than its.
            let quiet = TcpKeepalive::new().with_time(LONG).with_interval(LONG).with_retries(MANY);
            let _ = socket.set_tcp_keepalive(&quiet);
        }
        // Every setting of this value starts the timer anew; one second of silence is long over when a host probes.
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(1)));
    }

    /// True if the peer has said something, if only an ACK, within this time.
    pub(super) fn was_heard_within(&self, time: Duration) -> bool {
        let heard = sys::last_ack(&self.stream).ok().flatten();
        heard.is_some_and(|ms| Duration::from_millis(ms.into()) <= time)
    }

    /// Bytes of its writes that are not on their way yet.
    pub(super) fn left_over(&self) -> usize {
        let writes: usize = self.writes.iter().map(|(data, _)| data.len()).sum();
        writes + sys::unsent(&self.stream).unwrap_or(0)
    }

    /// What it sends has this mark, once the writes are through; as one of those that hear nothing, or not.
    pub(super) const fn mark(&mut self, mark: u32, silent: bool) {
        self.mark = Some((mark, silent));
    }

    /// Offers about this many bytes, or as many as the kernel likes.
    pub(super) fn set_window(&self, most: Option<u32>) {
        offer::set_window(&SockRef::from(&self.stream), most);
    }

    /// Makes the close that follows a RST.
    pub(super) fn reset_on_close(&self) {
        // It fails on no socket, and if it did, the close would still end the connection.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// How an open connection ended.
fn end_of(error: &io::Error) -> SocketEvent {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNRESET | Errno::EPIPE) => SocketEvent::Reset,
        _ => SocketEvent::TimedOut,
    }
}
