//! ICMP (RFC 792) and ICMPv6 (RFC 4443) errors about TCP segments. All other messages are none of ours.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use super::checksum::Sum;
use super::segment::{IpMeta, Segment, Tuple};
use super::seq::SeqNum;
use super::{Error, ip, tcp};

/// Bytes of the longest error that [`emit`] writes: IPv6 and ICMP header, quoted IPv6 and TCP header.
pub const MAX_LEN: usize = 40 + 8 + 40 + 60;

/// An ICMP error that quotes a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpNote {
    /// Who reports it.
    pub from: IpAddr,
    /// The addresses of the quoted segment, as it was sent; the error goes to its `src`.
    pub quoted: Tuple,
    /// SEG.SEQ of the quoted segment.
    pub seq: SeqNum,
    /// ICMP type, IPv4 or IPv6 by the family of `quoted`.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Next-hop MTU of "fragmentation needed" (3/4) and "packet too big" (IPv6 2), else 0.
    pub mtu: u32,
}

impl IcmpNote {
    /// True for "destination unreachable".
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        self.kind == if self.quoted.is_ipv6() { 1 } else { 3 }
    }

    /// The bytes 4 to 8 of the message.
    fn rest_of_header(&self) -> [u8; 4] {
        match (self.quoted.is_ipv6(), self.kind) {
            (true, _) => self.mtu.to_be_bytes(),
            (false, 3) => u32::from(u16::try_from(self.mtu).unwrap_or(u16::MAX)).to_be_bytes(),
            (false, _) => [0; 4],
        }
    }
}

/// What an error says, by its type and code (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1; RFC 4443), in words.
#[must_use]
pub const fn name(ipv6: bool, kind: u8, code: u8) -> &'static str {
    match (ipv6, kind, code) {
        (false, 3, 0 | 6 | 11) | (true, 1, 0) => "net unreachable",
        (false, 3, 1 | 7 | 8 | 12) | (true, 1, 3) => "host unreachable",
        (false, 3, 2) => "protocol unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable",
        (false, 3, 5) => "source route failed",
        (false, 3, 9 | 10 | 13 | 14 | 15) | (true, 1, 1 | 5 | 6) => "administratively prohibited",
        (true, 1, 2) => "beyond the scope of the source",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        (false, 12, _) | (true, 4, _) => "parameter problem",
        (false, 3, _) | (true, 1, _) => "unreachable",
        _ => "other",
    }
}

/// Reads an error; `None` for other messages and for errors about something else than a TCP segment.
pub(super) fn parse(header: &ip::Header, body: &[u8], verify: bool) -> Result<Option<IcmpNote>, Error> {
    let ipv6 = header.src.is_ipv6();
    let sum = if ipv6 {
        Sum::pseudo_header(header.src, header.dst, ip::ICMPV6, body.len() as u32)
    } else {
        Sum::default()
    };
    if verify && sum.with(body).folded() != 0xffff {
        return Err(Error::IcmpChecksum);
    }
    let Some((&[kind, code, _, _, m0, m1, m2, m3], quote)) = body.split_first_chunk::<8>() else {
        return Err(Error::Truncated);
    };
    let mtu = match (ipv6, kind, code) {
        (false, 3, 4) => u32::from(u16::from_be_bytes([m2, m3])),
        // Unreachable, source quench (MUST-55: for the core to ignore), time exceeded, parameter problem.
        (false, 3 | 4 | 11 | 12, _) | (true, 1 | 3 | 4, _) => 0,
        (true, 2, _) => u32::from_be_bytes([m0, m1, m2, m3]),
        _ => return Ok(None),
    };
    let about = parse_quote(quote).filter(|(quoted, _)| quoted.is_ipv6() == ipv6);
    Ok(about.map(|(quoted, seq)| IcmpNote { from: header.src, quoted, seq, kind, code, mtu }))
}

/// Addresses and SEG.SEQ of the quoted segment. Eight bytes of the TCP header are guaranteed (RFC 792).
fn parse_quote(quote: &[u8]) -> Option<(Tuple, SeqNum)> {
    let header = ip::parse_quoted(quote)?;
    let (&[s0, s1, d0, d1, q0, q1, q2, q3], _) = quote.get(header.body)?.split_first_chunk::<8>()?;
    if header.protocol != ip::TCP {
        return None;
    }
    let src = SocketAddr::new(header.src, u16::from_be_bytes([s0, s1]));
    let dst = SocketAddr::new(header.dst, u16::from_be_bytes([d0, d1]));
    Some((Tuple { src, dst }, SeqNum(u32::from_be_bytes([q0, q1, q2, q3]))))
}

/// Writes the whole packet of an error that quotes the headers of `segment`, which went the way of `note.quoted`.
/// `note.seq` is not used: the quote has the number of `segment`.
#[must_use]
pub fn emit(note: &IcmpNote, segment: &Segment) -> ArrayVec<u8, MAX_LEN> {
    let Tuple { src, dst } = note.quoted;
    let mut quote = ArrayVec::<u8, 100>::new();
    let options = segment.options.to_bytes();
    let tcp_len = tcp::HEADER_LEN + options.len() + segment.payload.len() as usize;
    ip::emit(src.ip(), dst.ip(), segment.ip, ip::TCP, tcp_len, &mut quote);
    tcp::emit(src.port(), dst.port(), segment, &options, &mut quote);

    let protocol = if note.quoted.is_ipv6() { ip::ICMPV6 } else { ip::ICMP };
    let len = 8 + quote.len();
    let mut out = ArrayVec::new();
    let start = ip::emit(note.from, src.ip(), IpMeta::default(), protocol, len, &mut out);
    out.extend([note.kind, note.code, 0, 0]);
    out.extend(note.rest_of_header());
    out.extend(quote);
    let sum = match protocol {
        ip::ICMPV6 => Sum::pseudo_header(note.from, src.ip(), protocol, len as u32),
        _ => Sum::default(),
    };
    let sum = sum.with(&out[start..]).checksum();
    out[start + 2..start + 4].copy_from_slice(&sum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn the_same_trouble_has_the_same_name_in_both_versions() {
        for (v4, v6, expected) in [
            ((3, 0), (1, 0), "net unreachable"),
            ((3, 1), (1, 3), "host unreachable"),
            ((3, 3), (1, 4), "port unreachable"),
            ((3, 13), (1, 1), "administratively prohibited"),
            ((11, 0), (3, 0), "time exceeded"),
            ((12, 0), (4, 0), "parameter problem"),
        ] {
            assert_eq!((name(false, v4.0, v4.1), name(true, v6.0, v6.1)), (expected, expected));
        }
        assert_eq!((name(false, 3, 99), name(true, 1, 99)), ("unreachable", "unreachable"));
    }
}
