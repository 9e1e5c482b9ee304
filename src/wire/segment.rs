//! One TCP segment, owned, with the few fields of its IP header that must cross the proxy.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::options::Options;
use super::payload::Payload;
use super::seq::SeqNum;
use super::window::RawWindow;

/// The flag bits of the TCP header (RFC 9293 §3.1, ECN: RFC 3168, AE: RFC 9768).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x001);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x002);
    /// Reset the connection.
    pub const RST: Self = Self(0x004);
    /// Push buffered data to the application.
    pub const PSH: Self = Self(0x008);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x010);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x020);
    /// ECN echo.
    pub const ECE: Self = Self(0x040);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x080);
    /// Accurate ECN (was NS).
    pub const AE: Self = Self(0x100);

    /// True if all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if any bit of `other` is set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        self.with(rhs)
    }
}

/// What of the IP header is carried across the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpMeta {
    /// Time to live (IPv4) or hop limit (IPv6).
    pub ttl: u8,
    /// Traffic class: six bits DSCP, two bits ECN.
    pub tos: u8,
}

impl Default for IpMeta {
    fn default() -> Self {
        Self { ttl: 64, tos: 0 }
    }
}

impl IpMeta {
    /// The two ECN bits: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE (RFC 3168).
    #[must_use]
    pub const fn ecn(self) -> u8 {
        self.tos & 3
    }
}

/// Where a segment comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
}

impl Tuple {
    /// The tuple of the answers.
    #[must_use]
    pub const fn reverse(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }

    /// True for IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        matches!(self.dst.ip(), IpAddr::V6(_))
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.src, self.dst)
    }
}

/// One TCP segment. A super-segment (GSO) has a `gso_size` below its payload length and counts as [`Segment::segs`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK; meaningful with [`Flags::ACK`].
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as it is in the header, unscaled.
    pub window: RawWindow,
    /// SEG.UP; meaningful with [`Flags::URG`].
    pub urgent: u16,
    /// TCP options.
    pub options: Options,
    /// The data.
    pub payload: Payload,
    /// TTL and traffic class.
    pub ip: IpMeta,
    /// Payload bytes per wire segment of a super-segment; 0 for a single segment.
    pub gso_size: u16,
}

impl Segment {
    /// SEG.LEN: payload plus one each for SYN and FIN (RFC 9293 §3.4).
    #[must_use]
    pub const fn seq_len(&self) -> u32 {
        self.payload.len() + self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32
    }

    /// How many wire segments this is.
    #[must_use]
    pub fn segs(&self) -> u32 {
        match self.gso_size {
            0 => 1,
            size => self.payload.len().div_ceil(u32::from(size)).max(1),
        }
    }

    /// The single segments that a super-segment stands for, as the sender's device would cut it: FIN and PSH on the last, CWR
    /// on the first. A single segment comes back as it is.
    pub fn split(self) -> impl Iterator<Item = Self> {
        let size = match self.gso_size {
            0 => u32::MAX,
            size => u32::from(size),
        };
        let last = self.segs() - 1;
        (0..=last).map(move |i| {
            let from = i * if last == 0 { 0 } else { size };
            let payload = self.payload.slice(from, from.saturating_add(size));
            let mut flags = self.flags;
            if i > 0 {
                flags = flags.without(Flags::CWR);
            }
            if i < last {
                flags = flags.without(Flags::FIN | Flags::PSH);
            }
            let urgent = u32::from(self.urgent).saturating_sub(from) as u16;
            if urgent == 0 {
                flags = flags.without(Flags::URG);
            }
            Self { seq: self.seq + from, flags, urgent, payload, gso_size: 0, ..self.clone() }
        })
    }

    /// True if all bits of `flags` are set.
    #[must_use]
    pub const fn has(&self, flags: Flags) -> bool {
        self.flags.has(flags)
    }

    /// The sequence number after this segment.
    #[must_use]
    pub fn end(&self) -> SeqNum {
        self.seq + self.seq_len()
    }
}
