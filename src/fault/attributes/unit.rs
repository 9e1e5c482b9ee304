//! Units of attributes: what they take, in words.

use crate::time::Duration;
use crate::trace::Direction;

/// What kind of value an attribute takes, with its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A length of time with its unit, `"200ms"`, from 0 to this many seconds.
    Duration {
        /// Most seconds.
        max_secs: u64,
    },
    /// A number of bytes, plain or with a unit, `"64KiB"`.
    Bytes,
    /// A whole number in this range: copies, segments, slots.
    Count {
        /// Least.
        from: u64,
        /// Most; [`u64::MAX`] is no bound.
        to: u64,
    },
    /// A whole number that may be negative, in this range: an offset of a sequence number.
    Number {
        /// Least.
        from: i64,
        /// Most.
        to: i64,
    },
    /// Bytes per second, plain, in bytes (`"125kB/s"`, `"64KiB/s"`) or in bits (`"1Mbit"`).
    Rate,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One or more of these words, joined by commas or as a list, each once.
    Words(&'static [&'static str]),
    /// `all`, or a count from 1.
    First,
    /// Numbers from 1: `2`, `"1,4-6"`, `"3.."`, `any`.
    Ordinals,
    /// A share from 0 to 1.
    Share,
    /// `any`, an address, a network (`10.0.0.0/8`), each with or without `:port` or `:from-to`.
    Peer,
}

/// `upstream` or `downstream`.
pub const DIRECTIONS: Unit = Unit::Word(&["upstream", "downstream"]);

/// `upstream`, `downstream` or `both`; [`Reader::directions`](super::Reader::directions) reads it.
pub const DIRECTIONS_BOTH: Unit = Unit::Word(&["upstream", "downstream", "both"]);

/// One direction or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// This one only.
    One(Direction),
    /// Both.
    Both,
}

impl Directions {
    /// True if `direction` is meant.
    #[must_use]
    pub fn contains(self, direction: Direction) -> bool {
        match self {
            Self::One(one) => one == direction,
            Self::Both => true,
        }
    }

    /// The direction, or upstream for both.
    #[must_use]
    pub const fn first(self) -> Direction {
        match self {
            Self::One(one) => one,
            Self::Both => Direction::Upstream,
        }
    }
}

impl Unit {
    /// The unit in a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duration { .. } => "duration",
            Self::Bytes => "bytes",
            Self::Count { .. } => "count",
            Self::Number { .. } => "number",
            Self::Rate => "rate",
            Self::Bool => "true or false",
            Self::Word(_) => "word",
            Self::Words(_) => "words",
            Self::First => "segments",
            Self::Ordinals => "numbers",
            Self::Share => "share",
            Self::Peer => "address",
        }
    }

    /// True if zero is one of its values, so that its documentation must say what zero means.
    #[must_use]
    pub const fn takes_zero(self) -> bool {
        match self {
            Self::Duration { .. } | Self::Bytes | Self::Share | Self::Rate => true,
            Self::Count { from, .. } => from == 0,
            Self::Number { from, to } => from <= 0 && to >= 0,
            Self::Bool | Self::Word(_) | Self::Words(_) | Self::First | Self::Ordinals | Self::Peer => false,
        }
    }

    /// What is allowed.
    #[must_use]
    pub fn range(self) -> String {
        match self {
            Self::Duration { max_secs } => {
                let max = humantime::format_duration(Duration::from_secs(max_secs));
                format!("0 to {max}, with a unit such as \"200ms\" or \"1.5s\"")
            }
            Self::Bytes => "0 or more bytes, such as 1000 or \"64KiB\"".to_owned(),
            Self::Count { from, to: u64::MAX } => format!("a whole number from {from}"),
            Self::Count { from, to } => format!("a whole number from {from} to {to}"),
            Self::Number { from, to } => format!("a whole number from {from} to {to}"),
            Self::Rate => "0 or more bytes per second, such as 1000, \"64KiB/s\" or \"1.5Mbit\"".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Word(words) => words.join(", "),
            Self::Words(words) => format!("one or more of {}, joined by commas", words.join(", ")),
            Self::First => "\"all\" or a count from 1".to_owned(),
            Self::Ordinals => "numbers from 1, such as 2, \"1,4-6\" or \"3..\"".to_owned(),
            Self::Share => "0 to 1".to_owned(),
            Self::Peer => "\"any\", an address or a network, such as \"10.0.0.0/8:5432\", \":80-89\" or \"[fd00::/8]:443\"".to_owned(),
        }
    }
}

/// The documentation of one attribute or bound; its reader obeys it.
#[derive(Clone, Copy, Debug)]
pub struct AttributeDoc {
    /// Name, the same everywhere.
    pub name: &'static str,
    /// Unit and range.
    pub unit: Unit,
    /// The default as one would write it; empty if there is none.
    pub default: &'static str,
    /// What zero means, empty if zero is not a value.
    pub zero: &'static str,
    /// What it does, one sentence or two.
    pub doc: &'static str,
}
