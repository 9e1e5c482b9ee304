//! What must hold of every TCP at all times, seen from its own cable.

use crate::wire::{Flags, RawWindow, Segment, SeqNum, WindowScale};

/// Checks every segment that one host sends and receives. A broken rule is reported as text.
#[derive(Debug, Default)]
pub struct Watch {
    ipv6: bool,
    ours: Option<Side>,
    peers: Option<Side>,
    /// The window that we are allowed to fill ends here: the largest edge that the peer ever announced.
    send_edge: Option<SeqNum>,
    /// The edge that we announced last.
    offered_edge: Option<SeqNum>,
    last_ack: Option<SeqNum>,
    reset: bool,
}

#[derive(Debug)]
struct Side {
    /// After the furthest byte sent.
    furthest: SeqNum,
    scale: Option<WindowScale>,
    mss: u32,
    synchronised: bool,
}

impl Side {
    fn of(syn: &Segment, ipv6: bool) -> Self {
        let mss = syn.options.mss.map_or(if ipv6 { 1220 } else { 536 }, u32::from);
        Self { furthest: syn.end(), scale: syn.options.window_scale, mss, synchronised: false }
    }
}

impl Watch {
    /// For a host of this family.
    #[must_use]
    pub fn new(ipv6: bool) -> Self {
        Self { ipv6, ..Self::default() }
    }

    /// A segment arrived.
    pub fn received(&mut self, segment: &Segment) {
        if segment.has(Flags::SYN) && self.peers.is_none() {
            self.peers = Some(Side::of(segment, self.ipv6));
        }
        let Some(peers) = &mut self.peers else { return };
        if segment.end().after(peers.furthest) {
            peers.furthest = segment.end();
        }
        if segment.has(Flags::ACK) && !segment.has(Flags::RST) {
            let edge = segment.ack + window(segment, self.peers.as_ref(), self.ours.as_ref());
            if self.send_edge.is_none_or(|old| edge.after(old)) {
                self.send_edge = Some(edge);
            }
        }
    }

    /// A segment leaves.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn sent(&mut self, segment: &Segment) -> Result<(), String> {
        if segment.has(Flags::RST) {
            // One without ACK answers a segment of another connection, and ends none (RFC 9293 §3.10.7.3).
            self.reset |= segment.has(Flags::ACK);
            return Ok(());
        }
        if self.reset {
            return Err(format!("a segment follows our RST: {segment:?}"));
        }
        if segment.has(Flags::SYN) {
            self.ours.get_or_insert_with(|| Side::of(segment, self.ipv6));
        }
        self.check_data(segment)?;
        if segment.has(Flags::ACK) {
            self.check_ack(segment)?;
        }
        let ours = self.ours.as_mut().ok_or("the first segment has no SYN")?;
        if segment.end().after(ours.furthest) {
            ours.furthest = segment.end();
        }
        ours.synchronised |= !segment.has(Flags::SYN);
        Ok(())
    }

    /// RFC 9293 §3.8.6: nothing new beyond the right edge but one byte of a probe; §3.7.1: no segment above the MSS.
    fn check_data(&self, segment: &Segment) -> Result<(), String> {
        let Some(ours) = &self.ours else { return Ok(()) };
        let len = segment.payload.len();
        let data_end = segment.seq + len;
        if let Some(edge) = self.send_edge
            && len > 1
            && data_end.after(edge)
            && data_end.after(ours.furthest)
        {
            return Err(format!("{len} bytes end {} beyond the peer's window", data_end.diff(edge)));
        }
        let size = if segment.gso_size == 0 { len } else { u32::from(segment.gso_size) };
        let options = segment.options.to_bytes().len() as u32;
        if let Some(peers) = &self.peers
            && len > 0
            && size + options > peers.mss
        {
            return Err(format!("{size} bytes and {options} of options exceed the MSS of {}", peers.mss));
        }
        if segment.seq.after(ours.furthest) {
            return Err(format!("a hole of {} bytes before our segment", segment.seq.diff(ours.furthest)));
        }
        Ok(())
    }

    /// RCV.NXT never moves back and never beyond what came; the right edge never moves left (RFC 9293 SHLD-14).
    fn check_ack(&mut self, segment: &Segment) -> Result<(), String> {
        let Some(peers) = &self.peers else { return Err("an ACK before anything came".into()) };
        if segment.ack.after(peers.furthest) {
            return Err(format!("{} bytes acknowledged that never came", segment.ack.diff(peers.furthest)));
        }
        if let Some(last) = self.last_ack
            && segment.ack.before(last)
        {
            return Err(format!("the acknowledgement moves back by {}", last.diff(segment.ack)));
        }
        self.last_ack = Some(segment.ack);
        let edge = segment.ack + window(segment, self.ours.as_ref(), self.peers.as_ref());
        // Rounding to a scaled field may retract less than a unit (RFC 7323 §2.4).
        let unit = self.ours.as_ref().and_then(|ours| ours.scale).unwrap_or_default().bytes(RawWindow(1));
        if let Some(old) = self.offered_edge
            && (edge + (unit - 1)).before(old)
            && !segment.has(Flags::SYN)
        {
            return Err(format!("the right edge moves left by {}", old.diff(edge)));
        }
        self.offered_edge = Some(edge);
        for block in &segment.options.sack {
            if block.right.after(peers.furthest) || block.right.at_or_before(block.left) {
                return Err(format!("SACK block {}:{} was never received", block.left, block.right));
            }
        }
        Ok(())
    }
}

/// The window of a segment in bytes: scaled once both SYNs carried the option, and never in a SYN (RFC 7323 §2.2).
fn window(segment: &Segment, sender: Option<&Side>, other: Option<&Side>) -> u32 {
    let scale = match (sender.and_then(|s| s.scale), other.and_then(|s| s.scale)) {
        (Some(scale), Some(_)) if !segment.has(Flags::SYN) => scale,
        _ => WindowScale::NONE,
    };
    scale.bytes(segment.window)
}
