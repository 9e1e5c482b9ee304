//! SYN to final ACK.

pub(super) mod final_ack_drop;
mod pick;
pub(super) mod syn_ack_delay;
pub(super) mod syn_ack_drop;
pub(super) mod syn_drop;
