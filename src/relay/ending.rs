//! Ends between two kernel sockets, of which no segment tells: a FIN that stands for an end meets the plan where it is heard and where
//! ours is due, as it does in a TCP of our own.

use super::flow::Flow;
use super::leg::Link;
use crate::cx::Cx;
use crate::fault::{Point, Verdict, Way};
use crate::trace::Leg;
use crate::wire::{Flags, Segment};

impl Flow {
    /// The peer of `leg` has finished, after all its bytes. False: a fault keeps that from the other side.
    pub(super) fn hear_end(&mut self, cx: &mut Cx<'_>, leg: Leg) -> bool {
        self.meet_end(cx, Point { leg, way: Way::In }).is_some()
    }

    /// Our end of `leg` finishes behind its bytes: by FIN, unless a fault makes a RST of it.
    pub(super) fn finish(&mut self, cx: &mut Cx<'_>, leg: Leg) {
        if matches!(&self.legs[leg], Link::Socket(socket) if !socket.is_unfinished()) {
            return;
        }
        let fin = self.meet_end(cx, Point { leg, way: Way::Out });
        match (fin, &mut self.legs[leg]) {
            (None, _) => {}
            (Some(fin), Link::Socket(socket)) if fin.has(Flags::RST) => socket.reset_behind(),
            (Some(_), link) => link.shutdown(&mut cx.for_leg(leg)),
        }
    }

    /// True if a RST ends this leg as soon as its bytes have left.
    pub(super) fn will_reset(&self, leg: Leg) -> bool {
        matches!(&self.legs[leg], Link::Socket(socket) if socket.will_reset())
    }

    /// What the plan makes of the FIN; `None` is nothing. It is lost or changed: no fault that kernel sockets can do holds or
    /// repeats it.
    fn meet_end(&mut self, cx: &mut Cx<'_>, at: Point) -> Option<Segment> {
        let mut fin = Segment { flags: Flags::FIN | Flags::ACK, ..Segment::default() };
        let is_asked = self.progress().has_no_segments() && !self.legs[at.leg].is_gone();
        match is_asked.then(|| self.judge(&mut cx.for_leg(at.leg), at, &mut fin)) {
            Some(Verdict::Drop) => None,
            _ => Some(fin),
        }
    }
}
