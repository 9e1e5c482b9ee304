//! A peer of the flow that is behind a kernel socket. It keeps to what the engine promises of sockets; what happens is up to
//! the input.

use bytes::Bytes;

use super::BUFFER;
use super::peer::pattern;
use crate::relay::{Refusal, SocketCommand, SocketEvent};
use crate::trace::Leg;

/// The engine's side of the mailbox.
#[derive(Debug)]
pub(super) struct Socket {
    leg: Leg,
    /// Both legs are sockets.
    paired: bool,
    dialled: bool,
    pub(super) connected: bool,
    /// Closed by either side: nothing happens any more.
    pub(super) gone: bool,
    /// Closed by the flow: it has nothing more to say.
    closed: bool,
    /// Bytes that may be read.
    pub(super) credit: u32,
    /// Bytes of the peer's stream that were read.
    pub(super) read: u32,
    pub(super) eof: bool,
    /// Bytes of the other peer's stream that were written.
    pub(super) written: u32,
    /// Those among them that the kernel has not taken.
    pub(super) waiting: u32,
    pub(super) shut: bool,
    /// The flow asked whether the peer lives.
    asked: bool,
    /// The flow asked to be told when the last byte has left; it is told once.
    watched: bool,
    pub(super) left: bool,
    /// What waits was written for the last time: a RST comes.
    flushed: bool,
    /// The flow was killed: bytes that cross before the engine hears of it may vanish.
    pub(super) cut_short: bool,
    /// Bytes that the peer has to send before it finishes.
    pub(super) bulk: u32,
    silent: bool,
    stalled: bool,
    /// No fault changes bytes.
    intact: bool,
}

impl Socket {
    pub(super) fn new(leg: Leg, paired: bool, intact: bool) -> Self {
        Self {
            leg,
            paired,
            dialled: false,
            connected: false,
            gone: false,
            closed: false,
            credit: 0,
            read: 0,
            eof: false,
            written: 0,
            waiting: 0,
            shut: false,
            asked: false,
            watched: false,
            left: false,
            flushed: false,
            cut_short: false,
            bulk: 0,
            silent: false,
            stalled: false,
            intact,
        }
    }

    /// The kernel has the client: the engine has a socket for it.
    pub(super) const fn accept(&mut self) {
        (self.dialled, self.connected) = (true, true);
    }

    /// True while the engine has a socket.
    pub(super) const fn is_there(&self) -> bool {
        self.dialled && !self.gone
    }

    /// True if it can have events of an open connection.
    pub(super) const fn is_open(&self) -> bool {
        self.connected && !self.gone
    }

    /// A command of the flow.
    pub(super) fn obey(&mut self, command: SocketCommand) {
        assert!(!self.closed, "{command:?} after the end");
        let ends = matches!(command, SocketCommand::Abort | SocketCommand::Close);
        let begins = matches!(command, SocketCommand::Dial { .. });
        assert!(ends || !self.flushed, "{command:?} after the last write");
        assert!(ends || begins || self.dialled, "{command:?} for no socket");
        match command {
            SocketCommand::Close => {
                let through = self.eof && self.shut && (self.waiting == 0 || self.cut_short);
                assert!(through || self.gone, "closed too early: {self:?}");
                (self.gone, self.closed) = (true, true);
            }
            SocketCommand::Abort => (self.gone, self.closed) = (true, true),
            // The engine closed it, and does not look at what comes too late.
            _ if self.gone => {}
            SocketCommand::Window(_) => {}
            SocketCommand::Silence(silent) => {
                assert_ne!(std::mem::replace(&mut self.silent, silent), silent, "silent or not as before");
            }
            SocketCommand::Stall(stalled) => {
                assert_ne!(
                    std::mem::replace(&mut self.stalled, stalled),
                    stalled,
                    "reading or not as before"
                );
            }
            SocketCommand::Dial { .. } => {
                assert!(!std::mem::replace(&mut self.dialled, true), "dialled twice");
                assert_eq!(self.leg, Leg::Server, "a client is not dialled");
            }
            SocketCommand::Read { credit } => {
                self.credit += credit;
                assert!(self.credit <= BUFFER, "credit for {} bytes", self.credit);
            }
            SocketCommand::Write { data, .. } => self.write(&data),
            SocketCommand::Shutdown => {
                // One that dials yet finishes once it is connected.
                assert!(!self.watched, "shut down too late");
                assert!(!std::mem::replace(&mut self.shut, true), "shut down twice");
            }
            SocketCommand::Flush => self.flushed = true,
            SocketCommand::Probe => {
                assert!(!self.paired, "a kernel does not tell that it was asked");
                self.asked = true;
            }
            SocketCommand::Watch => {
                assert!(self.paired && !self.shut, "watched without cause");
                assert!(!std::mem::replace(&mut self.watched, true), "watched twice");
            }
            SocketCommand::Join | SocketCommand::Part => assert!(self.paired, "the client leg is no socket"),
        }
    }

    fn write(&mut self, data: &[u8]) {
        assert!(self.connected && !self.shut && !self.watched, "a write too early or too late");
        assert!(!data.is_empty(), "a write of nothing");
        for byte in data {
            let right = *byte == pattern(self.leg.other(), self.written);
            assert!(right || !self.intact, "byte {} of the stream is {byte}", self.written);
            self.written += 1;
            self.waiting += 1;
        }
    }

    /// What happens next, if it can.
    pub(super) fn next_event(&mut self, what: u8, len: u32, how: u8) -> Option<SocketEvent> {
        if self.gone || !self.dialled {
            return None;
        }
        if !self.connected {
            return Some(self.dial_ends(what, how));
        }
        match what {
            0 => self.data(len, how & 1 == 1),
            1 => std::mem::take(&mut self.asked).then_some(SocketEvent::ProbeAnswered),
            2 => self.take(len),
            3 => self.finish(),
            4 => self.end(),
            _ => {
                self.gone = true;
                Some(SocketEvent::TimedOut)
            }
        }
    }

    pub(super) fn dial_ends(&mut self, what: u8, how: u8) -> SocketEvent {
        let (errno, refusal) = match what {
            3 => ("ECONNREFUSED", Refusal::Reset),
            4 => ("EHOSTUNREACH", Refusal::Icmp { kind: 3, code: how & 15 }),
            5 => ("ETIMEDOUT", Refusal::Silence),
            _ => {
                self.connected = true;
                return SocketEvent::Connected;
            }
        };
        self.gone = true;
        SocketEvent::Failed { errno, refusal }
    }

    /// The kernel takes bytes of the writes.
    pub(super) fn take(&mut self, most: u32) -> Option<SocketEvent> {
        let taken = most.min(self.waiting);
        self.waiting -= taken;
        (taken > 0).then_some(SocketEvent::Sent(taken))
    }

    /// The last byte of the writes has left, for one who waits for that.
    pub(super) fn leave(&mut self) -> Option<SocketEvent> {
        let leaves = self.watched && self.waiting == 0 && !std::mem::replace(&mut self.left, true);
        leaves.then_some(SocketEvent::Left)
    }

    /// The peer finishes. An engine that may read nothing does not see it.
    pub(super) fn finish(&mut self) -> Option<SocketEvent> {
        if self.paired && (self.credit == 0 || self.stalled) {
            return None;
        }
        (!std::mem::replace(&mut self.eof, true)).then_some(SocketEvent::Eof)
    }

    /// Bytes that may be read among `len` that are there.
    pub(super) fn readable(&self, len: u32) -> u32 {
        if self.eof || self.stalled { 0 } else { len.min(self.credit) }
    }

    fn data(&mut self, len: u32, urgent: bool) -> Option<SocketEvent> {
        let len = self.readable(len);
        if len == 0 {
            return None;
        }
        let data = Bytes::from_iter((self.read..self.read + len).map(|at| pattern(self.leg, at)));
        (self.read, self.credit) = (self.read + len, self.credit - len);
        Some(SocketEvent::Data { data, urgent })
    }

    /// The peer resets, or refuses.
    pub(super) fn end(&mut self) -> Option<SocketEvent> {
        if self.gone || !self.dialled {
            return None;
        }
        if !self.connected {
            return Some(self.dial_ends(3, 0));
        }
        self.gone = true;
        Some(SocketEvent::Reset)
    }
}
