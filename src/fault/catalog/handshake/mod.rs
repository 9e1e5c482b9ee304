//! SYN to final ACK.

pub(super) mod accept_first;
pub(super) mod refuse;
pub(super) mod syn_ack_delay;
pub(super) mod syn_drop;
