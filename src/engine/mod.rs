//! The engine: how packets reach the relay, and the loop that moves them.

pub mod clock;
pub mod exec;
pub mod outside;
pub mod tun;
pub mod wheel;

pub use outside::Outside;
