//! The one text form of a segment, in packetdrill and tcpdump notation.

use std::fmt;

use serde::Serialize;

use super::options::Options;
use super::segment::{Flags, Segment};
use super::seq::SeqNum;

/// A segment without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentNote {
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// The raw window field.
    pub window: u16,
    /// SEG.UP.
    pub urgent: u16,
    /// Payload bytes.
    pub len: u32,
    /// Wire segments (more than 1 for a super-segment).
    pub segs: u32,
    /// TCP options.
    pub options: Options,
}

impl From<&Segment> for SegmentNote {
    fn from(s: &Segment) -> Self {
        Self {
            seq: s.seq,
            ack: s.ack,
            flags: s.flags,
            window: s.window.0,
            urgent: s.urgent,
            len: s.payload.len(),
            segs: s.segs(),
            options: s.options.clone(),
        }
    }
}

impl Serialize for SegmentNote {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl fmt::Display for SegmentNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}:{}({}) ack {} win {}",
            self.flags,
            self.seq,
            self.seq + self.len,
            self.len,
            self.ack,
            self.window
        )
    }
}
