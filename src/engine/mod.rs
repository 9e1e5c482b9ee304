//! The engine: how packets reach the relay, and the loop that moves them.

pub mod exec;
pub mod outside;
pub mod tun;

pub use outside::Outside;
