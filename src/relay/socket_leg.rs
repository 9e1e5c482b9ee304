//! A leg that is a kernel socket, seen from the flow: a mailbox without I/O.
//! The flow puts [`SocketCommand`]s in, the engine carries them out and answers with [`SocketEvent`]s.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::socket_command::{Refusal, SocketCommand, SocketEvent, SocketOffer};
use crate::cx::Cx;
use crate::tcp::Event;
use crate::tcp::knobs::WindowKnob;
use crate::trace::{self, State};

/// The mailbox.
#[derive(Debug, Default)]
pub struct SocketLeg {
    commands: VecDeque<SocketCommand>,
    events: VecDeque<Event>,
    received: VecDeque<Bytes>,
    /// Bytes written and not yet taken by the kernel.
    queued: u32,
    /// Credit given and not yet used.
    credit: u32,
    written: u64,
    sent: u64,
    taken: u64,
    urgent_out: u64,
    urgent_in: Option<u64>,
    shutdown: bool,
    resets: bool,
    eof: bool,
    vanished: bool,
    deaf: bool,
    silent: bool,
    /// The window that it is to offer; `None` is the kernel's own.
    window: Option<u32>,
    stalled: bool,
    /// Its listener was told what to offer, and may have been told of another flow since: what it hands down is to be set right.
    offered: bool,
    gone: bool,
    joined: bool,
    /// The state of the kernel's end, as far as its events tell.
    state: State,
}

/// Credit is renewed in steps of at least this many bytes, so that a busy flow does not command for every read.
const CREDIT_STEP: u32 = 64 << 10;

impl SocketLeg {
    /// Dials.
    #[must_use]
    pub fn dial(cx: &mut Cx<'_>, client: SocketAddr, server: SocketAddr, offer: SocketOffer) -> Self {
        let commands = VecDeque::from([SocketCommand::Dial { client, server, offer }]);
        let mut leg = Self { commands, window: offer.window, ..Self::default() };
        leg.change_state(cx, State::SynSent);
        leg
    }

    /// One that the kernel has accepted.
    #[must_use]
    pub fn accepted(cx: &mut Cx<'_>) -> Self {
        let mut leg = Self::default();
        leg.change_state(cx, State::Established);
        leg
    }

    /// One whose kernel answers the client's SYN; [`Self::accept`] follows.
    #[must_use]
    pub fn awaited(cx: &mut Cx<'_>) -> Self {
        let mut leg = Self::default();
        leg.change_state(cx, State::SynReceived);
        leg
    }

    /// The SYN-ACK that the kernel makes for it offers this.
    pub fn offer(&mut self, offer: SocketOffer) {
        self.window = offer.window;
        self.offered |= offer != SocketOffer::default();
    }

    /// The kernel has accepted the client.
    pub fn accept(&mut self, cx: &mut Cx<'_>) {
        if !self.gone {
            if self.offered {
                self.commands.push_back(SocketCommand::Window(self.window));
            }
            self.change_state(cx, State::Established);
            self.events.push_back(Event::Established);
        }
    }

    fn change_state(&mut self, cx: &mut Cx<'_>, to: State) {
        let from = std::mem::replace(&mut self.state, to);
        cx.emit(trace::Event::StateChanged { from, to });
    }

    /// Takes what the engine reports. Events of a socket that is gone are ignored.
    pub fn on_event(&mut self, cx: &mut Cx<'_>, event: SocketEvent) {
        if self.gone {
            return;
        }
        match event {
            SocketEvent::Data { .. } | SocketEvent::Eof | SocketEvent::Left if self.deaf => {}
            SocketEvent::Data { .. } | SocketEvent::Eof if self.vanished => self.abort(),
            SocketEvent::Connected => {
                cx.emit(trace::Event::Dialled { error: None });
                self.change_state(cx, State::Established);
                self.events.push_back(Event::Established);
            }
            SocketEvent::Failed { errno, refusal } => {
                cx.emit(trace::Event::Dialled { error: Some(errno) });
                self.change_state(cx, State::Closed);
                self.end(match refusal {
                    Refusal::Reset => Event::Reset,
                    Refusal::Icmp { kind, code } => Event::Unreachable { kind, code },
                    Refusal::Silence => Event::TimedOut,
                });
            }
            SocketEvent::Data { data, urgent } => {
                self.credit = self.credit.saturating_sub(data.len() as u32);
                self.taken += data.len() as u64;
                if urgent {
                    self.urgent_in = Some(self.taken);
                }
                self.received.push_back(data);
            }
            SocketEvent::Crossed { bytes, .. } => {
                self.credit = self.credit.saturating_sub(bytes);
                self.taken += u64::from(bytes);
            }
            SocketEvent::Sent(bytes) => {
                self.queued = self.queued.saturating_sub(bytes);
                self.sent += u64::from(bytes);
                self.finish();
            }
            SocketEvent::ProbeAnswered => self.events.push_back(Event::ProbeAnswered),
            SocketEvent::Left => self.abort(),
            SocketEvent::Eof => {
                self.eof = true;
                if !self.shutdown || self.resets {
                    // After our own FIN the kernel does not tell whether that is acknowledged.
                    self.change_state(cx, State::CloseWait);
                }
                self.events.push_back(Event::FinReceived);
                self.finish();
            }
            SocketEvent::Reset => {
                self.change_state(cx, State::Closed);
                self.end(Event::Reset);
            }
            SocketEvent::TimedOut => {
                self.change_state(cx, State::Closed);
                self.end(Event::TimedOut);
            }
        }
    }

    /// The next thing to do for the engine.
    pub fn poll_command(&mut self) -> Option<SocketCommand> {
        self.commands.pop_front()
    }

    /// The next event for the seam, in the words of a TCP leg.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes from the server.
    pub fn recv(&mut self) -> Option<Bytes> {
        self.received.pop_front()
    }

    /// Queues bytes for the server.
    pub fn send(&mut self, data: Bytes) {
        if self.gone || self.vanished || self.shutdown || data.is_empty() {
            return;
        }
        let start = self.written;
        self.written += data.len() as u64;
        self.queued += data.len() as u32;
        if start < self.urgent_out && self.urgent_out <= self.written {
            let mut rest = data;
            let mark = rest.split_to((self.urgent_out - start) as usize);
            self.commands.push_back(SocketCommand::Write { data: mark, urgent: true });
            if !rest.is_empty() {
                self.commands.push_back(SocketCommand::Write { data: rest, urgent: false });
            }
        } else {
            self.commands.push_back(SocketCommand::Write { data, urgent: false });
        }
    }

    /// Bytes have crossed to this socket; this many of them wait.
    pub fn note_crossed(&mut self, bytes: u32, waiting: u32) {
        if !self.gone {
            self.written += u64::from(bytes);
            self.sent += u64::from(bytes.saturating_sub(waiting));
            self.queued += waiting;
        }
    }

    /// Nobody wants to see the bytes of the flow: they may cross between the legs, until one vanishes.
    pub fn join(&mut self, other: &mut Self) {
        if !self.gone && !other.gone {
            (self.joined, other.joined) = (true, true);
            // One command for both: it costs a leg memory to have several at once.
            self.commands.push_back(SocketCommand::Join);
        }
    }

    fn part(&mut self) {
        if !self.gone && std::mem::take(&mut self.joined) {
            self.commands.push_back(SocketCommand::Part);
        }
    }

    /// Marks the byte before stream offset `offset` as urgent. Too late for bytes that were already queued.
    pub fn set_urgent(&mut self, offset: u64) {
        self.urgent_out = self.urgent_out.max(offset);
    }

    /// Stream offset just after the last urgent byte of the server.
    #[must_use]
    pub const fn urgent_received(&self) -> Option<u64> {
        self.urgent_in
    }

    /// Bytes queued for the server and not yet taken by the kernel.
    #[must_use]
    pub const fn queued(&self) -> u32 {
        self.queued
    }

    /// Lets the engine read until `bytes` more than taken by [`Self::recv`] so far are there.
    pub fn set_receive_space(&mut self, bytes: u32) {
        if self.gone {
            return;
        }
        let waiting: usize = self.received.iter().map(Bytes::len).sum();
        let more = bytes.saturating_sub(waiting as u32).saturating_sub(self.credit);
        if more >= CREDIT_STEP || (self.credit == 0 && more > 0) {
            self.credit += more;
            self.commands.push_back(SocketCommand::Read { credit: more });
        }
    }

    /// True if all that is left of it is the peer's end.
    pub const fn only_waits_for_the_end(&self) -> bool {
        !self.gone && !self.eof && self.shutdown && !self.resets && self.queued == 0
    }

    /// True until it is told how its direction ends.
    pub const fn is_unfinished(&self) -> bool {
        !self.gone && !self.vanished && !self.shutdown
    }

    /// A RST follows the queued bytes, as a FIN would: when the kernel has sent all of them.
    pub fn reset_behind(&mut self) {
        if self.is_unfinished() {
            (self.shutdown, self.resets) = (true, true);
            self.commands.push_back(SocketCommand::Watch);
        }
    }

    /// True while a RST waits for the bytes before it.
    pub const fn will_reset(&self) -> bool {
        self.resets && !self.gone
    }

    /// A FIN follows the queued bytes.
    pub fn shutdown(&mut self) {
        if self.is_unfinished() {
            self.shutdown = true;
            self.commands.push_back(SocketCommand::Shutdown);
            self.finish();
        }
    }

    /// Asks whether the server lives: [`Event::ProbeAnswered`].
    pub fn probe(&mut self) {
        if !self.gone {
            self.commands.push_back(SocketCommand::Probe);
        }
    }

    /// Hands what waits to the kernel, as far as it takes it at once: before a RST that comes behind it.
    pub fn flush(&mut self) {
        if !self.gone && self.queued > 0 {
            self.commands.push_back(SocketCommand::Flush);
        }
    }

    /// A RST, and the end; what waits is forgotten.
    pub fn abort(&mut self) {
        if !self.gone {
            self.commands.push_back(SocketCommand::Abort);
            self.end(Event::Closed);
        }
    }

    /// Silence until the server speaks, then a RST.
    pub fn vanish(&mut self) {
        self.vanished = true;
        self.part();
    }

    /// Cuts the connection off from its peer, or lets it be heard again.
    pub fn set_silent(&mut self, silent: bool) {
        if !self.gone && std::mem::replace(&mut self.silent, silent) != silent {
            self.commands.push_back(SocketCommand::Silence(silent));
        }
    }

    /// Bounds the window that the kernel offers, or has it close.
    pub fn set_window(&mut self, knob: WindowKnob) {
        let (window, stalled) = match knob {
            WindowKnob::Cap(bytes) => (Some(bytes), false),
            WindowKnob::Zero { .. } => (self.window, true),
            _ => (None, false),
        };
        if !self.gone && std::mem::replace(&mut self.window, window) != window {
            self.commands.push_back(SocketCommand::Window(window));
        }
        if !self.gone && std::mem::replace(&mut self.stalled, stalled) != stalled {
            self.commands.push_back(SocketCommand::Stall(stalled));
        }
    }

    /// Silence, whatever the peer says, until [`Self::abort`]. Where the connection cannot be cut off, its own kernel still
    /// acknowledges what it sends, until nobody has read too much of it: a socket cannot be forgotten without a RST. A dial is
    /// given up, which nobody hears.
    pub fn fall_deaf(&mut self) {
        (self.vanished, self.deaf) = (true, true);
        self.part();
        self.received.clear();
        if matches!(self.state, State::SynSent | State::SynReceived) {
            return self.abort();
        }
        self.set_silent(true);
    }

    /// The state of the kernel's end, as far as its events tell.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Bytes received from the server, and taken by the kernel for it, so far.
    #[must_use]
    pub const fn byte_counts(&self) -> (u64, u64) {
        (self.taken, self.sent)
    }

    /// True once the server's end of file has come, or the socket is closed.
    #[must_use]
    pub const fn has_finished(&self) -> bool {
        self.eof || self.gone
    }

    /// True when the socket is closed and its last command has been fetched.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone && self.commands.is_empty()
    }

    /// Closes once both directions are through.
    fn finish(&mut self) {
        if self.eof && self.shutdown && !self.resets && self.queued == 0 && !self.gone {
            self.commands.push_back(SocketCommand::Close);
            self.end(Event::Closed);
        }
    }

    fn end(&mut self, event: Event) {
        self.gone = true;
        self.queued = 0;
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
