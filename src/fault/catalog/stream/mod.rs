//! Bytes between the legs, whatever segments they came in: the toxics of Toxiproxy, and what is like them.

pub(super) mod latency;
