//! SYN to final ACK.

pub(super) mod syn_ack_delay;
pub(super) mod syn_drop;
