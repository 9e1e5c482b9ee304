//! The segments of the client's handshake, as faults pick them.

use crate::fault::{Point, Progress, Way};
use crate::trace::Leg;
use crate::wire::{Flags, Segment};

/// From the client, before our TCP has seen it.
pub(super) const FROM_CLIENT: Point = Point { leg: Leg::Client, way: Way::In };
/// To the client.
pub(super) const TO_CLIENT: Point = Point { leg: Leg::Client, way: Way::Out };

/// A SYN of the client. Not one on an established connection: that is a challenge (RFC 5961 §4), not a handshake.
pub(super) fn is_syn(at: Point, seg: &Segment, progress: &Progress) -> bool {
    at == FROM_CLIENT && seg.has(Flags::SYN) && !seg.has(Flags::ACK) && progress.established.is_none()
}

/// A SYN-ACK to the client.
pub(super) fn is_syn_ack(at: Point, seg: &Segment) -> bool {
    at == TO_CLIENT && seg.has(Flags::SYN | Flags::ACK)
}

/// What could complete the client's handshake: an ACK with or without data, while our SYN-ACK is unanswered.
pub(super) fn completes(at: Point, seg: &Segment, progress: &Progress) -> bool {
    at == FROM_CLIENT
        && seg.has(Flags::ACK)
        && !seg.flags.any(Flags::SYN | Flags::RST)
        && progress.client.is_some()
        && progress.established.is_none()
}
