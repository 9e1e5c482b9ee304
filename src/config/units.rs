//! The values of the config that carry a unit. Each type has one parser, one error text with a hint, one display, and
//! accepts whatever a file or the environment can hold (`seed: 42` and `seed: "42"` are the same).

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::time::Duration;

/// Separates what is wrong from what to write instead, in the message of a parse error.
pub(super) const HINT: char = '\n';

/// A text that may also be written as a number or a boolean.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar("a text")).map(Self)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

/// A length of time, such as `200ms`, `1.5s`, `2m`. A bare number other than 0 is refused, because it has no unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(number) = text.parse::<f64>() {
            return match number {
                0.0 => Ok(Self(Duration::ZERO)),
                n if n < 0.0 => {
                    Err(format!("a time cannot be negative{HINT}write 0 or more, such as \"200ms\""))
                }
                _ => Err(format!("missing unit{HINT}write \"{text}ms\" or \"{text}s\"")),
            };
        }
        humantime::parse_duration(text).map(Self).map_err(|e| {
            format!("not a time: {e}{HINT}write a number and a unit: us, ms, s, m, h; such as \"200ms\"")
        })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes, such as `64KiB`, `1MiB`, `1500`. `k`, `M`, `G` are decimal, `Ki`, `Mi`, `Gi` binary; no unit means bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 7] = [
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "not a size{HINT}write a number and a unit: B, kB, KiB, MB, MiB, GB, GiB; such as \"1MiB\""
            )
        };
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let unit = lower[digits.len()..].trim();
        let factor = match unit {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1,
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| format!("too large{HINT}the largest size is 16 EiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = match self.0 {
            0 => ("B", 1),
            n if n % (1 << 30) == 0 => ("GiB", 1 << 30),
            n if n % (1 << 20) == 0 => ("MiB", 1 << 20),
            n if n % (1 << 10) == 0 => ("KiB", 1 << 10),
            _ => ("B", 1),
        };
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A seed: a number, or `random` for a fresh one per run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seed {
    /// A fresh one for each run; printed at start, so that the run can be repeated.
    #[default]
    Random,
    /// This one.
    Fixed(u64),
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "random" => Ok(Self::Random),
            number => number.parse().map(Self::Fixed).map_err(|_| {
                format!("not a seed{HINT}write a whole number from 0 to {}, or \"random\"", u64::MAX)
            }),
        }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::Fixed(n) => n.fmt(f),
        }
    }
}

/// An inclusive range of TCP ports, `5432` or `8000-8099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first port, from 1.
    pub first: u16,
    /// The last port, at least `first`.
    pub last: u16,
}

impl PortRange {
    /// True if the range holds the port.
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let port = |t: &str| match t.trim().parse::<u16>() {
            Ok(0) | Err(_) => Err(format!(
                "not a port or a range of ports{HINT}write a port from 1 to 65535, or a range such as \"8000-8099\""
            )),
            Ok(port) => Ok(port),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if last < first {
            return Err(format!("the range {text} is empty{HINT}write \"{last}-{first}\""));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Ports and ranges of ports: `5432`, `"5432,8000-8099"` or `[5432, "8000-8099"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<PortRange>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            range.fmt(f)?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Ports;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ports, such as [5432, \"8000-8099\"]")
            }
            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Ports, E> {
                self.visit_str(&port.to_string())
            }
            fn visit_i64<E: de::Error>(self, port: i64) -> Result<Ports, E> {
                self.visit_str(&port.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ports, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ports, A::Error> {
                let mut ports = Ports::default();
                while let Some(range) = seq.next_element::<PortRange>()? {
                    ports.0.push(range);
                }
                Ok(ports)
            }
        }
        d.deserialize_any(List)
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(&self.0)
    }
}

/// Which services of the caller's loopback `exec` makes reachable: `on`, `off`, or ports such as `5432,8000-8099`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// Those on these ports.
    Ports(Ports),
}

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = || text.parse().ok().filter(|ports: &Ports| !ports.0.is_empty()).map(Self::Ports);
        match text.trim() {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => ports().ok_or_else(|| {
                format!("neither on, off nor ports{HINT}write \"on\", \"off\", or ports such as \"5432,8000-8099\"")
            }),
        }
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("on"),
            Self::Off => f.write_str("off"),
            Self::Ports(ports) => ports.fmt(f),
        }
    }
}

/// Where metrics are served: `auto`, `off`, or an address and port such as `127.0.0.1:8474`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsAddr {
    /// `run`: 127.0.0.1:8474; `exec`: nowhere.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for MetricsAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| {
                format!("neither auto, off nor an address with a port{HINT}write \"off\", or such as \"127.0.0.1:8474\"")
            }),
        }
    }
}

impl fmt::Display for MetricsAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Reads a scalar of any type as its text.
pub(super) struct Scalar(pub(super) &'static str);

impl Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<String, E> {
        Ok(v.to_string())
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<String, E> {
        Ok(v.to_string())
    }
}

/// Deserialises through the text form.
macro_rules! from_text {
    ($($unit:ty: $what:literal),+ $(,)?) => {$(
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Scalar($what))?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}
pub(super) use from_text;

from_text! {
    Time: "a time, such as \"200ms\"",
    Size: "a size, such as \"1MiB\"",
    Seed: "a number or \"random\"",
    PortRange: "a port or a range of ports",
    Loopback: "on, off, or ports such as \"5432,8000-8099\"",
    MetricsAddr: "auto, off, or an address such as \"127.0.0.1:8474\"",
}

impl Serialize for MetricsAddr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Loopback {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Random => s.collect_str(self),
            Self::Fixed(seed) => s.serialize_u64(*seed),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last { s.serialize_u16(self.first) } else { s.collect_str(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: FromStr<Err = String> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err()
    }

    #[test]
    fn a_time_needs_a_unit_unless_it_is_zero() {
        assert_eq!("200ms".parse(), Ok(Time(Duration::from_millis(200))));
        assert_eq!("1m 30s".parse(), Ok(Time(Duration::from_secs(90))));
        assert_eq!("0".parse(), Ok(Time(Duration::ZERO)));
        assert_eq!(error::<Time>("200"), "missing unit\nwrite \"200ms\" or \"200s\"");
        assert!(error::<Time>("-1").starts_with("a time cannot be negative"));
        assert!(error::<Time>("200 parsecs").starts_with("not a time: "));
        assert!(error::<Time>("").starts_with("not a time: "));
    }

    #[test]
    fn a_size_is_bytes_unless_it_says_otherwise() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("1500B", 1500),
            ("64KiB", 65_536),
            ("64 kb", 64_000),
            ("1GiB", 1 << 30),
            ("4mib", 4 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "x", "1.5MiB", "5 kg", "-1", "MiB", "1k"] {
            assert!(error::<Size>(text).starts_with("not a size"), "{text}");
        }
        assert!(error::<Size>("99999999999GiB").starts_with("too large"));
    }

    #[test]
    fn a_size_is_printed_so_that_it_reads_back() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, 3 << 30, (1 << 20) + 1] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }

    #[test]
    fn ports_are_single_or_ranges_and_never_zero() {
        assert_eq!("80".parse(), Ok(PortRange { first: 80, last: 80 }));
        assert_eq!("8000-8099".parse(), Ok(PortRange { first: 8000, last: 8099 }));
        assert_eq!("80, 443,8000-8001".parse::<Ports>().unwrap().to_string(), "80,443,8000-8001");
        assert_eq!(error::<PortRange>("9-8"), "the range 9-8 is empty\nwrite \"8-9\"");
        for text in ["0", "65536", "http", "1-", "-1", "1-2-3"] {
            assert!(error::<PortRange>(text).starts_with("not a port"), "{text}");
        }
    }

    #[test]
    fn the_callers_loopback_is_on_off_or_some_ports() {
        for text in ["on", "off", "5432", "5432,8000-8099"] {
            assert_eq!(text.parse::<Loopback>().unwrap().to_string(), text);
        }
        for text in ["", "yes", "0", "5432,x"] {
            assert!(error::<Loopback>(text).starts_with("neither on, off nor ports\n"), "{text}");
        }
    }

    #[test]
    fn a_seed_is_a_number_or_random() {
        assert_eq!("random".parse(), Ok(Seed::Random));
        assert_eq!("42".parse(), Ok(Seed::Fixed(42)));
        assert!(error::<Seed>("-1").starts_with("not a seed"));
    }
}
