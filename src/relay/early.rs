//! A flow whose client is accepted before its server is dialled: by a fault, as a load balancer or a port forwarder does, or by
//! a kernel socket.
//!
//! The client leg is a connection from the first SYN on. What it sends waits there, its FIN too, within the window of a SYN-ACK:
//! nothing is relayed before the server has answered. The client repeats its SYN no more, so the dial has a timer of its own.
//! From the moment at which both handshakes are complete, the flow is like any other.

use std::sync::Arc;

use super::around::Around;
use super::flow::{Flow, Phase};
use super::leg::Link;
use super::settings::Settings;
use super::socket_leg::SocketLeg;
use crate::cx::Cx;
use crate::fault::{AcceptFirst, OnFail, Plan};
use crate::tcp::{Event, SynOptions};
use crate::time::{Duration, Instant};
use crate::trace::{FlowId, Leg, Outcome};
use crate::wire::{IpMeta, Segment, Tuple};

/// SYNs to a silent server, at 0, 1, 3, 7, 15, 31, 63 s; after 127 s it is given up (Linux: `tcp_syn_retries` = 6).
const SYNS: u32 = 7;

/// What is known of the dial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Early {
    how: AcceptFirst,
    /// SYNs sent to the server.
    syns: u32,
    /// The dial has failed like this; the client hears of it once it is connected.
    failed: Option<Outcome>,
}

impl Flow {
    fn early_mut(&mut self) -> Option<&mut Early> {
        self.around.as_mut()?.early.as_mut()
    }

    /// True until the dial has an end.
    pub(super) fn still_dials(&self) -> bool {
        let early = self.around.as_ref().and_then(|around| around.early);
        self.phase == Phase::Early && early.is_some_and(|early| early.failed.is_none())
    }

    /// True while the client has a connection and no server: that one has not answered, or has failed.
    pub(super) fn has_only_a_client(&self) -> bool {
        self.around.as_ref().is_some_and(|around| around.early.is_some())
    }

    /// Answers the client's SYN. The server is dialled now or later.
    pub(super) fn accept_early(&mut self, cx: &mut Cx<'_>, how: AcceptFirst) {
        self.phase = Phase::Early;
        if let Some(around) = &mut self.around {
            around.early = Some(Early { how, syns: 0, failed: None });
        }
        self.accept_client(cx, self.own_offer(), IpMeta::default());
        self.expires = cx.now + how.delay;
        if how.delay.is_zero() {
            self.dial_on(cx);
        }
    }

    /// A flow for a client that a kernel socket has accepted. `offer` is what the SYN of a server leg of our own TCP offers;
    /// `None`: the server leg is a kernel socket. A server that refuses makes a RST of the connection.
    #[must_use]
    pub fn accepted(
        cx: &mut Cx<'_>,
        settings: &Arc<Settings>,
        id: FlowId,
        tuple: Tuple,
        offer: Option<SynOptions>,
        plan: Plan,
    ) -> Self {
        let mut flow = Self::new(cx, settings, id, tuple, tuple.src.port(), &Segment::default(), plan);
        let cx = &mut cx.for_flow(id);
        flow.marks = flow.marks.with_kernel(Leg::Client, true).with_kernel(Leg::Server, offer.is_none());
        flow.syn.options = offer.unwrap_or_default();
        flow.phase = Phase::Early;
        flow.established = Some(cx.now);
        let nothing = || Around::of(Plan::default(), &settings.limits, flow.syn.seq);
        let how = AcceptFirst { delay: Duration::ZERO, on_fail: OnFail::Reset };
        flow.around.get_or_insert_with(nothing).early = Some(Early { how, syns: 0, failed: None });
        let leg = SocketLeg::accepted(&mut cx.for_leg(Leg::Client));
        flow.legs[Leg::Client] = Link::Socket(Box::new(leg));
        flow.dial_on(cx);
        flow.marks.unsettle();
        flow
    }

    /// It is time for the next SYN to the server.
    pub(super) fn dial_on(&mut self, cx: &mut Cx<'_>) {
        let Some(early) = self.early_mut() else { return };
        early.syns += 1;
        let syns = early.syns;
        // The kernel repeats the SYNs of a socket by itself.
        self.expires = match self.marks.is_kernel(Leg::Server) {
            false => cx.now + Duration::from_secs(1) * (1 << (syns - 1)),
            true => Instant::FAR,
        };
        match self.legs[Leg::Server].conn_mut() {
            None => self.dial(cx),
            Some(conn) if syns <= SYNS => conn.resend_syn(),
            Some(conn) => {
                conn.vanish(&mut cx.for_leg(Leg::Server));
                self.dial_failed(cx, Outcome::Timeout);
            }
        }
    }

    /// What an event of a leg means before the server has answered. False: the same as later.
    pub(super) fn on_early_event(&mut self, cx: &mut Cx<'_>, leg: Leg, event: Event) -> bool {
        match (leg, event) {
            (Leg::Client, Event::Established) => {
                self.established = Some(cx.now);
                self.end_early(cx);
            }
            (Leg::Server, Event::Established) => {
                self.expires = Instant::FAR;
                if self.established.is_some() {
                    self.complete(cx);
                } else {
                    // As if the server had been first: it waits until the client is there.
                    self.phase = Phase::Accepting;
                    self.await_client(cx.now);
                    if let Some(conn) = self.legs[Leg::Server].conn_mut() {
                        conn.cork();
                    }
                }
            }
            (Leg::Server, Event::Reset) => self.dial_failed(cx, Outcome::RefusedRst),
            (Leg::Server, Event::Unreachable { .. }) => self.dial_failed(cx, Outcome::RefusedIcmp),
            (Leg::Server, Event::TimedOut) => self.dial_failed(cx, Outcome::Timeout),
            (Leg::Client, Event::Reset | Event::TimedOut) => {
                let end = if self.established.is_some() { Outcome::Reset } else { Outcome::Aborted };
                self.outcome.get_or_insert(end);
                self.expires = Instant::FAR;
                self.hang_up(cx);
            }
            _ => return false,
        }
        true
    }

    fn dial_failed(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        self.expires = Instant::FAR;
        if let Some(early) = self.early_mut() {
            early.failed = Some(outcome);
        }
        self.await_client(cx.now);
        self.end_early(cx);
    }

    /// The client hears that the dial has failed, once it is connected.
    fn end_early(&mut self, cx: &mut Cx<'_>) {
        let Some(Early { how, failed: Some(outcome), .. }) = self.early_mut().copied() else { return };
        if self.established.is_none() {
            return;
        }
        self.outcome.get_or_insert(outcome);
        self.phase = Phase::Open;
        match how.on_fail {
            OnFail::Finish => self.finish(cx, Leg::Client),
            OnFail::Reset => self.legs[Leg::Client].abort(&mut cx.for_leg(Leg::Client)),
            OnFail::Hang => {}
        }
        // What it has sent so far is lost.
        self.relay_from(cx, Leg::Client);
        if self.legs[Leg::Client].has_finished() {
            self.pass_end(cx, Leg::Client);
        }
        self.marks.unsettle();
    }
}
