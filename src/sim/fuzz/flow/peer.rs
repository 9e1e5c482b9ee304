//! A peer of the flow that is a host with a TCP of its own, more or less honest.

use bytes::Bytes;

use crate::sim::watch::Watch;
use crate::time::Instant;
use crate::trace::Leg;
use crate::wire::{
    Flags, Options, Payload, RawWindow, SackBlock, Segment, SeqNum, Timestamps, Tuple, WindowScale,
};

/// One end of the flow.
#[derive(Debug)]
pub(super) struct Peer {
    leg: Leg,
    options: Options,
    /// SEG.SEQ of its SYN.
    pub(super) iss: SeqNum,
    /// What it sends next.
    pub(super) next: SeqNum,
    /// SEG.SEQ of the SYN that came.
    flow_iss: Option<SeqNum>,
    /// After the last byte that came.
    pub(super) heard: SeqNum,
    /// The last acknowledgement that came.
    pub(super) acked: Option<SeqNum>,
    ts_recent: u32,
    pub(super) last: Segment,
    pub(super) watch: Watch,
    /// No fault changes bytes.
    intact: bool,
}

impl Peer {
    pub(super) fn new(leg: Leg, options: Options, iss: SeqNum, intact: bool) -> Self {
        Self {
            leg,
            options,
            iss,
            next: iss,
            flow_iss: None,
            heard: SeqNum(0),
            acked: None,
            ts_recent: 0,
            last: Segment::default(),
            watch: Watch::default(),
            intact,
        }
    }

    /// What an honest host would send now: its SYN, and after that what it is asked for.
    pub(super) fn honest(&self, now: Instant, flags: Flags, len: u32, window: u16) -> Segment {
        let ack = if self.flow_iss.is_some() { Flags::ACK } else { Flags::default() };
        let timestamps =
            self.options.timestamps.map(|_| Timestamps { val: now.as_millis() as u32, ecr: self.ts_recent });
        let common =
            Segment { seq: self.next, ack: self.heard, window: RawWindow(window), ..Segment::default() };
        if self.next == self.iss {
            return Segment {
                flags: Flags::SYN | ack,
                options: Options { timestamps, ..self.options.clone() },
                ..common
            };
        }
        let options = Options { timestamps, ..Options::default() };
        Segment { flags: flags | ack, options, payload: self.stream(self.next, len), ..common }
    }

    /// Bends an honest segment: other bits, numbers that are off, another window, blocks that may be nonsense. A SYN of
    /// a peer whose SYN is not acknowledged keeps its number, so that its stream starts where the pattern does.
    pub(super) fn bend(&self, segment: &mut Segment, [op, flags, seq, ack, extra]: [u8; 5]) {
        let off = |by: u8| (i32::from(by as i8) << (u32::from(op >> 3 & 3) * 8)) as u32;
        segment.flags = Flags(u16::from(flags));
        segment.ack += off(ack);
        if segment.has(Flags::SYN) {
            let timestamps = segment.options.timestamps;
            segment.options = Options { timestamps, ..self.options.clone() };
        }
        segment.seq = match segment.has(Flags::SYN) && self.acked.is_none() {
            true => self.iss,
            false => segment.seq + off(seq),
        };
        if !segment.payload.is_empty() {
            let first = segment.seq + u32::from(segment.has(Flags::SYN));
            segment.payload = self.stream(first, segment.payload.len());
        }
        match extra & 7 {
            // The options of a SYN are the peer's promise for the whole connection.
            _ if segment.has(Flags::SYN) => {}
            1 => segment.options.timestamps = None,
            2 => segment.options.timestamps = Some(Timestamps { val: off(extra), ecr: off(ack) }),
            3 => segment
                .options
                .sack
                .push(SackBlock { left: segment.ack + off(extra), right: segment.ack + off(seq) }),
            5 => segment.urgent = u16::from(extra) << 3,
            6 => segment.ip.tos = extra,
            _ => {}
        }
    }

    /// Notes what the flow sent, and checks its data against the stream of the other peer.
    pub(super) fn hear(&mut self, segment: &Segment) {
        if segment.has(Flags::RST) {
            return;
        }
        if segment.has(Flags::SYN) {
            self.flow_iss.get_or_insert(segment.seq);
            self.heard = segment.end();
        }
        if segment.has(Flags::ACK) {
            self.acked = Some(segment.ack);
        }
        self.ts_recent = segment.options.timestamps.map_or(self.ts_recent, |times| times.val);
        if segment.end().after(self.heard) {
            self.heard = segment.end();
        }
        let Some(iss) = self.flow_iss else { return };
        let first = segment.seq - (iss + 1).0;
        for (n, byte) in (0..).zip(segment.payload.to_vec()) {
            let right = byte == pattern(self.leg.other(), (first + n).0);
            assert!(right || !self.intact, "byte {n} of {segment:?}");
        }
    }

    /// The bytes of its stream from `seq` on: each depends on its place only.
    fn stream(&self, seq: SeqNum, len: u32) -> Payload {
        let first = seq - (self.iss + 1).0;
        Bytes::from_iter((0..len).map(|n| pattern(self.leg, (first + n).0))).into()
    }
}

/// The byte at a place of the stream that the peer of `leg` sends.
pub(super) fn pattern(leg: Leg, at: u32) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 24) as u8 ^ leg as u8
}

/// The options of a SYN, one by one from the bits of a byte. Over IPv6 always with an MSS, as [`Watch`] takes the default
/// to be that of IPv4.
pub(super) fn offer(bits: u8, tuple: Tuple) -> Options {
    let has = |bit: u8| bits & bit != 0;
    Options {
        mss: (has(1) || tuple.is_ipv6()).then_some(if has(2) { 1460 } else { 100 }),
        window_scale: has(4).then_some(WindowScale::new(bits >> 4)),
        sack_permitted: has(8),
        timestamps: has(16).then_some(Timestamps::default()),
        ..Options::default()
    }
}
