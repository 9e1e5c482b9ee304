//! Captures: the segments of both legs as a pcapng file, with what faults did to them as packet comments. Made from events
//! like everything else that is shown, and read back into events.

mod comment;
mod pcapng;
mod read;
mod recorder;

pub use read::{Foreign, Reader};
pub use recorder::Capture;
