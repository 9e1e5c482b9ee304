//! The one text form of a segment, in packetdrill and tcpdump notation:
//! `P. 1:1461(1460) ack 1 win 502 <nop,nop,TS val 7 ecr 3>`.
//!
//! In order: control bits; first sequence number, the one after the data, and their distance; then, where they mean
//! something, `ack`, `win`, `urg` (the pointer), `segs` (wire segments of a super-segment), `cksum bad` (it leaves with a wrong
//! checksum), and the options in angle brackets.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::options::{Options, SackBlock, Timestamps};
use super::segment::{Flags, IpMeta, Segment};
use super::seq::SeqNum;
use super::window::WindowScale;

/// A segment without its data, or with the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentNote {
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// The raw window field.
    pub window: u16,
    /// SEG.UP.
    pub urgent: u16,
    /// Payload bytes.
    pub len: u32,
    /// Wire segments (more than 1 for a super-segment).
    pub segs: u32,
    /// It leaves with a wrong checksum.
    pub bad_checksum: bool,
    /// TCP options.
    pub options: Options,
    /// TTL and traffic class.
    pub ip: IpMeta,
    /// The first payload bytes, as many as somebody wants to see ([`crate::trace::Sink::snaplen`]).
    pub data: Bytes,
}

impl From<&Segment> for SegmentNote {
    fn from(s: &Segment) -> Self {
        Self {
            seq: s.seq,
            ack: s.ack,
            flags: s.flags,
            window: s.window.0,
            urgent: s.urgent,
            len: s.payload.len(),
            segs: s.segs(),
            bad_checksum: s.bad_checksum,
            options: s.options.clone(),
            ip: s.ip,
            data: Bytes::new(),
        }
    }
}

impl Serialize for SegmentNote {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentNote {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Letters and order of tcpdump, which is silent about the reserved bits.
const LETTERS: [(Flags, char); 10] = [
    (Flags::FIN, 'F'),
    (Flags::SYN, 'S'),
    (Flags::RST, 'R'),
    (Flags::PSH, 'P'),
    (Flags::ACK, '.'),
    (Flags::URG, 'U'),
    (Flags::ECE, 'E'),
    (Flags::CWR, 'W'),
    (Flags::AE, 'e'),
    (Flags::RESERVED, 'r'),
];

impl fmt::Display for Flags {
    /// `S.`, `P.`, `R`; `none` without any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String =
            LETTERS.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, letter)| letter).collect();
        f.pad(if letters.is_empty() { "none" } else { &letters })
    }
}

impl FromStr for Flags {
    type Err = NotationError;
    /// In any order.
    fn from_str(s: &str) -> Result<Self, NotationError> {
        if s == "none" {
            return Ok(Self::default());
        }
        s.chars().try_fold(Self::default(), |flags, c| {
            let known = LETTERS.iter().find(|(_, letter)| *letter == c);
            known.map(|(flag, _)| flags | *flag).ok_or_else(|| NotationError::new("control bits", s))
        })
    }
}

impl fmt::Display for SegmentNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}({})", self.flags, self.seq, self.seq + self.len, self.len)?;
        if self.flags.has(Flags::ACK) || self.ack != SeqNum(0) {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " win {}", self.window)?;
        if self.flags.has(Flags::URG) || self.urgent != 0 {
            write!(f, " urg {}", self.urgent)?;
        }
        if self.segs > 1 {
            write!(f, " segs {}", self.segs)?;
        }
        if self.bad_checksum {
            f.write_str(" cksum bad")?;
        }
        if self.options != Options::default() {
            write!(f, " <{}>", self.options)?;
        }
        Ok(())
    }
}

impl FromStr for SegmentNote {
    type Err = NotationError;

    fn from_str(s: &str) -> Result<Self, NotationError> {
        let (fields, options) = match s.split_once('<') {
            Some((fields, options)) => (fields, Some(options)),
            None => (s, None),
        };
        let mut note = Self { segs: 1, ..Self::default() };
        if let Some(options) = options {
            let inner = options.trim_end().strip_suffix('>');
            note.options =
                inner.ok_or_else(|| NotationError::new("options (no closing '>')", options))?.parse()?;
        }
        let mut words = fields.split_whitespace();
        let mut next = |what| words.next().ok_or_else(|| NotationError::new(what, "nothing"));
        note.flags = next("control bits")?.parse()?;
        (note.seq, note.len) = range(next("sequence numbers")?)?;
        while let Some(name) = words.next() {
            let value = words.next().unwrap_or("nothing");
            match name {
                "ack" => note.ack = SeqNum(number("ack", value)?),
                "win" => note.window = number("win", value)?,
                "urg" => note.urgent = number("urg", value)?,
                "segs" => {
                    note.segs = number("segs", value)?;
                    if note.segs == 0 {
                        return Err(NotationError::new("segs (from 1)", value));
                    }
                }
                "cksum" if value == "bad" => note.bad_checksum = true,
                "cksum" => return Err(NotationError::new("cksum (bad)", value)),
                _ => return Err(NotationError::new("field (ack, win, urg, segs, cksum)", name)),
            }
        }
        Ok(note)
    }
}

/// `first:after(len)`.
fn range(word: &str) -> Result<(SeqNum, u32), NotationError> {
    let bad = || NotationError::new("sequence numbers (first:after(length))", word);
    let (first, rest) = word.split_once(':').ok_or_else(bad)?;
    let (after, len) = rest.split_once('(').ok_or_else(bad)?;
    let len = number("length", len.strip_suffix(')').ok_or_else(bad)?)?;
    let (first, after) =
        (SeqNum(number("sequence number", first)?), SeqNum(number("sequence number", after)?));
    if first + len == after { Ok((first, len)) } else { Err(bad()) }
}

fn number<T: FromStr>(what: &'static str, word: &str) -> Result<T, NotationError> {
    word.parse().map_err(|_| NotationError::new(what, word))
}

impl fmt::Display for Options {
    /// The options in the order in which they are sent, with Linux's NOPs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        if let Some(mss) = self.mss {
            words.push(format!("mss {mss}"));
        }
        match (self.sack_permitted, self.timestamps) {
            (true, Some(times)) => words.push(format!("sackOK,{times}")),
            (true, None) => words.push("nop,nop,sackOK".to_owned()),
            (false, Some(times)) => words.push(format!("nop,nop,{times}")),
            (false, None) => {}
        }
        if let Some(scale) = self.window_scale {
            words.push(format!("nop,wscale {}", scale.shift()));
        }
        if !self.sack.is_empty() {
            let blocks: String = self.sack.iter().map(|b| format!("{{{}:{}}}", b.left, b.right)).collect();
            words.push(format!("nop,nop,sack {} {blocks}", self.sack.len()));
        }
        let mut raw = &self.unknown[..];
        while let [kind, len, ..] = *raw
            && (2..=raw.len()).contains(&usize::from(len))
        {
            let (option, rest) = raw.split_at(usize::from(len));
            words.push(format!("unknown-{kind} 0x{}", hex(&option[2..])));
            raw = rest;
        }
        if !raw.is_empty() {
            words.push(format!("raw 0x{}", hex(raw)));
        }
        f.write_str(&words.join(","))
    }
}

impl fmt::Display for Timestamps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TS val {} ecr {}", self.val, self.ecr)
    }
}

impl FromStr for Options {
    type Err = NotationError;

    fn from_str(s: &str) -> Result<Self, NotationError> {
        let mut options = Self::default();
        for option in s.split(',') {
            let words: Vec<&str> = option.split_whitespace().collect();
            match words[..] {
                ["nop" | "eol"] | [] => {}
                ["mss", mss] => options.mss = Some(number("mss", mss)?),
                ["sackOK"] => options.sack_permitted = true,
                ["wscale", shift] => options.window_scale = Some(WindowScale::new(number("wscale", shift)?)),
                ["TS", "val", val, "ecr", ecr] => {
                    options.timestamps =
                        Some(Timestamps { val: number("TS val", val)?, ecr: number("TS ecr", ecr)? });
                }
                ["sack", count, blocks] => options.sack = sack(count, blocks)?,
                [name, bytes] => raw_option(&mut options, name, bytes)?,
                _ => return Err(NotationError::new("option", option)),
            }
        }
        Ok(options)
    }
}

/// `N {left:right}…`.
fn sack(count: &str, blocks: &str) -> Result<arrayvec::ArrayVec<SackBlock, 4>, NotationError> {
    let bad =
        || NotationError::new("sack blocks (a count, then {left:right} so many times, at most 4)", blocks);
    let mut out = arrayvec::ArrayVec::new();
    for block in blocks.split_terminator('}') {
        let (left, right) = block.strip_prefix('{').and_then(|b| b.split_once(':')).ok_or_else(bad)?;
        let block = SackBlock { left: SeqNum(number("sack", left)?), right: SeqNum(number("sack", right)?) };
        out.try_push(block).map_err(|_| bad())?;
    }
    if number::<usize>("sack", count)? == out.len() { Ok(out) } else { Err(bad()) }
}

/// `unknown-KIND 0xBYTES`, or `raw 0xBYTES` for bytes that are no option at all.
fn raw_option(options: &mut Options, name: &str, bytes: &str) -> Result<(), NotationError> {
    let bad = || NotationError::new("option", &format!("{name} {bytes}"));
    let data = unhex(bytes).ok_or_else(bad)?;
    let header: &[u8] = match name.strip_prefix("unknown-") {
        Some(kind) => &[number("option kind", kind)?, u8::try_from(data.len() + 2).map_err(|_| bad())?],
        None if name == "raw" => &[],
        None => return Err(bad()),
    };
    options.unknown.try_extend_from_slice(header).map_err(|_| bad())?;
    options.unknown.try_extend_from_slice(&data).map_err(|_| bad())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    let (pairs, []) = word.strip_prefix("0x")?.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Text that is no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotationError {
    what: &'static str,
    found: String,
}

impl NotationError {
    fn new(what: &'static str, found: &str) -> Self {
        Self { what, found: found.to_owned() }
    }
}

impl fmt::Display for NotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a segment: bad {}: {:?}", self.what, self.found)
    }
}

impl std::error::Error for NotationError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_segment;
    use super::*;

    #[test]
    fn segments_read_as_in_tcpdump_and_packetdrill() {
        for text in [
            "S 100:100(0) win 64240 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>",
            "S. 200:200(0) ack 101 win 65160 <mss 1460,nop,nop,sackOK,nop,wscale 7>",
            "SEW 100:100(0) win 64240 <mss 1460>",
            ". 101:101(0) ack 201 win 502 <nop,nop,TS val 5 ecr 4,nop,nop,sack 2 {300:400}{500:600}>",
            "P. 101:1549(1448) ack 201 win 502 <nop,nop,TS val 5 ecr 4>",
            ". 4294967290:10(16) ack 1 win 0",
            "P.U 101:102(1) ack 201 win 502 urg 1",
            ".r 101:102(1) ack 201 win 502",
            ". 101:102(1) ack 201 win 502 cksum bad",
            ". 101:65261(65160) ack 201 win 502 segs 45",
            "F. 101:101(0) ack 201 win 502",
            "R. 0:0(0) ack 101 win 0",
            "R 101:101(0) win 0",
            "none 0:0(0) win 0 <unknown-254 0x0102,unknown-5 0x,raw 0x08>",
        ] {
            assert_eq!(text.parse::<SegmentNote>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_segment_is_named() {
        for (text, error) in [
            ("", r#"bad control bits: "nothing""#),
            ("X 0:0(0)", r#"bad control bits: "X""#),
            ("S", r#"bad sequence numbers: "nothing""#),
            ("S 0:5(4)", r#"bad sequence numbers (first:after(length)): "0:5(4)""#),
            ("S 0:0(0) win 70000", r#"bad win: "70000""#),
            ("S 0:0(0) win", r#"bad win: "nothing""#),
            ("S 0:0(0) ttl 3", r#"bad field (ack, win, urg, segs, cksum): "ttl""#),
            ("S 0:0(0) cksum good", r#"bad cksum (bad): "good""#),
            (". 1:2(1) segs 0", r#"bad segs (from 1): "0""#),
            ("S 0:0(0) <mss", r#"bad options (no closing '>'): "mss""#),
            ("S 0:0(0) <mss 70000>", r#"bad mss: "70000""#),
            ("S 0:0(0) <tfo 0x12>", r#"bad option: "tfo 0x12""#),
            ("S 0:0(0) <raw 0x1>", r#"bad option: "raw 0x1""#),
        ] {
            assert_eq!(
                text.parse::<SegmentNote>().unwrap_err().to_string(),
                format!("not a segment: {error}")
            );
        }
        assert!("S 0:0(0) <sack 2 {1:2}>".parse::<SegmentNote>().is_err());
    }

    proptest! {
        #[test]
        fn any_segment_survives_its_text(segment in any_segment()) {
            let note = SegmentNote { ip: IpMeta::default(), ..SegmentNote::from(&segment) };
            prop_assert_eq!(note.to_string().parse::<SegmentNote>(), Ok(note));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[FSRPUEW. 0-9:()<>{},acknwirugsTSvlxm-]{0,60}") {
            if let Ok(note) = text.parse::<SegmentNote>() {
                prop_assert_eq!(note.to_string().parse::<SegmentNote>(), Ok(note));
            }
        }
    }
}
