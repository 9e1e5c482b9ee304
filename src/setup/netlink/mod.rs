//! Links, addresses, routes, rules and tables of nftables by netlink, in the network namespace of the thread that opens it. No external
//! program is used.

mod link;
mod message;
pub mod nft;
mod route;
mod rule;

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::Error;
pub use link::{Address, Ipv4Setting, Link};
use message::{Message, Received, attribute, messages, text, u32_at};
pub use route::{Route, RouteKind};
pub(super) use rule::Ports;
pub use rule::{Family, LocalRule, Port, Rule, RuleAction};

/// The protocol number on all our routes and rules (`ip rule show protocol 104`): what carries it is ours to remove.
pub const PROTOCOL: u8 = 104;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A connection to the kernel's routing tables.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    seq: u32,
}

impl Netlink {
    /// Opens the current network namespace.
    pub fn open() -> Result<Self, Error> {
        Self::connect(NETLINK_ROUTE).map_err(|e| Error::from_io("cannot open a netlink socket", &e))
    }

    fn connect(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Old kernels answer without a text; that is all.
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, seq: 0 })
    }

    /// Sends a request that is answered by an acknowledgement only.
    fn change(&mut self, flags: u16, build: impl FnOnce(u16) -> Message) -> io::Result<()> {
        self.exchange(build(flags | NLM_F_REQUEST | NLM_F_ACK), |_| {})
    }

    /// Sends a request for a list and calls `each` with the body of every answer.
    fn list(&mut self, build: impl FnOnce(u16) -> Message, each: impl FnMut(&[u8])) -> io::Result<()> {
        self.exchange(build(NLM_F_REQUEST | NLM_F_DUMP), each)
    }

    /// Sends requests in one datagram, of which the last but one asks for an acknowledgement.
    fn send_batch(&mut self, all: Vec<Message>) -> io::Result<()> {
        let first = self.seq + 1;
        let mut bytes = Vec::new();
        for message in all {
            self.seq += 1;
            bytes.extend(message.finish(self.seq));
        }
        self.make_room(bytes.len())?;
        self.socket.send(&bytes, 0)?;
        self.answers(first, |_| {})
    }

    /// Lets the socket send a datagram of this length, which has to fit its buffer (208 KiB by default). Beyond `wmem_max`
    /// only CAP_NET_ADMIN of the first user namespace helps; who lacks it gets as much as that is.
    fn make_room(&self, len: usize) -> io::Result<()> {
        // The kernel keeps a little for itself, and doubles what is asked for.
        if len < getsockopt(&self.socket, sockopt::SndBuf)? / 2 {
            return Ok(());
        }
        let forced = setsockopt(&self.socket, sockopt::SndBufForce, &len);
        Ok(forced.or_else(|_| setsockopt(&self.socket, sockopt::SndBuf, &len))?)
    }

    fn exchange(&mut self, message: Message, each: impl FnMut(&[u8])) -> io::Result<()> {
        self.seq += 1;
        self.socket.send(&message.finish(self.seq), 0)?;
        self.answers(self.seq, each)
    }

    /// Reads the answers to the requests from number `first` on.
    fn answers(&self, first: u32, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for answer in messages(&bytes).filter(|m| m.seq >= first) {
                match answer.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledged(answer),
                    _ => each(answer.body),
                }
            }
        }
    }
}

/// The result in an acknowledgement, with the kernel's own words where it has some.
fn acknowledged(answer: Received<'_>) -> io::Result<()> {
    let code = u32_at(answer.body, 0).map_or(0, |c| (c as i32).wrapping_neg());
    if code == 0 {
        return Ok(());
    }
    let error = io::Error::from_raw_os_error(code);
    if answer.flags & NLM_F_ACK_TLVS == 0 {
        return Err(error);
    }
    // The errno, then the header of our request, its body unless the kernel capped it, then the attributes.
    let quoted = u32_at(answer.body, 4).unwrap_or(0) as usize;
    let skip = if answer.flags & NLM_F_CAPPED != 0 { 20 } else { 4 + quoted.next_multiple_of(4) };
    let words = answer.body.get(skip..).and_then(|attrs| attribute(attrs, NLMSGERR_ATTR_MSG)).map(text);
    if let Some(words) = words {
        tracing::debug!(errno = code, "netlink: {words}");
    }
    Err(error)
}
