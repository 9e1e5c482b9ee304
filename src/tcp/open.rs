//! A synchronised connection: ESTABLISHED and everything after it until TIME-WAIT. Its RFC state is derived from its two
//! halves (see [`super::state`]).

use super::clock::Clock;
use super::handshake::Ours;
use super::knobs::Knobs;
use super::recv::Recv;
use super::send::{Piece, Send, SendStart};
use super::state::{self, OurFin, PeerFin};
use super::syn::{SynInfo, SynOptions};
use super::{Config, TxCaps};
use crate::time::{Instant, earliest};
use crate::trace::{Resend, State};
use crate::wire::{Flags, Segment, SeqNum, WindowScale};

/// ECN of one connection (RFC 3168 §6.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ecn {
    /// Negotiated.
    pub on: bool,
    /// A CE mark came in and the peer has not answered with CWR.
    pub echo: bool,
    /// We reduced our window and must say so.
    pub cwr: bool,
}

/// A synchronised connection.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) send: Send,
    pub(super) recv: Recv,
    pub(super) clock: Clock,
    pub(super) ecn: Ecn,
    pub(super) peer: SynOptions,
    pub(super) knobs: Knobs,
    /// When a segment out of the window was last answered (RFC 5961 §7).
    pub(super) last_invalid: Option<Instant>,
    /// What was to be sent before [`Knobs::mute`] is sent, and nothing leaves any more.
    pub(super) silent: bool,
    /// A keepalive probe of ours is unanswered.
    pub(super) probing: bool,
    /// Answers to keepalive probes owed now.
    pub(super) answer_probe: bool,
}

impl Open {
    /// From a completed handshake. `peer` is the peer's SYN, `seg` the segment that completed it.
    pub(super) fn new(config: &Config, ours: &Ours, peer: &SynInfo, seg: &Segment, v6: bool) -> Self {
        let agreed = ours.offer.agreed(peer.options);
        let their_scale = agreed.window_scale.unwrap_or(WindowScale::NONE);
        let our_scale = agreed.window_scale.and(ours.offer.window_scale).unwrap_or(WindowScale::NONE);
        let in_syn = seg.has(Flags::SYN);
        let start = SendStart {
            iss: ours.iss,
            window: if in_syn { u32::from(seg.window.0) } else { their_scale.bytes(seg.window) },
            scale: their_scale,
            mss: agreed.send_mss(v6),
            sack: agreed.sack,
            wl1: seg.seq,
        };
        let our_mss = u32::from(ours.offer.mss.unwrap_or(536));
        let mut recv =
            Recv::new(peer.seq, ours.window, our_scale, our_mss, agreed.sack, config.out_of_order_ranges);
        if in_syn {
            recv.owe_now();
        }
        let clock = Clock { on: agreed.timestamps, recent: peer.ts_val, ..ours.clock };
        let mut send = Send::new(config, start);
        if ours.sent > 1 {
            send.rtt.syn_was_resent();
        }
        let ecn = Ecn { on: agreed.ecn, ..Ecn::default() };
        let peer = peer.options;
        let (knobs, last_invalid) = (Knobs::default(), None);
        Self {
            send,
            recv,
            clock,
            ecn,
            peer,
            knobs,
            last_invalid,
            silent: false,
            probing: false,
            answer_probe: false,
        }
    }

    pub(super) const fn state(&self) -> State {
        state::name(self.send.fin, self.recv.fin)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.send.poll_timeout(), self.recv.poll_timeout())
    }

    pub(super) fn set_knobs(&mut self, now: Instant, knobs: Knobs) {
        if knobs != self.knobs {
            self.knobs = knobs;
            self.silent &= knobs.mute;
            self.recv.set_knobs(now, knobs);
        }
    }

    /// The next segment to send, and why if it is a repetition.
    pub(super) fn poll_transmit(&mut self, now: Instant, caps: TxCaps) -> Option<(Segment, Option<Resend>)> {
        let caps = match self.knobs.single_segments {
            true => TxCaps { max_payload: caps.max_payload.min(self.send.mss) },
            false => caps,
        };
        self.recv.advance(now);
        if let Some(piece) = self.send.poll_tlp(now).or_else(|| self.send.poll(now, caps)) {
            let again = piece.again;
            return Some((self.data_segment(now, piece), again));
        }
        if let Some(why) = self.send.recovery.probe.take() {
            self.probing |= why == Resend::Keepalive;
            // Linux: an old byte, so that even a peer with a closed window must answer.
            let seq = self.send.seq(self.send.una) - 1;
            return Some((self.control(now, seq, false), Some(why)));
        }
        let answer = std::mem::take(&mut self.answer_probe);
        if answer || self.recv.ack_due(now) || self.recv.update_due() {
            let seq = self.send.nxt();
            return Some((self.control(now, seq, false), None));
        }
        None
    }

    fn data_segment(&mut self, now: Instant, piece: Piece) -> Segment {
        let mut seg = self.control(now, self.send.seq(piece.start), !piece.payload.is_empty());
        if piece.push && !piece.payload.is_empty() {
            seg.flags = seg.flags | Flags::PSH;
        }
        if piece.fin {
            seg.flags = seg.flags | Flags::FIN;
        }
        if let Some(urgent) = self.send.urgent_pointer(piece.start) {
            (seg.flags, seg.urgent) = (seg.flags | Flags::URG, urgent);
        }
        if self.ecn.on && !piece.payload.is_empty() && piece.again.is_none() {
            // ECT(0); never on retransmissions (RFC 3168 §6.1.5).
            seg.ip.tos |= 2;
            if std::mem::take(&mut self.ecn.cwr) {
                seg.flags = seg.flags | Flags::CWR;
            }
        }
        seg.options.sack.clear();
        // Any segment answers a probe.
        self.answer_probe = false;
        let mss = self.send.mss;
        seg.gso_size = if piece.payload.len() > mss { mss as u16 } else { 0 };
        seg.payload = piece.payload;
        seg
    }

    /// A segment before its data, if any; every segment carries an ACK (RFC 9293 §3.4).
    pub(super) fn control(&mut self, now: Instant, seq: SeqNum, data: bool) -> Segment {
        let ack = self.recv.ack_number(now);
        let mut seg =
            Segment { seq, ack, flags: Flags::ACK, window: self.recv.offer(), ..Segment::default() };
        seg.options.timestamps = self.clock.option(now);
        seg.options.sack = self.recv.sack_blocks(if self.clock.on { 3 } else { 4 });
        if self.ecn.echo {
            seg.flags = seg.flags | Flags::ECE;
        }
        if let Some(urgent) = self.send.urgent_pointer(self.send.nxt).filter(|_| seq == self.send.nxt()) {
            (seg.flags, seg.urgent) = (seg.flags | Flags::URG, urgent);
        }
        self.recv.acked(now, ack, data);
        seg
    }

    /// The ACK that could leave now, without any change: `behind` numbers before SND.NXT.
    pub(super) fn bare_ack(&self, now: Instant, behind: u32) -> Segment {
        let mut seg = Segment {
            seq: self.send.nxt() - behind,
            ack: self.recv.ack_number(now),
            flags: Flags::ACK,
            window: self.recv.told(),
            ..Segment::default()
        };
        seg.options.timestamps = self.clock.option(now);
        seg
    }

    /// RST with our exact numbers; the peer must believe it (RFC 5961 §3).
    pub(super) fn reset(&self) -> Segment {
        Segment {
            seq: self.send.nxt(),
            ack: self.recv.nxt(),
            flags: Flags::RST | Flags::ACK,
            ..Segment::default()
        }
    }

    /// True once both FINs are acknowledged and we need not stay (we closed second).
    pub(super) fn is_done(&self) -> bool {
        self.send.fin == OurFin::Acked && self.recv.fin == PeerFin::First
    }
}
