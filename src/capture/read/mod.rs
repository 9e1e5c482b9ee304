//! From a capture back to events: a reader of the files that [`Capture`](super::Capture) writes, and of nothing else.
//!
//! A capture carries less than the events did. Flows are numbered anew, in the order of their first packets. There are no
//! outcomes, no names of rules beyond those in comments, no knobs, ICMP errors, challenge ACKs, discards and limits, and no
//! reason of a retransmission. Super-segments count as one, reserved bits are cut off, and a wrong checksum is seen only where
//! the whole packet was kept. A segment that was put behind others has only left, nobody knows when it was to. The states of
//! our ends are inferred from the segments: timeouts, what a fault did to our own TCP, and what it made of a segment on the way
//! in do not show.

mod blocks;
mod flows;
mod own;

use std::fmt;

use self::blocks::{Packet, Sections};
use self::flows::Flows;
use super::comment;
use crate::trace::{SegmentNote, Sink};
use crate::wire::{self, Packet as Parsed, Tuple, VnetHdr};

/// Bytes of a packet that must have been kept: the headers without options, as the smallest `capture.snaplen` keeps them.
const HEADERS: usize = 60;
/// Longest IPv4 packet that can tell its own length.
const IP_LONGEST: usize = 65_535;

/// Reads a capture, in pieces of any size. Takes bounded memory: a block, some flows, some packets.
#[derive(Debug, Default)]
pub struct Reader {
    /// What is not a whole block yet.
    rest: Vec<u8>,
    /// Where it stands in the file.
    at: u64,
    sections: Sections,
    flows: Flows,
}

/// Why a file is none that halfopen has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Where in the file, in bytes.
    pub at: u64,
    /// What is there.
    pub what: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Foreign {}

impl Reader {
    /// Takes the next bytes of the file and gives out events.
    ///
    /// # Errors
    /// It is not a capture of halfopen, or damaged. There is no sense in going on.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), Foreign> {
        self.rest.extend_from_slice(bytes);
        let mut done = 0;
        let result = loop {
            match blocks::next(&self.rest[done..]) {
                Ok(None) => break Ok(()),
                Ok(Some((kind, body, len))) => {
                    let taken = self.sections.take(kind, body).and_then(|packet| match packet {
                        Some(packet) => take(&mut self.flows, &packet, sink),
                        None => Ok(()),
                    });
                    if let Err(what) = taken {
                        break Err(what);
                    }
                    done += len;
                }
                Err(what) => break Err(what),
            }
        };
        self.at += done as u64;
        self.rest.drain(..done);
        result.map_err(|what| Foreign { at: self.at, what })
    }

    /// Ends it: gives out the rest. True if the file ended between two blocks; else the last one is missing.
    #[must_use]
    pub fn finish(mut self, sink: &mut impl Sink) -> bool {
        self.flows.finish(sink);
        self.rest.is_empty()
    }
}

fn take(flows: &mut Flows, packet: &Packet<'_>, sink: &mut impl Sink) -> Result<(), String> {
    let (tuple, note) = segment(packet)?;
    let mut told = Vec::new();
    for text in &packet.comments {
        told.extend(comment::told(text)?);
    }
    flows.take(packet, tuple, note, told, sink);
    Ok(())
}

/// The segment of a packet. What was not kept of its data counts as zeros.
fn segment(packet: &Packet<'_>) -> Result<(Tuple, SegmentNote), String> {
    let mut whole = packet.bytes.to_vec();
    whole.resize(packet.len, 0);
    let vouched = VnetHdr { flags: VnetHdr::DATA_VALID, ..VnetHdr::default() };
    let tcp = match wire::parse(&whole, &vouched) {
        Ok(Parsed::Tcp(tcp)) => tcp,
        Ok(_) => return Err("a packet that is not TCP".to_owned()),
        Err(error) => return Err(format!("{error}")),
    };
    if packet.bytes.len() < tcp.payload.start.min(HEADERS) {
        return Err(format!(
            "of a packet only {} bytes were kept: its headers are missing",
            packet.bytes.len()
        ));
    }
    let is_whole = packet.bytes.len() == packet.len && packet.len <= IP_LONGEST;
    let verified =
        !is_whole || wire::parse(packet.bytes, &VnetHdr::default()) != Err(wire::Error::TcpChecksum);
    let len = if packet.len > IP_LONGEST { packet.len - tcp.payload.start } else { tcp.payload.len() };
    let note = SegmentNote { len: len as u32, bad_checksum: !verified, ..SegmentNote::from(&tcp.segment) };
    Ok((tcp.tuple, note))
}

#[cfg(test)]
mod tests;
