//! The time scale: the idle times of rules made shorter, so that a test need not wait 350 s. Only times that belong to a
//! middlebox alone are scaled ([`Kind::scales`]); never silently.

use std::fmt;
use std::sync::Arc;

use crate::fault::attributes::Reader;
use crate::fault::{Error, Kind, RuleSpec, Value};
use crate::time::Duration;

/// What the time scale did to the rules of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// What the times are multiplied with; 1 leaves them.
    pub factor: f64,
    /// The times that are scaled.
    pub scaled: Vec<Scaled>,
    /// The rules that keep their times.
    pub unscaled: Vec<Arc<str>>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { factor: 1.0, scaled: Vec::new(), unscaled: Vec::new() }
    }
}

/// One time of one rule. Its `Display` is `azure-lb-idle: idle 4m becomes 2.4s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// The rule.
    pub rule: Arc<str>,
    /// The attribute or bound.
    pub attribute: &'static str,
    /// As it was written.
    pub from: Duration,
    /// As it is in force.
    pub to: Duration,
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, attribute, from, to } = self;
        write!(f, "{rule}: {attribute} {} becomes {}", written(*from), written(*to))
    }
}

/// Scales the times of a rule that has been checked. Empty if it has none that may be scaled.
pub(super) fn scale(spec: &mut RuleSpec, kind: &Kind, factor: f64) -> Result<Vec<Scaled>, Error> {
    let docs = kind.documented();
    let bounded = spec.attributes.keys().any(|key| kind.bounds.contains(&key.as_str()));
    let mut scaled = Vec::new();
    for name in kind.scales {
        // The default bound does not hold for a rule with another bound.
        if kind.bounds.contains(name) && bounded && !spec.attributes.contains_key(*name) {
            continue;
        }
        // Zero is a meaning, not a time.
        let found = Reader::new(&spec.attributes, &docs).duration(name)?;
        let Some(from) = found.filter(|from| !from.is_zero()) else { continue };
        let micros = (from.as_secs_f64() * factor * 1e6).round().max(1.0);
        let to = Duration::from_micros(micros as u64);
        scaled.push(Scaled {
            rule: spec.name.as_deref().unwrap_or(kind.name).into(),
            attribute: name,
            from,
            to,
        });
    }
    for Scaled { attribute, to, .. } in &scaled {
        spec.attributes.insert((*attribute).to_owned(), Value::Text(written(*to)));
    }
    Ok(scaled)
}

/// A time in the form of an attribute: `4m`, `2.4s`, `600ms`.
fn written(time: Duration) -> String {
    match time.as_micros() {
        micros if micros % 60_000_000 == 0 => format!("{}m", micros / 60_000_000),
        micros if micros >= 1_000_000 => format!("{}s", micros as f64 / 1e6),
        micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
        micros => format!("{micros}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{KINDS, Rule, Unit};

    fn scaled(text: &str, factor: f64) -> (String, Vec<String>) {
        let rule = text.parse().and_then(Rule::build).unwrap();
        let mut spec = rule.spec.clone();
        let scaled = scale(&mut spec, rule.kind, factor).unwrap();
        Rule::build(spec.clone()).unwrap();
        (spec.to_string(), scaled.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_idle_times_are_scaled_also_those_that_are_defaults() {
        for (rule, factor, expected, told) in [
            (
                "zero-window-stall hold=60s name=x",
                0.01,
                "zero-window-stall hold=600ms name=x",
                &["x: hold 1m becomes 600ms"][..],
            ),
            (
                "zero-window-stall",
                0.05,
                "zero-window-stall hold=1.5s",
                &["zero-window-stall: hold 30s becomes 1.5s"],
            ),
            ("rst-inject after=1h", 2.0, "rst-inject after=120m", &["rst-inject: after 60m becomes 120m"]),
            ("rst-inject after=1ms", 0.0001, "rst-inject after=1us", &["rst-inject: after 1ms becomes 1us"]),
            ("rst-inject", 0.1, "rst-inject", &[]),
            ("zero-window-stall hold=0", 0.1, "zero-window-stall hold=0", &[]),
            ("syn-drop for=63s", 0.1, "syn-drop for=63s", &[]),
        ] {
            assert_eq!(
                scaled(rule, factor),
                (expected.to_owned(), told.iter().map(|t| (*t).to_owned()).collect())
            );
        }
    }

    #[test]
    fn what_scales_is_a_documented_time() {
        for kind in KINDS {
            for name in kind.scales {
                let doc = kind.documented().into_iter().find(|doc| doc.name == *name);
                let is_time = doc.is_some_and(|doc| matches!(doc.unit, Unit::Duration { .. }));
                assert!(is_time, "{}: {name} is no time of it", kind.name);
            }
        }
    }
}
