//! The faults of one flow at work.

use std::sync::Arc;

use super::rules::Rule;
use super::trigger::{SoFar, Trigger};
use super::{Action, Point, Progress, Topic, Turn, Verdict};
use crate::cx::Cx;
use crate::rng::Rng;
use crate::tcp::Knobs;
use crate::time::{Instant, earliest};
use crate::trace::{Did, Direction, Event, Leg};
use crate::wire::{Segment, SegmentNote};

/// The faults of one flow, in the order of their rules.
#[derive(Debug, Default)]
pub struct Plan {
    armed: Vec<Armed>,
}

impl Plan {
    pub(super) fn new(armed: Vec<Armed>) -> Self {
        Self { armed }
    }

    /// True without faults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// Names of the rules that match this flow, for [`Event::FlowOpened`].
    #[must_use]
    pub fn rules(&self) -> Vec<Arc<str>> {
        self.armed.iter().map(|armed| armed.rule.name.clone()).collect()
    }

    /// Which of the flows of each of its rules this flow is, in the order of [`Self::rules`].
    #[must_use]
    pub fn turns(&self) -> Vec<Turn> {
        self.armed.iter().map(|armed| armed.turn).collect()
    }

    /// Judges one segment and may rewrite it. Emits [`Event::Fired`]. The first fault that does not let the segment pass
    /// decides; those after it do not see it.
    pub fn on_segment(
        &mut self,
        cx: &mut Cx<'_>,
        at: Point,
        seg: &mut Segment,
        progress: &Progress,
    ) -> Verdict {
        for armed in &mut self.armed {
            let verdict = armed.on_segment(cx, at, seg, progress);
            if verdict != Verdict::Pass {
                return verdict;
            }
        }
        Verdict::Pass
    }

    /// The knobs of a leg as they should be now. Called after progress and after timeouts. Where two rules turn the same
    /// knob, the later one wins.
    pub fn knobs(&mut self, cx: &mut Cx<'_>, leg: Leg, progress: &Progress) -> Knobs {
        let mut knobs = Knobs::default();
        for armed in &mut self.armed {
            armed.turn(cx, leg, &mut knobs, progress);
        }
        knobs
    }

    /// Instead of [`Self::knobs`] for a leg that has no TCP of ours, or none any more: its time bounds wake nobody.
    pub fn rest(&mut self, leg: Leg) {
        for armed in &mut self.armed {
            if armed.rule.fault.turn(leg, &mut Knobs::default()) {
                armed.trigger.rest();
            }
        }
    }

    /// The next action that is due. Called after progress and after timeouts.
    pub fn poll_action(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<Action> {
        self.armed.iter_mut().find_map(|armed| armed.action(cx, progress))
    }

    /// When to ask again for knobs and actions, if a time bound is running.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.armed.iter().fold(None, |next, armed| earliest(next, armed.trigger.poll_timeout()))
    }
}

/// One rule on one flow.
#[derive(Debug)]
pub(super) struct Armed {
    rule: Arc<Rule>,
    trigger: Trigger,
    dice: Rng,
    turn: Turn,
    /// A knob is turned, or the action is done.
    acted: bool,
}

impl Armed {
    pub(super) fn new(rule: Arc<Rule>, dice: Rng, turn: Turn) -> Self {
        Self { rule, trigger: Trigger::default(), dice, turn, acted: false }
    }

    fn so_far(&self, cx: &Cx<'_>, progress: &Progress) -> SoFar {
        let base = match self.rule.kind.topic {
            Topic::Handshake => Some(progress.opened),
            _ => progress.established,
        };
        SoFar::new(cx.now, base, progress, self.rule.fault.direction())
    }

    fn on_segment(&mut self, cx: &mut Cx<'_>, at: Point, seg: &mut Segment, progress: &Progress) -> Verdict {
        if !self.rule.fault.selects(at, seg, progress) {
            return Verdict::Pass;
        }
        let mut so_far = self.so_far(cx, progress);
        // A segment can be early: data or a FIN that completes the handshake. For it the time since then is zero.
        so_far.base = so_far.base.or(Some(cx.now));
        let Some(nth) = self.trigger.on_segment(&self.rule.bounds, so_far, &mut self.dice) else {
            return Verdict::Pass;
        };
        let note = SegmentNote::from(&*seg);
        let Some(did) = self.rule.fault.on_segment(nth, &mut self.dice, seg) else { return Verdict::Pass };
        self.fired(cx, at.leg, at.direction(), did, Some(note));
        match did {
            Did::Drop => Verdict::Drop,
            Did::Hold(time) => Verdict::Hold(time),
            Did::Duplicate(copies) => Verdict::Duplicate(copies),
            Did::Rewrite | Did::Inject | Did::Knob | Did::Release => Verdict::Pass,
        }
    }

    fn turn(&mut self, cx: &mut Cx<'_>, leg: Leg, knobs: &mut Knobs, progress: &Progress) {
        let mut turned = *knobs;
        if !self.rule.fault.turn(leg, &mut turned) {
            return;
        }
        let so_far = self.so_far(cx, progress);
        let open = self.trigger.is_open(&self.rule.bounds, so_far);
        if open {
            *knobs = turned;
        }
        if open != self.acted {
            self.acted = open;
            let did = if open { Did::Knob } else { Did::Release };
            self.fired(cx, leg, self.rule.fault.direction(), did, None);
        }
    }

    fn action(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<Action> {
        if self.acted {
            return None;
        }
        let action = self.rule.fault.action()?;
        let so_far = self.so_far(cx, progress);
        if !self.trigger.is_open(&self.rule.bounds, so_far) {
            return None;
        }
        self.acted = true;
        self.trigger.rest();
        let Action::Reset { client, server } = action;
        if client {
            self.fired(cx, Leg::Client, Direction::Downstream, Did::Inject, None);
        }
        if server {
            self.fired(cx, Leg::Server, Direction::Upstream, Did::Inject, None);
        }
        Some(action)
    }

    fn fired(&self, cx: &mut Cx<'_>, leg: Leg, direction: Direction, did: Did, segment: Option<SegmentNote>) {
        let (rule, fault) = (self.rule.name.clone(), self.rule.kind.name);
        cx.for_leg(leg).emit(Event::Fired { rule, fault, did, direction, segment });
    }
}
