//! What is asked and done from outside while a flow runs: how it is, and its end.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::around::FORGET;
use super::flow::{BOTH, Flow, Phase};
use super::leg::Link;
use crate::cx::Cx;
use crate::time::Instant;
use crate::trace::{Event, FlowId, Kill, Leg, Outcome, State};
use crate::wire::Segment;

/// A flow at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// Its number.
    pub flow: FlowId,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The server's, as the client dialled it.
    pub server: SocketAddr,
    /// The port that the server leg comes from, if that is not the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Our end of the client leg: LISTEN while the client's SYN has no answer.
    pub client_state: State,
    /// Our end of the server leg; where it is a kernel socket the kernel's, as far as it tells.
    pub server_state: State,
    /// Payload bytes delivered to the server so far.
    pub upstream_bytes: u64,
    /// Payload bytes delivered to the client so far.
    pub downstream_bytes: u64,
    /// Payload bytes that wait in halfopen.
    pub waiting_bytes: u32,
    /// Seconds since the client's first SYN.
    pub age: f64,
    /// Seconds since a peer was heard.
    pub idle: f64,
    /// The rules that match it, in their order.
    pub rules: Vec<RuleFired>,
    /// How it has ended, if it has and is remembered only for late segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A rule on one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFired {
    /// Its name.
    pub rule: Arc<str>,
    /// Its fault's name.
    pub fault: Cow<'static, str>,
    /// How often the fault has acted on this flow.
    pub fired: u32,
}

/// Why a flow was not killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotKilled {
    /// There is no flow with this number here.
    Unknown,
    /// It has ended, like this.
    Ended(Outcome),
    /// A FIN needs both handshakes.
    HalfOpen,
}

impl Flow {
    /// How it is at `now`.
    #[must_use]
    pub fn info(&self, now: Instant) -> FlowInfo {
        let source_port = self.arriving(Leg::Server).dst.port();
        let rule = |(rule, fault, fired): (&Arc<str>, _, _)| RuleFired {
            rule: Arc::clone(rule),
            fault: Cow::Borrowed(fault),
            fired,
        };
        FlowInfo {
            flow: self.id,
            client: self.client,
            server: self.server,
            source_port: Some(source_port).filter(|port| *port != self.client.port()),
            client_state: match self.is_unanswered() {
                true => State::Listen,
                false => self.legs[Leg::Client].state(),
            },
            server_state: self.legs[Leg::Server].state(),
            upstream_bytes: self.legs.delivered(Leg::Server),
            downstream_bytes: self.legs.delivered(Leg::Client),
            waiting_bytes: self.held(),
            age: now.since(self.opened).as_secs_f64(),
            idle: now.since(self.heard).as_secs_f64(),
            rules: self.around.iter().flat_map(|around| around.plan.fired()).map(rule).collect(),
            outcome: self.outcome(),
        }
    }

    /// Ends it from outside. What is sent for that meets the flow's faults like any segment.
    ///
    /// # Errors
    /// [`NotKilled`] if it has ended, or is not open where it must be.
    pub fn kill(&mut self, cx: &mut Cx<'_>, how: Kill) -> Result<(), NotKilled> {
        let cx = &mut cx.for_flow(self.id);
        if self.phase == Phase::Ended {
            return Err(NotKilled::Ended(self.outcome.unwrap_or(Outcome::Ok)));
        }
        if how == Kill::Fin && self.is_half_open() {
            return Err(NotKilled::HalfOpen);
        }
        cx.emit(Event::Killed { how });
        self.outcome = Some(Outcome::Killed);
        match how {
            Kill::Rst if self.is_unanswered() => self.refuse(cx, None),
            Kill::Rst => self.reset(cx, true, true),
            // As if both peers had finished. What they send from now on vanishes: a leg that is shut takes no more bytes.
            Kill::Fin => BOTH.into_iter().for_each(|leg| self.pass_end(cx, leg)),
            Kill::Vanish => self.forget_silently(cx),
        }
        self.marks.unsettle();
        Ok(())
    }

    /// Leaves nothing but a hole that swallows segments, for as long as a peer may send them.
    fn forget_silently(&mut self, cx: &mut Cx<'_>) {
        for leg in BOTH {
            match &mut self.legs[leg] {
                Link::Socket(socket) => socket.fall_deaf(),
                link => {
                    link.vanish(&mut cx.for_leg(leg));
                    self.legs.free(leg);
                }
            }
        }
        self.tell_closed(cx, Outcome::Killed);
        self.around = None;
        self.marks.swallow();
        self.expires = cx.now + FORGET;
    }

    /// A segment for a flow that has vanished.
    pub(super) fn swallow(&self, cx: &mut Cx<'_>, segment: &Segment) {
        cx.segment_in(segment);
        cx.emit(Event::Discarded { reason: "its flow was killed without a word" });
    }
}
