//! What a fault did, in words: the predicate to its rule as subject, in ladders and in the comments of captures.

use std::fmt;
use std::str::FromStr;

use super::Did;
use crate::time::Duration;

impl fmt::Display for Did {
    /// `drops it`, `holds it for 0.200 s`; `it` is a segment. A knob is turned from `begins` to `ends`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drops it"),
            Self::Hold(time) => write!(f, "holds it for {:.3} s", time.as_secs_f64()),
            Self::Behind(segments) => write!(f, "puts it behind {segments} later ones"),
            Self::Duplicate(copies) => write!(f, "sends it {copies} times more"),
            Self::Rewrite => f.write_str("rewrites it"),
            Self::Inject => f.write_str("injects it"),
            Self::Knob => f.write_str("begins"),
            Self::Release => f.write_str("ends"),
        }
    }
}

/// These words tell nothing that a fault does to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADeed;

impl fmt::Display for NotADeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing that a fault does to a segment")
    }
}

impl std::error::Error for NotADeed {}

impl FromStr for Did {
    type Err = NotADeed;

    /// What was done to a segment; knobs have none, and are not read.
    fn from_str(text: &str) -> Result<Self, NotADeed> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |text: &str| text.parse().map_err(|_| NotADeed);
        match words[..] {
            ["drops", "it"] => Ok(Self::Drop),
            ["holds", "it", "for", time, "s"] => {
                let seconds = time.parse().map_err(|_| NotADeed)?;
                Duration::try_from_secs_f64(seconds).map(Self::Hold).map_err(|_| NotADeed)
            }
            ["puts", "it", "behind", segments, "later", "ones"] => number(segments).map(Self::Behind),
            ["sends", "it", copies, "times", "more"] => number(copies).map(Self::Duplicate),
            ["rewrites", "it"] => Ok(Self::Rewrite),
            ["injects", "it"] => Ok(Self::Inject),
            _ => Err(NotADeed),
        }
    }
}
