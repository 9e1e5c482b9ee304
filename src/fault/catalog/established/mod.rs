//! The open connection.

pub(super) mod acked_but_lost;
pub(super) mod blackhole;
pub(super) mod idle_timeout;
pub(super) mod rst_inject;
