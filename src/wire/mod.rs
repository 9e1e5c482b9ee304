//! The wire format: what a packet says, and nothing about what to do with it.

pub mod checksum;
pub mod datagram;
pub mod icmp;
pub mod ip;
pub mod notation;
pub mod options;
pub mod payload;
pub mod segment;
pub mod seq;
pub mod tcp;
pub mod vnet;
pub mod window;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use arrayvec::ArrayVec;

use checksum::Sum;
pub use icmp::IcmpNote;
pub use notation::SegmentNote;
pub use options::{Options, SackBlock, Timestamps};
pub use payload::{Payload, join_small};
pub use segment::{Flags, IpMeta, Segment, Tuple};
pub use seq::{Numbers, SeqNum};
pub use vnet::VnetHdr;
pub use window::{RawWindow, WindowScale};

/// Why a packet cannot be read. Such a packet is discarded without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It ends before its headers do, or before the length in its header.
    Truncated,
    /// Neither IPv4 nor IPv6, or a length that contradicts itself.
    IpHeader,
    /// Wrong IPv4 header checksum.
    IpChecksum,
    /// A data offset below 5.
    TcpHeader,
    /// Wrong TCP checksum (RFC 9293 MUST-3).
    TcpChecksum,
    /// Wrong ICMP checksum.
    IcmpChecksum,
    /// Wrong UDP checksum.
    UdpChecksum,
}

impl Error {
    /// The reason as it stands in the trace.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated packet",
            Self::IpHeader => "bad IP header",
            Self::IpChecksum => "bad IP checksum",
            Self::TcpHeader => "bad TCP header",
            Self::TcpChecksum => "bad TCP checksum",
            Self::IcmpChecksum => "bad ICMP checksum",
            Self::UdpChecksum => "bad UDP checksum",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Error {}

/// What a packet is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A TCP segment.
    Tcp(TcpPacket),
    /// An ICMP error about a TCP segment.
    Icmp(IcmpNote),
    /// Anything else; to be written back unchanged.
    Other,
}

/// A TCP segment whose data are still in the packet, so that its owner decides whether to copy or to share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpPacket {
    /// Its addresses, not yet judged: see [`Tuple::martian`].
    pub tuple: Tuple,
    /// The segment without its payload. `gso_size` is set if the payload is longer than that.
    pub segment: Segment,
    /// Where the payload is in the packet.
    pub payload: Range<usize>,
}

impl TcpPacket {
    /// The whole segment, with a copy of its data out of `packet`; for tests and small payloads.
    #[must_use]
    pub fn with_payload(mut self, packet: &[u8]) -> (Tuple, Segment) {
        self.segment.payload = bytes::Bytes::copy_from_slice(&packet[self.payload]).into();
        (self.tuple, self.segment)
    }
}

/// Reads one packet. The TCP checksum is verified unless `vnet` vouches for it.
///
/// # Errors
/// [`Error`] tells why the packet must be discarded.
pub fn parse(packet: &[u8], vnet: &VnetHdr) -> Result<Packet, Error> {
    let Some(header) = ip::parse(packet)? else { return Ok(Packet::Other) };
    let body = &packet[header.body.clone()];
    match (header.protocol, header.src.is_ipv6()) {
        (ip::TCP, _) => {
            if !vnet.vouches_for_checksum() {
                let sum = Sum::pseudo_header(header.src, header.dst, ip::TCP, body.len() as u32);
                if sum.with(body).folded() != 0xffff {
                    return Err(Error::TcpChecksum);
                }
            }
            let tcp = tcp::parse(body)?;
            let payload = header.body.start + tcp.len..header.body.end;
            let mut segment = Segment { ip: header.meta, ..tcp.segment };
            if payload.len() > usize::from(vnet.tcp_gso_size()) {
                segment.gso_size = vnet.tcp_gso_size();
            }
            let src = SocketAddr::new(header.src, tcp.src_port);
            let dst = SocketAddr::new(header.dst, tcp.dst_port);
            Ok(Packet::Tcp(TcpPacket { tuple: Tuple { src, dst }, segment, payload }))
        }
        (ip::ICMP, false) | (ip::ICMPV6, true) => {
            let verify = !vnet.vouches_for_checksum();
            Ok(icmp::parse(&header, body, verify)?.map_or(Packet::Other, Packet::Icmp))
        }
        _ => Ok(Packet::Other),
    }
}

/// Who computes the TCP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumMode {
    /// The device: the field holds the folded pseudo-header sum. Required for super-segments.
    Offload,
    /// Us, over the payload. A super-segment then leaves as one large packet: only for devices without a limit.
    Full,
}

/// IP and TCP header of one packet; the parts of the payload follow it on the wire.
pub type Head = ArrayVec<u8, 120>;

/// Writes the headers of a segment. The caller keeps a packet below 64 KiB, and cuts a super-segment before it gives it a bad
/// checksum.
#[must_use]
pub fn emit(tuple: Tuple, segment: &Segment, mode: ChecksumMode) -> (VnetHdr, Head) {
    let Tuple { src, dst } = tuple;
    let mut head = Head::new();
    let options = segment.options.to_bytes();
    let tcp_len = tcp::HEADER_LEN + options.len() + segment.payload.len() as usize;
    let start = ip::emit(src.ip(), dst.ip(), segment.ip, ip::TCP, tcp_len, &mut head);
    tcp::emit(src.port(), dst.port(), segment, &options, &mut head);

    let pseudo = Sum::pseudo_header(src.ip(), dst.ip(), ip::TCP, tcp_len as u32);
    let full =
        || segment.payload.parts().iter().fold(pseudo.with(&head[start..]), |sum, part| sum.with(part));
    let (vnet, field) = match mode {
        // Nobody must finish this one: a device would make it right.
        _ if segment.bad_checksum => (VnetHdr::default(), wrong(full().checksum())),
        ChecksumMode::Offload => (offload(tuple, segment, start, head.len()), pseudo.folded()),
        ChecksumMode::Full => (VnetHdr::default(), full().checksum()),
    };
    let at = start + tcp::CHECKSUM_AT;
    head[at..at + 2].copy_from_slice(&field.to_be_bytes());
    (vnet, head)
}

/// Another checksum. 0 and 0xffff are the same number to a receiver; no single flipped bit leads from one to the other.
const fn wrong(checksum: u16) -> u16 {
    checksum ^ 1
}

/// What the device has to do: finish the checksum, and cut a super-segment.
fn offload(tuple: Tuple, segment: &Segment, tcp_at: usize, head_len: usize) -> VnetHdr {
    let mut vnet = VnetHdr {
        flags: VnetHdr::NEEDS_CSUM,
        hdr_len: head_len as u16,
        csum_start: tcp_at as u16,
        csum_offset: tcp::CHECKSUM_AT as u16,
        ..VnetHdr::default()
    };
    if segment.segs() > 1 {
        vnet.gso_size = segment.gso_size;
        vnet.gso_type = if tuple.is_ipv6() { VnetHdr::GSO_TCPV6 } else { VnetHdr::GSO_TCPV4 };
        if segment.has(Flags::CWR) {
            vnet.gso_type |= VnetHdr::GSO_ECN;
        }
    }
    vnet
}

#[cfg(test)]
mod tests;
