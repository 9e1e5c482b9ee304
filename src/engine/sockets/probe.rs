//! Keepalive probes of a peer, which are answered only when the far one has answered one of ours. The kernel sends ours
//! and tells nobody when the answer comes, so that it is asked again and again for a while.

use std::time::Duration;

use super::At;
use crate::time::Instant;

/// The kernel's timers are late by up to two ticks of the slowest kernels.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// Between two looks it takes a half longer each time. When it is longer than this, nobody answered; who has asked
/// asks again if it wants to know.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A probe on its way.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) at: At,
    /// When the first look at the clock after the probe was.
    sent: Option<Instant>,
    wait: Duration,
    next: Instant,
}

/// What is known of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Too early to say.
    Waiting,
    /// Time to ask whether it was heard within this time.
    Look(Duration),
    /// No answer came.
    Lost,
}

impl Probe {
    pub(super) const fn new(at: At) -> Self {
        Self { at, sent: None, wait: FIRST_LOOK, next: Instant::ZERO }
    }

    /// When to ask for the state.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn state(&mut self, now: Instant) -> State {
        if now < self.next {
            return State::Waiting;
        }
        let Some(sent) = self.sent else {
            self.sent = Some(now);
            self.next = now + self.wait;
            return State::Waiting;
        };
        if self.wait > LAST_WAIT {
            return State::Lost;
        }
        self.wait = self.wait * 3 / 2;
        self.next = now + self.wait;
        State::Look(now.since(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::FlowKey;
    use crate::trace::Leg;

    #[test]
    fn it_is_looked_for_less_and_less_often_and_then_given_up() {
        let mut probe = Probe::new((FlowKey { slot: 0, generation: 0 }, Leg::Server));
        let start = Instant::from_millis(1000);
        assert_eq!(probe.state(start), State::Waiting);
        assert_eq!(probe.next(), start + FIRST_LOOK);
        let mut looks = Vec::new();
        let end = loop {
            let now = probe.next();
            match probe.state(now) {
                State::Look(since) => looks.push(since.as_millis()),
                State::Lost => break now,
                State::Waiting => panic!("it said when to ask"),
            }
        };
        assert_eq!(looks[..4], [20, 50, 95, 162]);
        assert!((4000..8000).contains(&end.since(start).as_millis()), "{end}");
    }
}
