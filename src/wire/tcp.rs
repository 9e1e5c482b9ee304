//! The TCP header (RFC 9293 §3.1).

use arrayvec::ArrayVec;

use super::Error;
use super::ip::append;
use super::options::Options;
use super::segment::{Flags, Segment};
use super::seq::SeqNum;
use super::window::RawWindow;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Where the checksum field is in the header.
pub const CHECKSUM_AT: usize = 16;

/// A header as it was read.
pub(super) struct Header {
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    /// Without payload.
    pub(super) segment: Segment,
    /// Where the payload starts.
    pub(super) len: usize,
}

/// Reads the header at the start of `bytes`. The three reserved bits are ignored (RFC 9293 §3.1).
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Error> {
    let (h, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Error::Truncated)?;
    let half = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let word = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let len = usize::from(h[12] >> 4) * 4;
    if len < HEADER_LEN {
        return Err(Error::TcpHeader);
    }
    let segment = Segment {
        seq: SeqNum(word(4)),
        ack: SeqNum(word(8)),
        flags: Flags(half(12) & 0x01ff),
        window: RawWindow(half(14)),
        urgent: half(18),
        options: Options::parse(bytes.get(HEADER_LEN..len).ok_or(Error::Truncated)?),
        ..Segment::default()
    };
    Ok(Header { src_port: half(0), dst_port: half(2), segment, len })
}

/// Writes a header with checksum 0. `options` are the bytes of `seg.options`, which the caller needs for the length.
pub(super) fn emit<const N: usize>(
    src_port: u16,
    dst_port: u16,
    seg: &Segment,
    options: &[u8],
    out: &mut ArrayVec<u8, N>,
) {
    let words = (HEADER_LEN + options.len()) / 4;
    let offset_and_flags = (words as u16) << 12 | (seg.flags.0 & 0x0fff);
    let mut header = [0; HEADER_LEN];
    header[..2].copy_from_slice(&src_port.to_be_bytes());
    header[2..4].copy_from_slice(&dst_port.to_be_bytes());
    header[4..8].copy_from_slice(&seg.seq.0.to_be_bytes());
    header[8..12].copy_from_slice(&seg.ack.0.to_be_bytes());
    header[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
    header[14..16].copy_from_slice(&seg.window.0.to_be_bytes());
    header[18..].copy_from_slice(&seg.urgent.to_be_bytes());
    append(out, &header);
    append(out, options);
}
