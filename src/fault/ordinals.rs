//! Sets of numbers from 1, as in "the third segment and all after the tenth".

use std::fmt;
use std::str::FromStr;

/// Numbers from 1: `2`, `1,4-6`, `3..` or `any`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordinals(Vec<(u64, u64)>);

impl Ordinals {
    /// All numbers.
    #[must_use]
    pub fn any() -> Self {
        Self(vec![(1, u64::MAX)])
    }

    /// True if `n` is one of them.
    #[must_use]
    pub fn contains(&self, n: u64) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&n))
    }
}

impl FromStr for Ordinals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::any());
        }
        let number = |t: &str| t.trim().parse::<u64>().map_err(|_| format!("\"{t}\" is not a number"));
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (from, to) = if let Some(from) = part.trim().strip_suffix("..") {
                (number(from)?, u64::MAX)
            } else if let Some((from, to)) = part.split_once('-') {
                (number(from)?, number(to)?)
            } else {
                let n = number(part)?;
                (n, n)
            };
            if from == 0 {
                return Err("numbers start at 1".to_owned());
            }
            if from > to {
                return Err(format!("\"{}\" runs backwards", part.trim()));
            }
            ranges.push((from, to));
        }
        Ok(Self(ranges))
    }
}

impl fmt::Display for Ordinals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (from, to)) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match (*from, *to) {
                (1, u64::MAX) => write!(f, "any")?,
                (from, u64::MAX) => write!(f, "{from}..")?,
                (from, to) if from == to => write!(f, "{from}")?,
                (from, to) => write!(f, "{from}-{to}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_numbers_are_read_and_printed() {
        for (text, inside, outside) in [
            ("2", &[2][..], &[1, 3][..]),
            ("1,4-6", &[1, 4, 5, 6], &[2, 3, 7]),
            ("3..", &[3, 1_000_000], &[1, 2]),
            ("any", &[1, 2, u64::MAX], &[]),
        ] {
            let set: Ordinals = text.parse().unwrap();
            assert_eq!(set.to_string(), text);
            assert!(inside.iter().all(|n| set.contains(*n)), "{text}");
            assert!(!outside.iter().any(|n| set.contains(*n)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_set_of_numbers_is_said() {
        for (text, problem) in [
            ("", "\"\" is not a number"),
            ("two", "\"two\" is not a number"),
            ("0", "numbers start at 1"),
            ("6-4", "\"6-4\" runs backwards"),
            ("1,,2", "\"\" is not a number"),
        ] {
            assert_eq!(text.parse::<Ordinals>(), Err(problem.to_owned()));
        }
    }
}
