//! Our own end of a leg, inferred from its segments. A capture has no events; but it has both what reached our TCP and what
//! this has sent, and by RFC 9293 §3.3.2 little else moves the state.

use crate::trace::{SegmentNote, State};
use crate::wire::{Flags, SeqNum};

/// Our end of a leg.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) state: State,
    /// The number after our SYN.
    after_syn: Option<SeqNum>,
    /// The number after our FIN.
    after_fin: Option<SeqNum>,
    /// SND.NXT.
    sent: Option<SeqNum>,
    /// RCV.NXT.
    next: Option<SeqNum>,
    /// The number of the peer's FIN, until everything before it is there.
    fin: Option<SeqNum>,
}

/// Changes of the state, in their order.
pub(super) type Changes = arrayvec::ArrayVec<(State, State), 4>;

impl Own {
    /// True for a segment of a fault that moves our state as if our TCP had sent it: it has, when a fault made it finish or
    /// reset. A number that is not the next one is of the fault's own making.
    pub(super) fn has_made(&self, note: &SegmentNote) -> bool {
        let exact = self.sent.is_none_or(|sent| sent == note.seq);
        note.flags.has(Flags::FIN) || (note.flags.has(Flags::RST) && exact)
    }

    /// Our TCP has sent a segment.
    pub(super) fn send(&mut self, note: &SegmentNote) -> Changes {
        let mut changes = Changes::new();
        let has = |flag| note.flags.has(flag);
        let to = match self.state {
            _ if has(Flags::RST) => State::Closed,
            State::Closed | State::Listen if has(Flags::SYN | Flags::ACK) => State::SynReceived,
            State::Closed | State::Listen if has(Flags::SYN) => State::SynSent,
            State::SynSent if has(Flags::SYN | Flags::ACK) => State::SynReceived,
            State::SynReceived | State::Established if has(Flags::FIN) => State::FinWait1,
            State::CloseWait if has(Flags::FIN) => State::LastAck,
            same => same,
        };
        if has(Flags::SYN) {
            self.after_syn = Some(note.seq + 1);
        } else if has(Flags::FIN) {
            self.after_fin = Some(note.seq + note.len + 1);
        }
        if !has(Flags::RST) {
            let control = u32::from(has(Flags::SYN)) + u32::from(has(Flags::FIN));
            let end = note.seq + note.len + control;
            self.sent = Some(self.sent.filter(|sent| !end.after(*sent)).unwrap_or(end));
        }
        self.turn(to, &mut changes);
        if has(Flags::ACK) && !has(Flags::RST) && self.next.is_none_or(|next| note.ack.after(next)) {
            // There was more than arrived in order: what had come too early now counts.
            self.next = Some(note.ack);
            if self.fin.is_some_and(|fin| note.ack.after(fin)) {
                self.finished(&mut changes);
            }
        }
        changes
    }

    /// A segment has reached our TCP.
    pub(super) fn receive(&mut self, note: &SegmentNote) -> Changes {
        let mut changes = Changes::new();
        let has = |flag| note.flags.has(flag);
        if has(Flags::RST) {
            let exact = match self.state {
                State::SynSent => has(Flags::ACK) && self.after_syn == Some(note.ack),
                _ => self.next.is_none_or(|next| next == note.seq),
            };
            self.turn(if exact { State::Closed } else { self.state }, &mut changes);
            return changes;
        }
        let acknowledges =
            |number: Option<SeqNum>| has(Flags::ACK) && number.is_some_and(|n| note.ack.at_or_after(n));
        if has(Flags::SYN) {
            if self.state == State::SynSent {
                let to = if acknowledges(self.after_syn) { State::Established } else { State::SynReceived };
                self.turn(to, &mut changes);
            }
            self.next.get_or_insert(note.seq + 1);
            return changes;
        }
        if self.state == State::SynReceived && acknowledges(self.after_syn) {
            self.turn(State::Established, &mut changes);
        }
        if acknowledges(self.after_fin) {
            let to = match self.state {
                State::FinWait1 => State::FinWait2,
                State::Closing => State::TimeWait,
                State::LastAck => State::Closed,
                same => same,
            };
            self.turn(to, &mut changes);
        }
        self.data(note, &mut changes);
        changes
    }

    /// Data and FIN, which count when everything before them is there.
    fn data(&mut self, note: &SegmentNote, changes: &mut Changes) {
        let (end, next) = (note.seq + note.len, *self.next.get_or_insert(note.seq));
        if note.flags.has(Flags::FIN) && end.at_or_after(next) {
            self.fin = Some(end);
        }
        if note.seq.at_or_before(next) && end.after(next) {
            self.next = Some(end);
        }
        if self.fin.is_some() && self.fin == self.next {
            self.next = Some(end + 1);
            self.finished(changes);
        }
    }

    fn finished(&mut self, changes: &mut Changes) {
        self.fin = None;
        let to = match self.state {
            State::SynReceived | State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            same => same,
        };
        self.turn(to, changes);
    }

    fn turn(&mut self, to: State, changes: &mut Changes) {
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            let _ = changes.try_push((from, to));
        }
    }
}
