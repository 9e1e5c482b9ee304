//! FIN to the end.

pub(super) mod client_closes_first;
pub(super) mod fin_drop;
pub(super) mod fin_inject;
pub(super) mod fin_overtakes;
pub(super) mod fin_wait2_stuck;
pub(super) mod half_close_broken;
pub(super) mod half_closed_timeout;
pub(super) mod keepalive_race;
pub(super) mod last_ack_drop;
pub(super) mod late_segment;
pub(super) mod rst_instead_of_fin;
pub(super) mod rst_overtakes_tail;
pub(super) mod simultaneous_close;
mod tail;

use crate::fault::{Action, Moment, Point, Progress, Verdict, Way};
use crate::time::Duration;
use crate::trace::Direction;
use crate::wire::{Flags, Payload, Segment, SeqNum};

/// Why exec cannot touch what its server leg sends at the end.
const SERVER_IS_SOCKET: &str =
    "its server leg is a kernel socket, which makes the segments of its close itself";

/// Where the FIN of a direction is met before our TCP takes it. Where that is a kernel socket: where ours leaves. Between kernel
/// sockets: where the end that it stands for is told.
fn where_fin_enters(direction: Direction, progress: &Progress) -> Point {
    match direction {
        Direction::Downstream if progress.server_is_socket && !progress.has_no_segments() => {
            where_it_leaves(direction)
        }
        direction => Point { leg: direction.enters(), way: Way::In },
    }
}

/// Where the segments of a direction leave for their receiver.
const fn where_it_leaves(direction: Direction) -> Point {
    Point { leg: direction.leaves(), way: Way::Out }
}

/// The number of a FIN, the first after the data that come with it.
fn fin_number(seg: &Segment) -> SeqNum {
    seg.seq + seg.payload.len()
}

/// A bare RST.
fn rst(seq: SeqNum) -> Segment {
    Segment { seq, flags: Flags::RST, ..Segment::default() }
}

/// Makes a RST of a FIN that leaves, behind the data that come with it. Its leg has nothing more to say then.
fn rst_for_fin(moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
    let leg = moment.at.leg;
    if !seg.payload.is_empty() {
        let data = Segment { flags: seg.flags.without(Flags::FIN), ..seg.clone() };
        moment.send(leg, data, Duration::ZERO);
    }
    into_rst(seg);
    moment.act(Action::forget(leg));
    Verdict::Rewrite
}

/// Makes the last segment of a stream a RST with the number behind the last byte.
fn into_rst(seg: &mut Segment) {
    *seg = Segment {
        seq: fin_number(seg),
        ack: seg.ack,
        flags: Flags::RST | Flags::ACK,
        ip: seg.ip,
        payload: Payload::empty(),
        ..Segment::default()
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Leg;

    #[test]
    fn the_end_of_a_direction_is_met_where_a_tcp_of_ours_meets_it() {
        let socket = Progress { server_is_socket: true, ..Progress::default() };
        let out = Point { leg: Leg::Client, way: Way::Out };
        let tun = Progress::default();
        let sockets = Progress { client_is_socket: true, ..socket };
        assert_eq!(where_fin_enters(Direction::Downstream, &socket), out);
        for progress in [tun, sockets] {
            let entered = where_fin_enters(Direction::Downstream, &progress);
            assert_eq!(entered, Point { leg: Leg::Server, way: Way::In });
        }
        for progress in [tun, socket, sockets] {
            let entered = where_fin_enters(Direction::Upstream, &progress);
            assert_eq!(entered, Point { leg: Leg::Client, way: Way::In });
        }
        assert_eq!(where_it_leaves(Direction::Downstream), out);
    }
}
