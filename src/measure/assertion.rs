//! Assertions: what a run must have shown, judged at its end.
//!
//! ```text
//! expression = conjunction { "or" conjunction }
//! conjunction = term { "and" term }
//! term = "(" expression ")" | quantity relation limit
//! quantity = "flows" | "retransmissions" | "fired"
//!          | "count" "(" outcome or latency ")" | "unfinished" "(" latency ")"
//!          | "p" NUMBER "(" latency ")" | "max" "(" latency ")"
//!          | "fired" "(" rule or fault ")" | "matched" "(" rule or fault ")"
//! relation = "<" | "<=" | ">" | ">=" | "==" | "!="
//! limit = a whole number, for a time with its unit: 250ms
//! ```
//!
//! A quantile may be a lower bound, because a step that never finished is part of it. Then a comparison holds only if it
//! holds for every value that is possible; one of nothing, when there is no value, never holds.

mod parse;

use serde::Serialize;

use super::{Bound, Kind, Latency, Measure};
use crate::time::Duration;

pub use parse::Mistake;

/// A checked assertion.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    text: String,
    expression: Expression,
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    Compare(Quantity, Relation, Limit),
}

/// Something that is measured.
#[derive(Clone, Debug, PartialEq)]
enum Quantity {
    Flows,
    Retransmissions,
    FiredAtAll,
    Outcome(&'static str),
    Values(&'static str),
    Unfinished(&'static str),
    /// In percent, and as it was written.
    Quantile(f64, String, &'static str),
    Max(&'static str),
    /// Of a rule or of all rules of a fault.
    Fired(String),
    Matched(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Count(u64),
    Time(Duration),
}

/// How an assertion came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// The assertion.
    pub assertion: String,
    /// Whether it holds.
    pub holds: bool,
    /// The quantities in it, in their order, each once.
    pub observed: Vec<Observed>,
}

/// What a quantity was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observed {
    /// The quantity as in the assertion: `p99(connect)`.
    pub what: String,
    /// Its value.
    #[serde(flatten)]
    pub value: Reading,
}

/// A value that was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reading {
    /// A count.
    Count {
        /// The count.
        count: u64,
    },
    /// A time in microseconds.
    Time {
        /// The time.
        micros: u64,
        /// True if it may have been longer: a step that never finished is part of it.
        at_least: bool,
    },
    /// There was no value.
    Nothing {},
}

impl Assertion {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rules or faults that it names.
    #[must_use]
    pub fn rules(&self) -> Vec<&str> {
        let named = |quantity| match quantity {
            &Quantity::Fired(ref name) | &Quantity::Matched(ref name) => Some(name.as_str()),
            _ => None,
        };
        self.expression.quantities().into_iter().filter_map(named).collect()
    }

    /// Judges a run that has ended.
    #[must_use]
    pub fn judge(&self, measure: &Measure) -> Judgement {
        let mut observed: Vec<Observed> = Vec::new();
        for quantity in self.expression.quantities() {
            let what = quantity.written();
            if observed.iter().all(|seen| seen.what != what) {
                observed.push(Observed { what, value: quantity.read(measure) });
            }
        }
        Judgement { assertion: self.text.clone(), holds: self.expression.holds(measure), observed }
    }
}

impl Expression {
    fn holds(&self, measure: &Measure) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(measure)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(measure)),
            Self::Compare(quantity, relation, limit) => match (quantity.read(measure), *limit) {
                (Reading::Count { count }, Limit::Count(limit)) => relation.holds(count, limit, false),
                (Reading::Time { micros, at_least }, Limit::Time(limit)) => {
                    relation.holds(u128::from(micros), limit.as_micros(), at_least)
                }
                _ => false,
            },
        }
    }

    fn quantities(&self) -> Vec<&Quantity> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::quantities).collect(),
            Self::Compare(quantity, ..) => vec![quantity],
        }
    }
}

impl Relation {
    /// Whether it holds; for a lower bound, whether it holds for all values from it on.
    fn holds<T: PartialOrd>(self, value: T, limit: T, at_least: bool) -> bool {
        match self {
            Self::Less => value < limit && !at_least,
            Self::AtMost => value <= limit && !at_least,
            Self::More => value > limit,
            Self::AtLeast => value >= limit,
            Self::Equal => value == limit && !at_least,
            Self::NotEqual => value > limit || (value < limit && !at_least),
        }
    }
}

impl Quantity {
    const fn is_time(&self) -> bool {
        matches!(self, Self::Quantile(..) | Self::Max(_))
    }

    fn written(&self) -> String {
        match self {
            Self::Flows => "flows".to_owned(),
            Self::Retransmissions => "retransmissions".to_owned(),
            Self::FiredAtAll => "fired".to_owned(),
            Self::Outcome(name) | Self::Values(name) => format!("count({name})"),
            Self::Unfinished(name) => format!("unfinished({name})"),
            Self::Quantile(_, written, name) => format!("{written}({name})"),
            Self::Max(name) => format!("max({name})"),
            Self::Fired(name) => format!("fired({name})"),
            Self::Matched(name) => format!("matched({name})"),
        }
    }

    fn read(&self, measure: &Measure) -> Reading {
        let counters = measure.counters();
        let latency = |name: &str| latency(measure, name);
        let rules = |wanted: &str, count: fn(&super::RuleCount) -> u64| {
            let found = measure.rules().iter().filter(|r| &*r.rule == wanted || r.fault == wanted);
            Reading::Count { count: found.map(count).sum() }
        };
        let count = |count| Reading::Count { count };
        match self {
            Self::Flows => count(counters.flows),
            Self::Retransmissions => count(counters.retransmissions),
            Self::FiredAtAll => count(counters.fired),
            Self::Outcome(name) => {
                let found = counters.outcomes.iter().find(|(outcome, _)| outcome == name);
                count(found.map_or(0, |(_, count)| count))
            }
            Self::Values(name) => count(latency(name).map_or(0, Latency::count)),
            Self::Unfinished(name) => count(latency(name).map_or(0, Latency::unfinished_count)),
            Self::Quantile(percent, _, name) => time(latency(name).and_then(|l| l.percentile(*percent))),
            Self::Max(name) => time(latency(name).and_then(Latency::max)),
            Self::Fired(name) => rules(name, |rule| rule.fired),
            Self::Matched(name) => rules(name, |rule| rule.matched),
        }
    }
}

fn time(bound: Option<Bound>) -> Reading {
    let micros = |bound: Bound| u64::try_from(bound.value.as_micros()).unwrap_or(u64::MAX);
    bound.map_or(Reading::Nothing {}, |bound| Reading::Time {
        micros: micros(bound),
        at_least: bound.at_least,
    })
}

/// The latencies by name.
const LATENCIES: [&str; 12] = Kind::NAMES;

fn latency<'m>(measure: &'m Measure, name: &str) -> Option<&'m Latency> {
    Kind::of(name).map(|kind| measure.latencies().get(kind))
}

#[cfg(test)]
mod tests;
