//! What is wrong with a config, told so that it can be put right: where, which key, which value, what is allowed.

use std::fmt;
use std::path::PathBuf;

use super::units::HINT;
use crate::fault::nearest;

/// One thing that is wrong. `Display` is one line without the hint:
/// `halfopen.toml:14: rule[2].fault.syn-ack-delay.delay = "200": missing unit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the value was written.
    pub place: Place,
    /// The key path, such as `rule[2].name`; empty if the whole place is meant.
    pub key: String,
    /// The value as it was written; empty if there is none.
    pub value: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Where a value of the config was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: a default.
    #[default]
    Default,
    /// In the config file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where it is known.
        line: Option<usize>,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// On the command line, by this option.
    Option(String),
}

impl Problem {
    /// A problem from `what` or `what\nhint`.
    pub(super) fn new(place: Place, key: String, value: String, message: &str) -> Self {
        let (what, hint) = match message.split_once(HINT) {
            Some((what, hint)) => (what, Some(hint.to_owned())),
            None => (message, None),
        };
        Self { place, key, value, what: what.to_owned(), hint }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => path.display().fmt(f),
            Self::Environment(name) | Self::Option(name) => f.write_str(name),
        }
    }
}

/// `did you mean "…"?` for the nearest of the allowed names, else the list of them.
pub(super) fn suggest(wrong: &str, allowed: &[&str]) -> String {
    match nearest(wrong, allowed) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("allowed here: {}", allowed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_and_a_hint() {
        let place = Place::File { path: "a.toml".into(), line: Some(14) };
        let p =
            Problem::new(place, "rule[2].delay".into(), "\"200\"".into(), "missing unit\nwrite \"200ms\"");
        assert_eq!(p.to_string(), "a.toml:14: rule[2].delay = \"200\": missing unit");
        assert_eq!(p.hint.as_deref(), Some("write \"200ms\""));
        let p = Problem::new(Place::Default, "intercept.ports".into(), String::new(), "is empty");
        assert_eq!(p.to_string(), "intercept.ports: is empty");
        let p = Problem::new(Place::Option("--config".into()), String::new(), String::new(), "no such file");
        assert_eq!(p.to_string(), "--config: no such file");
    }

    #[test]
    fn the_nearest_name_is_proposed_only_if_it_is_near() {
        let names = ["buffer", "congestion", "retries"];
        assert_eq!(suggest("bufer", &names), "did you mean \"buffer\"?");
        assert_eq!(suggest("xyz", &names), "allowed here: buffer, congestion, retries");
    }
}
