//! Attributes: the named values of a rule as the user wrote them, and their typed readers. Every value is read through
//! the [`AttributeDoc`] that documents it, so that help text, default, range and code cannot disagree.

mod parse;
mod reader;
mod unit;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

pub use reader::Reader;
pub use unit::{AttributeDoc, DIRECTIONS, DIRECTIONS_BOTH, Directions, Unit};

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

#[cfg(test)]
mod tests;
