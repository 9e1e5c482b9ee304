//! What ICMP errors mean to a connection (RFC 9293 §3.9.2.2, RFC 5927).

use crate::wire::SeqNum;

/// An ICMP error about a segment that we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Next-hop MTU for "fragmentation needed" and "packet too big", else 0.
    pub mtu: u32,
    /// Sequence number of the segment that the error quotes.
    pub seq: SeqNum,
}

impl IcmpError {
    /// Destination unreachable, time exceeded, parameter problem: what ends a SYN-SENT on Linux. Source quench is ignored
    /// (RFC 9293 MUST-55).
    pub(super) const fn is_unreachable(self, v6: bool) -> bool {
        match (v6, self.kind) {
            (false, 3) => self.code != 4,
            (false, 11 | 12) | (true, 1 | 3 | 4) => true,
            _ => false,
        }
    }

    /// "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201).
    pub(super) const fn is_too_big(self, v6: bool) -> bool {
        match v6 {
            false => self.kind == 3 && self.code == 4,
            true => self.kind == 2,
        }
    }

    /// Payload bytes of a segment on that path. Never below Linux's `min_pmtu` (552) and the IPv6 minimum (1280), so that a
    /// forged error cannot grind a connection down (RFC 5927 §7).
    pub(super) fn mss(self, v6: bool, timestamps: bool) -> u32 {
        let (least, headers) = if v6 { (1280, 60) } else { (552, 40) };
        self.mtu.max(least).min(65_535) - headers - if timestamps { 12 } else { 0 }
    }
}
