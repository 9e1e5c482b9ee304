//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use arrayvec::ArrayVec;

use super::Error;
use super::checksum::Sum;
use super::segment::{IpMeta, Tuple};

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// More extension headers than this and the packet is none of ours.
const MAX_EXTENSIONS: usize = 8;

/// A packet whose upper layer can be read.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) meta: IpMeta,
    pub(super) protocol: u8,
    /// Where the upper layer is in the packet; padding after the packet's own length is cut off.
    pub(super) body: Range<usize>,
}

/// Reads the IP headers. `None` for a packet that is well-formed but has no upper layer that could be read on its own:
/// a fragment, or IPv6 extensions that change the meaning of what follows.
pub(super) fn parse(packet: &[u8]) -> Result<Option<Header>, Error> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => parse_v4(packet, true),
        Some(6) => parse_v6(packet, true),
        Some(_) => Err(Error::IpHeader),
        None => Err(Error::Truncated),
    }
}

/// The same for the packet that an ICMP error quotes: cut anywhere, and its header checksum may be stale.
pub(super) fn parse_quoted(packet: &[u8]) -> Option<Header> {
    let parsed = match packet.first()? >> 4 {
        4 => parse_v4(packet, false),
        6 => parse_v6(packet, false),
        _ => return None,
    };
    parsed.ok().flatten()
}

fn parse_v4(packet: &[u8], whole: bool) -> Result<Option<Header>, Error> {
    let (h, _) = packet.split_first_chunk::<20>().ok_or(Error::Truncated)?;
    let header_len = usize::from(h[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if header_len < 20 || total_len < header_len {
        return Err(Error::IpHeader);
    }
    let header = packet.get(..header_len).ok_or(Error::Truncated)?;
    if whole && packet.len() < total_len {
        return Err(Error::Truncated);
    }
    if whole && Sum::default().with(header).folded() != 0xffff {
        return Err(Error::IpChecksum);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0 {
        return Ok(None);
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]));
    Ok(Some(Header {
        src: address(12),
        dst: address(16),
        meta: IpMeta { ttl: h[8], tos: h[1] },
        protocol: h[9],
        body: header_len..total_len.min(packet.len()),
    }))
}

fn parse_v6(packet: &[u8], whole: bool) -> Result<Option<Header>, Error> {
    let (h, _) = packet.split_first_chunk::<40>().ok_or(Error::Truncated)?;
    let end = 40 + usize::from(u16::from_be_bytes([h[4], h[5]]));
    if whole && packet.len() < end {
        return Err(Error::Truncated);
    }
    let end = end.min(packet.len());
    let Some((protocol, start)) = walk_extensions(&packet[..end], h[6])? else { return Ok(None) };
    let address = |at: usize| {
        let octets = h[at..].first_chunk::<16>().expect("40 bytes hold an address at 8 and at 24");
        IpAddr::V6(Ipv6Addr::from(*octets))
    };
    let tos = h[0] << 4 | h[1] >> 4;
    Ok(Some(Header {
        src: address(8),
        dst: address(24),
        meta: IpMeta { ttl: h[7], tos },
        protocol,
        body: start..end,
    }))
}

/// Follows the extension headers from the one after the fixed header: the upper-layer protocol and where it starts.
fn walk_extensions(packet: &[u8], first: u8) -> Result<Option<(u8, usize)>, Error> {
    let (mut next, mut at) = (first, 40);
    for _ in 0..MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            // Fragments, authentication, encryption and unknown ones come out as protocols that nobody here reads.
            _ => return Ok(Some((next, at))),
        }
        let extension = packet.get(at..at + 8).ok_or(Error::Truncated)?;
        // With segments left the destination is not the final one, which the TCP checksum covers.
        if next == ROUTING && extension[3] != 0 {
            return Ok(None);
        }
        (next, at) = (extension[0], at + 8 + 8 * usize::from(extension[1]));
        if at > packet.len() {
            return Err(Error::Truncated);
        }
    }
    Ok(None)
}

/// Writes a header and returns its length. IPv4: no options, DF, and so an identification of 0 (RFC 6864 §4.1). IPv6: flow
/// label 0. `body_len` beyond what the length field holds is written as the largest length.
pub(super) fn emit<const N: usize>(
    src: IpAddr,
    dst: IpAddr,
    meta: IpMeta,
    protocol: u8,
    body_len: usize,
    out: &mut ArrayVec<u8, N>,
) -> usize {
    let field = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    let start = out.len();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = [0; 20];
            header[..2].copy_from_slice(&[0x45, meta.tos]);
            header[2..4].copy_from_slice(&field(20 + body_len));
            header[6..10].copy_from_slice(&[0x40, 0, meta.ttl, protocol]);
            header[12..16].copy_from_slice(&src.octets());
            header[16..].copy_from_slice(&dst.octets());
            let sum = Sum::default().with(&header).checksum();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            append(out, &header);
        }
        (src, dst) => {
            let mut header = [0; 40];
            header[..2].copy_from_slice(&[0x60 | meta.tos >> 4, meta.tos << 4]);
            header[4..6].copy_from_slice(&field(body_len));
            header[6..8].copy_from_slice(&[protocol, meta.ttl]);
            header[8..24].copy_from_slice(&super::checksum::to_v6(src));
            header[24..].copy_from_slice(&super::checksum::to_v6(dst));
            append(out, &header);
        }
    }
    out.len() - start
}

/// In one piece: `extend` goes byte by byte. The caller has the room.
pub(super) fn append<const N: usize>(out: &mut ArrayVec<u8, N>, bytes: &[u8]) {
    out.try_extend_from_slice(bytes).expect("there is room for the longest headers");
}

impl Tuple {
    /// Why a segment with these addresses must be discarded without an answer, if it must: no connection can have them
    /// (RFC 9293 MUST-46, MUST-57, MUST-63), or it would be answered to itself (LAND).
    #[must_use]
    pub fn martian(&self) -> Option<&'static str> {
        let group = |ip: IpAddr| ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        let (src, dst) = (self.src.ip().to_canonical(), self.dst.ip().to_canonical());
        if src.is_unspecified() || dst.is_unspecified() {
            Some("unspecified address")
        } else if group(src) {
            Some("source is a group")
        } else if group(dst) {
            Some("destination is a group")
        } else if self.src == self.dst {
            Some("source is destination")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_connection_has_are_told_apart() {
        for (src, dst, expected) in [
            ("10.0.0.1:1", "10.0.0.2:2", None),
            ("10.0.0.1:1", "10.0.0.1:2", None),
            ("[fd00::1]:1", "[fd00::2]:2", None),
            ("10.0.0.1:1", "10.0.0.1:1", Some("source is destination")),
            ("0.0.0.0:1", "10.0.0.1:2", Some("unspecified address")),
            ("10.0.0.1:1", "[::]:2", Some("unspecified address")),
            ("224.0.0.1:1", "10.0.0.1:2", Some("source is a group")),
            ("255.255.255.255:1", "10.0.0.1:2", Some("source is a group")),
            ("10.0.0.1:1", "255.255.255.255:2", Some("destination is a group")),
            ("[fd00::1]:1", "[ff02::1]:2", Some("destination is a group")),
            ("[::ffff:224.0.0.1]:1", "[fd00::1]:2", Some("source is a group")),
        ] {
            let tuple = Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap() };
            assert_eq!(tuple.martian(), expected, "{tuple}");
        }
    }
}
