//! The catalogue: one file per fault, one line per fault here.

mod ack;
mod established;
mod handshake;
mod stream;
mod stretch;
mod teardown;
mod window;

use super::{Kind, Memory};
use crate::time::{Duration, Instant};

/// All faults, by topic.
pub const KINDS: &[Kind] = &[
    handshake::syn_drop::KIND,
    handshake::syn_ack_drop::KIND,
    handshake::syn_ack_delay::KIND,
    handshake::refuse::KIND,
    handshake::challenge_ack::KIND,
    handshake::accept_first::KIND,
    handshake::simultaneous_open::KIND,
    handshake::tfo_blackhole::KIND,
    handshake::ecn_blackhole::KIND,
    handshake::syn_dup::KIND,
    handshake::wrong_syn_ack::KIND,
    handshake::half_open_flood::KIND,
    handshake::final_ack_drop::KIND,
    handshake::accept_queue_full::KIND,
    handshake::accept_stall::KIND,
    handshake::ghost_connection::KIND,
    handshake::option_strip::KIND,
    handshake::wscale_strip::KIND,
    handshake::mss_rewrite::KIND,
    handshake::pmtu_blackhole::KIND,
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
    established::loss::KIND,
    established::duplicate::KIND,
    established::reorder::KIND,
    established::corrupt::KIND,
    established::sequence_shift::KIND,
    established::timestamp_mangle::KIND,
    established::rst_blind::KIND,
    established::late_segment_rst::KIND,
    established::odd_flags::KIND,
    established::idle_timeout::KIND,
    established::acked_but_lost::KIND,
    established::keepalive_swallow::KIND,
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
    stream::bandwidth::KIND,
    stream::slow_close::KIND,
    stream::timeout::KIND,
    stream::reset_peer::KIND,
    stream::slicer::KIND,
    stream::limit_data::KIND,
    stream::stall::KIND,
];

/// The fault of this name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// When the bounds of a fault were met, in its memory.
#[derive(Default)]
struct Met(Option<Instant>);

impl Met {
    /// Remembers the first time; for [`super::Fault::notice`].
    fn notice(now: Instant, memory: &mut Memory) {
        memory.of::<Self>().0.get_or_insert(now);
    }

    /// This long after it; for [`super::Fault::due`].
    fn due(memory: &Memory, after: Duration) -> Option<Instant> {
        memory.get::<Self>()?.0.map(|met| met + after)
    }
}

/// Why exec cannot touch the segments, windows and acknowledgements of its server leg.
const SERVER_IS_SOCKET: &str =
    "its server leg is a kernel socket, which decides about windows and acknowledgements itself";
