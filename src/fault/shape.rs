//! What faults make of the bytes of one direction between the legs, whatever segments they came in.

use super::Spread;
use crate::time::Duration;

/// The shape of one direction. The default passes everything on at once. Where several faults shape one direction, each of
/// the values below is the last rule's; they apply in the order in which they stand here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// Bytes are acknowledged, and lost.
    pub lose: bool,
    /// Ends the connection after some bytes.
    pub limit: Option<Limit>,
    /// Cuts the bytes into small writes.
    pub slice: Option<Slice>,
    /// How long the bytes of each read wait; order is kept.
    pub latency: Option<Spread>,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// Most bytes that wait here before the writer is held back; `None` is what the windows allow.
    pub buffer: Option<u32>,
    /// Nothing leaves, for now.
    pub stalled: bool,
    /// The end of the stream (FIN) waits this long after the last byte.
    pub fin_delay: Duration,
    /// The end of the stream is acknowledged, and lost.
    pub lose_fin: bool,
    /// The end of the stream waits until the other direction has ended.
    pub fin_last: bool,
}

/// The end of a connection after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of this direction that still arrive.
    pub bytes: u64,
    /// Ends with RST instead of FIN.
    pub reset: bool,
}

/// How bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Bytes of a piece on average, at least 1.
    pub size: u32,
    /// The size varies evenly by up to this much either way; below `size`.
    pub variation: u32,
    /// Time between two pieces.
    pub delay: Duration,
}
