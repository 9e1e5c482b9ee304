//! What is said of a segment that a fault has met: one form for writing and reading.

use std::sync::Arc;

use crate::time::Duration;
use crate::trace::{Did, intern};

/// Longest comment that is read, in bytes; anybody may have put his own into a file.
const LONGEST: usize = 1000;

/// `loss: suppressed (rule one in ten)`; a rule that is called like its fault is not named.
pub(super) fn said(rule: &str, fault: &str, did: Did) -> String {
    let deed = match did {
        Did::Drop => "suppressed".to_owned(),
        Did::Hold(time) => format!("held for {}", seconds(time)),
        Did::Behind(segments) => format!("put behind {segments} later ones"),
        Did::Duplicate(copies) => format!("followed by {copies} more"),
        Did::Rewrite => "rewritten".to_owned(),
        Did::Inject => "injected".to_owned(),
        Did::Knob => "turned a knob".to_owned(),
        Did::Release => "gave a knob back".to_owned(),
    };
    if rule == fault { format!("{fault}: {deed}") } else { format!("{fault}: {deed} (rule {rule})") }
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// What a comment tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) rule: Arc<str>,
    pub(super) fault: &'static str,
    pub(super) did: Did,
}

/// Reads a comment; `None` for one that is somebody else's.
///
/// # Errors
/// The file has too many names.
pub(super) fn told(comment: &str) -> Result<Option<Told>, String> {
    let Some((fault, deed, rule)) = parts(comment).filter(|_| comment.len() <= LONGEST) else {
        return Ok(None);
    };
    let Some(did) = did(deed) else { return Ok(None) };
    Ok(Some(Told { rule: rule.into(), fault: intern(fault)?, did }))
}

/// Fault, deed and rule.
fn parts(comment: &str) -> Option<(&str, &str, &str)> {
    let (fault, rest) = comment.split_once(": ")?;
    let (deed, rule) =
        rest.strip_suffix(')').and_then(|rest| rest.split_once(" (rule ")).unwrap_or((rest, fault));
    Some((fault, deed, rule))
}

fn did(deed: &str) -> Option<Did> {
    let words: Vec<&str> = deed.split(' ').collect();
    Some(match words[..] {
        ["suppressed"] => Did::Drop,
        ["held", "for", time, "s"] => Did::Hold(Duration::try_from_secs_f64(time.parse().ok()?).ok()?),
        ["put", "behind", segments, "later", "ones"] => Did::Behind(segments.parse().ok()?),
        ["followed", "by", copies, "more"] => Did::Duplicate(copies.parse().ok()?),
        ["rewritten"] => Did::Rewrite,
        ["injected"] => Did::Inject,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_can_be_read() {
        for did in [
            Did::Drop,
            Did::Hold(Duration::from_millis(1200)),
            Did::Behind(3),
            Did::Duplicate(2),
            Did::Rewrite,
            Did::Inject,
        ] {
            for rule in ["loss", "one in ten", "strange: suppressed (rule x)", ""] {
                let expected = Told { rule: rule.into(), fault: "loss", did };
                assert_eq!(told(&said(rule, "loss", did)), Ok(Some(expected)));
            }
        }
    }

    #[test]
    fn the_comments_of_others_are_left_alone() {
        let long = format!("loss: suppressed (rule {})", "x".repeat(1000));
        for text in
            ["", "look here", "note: look here", "loss: held for ever s", "loss: held for -1 s", &long]
        {
            assert_eq!(told(text), Ok(None), "{text}");
        }
    }
}
