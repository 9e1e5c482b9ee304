//! An honest TCP (RFC 9293) without I/O: one [`Connection`] per leg, time as an argument.

pub mod assembler;
pub mod congestion;
pub mod knobs;
pub mod rtt;

use std::sync::Arc;

use bytes::Bytes;

use crate::cx::Cx;
use crate::time::{Duration, Instant};
use crate::trace::State;
use crate::wire::{IpMeta, RawWindow, Segment, SeqNum, Tuple, WindowScale};
pub use knobs::Knobs;

/// The numbers of a host. The default is Linux 6.x.
#[derive(Clone, Debug)]
pub struct Config {
    /// Lower bound of the retransmission timeout. Linux `TCP_RTO_MIN`: 200 ms.
    pub rto_min: Duration,
    /// Upper bound of the retransmission timeout. Linux `TCP_RTO_MAX`: 120 s.
    pub rto_max: Duration,
    /// Retransmissions of data before the connection is given up. Linux `tcp_retries2`: 15.
    pub retries: u32,
    /// Retransmissions of a SYN-ACK. Linux `tcp_synack_retries`: 5.
    pub syn_ack_retries: u32,
    /// How long TIME-WAIT lasts. Linux `TCP_TIMEWAIT_LEN`: 60 s.
    pub time_wait: Duration,
    /// Most bytes that a leg may be offered in advance (receive window), and so the size of the queue of the other leg.
    pub buffer: u32,
    /// Most out-of-order ranges kept per connection.
    pub out_of_order_ranges: usize,
    /// Congestion control.
    pub congestion: Congestion,
    /// Key of the initial sequence numbers and timestamp offsets (RFC 6528).
    pub secret: [u64; 2],
}

/// Congestion control algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681 and RFC 6582.
    NewReno,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            retries: 15,
            syn_ack_retries: 5,
            time_wait: Duration::from_secs(60),
            buffer: 1 << 20,
            out_of_order_ranges: 256,
            congestion: Congestion::Cubic,
            secret: [0, 0],
        }
    }
}

/// What a SYN or SYN-ACK offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size in bytes.
    pub mss: Option<u16>,
    /// Window scale.
    pub window_scale: Option<WindowScale>,
    /// SACK permitted.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// ECN (ECE and CWR in a SYN, ECE in a SYN-ACK).
    pub ecn: bool,
}

/// What is kept of a client's SYN until the server has answered; small, because SYNs can be a flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynInfo {
    /// SEG.SEQ of the SYN.
    pub seq: SeqNum,
    /// Its window, never scaled.
    pub window: RawWindow,
    /// Its options.
    pub options: SynOptions,
    /// Its TSval.
    pub ts_val: u32,
    /// Its TTL and traffic class.
    pub ip: IpMeta,
}

impl SynInfo {
    /// Reads a SYN or SYN-ACK.
    #[must_use]
    pub fn of(_seg: &Segment) -> Self {
        todo!()
    }
}

/// Why a connection ended other than by FINs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete.
    Established,
    /// The peer's FIN arrived in order, after all its data.
    FinReceived,
    /// Our FIN is acknowledged.
    FinAcked,
    /// The peer reset the connection (in SYN-SENT: refused it).
    Reset,
    /// An ICMP error ended the handshake (SYN-SENT only).
    Unreachable {
        /// ICMP type, IPv4 or IPv6 by the connection's family.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Retransmissions ran out.
    TimedOut,
    /// The peer asks whether the far end still lives; answer with [`Connection::answer_probe`].
    KeepaliveProbe,
    /// The peer answered our [`Connection::probe`].
    ProbeAnswered,
    /// The connection is gone and can be freed.
    Closed,
}

/// An ICMP error about a segment that we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Next-hop MTU for "fragmentation needed" and "packet too big", else 0.
    pub mtu: u32,
    /// Sequence number of the segment that the error quotes.
    pub seq: SeqNum,
}

/// How large a transmission may be.
#[derive(Clone, Copy, Debug)]
pub struct TxCaps {
    /// Most payload bytes of one super-segment.
    pub max_payload: u32,
}

/// One TCP connection: one leg of a flow.
#[derive(Debug)]
pub struct Connection {}

#[allow(unused_variables, missing_docs, clippy::needless_pass_by_value)]
impl Connection {
    /// Active open: SYN-SENT. The SYN leaves with the next [`Self::poll_transmit`]. The SYN is retransmitted only by
    /// [`Self::resend_syn`], in step with the client's own SYNs.
    pub fn connect(cx: &mut Cx<'_>, config: &Arc<Config>, tuple: Tuple, syn: SynOptions, ip: IpMeta) -> Self {
        todo!()
    }
    /// Passive open: SYN-RECEIVED. The SYN-ACK with `reply` leaves with the next [`Self::poll_transmit`].
    pub fn accept(
        cx: &mut Cx<'_>,
        config: &Arc<Config>,
        tuple: Tuple,
        syn: &SynInfo,
        reply: SynOptions,
        ip: IpMeta,
    ) -> Self {
        todo!()
    }
    /// A segment from the peer.
    pub fn on_segment(&mut self, cx: &mut Cx<'_>, seg: Segment) {
        todo!()
    }
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, err: IcmpError) {
        todo!()
    }
    /// Runs what is due at `cx.now`.
    pub fn on_timeout(&mut self, cx: &mut Cx<'_>) {
        todo!()
    }
    /// The next segment to send, if any. Call until `None` after each input.
    pub fn poll_transmit(&mut self, cx: &mut Cx<'_>, caps: TxCaps) -> Option<Segment> {
        todo!()
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    /// When [`Self::on_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Queues bytes for the peer.
    pub fn send(&mut self, data: Bytes) {
        todo!()
    }
    /// Bytes queued and not yet acknowledged by the peer (sent or not).
    pub fn queued(&self) -> u32 {
        todo!()
    }
    /// Next received bytes in order.
    pub fn recv(&mut self) -> Option<Bytes> {
        todo!()
    }
    /// How many bytes beyond those already received by [`Self::recv`] the relay can take. This is the window, before SWS
    /// avoidance; the right edge never moves left.
    pub fn set_receive_space(&mut self, bytes: u32) {
        todo!()
    }
    /// CLOSE: a FIN follows the queued data.
    pub fn shutdown(&mut self) {
        todo!()
    }
    /// ABORT: a RST leaves with the next `poll_transmit`; the rest is forgotten.
    pub fn abort(&mut self, cx: &mut Cx<'_>) {
        todo!()
    }
    /// Disappears without a word.
    pub fn vanish(&mut self, cx: &mut Cx<'_>) {
        todo!()
    }
    /// Holds back everything but RST (a server leg waits with its handshake ACK until the client's has come).
    pub fn cork(&mut self) {
        todo!()
    }
    /// Ends [`Self::cork`].
    pub fn uncork(&mut self) {
        todo!()
    }
    pub fn resend_syn(&mut self) {
        todo!()
    }
    /// Sends a keepalive probe; [`Event::ProbeAnswered`] tells that the peer lives.
    pub fn probe(&mut self) {
        todo!()
    }
    /// Answers [`Event::KeepaliveProbe`].
    pub fn answer_probe(&mut self) {
        todo!()
    }
    /// Stream offset (bytes from the start) just after the last urgent byte that the peer announced, if any.
    pub fn urgent_received(&self) -> Option<u64> {
        todo!()
    }
    /// Marks the byte before stream offset `offset` of the outgoing stream as urgent.
    pub fn set_urgent(&mut self, offset: u64) {
        todo!()
    }
    /// TTL and DSCP of the peer's latest segment.
    pub fn ip_received(&self) -> IpMeta {
        todo!()
    }
    /// TTL and DSCP to send with.
    pub fn set_ip(&mut self, ip: IpMeta) {
        todo!()
    }
    pub fn set_knobs(&mut self, knobs: Knobs) {
        todo!()
    }
    pub fn state(&self) -> State {
        todo!()
    }
    /// The options of the peer's SYN or SYN-ACK (known from SYN-RECEIVED or ESTABLISHED on).
    pub fn peer_syn(&self) -> SynOptions {
        todo!()
    }
    pub fn tuple(&self) -> Tuple {
        todo!()
    }
    /// Payload bytes received in order so far, and acknowledged by the peer so far.
    pub fn byte_counts(&self) -> (u64, u64) {
        todo!()
    }
    /// (SND.NXT, RCV.NXT): the exact numbers of an injected segment.
    pub fn numbers(&self) -> (SeqNum, SeqNum) {
        todo!()
    }
}
