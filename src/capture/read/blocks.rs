//! The blocks of a file, checked: only what the writer beside it writes, and nothing that is longer than it could be.

use crate::trace::Leg;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const LINKTYPE_RAW: u16 = 101;
/// Longest block, in bytes. A packet has 256 KiB at the most (`capture.snaplen`), and a few comments.
const LONGEST: usize = 1 << 20;
/// Longest packet on the wire, in bytes: a super-segment and its headers.
const PACKET_LONGEST: usize = 1 << 18;
/// Most comments of a packet that are read.
const COMMENTS: usize = 64;

/// A packet as it is in the file.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) leg: Leg,
    /// Nanoseconds since 1970.
    pub(super) nanos: u64,
    /// The bytes that were kept.
    pub(super) bytes: &'a [u8],
    /// How long it was on the wire; not below that of the bytes.
    pub(super) len: usize,
    pub(super) inbound: bool,
    pub(super) comments: Vec<&'a str>,
}

/// A block: its type, its body, and its whole length.
type Block<'a> = (u32, &'a [u8], usize);

/// The block at the beginning of `bytes`. `None` if it goes on after them.
pub(super) fn next(bytes: &[u8]) -> Result<Option<Block<'_>>, String> {
    let (Some(kind), Some(len)) = (number(bytes, 0), number(bytes, 4)) else { return Ok(None) };
    if kind == SECTION_HEADER {
        match bytes.get(8..12) {
            None => return Ok(None),
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => {}
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => {
                return Err("numbers are big-endian, which halfopen does not write".to_owned());
            }
            Some(_) => return Err("no pcapng file: the byte-order magic is missing".to_owned()),
        }
    }
    let len = len as usize;
    if len < 12 || !len.is_multiple_of(4) || len > LONGEST {
        return Err(format!("a block of {len} bytes; halfopen writes multiples of 4 from 12 to {LONGEST}"));
    }
    let Some(block) = bytes.get(..len) else { return Ok(None) };
    if number(block, len - 4) != Some(len as u32) {
        return Err("a block has two different lengths".to_owned());
    }
    Ok(Some((kind, &block[8..len - 4], len)))
}

/// What the blocks so far have said.
#[derive(Debug, Default)]
pub(super) struct Sections {
    begun: bool,
    /// The legs of the interfaces, in the order of their blocks.
    interfaces: Vec<Leg>,
}

impl Sections {
    /// Takes a block. A packet comes back.
    pub(super) fn take<'a>(&mut self, kind: u32, body: &'a [u8]) -> Result<Option<Packet<'a>>, String> {
        match kind {
            SECTION_HEADER => {
                self.begun = true;
                self.interfaces.clear();
            }
            _ if !self.begun => return Err("no pcapng file: it does not begin with a section".to_owned()),
            INTERFACE => self.interface(body)?,
            PACKET => return self.packet(body).map(Some),
            // Names, statistics, and what others may have added.
            _ => {}
        }
        Ok(None)
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), String> {
        let mut name = "";
        // RFC draft: microseconds unless the option says otherwise.
        let mut resolution = 6;
        for option in options(body, 8) {
            match option? {
                (2, value) => name = str::from_utf8(value).unwrap_or_default(),
                (9, [value]) => resolution = *value,
                _ => {}
            }
        }
        let leg = [Leg::Client, Leg::Server].into_iter().find(|leg| leg.name() == name);
        let leg = leg.filter(|_| self.interfaces.len() < 16).ok_or_else(|| {
            let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            format!("an interface {name:?}; a capture of halfopen has \"client\" and \"server\"")
        })?;
        if body.first_chunk() != Some(&LINKTYPE_RAW.to_le_bytes()) {
            return Err("packets do not begin with their IP header, as halfopen's do".to_owned());
        }
        if resolution != 9 {
            return Err("time is not in nanoseconds, as halfopen has it".to_owned());
        }
        self.interfaces.push(leg);
        Ok(())
    }

    fn packet<'a>(&self, body: &'a [u8]) -> Result<Packet<'a>, String> {
        let word = |at| number(body, at).ok_or("a packet's block is too short");
        let (interface, high, low) = (word(0)?, word(4)?, word(8)?);
        let (kept, len) = (word(12)? as usize, word(16)? as usize);
        let leg = self.interfaces.get(interface as usize).copied();
        let leg = leg.ok_or_else(|| format!("a packet of interface {interface}, which is not there"))?;
        let bytes = body.get(20..20 + kept.min(LONGEST)).ok_or("a packet is longer than its block")?;
        if len < kept || len > PACKET_LONGEST {
            return Err(format!("a packet of {len} bytes, of which {kept} were kept"));
        }
        let (mut inbound, mut comments) = (None, Vec::new());
        for option in options(body, 20 + kept.next_multiple_of(4)) {
            match option? {
                (1, value) if comments.len() < COMMENTS => comments.extend(str::from_utf8(value)),
                (2, [flags, ..]) => inbound = [None, Some(true), Some(false), None][usize::from(flags & 3)],
                _ => {}
            }
        }
        let inbound = inbound.ok_or("a packet that neither came nor left: its direction is missing")?;
        Ok(Packet { leg, nanos: u64::from(high) << 32 | u64::from(low), bytes, len, inbound, comments })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// The options of a block from `at` on: code and value.
fn options(body: &[u8], at: usize) -> impl Iterator<Item = Result<(u16, &[u8]), String>> {
    let mut rest = body.get(at..).unwrap_or_default();
    std::iter::from_fn(move || {
        let ([a, b, c, d], after) = rest.split_first_chunk()?;
        let (code, len) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        if code == 0 {
            return None;
        }
        let Some(value) = after.get(..len) else {
            rest = &[];
            return Some(Err("an option is longer than its block".to_owned()));
        };
        rest = after.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((code, value)))
    })
}
