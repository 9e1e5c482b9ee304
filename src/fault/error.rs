//! What a user's rule can have wrong, in one line and a hint.

use std::fmt;

use super::attributes::Value;

/// A mistake in a rule: the key path, the value, what is allowed, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// Path of the key, as in `fault.fin-drop.direction`.
    pub key: String,
    /// The value as it was written, if there is one.
    pub value: Option<Value>,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Error {
    /// A wrong key.
    pub(super) fn key(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, problem: problem.into(), hint: None }
    }

    /// A wrong value.
    pub(super) fn value(key: impl Into<String>, value: &Value, problem: impl Into<String>) -> Self {
        Self { key: key.into(), value: Some(value.clone()), problem: problem.into(), hint: None }
    }

    /// An unknown name at `key`, one of `known` is meant.
    pub(super) fn unknown(key: impl Into<String>, what: &str, name: &str, known: &[&str]) -> Self {
        let error = Self::key(key, format!("unknown {what} \"{name}\"; known: {}", known.join(", ")));
        match nearest(name, known) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    }

    /// An unknown fault; there are too many to list them.
    pub(super) fn unknown_fault(name: &str, known: &[&str]) -> Self {
        let error = Self::key("fault", format!("unknown fault \"{name}\"; `halfopen faults` lists them"));
        match nearest(name, known) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same mistake seen from further up: `rule[2]` before `fault.fin-drop`.
    #[must_use]
    pub fn under(self, parent: &str) -> Self {
        let key = if self.key.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.key) };
        Self { key, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.value {
            Some(Value::Text(text)) => write!(f, " = {text:?}")?,
            Some(value) => write!(f, " = {value}")?,
            None => {}
        }
        write!(f, ": {}", self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The known name that was probably meant, if one is near enough.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let best = known.iter().map(|k| (distance(&name, &k.to_lowercase()), *k)).min_by_key(|(d, _)| *d);
    best.filter(|(d, k)| *d <= k.len().max(name.len()) / 3).map(|(_, k)| k)
}

/// Edits between two words: insert, delete, replace, swap two neighbours, each 1.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replace = rows[i][j] + usize::from(x != y);
            let mut best = replace.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_only_when_near() {
        let known = ["syn-drop", "syn-ack-delay", "fin-drop"];
        for (name, near) in [
            ("syn-drp", Some("syn-drop")),
            ("synack-delay", Some("syn-ack-delay")),
            ("FIN-DROP", Some("fin-drop")),
            ("window", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
        for (a, b, edits) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("frist", "first", 1)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
        }
    }
}
