//! The seam between the legs: what an event of one leg means for the other.
//!
//! | on one leg | on the other |
//! |---|---|
//! | bytes | the same bytes; the urgent mark at the same offset |
//! | FIN, after all its data | FIN, after all its data; the way back stays open as long as the peers want |
//! | RST | RST, after the bytes that came before it, as far as the peer's window takes them at once |
//! | retransmissions ran out | RST |
//! | keepalive probe | keepalive probe; answered when the far peer has answered |
//! | bytes wait here | a smaller window there |

use std::net::IpAddr;

use bytes::Bytes;

use super::around::FORGET;
use super::flow::{BOTH, Flow, Phase};
use super::leg::Link;
use super::socket_command::SocketEvent;
use crate::cx::Cx;
use crate::tcp::Event;
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg, Outcome, State};

/// What a leg is offered before the flow has moved anything. It grows with what has been delivered, as Linux's receive
/// buffers do, so that memory goes to those who use it.
const FIRST_BUFFER: u64 = 64 << 10;
/// How long a flow that was reset on one side only is remembered, to answer the other side with a RST. Linux remembers a
/// TIME-WAIT as long. Later the peer's own host gives the same answer.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a leg waits in FIN-WAIT-2 when the other one is gone, so that nobody is left to hear what its peer says: Linux's
/// `tcp_fin_timeout` for an orphan. Only a fault that finishes both ends makes one.
const ORPHANED: Duration = Duration::from_secs(60);

impl Flow {
    /// Couples the legs after inputs.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>, buffer: u32) {
        let reporter = self.server.ip();
        loop {
            let mut served = 0;
            for leg in BOTH {
                served += self.serve_events(cx, leg, reporter);
            }
            if served == 0 {
                break;
            }
        }
        self.pass_reset(cx);
        for leg in BOTH {
            self.offer(leg, buffer);
        }
        self.apply_plan(cx);
    }

    /// Moves what `leg` has received, after each segment: the next may be a RST. Offsets are equal on both legs, so the
    /// urgent mark crosses as an offset.
    pub(super) fn relay_from(&mut self, cx: &mut Cx<'_>, leg: Leg) {
        if self.is_half_open() {
            return;
        }
        if self.shaped(cx, leg) {
            return;
        }
        let (from, to) = self.legs.pair(leg);
        if let Some(offset) = from.urgent_received() {
            to.set_urgent(offset);
        }
        while let Some(data) = self.legs[leg].recv(&mut cx.for_leg(leg)) {
            self.hand(cx, leg.other(), data);
        }
    }

    /// Bytes that have crossed from `leg` by themselves are with the other one.
    pub(super) fn note_crossed(&mut self, cx: &mut Cx<'_>, leg: Leg, event: &SocketEvent) {
        if let SocketEvent::Crossed { bytes, waiting } = *event {
            self.tell_first_payload(cx, leg.other().outward());
            if let Link::Socket(socket) = &mut self.legs[leg.other()] {
                socket.note_crossed(bytes, waiting);
            }
        }
    }

    /// Lets bytes cross by themselves where nothing wants to see them. Later rules are only for later flows.
    fn join(&mut self) {
        if self.around.is_none()
            && let (Link::Socket(client), Link::Socket(server)) = self.legs.pair(Leg::Client)
        {
            client.join(server);
        }
    }

    /// Gives bytes to the leg that sends them on.
    pub(super) fn hand(&mut self, cx: &mut Cx<'_>, to: Leg, data: Bytes) {
        if to == Leg::Client && self.marks.is_kernel(to) {
            // No segment will tell it.
            self.tell_first_payload(cx, Direction::Downstream);
        }
        self.legs[to].send(data);
    }

    /// Offers `leg` the free space of the other leg's queue: who stops reading stops the writer, end to end.
    fn offer(&mut self, leg: Leg, buffer: u32) {
        if self.phase != Phase::Open {
            return;
        }
        let moved = self.legs.delivered(leg.other());
        let (piped, most) = self.in_pipe(leg);
        let (link, other) = self.legs.pair(leg);
        let room = u64::from(buffer).min(FIRST_BUFFER + 2 * moved) as u32;
        let room = room.saturating_sub(other.queued().saturating_add(piped));
        link.set_receive_space(room.min(most.unwrap_or(u32::MAX)));
    }

    /// Serves all events of a leg and counts them. `reporter` is who speaks in an ICMP refusal.
    pub(super) fn serve_events(&mut self, cx: &mut Cx<'_>, leg: Leg, reporter: IpAddr) -> usize {
        let mut served = 0;
        while let Some(event) = self.legs[leg].poll_event() {
            served += 1;
            if let (Phase::Dialling, Event::Unreachable { kind, code }) = (self.phase, event) {
                self.refuse_by_icmp(cx, kind, code, reporter);
            } else {
                self.on_leg_event(cx, leg, event);
            }
        }
        served
    }

    fn on_leg_event(&mut self, cx: &mut Cx<'_>, leg: Leg, event: Event) {
        let ends =
            matches!(event, Event::Reset | Event::TimedOut | Event::Unreachable { .. } | Event::Closed);
        if ends && let Link::Tcp(tcp) = &mut self.legs[leg] {
            tcp.closed = true;
        }
        match (self.phase, leg, event) {
            (Phase::Dialling, Leg::Server, Event::Established) => self.accept(cx),
            (Phase::Dialling, Leg::Server, Event::Reset) => self.refuse_by_rst(cx),
            (Phase::Dialling, Leg::Server, Event::TimedOut) => self.fall_silent(),
            (Phase::Accepting, Leg::Client, Event::Established) => self.complete(cx),
            (Phase::Early, leg, event) if self.on_early_event(cx, leg, event) => {}
            (Phase::Accepting, Leg::Client, Event::TimedOut) => {
                // The server's own SYN-ACKs have run out by now as well: it hears nothing, as without us.
                self.outcome.get_or_insert(Outcome::Aborted);
                self.legs[Leg::Server].vanish(&mut cx.for_leg(Leg::Server));
            }
            // Before that the FIN waits with its data: see `complete`.
            (_, _, Event::FinReceived) if !self.is_half_open() => {
                // What completed the handshake may have carried data and this FIN as well.
                self.relay_from(cx, leg);
                if self.hear_end(cx, leg) {
                    self.pass_end(cx, leg);
                }
            }
            (phase, _, Event::Reset) => {
                let half_open = phase == Phase::Accepting && leg == Leg::Client;
                self.outcome.get_or_insert(if half_open { Outcome::Aborted } else { Outcome::Reset });
                self.reset_passes_to = Some(leg.other());
            }
            (_, _, Event::TimedOut) => {
                self.outcome.get_or_insert(Outcome::Timeout);
                self.legs[leg.other()].abort(&mut cx.for_leg(leg.other()));
            }
            (_, _, Event::KeepaliveProbe) if !self.has_only_a_client() => self.legs[leg.other()].probe(),
            // Who accepted the client first answers for a server that is not there.
            (_, _, Event::KeepaliveProbe) => {
                if let Some(conn) = self.legs[leg].conn_mut() {
                    conn.answer_probe();
                }
            }
            (_, _, Event::ProbeAnswered) => {
                if let Some(conn) = self.legs[leg.other()].conn_mut() {
                    conn.answer_probe();
                }
            }
            _ => {}
        }
    }

    /// The client's handshake is complete: the server hears of it, and bytes flow.
    pub(super) fn complete(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Open;
        let accepted_first = self.around.as_mut().is_some_and(|around| around.early.take().is_some());
        self.established.get_or_insert(cx.now);
        // The client's ACK may have come with its first bytes, and even with its FIN.
        self.relay_from(cx, Leg::Client);
        self.relay_from(cx, Leg::Server);
        if let Some(conn) = self.legs[Leg::Server].conn_mut() {
            conn.uncork();
        }
        // A server that opened at the same time may have finished already, and so may a client that was accepted first. The
        // FIN of any other client is still to be told.
        for leg in BOTH.into_iter().filter(|leg| *leg == Leg::Server || accepted_first) {
            if self.legs[leg].conn().is_some_and(|conn| conn.state() == State::CloseWait) {
                self.pass_end(cx, leg);
            }
        }
        if self.around.as_ref().is_some_and(|around| around.plan.is_empty()) {
            // It was for the dial alone.
            self.around = None;
        }
        self.join();
        // Now, for the first bytes may have come in the same batch.
        self.apply_plan(cx);
    }

    /// The peer of `leg` has finished, and so does our end of the other leg.
    pub(super) fn pass_end(&mut self, cx: &mut Cx<'_>, leg: Leg) {
        if !self.shaped_end(cx, leg) {
            self.finish(cx, leg.other());
        }
        if self.has_only_a_client() {
            // There is no server that could.
            self.finish(cx, leg);
        }
    }

    /// Without us the bytes before a RST would be with the receiver already. Here they may still wait for the congestion
    /// window; the RST follows them. Bytes that the receiver has no room for are lost, as they are with their sender.
    fn pass_reset(&mut self, cx: &mut Cx<'_>) {
        if let Some(leg) = self.reset_passes_to
            && !self.legs[leg].has_sendable()
            && !self.is_flowing_to(leg)
        {
            self.reset_passes_to = None;
            if let Link::Socket(socket) = &mut self.legs[leg] {
                socket.flush();
            }
            self.legs[leg].abort(&mut cx.for_leg(leg));
            self.marks.unsettle();
        }
    }

    /// Frees legs that are gone, and tells the end when both directions are through.
    pub(super) fn after_transmit(&mut self, cx: &mut Cx<'_>) {
        for leg in BOTH {
            if self.serve_events(cx, leg, self.server.ip()) > 0 {
                self.marks.unsettle();
            }
        }
        self.pass_reset(cx);
        if self.marks.is_unsettled() {
            return;
        }
        for leg in BOTH {
            match &self.legs[leg] {
                Link::Tcp(tcp) if tcp.closed => self.legs.free(leg),
                Link::Socket(socket) if socket.is_gone() => self.legs.free(leg),
                _ => {}
            }
        }
        if self.expires == Instant::FAR
            && let Some(patience) = self.orphaned()
        {
            self.expires = cx.now + patience;
        }
        if matches!(self.phase, Phase::Early | Phase::Accepting | Phase::Open)
            && BOTH.iter().all(|leg| self.legs[*leg].is_over())
        {
            self.expires = Instant::FAR;
            self.tell_closed(cx, Outcome::Ok);
        }
    }

    /// How long to wait on if all that is left is one leg: for a peer that never finishes, or, where a fault has lost the end
    /// of the other side, for one that does not know that it could.
    fn orphaned(&self) -> Option<Duration> {
        let left = BOTH.into_iter().find(|leg| self.legs[leg.other()].is_gone())?;
        if let Link::Socket(socket) = &self.legs[left] {
            return (self.phase == Phase::Open && socket.only_waits_for_the_end()).then_some(ORPHANED);
        }
        match self.legs[left].conn()?.state() {
            _ if self.phase != Phase::Open => None,
            State::FinWait2 => Some(ORPHANED),
            State::CloseWait | State::Established if !self.is_flowing_to(left) => Some(FORGET),
            _ => None,
        }
    }

    /// The path of a flow is cut, and nobody has spoken for very long: nothing is left to wait for.
    pub(super) fn abandon(&mut self, cx: &mut Cx<'_>) {
        for leg in BOTH {
            match &mut self.legs[leg] {
                // Its peer is a host of today, which must not keep it for ever.
                Link::Socket(socket) => socket.abort(),
                link => link.vanish(&mut cx.for_leg(leg)),
            }
        }
        self.tell_closed(cx, Outcome::Timeout);
        self.marks.unsettle();
    }

    /// These legs end without a word. A RST that their peers have got, or that they will get once they speak, ends the flow
    /// for them; the other leg is left to finish.
    pub(super) fn forget(&mut self, cx: &mut Cx<'_>, client: bool, server: bool) {
        if self.phase == Phase::Ended {
            return;
        }
        let chosen = [(Leg::Client, client), (Leg::Server, server)].into_iter().filter(|(_, chosen)| *chosen);
        for (leg, _) in chosen {
            if !self.will_reset(leg) {
                self.legs[leg].vanish(&mut cx.for_leg(leg));
                self.expires = cx.now + REMEMBERED;
            }
        }
        self.outcome.get_or_insert(Outcome::Reset);
        self.marks.unsettle();
    }

    /// A reset of our own: `client` and `server` say who hears of it. The other one sees silence, and a RST once it speaks.
    pub(super) fn reset(&mut self, cx: &mut Cx<'_>, client: bool, server: bool) {
        if self.phase == Phase::Ended {
            return;
        }
        for (leg, told) in [(Leg::Client, client), (Leg::Server, server)] {
            let cx = &mut cx.for_leg(leg);
            if told { self.legs[leg].abort(cx) } else { self.legs[leg].vanish(cx) }
        }
        self.expires = if client && server { Instant::FAR } else { cx.now + REMEMBERED };
        self.tell_closed(cx, Outcome::Reset);
        self.marks.unsettle();
    }
}
