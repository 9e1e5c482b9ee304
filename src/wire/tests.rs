//! Packets in both directions, against a second implementation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use etherparse::{IpNumber, NetHeaders, PacketHeaders, TransportHeader};
use proptest::prelude::*;

use super::*;

fn addresses(ipv6: bool) -> Tuple {
    let (src, dst) =
        if ipv6 { ("[fd00::1]:40000", "[fd00::2]:443") } else { ("10.0.0.1:40000", "10.0.0.2:443") };
    Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap() }
}

fn whole(tuple: Tuple, segment: &Segment, mode: ChecksumMode) -> (VnetHdr, Vec<u8>) {
    let (vnet, head) = emit(tuple, segment, mode);
    let mut packet = head.to_vec();
    packet.extend(segment.payload.to_vec());
    (vnet, packet)
}

fn read_tcp(packet: &[u8], vnet: &VnetHdr) -> (Tuple, Segment) {
    match parse(packet, vnet) {
        Ok(Packet::Tcp(tcp)) => tcp.with_payload(packet),
        other => panic!("no segment: {other:?}"),
    }
}

fn any_payload() -> impl Strategy<Value = Payload> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..4).prop_map(|parts| {
        let mut payload = Payload::empty();
        parts.into_iter().for_each(|part| payload.push(Bytes::from(part)));
        payload
    })
}

prop_compose! {
    pub(super) fn any_segment()(
        (seq, ack, flags, window, urgent) in (any::<u32>(), any::<u32>(), 0u16..0x200, any::<u16>(), any::<u16>()),
        option_bytes in proptest::collection::vec(any::<u8>(), 0..=40),
        timestamps in proptest::option::of((any::<u32>(), any::<u32>())),
        (ttl, tos) in (any::<u8>(), any::<u8>()),
        payload in any_payload(),
        gso in 8u16..100,
    ) -> Segment {
        let mut options = Options::parse(&option_bytes);
        if let Some((val, ecr)) = timestamps && option_bytes.len() <= 28 {
            options.timestamps = Some(Timestamps { val, ecr });
        }
        let gso_size = if u32::from(gso) < payload.len() { gso } else { 0 };
        Segment {
            seq: SeqNum(seq),
            ack: SeqNum(ack),
            flags: Flags(flags),
            window: RawWindow(window),
            urgent,
            options,
            payload,
            ip: IpMeta { ttl, tos },
            gso_size,
            bad_checksum: false,
        }
    }
}

proptest! {
    #[test]
    fn any_segment_survives_the_wire(segment in any_segment(), ipv6: bool) {
        let tuple = addresses(ipv6);
        let (vnet, packet) = whole(tuple, &segment, ChecksumMode::Offload);
        prop_assert_eq!(read_tcp(&packet, &vnet), (tuple, segment.clone()));

        let (vnet, packet) = whole(tuple, &segment, ChecksumMode::Full);
        prop_assert_eq!(read_tcp(&packet, &vnet), (tuple, Segment { gso_size: 0, ..segment }));
    }

    /// RFC 9293 MUST-2: what we send has the checksum that others compute.
    #[test]
    fn another_implementation_reads_what_we_write(segment in any_segment(), ipv6: bool) {
        let tuple = addresses(ipv6);
        let (_, packet) = whole(tuple, &segment, ChecksumMode::Full);
        let theirs = PacketHeaders::from_ip_slice(&packet).unwrap();
        let Some(TransportHeader::Tcp(tcp)) = theirs.transport else { panic!("no TCP header") };
        let payload = segment.payload.to_vec();
        let checksum = match theirs.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                prop_assert!(ip.dont_fragment);
                prop_assert_eq!((ip.time_to_live, usize::from(ip.total_len)), (segment.ip.ttl, packet.len()));
                tcp.calc_checksum_ipv4(&ip, &payload).unwrap()
            }
            NetHeaders::Ipv6(ip, _) => {
                prop_assert_eq!(ip.traffic_class, segment.ip.tos);
                tcp.calc_checksum_ipv6(&ip, &payload).unwrap()
            }
            NetHeaders::Arp(_) => unreachable!(),
        };
        prop_assert_eq!(tcp.checksum, checksum);
        prop_assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (segment.seq.0, segment.ack.0));
        prop_assert_eq!((tcp.window_size, tcp.urgent_pointer), (segment.window.0, segment.urgent));
        prop_assert_eq!((tcp.syn, tcp.fin), (segment.has(Flags::SYN), segment.has(Flags::FIN)));
        prop_assert_eq!(tcp.options.as_slice(), &segment.options.to_bytes()[..]);
    }

    /// RFC 9293 MUST-3, MUST-50: IP options and extension headers are skipped, one flipped bit is found.
    #[test]
    fn we_read_what_another_implementation_writes(
        payload in proptest::collection::vec(any::<u8>(), 0..100), ipv6: bool, options: bool, at: usize, bit in 0u8..8,
    ) {
        let mut packet = theirs(&payload, ipv6, options);
        let (tuple, segment) = read_tcp(&packet, &VnetHdr::default());
        prop_assert_eq!(tuple, addresses(ipv6));
        prop_assert_eq!((segment.seq, segment.ack, segment.window), (SeqNum(1), SeqNum(2), RawWindow(502)));
        prop_assert_eq!(&segment.payload.to_vec(), &payload);
        prop_assert_eq!(segment.options.mss, Some(1400));

        let padded = [&packet[..], &[0; 6]].concat();
        prop_assert_eq!(read_tcp(&padded, &VnetHdr::default()).1.payload.len(), segment.payload.len());

        let tcp_at = packet.len() - payload.len() - 24;
        let at = tcp_at + at % (packet.len() - tcp_at);
        packet[at] ^= 1 << bit;
        prop_assert_eq!(parse(&packet, &VnetHdr::default()), Err(Error::TcpChecksum));
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut packet in proptest::collection::vec(any::<u8>(), 0..200), version: bool) {
        if let Some(first) = packet.first_mut() {
            *first = if version { 0x45 } else { 0x60 };
        }
        let vouched = VnetHdr { flags: VnetHdr::DATA_VALID, ..VnetHdr::default() };
        if let Ok(Packet::Tcp(tcp)) = parse(&packet, &vouched) {
            prop_assert!(tcp.payload.end <= packet.len());
        }
    }
}

/// A packet by the other implementation.
fn theirs(payload: &[u8], ipv6: bool, options: bool) -> Vec<u8> {
    use etherparse::{Ipv4Extensions, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header, Ipv6RawExtHeader};
    let tuple = addresses(ipv6);
    let mut tcp = etherparse::TcpHeader::new(tuple.src.port(), tuple.dst.port(), 1, 502);
    (tcp.ack, tcp.acknowledgment_number) = (true, 2);
    tcp.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1400)]).unwrap();
    let mut out = Vec::new();
    let len = (tcp.header_len() + payload.len()) as u16;
    match (tuple.src.ip(), tuple.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip =
                etherparse::Ipv4Header::new(len, 64, IpNumber::TCP, src.octets(), dst.octets()).unwrap();
            if options {
                // Router alert (RFC 2113) and an unknown option.
                ip.options = [0x94, 4, 0, 0, 0x9e, 4, 7, 7].into();
                ip.set_payload_len(usize::from(len)).unwrap();
            }
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).unwrap();
            etherparse::IpHeaders::Ipv4(ip, Ipv4Extensions::default()).write(&mut out).unwrap();
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut extensions = Ipv6Extensions::default();
            if options {
                extensions.hop_by_hop_options =
                    Some(Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[5, 2, 0, 0, 1, 0]).unwrap());
                extensions.destination_options = Some(
                    Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
                        .unwrap(),
                );
            }
            let next_header = extensions.set_next_headers(IpNumber::TCP);
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: len + extensions.header_len() as u16,
                next_header,
                hop_limit: 64,
                source: src.octets(),
                destination: dst.octets(),
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, payload).unwrap();
            etherparse::IpHeaders::Ipv6(ip, extensions).write(&mut out).unwrap();
        }
        _ => unreachable!(),
    }
    tcp.write(&mut out).unwrap();
    out.extend(payload);
    out
}

fn data(len: usize, gso_size: u16) -> Segment {
    Segment {
        flags: Flags::ACK,
        payload: Bytes::from(vec![7; len]).into(),
        options: Options { timestamps: Some(Timestamps::default()), ..Options::default() },
        gso_size,
        ..Segment::default()
    }
}

#[test]
fn offload_asks_the_device_for_checksum_and_cutting() {
    for (ipv6, gso_type, tcp_at) in [(false, VnetHdr::GSO_TCPV4, 20), (true, VnetHdr::GSO_TCPV6, 40)] {
        let (vnet, head) = emit(addresses(ipv6), &data(3000, 1448), ChecksumMode::Offload);
        let expected = VnetHdr {
            flags: VnetHdr::NEEDS_CSUM,
            gso_type,
            hdr_len: tcp_at + 32,
            gso_size: 1448,
            csum_start: tcp_at,
            csum_offset: 16,
        };
        assert_eq!((vnet, head.len()), (expected, usize::from(tcp_at) + 32));
        let cwr = Segment { flags: Flags::ACK | Flags::CWR, ..data(3000, 1448) };
        assert_eq!(
            emit(addresses(ipv6), &cwr, ChecksumMode::Offload).0.gso_type,
            gso_type | VnetHdr::GSO_ECN
        );
    }
}

#[test]
fn a_payload_that_fits_one_segment_is_no_super_segment() {
    for len in [0, 1, 1448] {
        let (vnet, head) = emit(addresses(false), &data(len, 1448), ChecksumMode::Offload);
        assert_eq!((vnet.gso_type, vnet.gso_size), (VnetHdr::GSO_NONE, 0), "{len}");
        let mut packet = head.to_vec();
        packet.extend(vec![7; len]);
        let gso = VnetHdr { gso_type: VnetHdr::GSO_TCPV4, gso_size: 1448, ..vnet };
        assert_eq!(read_tcp(&packet, &gso).1.segs(), 1, "{len}");
    }
}

#[test]
fn a_checksum_is_verified_unless_the_device_vouches_for_it() {
    let (_, mut packet) = whole(addresses(false), &data(10, 0), ChecksumMode::Full);
    packet[50] ^= 1;
    for (flags, good) in [(0, false), (VnetHdr::NEEDS_CSUM, true), (VnetHdr::DATA_VALID, true)] {
        assert_eq!(parse(&packet, &VnetHdr { flags, ..VnetHdr::default() }).is_ok(), good, "{flags}");
    }
}

#[test]
fn broken_packets_have_a_reason() {
    let (_, good) = whole(addresses(false), &data(10, 0), ChecksumMode::Full);
    let (_, good6) = whole(addresses(true), &data(10, 0), ChecksumMode::Full);
    let vouched = VnetHdr { flags: VnetHdr::DATA_VALID, ..VnetHdr::default() };
    let broken = |packet: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet.to_vec();
        change(&mut packet);
        if packet.len() >= 20 && packet[0] >> 4 == 4 {
            packet[10..12].copy_from_slice(&[0, 0]);
            let len = packet.len().min(usize::from(packet[0] & 15) * 4);
            let sum = Sum::default().with(&packet[..len]).checksum();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        parse(&packet, &vouched)
    };
    for (what, got, expected) in [
        ("empty", broken(&good, &|p| p.clear()), Error::Truncated),
        ("half a header", broken(&good, &|p| p.truncate(19)), Error::Truncated),
        ("half a header", broken(&good6, &|p| p.truncate(39)), Error::Truncated),
        ("cut", broken(&good, &|p| p.truncate(60)), Error::Truncated),
        ("cut", broken(&good6, &|p| p.truncate(80)), Error::Truncated),
        ("version 5", broken(&good, &|p| p[0] = 0x55), Error::IpHeader),
        ("IHL 4", broken(&good, &|p| p[0] = 0x44), Error::IpHeader),
        ("IHL past the end", broken(&good, &|p| (p[0], p[3]) = (0x4f, 40)), Error::IpHeader),
        ("total length below IHL", broken(&good, &|p| p[3] = 19), Error::IpHeader),
        ("no room for TCP", broken(&good, &|p| p[3] = 39), Error::Truncated),
        ("data offset 4", broken(&good, &|p| p[32] = 0x40), Error::TcpHeader),
        ("data offset past the end", broken(&good, &|p| (p[3], p[32]) = (60, 0xf0)), Error::Truncated),
        ("extension past the end", broken(&good6, &|p| (p[6], p[41]) = (60, 200)), Error::Truncated),
    ] {
        assert_eq!(got, Err(expected), "{what}");
    }
    let mut packet = good;
    packet[11] ^= 1;
    assert_eq!(parse(&packet, &vouched), Err(Error::IpChecksum));
}

#[test]
fn fragments_and_other_protocols_pass_as_they_are() {
    let (_, good) = whole(addresses(false), &data(10, 0), ChecksumMode::Full);
    let (_, good6) = whole(addresses(true), &data(10, 0), ChecksumMode::Full);
    for (what, at, byte) in
        [("more fragments", 6, 0x20), ("offset", 7, 1), ("UDP", 9, 17), ("ICMPv6 in IPv4", 9, 58)]
    {
        let mut packet = good.clone();
        packet[at] = byte;
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = Sum::default().with(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parse(&packet, &VnetHdr::default()), Ok(Packet::Other), "{what}");
    }
    for (what, next) in [("fragment", 44), ("ESP", 50), ("AH", 51), ("nothing", 59), ("UDP", 17)] {
        let mut packet = good6.clone();
        packet[6] = next;
        assert_eq!(parse(&packet, &VnetHdr::default()), Ok(Packet::Other), "{what}");
    }
    let mut routed = good6[..40].to_vec();
    (routed[5], routed[6]) = (8, 43);
    routed.extend([6, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(parse(&routed, &VnetHdr::default()), Ok(Packet::Other), "segments left");
}

#[test]
fn icmp_errors_survive_the_wire_and_another_implementation_reads_them() {
    let syn = Segment {
        seq: SeqNum(77),
        flags: Flags::SYN,
        options: Options { mss: Some(1460), ..Options::default() },
        ..Segment::default()
    };
    for (ipv6, kind, code, mtu) in [
        (false, 3, 1, 0),
        (false, 3, 4, 1400),
        (false, 11, 0, 0),
        (true, 1, 3, 0),
        (true, 2, 0, 1280),
        (true, 3, 0, 0),
    ] {
        let from = if ipv6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let quoted = addresses(ipv6);
        let note = IcmpNote { from, quoted, seq: SeqNum(77), kind, code, mtu };
        let packet = icmp::emit(&note, &syn);
        assert_eq!(parse(&packet, &VnetHdr::default()), Ok(Packet::Icmp(note)));

        let theirs = etherparse::SlicedPacket::from_ip(&packet).unwrap();
        match theirs.transport {
            Some(etherparse::TransportSlice::Icmpv4(icmp)) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (kind, code));
            }
            Some(etherparse::TransportSlice::Icmpv6(icmp)) => {
                assert_eq!((icmp.type_u8(), icmp.code_u8()), (kind, code));
                let (IpAddr::V6(from), IpAddr::V6(to)) = (from, quoted.src.ip()) else { unreachable!() };
                assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
            }
            other => panic!("no ICMP: {other:?}"),
        }

        let mut broken = packet.clone();
        broken[note_at(ipv6)] ^= 1;
        assert_eq!(parse(&broken, &VnetHdr::default()), Err(Error::IcmpChecksum));
    }
}

/// Where the ICMP code is.
fn note_at(ipv6: bool) -> usize {
    if ipv6 { 41 } else { 21 }
}

#[test]
fn icmp_that_is_no_error_about_tcp_passes_as_it_is() {
    let note = IcmpNote {
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        quoted: addresses(false),
        seq: SeqNum(1),
        kind: 3,
        code: 1,
        mtu: 0,
    };
    let packet = icmp::emit(&note, &Segment::default());
    for (what, at, byte) in
        [("echo", 20, 8), ("redirect", 20, 5), ("quotes UDP", 28 + 9, 17), ("a fragment", 28 + 7, 9)]
    {
        let mut packet = packet.clone();
        packet[at] = byte;
        let trusted = VnetHdr { flags: VnetHdr::DATA_VALID, ..VnetHdr::default() };
        assert_eq!(parse(&packet, &trusted), Ok(Packet::Other), "{what}");
    }
}

proptest! {
    /// In every mode, and in a way that no device on the path repairs.
    #[test]
    fn a_bad_checksum_is_bad_for_every_receiver(segment in any_segment(), ipv6: bool) {
        let tuple = addresses(ipv6);
        let segment = Segment { gso_size: 0, bad_checksum: true, ..segment };
        for mode in [ChecksumMode::Offload, ChecksumMode::Full] {
            let (vnet, packet) = whole(tuple, &segment, mode);
            prop_assert_eq!(vnet, VnetHdr::default(), "nobody vouches for it and nobody finishes it");
            prop_assert_eq!(parse(&packet, &vnet), Err(Error::TcpChecksum));
            let good = Segment { bad_checksum: false, ..segment.clone() };
            let (_, right) = whole(tuple, &good, ChecksumMode::Full);
            let differ = packet.iter().zip(&right).filter(|(a, b)| a != b).count();
            prop_assert_eq!(differ, 1, "nothing else is touched");
        }
    }
}
