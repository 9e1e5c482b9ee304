//! Bytes between the legs, where faults shape them: into the pipe of their direction, and out of it in time.

use super::flow::{BOTH, Flow};
use super::pipe::Flowing;
use crate::cx::Cx;
use crate::fault::Action;
use crate::trace::Leg;

impl Flow {
    /// Bytes from the peer of `leg`, where faults shape them. False: nobody does, and they go straight on.
    pub(super) fn shaped(&mut self, cx: &mut Cx<'_>, leg: Leg) -> bool {
        if self.around.as_ref().is_none_or(|around| around.pipes.is_none()) {
            return false;
        }
        self.shape(cx, leg);
        let (from, to) = self.legs.pair(leg);
        if let Some(offset) = from.urgent_received() {
            to.set_urgent(offset);
        }
        while let Some(data) = self.legs[leg].recv(&mut cx.for_leg(leg)) {
            if let Some(pipe) = self.around.as_mut().and_then(|around| around.pipe(leg)) {
                pipe.push(cx.now, data);
            }
        }
        self.pour(cx, leg);
        true
    }

    /// The peer of `leg` has finished. False: nobody shapes its bytes, and its FIN goes straight on.
    pub(super) fn shaped_end(&mut self, cx: &mut Cx<'_>, leg: Leg) -> bool {
        let Some(pipe) = self.around.as_mut().and_then(|around| around.pipe(leg)) else { return false };
        pipe.close(cx.now);
        self.pour(cx, leg);
        true
    }

    /// True while shaped bytes wait to leave by `leg`, and will.
    pub(super) fn is_flowing_to(&self, leg: Leg) -> bool {
        let pipes = self.around.as_ref().and_then(|around| around.pipes.as_ref());
        let pipe = pipes.map(|pipes| &pipes[leg.other() as usize]);
        pipe.is_some_and(|pipe| !pipe.is_idle() && !pipe.is_stalled())
    }

    /// Shaped bytes that wait between the legs after they came in by `leg`, and how many more may come.
    pub(super) fn in_pipe(&self, leg: Leg) -> (u32, Option<u32>) {
        let pipes = self.around.as_ref().and_then(|around| around.pipes.as_ref());
        pipes.map_or((0, None), |pipes| (pipes[leg as usize].bytes(), pipes[leg as usize].room()))
    }

    fn shape(&mut self, cx: &mut Cx<'_>, leg: Leg) {
        let progress = self.progress();
        if let Some(around) = &mut self.around {
            let shape = around.plan.shape(cx, leg.other().outward(), &progress);
            if let Some(pipe) = around.pipe(leg) {
                pipe.set_shape(cx.now, shape);
            }
        }
    }

    /// Lets shaped bytes go whose time has come.
    pub(super) fn flow_on(&mut self, cx: &mut Cx<'_>) {
        if self.around.as_ref().is_none_or(|around| around.pipes.is_none()) || self.is_half_open() {
            return;
        }
        for leg in BOTH {
            self.shape(cx, leg);
            self.pour(cx, leg);
        }
    }

    fn pour(&mut self, cx: &mut Cx<'_>, leg: Leg) {
        let to = leg.other();
        if self.legs[to].is_gone() {
            if let Some(pipe) = self.around.as_mut().and_then(|around| around.pipe(leg)) {
                pipe.clear();
            }
            return;
        }
        let other_ended = self.legs[to].has_finished();
        loop {
            let delivered = self.legs[to].queued() == 0;
            let pipe = self.around.as_mut().and_then(|around| around.pipe(leg));
            let Some(flowing) = pipe.and_then(|pipe| pipe.pop(cx.now, other_ended, delivered)) else { break };
            match flowing {
                Flowing::Data(data) => self.hand(cx, to, data),
                Flowing::Fin => self.finish(cx, to),
                Flowing::Limit { reset: true } => {
                    self.act(cx, Action::Reset { client: true, server: true });
                }
                Flowing::Limit { reset: false } => {
                    self.act(cx, Action::Finish { client: true, server: true });
                }
            }
            self.marks.unsettle();
        }
    }
}
