//! What stands around the legs of a flow that has faults: the plan, the segments that it holds, and the bytes that it shapes.

use std::collections::VecDeque;

use super::flow::{BOTH, Flow, Output, Phase};
use super::pipe::{Flowing, Pipe};
use super::settings::Limits;
use crate::cx::Cx;
use crate::fault::{Action, Deed, Held, Plan, Point, Verdict, Way};
use crate::time::{Duration, Instant, earliest};
use crate::trace::{Event, Leg};
use crate::wire::{IcmpNote, Segment};

/// The plan of a flow, held segments and shaped bytes.
#[derive(Debug)]
pub(super) struct Around {
    plan: Plan,
    held: Held<(Point, Segment)>,
    /// Those that wait for later ones to pass: how many more.
    behind: Held<(Point, Segment, u8)>,
    /// What faults want done to the flow once the segment at hand has been taken.
    acts: VecDeque<Action>,
    /// Upstream and downstream; only if a fault shapes bytes.
    pipes: Option<Box<[Pipe; 2]>>,
    /// [`Action::Silence`]: nothing passes any more, either way.
    silent: bool,
    /// A leg runs no timer, because a fault has cut its path.
    mute: bool,
    /// The last segment of the peer of a leg was lost to a fault: it may have been its end.
    unheard: [bool; 2],
    /// When a peer was heard last.
    heard: Instant,
}

/// How long a flow is kept whose path a fault has cut and whose peers are silent, for it may never hear of their ends. No
/// host repeats or probes that long: Linux's keepalive gives up after 2 h 11 min.
const FORGET: Duration = Duration::from_secs(3 * 3600);

impl Around {
    /// `None` for an empty plan: a flow without faults pays one test per segment.
    pub(super) fn new(mut plan: Plan, limits: &Limits) -> Option<Box<Self>> {
        let pipes = plan.take_shape_dice().map(|dice| Box::new(dice.map(Pipe::new)));
        let (held, behind) = (Held::new(limits.held_segments), Held::new(limits.held_segments));
        (!plan.is_empty()).then(|| {
            let (acts, heard, unheard) = (VecDeque::new(), Instant::ZERO, [false; 2]);
            Box::new(Self { plan, held, behind, acts, pipes, silent: false, mute: false, unheard, heard })
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pipes = self.pipes.iter().flat_map(|pipes| pipes.iter());
        let pipes = pipes.fold(None, |next, pipe| earliest(next, pipe.poll_timeout()));
        let held = earliest(self.held.poll_timeout(), self.behind.poll_timeout());
        let own = earliest(self.forgets_at(), pipes);
        earliest(earliest(self.plan.poll_timeout(), held), own)
    }

    /// When nobody can be thought to speak again, where a fault may have cut off the end.
    fn forgets_at(&self) -> Option<Instant> {
        (self.mute || self.unheard.contains(&true)).then(|| self.heard + FORGET)
    }

    /// Nothing is left to act on. A timer that still runs must wake nobody: it would never be served.
    fn end(&mut self) {
        self.plan.retire();
        self.pipes = None;
        (self.mute, self.unheard) = (false, [false; 2]);
    }

    /// True if nothing waits here.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.behind.is_empty()
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Point, Segment)> {
        let behind = |around: &mut Self| around.behind.pop_due(now).map(|(at, segment, _)| (at, segment));
        self.held.pop_due(now).or_else(|| behind(self))
    }

    fn pipe(&mut self, leg: Leg) -> Option<&mut Pipe> {
        self.pipes.as_mut().map(|pipes| &mut pipes[leg as usize])
    }

    /// Shaped bytes that wait between the legs.
    pub(super) fn piped(&self) -> u32 {
        self.pipes.iter().flat_map(|pipes| pipes.iter()).map(Pipe::bytes).sum()
    }

    /// A peer has been heard.
    pub(super) const fn hear(&mut self, now: Instant) {
        self.heard = now;
    }
}

impl Flow {
    /// A segment from the peer of `leg` meets the plan.
    pub(super) fn meet(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: Segment) {
        if self.around.as_ref().is_some_and(|around| around.plan.is_per_segment()) {
            for single in segment.split() {
                self.meet_one(cx, leg, single);
            }
        } else {
            self.meet_one(cx, leg, segment);
        }
    }

    fn meet_one(&mut self, cx: &mut Cx<'_>, leg: Leg, mut segment: Segment) {
        cx.segment_in(&segment);
        let at = Point { leg, way: Way::In };
        if let Some(around) = &mut self.around {
            around.hear(cx.now);
        }
        match self.judge(cx, at, &mut segment) {
            _ if self.is_silent() => return,
            Verdict::Pass | Verdict::Rewrite => {}
            Verdict::Drop => return self.lose(leg, true),
            Verdict::Hold(time) => return self.hold(cx, at, time, segment),
            Verdict::Behind(segments, time) => return self.put_behind(cx, at, segments, time, segment),
            Verdict::Duplicate(copies) => {
                for _ in 0..copies {
                    self.take_in(cx, leg, segment.clone());
                }
            }
            Verdict::Echo(copies, time) => self.echo(cx, at, copies, time, &segment),
        }
        self.lose(leg, false);
        self.take_in(cx, leg, segment);
        self.pass_by(cx, at);
    }

    /// Notes whether the last segment of the peer of `leg` was lost.
    fn lose(&mut self, leg: Leg, lost: bool) {
        if let Some(around) = &mut self.around {
            around.unheard[leg as usize] = lost;
        }
    }

    /// Sends a segment to the peer of `leg`, if the plan lets it.
    pub(super) fn send_out(&mut self, cx: &mut Cx<'_>, leg: Leg, mut segment: Segment) {
        let cx = &mut cx.for_leg(leg);
        let at = Point { leg, way: Way::Out };
        let copies = match self.judge(cx, at, &mut segment) {
            _ if self.is_silent() => return,
            Verdict::Pass | Verdict::Rewrite => 0,
            Verdict::Drop => return,
            Verdict::Hold(time) => return self.hold(cx, at, time, segment),
            Verdict::Behind(segments, time) => return self.put_behind(cx, at, segments, time, segment),
            Verdict::Duplicate(copies) => copies,
            Verdict::Echo(copies, time) => {
                self.echo(cx, at, copies, time, &segment);
                0
            }
        };
        for _ in 0..copies {
            self.push_segment(cx, leg, segment.clone());
        }
        self.push_segment(cx, leg, segment);
        self.pass_by(cx, at);
    }

    /// True if nothing passes any more.
    fn is_silent(&self) -> bool {
        self.around.as_ref().is_some_and(|around| around.silent)
    }

    /// Asks the plan about a segment, and does what it wants done besides.
    fn judge(&mut self, cx: &mut Cx<'_>, at: Point, segment: &mut Segment) -> Verdict {
        if self.around.is_none() {
            return Verdict::Pass;
        }
        let progress = self.progress();
        let around = self.around.as_mut().expect("tested above");
        let verdict = around.plan.on_segment(cx, at, segment, &progress);
        while let Some(deed) = self.around.as_mut().and_then(|around| around.plan.poll_deed()) {
            self.perform(cx, deed);
        }
        verdict
    }

    /// What leaves by `leg` passes the faults that stand next to its peer.
    pub(super) fn pass_outermost(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: &mut Segment) {
        if self.around.as_ref().is_some_and(|around| around.plan.has_outermost()) {
            let progress = self.progress();
            if let Some(around) = &mut self.around {
                around.plan.outermost(cx, Point { leg, way: Way::Out }, segment, &progress);
            }
        }
    }

    fn perform(&mut self, cx: &mut Cx<'_>, deed: Deed) {
        match deed {
            Deed::Send { leg, segment, after } => {
                let cx = &mut cx.for_leg(leg);
                match after.is_zero() {
                    true => self.push_segment(cx, leg, *segment),
                    false => self.hold(cx, Point { leg, way: Way::Out }, after, *segment),
                }
            }
            Deed::Icmp { leg, kind, code, mtu, quoted } => {
                cx.for_leg(leg).emit(Event::Icmp { kind, code, sent: true });
                let tuple = self.arriving(leg);
                let note = IcmpNote { from: tuple.dst.ip(), quoted: tuple, seq: quoted.seq, kind, code, mtu };
                self.out.push_back(Output::Icmp { note, quoted });
            }
            Deed::Act(action) => {
                if let Some(around) = &mut self.around {
                    around.acts.push_back(action);
                }
                self.unsettled = true;
            }
        }
    }

    fn act(&mut self, cx: &mut Cx<'_>, action: Action) {
        match action {
            Action::Silence => {
                if let Some(around) = &mut self.around {
                    around.silent = true;
                    around.held.clear();
                    around.behind.clear();
                }
                // For the knobs.
                self.unsettled = true;
            }
            Action::Reset { client, server } => self.reset(cx, client, server),
            Action::Finish { client, server } => {
                for leg in BOTH.into_iter().filter(|leg| if *leg == Leg::Client { client } else { server }) {
                    // What the far peer still sends it vanishes: a leg that is shut takes no more bytes.
                    self.legs[leg].shutdown(&mut cx.for_leg(leg));
                }
                self.unsettled = true;
            }
        }
    }

    fn hold(&mut self, cx: &mut Cx<'_>, at: Point, time: Duration, segment: Segment) {
        if let Some(around) = &mut self.around {
            around.held.push(cx, cx.now + time, (at, segment));
        }
    }

    fn echo(&mut self, cx: &mut Cx<'_>, at: Point, copies: u8, time: Duration, segment: &Segment) {
        for _ in 0..copies {
            self.hold(cx, at, time, segment.clone());
        }
    }

    fn put_behind(&mut self, cx: &mut Cx<'_>, at: Point, segments: u8, most: Duration, segment: Segment) {
        if let Some(around) = &mut self.around {
            around.behind.push(cx, cx.now + most, (at, segment, segments));
        }
    }

    /// A segment has passed here: one that waited for it, and for no more, goes on behind it.
    fn pass_by(&mut self, cx: &mut Cx<'_>, at: Point) {
        let Some(around) = self.around.as_mut().filter(|around| !around.behind.is_empty()) else { return };
        let released = around.behind.take(|(point, _, left)| {
            *left = left.saturating_sub(u8::from(*point == at));
            *left == 0
        });
        for (at, segment, _) in released {
            self.let_go(cx, at, segment);
        }
    }

    /// Lets held segments go whose time has come.
    pub(super) fn release_held(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, segment)) = self.around.as_mut().and_then(|around| around.pop_due(cx.now)) {
            self.let_go(cx, at, segment);
        }
    }

    fn let_go(&mut self, cx: &mut Cx<'_>, at: Point, segment: Segment) {
        let cx = &mut cx.for_leg(at.leg);
        match at.way {
            Way::In => self.take_in(cx, at.leg, segment),
            Way::Out => self.push_segment(cx, at.leg, segment),
        }
    }

    /// Turns the knobs as the plan wants them, and does what it wants done.
    pub(super) fn apply_plan(&mut self, cx: &mut Cx<'_>) {
        if self.around.is_none() {
            return;
        }
        let progress = self.progress();
        let mut mute = false;
        for leg in BOTH {
            let Some(around) = &mut self.around else { return };
            if self.phase == Phase::Ended {
                return around.end();
            }
            match self.legs[leg].conn_mut() {
                Some(conn) => {
                    let mut knobs = around.plan.knobs(&mut cx.for_leg(leg), leg, &progress);
                    knobs.mute |= around.silent;
                    mute |= knobs.mute;
                    conn.set_knobs(knobs);
                }
                None => around.plan.rest(leg),
            }
        }
        if let Some(around) = &mut self.around {
            around.mute = mute;
            if around.forgets_at().is_some_and(|at| at <= cx.now) {
                return self.abandon(cx);
            }
        }
        self.flow_on(cx);
        while let Some(action) = self
            .around
            .as_mut()
            .and_then(|around| around.acts.pop_front().or_else(|| around.plan.poll_action(cx, &progress)))
        {
            self.act(cx, action);
        }
    }

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
    fn flow_on(&mut self, cx: &mut Cx<'_>) {
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
                Flowing::Data(data) => self.legs[to].send(data),
                Flowing::Fin => self.legs[to].shutdown(&mut cx.for_leg(to)),
                Flowing::Limit { reset: true } => {
                    self.act(cx, Action::Reset { client: true, server: true });
                }
                Flowing::Limit { reset: false } => {
                    self.act(cx, Action::Finish { client: true, server: true });
                }
            }
            self.unsettled = true;
        }
    }
}
