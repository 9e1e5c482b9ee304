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
    ack::ack_delay::KIND,
    established::rst_inject::KIND,
    established::blackhole::KIND,
    teardown::fin_drop::KIND,
    teardown::fin_overtakes::KIND,
    teardown::fin_wait2_stuck::KIND,
    teardown::fin_inject::KIND,
    teardown::half_closed_timeout::KIND,
    teardown::half_close_broken::KIND,
    teardown::rst_instead_of_fin::KIND,
    teardown::rst_overtakes_tail::KIND,
    teardown::keepalive_race::KIND,
    teardown::client_closes_first::KIND,
    teardown::late_segment::KIND,
    teardown::simultaneous_close::KIND,
    teardown::last_ack_drop::KIND,
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
