//! Receive windows.

pub(super) mod zero_window_stall;
