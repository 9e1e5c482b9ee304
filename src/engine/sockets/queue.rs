//! First SYNs that wait in the kernel until it is known what their servers say (NFQUEUE): only then their client is answered,
//! so that who is refused was never connected.
//!
//! A rule of the packet filter puts them here. What it does with one afterwards depends on the mark that it gets here, as the
//! rules are asked once more for it.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use bytes::Bytes;
use hashbrown::HashMap;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::SockRef;

use super::{offer, pauses};
use crate::engine::Answer;
use crate::relay::SocketOffer;
use crate::time::{Duration, Instant};
use crate::wire::{Packet, Segment, Tuple, VnetHdr};

const HEADER: usize = 16;
/// `struct nfgenmsg`.
const GENERIC: usize = 4;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLMSG_ERROR: u16 = 2;
/// `NFNL_SUBSYS_QUEUE`, as the high byte of a message's type.
const QUEUE: u16 = 3 << 8;
const NFQNL_MSG_PACKET: u16 = QUEUE;
const NFQNL_MSG_VERDICT: u16 = QUEUE | 1;
const NFQNL_MSG_CONFIG: u16 = QUEUE | 2;
const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_REPEAT: u32 = 4;
/// A SYN with the data of TCP Fast Open, and what the kernel says of it.
const MAX_MESSAGE: usize = 128 << 10;
/// SYNs that are held at once: as many as `limits.half_open` has by default. The oldest gives way, and its client repeats it.
const MOST: usize = 16_384;
/// Nobody answers a SYN that is held for longer: no client waits so long for an answer (`tcp_syn_retries` = 6: 127 s), nor does a
/// fault.
const LONGEST: Duration = Duration::from_secs(310);
/// Room for those that have not been read yet.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The codes of "destination unreachable" that can be had, of IPv4 and of IPv6: those that Linux has an errno for.
pub const UNREACHABLE: [&[u8]; 2] = [&[0, 1, 2, 3, 5, 7, 8, 13], &[0, 1, 3, 4]];
/// What stands for any other error: that the host cannot be reached.
const HOST: [u8; 2] = [1, 3];

/// The marks by which the rules of the packet filter know what becomes of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerMarks {
    /// It goes to our listener.
    pub answered: u32,
    /// It goes to our listener whose SYN-ACK offers what the answer says.
    pub offered: u32,
    /// It is answered by a RST.
    pub reset: u32,
    /// It is answered by an ICMP error (destination unreachable) with the code that is added to this.
    pub unreachable: u32,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    socket: Socket,
    number: u16,
    marks: AnswerMarks,
    /// Listeners that offer what they are told to.
    offering: Vec<TcpListener>,
    buf: Vec<u8>,
    /// The number of the newest SYN with these addresses.
    held: HashMap<Tuple, u32>,
    /// In the order in which they came; those that are held no more are left in for a while.
    order: VecDeque<(Tuple, u32, Instant)>,
    /// Readiness is edge-triggered.
    readable: bool,
    burst: u32,
    /// The kernel had no room for a SYN.
    overflowed: bool,
}

impl Queue {
    /// Takes the queue of this number in the network namespace of this thread.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, and if another program has it; `EINVAL` if the kernel has no such queues.
    pub fn bind(number: u16, marks: AnswerMarks) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // `CAP_NET_ADMIN` is needed anyway; less room means that fewer may come at once.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        let mut queue = Self {
            socket,
            number,
            marks,
            offering: Vec::new(),
            buf: vec![0; MAX_MESSAGE],
            held: HashMap::new(),
            order: VecDeque::new(),
            readable: true,
            burst: 0,
            overflowed: false,
        };
        queue.configure(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0])?;
        let [a, b, c, d] = 0xffff_u32.to_be_bytes();
        queue.configure(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET])?;
        queue.configure(NFQA_CFG_QUEUE_MAXLEN, &(2 * MOST as u32).to_be_bytes())?;
        queue.socket.set_non_blocking(true)?;
        Ok(queue)
    }

    /// From now on these listeners, and no others, answer where it is said what to offer.
    pub fn offer_by(&mut self, listeners: Vec<TcpListener>) {
        self.offering = listeners;
    }

    /// What tells when there are SYNs.
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) const fn on_ready(&mut self) {
        self.readable = true;
    }

    /// True if SYNs may wait for the next turn.
    pub(super) const fn is_busy(&self) -> bool {
        self.readable
    }

    /// True if SYNs were lost since the last call, because too many came at once.
    pub(super) const fn has_overflowed(&mut self) -> bool {
        std::mem::replace(&mut self.overflowed, false)
    }

    /// The next SYN. It is held until [`Self::answer`], or until its client repeats it.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(Tuple, Segment)> {
        if pauses(&mut self.burst) {
            return None;
        }
        while self.readable {
            match recv(self.socket.as_raw_fd(), &mut self.buf, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => {
                    if let Some(syn) = self.take(len, now) {
                        return Some(syn);
                    }
                }
                Err(Errno::ENOBUFS) => self.overflowed = true,
                Err(Errno::EINTR) => {}
                Err(_) => self.readable = false,
            }
        }
        self.burst = 0;
        None
    }

    /// Tells the kernel what becomes of the newest SYN with these addresses. Without one it is heard when the next one comes.
    pub(super) fn answer(&mut self, syn: Tuple, answer: Answer) {
        let Some(id) = self.held.remove(&syn) else { return };
        let AnswerMarks { answered, offered, reset, unreachable } = self.marks;
        match answer {
            Answer::Accept(offer) if offer == SocketOffer::default() => {
                self.judge(id, NF_REPEAT, Some(answered));
            }
            Answer::Accept(offer) => {
                self.offering.iter().for_each(|door| offer::of_door(&SockRef::from(door), offer));
                // The kernel makes the SYN-ACK before this returns.
                self.judge(id, NF_REPEAT, Some(offered));
            }
            Answer::Reset => self.judge(id, NF_REPEAT, Some(reset)),
            Answer::Unreachable(code) => {
                let family = usize::from(syn.dst.is_ipv6());
                let code = code.filter(|code| UNREACHABLE[family].contains(code)).unwrap_or(HOST[family]);
                self.judge(id, NF_REPEAT, Some(unreachable + u32::from(code)));
            }
            Answer::Pass => self.judge(id, NF_ACCEPT, None),
            Answer::Drop => self.judge(id, NF_DROP, None),
        }
    }

    /// The packet in a datagram of the kernel, which holds one message.
    fn take(&mut self, len: usize, now: Instant) -> Option<(Tuple, Segment)> {
        let message = &self.buf[..len];
        let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
        let attributes = message.get(HEADER + GENERIC..).filter(|_| kind == NFQNL_MSG_PACKET)?;
        let id = attribute(attributes, NFQA_PACKET_HDR)?.first_chunk().map(|id| u32::from_be_bytes(*id))?;
        let packet = attribute(attributes, NFQA_PAYLOAD).unwrap_or_default();
        let tcp = match crate::wire::parse(packet, &VnetHdr::default()) {
            Ok(Packet::Tcp(tcp)) => tcp,
            other => {
                // What only the kernel can read goes on.
                self.judge(id, if other.is_ok() { NF_ACCEPT } else { NF_DROP }, None);
                return None;
            }
        };
        let mut segment = tcp.segment;
        segment.payload = Bytes::copy_from_slice(&packet[tcp.payload]).into();
        self.hold(tcp.tuple, id, now);
        Some((tcp.tuple, segment))
    }

    fn hold(&mut self, tuple: Tuple, id: u32, now: Instant) {
        if let Some(before) = self.held.insert(tuple, id) {
            self.judge(before, NF_DROP, None);
        }
        self.order.push_back((tuple, id, now));
        while let Some(&(tuple, id, since)) = self.order.front() {
            let is_held = self.held.get(&tuple) == Some(&id);
            let full = self.held.len() > MOST;
            if is_held && !full && now.since(since) < LONGEST {
                break;
            }
            self.order.pop_front();
            if is_held {
                self.overflowed |= full;
                self.answer(tuple, Answer::Drop);
            }
        }
        if self.order.len() > 2 * MOST {
            let held = &self.held;
            self.order.retain(|(tuple, id, _)| held.get(tuple) == Some(id));
        }
    }

    fn judge(&self, id: u32, verdict: u32, mark: Option<u32>) {
        let mut message = self.message(NFQNL_MSG_VERDICT, NLM_F_REQUEST);
        push(&mut message, NFQA_VERDICT_HDR, &[verdict.to_be_bytes(), id.to_be_bytes()].concat());
        if let Some(mark) = mark {
            push(&mut message, NFQA_MARK, &mark.to_be_bytes());
        }
        // It fails for a SYN that the kernel has dropped meanwhile, as when its interface has gone.
        let _ = self.socket.send(&finished(message), 0);
    }

    fn configure(&mut self, attribute: u16, value: &[u8]) -> io::Result<()> {
        let mut message = self.message(NFQNL_MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK);
        push(&mut message, attribute, value);
        self.socket.send(&finished(message), 0)?;
        loop {
            let len = recv(self.socket.as_raw_fd(), &mut self.buf, MsgFlags::empty())?;
            let answer = &self.buf[..len];
            let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
            let code = answer.get(HEADER..).and_then(|body| body.first_chunk()).copied();
            // A packet may come before the acknowledgement; its rule is made later.
            if let (Some(NLMSG_ERROR), Some(code)) = (kind, code) {
                return match i32::from_ne_bytes(code) {
                    0 => Ok(()),
                    code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                };
            }
        }
    }

    /// The headers of a message about this queue.
    fn message(&self, kind: u16, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + GENERIC];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[HEADER + 2..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }
}

/// Appends an attribute.
fn push(message: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    message.extend_from_slice(&attribute.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn finished(mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message
}

/// The first attribute of this type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [l0, l1, k0, k1] = *bytes.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..len)?;
        if u16::from_ne_bytes([k0, k1]) & 0x3fff == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back_and_broken_ones_are_none() {
        let mut message = Vec::new();
        push(&mut message, NFQA_PACKET_HDR, &[0, 0, 0, 7, 8]);
        push(&mut message, NFQA_PAYLOAD, b"packet");
        assert_eq!(attribute(&message, NFQA_PACKET_HDR), Some(&[0, 0, 0, 7, 8][..]));
        assert_eq!(attribute(&message, NFQA_PAYLOAD), Some(&b"packet"[..]));
        assert_eq!(attribute(&message, NFQA_MARK), None);
        for broken in [&[][..], &[3, 0, 10, 0], &[0, 0, 10, 0], &[200, 0, 10, 0, 9], &[4]] {
            assert_eq!(attribute(broken, NFQA_PAYLOAD), None, "{broken:?}");
        }
    }
}
