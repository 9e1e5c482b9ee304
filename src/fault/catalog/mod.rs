//! The catalogue: one file per fault, one line per fault here.

mod ack;
mod established;
mod handshake;
mod stream;
mod teardown;
mod window;

use super::Kind;

/// All faults, by topic.
pub const KINDS: &[Kind] = &[
    handshake::syn_drop::KIND,
    handshake::syn_ack_delay::KIND,
    window::zero_window_stall::KIND,
    window::window_update_lost::KIND,
    window::tiny_window::KIND,
    window::window_shrink::KIND,
    window::silly_window::KIND,
    ack::ack_delay::KIND,
    ack::ack_drop::KIND,
    ack::ack_stretch::KIND,
    ack::ack_storm::KIND,
    established::rst_inject::KIND,
    established::blackhole::KIND,
    established::keepalive_swallow::KIND,
    teardown::fin_drop::KIND,
    teardown::half_close_broken::KIND,
    stream::latency::KIND,
];

/// The fault of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Why exec cannot touch the segments, windows and acknowledgements of its server leg.
const SERVER_IS_SOCKET: &str =
    "its server leg is a kernel socket, which decides about windows and acknowledgements itself";
