//! Attributes: the named values of a rule as the user wrote them, and their typed readers. Every value is read through
//! the [`AttributeDoc`] that documents it, so that help text, default, range and code cannot disagree.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::error::{Error, nearest};
use super::ordinals::Ordinals;
use crate::time::Duration;
use crate::trace::Direction;

/// One value as written in a config file, a request or on the command line (where all are text).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Anything else.
    Text(String),
}

impl Value {
    /// The value as text, without quotes.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            value => value.to_string(),
        }
    }
}

/// Names and values, in the order of their names.
pub type Attributes = BTreeMap<String, Value>;

impl fmt::Display for Value {
    /// Text is bare where the command line can read it so, else in double quotes with `\"` and `\\` inside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => v.fmt(f),
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v)
                if v.is_empty() || v.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')) =>
            {
                write!(f, "\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\""))
            }
            Self::Text(v) => v.fmt(f),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, a number, text or a list of these")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
        i64::try_from(v).map(Value::Int).map_err(|_| E::custom(format_args!("{v} is too large")))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }
    /// `[1, 3]` is another way to write `"1,3"`.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            parts.push(value.text());
        }
        Ok(Value::Text(parts.join(",")))
    }
}

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
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
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

impl Unit {
    /// The unit in a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duration { .. } => "duration",
            Self::Bytes => "bytes",
            Self::Bool => "true or false",
            Self::Word(_) => "word",
            Self::First => "segments",
            Self::Ordinals => "numbers",
            Self::Share => "share",
            Self::Peer => "address",
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
            Self::Bool => "true or false".to_owned(),
            Self::Word(words) => words.join(", "),
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

/// Reads given attributes through their documentation.
pub struct Reader<'a> {
    given: &'a Attributes,
    docs: &'a [AttributeDoc],
}

impl<'a> Reader<'a> {
    /// A reader of `given`, whose names must be among `docs`.
    #[must_use]
    pub const fn new(given: &'a Attributes, docs: &'a [AttributeDoc]) -> Self {
        Self { given, docs }
    }

    /// The value and what is said about it; the default where none was given, `None` where there is no default.
    fn look(&self, name: &str) -> Option<(Value, &'a AttributeDoc)> {
        let doc = self.docs.iter().find(|d| d.name == name).expect("only documented attributes are read");
        let given = self.given.get(name).cloned();
        let value = given.or_else(|| (!doc.default.is_empty()).then(|| doc.default.into()))?;
        Some((value, doc))
    }

    fn read<T>(&self, name: &str, parse: impl Fn(&Value) -> Result<T, Problem>) -> Result<Option<T>, Error> {
        let Some((value, doc)) = self.look(name) else { return Ok(None) };
        parse(&value).map(Some).map_err(|problem| problem.about(&value, doc))
    }

    /// A length of time.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, Error> {
        let max = self.docs.iter().find_map(|d| match d.unit {
            Unit::Duration { max_secs } if d.name == name => Some(Duration::from_secs(max_secs)),
            _ => None,
        });
        self.read(name, |value| parse_duration(value, max.unwrap_or(Duration::MAX)))
    }

    /// A number of bytes.
    pub fn bytes(&self, name: &str) -> Result<Option<u64>, Error> {
        self.read(name, parse_bytes)
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        self.read(name, |value| match value {
            Value::Bool(v) => Ok(*v),
            Value::Text(t) => t.parse().map_err(|_| Problem::not("true or false")),
            _ => Err(Problem::not("true or false")),
        })
    }

    /// One of the words of its [`Unit::Word`].
    pub fn word(&self, name: &str) -> Result<Option<&'static str>, Error> {
        let Some((value, doc)) = self.look(name) else { return Ok(None) };
        let Unit::Word(words) = doc.unit else { unreachable!("{name} is documented as a word") };
        let text = value.text();
        match words.iter().find(|w| **w == text) {
            Some(word) => Ok(Some(word)),
            None => {
                Err(Problem::not("one of the known words").near(nearest(&text, words)).about(&value, doc))
            }
        }
    }

    /// A direction.
    pub fn direction(&self, name: &str) -> Result<Direction, Error> {
        Ok(match self.word(name)? {
            Some("downstream") => Direction::Downstream,
            _ => Direction::Upstream,
        })
    }

    /// `all` (`None`) or a count from 1.
    pub fn first(&self, name: &str) -> Result<Option<u64>, Error> {
        let first = self.read(name, |value| match value.text().as_str() {
            "all" => Ok(None),
            text => match text.parse::<u64>() {
                Ok(n) if n > 0 => Ok(Some(n)),
                Ok(_) => Err(Problem::not("a count from 1").hint("leave the rule out to never act")),
                Err(_) => Err(Problem::not("a count").near(nearest(text, &["all"]))),
            },
        })?;
        Ok(first.flatten())
    }

    /// Numbers from 1.
    pub fn ordinals(&self, name: &str) -> Result<Option<Ordinals>, Error> {
        self.read(name, |value| value.text().parse().map_err(Problem::says))
    }

    /// A share from 0 to 1.
    pub fn share(&self, name: &str) -> Result<Option<f64>, Error> {
        self.read(name, |value| match value.text().parse::<f64>() {
            Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
            Ok(p) if p > 1.0 && p <= 100.0 => {
                Err(Problem::not("a share from 0 to 1").hint(format!("{p} percent is {}", p / 100.0)))
            }
            _ => Err(Problem::not("a share from 0 to 1")),
        })
    }

    /// A value that is right by itself and wrong with the others.
    pub(super) fn wrong(&self, name: &str, why: &str) -> Error {
        match self.look(name) {
            Some((value, doc)) => Problem::says(why.to_owned()).about(&value, doc),
            None => Error::key(name, why),
        }
    }

    /// An address pattern.
    pub fn peer(&self, name: &str) -> Result<Option<super::peer::Peer>, Error> {
        self.read(name, |value| value.text().parse().map_err(Problem::says))
    }
}

/// What is wrong with a value.
struct Problem {
    what: String,
    hint: Option<String>,
}

impl Problem {
    fn says(what: String) -> Self {
        Self { what, hint: None }
    }

    fn not(expected: &str) -> Self {
        Self::says(format!("not {expected}"))
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn near(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.hint(format!("did you mean \"{name}\"?")),
            None => self,
        }
    }

    fn about(self, value: &Value, doc: &AttributeDoc) -> Error {
        let Self { what, hint } = self;
        let error = Error::value(doc.name, value, format!("{what}; allowed: {}", doc.unit.range()));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

fn parse_duration(value: &Value, max: Duration) -> Result<Duration, Problem> {
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

fn parse_bytes(value: &Value) -> Result<u64, Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &[AttributeDoc] = &[
        doc("delay", Unit::Duration { max_secs: 300 }, "200ms"),
        doc("size", Unit::Bytes, ""),
        doc("on", Unit::Bool, "true"),
        doc("direction", DIRECTIONS, "downstream"),
        doc("first", Unit::First, ""),
        doc("nth", Unit::Ordinals, ""),
        doc("share", Unit::Share, ""),
        doc("server", Unit::Peer, "any"),
    ];

    const fn doc(name: &'static str, unit: Unit, default: &'static str) -> AttributeDoc {
        AttributeDoc { name, unit, default, zero: "", doc: "" }
    }

    fn given(name: &str, value: Value) -> Attributes {
        Attributes::from([(name.to_owned(), value)])
    }

    #[test]
    fn defaults_come_from_the_documentation() {
        let none = Attributes::new();
        let reader = Reader::new(&none, DOCS);
        assert_eq!(reader.duration("delay"), Ok(Some(Duration::from_millis(200))));
        assert_eq!(reader.bytes("size"), Ok(None));
        assert_eq!(reader.flag("on"), Ok(Some(true)));
        assert_eq!(reader.direction("direction"), Ok(Direction::Downstream));
        assert_eq!(reader.first("first"), Ok(None));
    }

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        for (text, millis) in [("1.5s", 1500), ("200ms", 200), ("0", 0), ("2min", 120_000), ("300s", 300_000)]
        {
            let a = given("delay", text.into());
            let read = Reader::new(&a, DOCS).duration("delay");
            assert_eq!(read, Ok(Some(Duration::from_millis(millis))), "{text}");
        }
        for (text, bytes) in [("64KiB", 65_536), ("1000", 1000), ("1 MB", 1_000_000), ("0", 0), ("7B", 7)] {
            let a = given("size", text.into());
            assert_eq!(Reader::new(&a, DOCS).bytes("size"), Ok(Some(bytes)), "{text}");
        }
        let a = given("size", Value::Int(65_536));
        assert_eq!(Reader::new(&a, DOCS).bytes("size"), Ok(Some(65_536)));
    }

    #[test]
    fn errors_name_key_value_what_is_allowed_and_the_nearest_name() {
        let rows: [(&str, Value, &str); 12] = [
            (
                "delay",
                Value::Int(200),
                "delay = 200: missing unit; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"\nhint: write \"200ms\" or \"200s\"",
            ),
            (
                "delay",
                "301s".into(),
                "delay = \"301s\": too long; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"",
            ),
            (
                "delay",
                "soon".into(),
                "delay = \"soon\": not a duration; allowed: 0 to 5m, with a unit such as \"200ms\" or \"1.5s\"",
            ),
            (
                "size",
                "64kib".into(),
                "size = \"64kib\": unknown unit \"kib\"; allowed: 0 or more bytes, such as 1000 or \"64KiB\"\nhint: did you mean \"64KiB\"?",
            ),
            (
                "size",
                Value::Int(-1),
                "size = -1: not a number of bytes; allowed: 0 or more bytes, such as 1000 or \"64KiB\"",
            ),
            (
                "size",
                "99999999999GiB".into(),
                "size = \"99999999999GiB\": too large; allowed: 0 or more bytes, such as 1000 or \"64KiB\"",
            ),
            ("on", "yes".into(), "on = \"yes\": not true or false; allowed: true or false"),
            (
                "direction",
                "downsteam".into(),
                "direction = \"downsteam\": not one of the known words; allowed: upstream, downstream\nhint: did you mean \"downstream\"?",
            ),
            (
                "first",
                Value::Int(0),
                "first = 0: not a count from 1; allowed: \"all\" or a count from 1\nhint: leave the rule out to never act",
            ),
            (
                "nth",
                "0".into(),
                "nth = \"0\": numbers start at 1; allowed: numbers from 1, such as 2, \"1,4-6\" or \"3..\"",
            ),
            (
                "share",
                Value::Int(20),
                "share = 20: not a share from 0 to 1; allowed: 0 to 1\nhint: 20 percent is 0.2",
            ),
            (
                "server",
                "10.0.0.0/33".into(),
                "server = \"10.0.0.0/33\": \"10.0.0.0/33\" is neither an address nor a network; allowed: \"any\", an address or a network, such as \"10.0.0.0/8:5432\", \":80-89\" or \"[fd00::/8]:443\"",
            ),
        ];
        for (name, value, expected) in rows {
            assert_eq!(error(&given(name, value), name), expected);
        }
    }

    /// Reads the attribute by the unit of its documentation.
    fn error(given: &Attributes, name: &str) -> String {
        let r = Reader::new(given, DOCS);
        let read = match name {
            "delay" => r.duration(name).map(|_| ()),
            "size" => r.bytes(name).map(|_| ()),
            "on" => r.flag(name).map(|_| ()),
            "direction" => r.direction(name).map(|_| ()),
            "first" => r.first(name).map(|_| ()),
            "nth" => r.ordinals(name).map(|_| ()),
            "share" => r.share(name).map(|_| ()),
            _ => r.peer(name).map(|_| ()),
        };
        read.unwrap_err().to_string()
    }

    #[test]
    fn values_come_from_json_and_lists_are_another_way_to_write_commas() {
        let json = r#"{"a": true, "b": 2, "c": 0.5, "d": "x", "e": [1, "4-6"]}"#;
        let a: Attributes = serde_json::from_str(json).unwrap();
        let text: Vec<String> = a.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text.join(" "), "a=true b=2 c=0.5 d=x e=1,4-6");
        let error = serde_json::from_str::<Value>(r#"{"x": 1}"#).unwrap_err().to_string();
        assert!(error.contains("expected true, false, a number, text or a list of these"), "{error}");
    }
}
