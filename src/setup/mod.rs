//! Prepares the machine so that connections reach the engine, and puts everything back: plan, apply, undo.

pub mod confine;
mod connections;
mod error;
mod facts;
pub mod gateway;
mod icmp;
mod interception;
pub mod listen;
pub mod listeners;
mod lock;
mod loopback;
pub mod namespace;
pub mod netlink;
pub mod plan;
pub mod process;
pub mod resolv;
pub mod sidecar;
mod sysctl;
pub mod tproxy;

pub use error::{Error, ErrorKind};
pub use interception::Interception;
