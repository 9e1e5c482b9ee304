//! What SYNs say, and how two of them become the options of a connection.

use crate::wire::{Flags, IpMeta, Options, RawWindow, Segment, SeqNum, Timestamps, WindowScale};

/// RFC 9293 MUST-15: what a peer takes that announces no MSS.
const DEFAULT_MSS_V4: u16 = 536;
/// The same for IPv6.
const DEFAULT_MSS_V6: u16 = 1220;
/// Linux `tcp_min_snd_mss`: smaller announcements are a denial of service (CVE-2019-11479).
const LEAST_MSS: u16 = 48;

/// What a SYN or SYN-ACK offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size in bytes.
    pub mss: Option<u16>,
    /// Window scale.
    pub window_scale: Option<WindowScale>,
    /// SACK permitted.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// ECN (ECE and CWR in a SYN, ECE in a SYN-ACK).
    pub ecn: bool,
}

impl SynOptions {
    /// What both sides offer (RFC 7323 §2.2, §3.2; RFC 2018 §2; RFC 3168 §6.1.1); the MSS is the other side's.
    #[must_use]
    pub const fn agreed(self, peer: Self) -> Self {
        let scales = self.window_scale.is_some() && peer.window_scale.is_some();
        Self {
            mss: peer.mss,
            window_scale: if scales { peer.window_scale } else { None },
            sack: self.sack && peer.sack,
            timestamps: self.timestamps && peer.timestamps,
            ecn: self.ecn && peer.ecn,
        }
    }

    /// Payload bytes of a full segment to a peer with these options (RFC 9293 MUST-16; RFC 6691).
    #[must_use]
    pub fn send_mss(self, ipv6: bool) -> u32 {
        let default = if ipv6 { DEFAULT_MSS_V6 } else { DEFAULT_MSS_V4 };
        let mss = self.mss.unwrap_or(default).max(LEAST_MSS);
        u32::from(mss) - if self.timestamps { 12 } else { 0 }
    }

    /// The options of a SYN or SYN-ACK.
    pub(super) fn to_wire(self, timestamps: Timestamps) -> Options {
        Options {
            mss: self.mss,
            window_scale: self.window_scale,
            sack_permitted: self.sack,
            timestamps: self.timestamps.then_some(timestamps),
            ..Options::default()
        }
    }
}

/// What is kept of a client's SYN until the server has answered; small, because SYNs can be a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynInfo {
    /// SEG.SEQ of the SYN.
    pub seq: SeqNum,
    /// Its window, never scaled (RFC 7323 §2.2).
    pub window: RawWindow,
    /// Its options.
    pub options: SynOptions,
    /// Its TSval.
    pub ts_val: u32,
    /// Its TTL and traffic class.
    pub ip: IpMeta,
}

impl SynInfo {
    /// Reads a SYN or SYN-ACK.
    #[must_use]
    pub fn of(seg: &Segment) -> Self {
        let o = &seg.options;
        let ecn = match seg.has(Flags::ACK) {
            // A SYN-ACK with both bits is a peer that reflects reserved bits (RFC 3168 §6.1.1).
            true => seg.has(Flags::ECE) && !seg.has(Flags::CWR),
            false => seg.has(Flags::ECE | Flags::CWR),
        };
        Self {
            seq: seg.seq,
            window: seg.window,
            options: SynOptions {
                mss: o.mss,
                window_scale: o.window_scale,
                sack: o.sack_permitted,
                timestamps: o.timestamps.is_some(),
                ecn,
            },
            ts_val: o.timestamps.map_or(0, |t| t.val),
            ip: seg.ip,
        }
    }
}

/// The RST that answers a segment for which there is no connection (RFC 9293 §3.10.7.1).
#[must_use]
pub fn reset_for(seg: &Segment) -> Segment {
    let mut rst = Segment { flags: Flags::RST, ..Segment::default() };
    if seg.has(Flags::ACK) {
        rst.seq = seg.ack;
    } else {
        rst.flags = Flags::RST | Flags::ACK;
        rst.ack = seg.end();
    }
    rst
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9293 MUST-15, MUST-16.
    #[test]
    fn a_silent_peer_gets_the_default_mss() {
        let none = SynOptions::default();
        assert_eq!((none.send_mss(false), none.send_mss(true)), (536, 1220));
        let tiny = SynOptions { mss: Some(1), timestamps: true, ..none };
        assert_eq!(tiny.send_mss(false), 36);
    }

    /// RFC 9293 §3.10.7.1.
    #[test]
    fn a_reset_is_exact() {
        let syn = Segment { seq: SeqNum(100), flags: Flags::SYN, ..Segment::default() };
        let rst = reset_for(&syn);
        assert_eq!((rst.seq, rst.ack, rst.flags), (SeqNum(0), SeqNum(101), Flags::RST | Flags::ACK));
        let ack = Segment { seq: SeqNum(5), ack: SeqNum(77), flags: Flags::ACK, ..Segment::default() };
        assert_eq!((reset_for(&ack).seq, reset_for(&ack).flags), (SeqNum(77), Flags::RST));
    }
}
