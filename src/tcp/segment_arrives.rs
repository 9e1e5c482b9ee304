//! SEGMENT ARRIVES for synchronised connections: RFC 9293 §3.10.7.4 in its own steps, with RFC 5961 and RFC 7323.

use super::handshake::INVALID_RATE;
use super::open::Open;
use super::recovery::{AckWorth, Echo};
use super::recv::Acceptable;
use super::state::{OurFin, PeerFin};
use crate::time::Instant;
use crate::wire::{Flags, Segment};

/// What a segment did, beyond changing the halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// The peer reset the connection.
    pub reset: bool,
    /// The segment was refused and drew an ACK.
    pub challenged: bool,
    /// It was refused without an answer.
    pub discarded: Option<&'static str>,
    /// Our FIN is now acknowledged.
    pub fin_acked: bool,
    /// The peer's FIN was reached.
    pub fin: bool,
    /// The peer probes whether we live.
    pub probe: bool,
    /// The peer answered our probe.
    pub answered: bool,
}

impl Open {
    /// One segment from the peer.
    pub(super) fn on_segment(&mut self, now: Instant, seg: Segment) -> Arrived {
        let mut out = Arrived::default();
        let control_only = match self.check_sequence(now, &seg, &mut out) {
            Acceptable::Yes => false,
            Acceptable::ControlOnly => true,
            Acceptable::No => return out,
        };
        if !self.check_rst(now, &seg, &mut out) || !self.check_syn(now, &seg, &mut out) {
            return out;
        }
        if !self.check_ack(now, &seg, &mut out) {
            return out;
        }
        self.recv.urgent(&seg);
        self.note_congestion(&seg);
        if control_only {
            self.recv.owe_now();
            return out;
        }
        let ours = self.send.fin != OurFin::None;
        out.fin = self.recv.text(now, seg, ours);
        out
    }

    /// First: is it in the window, and is it young enough (PAWS)?
    fn check_sequence(&mut self, now: Instant, seg: &Segment, out: &mut Arrived) -> Acceptable {
        let paws = !seg.has(Flags::RST) && self.clock.too_old(now, seg);
        if !paws && self.recv.swallows(seg) {
            self.on_probe(now, seg, out);
            return Acceptable::No;
        }
        let judged = if paws { Acceptable::No } else { self.recv.acceptable(seg) };
        if judged != Acceptable::No {
            let covers = self.recv.covers_last_ack(seg.seq);
            self.clock.update(now, seg, covers);
            return judged;
        }
        if seg.has(Flags::RST) {
            out.discarded = Some("RST outside the window");
            return judged;
        }
        let probe = !paws
            && seg.seq == self.recv.nxt() - 1
            && seg.seq_len() <= 1
            && seg.has(Flags::ACK)
            && !seg.flags.any(Flags::SYN | Flags::FIN);
        if probe && self.recv.fin == PeerFin::None {
            self.on_probe(now, seg, out);
            return judged;
        }
        // RFC 9293 §3.10.7.4: an unacceptable segment draws an ACK; what was sent again always, the rest at Linux's rate.
        if (seg.seq_len() == 0 || seg.has(Flags::SYN)) && self.too_soon(now) {
            out.discarded = Some("outside the window");
        } else {
            self.last_invalid = Some(now);
            out.challenged = true;
            self.recv.owe_now();
            // What PAWS rejects may carry the bytes of another incarnation: nothing of it counts.
            if !paws {
                self.old_data(now, seg);
            }
        }
        judged
    }

    /// An old byte or none just before RCV.NXT: a window probe if our window is closed, else a keepalive, which only the far
    /// peer can answer. Both carry an ACK that counts.
    fn on_probe(&mut self, now: Instant, seg: &Segment, out: &mut Arrived) {
        if self.send.judge(seg.ack) == AckWorth::Good {
            out.fin_acked = self.take_ack(now, seg);
        }
        if self.recv.swallows_probes() {
            out.discarded = Some("probe swallowed");
        } else if self.recv.closed_window() {
            self.answer_probe = true;
        } else {
            out.probe = true;
        }
    }

    /// Retransmitted data that we have: its ACK may still be news, and a D-SACK tells of it.
    fn old_data(&mut self, now: Instant, seg: &Segment) {
        let old = seg.seq.before(self.recv.nxt()) && seg.has(Flags::ACK) && !seg.has(Flags::SYN);
        if old && self.send.judge(seg.ack) == AckWorth::Good {
            self.take_ack(now, seg);
        }
        self.recv.text(now, Segment { flags: seg.flags.without(Flags::FIN), ..seg.clone() }, true);
    }

    fn too_soon(&self, now: Instant) -> bool {
        self.last_invalid.is_some_and(|at| now.since(at) < INVALID_RATE)
    }

    /// An ACK with our numbers, at most one per 500 ms and connection (RFC 5961 §7; a limit over all connections is
    /// CVE-2016-5696).
    fn challenge(&mut self, now: Instant, out: &mut Arrived) {
        if self.too_soon(now) {
            out.discarded = Some("challenge ACK limit");
        } else {
            self.last_invalid = Some(now);
            out.challenged = true;
            self.answer_probe = true;
        }
    }

    /// Second: RST counts only with the exact number (RFC 5961 §3.2). Its data, if any, is ignored (SHLD-2).
    fn check_rst(&mut self, now: Instant, seg: &Segment, out: &mut Arrived) -> bool {
        if !seg.has(Flags::RST) {
            return true;
        }
        if seg.seq == self.recv.nxt() {
            out.reset = true;
        } else {
            self.challenge(now, out);
        }
        false
    }

    /// Fourth: a SYN in a synchronised state draws a challenge ACK (RFC 5961 §4.2).
    fn check_syn(&mut self, now: Instant, seg: &Segment, out: &mut Arrived) -> bool {
        if seg.has(Flags::SYN) {
            self.challenge(now, out);
        }
        !seg.has(Flags::SYN)
    }

    /// Fifth: the acknowledgement.
    fn check_ack(&mut self, now: Instant, seg: &Segment, out: &mut Arrived) -> bool {
        if !seg.has(Flags::ACK) {
            out.discarded = Some("no ACK");
            return false;
        }
        match self.send.judge(seg.ack) {
            AckWorth::Good => out.fin_acked = self.take_ack(now, seg),
            AckWorth::Old => {}
            AckWorth::Bad => {
                self.challenge(now, out);
                return false;
            }
        }
        out.answered = std::mem::take(&mut self.probing);
        true
    }

    fn take_ack(&mut self, now: Instant, seg: &Segment) -> bool {
        let echo = Echo {
            rtt: self.clock.rtt(now, seg),
            echoed: seg.options.timestamps.filter(|_| self.clock.on).map(|t| t.ecr),
        };
        self.send.on_ack(now, seg, echo)
    }

    /// RFC 3168 §6.1.2, §6.1.3.
    fn note_congestion(&mut self, seg: &Segment) {
        if !self.ecn.on {
            return;
        }
        if seg.has(Flags::CWR) {
            self.ecn.echo = false;
        }
        if seg.ip.ecn() == 3 {
            self.ecn.echo = true;
        }
        if seg.has(Flags::ECE) {
            self.ecn.cwr |= self.send.on_ecn_echo();
        }
    }
}
