//! The JSON Schema of the config, for editors and other programs. Keys, defaults and their meaning come from
//! `config/default.toml`, faults and their attributes from the catalogue, so it cannot be older than either.

use serde_json::{Map, Value, json};

use super::raw::Raw;
use crate::fault::{AttributeDoc, KINDS, Kind, MATCH, Unit};

/// `config/default.toml`, for what is said of each key.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let defaults = serde_json::to_value(Raw::default()).expect("the config is plain data");
    let mut properties = Map::new();
    for (key, value) in defaults.as_object().into_iter().flatten() {
        let schema = match value.as_object() {
            Some(section) => {
                let keys = section.iter().map(|(name, value)| (name.clone(), setting(key, name, value)));
                closed(keys.collect())
            }
            None => setting("", key, value),
        };
        properties.insert(key.clone(), schema);
    }
    properties.insert("rule".to_owned(), json!({ "type": "array", "items": rule() }));
    let mut schema = closed(properties);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "halfopen config".into();
    schema
}

/// An object of these keys and no others.
fn closed(properties: Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// A key outside the rules. Durations, sizes and ports are text or numbers.
fn setting(section: &str, name: &str, default: &Value) -> Value {
    let kind = match (name, default) {
        ("seed", _) => json!({ "type": ["integer", "string"] }),
        ("ports" | "inbound_ports", _) => {
            json!({ "type": ["array", "integer", "string"], "items": { "type": ["integer", "string"] } })
        }
        ("listener", _) => {
            let text = json!({ "type": "string" });
            let table =
                closed(Map::from_iter([("listen".to_owned(), text.clone()), ("upstream".to_owned(), text)]));
            json!({ "type": ["array", "string"], "items": { "anyOf": [{ "type": "string" }, table] } })
        }
        ("publish", _) => {
            json!({ "type": ["array", "integer", "string"], "items": { "type": ["integer", "string"] } })
        }
        ("source_ports", _) => json!({ "type": ["string", "integer"] }),
        ("host_loopback", _) => json!({ "type": ["boolean", "string", "integer"] }),
        ("mode", _) => json!({ "enum": ["gateway", "sidecar", "listen", "exec"] }),
        ("kind", _) => json!({ "enum": ["tun", "sockets"] }),
        ("congestion", _) => json!({ "enum": ["cubic", "new-reno"] }),
        (_, Value::Bool(_)) => json!({ "type": "boolean" }),
        (_, Value::Number(_)) => json!({ "type": "integer", "minimum": 0 }),
        ("bytes" | "buffer", _) => json!({ "type": ["integer", "string"] }),
        _ => json!({ "type": "string" }),
    };
    let mut schema = kind;
    schema["default"] = default.clone();
    if let Some(said) = said(section, name) {
        schema["description"] = said.into();
    }
    schema
}

/// What the default file says of a key.
fn said(section: &str, name: &str) -> Option<&'static str> {
    let mut current = "";
    for line in DEFAULTS.lines() {
        if let Some(header) = line.strip_prefix('[') {
            current = header.split(']').next().unwrap_or_default();
        } else if current == section
            && let Some((key, rest)) = line.split_once('=')
            && key.trim() == name
        {
            return rest.split_once('#').map(|(_, comment)| comment.trim());
        }
    }
    None
}

fn rule() -> Value {
    let faults: Map<String, Value> = KINDS.iter().map(|kind| (kind.name.to_owned(), fault(kind))).collect();
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "description": "What reports call it. Default: the fault's name." },
            "match": attributes(MATCH),
            "fault": {
                "type": "object",
                "properties": faults,
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            },
        },
        "required": ["fault"],
        "additionalProperties": false,
    })
}

fn fault(kind: &Kind) -> Value {
    let mut schema = attributes(&kind.documented());
    schema["description"] = format!("{} It {}.", kind.name, kind.summary).into();
    schema
}

fn attributes(docs: &[AttributeDoc]) -> Value {
    closed(docs.iter().map(|doc| (doc.name.to_owned(), attribute(doc))).collect())
}

fn attribute(doc: &AttributeDoc) -> Value {
    let mut schema = match doc.unit {
        Unit::Duration { .. } => json!({ "type": ["string", "integer"] }),
        Unit::Bytes | Unit::Rate => json!({ "type": ["integer", "string"] }),
        Unit::Count { from, to } if to < 1 << 53 => {
            json!({ "type": "integer", "minimum": from, "maximum": to })
        }
        Unit::Count { from, .. } => json!({ "type": "integer", "minimum": from }),
        Unit::Number { from, to } => json!({ "type": "integer", "minimum": from, "maximum": to }),
        Unit::Bool => json!({ "type": "boolean" }),
        Unit::Word(words) => json!({ "enum": words }),
        Unit::Words(words) => {
            json!({ "type": ["array", "string"], "items": { "enum": words }, "minItems": 1, "uniqueItems": true })
        }
        Unit::First => json!({ "type": ["integer", "string"], "minimum": 1 }),
        Unit::Ordinals => {
            json!({ "type": ["integer", "string", "array"], "items": { "type": ["integer", "string"] }, "minimum": 1 })
        }
        Unit::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Unit::Peer => json!({ "type": "string" }),
    };
    schema["description"] = format!("{} Allowed: {}.", doc.doc, doc.unit.range()).into();
    if !doc.default.is_empty() {
        // As one would write it; numbers and truth values as such.
        schema["default"] = serde_json::from_str(doc.default).unwrap_or_else(|_| doc.default.into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_description_and_its_default() {
        let schema = schema();
        let mut undescribed = Vec::new();
        for (section, body) in schema["properties"].as_object().unwrap() {
            let keys = match body["properties"].as_object() {
                Some(keys) => keys.iter().collect::<Vec<_>>(),
                None if section == "rule" => continue,
                None => vec![(section, body)],
            };
            undescribed.extend(
                keys.into_iter()
                    .filter(|(_, key)| !key["description"].is_string() || key["default"].is_null())
                    .map(|(name, _)| format!("{section}.{name}")),
            );
        }
        assert_eq!(undescribed, [""; 0]);
    }

    #[test]
    fn faults_have_their_attributes_and_nothing_else() {
        let schema = schema();
        let faults = &schema["properties"]["rule"]["items"]["properties"]["fault"];
        assert_eq!(faults["properties"].as_object().unwrap().len(), KINDS.len());
        let fin_drop = &faults["properties"]["fin-drop"];
        assert_eq!(fin_drop["additionalProperties"], false);
        assert_eq!(fin_drop["properties"]["direction"]["enum"], json!(["upstream", "downstream"]));
    }
}
