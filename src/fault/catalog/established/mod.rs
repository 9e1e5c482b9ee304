//! The open connection.

pub(super) mod blackhole;
pub(super) mod keepalive_swallow;
pub(super) mod rst_inject;
