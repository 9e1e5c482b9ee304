//! The open connection.

pub(super) mod acked_but_lost;
pub(super) mod blackhole;
pub(super) mod corrupt;
pub(super) mod duplicate;
pub(super) mod idle_timeout;
pub(super) mod late_segment_rst;
pub(super) mod loss;
pub(super) mod odd_flags;
pub(super) mod reorder;
pub(super) mod rst_blind;
pub(super) mod rst_inject;
pub(super) mod sequence_shift;
pub(super) mod timestamp_mangle;
