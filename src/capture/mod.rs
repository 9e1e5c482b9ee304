//! Captures: the segments of both legs as a pcapng file, with what faults did to them as packet comments. Made from events
//! like everything else that is shown.

mod pcapng;
mod recorder;

pub use recorder::Capture;
