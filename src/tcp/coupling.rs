//! The calls by which a relay couples two connections: space, urgency, probes, knobs, numbers.

use super::conn::{Connection, Phase};
use super::knobs::Knobs;
use super::state::PeerFin;
use super::syn::SynOptions;
use crate::trace::Resend;
use crate::wire::{IpMeta, Numbers, Segment, SeqNum, Tuple};

impl Connection {
    /// Bytes queued and not yet acknowledged by the peer, sent or not.
    #[must_use]
    pub fn queued(&self) -> u32 {
        match &self.phase {
            Phase::Open(open) => open.send.buffer.len(),
            _ => self.early.iter().map(|data| data.len() as u32).sum(),
        }
    }

    /// Bytes received and not yet taken by [`Self::recv`], in order or not.
    #[must_use]
    pub fn received_waiting(&self) -> u32 {
        match &self.phase {
            Phase::Open(open) => open.recv.waiting(),
            _ => 0,
        }
    }

    /// True if what was received out of order waits for this segment.
    #[must_use]
    pub fn fills_gap(&self, segment: &Segment) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.recv.fills_gap(segment))
    }

    /// True if bytes or a FIN wait that the peer's window has room for: only the congestion window holds them back.
    #[must_use]
    pub fn has_sendable(&self) -> bool {
        match &self.phase {
            Phase::Open(open) => open.send.unsent() > 0 && open.send.usable() > 0,
            _ => false,
        }
    }

    /// True once the peer's FIN has been received, after all its data.
    #[must_use]
    pub fn peer_has_finished(&self) -> bool {
        match &self.phase {
            Phase::Open(open) => open.recv.fin != PeerFin::None,
            Phase::SynSent(_) | Phase::SynReceived(_) => false,
            Phase::TimeWait(_) | Phase::Closed => true,
        }
    }

    /// Gives back the memory of empty queues; for a connection that is idle.
    pub fn relax(&mut self) {
        self.events.shrink_to_fit();
        self.replies.shrink_to_fit();
        if let Phase::Open(open) = &mut self.phase {
            open.send.buffer.relax();
            open.send.board.relax();
            open.recv.relax();
        }
    }

    /// How many bytes beyond those already taken by [`Self::recv`] the relay can take. This is the window, before SWS
    /// avoidance; the right edge never moves left.
    pub fn set_receive_space(&mut self, bytes: u32) {
        if let Phase::Open(open) = &mut self.phase {
            open.recv.set_space(bytes);
        }
    }

    /// Sends a keepalive probe; [`super::Event::ProbeAnswered`] tells that the peer lives.
    pub fn probe(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.send.recovery.probe = Some(Resend::Keepalive);
        }
    }

    /// Answers [`super::Event::KeepaliveProbe`].
    pub fn answer_probe(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.answer_probe = true;
        }
    }

    /// Stream offset (bytes from the start) just after the last urgent byte that the peer announced, if any.
    #[must_use]
    pub fn urgent_received(&self) -> Option<u64> {
        match &self.phase {
            Phase::Open(open) => open.recv.urgent_at(),
            _ => None,
        }
    }

    /// The byte before stream offset `offset` of the outgoing stream is urgent; it need not be queued yet.
    pub fn set_urgent(&mut self, offset: u64) {
        if let Phase::Open(open) = &mut self.phase
            && open.send.set_urgent(offset)
        {
            // RFC 9293 MUST-66: the news goes out even if the window is closed.
            open.answer_probe = true;
        }
    }

    /// Turns the knobs.
    pub fn set_knobs(&mut self, knobs: Knobs) {
        match &mut self.phase {
            Phase::Open(open) => open.set_knobs(knobs),
            Phase::SynReceived(s) if knobs.syn_cookie => s.become_cookie(),
            _ => {}
        }
    }

    /// The options of the peer's SYN or SYN-ACK; empty before it came.
    #[must_use]
    pub fn peer_syn(&self) -> SynOptions {
        match &self.phase {
            Phase::Open(open) => open.peer,
            Phase::SynReceived(s) => s.peer.options,
            _ => SynOptions::default(),
        }
    }

    /// Payload bytes received in order so far, and acknowledged by the peer so far.
    #[must_use]
    pub fn byte_counts(&self) -> (u64, u64) {
        match &self.phase {
            Phase::Open(open) => (open.recv.received(), open.send.una.min(open.send.buffer.end())),
            _ => self.last_counts,
        }
    }

    /// The exact numbers for an injected segment; `None` once closed.
    #[must_use]
    pub fn numbers(&self) -> Option<Numbers> {
        let (snd_una, snd_nxt, rcv_nxt) = match &self.phase {
            Phase::SynSent(s) => (s.ours.iss, s.ours.iss + 1, SeqNum::default()),
            Phase::SynReceived(s) => (s.ours.iss, s.ours.iss + 1, s.peer.seq + 1),
            Phase::Open(open) => (open.send.seq(open.send.una), open.send.nxt(), open.recv.nxt()),
            Phase::TimeWait(wait) => {
                let (snd_nxt, rcv_nxt) = wait.numbers();
                (snd_nxt, snd_nxt, rcv_nxt)
            }
            Phase::Closed => return None,
        };
        Some(Numbers { snd_una, snd_nxt, rcv_nxt })
    }

    /// TTL and traffic class of the peer's latest segment.
    #[must_use]
    pub const fn ip_received(&self) -> IpMeta {
        self.ip_in
    }

    /// TTL and DSCP to send with; the ECN bits are ours.
    pub fn set_ip(&mut self, ip: IpMeta) {
        self.ip_out = ip;
    }

    /// As we send: `src` is our end.
    #[must_use]
    pub const fn tuple(&self) -> Tuple {
        self.tuple
    }

    /// RFC 6191: true if this SYN may replace a connection in TIME-WAIT.
    #[must_use]
    pub fn may_reopen(&self, syn: &Segment) -> bool {
        matches!(&self.phase, Phase::TimeWait(wait) if wait.may_reopen(syn))
    }
}
