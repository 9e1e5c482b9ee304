//! Prepares the machine so that connections reach the engine, and puts everything back: plan, apply, undo.

mod error;
pub mod gateway;
mod lock;
pub mod netlink;
pub mod plan;
mod sysctl;

pub use error::{Error, ErrorKind};
pub use gateway::Gateway;
