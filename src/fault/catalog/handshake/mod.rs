//! SYN to final ACK.

pub(super) mod accept_queue_full;
pub(super) mod accept_stall;
pub(super) mod final_ack_drop;
pub(super) mod ghost_connection;
pub(super) mod mss_rewrite;
pub(super) mod option_strip;
mod pick;
pub(super) mod pmtu_blackhole;
pub(super) mod syn_ack_delay;
pub(super) mod syn_ack_drop;
pub(super) mod syn_drop;
pub(super) mod wscale_strip;

/// Why exec cannot change the MSS of the SYN without that of its answer.
const ANSWERS_WITH_THE_MSS_OF_THE_SYN: &str = "its server leg is a kernel socket, and its SYN-ACK announces the MSS of the SYN for want of the server's";
