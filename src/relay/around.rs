//! What stands around the legs of a flow that has faults: the plan, and the segments that it holds.

use super::flow::{BOTH, Flow, Phase};
use super::settings::Limits;
use crate::cx::Cx;
use crate::fault::{Action, Held, Plan, Point, Verdict, Way};
use crate::time::{Duration, Instant, earliest};
use crate::wire::Segment;

/// The plan of a flow, and held segments.
#[derive(Debug)]
pub(super) struct Around {
    plan: Plan,
    held: Held<(Point, Segment)>,
}

impl Around {
    /// `None` for an empty plan: a flow without faults pays one test per segment.
    pub(super) fn new(plan: Plan, limits: &Limits) -> Option<Box<Self>> {
        (!plan.is_empty()).then(|| Box::new(Self { plan, held: Held::new(limits.held_segments) }))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.plan.poll_timeout(), self.held.poll_timeout())
    }

    /// True if no held segment waits.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }
}

impl Flow {
    /// Asks the plan about a segment.
    pub(super) fn judge(&mut self, cx: &mut Cx<'_>, at: Point, segment: &mut Segment) -> Verdict {
        if self.around.is_none() {
            return Verdict::Pass;
        }
        let progress = self.progress();
        let around = self.around.as_mut().expect("tested above");
        around.plan.on_segment(cx, at, segment, &progress)
    }

    pub(super) fn hold(&mut self, cx: &mut Cx<'_>, at: Point, time: Duration, segment: Segment) {
        if let Some(around) = &mut self.around {
            around.held.push(cx, cx.now + time, (at, segment));
        }
    }

    /// Lets held segments go whose time has come.
    pub(super) fn release_held(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, segment)) = self.around.as_mut().and_then(|around| around.held.pop_due(cx.now)) {
            let cx = &mut cx.for_leg(at.leg);
            match at.way {
                Way::In => self.take_in(cx, at.leg, segment),
                Way::Out => self.push_segment(cx, at.leg, segment),
            }
        }
    }

    /// Turns the knobs as the plan wants them, and does what it wants done.
    pub(super) fn apply_plan(&mut self, cx: &mut Cx<'_>) {
        if self.around.is_none() {
            return;
        }
        let progress = self.progress();
        for leg in BOTH {
            let Some(around) = &mut self.around else { return };
            if self.phase == Phase::Ended {
                // Nothing is left to act on. A time bound that still runs must wake nobody: it would never be served.
                around.plan = Plan::default();
                return;
            }
            match self.legs[leg].conn_mut() {
                Some(conn) => conn.set_knobs(around.plan.knobs(&mut cx.for_leg(leg), leg, &progress)),
                None => around.plan.rest(leg),
            }
        }
        while let Some(action) =
            self.around.as_mut().and_then(|around| around.plan.poll_action(cx, &progress))
        {
            match action {
                Action::Reset { client, server } => self.reset(cx, client, server),
            }
        }
    }
}
