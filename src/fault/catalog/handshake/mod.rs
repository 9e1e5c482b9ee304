//! SYN to final ACK.

pub(super) mod accept_first;
pub(super) mod challenge_ack;
pub(super) mod ecn_blackhole;
pub(super) mod half_open_flood;
pub(super) mod refuse;
pub(super) mod simultaneous_open;
pub(super) mod syn_ack_delay;
pub(super) mod syn_drop;
pub(super) mod syn_dup;
pub(super) mod tfo_blackhole;
pub(super) mod wrong_syn_ack;
