//! From the first SYN to the client's SYN-ACK. The client must see exactly what it would see without us: the SYN-ACK comes
//! only after the server's, a refusal keeps its kind, and silence stays silence.
//!
//! Nothing here has a retransmission timer. Each SYN of the client sends the server's SYN again, so that the server
//! sees the client's own schedule, which differs from one operating system to the next. When the client stops, so
//! does the dial.

use std::net::IpAddr;

use super::flow::{Flow, Output, Phase, carried};
use super::leg::Link;
use super::settings::Uplink;
use super::socket_command::SocketOffer;
use super::socket_leg::SocketLeg;
use crate::cx::Cx;
use crate::fault::{Point, Way};
use crate::tcp::{Connection, SynInfo, SynOptions, reset_for};
use crate::time::{Duration, Instant};
use crate::trace::{Event, Leg, Outcome, State};
use crate::wire::{Flags, IcmpNote, IpMeta, Options, RawWindow, Segment, Timestamps, Tuple, WindowScale};

/// A client that has not sent its SYN again for this long, or for three times its last interval, has given up. Longer than
/// the first interval of any known host (3 s in RFC 1122 times). A server that answers later still meets the truth: the
/// client's host, which knows nothing of the connection any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(7);
/// The longest first interval between two SYNs of known hosts (RFC 1122 times).
const FIRST_INTERVAL: Duration = Duration::from_secs(3);
/// How long a kernel waits for the client's ACK: `tcp_synack_retries` = 5 SYN-ACKs more, in 63 s.
const HANDSHAKE: Duration = Duration::from_secs(64);
/// The window scale towards a client whose server is behind a kernel socket; Linux's for a buffer of some MiB.
const SCALE: WindowScale = WindowScale::new(7);

impl Flow {
    /// A segment of the client while there is no client leg yet.
    pub(super) fn on_opening_segment(&mut self, cx: &mut Cx<'_>, segment: &Segment) {
        if segment.has(Flags::RST) {
            // Only the exact number counts, as in SYN-RECEIVED (RFC 5961 §3).
            if segment.seq == self.syn.seq + 1 {
                self.cancel(cx);
            }
        } else if segment.has(Flags::SYN)
            && !segment.has(Flags::ACK)
            // The first one that the plan lets through has the number that the plan has given it.
            && (segment.seq == self.syn.seq || self.phase == Phase::Waiting)
        {
            self.on_syn(cx, segment);
        } else {
            cx.emit(Event::Discarded { reason: "not a SYN, before the handshake" });
        }
    }

    /// The first SYN, or the same again.
    fn on_syn(&mut self, cx: &mut Cx<'_>, segment: &Segment) {
        self.syn = SynInfo::of(segment);
        match self.phase {
            Phase::Waiting => match self.accepts_first(cx) {
                Some(how) => self.accept_early(cx, how),
                None => {
                    self.phase = Phase::Dialling;
                    self.expires = cx.now + self.patience();
                    self.dial(cx);
                }
            },
            Phase::Dialling => {
                if let Some(conn) = self.legs[Leg::Server].conn_mut() {
                    conn.resend_syn();
                }
            }
            _ => {}
        }
    }

    /// True while the client has no answer to its SYN.
    pub(super) const fn is_unanswered(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Dialling | Phase::Silent)
    }

    /// A client that still sends SYNs has not given up, also where a fault loses them: all of them are one connect.
    pub(super) fn hear(&mut self, now: Instant, leg: Leg, segment: &Segment) {
        if !self.is_unanswered() {
            self.heard = now;
        } else if leg == Leg::Client
            && segment.has(Flags::SYN)
            && !segment.has(Flags::ACK)
            && segment.seq == self.isn()
        {
            let interval = now.since(self.heard).as_millis().div_ceil(10);
            self.syn_interval = u16::try_from(interval).unwrap_or(u16::MAX);
            self.heard = now;
            self.expires = now + self.patience();
        }
    }

    /// How long after a SYN the client counts as gone.
    fn patience(&self) -> Duration {
        let interval = Duration::from_millis(10 * u64::from(self.syn_interval));
        match self.settings.uplink {
            Uplink::Transparent | Uplink::OtherPort(_) | Uplink::SamePort => PATIENCE.max(interval * 3),
            // Nothing is dialled, because a fault loses the SYNs.
            Uplink::Socket | Uplink::HeldSyn if self.phase == Phase::Waiting => PATIENCE.max(interval * 3),
            // The kernel repeats the SYNs of a socket by itself, on the schedule of this machine, which is the client's
            // too: intervals of a second at least, and none longer than twice the last one.
            // It may be another host's, whose first interval is longer.
            Uplink::HeldSyn if self.syn_interval == 0 => FIRST_INTERVAL + Duration::from_millis(500),
            Uplink::Socket | Uplink::HeldSyn => {
                Duration::from_secs(1).max(interval * 2) + Duration::from_millis(500)
            }
        }
    }

    /// Makes the server leg.
    pub(super) fn dial(&mut self, cx: &mut Cx<'_>) {
        self.legs[Leg::Server] = match self.marks.is_kernel(Leg::Server) {
            true => {
                let offer = self.offer_to_server(cx);
                let cx = &mut cx.for_leg(Leg::Server);
                Link::Socket(Box::new(SocketLeg::dial(cx, self.client, self.server, offer)))
            }
            false => {
                let tuple = self.arriving(Leg::Server).reverse();
                let ip = carried(self.syn.ip, self.hops_to_give_back());
                let cx = &mut cx.for_leg(Leg::Server);
                let offer = self.to_scale(Leg::Server, self.syn.options);
                Link::tcp(Connection::connect(cx, &self.settings.tcp, tuple, offer, ip))
            }
        };
    }

    /// What the kernel's SYN to the server offers: no larger segments than the client's.
    fn offer_to_server(&mut self, cx: &mut Cx<'_>) -> SocketOffer {
        if self.settings.uplink != Uplink::HeldSyn {
            return SocketOffer::default();
        }
        let mss = self.syn.options.mss;
        let mut syn = of_the_kernel(Segment { flags: Flags::SYN, ..Segment::default() });
        syn.options.mss = mss;
        // It stands for the kernel's; no fault of kernel sockets loses it.
        self.judge(&mut cx.for_leg(Leg::Server), Point { leg: Leg::Server, way: Way::Out }, &mut syn);
        SocketOffer::of(&syn)
    }

    /// The server has answered: now the client gets its SYN-ACK, with what the server offered. The server waits for its
    /// ACK until the client's has come; so a client that is gone by now is seen by the server as it would be without us.
    pub(super) fn accept(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Accepting;
        if self.marks.is_kernel(Leg::Client) {
            return self.answer_held_syn(cx);
        }
        self.expires = Instant::FAR;
        let hops = self.hops_to_give_back();
        let (reply, ip) = match self.legs[Leg::Server].conn_mut() {
            Some(conn) => {
                conn.cork();
                (conn.peer_syn(), carried(conn.ip_received(), hops))
            }
            None => (self.own_offer(), IpMeta::default()),
        };
        self.accept_client(cx, reply, ip);
    }

    /// Makes the client leg: its SYN-ACK offers `reply`.
    pub(super) fn accept_client(&mut self, cx: &mut Cx<'_>, reply: SynOptions, ip: IpMeta) {
        if self.marks.is_kernel(Leg::Client) {
            return self.answer_held_syn(cx);
        }
        let tuple = Tuple { src: self.server, dst: self.client };
        let reply = self.to_scale(Leg::Client, reply);
        let cx = &mut cx.for_leg(Leg::Client);
        let conn = Connection::accept(cx, &self.settings.tcp, tuple, &self.syn, reply, ip);
        self.legs[Leg::Client] = Link::tcp(conn);
    }

    /// Has the kernel answer the SYN that it holds: this SYN-ACK stands for its own, of which the number and the options are not
    /// known.
    pub(super) fn answer_held_syn(&mut self, cx: &mut Cx<'_>) {
        if self.legs[Leg::Client].is_gone() {
            let leg = SocketLeg::awaited(&mut cx.for_leg(Leg::Client));
            self.legs[Leg::Client] = Link::Socket(Box::new(leg));
        }
        self.send_out(cx, Leg::Client, self.kernels_answer());
        self.await_client(cx.now);
    }

    /// A SYN-ACK of the kernel may have left: from here on the client has its time.
    pub(super) fn await_client(&mut self, now: Instant) {
        if !self.still_dials() && self.awaits_client() {
            self.expires = now + HANDSHAKE;
        }
    }

    fn kernels_answer(&self) -> Segment {
        let flags = Flags::SYN | Flags::ACK;
        of_the_kernel(Segment { ack: self.syn.seq + 1, flags, ..Segment::default() })
    }

    /// A segment leaves, which may be the kernel's answer to the client.
    pub(super) fn note_offer(&mut self, leg: Leg, segment: &Segment) {
        if let Link::Socket(socket) = &mut self.legs[leg]
            && segment.has(Flags::SYN)
        {
            socket.offer(SocketOffer::of(segment));
        }
    }

    /// A SYN of a client that the kernel has answered, or is to answer.
    pub(super) fn on_held_syn(&mut self, cx: &mut Cx<'_>) {
        if self.awaits_client() {
            return self.answer_held_syn(cx);
        }
        // It knows what to say to a SYN on a connection that is there (RFC 5961 §4).
        let segment = self.kernels_answer();
        self.out.push_back(Output::Segment { tuple: self.arriving(Leg::Client).reverse(), segment });
    }

    /// True from the kernel's SYN-ACK until the client has answered it.
    #[must_use]
    pub fn awaits_client(&self) -> bool {
        self.has_socket(Leg::Client) && self.legs[Leg::Client].state() == State::SynReceived
    }

    /// The kernel has the client's connection now.
    pub fn on_accepted(&mut self, cx: &mut Cx<'_>) {
        let cx = &mut cx.for_flow(self.id);
        self.heard = cx.now;
        // One that was killed without a word in the meantime is still to be forgotten in time.
        if !self.still_dials() && self.phase != Phase::Ended {
            self.expires = Instant::FAR;
        }
        if let Link::Socket(socket) = &mut self.legs[Leg::Client] {
            socket.accept(&mut cx.for_leg(Leg::Client));
        }
        self.marks.unsettle();
    }

    /// The offer on this leg, with the scale factor that its faults need.
    fn to_scale(&self, leg: Leg, offer: SynOptions) -> SynOptions {
        let unscaled = self.around.as_ref().is_some_and(|around| around.is_unscaled(leg));
        let window_scale = match unscaled {
            true => offer.window_scale.map(|_| WindowScale::NONE),
            false => offer.window_scale,
        };
        SynOptions { window_scale, ..offer }
    }

    /// What Linux would offer: everything that the client did. The link is as wide as the client says.
    pub(super) fn own_offer(&self) -> SynOptions {
        let syn = self.syn.options;
        SynOptions { window_scale: syn.window_scale.map(|_| SCALE), ecn: false, ..syn }
    }

    /// A fault refuses the client, by ICMP or by RST. Too late once it has its SYN-ACK.
    pub(super) fn refuse(&mut self, cx: &mut Cx<'_>, icmp: Option<(u8, u8)>) {
        if !self.is_unanswered() {
            return;
        }
        self.hang_up(cx);
        match icmp {
            Some((kind, code)) => self.refuse_by_icmp(cx, kind, code, self.server.ip()),
            None => self.refuse_by_rst(cx),
        }
        self.marks.unsettle();
    }

    /// The server refused with a RST.
    pub(super) fn refuse_by_rst(&mut self, cx: &mut Cx<'_>) {
        let hops = self.hops_to_give_back();
        let ip = self.legs[Leg::Server].conn().map(|conn| carried(conn.ip_received(), hops));
        let mut refusal = reset_for(&as_segment(&self.syn));
        refusal.ip = ip.unwrap_or_default();
        self.send_out(cx, Leg::Client, refusal);
        self.refused(cx, Outcome::RefusedRst);
    }

    /// The network refused with an ICMP error, which `from` reported. It must quote the client's own SYN to be believed.
    pub(super) fn refuse_by_icmp(&mut self, cx: &mut Cx<'_>, kind: u8, code: u8, from: IpAddr) {
        cx.for_leg(Leg::Client).emit(Event::Icmp { kind, code, sent: true });
        let note = IcmpNote { from, quoted: self.arriving(Leg::Client), seq: self.isn(), kind, code, mtu: 0 };
        let quoted = Box::new(Segment { seq: self.isn(), ..as_segment(&self.syn) });
        self.out.push_back(Output::Icmp { note, quoted });
        self.refused(cx, Outcome::RefusedIcmp);
    }

    fn refused(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        self.free_dial();
        self.expires = Instant::FAR;
        self.tell_closed(cx, outcome);
    }

    /// Frees the server leg, but for a socket whose last command is still to be fetched.
    fn free_dial(&mut self) {
        if !self.has_socket(Leg::Server) {
            self.legs.free(Leg::Server);
        }
    }

    /// The kernel gave up without an answer. The client's own timer decides; its SYNs do not start a second dial.
    pub(super) fn fall_silent(&mut self) {
        self.legs.free(Leg::Server);
        self.phase = Phase::Silent;
    }

    /// The client reset its own attempt: the server hears of it, with the number that it would have been.
    fn cancel(&mut self, cx: &mut Cx<'_>) {
        self.hang_up(cx);
        self.give_up(cx, Outcome::Aborted);
    }

    /// Gives up the dial. A server that was asked hears of it, with the number that it would have been.
    pub(super) fn hang_up(&mut self, cx: &mut Cx<'_>) {
        if let Some(numbers) = self.legs[Leg::Server].conn().and_then(Connection::numbers) {
            let rst = Segment { seq: numbers.snd_nxt, flags: Flags::RST, ..Segment::default() };
            self.send_out(cx, Leg::Server, rst);
        }
        self.let_go_of(Leg::Server);
    }

    /// A leg is wanted no more. A socket has still to hear of it.
    fn let_go_of(&mut self, leg: Leg) {
        match &mut self.legs[leg] {
            Link::Socket(socket) => socket.abort(),
            _ => self.legs.free(leg),
        }
    }

    /// The client has stopped sending SYNs, or it is late enough to forget a flow that only waited to answer with a RST, or for
    /// a peer that does not finish.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        if self.still_dials() {
            return self.dial_on(cx);
        }
        if self.awaits_client() && self.around.as_ref().is_some_and(|around| !around.is_idle()) {
            // The SYN-ACK has not left yet.
            return self.await_client(cx.now);
        }
        self.give_up(cx, Outcome::Timeout);
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        self.expires = Instant::FAR;
        self.tell_closed(cx, outcome);
        self.let_go_of(Leg::Server);
        self.let_go_of(Leg::Client);
    }

    /// True if `segment`, a SYN of the client, starts a new connection in place of this one: the client's port is used again.
    #[must_use]
    pub fn is_superseded_by(&self, segment: &Segment) -> bool {
        if !segment.has(Flags::SYN) || segment.flags.any(Flags::ACK | Flags::RST) {
            return false;
        }
        match self.phase {
            Phase::Waiting | Phase::Dialling | Phase::Silent => segment.seq != self.isn(),
            Phase::Accepting => false,
            // A late copy of this connection's own SYN opens nothing.
            Phase::Early | Phase::Open | Phase::Ended if segment.seq == self.isn() => false,
            Phase::Early | Phase::Open | Phase::Ended => match &self.legs[Leg::Client] {
                Link::Gone => true,
                Link::Tcp(tcp) => {
                    let seq = segment.seq + (self.syn.seq - self.isn().0).0;
                    tcp.closed || tcp.conn.may_reopen(&Segment { seq, ..segment.clone() })
                }
                // A connection that was forgotten without a word is in nobody's way.
                Link::Socket(_) => self.marks.swallows(),
            },
        }
    }
}

/// A segment that stands for the kernel's own, whose options are its own choice.
fn of_the_kernel(segment: Segment) -> Segment {
    Segment { window: RawWindow(u16::MAX), ..segment }
}

/// The SYN as it was, as far as it was kept.
fn as_segment(syn: &SynInfo) -> Segment {
    let options = Options {
        mss: syn.options.mss,
        window_scale: syn.options.window_scale,
        sack_permitted: syn.options.sack,
        timestamps: syn.options.timestamps.then_some(Timestamps { val: syn.ts_val, ecr: 0 }),
        ..Options::default()
    };
    let ecn = if syn.options.ecn { Flags::ECE | Flags::CWR } else { Flags::default() };
    Segment {
        seq: syn.seq,
        flags: Flags::SYN | ecn,
        window: syn.window,
        options,
        ip: syn.ip,
        ..Segment::default()
    }
}
