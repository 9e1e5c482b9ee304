//! `option-strip`: a middlebox that takes TCP options out of the handshake.

use std::sync::Arc;

use super::pick;
use crate::fault::attributes::{DIRECTIONS_BOTH, Directions};
use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::trace::Direction;
use crate::wire::{Options, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "option-strip",
    summary: "takes options out of the SYN or the SYN-ACK, or breaks them",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "option-strip kinds=sack,timestamps direction=upstream",
    attributes: &[
        AttributeDoc {
            name: "kinds",
            unit: Unit::Words(&["mss", "wscale", "sack", "timestamps"]),
            default: "wscale,sack,timestamps",
            zero: "",
            doc: "Which options. Without an MSS a host sends segments of 536 bytes (1220 over IPv6).",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "upstream",
            zero: "",
            doc: "Upstream is the client's SYN: the server answers without the option, and nobody uses it. Downstream is the \
                  SYN-ACK: the client does without, while the other side believes that it is agreed.",
        },
        AttributeDoc {
            name: "mode",
            unit: Unit::Word(&["remove", "nop", "corrupt-length"]),
            default: "remove",
            zero: "",
            doc: "How: left out, overwritten with NOPs, or with a length of 0, at which a reader stops, so that what stands \
                  behind it is lost too. A SYN is read so by halfopen, which offers the server what is left.",
        },
    ],
    bounds: &["first", "nth", "at", "for", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H26",
        incident: "Edeline and Donnet found TCP/IP middleboxes on over a third of paths; Honda et al. 2011, \"Is it still possible \
                   to extend TCP?\"",
    },
    also: &[Alias {
        id: "H8",
        name: "syncookie-options-lost",
        rule: "option-strip kinds=wscale,sack,timestamps direction=upstream",
    }],
    scene: Scene { rule: "option-strip", play: Play::Upload },
    sees: "everything works, slower: without window scaling at most 64 KiB per round trip, without SACK slow recovery from \
           losses, without an MSS small segments.",
    build: |reader, _| {
        Ok(Arc::new(OptionStrip {
            kinds: Kinds::of(&reader.words("kinds")?.unwrap_or_default()),
            directions: reader.directions("direction")?,
            mode: match reader.word("mode")? {
                Some("nop") => Mode::Nop,
                Some("corrupt-length") => Mode::CorruptLength,
                _ => Mode::Remove,
            },
        }))
    },
};

/// How an option is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As if it had never been there.
    Remove,
    /// NOPs in its place.
    Nop,
    /// With length 0: reading ends there.
    CorruptLength,
}

/// Some kinds of options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    mss: bool,
    window_scale: bool,
    sack: bool,
    timestamps: bool,
}

impl Kinds {
    /// What a SYN cookie has no room for.
    pub(super) const BUT_MSS: Self = Self { mss: false, window_scale: true, sack: true, timestamps: true };
    /// The window scale alone.
    pub(super) const WINDOW_SCALE: Self = Self { sack: false, timestamps: false, ..Self::BUT_MSS };

    fn of(words: &[&str]) -> Self {
        let has = |word| words.contains(&word);
        Self {
            mss: has("mss"),
            window_scale: has("wscale"),
            sack: has("sack"),
            timestamps: has("timestamps"),
        }
    }

    /// By the kind numbers of the wire.
    const fn contains(self, kind: u8) -> bool {
        match kind {
            2 => self.mss,
            3 => self.window_scale,
            4 => self.sack,
            8 => self.timestamps,
            _ => false,
        }
    }

    /// Takes these kinds, and tells whether that changed anything. What comes in is changed to what a host reads, what goes out
    /// leaves as the bytes that the middlebox made.
    pub(super) fn strip(self, mode: Mode, way: Way, options: &mut Options) -> bool {
        let before = options.clone();
        let mut bytes = options.to_bytes();
        let (mut at, mut changed) = (0, false);
        while let Some(&kind) = bytes.get(at) {
            let len = match (kind, bytes.get(at + 1)) {
                (0, _) => break,
                (1, _) => 1,
                (_, Some(&len)) if len >= 2 && at + usize::from(len) <= bytes.len() => usize::from(len),
                _ => break,
            };
            if self.contains(kind) {
                changed = true;
                match mode {
                    Mode::CorruptLength => bytes[at + 1] = 0,
                    Mode::Nop | Mode::Remove => bytes[at..at + len].fill(1),
                }
            }
            at += len;
        }
        if !changed {
            return false;
        }
        *options = match (mode, way) {
            (Mode::Remove, _) | (_, Way::In) => Options::parse(&bytes),
            (_, Way::Out) => Options { unknown: bytes, ..Options::default() },
        };
        *options != before
    }
}

#[derive(Debug)]
struct OptionStrip {
    kinds: Kinds,
    directions: Directions,
    mode: Mode,
}

impl Fault for OptionStrip {
    fn direction(&self) -> Direction {
        self.directions.first()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let mss_of_syn_alone = self.kinds.mss && self.directions == Directions::One(Direction::Upstream);
        (engine == Engine::Exec && mss_of_syn_alone).then_some(super::ANSWERS_WITH_THE_MSS_OF_THE_SYN)
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let upstream = self.directions.contains(Direction::Upstream) && pick::is_syn(at, seg, progress);
        upstream || (self.directions.contains(Direction::Downstream) && pick::is_syn_ack(at, seg))
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        match self.kinds.strip(self.mode, moment.at.way, &mut seg.options) {
            true => Verdict::Rewrite,
            false => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, refused, seg};
    use crate::wire::{Flags, Timestamps, WindowScale};

    const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);

    fn all() -> Options {
        Options {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            sack_permitted: true,
            timestamps: Some(Timestamps { val: 9, ecr: 8 }),
            ..Options::default()
        }
    }

    /// What a rule makes of the options of a segment.
    fn stripped(rule: &str, at: Point, flags: Flags) -> Options {
        let mut segment = seg(flags);
        segment.options = all();
        Flow::of(rule).judge(at, &mut segment);
        segment.options
    }

    #[test]
    fn kinds_are_left_out_of_the_syn_the_syn_ack_or_both() {
        let mss = Options { mss: Some(1460), ..Options::default() };
        let no_sack = Options { sack_permitted: false, ..all() };
        let no_mss = Options { mss: None, ..all() };
        for (rule, syn, syn_ack) in [
            ("option-strip", mss.clone(), all()),
            ("option-strip direction=downstream", all(), mss.clone()),
            ("option-strip direction=both", mss.clone(), mss),
            ("option-strip kinds=sack direction=both", no_sack.clone(), no_sack),
            ("option-strip kinds=mss direction=downstream", all(), no_mss),
            ("option-strip nth=2 direction=both", all(), all()),
        ] {
            assert_eq!(stripped(rule, pick::FROM_CLIENT, Flags::SYN), syn, "{rule}");
            assert_eq!(stripped(rule, pick::TO_CLIENT, SYN_ACK), syn_ack, "{rule}");
        }
    }

    #[test]
    fn broken_options_leave_as_the_bytes_that_they_are_and_come_in_as_they_are_read() {
        let raw = |bytes: &[u8]| Options { unknown: bytes.iter().copied().collect(), ..Options::default() };
        let nops = [2, 4, 5, 180, 1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 1, 3, 3, 7];
        let broken = [2, 4, 5, 180, 4, 2, 8, 0, 0, 0, 0, 9, 0, 0, 0, 8, 1, 3, 3, 7];
        let (nop, corrupt) = (
            "option-strip kinds=sack mode=nop direction=both",
            "option-strip kinds=timestamps mode=corrupt-length direction=both",
        );
        assert_eq!(stripped(nop, pick::TO_CLIENT, SYN_ACK), raw(&nops));
        assert_eq!(stripped(corrupt, pick::TO_CLIENT, SYN_ACK), raw(&broken));
        assert_eq!(raw(&broken).to_bytes()[..], broken, "and so they are on the wire");
        let no_sack = Options { sack_permitted: false, ..all() };
        assert_eq!(stripped(nop, pick::FROM_CLIENT, Flags::SYN), no_sack);
        // What stands behind the broken one is lost too.
        let front = Options { timestamps: None, window_scale: None, ..all() };
        assert_eq!(stripped(corrupt, pick::FROM_CLIENT, Flags::SYN), front);
    }

    #[test]
    fn exec_refuses_to_take_the_mss_out_of_the_syn_alone() {
        for (rule, refuses) in [
            ("option-strip", false),
            ("option-strip kinds=mss direction=both", false),
            ("option-strip kinds=mss direction=downstream", false),
            ("option-strip kinds=mss,sack", true),
        ] {
            assert_eq!(refused(rule, Engine::Exec).is_some(), refuses, "{rule}");
        }
    }

    #[test]
    fn without_the_option_nothing_happens_and_unknown_kinds_are_refused() {
        let mut flow = Flow::of("option-strip direction=both");
        for (at, flags) in [(pick::FROM_CLIENT, Flags::SYN), (pick::TO_CLIENT, SYN_ACK)] {
            assert_eq!(flow.judge(at, &mut seg(flags)), Verdict::Pass);
        }
        assert_eq!(flow.fired(), [""; 0]);
        assert!(error("option-strip kinds=mptcp").contains("\"mptcp\" is unknown"));
    }
}
