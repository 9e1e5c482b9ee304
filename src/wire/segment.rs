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
    /// The three bits without a meaning. What comes in has them cut off.
    pub const RESERVED: Self = Self(0xe00);

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
    /// It leaves with a wrong TCP checksum, and the receiver's kernel throws it away. Single segments only.
    pub bad_checksum: bool,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::SegmentNote;
    use super::super::tests::any_segment;
    use super::*;

    /// A segment in the notation, with the payload 0, 1, 2, … and cut by `gso_size`.
    fn made(text: &str, gso_size: u16) -> Segment {
        let note: SegmentNote = text.parse().unwrap();
        Segment {
            seq: note.seq,
            ack: note.ack,
            flags: note.flags,
            window: RawWindow(note.window),
            urgent: note.urgent,
            options: note.options,
            payload: Bytes::from((0..note.len).map(|n| n as u8).collect::<Vec<_>>()).into(),
            gso_size,
            ..Segment::default()
        }
    }

    #[test]
    fn a_super_segment_is_cut_as_its_senders_device_would_cut_it() {
        for (sentence, whole, size, parts) in [
            ("a single segment stays", "FP. 1:11(10) ack 1 win 5", 0, &["FP. 1:11(10) ack 1 win 5"][..]),
            ("so does one without data", "S 1:1(0) win 5", 0, &["S 1:1(0) win 5"]),
            ("so does one that fits", "P. 1:11(10) ack 1 win 5", 10, &["P. 1:11(10) ack 1 win 5"]),
            (
                "the last may be shorter; PSH is of the end",
                "P. 1:11(10) ack 1 win 5",
                4,
                &[". 1:5(4) ack 1 win 5", ". 5:9(4) ack 1 win 5", "P. 9:11(2) ack 1 win 5"],
            ),
            (
                "FIN is of the end, CWR of the start, ECE of all",
                "FP.EW 1:9(8) ack 1 win 5",
                4,
                &[".EW 1:5(4) ack 1 win 5", "FP.E 5:9(4) ack 1 win 5"],
            ),
            (
                "the options are those of all",
                ". 1:3(2) ack 1 win 5 <nop,nop,TS val 7 ecr 3>",
                1,
                &[
                    ". 1:2(1) ack 1 win 5 <nop,nop,TS val 7 ecr 3>",
                    ". 2:3(1) ack 1 win 5 <nop,nop,TS val 7 ecr 3>",
                ],
            ),
            (
                "the urgent pointer stays at its byte and ends there",
                ".U 1:13(12) ack 1 win 5 urg 6",
                4,
                &[".U 1:5(4) ack 1 win 5 urg 6", ".U 5:9(4) ack 1 win 5 urg 2", ". 9:13(4) ack 1 win 5"],
            ),
            (
                "the numbers wrap",
                ". 4294967290:2(8) ack 1 win 5",
                4,
                &[". 4294967290:4294967294(4) ack 1 win 5", ". 4294967294:2(4) ack 1 win 5"],
            ),
        ] {
            let cut: Vec<String> =
                made(whole, size).split().map(|part| SegmentNote::from(&part).to_string()).collect();
            assert_eq!(cut, parts, "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_any_super_segment_are_the_whole(segment in any_segment()) {
            let parts: Vec<Segment> = segment.clone().split().collect();
            prop_assert_eq!(parts.len() as u32, segment.segs());
            let mut seq = segment.seq;
            let mut payload = Payload::empty();
            for (i, part) in parts.iter().enumerate() {
                prop_assert_eq!((part.seq, part.gso_size), (seq, 0));
                prop_assert!(segment.gso_size == 0 || part.payload.len() <= u32::from(segment.gso_size));
                prop_assert!(parts.len() == 1 || !part.payload.is_empty());
                let (first, last) = (i == 0, i + 1 == parts.len());
                for (flags, here) in
                    [(Flags::FIN, last), (Flags::PSH, last), (Flags::CWR, first), (Flags::ACK, true), (Flags::SYN, true)]
                {
                    prop_assert_eq!(part.has(flags), here && segment.has(flags), "{:?} of part {}", flags, i);
                }
                let from = part.seq.diff(segment.seq);
                if parts.len() > 1 {
                    let pointer = i64::from(segment.urgent) - i64::from(from);
                    prop_assert_eq!(i64::from(part.urgent), pointer.max(0));
                    prop_assert_eq!(part.has(Flags::URG), segment.has(Flags::URG) && pointer > 0);
                }
                prop_assert_eq!((&part.options, part.ack, part.window, part.ip), (&segment.options, segment.ack, segment.window, segment.ip));
                seq += part.payload.len();
                part.payload.clone().into_parts().for_each(|bytes| payload.push(bytes));
            }
            prop_assert_eq!(payload, segment.payload);
        }

        #[test]
        fn a_single_segment_is_its_own_only_part(segment in any_segment()) {
            let single = Segment { gso_size: 0, ..segment };
            prop_assert_eq!(single.clone().split().collect::<Vec<_>>(), vec![single]);
        }
    }
}
