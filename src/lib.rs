//! halfopen: a transparent TCP proxy and fault injector with its own userspace TCP on both sides.
//!
//! Two builds in one package. The **core** (`--no-default-features`) is pure: no clock, sockets, files, logging or
//! randomness of the system. The **host** part (feature `host`) touches the machine.
#![cfg_attr(not(feature = "host"), forbid(unsafe_code))]

// ── core ──
pub mod cx;
pub mod fault;
pub mod measure;
pub mod relay;
pub mod rng;
pub mod tcp;
pub mod time;
pub mod trace;
pub mod wire;

// ── host ──
#[cfg(feature = "host")]
pub mod cli;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod engine;
#[cfg(feature = "host")]
pub mod setup;
