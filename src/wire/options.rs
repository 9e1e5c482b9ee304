//! TCP options: the known ones typed, the unknown ones kept raw.

use arrayvec::ArrayVec;

use super::ip::append;
use super::seq::SeqNum;
use super::window::WindowScale;

/// RFC 7323 timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub val: u32,
    /// TSecr: the echo; meaningful with ACK.
    pub ecr: u32,
}

/// One SACK block: `left` is its first byte, `right` the byte after its last (RFC 2018).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SackBlock {
    /// First sequence number of the block.
    pub left: SeqNum,
    /// Sequence number just after the block.
    pub right: SeqNum,
}

/// The options of one segment. Emitted in Linux's layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size (kind 2), in bytes; only in SYN segments.
    pub mss: Option<u16>,
    /// Window scale (kind 3); only in SYN segments.
    pub window_scale: Option<WindowScale>,
    /// SACK permitted (kind 4); only in SYN segments.
    pub sack_permitted: bool,
    /// Timestamps (kind 8).
    pub timestamps: Option<Timestamps>,
    /// SACK blocks (kind 5), at most 4, at most 3 with timestamps.
    pub sack: ArrayVec<SackBlock, 4>,
    /// Unknown options, raw with their kind and length bytes, in their order.
    pub unknown: ArrayVec<u8, 40>,
}

const EOL: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

impl Options {
    /// Most option bytes that a TCP header can carry.
    pub const MAX: usize = 40;

    /// Reads the option bytes of a header. Never fails (RFC 9293 MUST-7): reading stops at a length that is below 2 or
    /// leads past the end, as in Linux; a known kind with a wrong length is kept as unknown. Of two equal kinds the last counts.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            match kind {
                EOL => break,
                NOP => bytes = rest,
                _ => {
                    let Some(len) = rest.first().map(|&len| usize::from(len)) else { break };
                    if len < 2 || len > bytes.len() {
                        break;
                    }
                    let (option, after) = bytes.split_at(len);
                    options.take(option);
                    bytes = after;
                }
            }
        }
        options
    }

    /// Takes one whole option with its kind and length bytes.
    fn take(&mut self, option: &[u8]) {
        match *option {
            [MSS, 4, a, b] => self.mss = Some(u16::from_be_bytes([a, b])),
            [WINDOW_SCALE, 3, shift] => self.window_scale = Some(WindowScale::new(shift)),
            [SACK_PERMITTED, 2] => self.sack_permitted = true,
            [TIMESTAMPS, 10, ref times @ ..] => {
                let (val, ecr) = two_words(times);
                self.timestamps = Some(Timestamps { val, ecr });
            }
            [SACK, 10 | 18 | 26 | 34, ref blocks @ ..] => {
                self.sack = blocks
                    .chunks_exact(8)
                    .map(two_words)
                    .map(|(left, right)| SackBlock { left: SeqNum(left), right: SeqNum(right) })
                    .collect();
            }
            // 40 bytes of options cannot overflow 40 bytes of unknown ones.
            _ => _ = self.unknown.try_extend_from_slice(option),
        }
    }

    /// The option bytes in Linux's layout, padded to a multiple of four. If they do not fit with Linux's NOPs they are
    /// written without (RFC 9293 MUST-64: nothing needs alignment); what does not fit even so is left out, last first.
    #[must_use]
    pub fn to_bytes(&self) -> ArrayVec<u8, { Self::MAX }> {
        let mut writer = Writer { out: ArrayVec::new(), nops: true, whole: true };
        writer.write(self);
        if !writer.whole {
            writer = Writer { out: ArrayVec::new(), nops: false, whole: true };
            writer.write(self);
        }
        while !writer.out.len().is_multiple_of(4) {
            writer.out.push(EOL);
        }
        writer.out
    }
}

/// The two big-endian words at the start of `bytes`, which has eight.
fn two_words(bytes: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (word(0), word(4))
}

struct Writer {
    out: ArrayVec<u8, { Options::MAX }>,
    /// Write the NOPs with which Linux aligns.
    nops: bool,
    /// Everything has fitted so far.
    whole: bool,
}

impl Writer {
    /// The order and the NOPs of Linux's `tcp_options_write`.
    fn write(&mut self, options: &Options) {
        if let Some(mss) = options.mss {
            self.option(0, &[&[MSS, 4], &mss.to_be_bytes()]);
        }
        if options.sack_permitted {
            let nops = if options.timestamps.is_some() { 0 } else { 2 };
            self.option(nops, &[&[SACK_PERMITTED, 2]]);
        }
        if let Some(times) = options.timestamps {
            let nops = if options.sack_permitted { 0 } else { 2 };
            self.option(nops, &[&[TIMESTAMPS, 10], &times.val.to_be_bytes(), &times.ecr.to_be_bytes()]);
        }
        if let Some(scale) = options.window_scale {
            self.option(1, &[&[WINDOW_SCALE, 3, scale.shift()]]);
        }
        if !options.sack.is_empty() {
            self.sack(&options.sack);
        }
        self.whole &= self.out.try_extend_from_slice(&options.unknown).is_ok();
    }

    fn sack(&mut self, blocks: &[SackBlock]) {
        let nops = if self.nops { 2 } else { 0 };
        let room = self.out.remaining_capacity().saturating_sub(nops + 2) / 8;
        self.whole &= blocks.len() <= room;
        let blocks = &blocks[..blocks.len().min(room)];
        if blocks.is_empty() {
            return;
        }
        self.option(2, &[&[SACK, 2 + 8 * blocks.len() as u8]]);
        for block in blocks {
            self.option(0, &[&block.left.0.to_be_bytes(), &block.right.0.to_be_bytes()]);
        }
    }

    /// Writes all parts after `nops` NOPs, or nothing.
    fn option(&mut self, nops: usize, parts: &[&[u8]]) {
        let nops = if self.nops { nops } else { 0 };
        let len = nops + parts.iter().map(|part| part.len()).sum::<usize>();
        if len > self.out.remaining_capacity() {
            self.whole = false;
            return;
        }
        append(&mut self.out, &[NOP; 2][..nops]);
        for part in parts {
            append(&mut self.out, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(left: u32, right: u32) -> SackBlock {
        SackBlock { left: SeqNum(left), right: SeqNum(right) }
    }

    #[test]
    fn syn_has_the_layout_of_linux() {
        let options = Options {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some(Timestamps { val: 1, ecr: 0 }),
            ..Options::default()
        };
        let bytes = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(options.to_bytes()[..], bytes);
        assert_eq!(Options::parse(&bytes), options);
    }

    #[test]
    fn data_and_sack_are_aligned_with_two_nops() {
        let mut options = Options { timestamps: Some(Timestamps { val: 1, ecr: 2 }), ..Options::default() };
        assert_eq!(options.to_bytes()[..], [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        options.sack.push(block(3, 4));
        assert_eq!(options.to_bytes()[12..], [1, 1, 5, 10, 0, 0, 0, 3, 0, 0, 0, 4]);
        let options = Options { sack_permitted: true, ..Options::default() };
        assert_eq!(options.to_bytes()[..], [1, 1, 4, 2]);
    }

    /// RFC 9293 MUST-7, MUST-6, MUST-68.
    #[test]
    fn illegal_lengths_end_the_options_and_keep_what_came_before() {
        let mss = Options { mss: Some(1460), ..Options::default() };
        for (bytes, what) in [
            (&[2, 4, 5, 180, 8, 0, 1, 1][..], "length 0"),
            (&[2, 4, 5, 180, 8, 1, 1, 1], "length 1"),
            (&[2, 4, 5, 180, 8, 10, 0, 0], "length past the end"),
            (&[2, 4, 5, 180, 1, 1, 1, 8], "kind without length"),
            (&[2, 4, 5, 180, 0, 3, 3, 7], "EOL hides the rest"),
        ] {
            assert_eq!(Options::parse(bytes), mss, "{what}");
        }
    }

    #[test]
    fn unknown_kinds_and_known_kinds_of_wrong_length_are_kept_raw() {
        let options = Options::parse(&[254, 4, 1, 2, 3, 4, 9, 9, 5, 2, 2, 4, 5, 180]);
        assert_eq!(options.unknown[..], [254, 4, 1, 2, 3, 4, 9, 9, 5, 2]);
        assert_eq!(options.mss, Some(1460));
        assert_eq!(Options::parse(&options.to_bytes()), options);
    }

    #[test]
    fn the_last_of_two_equal_kinds_counts() {
        assert_eq!(Options::parse(&[2, 4, 0, 1, 2, 4, 0, 2]).mss, Some(2));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut options = Options {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            timestamps: Some(Timestamps::default()),
            sack: [block(1, 2), block(3, 4), block(5, 6), block(7, 8)].into_iter().collect(),
            ..Options::default()
        };
        assert_eq!(Options::parse(&options.to_bytes()).sack.len(), 2);
        options.unknown.extend([254; 40]);
        assert_eq!(Options::parse(&options.to_bytes()).unknown.len(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..=40)) {
            let options = Options::parse(&bytes);
            prop_assert_eq!(Options::parse(&options.to_bytes()), options);
        }
    }
}
