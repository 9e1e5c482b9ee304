//! What is said of a segment that a fault has met: one form for writing and reading.

use std::sync::Arc;

use crate::trace::{Did, intern};

/// Longest comment that is read, in bytes; anybody may have put his own into a file.
const LONGEST: usize = 1000;

/// `loss: drops it (rule one in ten)`; a rule that is called like its fault is not named.
pub(super) fn said(rule: &str, fault: &str, did: Did) -> String {
    if rule == fault { format!("{fault}: {did}") } else { format!("{fault}: {did} (rule {rule})") }
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
    let Ok(did) = deed.parse() else { return Ok(None) };
    Ok(Some(Told { rule: rule.into(), fault: intern(fault)?, did }))
}

/// Fault, deed and rule.
fn parts(comment: &str) -> Option<(&str, &str, &str)> {
    let (fault, rest) = comment.split_once(": ")?;
    let (deed, rule) =
        rest.strip_suffix(')').and_then(|rest| rest.split_once(" (rule ")).unwrap_or((rest, fault));
    Some((fault, deed, rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

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
            for rule in ["loss", "one in ten", "strange: drops it (rule x)", ""] {
                let expected = Told { rule: rule.into(), fault: "loss", did };
                assert_eq!(told(&said(rule, "loss", did)), Ok(Some(expected)));
            }
        }
    }

    #[test]
    fn the_comments_of_others_are_left_alone() {
        let long = format!("loss: drops it (rule {})", "x".repeat(1000));
        for text in [
            "",
            "look here",
            "note: look here",
            "loss: holds it for ever s",
            "loss: holds it for -1 s",
            &long,
        ] {
            assert_eq!(told(text), Ok(None), "{text}");
        }
    }
}
