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
    handshake::final_ack_drop::KIND,
    handshake::accept_queue_full::KIND,
    handshake::accept_stall::KIND,
    handshake::ghost_connection::KIND,
    handshake::option_strip::KIND,
    handshake::wscale_strip::KIND,
    handshake::mss_rewrite::KIND,
    handshake::pmtu_blackhole::KIND,
    window::zero_window_stall::KIND,
    ack::ack_delay::KIND,
    established::rst_inject::KIND,
    established::blackhole::KIND,
    established::idle_timeout::KIND,
    established::acked_but_lost::KIND,
    established::loss::KIND,
    established::duplicate::KIND,
    established::reorder::KIND,
    established::corrupt::KIND,
    established::sequence_shift::KIND,
    established::timestamp_mangle::KIND,
    established::rst_blind::KIND,
    established::late_segment_rst::KIND,
    established::odd_flags::KIND,
    teardown::fin_drop::KIND,
    teardown::half_close_broken::KIND,
    stream::latency::KIND,
    stream::bandwidth::KIND,
    stream::slow_close::KIND,
    stream::timeout::KIND,
    stream::reset_peer::KIND,
    stream::slicer::KIND,
    stream::limit_data::KIND,
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
