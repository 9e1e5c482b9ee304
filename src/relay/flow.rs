//! One flow: a connection that is terminated twice, and coupled so that neither end notices.
//!
//! Sans-IO: segments, ICMP errors and socket events come in, [`Output`]s are polled. The inputs only note what arrived;
//! [`Flow::poll_output`] couples the legs once for all of it, so that a batch of segments is acknowledged as a whole
//! (RFC 9293 MUST-59).
//!
//! | file | what |
//! |---|---|
//! | `opening` | from the first SYN to the client's SYN-ACK: one dial, refusals, giving up |
//! | `early` | the same where a fault accepts the client before the server is dialled |
//! | `seam` | what an event of one leg means for the other |
//! | `ending` | ends that no segment tells |
//! | `around` | the plan, and segments that it holds |
//! | `control` | what is asked and done from outside while it runs |

mod marks;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::around::Around;
use super::leg::{Legs, Link};
use super::settings::{Settings, Uplink};
use super::socket_command::{SocketCommand, SocketEvent};
use crate::cx::Cx;
use crate::fault::{Plan, Progress};
use crate::tcp::{Connection, IcmpError, SynInfo, TxCaps, reset_for};
use crate::time::{Instant, earliest};
use crate::trace::{Direction, Event, FlowId, Leg, Outcome, State};
use crate::wire::{Flags, IcmpNote, IpMeta, Segment, Tuple};
use marks::Marks;

/// What a flow wants sent.
#[derive(Debug)]
pub enum Output {
    /// A segment.
    Segment {
        /// Its addresses.
        tuple: Tuple,
        /// The segment.
        segment: Segment,
    },
    /// An ICMP error to the client about its SYN.
    Icmp {
        /// The error.
        note: IcmpNote,
        /// The SYN that it quotes.
        quoted: Box<Segment>,
    },
    /// Work for the kernel socket of a leg.
    Socket {
        /// The leg.
        leg: Leg,
        /// The work.
        command: SocketCommand,
    },
}

/// What the caller can take, and how much memory there is.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Bounds of one segment.
    pub tx: TxCaps,
    /// Most bytes that each leg is offered; below [`crate::tcp::Config::buffer`] when memory is short.
    pub buffer: u32,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A SYN arrived, but the plan has swallowed or held it: nothing is dialled.
    Waiting,
    /// The server leg dials.
    Dialling,
    /// The dial ended in silence: the client's own timer decides.
    Silent,
    /// A fault has accepted the client already; the server leg dials, or will.
    Early,
    /// The server has answered; the client has its SYN-ACK and the server waits for its ACK.
    Accepting,
    /// Both handshakes are complete.
    Open,
    /// Both directions are finished and the outcome is told. What is left is TIME-WAIT, or a peer that has not heard.
    Ended,
}

/// One intercepted connection.
#[derive(Debug)]
pub struct Flow {
    pub(super) id: FlowId,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    /// The port that the server leg comes from, at the client's address.
    source_port: u16,
    pub(super) settings: Arc<Settings>,
    pub(super) syn: SynInfo,
    pub(super) phase: Phase,
    pub(super) marks: Marks,
    /// The leg whose peer must hear of a reset once it has what was sent before it.
    pub(super) reset_passes_to: Option<Leg>,
    pub(super) outcome: Option<Outcome>,
    pub(super) opened: Instant,
    /// When a peer was heard last; while the flow opens, when the client's last SYN came.
    pub(super) heard: Instant,
    /// Hundredths of a second between the last SYN and the one before; a duration would not fit.
    pub(super) syn_interval: u16,
    /// When a flow is given up whose client has stopped to send its SYN, or that only waits to answer with a RST.
    pub(super) expires: Instant,
    pub(super) established: Option<Instant>,
    pub(super) legs: Legs,
    pub(super) around: Option<Box<Around>>,
    pub(super) out: VecDeque<Output>,
}

/// The order in which legs are served.
pub(super) const BOTH: [Leg; 2] = [Leg::Client, Leg::Server];

impl Flow {
    /// A flow for a first SYN with `tuple`, whose server leg comes from `source_port`: the client's own one, unless the uplink
    /// is [`super::Uplink::OtherPort`]. The SYN itself must follow by [`Self::on_segment`].
    #[must_use]
    pub fn new(
        cx: &mut Cx<'_>,
        settings: &Arc<Settings>,
        id: FlowId,
        tuple: Tuple,
        source_port: u16,
        syn: &Segment,
        plan: Plan,
    ) -> Self {
        let Tuple { src: client, dst: server } = tuple;
        let cx = &mut cx.for_flow(id);
        cx.emit(Event::FlowOpened { client, server, rules: plan.rules() });
        if source_port != client.port() {
            cx.for_leg(Leg::Server).emit(Event::SourcePort { port: source_port });
        }
        Self {
            id,
            client,
            server,
            source_port,
            settings: Arc::clone(settings),
            syn: SynInfo::of(syn),
            phase: Phase::Waiting,
            marks: Marks::default()
                .with_kernel(Leg::Server, matches!(settings.uplink, Uplink::Socket | Uplink::HeldSyn))
                .with_kernel(Leg::Client, settings.uplink == Uplink::HeldSyn),
            reset_passes_to: None,
            outcome: None,
            opened: cx.now,
            heard: cx.now,
            syn_interval: 0,
            expires: cx.now + super::opening::PATIENCE,
            established: None,
            legs: Legs::default(),
            around: Around::new(plan, &settings.limits, syn.seq),
            out: VecDeque::new(),
        }
    }

    /// A segment from the peer of `leg`.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: Segment) {
        let cx = &mut cx.for_flow(self.id);
        let cx = &mut cx.for_leg(leg);
        if self.marks.swallows() {
            return self.swallow(cx, &segment);
        }
        self.hear(cx.now, leg, &segment);
        if leg == Leg::Client {
            self.tell_payload(cx, Direction::Upstream, &segment);
        }
        if self.around.is_none() {
            cx.segment_in(&segment);
            self.take_in(cx, leg, segment);
        } else {
            self.meet(cx, leg, segment);
        }
    }

    /// An ICMP error that quotes a segment which left by `leg`.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, leg: Leg, note: &IcmpNote) {
        let cx = &mut cx.for_flow(self.id);
        let error = IcmpError { kind: note.kind, code: note.code, mtu: note.mtu, seq: note.seq };
        if let Some(conn) = self.legs[leg].conn_mut() {
            conn.on_icmp(&mut cx.for_leg(leg), error);
        }
        if self.phase == Phase::Dialling {
            self.serve_events(cx, leg, note.from);
        }
        self.marks.unsettle();
    }

    /// Something happened to the kernel socket of `leg`.
    pub fn on_socket(&mut self, cx: &mut Cx<'_>, leg: Leg, event: SocketEvent) {
        let cx = &mut cx.for_flow(self.id);
        self.heard = cx.now;
        if let Some(around) = &mut self.around {
            around.hear(cx.now);
        }
        if let (Leg::Client, SocketEvent::Data { .. }) = (leg, &event) {
            // No segment tells it.
            self.tell_first_payload(cx, Direction::Upstream);
        }
        self.note_crossed(cx, leg, &event);
        if let Link::Socket(socket) = &mut self.legs[leg] {
            socket.on_event(&mut cx.for_leg(leg), event);
            self.relay_from(cx, leg);
        }
        self.marks.unsettle();
    }

    /// Runs what is due at `cx.now`.
    pub fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        let cx = &mut cx.for_flow(self.id);
        self.release_held(cx);
        for leg in BOTH {
            if let Some(conn) = self.legs[leg].conn_mut()
                && conn.poll_timeout().is_some_and(|at| at <= cx.now)
            {
                conn.on_timeout(&mut cx.for_leg(leg));
            }
        }
        if self.expires <= cx.now {
            self.expire(cx);
        }
        self.marks.unsettle();
    }

    /// When [`Self::on_timeout`] wants to be called. Ask after [`Self::poll_output`] has returned `None`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let legs = earliest(self.legs[Leg::Client].poll_timeout(), self.legs[Leg::Server].poll_timeout());
        let own = Some(self.expires).filter(|at| *at != Instant::FAR);
        let around = self.around.as_ref().and_then(|around| around.poll_timeout());
        earliest(earliest(legs, own), around)
    }

    /// The next thing to send. Call until `None` after inputs.
    pub fn poll_output(&mut self, cx: &mut Cx<'_>, caps: Caps) -> Option<Output> {
        let cx = &mut cx.for_flow(self.id);
        loop {
            if self.marks.take_unsettled() {
                self.settle(cx, caps.buffer);
            }
            if let Some(output) = self.out.pop_front() {
                return Some(output);
            }
            if let Some(output) = self.transmit(cx, caps.tx) {
                return Some(output);
            }
            if !self.marks.is_unsettled() {
                return None;
            }
        }
    }

    /// True when nothing is left; the flow can be dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Ended
            && self.expires == Instant::FAR
            && self.out.is_empty()
            && self.around.as_ref().is_none_or(|around| around.is_idle())
            && BOTH.iter().all(|leg| self.legs[*leg].is_gone())
    }

    /// True until both handshakes are complete.
    #[must_use]
    pub const fn is_half_open(&self) -> bool {
        use Phase::{Accepting, Dialling, Early, Silent, Waiting};
        matches!(self.phase, Waiting | Dialling | Silent | Early | Accepting)
    }

    /// True once [`Event::FlowClosed`] is told; what is left only answers late segments.
    #[must_use]
    pub fn is_lingering(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// How it ended, once it did.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.filter(|_| self.phase == Phase::Ended)
    }

    /// The number of this flow.
    #[must_use]
    pub const fn id(&self) -> FlowId {
        self.id
    }

    /// The addresses of segments that arrive on `leg`.
    #[must_use]
    pub const fn arriving(&self, leg: Leg) -> Tuple {
        match leg {
            Leg::Client => Tuple { src: self.client, dst: self.server },
            Leg::Server => Tuple { src: self.server, dst: at_port(self.client, self.source_port) },
        }
    }

    /// What is added to a received TTL when it is carried to the other leg.
    pub(super) fn hops_to_give_back(&self) -> u8 {
        self.settings.uplink.hops_to_give_back(self.client.ip(), self.server.ip())
    }

    /// Payload bytes that wait for a peer to acknowledge them.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.legs[Leg::Client].queued().saturating_add(self.legs[Leg::Server].queued())
    }

    /// Payload bytes held in all: queued, received out of order, or shaped between the legs.
    #[must_use]
    pub fn held(&self) -> u32 {
        let piped = self.around.as_ref().map_or(0, |around| around.piped());
        self.legs[Leg::Client].held().saturating_add(self.legs[Leg::Server].held()).saturating_add(piped)
    }

    /// True if what waits out of order on `leg` waits for this segment.
    #[must_use]
    pub fn fills_gap(&self, leg: Leg, segment: &Segment) -> bool {
        self.legs[leg].conn().is_some_and(|conn| conn.fills_gap(segment))
    }

    /// True while the kernel socket of this leg is open.
    pub(super) fn has_socket(&self, leg: Leg) -> bool {
        matches!(&self.legs[leg], Link::Socket(socket) if !socket.is_gone())
    }

    /// The legs whose packets arrive as such, if only the client's SYN.
    pub(super) fn packet_legs(&self) -> impl Iterator<Item = Leg> + use<> {
        let (marks, held) = (self.marks, self.settings.uplink == Uplink::HeldSyn);
        BOTH.into_iter().filter(move |leg| !marks.is_kernel(*leg) || held && *leg == Leg::Client)
    }

    /// Tells the end, once.
    pub(super) fn tell_closed(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        let cx = &mut cx.for_flow(self.id);
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            let outcome = *self.outcome.get_or_insert(outcome);
            let upstream_bytes = self.legs.delivered(Leg::Server);
            let downstream_bytes = self.legs.delivered(Leg::Client);
            cx.emit(Event::FlowClosed { outcome, upstream_bytes, downstream_bytes });
            self.end_strays();
        }
    }

    /// A segment that the plan lets through.
    pub(super) fn take_in(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: Segment) {
        self.marks.unsettle();
        if leg == Leg::Client && self.is_unanswered() {
            return self.on_opening_segment(cx, &segment);
        }
        if leg == Leg::Client && self.has_socket(leg) {
            return self.on_held_syn(cx);
        }
        let hops = self.hops_to_give_back();
        let (link, other) = self.legs.pair(leg);
        match link {
            Link::Tcp(tcp) if !tcp.closed => {
                other.set_ip(carried(segment.ip, hops));
                tcp.conn.on_segment(cx, segment);
                if matches!(self.phase, Phase::Accepting | Phase::Early) {
                    // What completes the handshake may carry data.
                    self.serve_events(cx, leg, self.server.ip());
                }
                self.relay_from(cx, leg);
            }
            Link::Tcp(_) | Link::Gone => self.answer_for_nobody(cx, leg, &segment),
            Link::Socket(_) => {}
        }
    }

    /// Gives back the memory of empty queues: there may be very many idle flows.
    pub fn relax(&mut self) {
        self.out.shrink_to_fit();
        for leg in BOTH {
            if let Some(conn) = self.legs[leg].conn_mut() {
                conn.relax();
            }
        }
    }

    /// What a host answers that has no such connection (RFC 9293 §3.10.7.1).
    fn answer_for_nobody(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: &Segment) {
        if segment.has(Flags::RST) {
            return;
        }
        self.send_out(cx, leg, reset_for(segment));
    }

    pub(super) fn push_segment(&mut self, cx: &mut Cx<'_>, leg: Leg, mut segment: Segment) {
        self.pass_outermost(cx, leg, &mut segment);
        self.note_offer(leg, &segment);
        self.tell_leaving(cx, leg, &segment);
        self.out.push_back(Output::Segment { tuple: self.arriving(leg).reverse(), segment });
    }

    /// The next thing that a leg wants to send.
    fn transmit(&mut self, cx: &mut Cx<'_>, caps: TxCaps) -> Option<Output> {
        for leg in BOTH {
            match &mut self.legs[leg] {
                Link::Gone => {}
                Link::Socket(socket) => {
                    if let Some(command) = socket.poll_command() {
                        return Some(Output::Socket { leg, command });
                    }
                }
                Link::Tcp(_) => {
                    if let Some(output) = self.transmit_tcp(cx, leg, caps) {
                        return Some(output);
                    }
                }
            }
        }
        self.after_transmit(cx);
        None
    }

    fn transmit_tcp(&mut self, cx: &mut Cx<'_>, leg: Leg, caps: TxCaps) -> Option<Output> {
        loop {
            let segment = self.legs[leg].conn_mut()?.poll_transmit(&mut cx.for_leg(leg), caps)?;
            let segment = if self.around.is_none() {
                self.tell_leaving(&mut cx.for_leg(leg), leg, &segment);
                Some(segment)
            } else {
                self.send_next(cx, leg, segment)
            };
            if let Some(segment) = segment {
                return Some(Output::Segment { tuple: self.arriving(leg).reverse(), segment });
            }
            if let Some(output) = self.out.pop_front() {
                return Some(output);
            }
        }
    }

    pub(super) fn tell_leaving(&mut self, cx: &mut Cx<'_>, leg: Leg, segment: &Segment) {
        cx.segment_out(segment);
        if leg == Leg::Client {
            self.tell_payload(cx, Direction::Downstream, segment);
        }
    }

    /// Tells of the first payload of a direction. What a SYN carries may never be accepted, and counts as nothing.
    fn tell_payload(&mut self, cx: &mut Cx<'_>, direction: Direction, segment: &Segment) {
        if !segment.payload.is_empty() && !segment.has(Flags::SYN) {
            self.tell_first_payload(cx, direction);
        }
    }

    pub(super) fn tell_first_payload(&mut self, cx: &mut Cx<'_>, direction: Direction) {
        if self.marks.tell(direction) {
            cx.emit(Event::FirstPayload { direction });
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            opened: self.opened,
            established: self.established,
            upstream_bytes: self.legs[Leg::Client].byte_counts().0,
            downstream_bytes: self.legs[Leg::Server].byte_counts().0,
            server_is_socket: self.marks.is_kernel(Leg::Server),
            client_is_socket: self.marks.is_kernel(Leg::Client),
            ipv6: self.server.is_ipv6(),
            is_private: is_private(self.client.ip()) && is_private(self.server.ip()),
            client: self.legs[Leg::Client].conn().and_then(Connection::numbers),
            server: self.legs[Leg::Server].conn().and_then(Connection::numbers),
            client_state: self.legs[Leg::Client].conn().map_or(State::Closed, Connection::state),
            server_state: self.legs[Leg::Server].conn().map_or(State::Closed, Connection::state),
        }
    }
}

/// What of a received IP header is sent on by the other leg: the ECN bits belong to each leg alone.
pub(super) const fn carried(ip: IpMeta, hops: u8) -> IpMeta {
    IpMeta { ttl: ip.ttl.saturating_add(hops), tos: ip.tos & !3 }
}

/// The same address with another port.
const fn at_port(mut at: SocketAddr, port: u16) -> SocketAddr {
    at.set_port(port);
    at
}

/// True for an address that is not routed on the internet.
const fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
