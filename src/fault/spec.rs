//! A rule as written: by name and attributes, not yet checked. This is the shape of config, API and command line.

use std::fmt;
use std::str::FromStr;

use super::attributes::{Attributes, Value};
use super::error::Error;

/// A rule as written. Its text form is that of the command line:
/// `fin-drop direction=downstream first=all match.flows=3.. name="no FIN"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSpec {
    /// The rule's own name; the fault's name if it has none.
    pub name: Option<String>,
    /// Which flows.
    pub matches: Attributes,
    /// The fault's name.
    pub fault: String,
    /// The fault's attributes and bounds.
    pub attributes: Attributes,
}

impl FromStr for RuleSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = words(text)?.into_iter();
        let fault = words.next().unwrap_or_default();
        if !is_name(&fault) {
            return Err(Error::key("fault", "the fault's name comes first")
                .hint("as in 'fin-drop direction=downstream first=all'"));
        }
        let mut spec = Self { fault, ..Self::default() };
        for word in words {
            let Some((key, value)) = word.split_once('=').filter(|(key, _)| is_name(key)) else {
                let problem = format!("\"{word}\" is not of the form key=value");
                return Err(
                    Error::key("fault", problem).hint("quote a value with spaces: name=\"two words\"")
                );
            };
            let before = match key.strip_prefix("match.") {
                Some(key) => spec.matches.insert(key.to_owned(), value.into()),
                None if key == "name" => spec.name.replace(value.to_owned()).map(Value::Text),
                None => spec.attributes.insert(key.to_owned(), value.into()),
            };
            if before.is_some() {
                return Err(Error::key(key, "given twice"));
            }
        }
        Ok(spec)
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Cuts at spaces outside of quotes; quotes vanish, a backslash in double quotes takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.extend(chars.next()),
                        Some(inside) => word.push(inside),
                        None => return Err(Error::key("fault", format!("a {c} is not closed in: {text}"))),
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

impl fmt::Display for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault)?;
        for (key, value) in &self.attributes {
            write!(f, " {key}={value}")?;
        }
        for (key, value) in &self.matches {
            write!(f, " match.{key}={value}")?;
        }
        match &self.name {
            Some(name) => write!(f, " name={}", Value::Text(name.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_read_and_printed() {
        for (text, printed) in [
            ("fin-drop", "fin-drop"),
            ("  fin-drop  first=all direction=downstream ", "fin-drop direction=downstream first=all"),
            (
                "syn-drop first=2 match.server=10.0.0.0/8:80 match.flows=3..",
                "syn-drop first=2 match.flows=3.. match.server=10.0.0.0/8:80",
            ),
            (r#"syn-drop a="'" b='"' c='\'"#, r#"syn-drop a="'" b="\"" c=\"#),
            ("syn-drop name='one \"in\" five' first=1", r#"syn-drop first=1 name="one \"in\" five""#),
        ] {
            let spec: RuleSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), printed);
            assert_eq!(printed.parse(), Ok(spec), "what is printed is read back");
        }
    }

    proptest::proptest! {
        /// Whatever is typed gives a rule or a mistake, and a rule is printed so that it can be typed again.
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c=.,'\"\\\\ \t0-9é-]{0,40}") {
            if let Ok(spec) = text.parse::<RuleSpec>() {
                assert_eq!(spec.to_string().parse(), Ok(spec));
            }
        }

        /// Whatever value stands at an attribute, it is taken or refused.
        #[test]
        fn any_value_is_taken_or_refused(which in 0usize..1000, value in "[0-9a-zA-Z.,:/\\[\\]é -]{0,12}") {
            let kind = &crate::fault::KINDS[which % crate::fault::KINDS.len()];
            let docs = kind.documented();
            let (match_doc, doc) = (&crate::fault::MATCH[which % crate::fault::MATCH.len()], &docs[which % docs.len()]);
            let spec = RuleSpec {
                name: None,
                matches: Attributes::from([(match_doc.name.to_owned(), value.as_str().into())]),
                fault: kind.name.to_owned(),
                attributes: Attributes::from([(doc.name.to_owned(), value.as_str().into())]),
            };
            if let Err(error) = crate::fault::Rule::build(spec) {
                assert!(error.to_string().contains("allowed: "), "{error}");
            }
        }
    }

    #[test]
    fn mistakes_in_the_text_form_are_named() {
        for (text, expected) in [
            (
                "",
                "fault: the fault's name comes first\nhint: as in 'fin-drop direction=downstream first=all'",
            ),
            (
                "first=2",
                "fault: the fault's name comes first\nhint: as in 'fin-drop direction=downstream first=all'",
            ),
            (
                "fin-drop all",
                "fault: \"all\" is not of the form key=value\nhint: quote a value with spaces: name=\"two words\"",
            ),
            ("fin-drop first=1 first=2", "first: given twice"),
            ("fin-drop name=a name=b", "name: given twice"),
            ("fin-drop name=\"open", "fault: a \" is not closed in: fin-drop name=\"open"),
        ] {
            assert_eq!(text.parse::<RuleSpec>().unwrap_err().to_string(), expected);
        }
    }
}
