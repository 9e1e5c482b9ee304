//! What the `exec` mode understands besides TCP: UDP (RFC 768), echo requests, and the ICMP errors about a datagram.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use arrayvec::ArrayVec;
use bytes::{BufMut, BytesMut};

use super::Error;
use super::checksum::Sum;
use super::ip::{self, Header};
use super::segment::IpMeta;

/// Protocol number of UDP.
const UDP: u8 = 17;
/// Length of the UDP header in bytes.
const UDP_HEADER_LEN: usize = 8;
/// Longest UDP payload that an IPv4 packet holds.
pub const MAX_PAYLOAD: usize = 65_535 - 20 - UDP_HEADER_LEN;
/// Most bytes of a packet that an ICMP error about it repeats: as much as Linux repeats for IPv4 (RFC 1812 §4.3.2.3:
/// 576 bytes in all).
const MAX_QUOTE: usize = 548;

/// A packet that is not TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// UDP.
    Udp {
        /// Sender.
        src: SocketAddr,
        /// Receiver.
        dst: SocketAddr,
        /// Where the data are in the packet.
        payload: Range<usize>,
    },
    /// An ICMP or ICMPv6 echo request.
    Echo {
        /// Sender.
        src: IpAddr,
        /// Receiver.
        dst: IpAddr,
        /// Where the message is in the packet, from its type on.
        message: Range<usize>,
    },
}

/// Reads a packet; `None` if it is neither. With `needs_csum` the UDP checksum is unfinished and not looked at.
///
/// # Errors
/// [`Error`] tells why the packet must be discarded.
pub fn parse(packet: &[u8], needs_csum: bool) -> Result<Option<Datagram>, Error> {
    let Some(header) = ip::parse(packet)? else { return Ok(None) };
    let body = &packet[header.body.clone()];
    match (header.protocol, header.src.is_ipv6()) {
        (UDP, _) => parse_udp(&header, body, needs_csum).map(Some),
        (ip::ICMP, false) | (ip::ICMPV6, true) => Ok(parse_echo(&header, body)),
        _ => Ok(None),
    }
}

fn parse_udp(header: &Header, body: &[u8], needs_csum: bool) -> Result<Datagram, Error> {
    let (&[s0, s1, d0, d1, l0, l1, c0, c1], _) = body.split_first_chunk::<8>().ok_or(Error::Truncated)?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let datagram = body.get(..len).ok_or(Error::Truncated)?;
    if len < UDP_HEADER_LEN {
        return Err(Error::IpHeader);
    }
    // A checksum of zero means none (RFC 768); IPv6 forbids that, and our own kernel does not send it.
    if !needs_csum && [c0, c1] != [0, 0] {
        let sum = Sum::pseudo_header(header.src, header.dst, UDP, len as u32);
        if sum.with(datagram).folded() != 0xffff {
            return Err(Error::UdpChecksum);
        }
    }
    let start = header.body.start;
    Ok(Datagram::Udp {
        src: SocketAddr::new(header.src, u16::from_be_bytes([s0, s1])),
        dst: SocketAddr::new(header.dst, u16::from_be_bytes([d0, d1])),
        payload: start + UDP_HEADER_LEN..start + len,
    })
}

fn parse_echo(header: &Header, body: &[u8]) -> Option<Datagram> {
    let request = if header.src.is_ipv6() { 128 } else { 8 };
    let is_request = body.len() >= 8 && body[0] == request && body[1] == 0;
    is_request.then(|| Datagram::Echo { src: header.src, dst: header.dst, message: header.body.clone() })
}

/// Appends a UDP packet to `out`. `payload` is at most [`MAX_PAYLOAD`] long, and both addresses are of one family.
pub fn emit_udp(src: SocketAddr, dst: SocketAddr, payload: &[u8], out: &mut BytesMut) {
    let len = UDP_HEADER_LEN + payload.len();
    let start = emit_ip(src.ip(), dst.ip(), UDP, len, out);
    out.put_u16(src.port());
    out.put_u16(dst.port());
    out.put_u16(len as u16);
    out.put_u16(0);
    out.put_slice(payload);
    let sum = Sum::pseudo_header(src.ip(), dst.ip(), UDP, len as u32).with(&out[start..]);
    // A sum of zero is sent as its other form, because zero means none.
    let field = if sum.checksum() == 0 { 0xffff } else { sum.checksum() };
    out[start + 6..start + 8].copy_from_slice(&field.to_be_bytes());
}

/// Appends the answer to an echo request from `src` to `dst`. `message` is the request from its type on.
pub fn emit_echo_reply(src: IpAddr, dst: IpAddr, message: &[u8], out: &mut BytesMut) {
    let reply = if src.is_ipv6() { 129 } else { 0 };
    emit_icmp(dst, src, [reply, 0], &message[4..], out);
}

/// Appends an ICMP error with `kind` and `code` about `packet`, from its receiver to its sender; of the packet only the
/// headers are needed. One that cannot be read has no answer.
pub fn emit_error(packet: &[u8], kind: u8, code: u8, out: &mut BytesMut) {
    if let Some(header) = ip::parse_quoted(packet) {
        let mut rest = vec![0; 4];
        rest.extend(&packet[..packet.len().min(MAX_QUOTE)]);
        emit_icmp(header.dst, header.src, [kind, code], &rest, out);
    }
}

/// `rest` is the message after its checksum.
fn emit_icmp(from: IpAddr, to: IpAddr, kind_and_code: [u8; 2], rest: &[u8], out: &mut BytesMut) {
    let protocol = if to.is_ipv6() { ip::ICMPV6 } else { ip::ICMP };
    let len = 4 + rest.len();
    let start = emit_ip(from, to, protocol, len, out);
    out.put_slice(&kind_and_code);
    out.put_u16(0);
    out.put_slice(rest);
    let pseudo =
        if to.is_ipv6() { Sum::pseudo_header(from, to, protocol, len as u32) } else { Sum::default() };
    let sum = pseudo.with(&out[start..]).checksum();
    out[start + 2..start + 4].copy_from_slice(&sum.to_be_bytes());
}

/// Returns where the body starts.
fn emit_ip(src: IpAddr, dst: IpAddr, protocol: u8, body_len: usize, out: &mut BytesMut) -> usize {
    let mut head = ArrayVec::<u8, 40>::new();
    ip::emit(src, dst, IpMeta::default(), protocol, body_len, &mut head);
    out.put_slice(&head);
    out.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn pair(ipv6: bool) -> (SocketAddr, SocketAddr) {
        let (a, b) = if ipv6 { ("[fd00::1]:1000", "[fd00::2]:53") } else { ("10.0.0.1:1000", "10.0.0.2:53") };
        (a.parse().unwrap(), b.parse().unwrap())
    }

    #[test]
    fn a_datagram_survives_the_round_trip() {
        for ipv6 in [false, true] {
            for payload in [&b""[..], b"x", b"question?", &[0xff; 3000]] {
                let (src, dst) = pair(ipv6);
                let mut packet = BytesMut::new();
                emit_udp(src, dst, payload, &mut packet);
                let Ok(Some(Datagram::Udp { src: s, dst: d, payload: at })) = parse(&packet, false) else {
                    panic!("{ipv6} {}", payload.len())
                };
                assert_eq!((s, d, &packet[at]), (src, dst, payload));
            }
        }
    }

    #[test]
    fn an_independent_reader_agrees() {
        for ipv6 in [false, true] {
            let (src, dst) = pair(ipv6);
            let mut packet = BytesMut::new();
            emit_udp(src, dst, b"question?", &mut packet);
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP") };
            let expected = match sliced.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                }
                NetSlice::Ipv6(ip) => {
                    udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                }
                NetSlice::Arp(_) => panic!("not IP"),
            };
            assert_eq!((udp.checksum(), udp.payload()), (expected.unwrap(), &b"question?"[..]));
        }
    }

    #[test]
    fn what_lies_about_itself_is_discarded() {
        let (src, dst) = pair(false);
        let mut packet = BytesMut::new();
        emit_udp(src, dst, b"question?", &mut packet);
        let mut wrong = packet.clone();
        wrong[30] ^= 1;
        assert_eq!(parse(&wrong, false), Err(Error::UdpChecksum));
        assert!(parse(&wrong, true).is_ok(), "an unfinished checksum is not looked at");
        let mut long = packet.clone();
        long[25] = 200;
        assert_eq!(parse(&long, true), Err(Error::Truncated));
        let mut short = packet;
        short[25] = 7;
        assert_eq!(parse(&short, true), Err(Error::IpHeader));
    }

    #[test]
    fn an_echo_request_is_answered_with_its_own_bytes() {
        for ipv6 in [false, true] {
            let (src, dst) = pair(ipv6);
            let mut request = BytesMut::new();
            let kind = if ipv6 { 128 } else { 8 };
            emit_icmp(src.ip(), dst.ip(), [kind, 0], b"id+nDATA", &mut request);
            let Ok(Some(Datagram::Echo { src: s, dst: d, message })) = parse(&request, false) else {
                panic!("{ipv6}")
            };
            let mut reply = BytesMut::new();
            emit_echo_reply(s, d, &request[message.clone()], &mut reply);
            let sliced = SlicedPacket::from_ip(&reply).unwrap();
            match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                    assert_eq!(IpAddr::V4(ip.header().source_addr()), dst.ip());
                    assert_eq!((icmp.type_u8(), Sum::default().with(icmp.slice()).folded()), (0, 0xffff));
                }
                (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                    let header = ip.header().to_header();
                    assert_eq!(IpAddr::V6(header.source_addr()), dst.ip());
                    assert!(icmp.is_checksum_valid(header.source, header.destination));
                    assert_eq!(icmp.type_u8(), 129);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(&reply[message][4..], b"id+nDATA");
            assert_eq!(parse(&reply, false), Ok(None), "a reply is not a request");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
            first in proptest::sample::select(vec![0x45u8, 0x46, 0x60]),
            protocol in proptest::sample::select(vec![1u8, 17, 58]),
        ) {
            let mut bytes = bytes;
            for (at, value) in [(0, first), (6, protocol), (9, protocol)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if let Ok(Some(Datagram::Udp { payload, .. } | Datagram::Echo { message: payload, .. })) = parse(&bytes, true) {
                proptest::prop_assert!(bytes.get(payload).is_some());
            }
            emit_error(&bytes, 3, 3, &mut BytesMut::new());
        }
    }

    #[test]
    fn an_error_quotes_the_packet() {
        let (src, dst) = pair(false);
        let mut packet = BytesMut::new();
        emit_udp(src, dst, &[7; 3000], &mut packet);
        let mut error = BytesMut::new();
        emit_error(&packet, 3, 3, &mut error);
        assert_eq!((error.len(), &error[20..22]), (576, &[3, 3][..]));
        assert_eq!(error[28..], packet[..MAX_QUOTE]);
        error.clear();
        emit_error(&packet[..28], 3, 1, &mut error);
        assert_eq!((error.len(), &error[20..22]), (56, &[3, 1][..]));
        error.clear();
        emit_error(b"nonsense", 3, 3, &mut error);
        assert!(error.is_empty());
    }
}
