//! The wire format: what a packet says, and nothing about what to do with it.

pub mod notation;
pub mod options;
pub mod payload;
pub mod segment;
pub mod seq;
pub mod window;

pub use notation::SegmentNote;
pub use options::{Options, SackBlock, Timestamps};
pub use payload::Payload;
pub use segment::{Flags, IpMeta, Segment, Tuple};
pub use seq::SeqNum;
pub use window::{RawWindow, WindowScale};
