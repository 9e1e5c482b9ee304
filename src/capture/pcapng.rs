//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng), as bytes in little-endian order. Only what a capture needs.

use std::net::IpAddr;

/// `LINKTYPE_RAW`: packets begin with their IP header, version 4 or 6.
const LINKTYPE_RAW: u16 = 101;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// One packet as it is written.
#[derive(Clone, Debug)]
pub(super) struct Packet<'a> {
    /// Its interface, counted from 0 in the order of [`interface`].
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// The bytes that were kept.
    pub bytes: &'a [u8],
    /// How long it was on the wire.
    pub len: u32,
    /// True for a packet that arrived.
    pub inbound: bool,
    /// What is to be said of it.
    pub comments: &'a [String],
}

/// The beginning of a file; `application` wrote it.
pub(super) fn section_header(application: &str, comment: &str) -> Vec<u8> {
    // Byte order, version 1.0, length of the section not given.
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4du32.to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(u64::MAX.to_le_bytes());
    option(&mut body, 1, comment.as_bytes());
    option(&mut body, 4, application.as_bytes());
    end_of_options(&mut body);
    block(SECTION_HEADER, &body)
}

/// An interface with nanosecond stamps, whose packets are cut after `snaplen` bytes.
pub(super) fn interface(name: &str, description: &str, snaplen: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LINKTYPE_RAW.to_le_bytes());
    body.extend([0; 2]);
    body.extend(snaplen.to_le_bytes());
    option(&mut body, 2, name.as_bytes());
    option(&mut body, 3, description.as_bytes());
    // if_tsresol: 10^-9 s.
    option(&mut body, 9, &[9]);
    end_of_options(&mut body);
    block(INTERFACE, &body)
}

/// The name of an address.
pub(super) fn name(address: IpAddr, name: &str) -> Vec<u8> {
    let (kind, mut value) = match address {
        IpAddr::V4(v4) => (1u16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    value.extend(name.bytes());
    value.push(0);
    let mut body = Vec::new();
    option(&mut body, kind, &value);
    // nrb_record_end.
    body.extend([0; 4]);
    block(NAMES, &body)
}

/// A packet.
pub(super) fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(packet.bytes.len() + 64);
    body.extend(packet.interface.to_le_bytes());
    body.extend(((packet.nanos >> 32) as u32).to_le_bytes());
    body.extend((packet.nanos as u32).to_le_bytes());
    body.extend((packet.bytes.len() as u32).to_le_bytes());
    body.extend(packet.len.to_le_bytes());
    body.extend(packet.bytes);
    pad(&mut body);
    for comment in packet.comments {
        option(&mut body, 1, comment.as_bytes());
    }
    // epb_flags: the direction.
    let direction: u32 = if packet.inbound { 1 } else { 2 };
    option(&mut body, 2, &direction.to_le_bytes());
    end_of_options(&mut body);
    block(PACKET, &body)
}

/// The end: packets that were written and lost, by interface.
pub(super) fn statistics(interface: u32, nanos: u64, written: u64, lost: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(interface.to_le_bytes());
    body.extend(((nanos >> 32) as u32).to_le_bytes());
    body.extend((nanos as u32).to_le_bytes());
    option(&mut body, 4, &(written + lost).to_le_bytes());
    option(&mut body, 5, &lost.to_le_bytes());
    end_of_options(&mut body);
    block(STATISTICS, &body)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer texts are cut: the length has 16 bits.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// To a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 12) as u32;
    let mut out = Vec::with_capacity(len as usize);
    out.extend(kind.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(body);
    out.extend(len.to_le_bytes());
    out
}
