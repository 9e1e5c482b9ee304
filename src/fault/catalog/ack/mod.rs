//! Acknowledgements.

pub(super) mod ack_delay;
pub(super) mod ack_drop;
pub(super) mod ack_storm;
pub(super) mod ack_stretch;

use crate::fault::{Point, Progress, Way};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

/// Where the ACKs of the data of this direction are met. Behind a kernel socket those of the server's data are the
/// kernel's; then the client's ACKs stand for them: what they acknowledge are the same bytes.
fn meets_acks(direction: Direction, progress: &Progress) -> Point {
    match (direction, progress.server_is_socket) {
        (Direction::Downstream, true) => Point { leg: Leg::Client, way: Way::In },
        (direction, _) => Point { leg: direction.enters(), way: Way::Out },
    }
}

/// True for an ACK of data of this direction and nothing else. A segment with an old number is no such ACK but a probe, and the
/// last ACK of the handshake acknowledges no data.
fn is_pure_ack(direction: Direction, at: Point, seg: &Segment, progress: &Progress) -> bool {
    let pure = seg.has(Flags::ACK) && seg.seq_len() == 0 && !seg.has(Flags::RST);
    let expected = progress.numbers(at.leg).is_none_or(|numbers| match at.way {
        Way::Out => seg.seq == numbers.snd_nxt,
        Way::In => seg.seq.at_or_after(numbers.rcv_nxt),
    });
    pure && expected && at == meets_acks(direction, progress) && progress.bytes(direction) > 0
}
