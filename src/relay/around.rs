//! What stands around the legs of a flow that has faults: the plan, the segments that it holds, and the bytes that it shapes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::early::Early;
use super::flow::{BOTH, Flow, Output, Phase};
use super::leg::Link;
use super::pipe::Pipe;
use super::settings::Limits;
use crate::cx::Cx;
use crate::fault::{AcceptFirst, Action, Deed, Held, Plan, Point, Verdict, Way};
use crate::time::{Duration, Instant, earliest};
use crate::trace::{Event, Leg};
use crate::wire::{Flags, IcmpNote, Segment, SeqNum, Tuple};

/// Connections that faults begin beside one flow, at most.
const MOST_STRAYS: usize = 64;

/// The plan of a flow, held segments and shaped bytes.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) plan: Plan,
    held: Held<Waiting>,
    /// Those that wait for later ones to pass: how many more.
    behind: Held<(Waiting, u8)>,
    /// ACKs of faults, each with how far behind its number is.
    acks: Held<(Leg, u32)>,
    /// The client's ISN on the wire, which a fault may rewrite.
    isn: SeqNum,
    /// What faults want done to the flow once the segment at hand has been taken.
    acts: VecDeque<Action>,
    /// Upstream and downstream; only if a fault shapes bytes.
    pub(super) pipes: Option<Box<[Pipe; 2]>>,
    /// [`Action::Silence`]: nothing passes any more, either way.
    silent: bool,
    /// A leg runs no timer, because a fault has cut its path.
    mute: bool,
    /// The last segment of the peer of a leg was lost to a fault: it may have been its end.
    unheard: [bool; 2],
    /// When a peer was heard last.
    heard: Instant,
    /// The client was accepted first, and its server has not answered, or has failed.
    pub(super) early: Option<Early>,
    /// Connections to the server that a fault has begun: as we send, and the number of their SYN.
    strays: Vec<(Tuple, SeqNum)>,
}

/// A segment that waits for its time.
#[derive(Debug)]
struct Waiting {
    at: Point,
    segment: Segment,
    /// What is told when it leaves, if a fault has made it.
    event: Option<Box<Event>>,
}

/// How long a flow is kept whose path a fault has cut and whose peers are silent, for it may never hear of their ends. No
/// host repeats or probes that long: Linux's keepalive gives up after 2 h 11 min.
pub(super) const FORGET: Duration = Duration::from_secs(3 * 3600);

impl Around {
    /// `None` for an empty plan: a flow without faults pays one test per segment.
    pub(super) fn new(plan: Plan, limits: &Limits, isn: SeqNum) -> Option<Box<Self>> {
        (!plan.is_empty()).then(|| Self::of(plan, limits, isn))
    }

    /// The same, for a plan that may be empty.
    pub(super) fn of(mut plan: Plan, limits: &Limits, isn: SeqNum) -> Box<Self> {
        let pipes = plan.take_shape_dice().map(|dice| Box::new((*dice).map(Pipe::new)));
        let most = limits.held_segments;
        Box::new(Self {
            plan,
            held: Held::new(most),
            behind: Held::new(most),
            acks: Held::new(most),
            isn,
            acts: VecDeque::new(),
            pipes,
            silent: false,
            mute: false,
            unheard: [false; 2],
            heard: Instant::ZERO,
            early: None,
            strays: Vec::new(),
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pipes = self.pipes.iter().flat_map(|pipes| pipes.iter());
        let pipes = pipes.fold(None, |next, pipe| earliest(next, pipe.poll_timeout()));
        let held = earliest(self.held.poll_timeout(), self.behind.poll_timeout());
        let held = earliest(held, self.acks.poll_timeout());
        let own = earliest(self.forgets_at(), pipes);
        earliest(earliest(self.plan.poll_timeout(), held), own)
    }

    /// When nobody can be thought to speak again, where a fault may have cut off the end.
    fn forgets_at(&self) -> Option<Instant> {
        (self.mute || self.unheard.contains(&true)).then(|| self.heard + FORGET)
    }

    /// Late segments still meet the plan. Nothing else is left to act on: a timer that still runs, and bytes that wait for a
    /// leg that is gone, must wake nobody, as they would never be served.
    fn end(&mut self) {
        self.plan.end();
        self.acts.clear();
        self.acks.clear();
        self.pipes = None;
        (self.mute, self.unheard) = (false, [false; 2]);
    }

    /// True if our SYN on this leg must offer a scale factor of 0.
    pub(super) fn is_unscaled(&self, leg: Leg) -> bool {
        self.plan.is_unscaled(leg)
    }

    /// True if nothing waits here.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.behind.is_empty()
    }

    fn pop_due(&mut self, now: Instant) -> Option<Waiting> {
        self.held.pop_due(now).or_else(|| self.behind.pop_due(now).map(|(waiting, _)| waiting))
    }

    pub(super) fn pipe(&mut self, leg: Leg) -> Option<&mut Pipe> {
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
    /// The client's ISN on the wire; [`Flow::syn`] has it as our TCP knows it.
    pub(super) fn isn(&self) -> SeqNum {
        self.around.as_ref().map_or(self.syn.seq, |around| around.isn)
    }

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
    pub(super) fn send_out(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: Segment) {
        let cx = &mut cx.for_leg(leg);
        if let Some(segment) = self.leave(cx, leg, segment) {
            self.push_segment(cx, leg, segment);
            self.pass_by(cx, Point { leg, way: Way::Out });
        }
    }

    /// The same for one that nothing waits before; it comes back, and whoever gets it sends it at once.
    pub(super) fn send_next(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: Segment) -> Option<Segment> {
        let cx = &mut cx.for_leg(leg);
        let mut segment = self.leave(cx, leg, segment)?;
        let next = if self.out.is_empty() {
            self.pass_outermost(cx, leg, &mut segment);
            self.tell_leaving(cx, leg, &segment);
            Some(segment)
        } else {
            self.push_segment(cx, leg, segment);
            None
        };
        self.pass_by(cx, Point { leg, way: Way::Out });
        next
    }

    /// Asks the plan about a segment that leaves. What comes back leaves now, behind what the plan has put before it.
    fn leave(&mut self, cx: &mut Cx<'_>, leg: Leg, mut segment: Segment) -> Option<Segment> {
        let at = Point { leg, way: Way::Out };
        match self.judge(cx, at, &mut segment) {
            _ if self.is_silent() => return None,
            Verdict::Pass | Verdict::Rewrite => {}
            Verdict::Drop => return None,
            Verdict::Hold(time) => {
                self.hold(cx, at, time, segment);
                return None;
            }
            Verdict::Behind(segments, time) => {
                self.put_behind(cx, at, segments, time, segment);
                return None;
            }
            Verdict::Duplicate(copies) => {
                for _ in 0..copies {
                    self.push_segment(cx, leg, segment.clone());
                }
            }
            Verdict::Echo(copies, time) => self.echo(cx, at, copies, time, &segment),
        }
        Some(segment)
    }

    /// True if nothing passes any more.
    fn is_silent(&self) -> bool {
        self.around.as_ref().is_some_and(|around| around.silent)
    }

    /// Asks the plan about a segment, and does what it wants done besides.
    pub(super) fn judge(&mut self, cx: &mut Cx<'_>, at: Point, segment: &mut Segment) -> Verdict {
        if self.around.is_none() {
            return Verdict::Pass;
        }
        let progress = self.progress();
        let around = self.around.as_mut().expect("tested above");
        let verdict = around.plan.on_segment(cx, at, segment, &progress);
        while let Some((deed, event)) = self.around.as_mut().and_then(|around| around.plan.poll_deed()) {
            self.perform(cx, deed, event);
        }
        // A segment that goes no further settles nothing, but it has asked the plan, which must tell anew when to be woken.
        if matches!(verdict, Verdict::Drop | Verdict::Hold(_)) {
            self.marks.unsettle();
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

    fn perform(&mut self, cx: &mut Cx<'_>, deed: Deed, event: Option<Event>) {
        match deed {
            Deed::Send { leg, segment, after } => {
                let cx = &mut cx.for_leg(leg);
                match after.is_zero() {
                    true => self.push_segment(cx, leg, *segment),
                    false => {
                        let at = Point { leg, way: Way::Out };
                        self.wait(cx, after, Waiting { at, segment: *segment, event: event.map(Box::new) });
                    }
                }
            }
            Deed::Icmp { leg, kind, code, mtu, quoted } => {
                cx.for_leg(leg).emit(Event::Icmp { kind, code, sent: true });
                let tuple = self.arriving(leg);
                let note = IcmpNote { from: tuple.dst.ip(), quoted: tuple, seq: quoted.seq, kind, code, mtu };
                self.out.push_back(Output::Icmp { note, quoted });
            }
            Deed::Acknowledge { leg, burst } => {
                if let Some(around) = &mut self.around {
                    for n in 0..u32::from(burst.count) {
                        around.acks.push(cx, cx.now + burst.gap * n, (leg, burst.behind));
                    }
                }
                self.release_acks(cx);
            }
            Deed::Act(action) => {
                if let Some(around) = &mut self.around {
                    around.acts.push_back(action);
                }
                self.marks.unsettle();
            }
            Deed::Begin { syns } => self.begin_strays(syns),
        }
    }

    fn begin_strays(&mut self, syns: Vec<(u16, Segment)>) {
        let Some(around) = &mut self.around else { return };
        for (port, segment) in syns.into_iter().take(MOST_STRAYS) {
            let tuple = Tuple { src: SocketAddr::new(self.client.ip(), port), dst: self.server };
            around.strays.push((tuple, segment.seq));
            self.out.push_back(Output::Segment { tuple, segment });
        }
    }

    /// The flow is over, and so are the connections that a fault has begun beside it.
    pub(super) fn end_strays(&mut self) {
        let Some(around) = &mut self.around else { return };
        for (tuple, iss) in around.strays.drain(..) {
            let segment = Segment { seq: iss + 1, flags: Flags::RST, ..Segment::default() };
            self.out.push_back(Output::Segment { tuple, segment });
            // It may be the end of a service that has looked for output already.
            self.marks.unsettle();
        }
    }

    /// Where answers to the connections come from that a fault has begun beside this one.
    pub(super) fn strays(&self) -> impl Iterator<Item = Tuple> {
        self.around.iter().flat_map(|around| around.strays.iter().map(|(tuple, _)| tuple.reverse()))
    }

    pub(super) fn act(&mut self, cx: &mut Cx<'_>, action: Action) {
        match action {
            Action::Silence => {
                if let Some(around) = &mut self.around {
                    around.silent = true;
                    around.held.clear();
                }
                // For the knobs.
                self.marks.unsettle();
            }
            Action::Reset { client, server } => self.reset(cx, client, server),
            Action::Refuse { icmp } => self.refuse(cx, icmp),
            Action::Forget { client, server } => self.forget(cx, client, server),
            Action::Finish { client, server } => {
                for leg in BOTH.into_iter().filter(|leg| if *leg == Leg::Client { client } else { server }) {
                    // What the far peer still sends it vanishes: a leg that is shut takes no more bytes.
                    self.finish(cx, leg);
                }
                self.marks.unsettle();
            }
        }
    }

    fn hold(&mut self, cx: &mut Cx<'_>, at: Point, time: Duration, segment: Segment) {
        self.wait(cx, time, Waiting { at, segment, event: None });
    }

    fn wait(&mut self, cx: &mut Cx<'_>, time: Duration, waiting: Waiting) {
        if let Some(around) = &mut self.around {
            around.held.push(cx, cx.now + time, waiting);
        }
    }

    fn echo(&mut self, cx: &mut Cx<'_>, at: Point, copies: u8, time: Duration, segment: &Segment) {
        for _ in 0..copies {
            self.hold(cx, at, time, segment.clone());
        }
    }

    fn put_behind(&mut self, cx: &mut Cx<'_>, at: Point, segments: u8, most: Duration, segment: Segment) {
        if let Some(around) = &mut self.around {
            around.behind.push(cx, cx.now + most, (Waiting { at, segment, event: None }, segments));
        }
    }

    /// A segment has passed here: one that waited for it, and for no more, goes on behind it.
    fn pass_by(&mut self, cx: &mut Cx<'_>, at: Point) {
        let Some(around) = self.around.as_mut().filter(|around| !around.behind.is_empty()) else { return };
        let released = around.behind.take(|(waiting, left)| {
            *left = left.saturating_sub(u8::from(waiting.at == at));
            *left == 0
        });
        for (waiting, _) in released {
            self.let_go(cx, waiting);
        }
    }

    /// Lets held segments go whose time has come.
    pub(super) fn release_held(&mut self, cx: &mut Cx<'_>) {
        self.release_acks(cx);
        while let Some(waiting) = self.around.as_mut().and_then(|around| around.pop_due(cx.now)) {
            self.let_go(cx, waiting);
        }
    }

    fn let_go(&mut self, cx: &mut Cx<'_>, waiting: Waiting) {
        let Waiting { at, segment, event } = waiting;
        let cx = &mut cx.for_leg(at.leg);
        if let Some(event) = event {
            cx.emit(*event);
        }
        match at.way {
            Way::In => self.take_in(cx, at.leg, segment),
            Way::Out => {
                self.push_segment(cx, at.leg, segment);
                self.await_client(cx.now);
            }
        }
    }

    /// Sends the ACKs of faults whose time has come. A leg that is gone sends none.
    fn release_acks(&mut self, cx: &mut Cx<'_>) {
        while let Some((leg, behind)) = self.around.as_mut().and_then(|around| around.acks.pop_due(cx.now)) {
            if let Some(ack) = self.legs[leg].conn().and_then(|conn| conn.bare_ack(cx.now, behind)) {
                self.push_segment(&mut cx.for_leg(leg), leg, ack);
            }
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
                    conn.set_knobs(cx.now, knobs);
                }
                None => match &mut self.legs[leg] {
                    Link::Socket(socket) if progress.has_no_segments() => {
                        let knobs = around.plan.knobs(&mut cx.for_leg(leg), leg, &progress);
                        let silent = knobs.mute || around.silent;
                        mute |= silent;
                        socket.set_silent(silent);
                        if progress.established.is_some() {
                            socket.set_window(knobs.window);
                        }
                    }
                    _ => around.plan.rest(leg),
                },
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

    /// How the plan wants the client accepted before the server is dialled, if it does.
    pub(super) fn accepts_first(&mut self, cx: &mut Cx<'_>) -> Option<AcceptFirst> {
        let progress = self.progress();
        self.around.as_mut().and_then(|around| around.plan.accepts_first(cx, &progress))
    }
}
