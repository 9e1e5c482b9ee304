//! A flow in virtual time for the tests of faults: it has a plan and a progress, and no TCP.

use std::net::SocketAddr;

use super::{
    Action, Circumstances, Deed, Engine, Error, Plan, Point, Progress, Rule, Rules, Shape, Turns, Verdict,
    Way,
};
use crate::cx::Cx;
use crate::tcp::Knobs;
use crate::time::Instant;
use crate::trace::{Direction, Event, FlowId, Leg, Record};
use crate::wire::{Flags, Numbers, Segment, SeqNum};

pub(super) const CLIENT: &str = "10.0.0.1:40000";
pub(super) const SERVER: &str = "10.0.0.2:80";

/// A bare segment.
pub(super) fn seg(flags: Flags) -> Segment {
    Segment { flags, ..Segment::default() }
}

/// Rules in their text form, one per line.
pub(super) fn rules(seed: u64, engine: Engine, text: &str) -> Result<Rules, Error> {
    let rules = text.lines().map(|line| line.parse().and_then(Rule::build)).collect::<Result<_, _>>()?;
    Rules::new(seed, engine, rules)
}

/// What is wrong with a rule.
pub(super) fn error(text: &str) -> String {
    rules(42, Engine::Tun, text).unwrap_err().to_string()
}

/// Why an engine refuses a rule that is right otherwise.
pub(super) fn refused(text: &str, engine: Engine) -> Option<String> {
    rules(42, engine, text).err().map(|e| e.to_string())
}

/// One flow.
pub(super) struct Flow {
    pub(super) plan: Plan,
    pub(super) progress: Progress,
    now: Instant,
    log: Vec<Record>,
}

impl Flow {
    /// Flow 1 with these rules, opened at 0.
    pub(super) fn of(text: &str) -> Self {
        Self::numbered(&rules(42, Engine::Tun, text).unwrap(), 1)
    }

    pub(super) fn numbered(rules: &Rules, number: u64) -> Self {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (alone, turns) = (Circumstances::default(), &mut Turns::default());
        let plan = rules.plan(FlowId(number), addr(CLIENT), addr(SERVER), &alone, turns);
        Self { plan, progress: Progress::default(), now: Instant::ZERO, log: Vec::new() }
    }

    pub(super) fn at(&mut self, millis: u64) -> &mut Self {
        self.now = Instant::from_millis(millis);
        self
    }

    pub(super) fn established(&mut self) {
        self.progress.established = Some(self.now);
    }

    /// The SYN-ACK to the client is out.
    pub(super) fn answered(&mut self) -> &mut Self {
        let zero = SeqNum(0);
        self.progress.client = Some(Numbers { snd_una: zero, snd_nxt: zero, rcv_nxt: zero });
        self
    }

    pub(super) fn received(&mut self, upstream: u64, downstream: u64) -> &mut Self {
        (self.progress.upstream_bytes, self.progress.downstream_bytes) = (upstream, downstream);
        self
    }

    pub(super) fn judge(&mut self, at: Point, seg: &mut Segment) -> Verdict {
        let cx = &mut Cx::new(self.now, &mut self.log);
        match self.plan.on_segment(cx, at, seg, &self.progress) {
            Verdict::Pass if at.way == Way::Out && self.plan.outermost(cx, at, seg, &self.progress) => {
                Verdict::Rewrite
            }
            verdict => verdict,
        }
    }

    /// The verdict as a letter: P, R, D, H, B or 2.
    pub(super) fn letter(&mut self, leg: Leg, way: Way, seg: &Segment) -> char {
        match self.judge(Point { leg, way }, &mut seg.clone()) {
            Verdict::Pass => 'P',
            Verdict::Rewrite => 'R',
            Verdict::Drop => 'D',
            Verdict::Hold(_) => 'H',
            Verdict::Behind(..) => 'B',
            Verdict::Duplicate(_) | Verdict::Echo(..) => '2',
        }
    }

    pub(super) fn knobs(&mut self, leg: Leg) -> Knobs {
        self.plan.knobs(&mut Cx::new(self.now, &mut self.log), leg, &self.progress)
    }

    pub(super) fn action(&mut self) -> Option<Action> {
        self.plan.poll_action(&mut Cx::new(self.now, &mut self.log), &self.progress)
    }

    /// What faults wanted done besides their verdicts, since the last call.
    pub(super) fn deeds(&mut self) -> Vec<Deed> {
        std::iter::from_fn(|| self.plan.poll_deed()).collect()
    }

    pub(super) fn shape(&mut self, direction: Direction) -> Shape {
        self.plan.shape(&mut Cx::new(self.now, &mut self.log), direction, &self.progress)
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.plan.poll_timeout()
    }

    /// What was told: time, leg, direction, deed.
    pub(super) fn fired(&self) -> Vec<String> {
        self.log
            .iter()
            .map(|record| {
                let Event::Fired { did, direction, .. } = &record.event else {
                    panic!("not of a fault: {record:?}")
                };
                let name = |v: serde_json::Value| v.as_str().expect("a word").to_owned();
                let direction = name(serde_json::to_value(direction).unwrap());
                let did = format!("{did:?}").to_lowercase();
                let leg = record.leg.expect("a fault acts on a leg").name();
                format!("{:.3} {leg} {direction} {did}", record.at.as_secs_f64())
            })
            .collect()
    }
}
