//! Finds the line of a key path in the text of a config file. figment knows files and keys but no lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use toml::de::{DeTable, DeValue};

use super::load::Format;

/// The line (from 1) of the key at `path`, or of its nearest parent that is there.
pub(super) fn line_of(format: Format, text: &str, path: &[String]) -> Option<usize> {
    match format {
        Format::Toml => {
            let (table, _) = DeTable::parse_recoverable(text);
            toml_offset(table.get_ref(), path).map(|offset| line_at(text, offset))
        }
        Format::Yaml => yaml_line(&serde_saphyr::from_str::<Node>(text).ok()?, path),
    }
}

/// The line (from 1) of a byte offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

fn toml_offset(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let (first, mut rest) = path.split_first()?;
    let (key, mut value) = table.iter().find(|(key, _)| key.get_ref() == first.as_str())?;
    let mut best = key.span().start;
    loop {
        match value.get_ref() {
            DeValue::Table(table) => return toml_offset(table, rest).or(Some(best)),
            DeValue::Array(array) => {
                let Some((index, after)) = rest.split_first() else { return Some(best) };
                let Some(item) = index.parse::<usize>().ok().and_then(|i| array.get(i)) else {
                    return Some(best);
                };
                (value, rest, best) = (item, after, item.span().start);
            }
            _ => return Some(best),
        }
    }
}

fn yaml_line(node: &Node, path: &[String]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (line, child) = match node {
        Node::Map(entries) => {
            let (key, value) = entries.iter().find(|(key, _)| key.value == *first)?;
            (key.referenced.line(), &value.value)
        }
        Node::List(items) => {
            let item = items.get(first.parse::<usize>().ok()?)?;
            (item.referenced.line(), &item.value)
        }
        Node::Leaf => return None,
    };
    yaml_line(child, rest).or_else(|| usize::try_from(line).ok())
}

/// A YAML document reduced to where things are.
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
    List(Vec<Spanned<Self>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
                Node::deserialize(d)
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
                IgnoredAny::deserialize(d).map(|_| Node::Leaf)
            }
        }
        d.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, text: &str, paths: &[&str]) -> Vec<Option<usize>> {
        let split = |p: &str| p.split('.').map(str::to_owned).collect::<Vec<_>>();
        paths.iter().map(|p| line_of(format, text, &split(p))).collect()
    }

    const PATHS: [&str; 6] =
        ["seed", "tcp.buffer", "rule.1.name", "rule.1.fault.fin-drop.first", "intercept.ports.1", "tcp.gone"];

    #[test]
    fn finds_the_line_of_a_key_in_toml() {
        let text = "seed = 1\n[tcp]\n\nbuffer = 2\n[intercept]\nports = [\n 1,\n 2]\n[[rule]]\nname = 'a'\n[[rule]]\nname = 'b'\nfault.fin-drop = { first = 3 }\n";
        assert_eq!(
            lines(Format::Toml, text, &PATHS),
            [Some(1), Some(4), Some(12), Some(13), Some(8), Some(2)]
        );
    }

    #[test]
    fn finds_the_line_of_a_key_in_yaml() {
        let text = "seed: 1\ntcp:\n\n  buffer: 2\nintercept:\n  ports:\n  - 1\n  - 2\nrule:\n- name: a\n- name: b\n  fault:\n    fin-drop: { first: 3 }\n";
        assert_eq!(
            lines(Format::Yaml, text, &PATHS),
            [Some(1), Some(4), Some(11), Some(13), Some(8), Some(2)]
        );
    }

    #[test]
    fn a_key_that_is_not_there_has_no_line() {
        assert_eq!(lines(Format::Toml, "seed = 1", &["tcp", "x.y"]), [None, None]);
        assert_eq!(lines(Format::Yaml, "seed: 1", &["tcp", "x.y"]), [None, None]);
    }
}
