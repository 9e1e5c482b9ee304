//! Prepares the machine so that connections reach the engine, and puts everything back: plan, apply, undo.

mod error;
pub mod netlink;

pub use error::{Error, ErrorKind};
