//! Acknowledgements.

pub(super) mod ack_delay;
