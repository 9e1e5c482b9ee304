//! The open connection.

pub(super) mod rst_inject;
