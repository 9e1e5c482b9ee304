//! TCP options: the known ones typed, the unknown ones kept raw.

use arrayvec::ArrayVec;

use super::seq::SeqNum;
use super::window::WindowScale;

/// RFC 7323 timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub val: u32,
    /// TSecr: the echo; meaningful with ACK.
    pub ecr: u32,
}

/// One SACK block: `left` is its first byte, `right` the byte after its last (RFC 2018).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SackBlock {
    /// First sequence number of the block.
    pub left: SeqNum,
    /// Sequence number just after the block.
    pub right: SeqNum,
}

/// The options of one segment. Emitted in Linux's layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size (kind 2), in bytes; only in SYN segments.
    pub mss: Option<u16>,
    /// Window scale (kind 3); only in SYN segments.
    pub window_scale: Option<WindowScale>,
    /// SACK permitted (kind 4); only in SYN segments.
    pub sack_permitted: bool,
    /// Timestamps (kind 8).
    pub timestamps: Option<Timestamps>,
    /// SACK blocks (kind 5), at most 4, at most 3 with timestamps.
    pub sack: ArrayVec<SackBlock, 4>,
    /// Unknown options, raw with their kind and length bytes, in their order.
    pub unknown: ArrayVec<u8, 40>,
}
