//! Bytes between the legs, whatever segments they came in: the toxics of Toxiproxy, and what is like them.

pub(super) mod bandwidth;
pub(super) mod latency;
pub(super) mod limit_data;
pub(super) mod reset_peer;
pub(super) mod slicer;
pub(super) mod slow_close;
pub(super) mod stall;
pub(super) mod timeout;
