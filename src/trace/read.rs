//! Events out of the lines that they were written to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Name, Record, State};
use crate::time::Duration;

/// Most names that are ever read. halfopen has a few hundred; they live as long as the process.
const NAMES: usize = 4096;
/// Longest name, in bytes.
const NAME: usize = 200;

impl Record {
    /// Reads an event from its line, as `--events` writes it; fields that are not known are ignored. What JSON does not carry
    /// is not there: nanoseconds of the time; TTL, traffic class and data of segments.
    ///
    /// # Errors
    /// [`NotAnEvent`] says what is wrong with the line, or that the names in it are too many: all lines together may have
    /// 4096, of 200 bytes each.
    pub fn from_json(line: &[u8]) -> Result<Self, NotAnEvent> {
        serde_json::from_slice(line).map_err(|error| NotAnEvent::new(&error))
    }
}

/// What is wrong with a line that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnEvent {
    what: String,
    is_cut: bool,
}

impl NotAnEvent {
    fn new(error: &serde_json::Error) -> Self {
        let (text, place) =
            (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        // It only ever sees one line, so its line numbers say nothing.
        let what = match text.strip_suffix(&place) {
            Some(what) if error.is_data() || error.is_eof() => what.to_owned(),
            Some(what) => format!("{what} at column {}", error.column()),
            None => text,
        };
        Self { what, is_cut: error.is_eof() }
    }

    /// True if the line would be an event if it went on.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl fmt::Display for NotAnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NotAnEvent {}

/// The names that were read so far.
#[derive(Debug)]
struct Names {
    known: BTreeSet<Name>,
    most: usize,
}

impl Names {
    fn intern(&mut self, name: &str) -> Result<Name, String> {
        if let Some(known) = self.known.get(name) {
            return Ok(known);
        }
        if name.len() > NAME {
            return Err(format!("a name of {} bytes, at most {NAME} are read", name.len()));
        }
        if self.known.len() >= self.most {
            return Err(format!(
                "more than {} different names of faults, errors, reasons and limits",
                self.most
            ));
        }
        let new: Name = Box::leak(name.into());
        self.known.insert(new);
        Ok(new)
    }
}

static READ: Mutex<Names> = Mutex::new(Names { known: BTreeSet::new(), most: NAMES });

/// The same name, for as long as the process lives.
///
/// # Errors
/// It is longer than 200 bytes, or one too many.
pub(crate) fn intern(name: &str) -> Result<Name, String> {
    READ.lock().unwrap_or_else(PoisonError::into_inner).intern(name)
}

pub(super) fn name<'de, D: Deserializer<'de>>(d: D) -> Result<Name, D::Error> {
    intern(&String::deserialize(d)?).map_err(D::Error::custom)
}

pub(super) fn optional_name<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Name>, D::Error> {
    let name = Option::<String>::deserialize(d)?;
    name.map(|name| intern(&name).map_err(D::Error::custom)).transpose()
}

pub(super) fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(d)?).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        let state = Self::ALL.into_iter().find(|state| state.name() == name);
        state.ok_or_else(|| D::Error::custom(format_args!("{name:?} is no state of RFC 9293")))
    }
}

#[cfg(test)]
mod tests;
