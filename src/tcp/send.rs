//! The sending half: SND.*, what leaves next, and how much of it.
//!
//! Positions are offsets in the outgoing stream: the sequence number is ISS + 1 + position, and our FIN is the position
//! after the last byte. Positions never wrap. What acknowledgements and timers do to it is in [`super::recovery`].

use bytes::Bytes;

use super::congestion::CongestionControl;
use super::recovery::Recovery;
use super::rtt::RttEstimator;
use super::scoreboard::Scoreboard;
use super::sendbuf::SendBuffer;
use super::state::OurFin;
use super::{Config, TxCaps};
use crate::time::Instant;
use crate::trace::Resend;
use crate::wire::{Payload, SeqNum, WindowScale};

/// What a handshake leaves to the sending half.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendStart {
    pub iss: SeqNum,
    /// The peer's window in bytes.
    pub window: u32,
    pub scale: WindowScale,
    /// Payload bytes of a full segment: the peer's MSS without our options (RFC 9293 MUST-16).
    pub mss: u32,
    /// The peer reports what it has.
    pub sack: bool,
    /// SEG.SEQ and SEG.ACK of the segment that brought `window`.
    pub wl1: SeqNum,
}

/// Something to put into a segment.
#[derive(Debug)]
pub(super) struct Piece {
    pub start: u64,
    pub payload: Payload,
    pub fin: bool,
    pub push: bool,
    /// Why it is sent again; absent for new data.
    pub again: Option<Resend>,
}

/// The sending half of a synchronised connection.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) iss: SeqNum,
    pub(super) buffer: SendBuffer,
    pub(super) una: u64,
    pub(super) nxt: u64,
    pub(super) wnd: u32,
    pub(super) wnd_max: u32,
    pub(super) wl1: SeqNum,
    pub(super) wl2: SeqNum,
    pub(super) scale: WindowScale,
    pub(super) mss: u32,
    pub(super) sack: bool,
    pub(super) fin: OurFin,
    pub(super) board: Scoreboard,
    pub(super) cc: CongestionControl,
    pub(super) rtt: RttEstimator,
    pub(super) recovery: Recovery,
    /// Most retransmissions or unanswered probes in a row.
    pub(super) retries: u32,
    urgent: Option<u64>,
    last_sent: Option<Instant>,
    /// The override timer of the sender's SWS avoidance ran out (RFC 9293 §3.8.6.2.1): send what fits.
    pub(super) force: bool,
    /// Largest flight since `peak_until` was sent; tells whether the congestion window was used (RFC 7661).
    peak: u64,
    peak_until: u64,
}

impl Send {
    pub(super) fn new(config: &Config, start: SendStart) -> Self {
        let SendStart { iss, window, scale, mss, sack, wl1 } = start;
        Self {
            iss,
            buffer: SendBuffer::default(),
            una: 0,
            nxt: 0,
            wnd: window,
            wnd_max: window,
            wl1,
            wl2: iss + 1,
            scale,
            mss: mss.max(1),
            sack,
            fin: OurFin::None,
            board: Scoreboard::default(),
            cc: CongestionControl::new(config.congestion, mss.max(1)),
            rtt: RttEstimator::new(config),
            recovery: Recovery::default(),
            retries: config.retries,
            urgent: None,
            last_sent: None,
            force: false,
            peak: 0,
            peak_until: 0,
        }
    }

    pub(super) fn seq(&self, position: u64) -> SeqNum {
        self.iss + 1 + position as u32
    }

    /// SND.NXT.
    pub(super) fn nxt(&self) -> SeqNum {
        self.seq(self.nxt)
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if self.fin == OurFin::None {
            self.buffer.push(data);
        }
    }

    /// CLOSE.
    pub(super) fn close(&mut self) {
        if self.fin == OurFin::None {
            self.fin = OurFin::Queued;
        }
    }

    /// Bytes and FIN that have never been sent.
    pub(super) fn unsent(&self) -> u64 {
        self.buffer.end().saturating_sub(self.nxt) + u64::from(self.fin == OurFin::Queued)
    }

    fn right_edge(&self) -> u64 {
        self.una + u64::from(self.wnd)
    }

    /// How much of the peer's window is left for new data.
    pub(super) fn usable(&self) -> u64 {
        self.right_edge().saturating_sub(self.nxt)
    }

    fn in_flight(&self) -> u64 {
        // Without SACK each duplicate ACK tells of one segment that has left the network (RFC 5681 §3.2).
        self.board.in_flight().saturating_sub(u64::from(self.recovery.duplicates) * u64::from(self.mss))
    }

    fn room(&self) -> u64 {
        u64::from(self.cc.cwnd()).saturating_sub(self.in_flight())
    }

    /// True if the congestion window was not what held the sender back.
    pub(super) fn app_limited(&self) -> bool {
        let cwnd = u64::from(self.cc.cwnd());
        match self.cc.cwnd() < self.cc.ssthresh() {
            true => self.peak * 2 < cwnd,
            false => self.peak + u64::from(self.mss) < cwnd,
        }
    }

    /// Returns true if this is news.
    pub(super) fn set_urgent(&mut self, position: u64) -> bool {
        let news = position > self.una && self.urgent.is_none_or(|old| position > old);
        if news {
            self.urgent = Some(position);
        }
        news
    }

    /// The urgent pointer of a segment that starts at `start` (RFC 9293 MUST-62: counts to the octet after the urgent data).
    pub(super) fn urgent_pointer(&self, start: u64) -> Option<u16> {
        let ahead = self.urgent?.checked_sub(start).filter(|n| *n > 0)?;
        Some(u16::try_from(ahead).unwrap_or(u16::MAX))
    }

    /// The next piece to send, if windows allow.
    pub(super) fn poll(&mut self, now: Instant, caps: TxCaps) -> Option<Piece> {
        let piece = self.poll_lost(now, caps).or_else(|| self.poll_new(now, caps));
        match &piece {
            Some(_) => self.sent(now),
            None => self.arm_persist(now),
        }
        piece
    }

    fn poll_lost(&mut self, now: Instant, caps: TxCaps) -> Option<Piece> {
        let lost = self.board.first_lost()?;
        let (mss, room) = (u64::from(self.mss), self.room());
        // One segment always goes when nothing is under way, however small the window (RFC 5681 §3.1).
        let at_once = std::mem::take(&mut self.recovery.at_once);
        if self.in_flight() > 0 && room < mss && !at_once {
            return None;
        }
        // RFC 9293 SHLD-16: retransmit inside a window that shrank; into a closed one the first segment, as Linux
        // does, which is a probe as well (SHLD-17).
        let edge = match self.right_edge() {
            edge if edge > lost.start => edge,
            _ if lost.start == self.una => self.una + mss,
            _ => return None,
        };
        let most = (room.max(mss) / mss * mss).min(self.largest(caps, lost.start));
        let end = lost.end.min(lost.start + most).min(edge);
        let data_end = end.min(self.buffer.end());
        let data_end = self.buffer.limit_parts(lost.start, data_end, mss).max(lost.start);
        let fin = end > self.buffer.end() && data_end == self.buffer.end();
        self.board.resent(lost.start, data_end + u64::from(fin), now);
        let push = data_end == self.buffer.end();
        let again = Some(self.recovery.why());
        Some(Piece { start: lost.start, payload: self.buffer.slice(lost.start, data_end), fin, push, again })
    }

    /// Most payload of one transmission from `start`; single segments while an urgent pointer is set, because offload
    /// would repeat the pointer in each.
    fn largest(&self, caps: TxCaps, start: u64) -> u64 {
        let single = caps.max_payload <= self.mss || self.urgent_pointer(start).is_some();
        let most = if single {
            self.mss.min(caps.max_payload.max(1))
        } else {
            caps.max_payload / self.mss * self.mss
        };
        u64::from(most)
    }

    fn poll_new(&mut self, now: Instant, caps: TxCaps) -> Option<Piece> {
        let unsent = self.buffer.end().saturating_sub(self.nxt);
        let idle = self.board.outstanding() == 0;
        if idle
            && unsent > 0
            && let Some(last) = self.last_sent
        {
            self.cc.on_idle_restart(now.since(last), self.rtt.rto());
        }
        let (usable, room) = (self.usable(), self.room());
        if unsent == 0 {
            let fin = self.fin == OurFin::Queued && usable > 0;
            return fin.then(|| self.take_new(now, self.nxt));
        }
        let most = self.nxt + unsent.min(self.largest(caps, self.nxt));
        let whole = self.buffer.limit_parts(self.nxt, most, u64::from(self.mss)) - self.nxt;
        let mut len = whole.min(usable).min(room);
        if len < unsent && len > u64::from(self.mss) {
            len -= len % u64::from(self.mss);
        }
        if len == 0 || !self.worth_sending(len, whole, usable) {
            return None;
        }
        Some(self.take_new(now, self.nxt + len))
    }

    /// RFC 9293 §3.8.6.2.1, MUST-38: not less than a segment, or the `whole` that there is for one transmission. Nagle's
    /// algorithm is off, as in every relay: the peer's own sender has done that already.
    fn worth_sending(&self, len: u64, whole: u64, usable: u64) -> bool {
        let by_window = usable <= len;
        len >= u64::from(self.mss)
            || len == whole
            || (by_window && (self.force || len * 2 >= u64::from(self.wnd_max)))
    }

    fn take_new(&mut self, now: Instant, end: u64) -> Piece {
        let start = self.nxt;
        let last = end == self.buffer.end();
        let fin = last && self.fin == OurFin::Queued && self.usable() > end - start;
        if fin {
            self.fin = OurFin::Sent;
        }
        self.nxt = end + u64::from(fin);
        self.board.push(start, self.nxt, now);
        self.force = false;
        self.peak = self.peak.max(self.in_flight());
        let payload = self.buffer.slice(start, end);
        Piece { start, payload, fin, push: last, again: None }
    }

    fn sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
        self.arm_after_send(now);
    }

    /// What a tail loss probe sends again: the last segment.
    pub(super) fn last_piece(&mut self, now: Instant) -> Option<Piece> {
        let (start, end) = self.board.last_unsacked(self.mss)?;
        let fin = end > self.buffer.end();
        let data_end = end.min(self.buffer.end());
        self.board.resent(start, end, now);
        let payload = self.buffer.slice(start, data_end);
        Some(Piece { start, payload, fin, push: true, again: Some(Resend::Tlp) })
    }

    /// Starts a new measurement of how much of the congestion window is used, once per round trip.
    pub(super) fn renew_peak(&mut self) {
        if self.una >= self.peak_until {
            (self.peak, self.peak_until) = (self.in_flight(), self.nxt);
        }
    }
}
