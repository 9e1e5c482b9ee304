//! Reads the text form of an assertion.

use std::fmt;
use std::str::FromStr;

use super::{Assertion, Expression, LATENCIES, Limit, Quantity, Relation};
use crate::measure::Outcomes;

/// What is wrong with an assertion, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What is allowed there.
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.what)
    }
}

impl std::error::Error for Mistake {}

const QUANTITIES: &str = "a quantity: flows, retransmissions, fired, count(OUTCOME), p99(LATENCY), max(LATENCY), \
                          unfinished(LATENCY), fired(RULE), matched(RULE)";
/// Longer than any two-character relation first.
const RELATIONS: [(&str, Relation); 6] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("==", Relation::Equal),
    ("!=", Relation::NotEqual),
    ("<", Relation::Less),
    (">", Relation::More),
];
/// Deeper than anybody writes by hand.
const DEEPEST: u32 = 64;

impl FromStr for Assertion {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        let expression = reader.expression()?;
        reader.skip_spaces();
        if reader.at < text.len() {
            return Err(reader.mistake("this is one word too many", "allowed here: and, or, the end"));
        }
        Ok(Self { text: text.trim().to_owned(), expression })
    }
}

struct Reader<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn mistake(&self, what: impl Into<String>, hint: impl Into<String>) -> Mistake {
        self.mistake_at(self.at, what, hint)
    }

    fn mistake_at(&self, at: usize, what: impl Into<String>, hint: impl Into<String>) -> Mistake {
        Mistake { column: self.text[..at].chars().count() + 1, what: what.into(), hint: hint.into() }
    }

    /// Takes `sign` if it is next.
    fn takes(&mut self, sign: &str) -> bool {
        self.skip_spaces();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    /// The word that is next: letters, digits, `.`, `_` and `-`; may be empty.
    fn word(&mut self) -> &'a str {
        self.skip_spaces();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-'));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// Takes the word `keyword` if it is next.
    fn takes_word(&mut self, keyword: &str) -> bool {
        let before = self.at;
        let found = self.word() == keyword;
        if !found {
            self.at = before;
        }
        found
    }

    fn expression(&mut self) -> Result<Expression, Mistake> {
        let mut parts = vec![self.conjunction()?];
        while self.takes_word("or") {
            parts.push(self.conjunction()?);
        }
        Ok(Expression::Any(parts))
    }

    fn conjunction(&mut self) -> Result<Expression, Mistake> {
        let mut parts = vec![self.term()?];
        while self.takes_word("and") {
            parts.push(self.term()?);
        }
        Ok(Expression::All(parts))
    }

    fn term(&mut self) -> Result<Expression, Mistake> {
        if !self.takes("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.mistake("too many parentheses", "write it with fewer"));
        }
        let inner = self.expression()?;
        self.depth -= 1;
        if self.takes(")") {
            Ok(inner)
        } else {
            Err(self.mistake("a ) is missing", "allowed here: and, or, )"))
        }
    }

    fn comparison(&mut self) -> Result<Expression, Mistake> {
        let quantity = self.quantity()?;
        let Some((_, relation)) = RELATIONS.into_iter().find(|(sign, _)| self.takes(sign)) else {
            let hint = "allowed here: <, <=, >, >=, ==, !=";
            return Err(self.mistake(format!("{} is compared with nothing", quantity.written()), hint));
        };
        let limit = self.limit(&quantity)?;
        Ok(Expression::Compare(quantity, relation, limit))
    }

    fn quantity(&mut self) -> Result<Quantity, Mistake> {
        self.skip_spaces();
        let start = self.at;
        let name = self.word();
        let argument = self.argument()?;
        let percent = name.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok());
        let Some((argument, at)) = argument else {
            return match name {
                "flows" => Ok(Quantity::Flows),
                "retransmissions" => Ok(Quantity::Retransmissions),
                "fired" => Ok(Quantity::FiredAtAll),
                "count" | "max" | "unfinished" | "matched" => {
                    Err(self.mistake_at(start, format!("{name} of what?"), format!("write {name}(NAME)")))
                }
                _ if percent.is_some() => {
                    Err(self.mistake_at(start, format!("{name} of what?"), latencies(name)))
                }
                _ => Err(self.unknown(start, name)),
            };
        };
        let latency = |what: &str| {
            let found = LATENCIES.into_iter().find(|known| *known == argument);
            found.ok_or_else(|| self.mistake_at(at, format!("no latency \"{argument}\""), latencies(what)))
        };
        let rule = |make: fn(String) -> Quantity| match argument {
            "" => Err(self.mistake_at(
                at,
                "the name of a rule or fault is missing",
                format!("write {name}(NAME)"),
            )),
            _ => Ok(make(argument.to_owned())),
        };
        match (name, percent) {
            ("max", _) => latency(name).map(Quantity::Max),
            ("unfinished", _) => latency(name).map(Quantity::Unfinished),
            ("fired", _) => rule(Quantity::Fired),
            ("matched", _) => rule(Quantity::Matched),
            ("count", _) => {
                let outcome = Outcomes::NAMES.into_iter().find(|known| *known == argument);
                let values = LATENCIES.into_iter().find(|known| *known == argument);
                outcome.map(Quantity::Outcome).or_else(|| values.map(Quantity::Values)).ok_or_else(|| {
                    let hint = format!(
                        "allowed here, outcomes: {}; latencies: {}",
                        Outcomes::NAMES.join(", "),
                        LATENCIES.join(", ")
                    );
                    self.mistake_at(at, format!("\"{argument}\" is nothing that is counted"), hint)
                })
            }
            (_, Some(percent)) if (0.0..=100.0).contains(&percent) => {
                latency(name).map(|latency| Quantity::Quantile(percent, name.to_owned(), latency))
            }
            (_, Some(_)) => {
                Err(self.mistake_at(start, format!("{name} is no percentile"), "p0 to p100, such as p99.9"))
            }
            _ => Err(self.unknown(start, name)),
        }
    }

    fn unknown(&self, at: usize, name: &str) -> Mistake {
        match name {
            "" if at >= self.text.len() => {
                self.mistake_at(at, "it ends too early", format!("allowed here: {QUANTITIES}"))
            }
            "" => self.mistake_at(at, "no quantity", format!("allowed here: {QUANTITIES}")),
            _ => self.mistake_at(
                at,
                format!("\"{name}\" is no quantity"),
                format!("allowed here: {QUANTITIES}"),
            ),
        }
    }

    /// What stands in parentheses and where, if any does: bare, or in quotes if it has a parenthesis itself.
    fn argument(&mut self) -> Result<Option<(&'a str, usize)>, Mistake> {
        if !self.takes("(") {
            return Ok(None);
        }
        self.skip_spaces();
        let start = self.at;
        let rest = self.rest();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (from, end) = match quote {
            Some(quote) => (1, rest[1..].find(quote).map(|end| end + 1)),
            None => (0, rest.find(')')),
        };
        let Some(end) = end else {
            let missing = quote.unwrap_or(')');
            return Err(self.mistake(format!("a {missing} is missing"), "such as p99(connect)"));
        };
        self.at += end + from;
        if !self.takes(")") {
            return Err(self.mistake("a ) is missing", "such as p99(connect)"));
        }
        Ok(Some((rest[from..end].trim_end(), start)))
    }

    fn limit(&mut self, quantity: &Quantity) -> Result<Limit, Mistake> {
        self.skip_spaces();
        let start = self.at;
        let word = self.word();
        let what = quantity.written();
        if quantity.is_time() {
            let time = humantime::parse_duration(word).ok().filter(|_| word.parse::<f64>().is_err());
            return time.map(Limit::Time).ok_or_else(|| {
                self.mistake_at(
                    start,
                    format!("{what} is a time"),
                    "write a number and a unit, such as 250ms or 1.5s",
                )
            });
        }
        word.parse().map(Limit::Count).map_err(|_| {
            self.mistake_at(start, format!("{what} is a count"), "write a whole number, such as 0")
        })
    }
}

fn latencies(of: &str) -> String {
    format!("write {of}(LATENCY), of {}", LATENCIES.join(", "))
}
