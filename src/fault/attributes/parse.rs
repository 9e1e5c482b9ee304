//! From a value to what it means, or to what is wrong with it.

use super::{AttributeDoc, Value};
use crate::fault::error::{Error, nearest};
use crate::time::Duration;

/// What is wrong with a value.
pub(super) struct Problem {
    what: String,
    hint: Option<String>,
}

impl Problem {
    pub(super) fn says(what: String) -> Self {
        Self { what, hint: None }
    }

    pub(super) fn not(expected: &str) -> Self {
        Self::says(format!("not {expected}"))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn near(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.hint(format!("did you mean \"{name}\"?")),
            None => self,
        }
    }

    pub(super) fn about(self, value: &Value, doc: &AttributeDoc) -> Error {
        let Self { what, hint } = self;
        let error = Error::value(doc.name, value, format!("{what}; allowed: {}", doc.unit.range()));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

pub(super) fn duration(value: &Value, max: Duration) -> Result<Duration, Problem> {
    let text = match value {
        Value::Bool(_) => return Err(Problem::not("a duration")),
        value => value.text(),
    };
    if let Ok(number) = text.parse::<f64>()
        && number.is_finite()
    {
        if number == 0.0 {
            return Ok(Duration::ZERO);
        }
        return Err(
            Problem::says("missing unit".to_owned()).hint(format!("write \"{text}ms\" or \"{text}s\""))
        );
    }
    match humantime::parse_duration(&text) {
        Ok(duration) if duration > max => Err(Problem::says("too long".to_owned())),
        Ok(duration) => Ok(duration),
        Err(_) => Err(Problem::not("a duration")),
    }
}

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

pub(super) fn bytes(value: &Value) -> Result<u64, Problem> {
    let text = value.text();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| Problem::not("a number of bytes"))?;
    let suffix = text[digits.len()..].trim_start();
    if suffix.is_empty() {
        return Ok(number);
    }
    let names = SIZES.map(|(name, _)| name);
    let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == suffix) else {
        let hint = nearest(suffix, &names).map(|near| format!("did you mean \"{number}{near}\"?"));
        let hint = hint.unwrap_or_else(|| format!("the units are {}", names.join(", ")));
        return Err(Problem::says(format!("unknown unit \"{suffix}\"")).hint(hint));
    };
    number.checked_mul(*factor).ok_or_else(|| Problem::says("too large".to_owned()))
}

/// The units of a rate, in eighths of a byte (bits) per second.
const RATES: [(&str, u64); 12] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
    ("B/s", 8),
    ("kB/s", 8_000),
    ("KB/s", 8_000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
];

/// Bytes per second. Fractions of a byte are cut off.
pub(super) fn rate(value: &Value) -> Result<u64, Problem> {
    let text = value.text();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let number = digits.parse::<f64>().ok().filter(|n| plain && n.is_finite());
    let number = number.ok_or_else(|| Problem::not("a number of bytes per second"))?;
    let suffix = text[digits.len()..].trim();
    // "1Mbit" and "1Mbit/s" are the same.
    let unit = suffix.strip_suffix("bit/s").map(|scale| format!("{scale}bit"));
    let unit = unit.as_deref().unwrap_or(suffix);
    let bits = match RATES.iter().find(|(name, _)| *name == unit) {
        Some((_, bits)) => *bits,
        None if unit.is_empty() => 8,
        None => {
            let names = RATES.map(|(name, _)| name);
            let whole = format!("{suffix}/s");
            let near = names.iter().find(|name| **name == whole).copied().or_else(|| nearest(suffix, &names));
            let hint = match near {
                // Megabytes to some tools and megabits to others.
                _ if suffix.to_lowercase().ends_with("ps") => "write \"Mbit\" or \"MB/s\"".to_owned(),
                Some(near) => format!("did you mean \"{digits}{near}\"?"),
                None => format!("the units are {}", names.join(", ")),
            };
            return Err(Problem::says(format!("unknown unit \"{suffix}\"")).hint(hint));
        }
    };
    let bytes = number * bits as f64 / 8.0;
    match bytes {
        _ if number > 0.0 && bytes < 1.0 => Err(Problem::says("less than a byte per second".to_owned())),
        _ if bytes > 1e15 => Err(Problem::says("too large".to_owned())),
        bytes => Ok(bytes as u64),
    }
}

/// A whole number from `from` to `to`, decimal or, after `0x`, hexadecimal.
pub(super) fn count(value: &Value, from: u64, to: u64) -> Result<u64, Problem> {
    let text = value.text();
    // Sequence numbers are often written so.
    let hex = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
    match hex.map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16)) {
        Ok(n) if n < from => Err(Problem::says("too small".to_owned())),
        Ok(n) if n > to => Err(Problem::says("too large".to_owned())),
        Ok(n) => Ok(n),
        Err(_) => Err(Problem::not("a whole number")),
    }
}

/// A whole number from `from` to `to`, either of which may be negative.
pub(super) fn number(value: &Value, from: i64, to: i64) -> Result<i64, Problem> {
    match value.text().parse::<i64>() {
        Ok(n) if n < from => Err(Problem::says("too small".to_owned())),
        Ok(n) if n > to => Err(Problem::says("too large".to_owned())),
        Ok(n) => Ok(n),
        Err(_) => Err(Problem::not("a whole number")),
    }
}

/// Some of `known`, in the order in which they are written.
pub(super) fn words(value: &Value, known: &[&'static str]) -> Result<Vec<&'static str>, Problem> {
    let text = value.text();
    let mut words: Vec<&'static str> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let Some(word) = known.iter().find(|word| **word == part) else {
            return Err(Problem::says(format!("\"{part}\" is unknown")).near(nearest(part, known)));
        };
        if words.contains(word) {
            return Err(Problem::says(format!("\"{part}\" is given twice")));
        }
        words.push(word);
    }
    Ok(words)
}
