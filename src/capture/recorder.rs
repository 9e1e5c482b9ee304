//! From events to packets. A segment that came in is told before what faults do to it, one that goes out after; so packets
//! wait for a few events before they are written, and comments for their packets.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::comment::said;
use super::pcapng::{self, Packet};
use crate::time::Instant;
use crate::trace::{Did, Event, FlowId, Leg, Record, SegmentNote};
use crate::wire::{ChecksumMode, Flags, Payload, Segment, Tuple};

/// Packets that wait for comments: those of as many threads as there may be.
const WINDOW: usize = 64;
/// Flows whose addresses are known; beyond it the oldest is forgotten, with what still comes of it.
const FLOWS: usize = 1 << 16;
/// Comments of one flow that wait for their segment.
const COMMENTS: usize = 64;
/// Stands for payload that was not kept.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// A capture of both legs.
#[derive(Debug)]
pub struct Capture {
    /// Nanoseconds since 1970 at the start of the run.
    epoch: u64,
    snaplen: u32,
    flows: BTreeMap<FlowId, Addresses>,
    named: HashSet<IpAddr>,
    waiting: VecDeque<Waiting>,
    written: [u64; 2],
    out: Vec<u8>,
}

#[derive(Debug)]
struct Addresses {
    client: SocketAddr,
    /// Where the server leg comes from.
    source: SocketAddr,
    server: SocketAddr,
    /// What is to be said of segments that have not left yet.
    comments: Vec<(Leg, Comment)>,
}

#[derive(Debug)]
struct Comment {
    /// The segment that it is about, as the fault met it; `None` for one that our own TCP makes.
    about: Option<SegmentNote>,
    /// When the fault acted.
    at: Instant,
    did: Did,
    text: String,
}

/// A packet on its way to the file.
#[derive(Debug)]
struct Waiting {
    at: Instant,
    flow: FlowId,
    leg: Leg,
    inbound: bool,
    note: SegmentNote,
    tuple: Tuple,
    comments: Vec<String>,
}

impl Capture {
    /// A capture whose run started `epoch` nanoseconds after 1970 and keeps `snaplen` bytes of each packet.
    #[must_use]
    pub fn new(epoch: u64, snaplen: u32, application: &str) -> Self {
        let mut capture = Self {
            epoch,
            snaplen,
            flows: BTreeMap::new(),
            named: HashSet::new(),
            waiting: VecDeque::new(),
            written: [0; 2],
            out: Vec::new(),
        };
        capture.begin(application);
        capture
    }

    /// The head of a file, again for the next one when files are rotated.
    pub fn begin(&mut self, application: &str) {
        let comment = "Segments as halfopen met them on both legs; super-segments are whole. Comments tell what faults did.";
        self.out.extend(pcapng::section_header(application, comment));
        self.out.extend(pcapng::interface("client", "the leg towards the clients", self.snaplen));
        self.out.extend(pcapng::interface("server", "the leg towards the servers", self.snaplen));
        self.named.clear();
        self.written = [0; 2];
    }

    /// Takes an event.
    pub fn record(&mut self, record: &Record) {
        let Record { at, flow, leg, ref event } = *record;
        match (event, leg) {
            (Event::FlowOpened { client, server, .. }, _) => self.open(flow, *client, *server),
            (Event::SourcePort { port }, _) => {
                if let Some(addresses) = self.flows.get_mut(&flow) {
                    addresses.source.set_port(*port);
                }
            }
            (Event::SegmentIn { segment }, Some(leg)) => {
                self.segment(at, flow, leg, true, segment, Vec::new())
            }
            (Event::SegmentOut { segment }, Some(leg)) => {
                let comments = self.comments_for(at, flow, leg, segment);
                self.segment(at, flow, leg, false, segment, comments);
            }
            (Event::Fired { rule, fault, did, direction, segment }, Some(leg)) => {
                let text = said(rule, fault, *did);
                let inbound = direction.enters() == leg && *did != Did::Inject;
                match (did, segment) {
                    (Did::Knob | Did::Release, _) => {}
                    (_, Some(segment)) if inbound => self.comment_inbound(flow, leg, segment, text),
                    (Did::Drop, Some(segment)) => self.segment(at, flow, leg, false, segment, vec![text]),
                    _ => {
                        let comment = Comment { about: segment.clone(), at, did: *did, text };
                        self.comment_later(flow, leg, comment);
                    }
                }
            }
            // It is what the fault has made, and no segment.
            (Event::Icmp { sent: true, .. }, Some(leg)) => self.forget_comment(at, flow, leg),
            _ => {}
        }
        while self.waiting.len() > WINDOW {
            self.write_next();
        }
    }

    /// Bytes for the file, up to now.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Writes what waits, and the end. `lost` packets are missing.
    pub fn end(&mut self, now: Instant, lost: u64) {
        while !self.waiting.is_empty() {
            self.write_next();
        }
        let nanos = self.epoch + now.as_nanos();
        for (interface, written) in (0..).zip(self.written) {
            // Nobody knows on which leg.
            let lost = if interface == 0 { lost } else { 0 };
            self.out.extend(pcapng::statistics(interface, nanos, written, lost));
        }
    }

    fn open(&mut self, flow: FlowId, client: SocketAddr, server: SocketAddr) {
        if self.flows.len() >= FLOWS {
            self.flows.pop_first();
        }
        self.flows.insert(flow, Addresses { client, source: client, server, comments: Vec::new() });
    }

    fn segment(
        &mut self,
        at: Instant,
        flow: FlowId,
        leg: Leg,
        inbound: bool,
        note: &SegmentNote,
        comments: Vec<String>,
    ) {
        let Some(Addresses { client, source, server, .. }) = self.flows.get(&flow) else { return };
        let upstream = (leg == Leg::Client) == inbound;
        let near = if leg == Leg::Client { client } else { source };
        let (src, dst) = if upstream { (*near, *server) } else { (*server, *near) };
        let (note, tuple) = (note.clone(), Tuple { src, dst });
        self.waiting.push_back(Waiting { at, flow, leg, inbound, note, tuple, comments });
    }

    /// The segment has just come in.
    fn comment_inbound(&mut self, flow: FlowId, leg: Leg, about: &SegmentNote, text: String) {
        let met = self.waiting.iter_mut().rev().find(|packet| {
            packet.inbound && packet.flow == flow && packet.leg == leg && is_same(&packet.note, about)
        });
        if let Some(packet) = met {
            packet.comments.push(text);
        }
    }

    fn comment_later(&mut self, flow: FlowId, leg: Leg, comment: Comment) {
        if let Some(addresses) = self.flows.get_mut(&flow)
            && addresses.comments.len() < COMMENTS
        {
            addresses.comments.push((leg, comment));
        }
    }

    /// The last comment of this moment is not about a segment.
    fn forget_comment(&mut self, now: Instant, flow: FlowId, leg: Leg) {
        if let Some(addresses) = self.flows.get_mut(&flow)
            && let Some((of, Comment { about: None, at, .. })) = addresses.comments.last()
            && (*of, *at) == (leg, now)
        {
            addresses.comments.pop();
        }
    }

    fn comments_for(&mut self, now: Instant, flow: FlowId, leg: Leg, segment: &SegmentNote) -> Vec<String> {
        let Some(addresses) = self.flows.get_mut(&flow) else { return Vec::new() };
        let mut was_held = false;
        let is_meant = |(of, comment): &mut (Leg, Comment)| {
            let meant = *of == leg
                && match (&comment.about, comment.did) {
                    // What was rewritten is the next that leaves.
                    (Some(_), Did::Rewrite) => true,
                    // Of several equal ones that are held, each has a comment of its own.
                    (Some(about), Did::Hold(_) | Did::Behind(_)) => !was_held && is_same(about, segment),
                    (Some(about), _) => is_same(about, segment),
                    // An ACK leaves at once; a FIN waits for the data before it.
                    (None, _) => {
                        segment.flags.any(Flags::SYN | Flags::FIN | Flags::RST)
                            || (comment.at == now && segment.len == 0)
                    }
                };
            was_held |= meant && matches!(comment.did, Did::Hold(_) | Did::Behind(_));
            meant
        };
        addresses.comments.extract_if(.., is_meant).map(|(_, comment)| comment.text).collect()
    }

    fn write_next(&mut self) {
        let Some(packet) = self.waiting.pop_front() else { return };
        let Tuple { src, dst } = packet.tuple;
        let client_sends = (packet.leg == Leg::Client) == packet.inbound;
        for (address, is_client) in [(src.ip(), client_sends), (dst.ip(), !client_sends)] {
            if self.named.len() < FLOWS && self.named.insert(address) {
                let name = if is_client { "client" } else { "server" };
                self.out.extend(pcapng::name(address, name));
            }
        }
        let (mut bytes, len) = on_the_wire(packet.tuple, &packet.note);
        bytes.truncate(self.snaplen as usize);
        self.written[packet.leg as usize] += 1;
        self.out.extend(pcapng::packet(&Packet {
            interface: packet.leg as u32,
            nanos: self.epoch + packet.at.as_nanos(),
            bytes: &bytes,
            len,
            inbound: packet.inbound,
            comments: &packet.comments,
        }));
    }
}

/// Equal as far as a fault that met it and the wire can tell.
fn is_same(one: &SegmentNote, other: &SegmentNote) -> bool {
    (one.seq, one.flags, one.len) == (other.seq, other.flags, other.len)
}

/// The packet with its checksums, as far as it was kept, and its length. A super-segment is one large packet.
fn on_the_wire(tuple: Tuple, note: &SegmentNote) -> (Vec<u8>, u32) {
    let mut payload = Payload::from(note.data.clone());
    // Of the rest only the length is known; whoever reads the file sees that it is not there.
    let mut missing = note.len.saturating_sub(payload.len()) as usize;
    while missing > 0 {
        let part = missing.min(ZEROS.len());
        payload.push(Bytes::from_static(&ZEROS[..part]));
        missing -= part;
    }
    let segment = Segment {
        seq: note.seq,
        ack: note.ack,
        flags: note.flags,
        window: crate::wire::RawWindow(note.window),
        urgent: note.urgent,
        options: note.options.clone(),
        payload,
        ip: note.ip,
        gso_size: 0,
        bad_checksum: note.bad_checksum,
    };
    let (_, head) = crate::wire::emit(tuple, &segment, ChecksumMode::Full);
    let len = head.len() as u32 + note.len;
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&note.data);
    (bytes, len)
}

#[cfg(test)]
mod tests;
