//! The open connection.

pub(super) mod blackhole;
pub(super) mod rst_inject;
