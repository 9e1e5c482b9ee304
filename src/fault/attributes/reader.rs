//! Typed readers of attributes.

use super::parse::{self, Problem};
use super::{AttributeDoc, Attributes, Directions, Unit, Value};
use crate::fault::error::{Error, nearest};
use crate::fault::ordinals::Ordinals;
use crate::fault::peer::Peer;
use crate::time::Duration;
use crate::trace::Direction;

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
        self.read(name, |value| parse::duration(value, max.unwrap_or(Duration::MAX)))
    }

    /// A number of bytes.
    pub fn bytes(&self, name: &str) -> Result<Option<u64>, Error> {
        self.read(name, parse::bytes)
    }

    /// A whole number in the range of its [`Unit::Count`].
    pub fn count(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some((value, doc)) = self.look(name) else { return Ok(None) };
        let Unit::Count { from, to } = doc.unit else { unreachable!("{name} is documented as a count") };
        parse::count(&value, from, to).map(Some).map_err(|problem| problem.about(&value, doc))
    }

    /// A whole number in the range of its [`Unit::Number`].
    pub fn number(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some((value, doc)) = self.look(name) else { return Ok(None) };
        let Unit::Number { from, to } = doc.unit else { unreachable!("{name} is documented as a number") };
        parse::number(&value, from, to).map(Some).map_err(|problem| problem.about(&value, doc))
    }

    /// Bytes per second.
    pub fn rate(&self, name: &str) -> Result<Option<u64>, Error> {
        self.read(name, parse::rate)
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

    /// Some of the words of its [`Unit::Words`], at least one, each once, in the order in which they were written.
    pub fn words(&self, name: &str) -> Result<Option<Vec<&'static str>>, Error> {
        let Some((value, doc)) = self.look(name) else { return Ok(None) };
        let Unit::Words(known) = doc.unit else { unreachable!("{name} is documented as words") };
        parse::words(&value, known).map(Some).map_err(|problem| problem.about(&value, doc))
    }

    /// A direction.
    pub fn direction(&self, name: &str) -> Result<Direction, Error> {
        Ok(match self.word(name)? {
            Some("downstream") => Direction::Downstream,
            _ => Direction::Upstream,
        })
    }

    /// A direction or both.
    pub fn directions(&self, name: &str) -> Result<Directions, Error> {
        Ok(match self.word(name)? {
            Some("both") => Directions::Both,
            Some("downstream") => Directions::One(Direction::Downstream),
            _ => Directions::One(Direction::Upstream),
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

    /// The value as it is written.
    pub(in crate::fault) fn text(&self, name: &str) -> String {
        self.look(name).map_or(String::new(), |(value, _)| value.text())
    }

    /// A value that is right by itself and wrong with the others.
    pub(in crate::fault) fn wrong(&self, name: &str, why: &str) -> Error {
        match self.look(name) {
            Some((value, doc)) => Problem::says(why.to_owned()).about(&value, doc),
            None => Error::key(name, why),
        }
    }

    /// An address pattern.
    pub fn peer(&self, name: &str) -> Result<Option<Peer>, Error> {
        self.read(name, |value| value.text().parse().map_err(Problem::says))
    }
}
