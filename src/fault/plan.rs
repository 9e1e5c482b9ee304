//! The faults of one flow at work.

use std::collections::VecDeque;
use std::sync::Arc;

use super::moment::{AcceptFirst, Action, Deed, Memory, Moment, Verdict};
use super::rules::Rule;
use super::trigger::{Bounds, SoFar, Trigger};
use super::{Point, Progress, Shape, Topic, Turn, Way};
use crate::cx::Cx;
use crate::rng::Rng;
use crate::tcp::Knobs;
use crate::time::{Instant, earliest};
use crate::trace::{Did, Direction, Event, Leg};
use crate::wire::{Flags, Segment, SegmentNote};

/// The faults of one flow, in the order of their rules.
#[derive(Debug, Default)]
pub struct Plan {
    armed: Box<[Armed]>,
    /// What is to be done, and what is told when that happens, unless it has been told.
    deeds: VecDeque<(Deed, Option<Event>)>,
    per_segment: bool,
    /// A fault is outermost.
    outermost: bool,
    /// A fault turns knobs.
    turns: bool,
    /// The flow has ended: only late segments are judged.
    ended: bool,
    /// The dice of the shapes, if a fault shapes bytes.
    shape_dice: Option<Box<[Rng; 2]>>,
}

/// The place of the shapes' dice among those of a flow; rules count from 0.
const SHAPES: usize = 0x8000;

impl Plan {
    /// `dice` are those of a place among the rules.
    pub(super) fn new(armed: Box<[Armed]>, dice: impl Fn(usize) -> Rng) -> Self {
        let any = |test: fn(&Armed) -> bool| armed.iter().any(test);
        let per_segment = any(|armed| armed.rule.fault.per_segment());
        let outermost = any(|armed| armed.rule.hooks.outermost);
        let turns = any(|armed| armed.rule.hooks.turns);
        let shapes = any(|armed| armed.rule.hooks.shapes);
        let shape_dice = shapes.then(|| Box::new([dice(SHAPES), dice(SHAPES + 1)]));
        Self { armed, deeds: VecDeque::new(), per_segment, outermost, turns, ended: false, shape_dice }
    }

    /// True without faults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// True if a fault must meet each segment as it is on the wire.
    #[must_use]
    pub const fn is_per_segment(&self) -> bool {
        self.per_segment
    }

    /// True if our SYN on this leg must offer a scale factor of 0.
    #[must_use]
    pub fn is_unscaled(&self, leg: Leg) -> bool {
        self.armed.iter().any(|armed| armed.rule.fault.unscaled(leg))
    }

    /// The dice of both directions, upstream first, if a fault shapes bytes.
    pub const fn take_shape_dice(&mut self) -> Option<Box<[Rng; 2]>> {
        self.shape_dice.take()
    }

    /// Names of the rules that match this flow, for [`Event::FlowOpened`].
    #[must_use]
    pub fn rules(&self) -> Vec<Arc<str>> {
        self.armed.iter().map(|armed| armed.rule.name.clone()).collect()
    }

    /// The rules that match this flow, the names of their faults, and how often each has acted; giving a knob back is not
    /// counted. A segment of a fault's own that leaves later counts when it is made.
    pub fn fired(&self) -> impl Iterator<Item = (&Arc<str>, &'static str, u32)> {
        self.armed.iter().map(|armed| (&armed.rule.name, armed.rule.kind.name, armed.fired))
    }

    /// Which of the flows of each of its rules this flow is, in the order of [`Self::rules`].
    #[must_use]
    pub fn turns(&self) -> Vec<Turn> {
        self.armed.iter().map(|armed| armed.place).collect()
    }

    /// Judges one segment and may rewrite it. Emits [`Event::Fired`]. The first fault that does not let the segment pass
    /// decides; those after it do not see it. What is to be done besides is fetched by [`Self::poll_deed`].
    ///
    /// A FIN that only stands for an end ([`Progress::has_no_segments`]) meets the faults of ends alone. What they do is told
    /// without a segment.
    pub fn on_segment(
        &mut self,
        cx: &mut Cx<'_>,
        at: Point,
        seg: &mut Segment,
        progress: &Progress,
    ) -> Verdict {
        let mut whole = Verdict::Pass;
        if at.way == Way::In && self.outermost(cx, at, seg, progress) {
            whole = Verdict::Rewrite;
        }
        let is_end = is_end(seg, progress);
        let meets = |rule: &Rule| !rule.hooks.outermost && (!is_end || rule.kind.topic == Topic::Teardown);
        for armed in self.armed.iter_mut().filter(|armed| meets(&armed.rule)) {
            match armed.on_segment(cx, at, seg, progress, &mut self.deeds) {
                Verdict::Pass => {}
                Verdict::Rewrite => whole = Verdict::Rewrite,
                verdict => return verdict,
            }
        }
        whole
    }

    /// Lets the outermost faults rewrite a segment, and tells whether one did. Whoever sends a segment calls this last;
    /// for what comes in [`Self::on_segment`] does.
    pub fn outermost(&mut self, cx: &mut Cx<'_>, at: Point, seg: &mut Segment, progress: &Progress) -> bool {
        let mut rewritten = false;
        for armed in self.armed.iter_mut().filter(|armed| armed.rule.hooks.outermost) {
            rewritten |= armed.on_segment(cx, at, seg, progress, &mut self.deeds) == Verdict::Rewrite;
        }
        rewritten
    }

    /// True if [`Self::outermost`] may rewrite segments.
    #[must_use]
    pub const fn has_outermost(&self) -> bool {
        self.outermost
    }

    /// The next thing that faults want done besides their verdicts. A segment that waits has an event, which is told when it
    /// leaves.
    pub fn poll_deed(&mut self) -> Option<(Deed, Option<Event>)> {
        self.deeds.pop_front()
    }

    /// The knobs of a leg as they should be now. Called after progress and after timeouts. Where two rules turn the same
    /// knob, the later one wins.
    pub fn knobs(&mut self, cx: &mut Cx<'_>, leg: Leg, progress: &Progress) -> Knobs {
        let mut knobs = Knobs { single_segments: self.per_segment, ..Knobs::default() };
        if self.turns {
            for armed in &mut *self.armed {
                armed.turn(cx, leg, &mut knobs, progress);
            }
        }
        knobs
    }

    /// The shape of a direction as it should be now.
    pub fn shape(&mut self, cx: &mut Cx<'_>, direction: Direction, progress: &Progress) -> Shape {
        let mut shape = Shape::default();
        for armed in &mut *self.armed {
            armed.shape(cx, direction, &mut shape, progress);
        }
        shape
    }

    /// Instead of [`Self::knobs`] for a leg that has no TCP of ours, or none any more: its time bounds wake nobody.
    pub fn rest(&mut self, leg: Leg) {
        for armed in self.armed.iter_mut().filter(|armed| armed.rule.hooks.turns) {
            if armed.rule.fault.turn(leg, &mut Knobs::default()) {
                armed.trigger.rest();
            }
        }
    }

    /// How the client is accepted before the server is dialled, if a fault wants that. Called at the client's SYN.
    pub fn accepts_first(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<AcceptFirst> {
        self.armed.iter_mut().find_map(|armed| armed.accepts_first(cx, progress))
    }

    /// The next action that is due. Called after progress and after timeouts.
    pub fn poll_action(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<Action> {
        self.armed.iter_mut().find_map(|armed| armed.action(cx, progress))
    }

    /// The flow has ended. From now on the plan only judges late segments, and wakes nobody.
    pub const fn end(&mut self) {
        self.ended = true;
    }

    /// When to ask again for knobs, shapes and actions, if a time bound is running.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        self.armed.iter().fold(None, |next, armed| earliest(next, armed.poll_timeout()))
    }
}

/// True for a FIN that only stands for an end.
const fn is_end(seg: &Segment, progress: &Progress) -> bool {
    progress.has_no_segments() && seg.has(Flags::FIN)
}

/// One rule on one flow.
#[derive(Debug)]
pub(super) struct Armed {
    rule: Arc<Rule>,
    /// The bounds of the rule on this flow, where they are not the same for all flows.
    bounds: Option<Box<Bounds>>,
    trigger: Trigger,
    dice: Rng,
    place: Turn,
    memory: Memory,
    /// A knob of this leg, or the shape of what enters by it, is turned.
    turned: [bool; 2],
    /// The action is done.
    acted: bool,
    /// When the action is due within its bounds.
    due: Option<Instant>,
    /// What a segment has brought about, and when.
    later: Option<(Instant, Action)>,
    /// How often it has acted.
    fired: u32,
}

impl Armed {
    pub(super) fn new(rule: Arc<Rule>, dice: Rng, place: Turn) -> Self {
        let (trigger, memory) = (Trigger::default(), Memory::default());
        let lasts = rule.fault.lasts(place);
        let bounds = lasts.map(|lasts| Box::new(Bounds { lasts: Some(lasts), ..rule.bounds.clone() }));
        Self {
            rule,
            bounds,
            trigger,
            dice,
            place,
            memory,
            turned: [false; 2],
            acted: false,
            due: None,
            later: None,
            fired: 0,
        }
    }

    /// True if it has something to do when its time bounds open or close, whether or not segments come.
    fn has_edges(&self) -> bool {
        let hooks = &self.rule.hooks;
        hooks.turns || hooks.shapes || (hooks.acts && !self.acted)
    }

    fn so_far(&self, cx: &Cx<'_>, progress: &Progress) -> SoFar {
        let base = match self.rule.kind.topic {
            Topic::Handshake => Some(progress.opened),
            _ => progress.established,
        };
        SoFar::new(cx.now, base, progress, self.rule.fault.direction())
    }

    fn on_segment(
        &mut self,
        cx: &mut Cx<'_>,
        at: Point,
        seg: &mut Segment,
        progress: &Progress,
        deeds: &mut VecDeque<(Deed, Option<Event>)>,
    ) -> Verdict {
        if !self.rule.fault.selects(at, seg, progress) {
            return Verdict::Pass;
        }
        let mut so_far = self.so_far(cx, progress);
        // A segment can be early: data or a FIN that completes the handshake. For it the time since then is zero.
        so_far.base = so_far.base.or(Some(cx.now));
        let bounds = self.bounds.as_deref().unwrap_or(&self.rule.bounds);
        let nth = self.trigger.on_segment(bounds, so_far, &mut self.dice);
        if progress.established.is_none() || !self.has_edges() {
            self.trigger.rest(); // the next segment asks anyway
        }
        let Some(nth) = nth else { return Verdict::Pass };
        let note = (!is_end(seg, progress)).then(|| cx.note(seg));
        let mut done = Vec::new();
        let mut moment = Moment {
            nth,
            now: cx.now,
            at,
            progress,
            place: self.place,
            dice: &mut self.dice,
            memory: &mut self.memory,
            deeds: &mut done,
            later: &mut self.later,
        };
        let verdict = self.rule.fault.on_segment(&mut moment, seg);
        let did = match verdict {
            Verdict::Pass => None,
            Verdict::Rewrite => Some(Did::Rewrite),
            Verdict::Drop => Some(Did::Drop),
            Verdict::Hold(time) => Some(Did::Hold(time)),
            Verdict::Behind(segments, _) => Some(Did::Behind(segments)),
            Verdict::Duplicate(copies) | Verdict::Echo(copies, _) => Some(Did::Duplicate(copies)),
        };
        if let Some(did) = did {
            self.tell_fired(cx, at.leg, at.direction(), did, note);
        }
        for deed in done {
            let later = self.tell(cx, &deed);
            deeds.push_back((deed, later));
        }
        verdict
    }

    /// Tells of a deed now, or gives what is to be told when it is done.
    fn tell(&mut self, cx: &mut Cx<'_>, deed: &Deed) -> Option<Event> {
        match deed {
            Deed::Send { leg, segment, after } => {
                let event = self.event(leg.outward(), Did::Inject, Some(SegmentNote::from(&**segment)));
                if !after.is_zero() {
                    return Some(event);
                }
                cx.for_leg(*leg).emit(event);
            }
            Deed::Icmp { leg, .. } | Deed::Acknowledge { leg, .. } => {
                self.tell_fired(cx, *leg, leg.outward(), Did::Inject, None);
            }
            Deed::Act(action) => self.tell_action(cx, *action),
            // They are segments of no flow.
            Deed::Begin { .. } => self.tell_fired(cx, Leg::Server, Direction::Upstream, Did::Knob, None),
        }
        None
    }

    fn tell_action(&mut self, cx: &mut Cx<'_>, action: Action) {
        let (client, server, did) = match action {
            Action::Reset { client, server } | Action::Finish { client, server } => {
                (client, server, Did::Inject)
            }
            // An ICMP error is told by itself, and is no segment.
            Action::Refuse { icmp } => (icmp.is_none(), false, Did::Inject),
            Action::Silence => (true, true, Did::Knob),
            Action::Forget { .. } => return, // nobody is told
        };
        for (leg, told) in [(Leg::Client, client), (Leg::Server, server)] {
            if told {
                self.tell_fired(cx, leg, leg.outward(), did, None);
            }
        }
    }

    fn turn(&mut self, cx: &mut Cx<'_>, leg: Leg, knobs: &mut Knobs, progress: &Progress) {
        let mut turned = *knobs;
        if self.rule.fault.turn(leg, &mut turned)
            && self.is_open(cx, leg, leg, self.rule.fault.direction(), progress)
        {
            *knobs = turned;
        }
    }

    fn shape(&mut self, cx: &mut Cx<'_>, direction: Direction, shape: &mut Shape, progress: &Progress) {
        let mut shaped = *shape;
        if self.rule.fault.shape(direction, &mut shaped)
            && self.is_open(cx, direction.enters(), direction.leaves(), direction, progress)
        {
            *shape = shaped;
        }
    }

    /// True within the bounds; tells of the change, as seen on the leg `shown`.
    fn is_open(
        &mut self,
        cx: &mut Cx<'_>,
        leg: Leg,
        shown: Leg,
        direction: Direction,
        progress: &Progress,
    ) -> bool {
        let so_far = self.so_far(cx, progress);
        let bounds = self.bounds.as_deref().unwrap_or(&self.rule.bounds);
        let open = self.trigger.is_open(bounds, so_far);
        if open != std::mem::replace(&mut self.turned[leg as usize], open) {
            let did = if open { Did::Knob } else { Did::Release };
            self.tell_fired(cx, shown, direction, did, None);
        }
        open
    }

    fn accepts_first(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<AcceptFirst> {
        let how = self.rule.fault.accepts_first()?;
        let so_far = self.so_far(cx, progress);
        let open = self.trigger.is_open(&self.rule.bounds, so_far);
        // Only a SYN asks again.
        self.trigger.rest();
        if open {
            self.tell_fired(cx, Leg::Client, Direction::Downstream, Did::Inject, None);
        }
        open.then_some(how)
    }

    fn action(&mut self, cx: &mut Cx<'_>, progress: &Progress) -> Option<Action> {
        if let Some((_, action)) = self.later.take_if(|(at, _)| *at <= cx.now) {
            self.tell_action(cx, action);
            return Some(action);
        }
        self.due = None;
        if self.acted || !self.rule.hooks.acts {
            return None;
        }
        let action = self.rule.fault.action()?;
        let so_far = self.so_far(cx, progress);
        let bounds = self.bounds.as_deref().unwrap_or(&self.rule.bounds);
        if !self.trigger.is_open(bounds, so_far) || !self.rule.fault.is_for(progress) {
            return None;
        }
        self.rule.fault.notice(cx.now, progress, &mut self.memory);
        let due = self.rule.fault.due(&self.memory)?;
        if due > cx.now {
            self.due = Some(due);
            return None;
        }
        self.acted = true;
        self.trigger.rest();
        self.tell_action(cx, action);
        Some(action)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earliest(earliest(self.trigger.poll_timeout(), self.due), self.later.map(|(at, _)| at))
    }

    fn tell_fired(
        &mut self,
        cx: &mut Cx<'_>,
        leg: Leg,
        direction: Direction,
        did: Did,
        segment: Option<SegmentNote>,
    ) {
        let event = self.event(direction, did, segment);
        cx.for_leg(leg).emit(event);
    }

    fn event(&mut self, direction: Direction, did: Did, segment: Option<SegmentNote>) -> Event {
        self.fired = self.fired.saturating_add(u32::from(did != Did::Release));
        let (rule, fault) = (self.rule.name.clone(), self.rule.kind.name);
        Event::Fired { rule, fault, did, direction, segment }
    }
}
