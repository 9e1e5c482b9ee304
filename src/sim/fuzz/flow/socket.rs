//! A peer of the flow that is behind a kernel socket. It keeps to what the engine promises of sockets; what happens is up to
//! the input.

use bytes::Bytes;

use super::peer::pattern;
use crate::relay::{Refusal, SocketCommand, SocketEvent};
use crate::trace::Leg;

/// The engine's side of the mailbox.
#[derive(Debug, Default)]
pub(super) struct Socket {
    dialled: bool,
    connected: bool,
    /// Closed by either side: nothing happens any more.
    gone: bool,
    /// Closed by the flow: it has nothing more to say.
    closed: bool,
    /// Bytes that may be read.
    credit: u32,
    /// Bytes of the server's stream that were read.
    read: u32,
    eof: bool,
    /// Bytes of the client's stream that were written.
    written: u32,
    /// Those among them that the kernel has not taken.
    waiting: u32,
    shut: bool,
    /// The flow asked whether the server lives.
    asked: bool,
    /// No fault changes bytes.
    intact: bool,
}

impl Socket {
    pub(super) fn new(intact: bool) -> Self {
        Self { intact, ..Self::default() }
    }

    /// A command of the flow.
    pub(super) fn obey(&mut self, command: SocketCommand) {
        assert!(!self.closed, "{command:?} after the end");
        match command {
            SocketCommand::Abort | SocketCommand::Close => (self.gone, self.closed) = (true, true),
            // The engine closed it, and does not look at what comes too late.
            _ if self.gone => {}
            SocketCommand::Silence(_) | SocketCommand::Window(_) | SocketCommand::Stall(_) => {}
            SocketCommand::Dial { .. } => {
                assert!(!std::mem::replace(&mut self.dialled, true), "dialled twice")
            }
            SocketCommand::Read { credit } => self.credit += credit,
            SocketCommand::Write { data, .. } => {
                assert!(self.connected && !self.shut, "a write too early or too late");
                for byte in data {
                    let right = byte == pattern(Leg::Client, self.written);
                    assert!(right || !self.intact, "byte {} of the stream is {byte}", self.written);
                    self.written += 1;
                    self.waiting += 1;
                }
            }
            SocketCommand::Shutdown => assert!(!std::mem::replace(&mut self.shut, true), "shut down twice"),
            SocketCommand::Flush => {}
            SocketCommand::Probe => self.asked = true,
            SocketCommand::Join | SocketCommand::Part | SocketCommand::Watch => {
                panic!("the client leg is no socket")
            }
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
            2 => {
                let taken = len.min(self.waiting);
                self.waiting -= taken;
                (taken > 0).then_some(SocketEvent::Sent(taken))
            }
            3 => (!std::mem::replace(&mut self.eof, true)).then_some(SocketEvent::Eof),
            4 => self.end(),
            _ => {
                self.gone = true;
                Some(SocketEvent::TimedOut)
            }
        }
    }

    fn dial_ends(&mut self, what: u8, how: u8) -> SocketEvent {
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

    fn data(&mut self, len: u32, urgent: bool) -> Option<SocketEvent> {
        let len = len.min(self.credit);
        if self.eof || len == 0 {
            return None;
        }
        let data = Bytes::from_iter((self.read..self.read + len).map(|at| pattern(Leg::Server, at)));
        (self.read, self.credit) = (self.read + len, self.credit - len);
        Some(SocketEvent::Data { data, urgent })
    }

    /// The server resets, or refuses.
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
