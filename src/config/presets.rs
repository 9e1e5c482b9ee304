//! Presets: rules tied to a documented incident, each a file in `config/presets` that is part of the program.
//!
//! To add one: drop its file in, and add its name to [`PRESETS`]. The tests tell what it lacks.

use serde::Deserialize;

use super::raw;
use super::rules;
use super::scale::scale;
use crate::fault::{Attributes, Error, RuleSpec, kind, nearest};

/// Name and text of each.
macro_rules! embedded {
    ($($name:literal,)+) => {
        &[$(($name, include_str!(concat!("../../config/presets/", $name, ".toml"))),)+]
    };
}

/// All presets: name and text of the file, in the order in which they are listed: by the phase of a connection.
pub const PRESETS: &[(&str, &str)] = embedded![
    "k8s-snat-race",
    "vxlan-63s",
    "ipvs-port-reuse",
    "accept-queue-full",
    "accept-queue-stall",
    "ghost-connection",
    "docker-proxy-early-accept",
    "pmtu-blackhole",
    "wscale-broken",
    "stuck-reader",
    "nagle-40ms",
    "aws-nlb-idle",
    "aws-natgw-idle",
    "azure-lb-idle",
    "azure-lb-idle-rst",
    "gcp-fw-idle",
    "dead-peer-15min",
    "asymmetric-replies-lost",
    "conntrack-invalid-rst",
    "dpi-reset",
    "keepalive-race-5s",
    "early-413",
    "half-close-broken",
    "half-closed-leak",
    "rolling-restart",
];

/// What the file of a preset says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name, that of the file.
    #[serde(skip)]
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: String,
    /// What happened to whom.
    pub incident: String,
    /// Where that is documented.
    pub source: String,
    /// What happens on the wire.
    pub wire: String,
    /// What an application does that copes.
    pub cope: String,
    /// The phase of a connection: a name of [`crate::fault::Topic`].
    pub topic: String,
    /// False if scaled times would falsify the incident, although its faults could be scaled.
    #[serde(default = "yes")]
    pub time_scale_applies: bool,
    /// Its rules, as in the config.
    pub rule: Vec<raw::Rule>,
}

const fn yes() -> bool {
    true
}

impl Preset {
    /// The preset of this name. The key path of an error is empty.
    pub fn named(name: &str) -> Result<Self, Error> {
        let Some((name, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = PRESETS.iter().map(|(known, _)| *known).collect();
            let hint = match nearest(name, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "\"halfopen presets\" lists them".to_owned(),
            };
            return Err(mistake(format!("no preset \"{name}\""), &hint));
        };
        let broken =
            |e: toml::de::Error| mistake(format!("the preset {name} is broken: {}", e.message()), "");
        Ok(Self { name, ..toml::from_str(text).map_err(broken)? })
    }

    /// Its rules, named after it.
    pub fn specs(&self) -> Result<Vec<RuleSpec>, Error> {
        let named = |(index, rule): (usize, &raw::Rule)| {
            let mut spec = rules::spec(rule)?;
            spec.name = Some(match (spec.name, index) {
                (Some(own), _) => format!("{}: {own}", self.name),
                (None, 0) => self.name.to_owned(),
                (None, _) => format!("{}#{}", self.name, index + 1),
            });
            Ok(spec)
        };
        self.rule.iter().enumerate().map(named).collect()
    }

    /// The times that a time scale scales, with their faults: `zero-window-stall: hold`.
    pub fn scales(&self) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        for mut spec in self.specs()?.into_iter().filter(|_| self.time_scale_applies) {
            let Some(kind) = kind(&spec.fault) else { continue };
            let scaled = scale(&mut spec, kind, 0.5)?;
            all.extend(scaled.iter().map(|time| format!("{}: {}", kind.name, time.attribute)));
        }
        Ok(all)
    }
}

/// A preset as it is asked for: its name, and what all its rules are to match, `stuck-reader match.server=:5432`.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The preset.
    pub preset: Preset,
    /// Stands over what its rules match.
    pub matches: Attributes,
}

impl Asked {
    /// Reads the text form.
    pub fn read(text: &str) -> Result<Self, Error> {
        let RuleSpec { name, matches, fault, attributes } = text.parse()?;
        let preset = Preset::named(&fault)?;
        if name.is_some() || !attributes.is_empty() {
            let problem =
                format!("only match.client, match.server, match.flows and match.share go with {fault}");
            return Err(mistake(
                problem,
                "for other values write its rules as --fault; \"halfopen presets NAME\" shows them",
            ));
        }
        Ok(Self { preset, matches })
    }

    /// Its rules.
    pub fn specs(&self) -> Result<Vec<RuleSpec>, Error> {
        let mut specs = self.preset.specs()?;
        for spec in &mut specs {
            spec.matches.extend(self.matches.clone());
        }
        Ok(specs)
    }
}

fn mistake(problem: String, hint: &str) -> Error {
    let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
    Error { key: String::new(), value: None, problem, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Engine, KINDS, Rule, Rules};

    #[test]
    fn every_preset_has_its_texts_and_rules_that_a_gateway_can_do() {
        let mut missing = Vec::new();
        let topics: Vec<&str> = KINDS.iter().map(|kind| kind.topic.name()).collect();
        for (name, _) in PRESETS {
            let preset = Preset::named(name).unwrap_or_else(|e| panic!("{e}"));
            let mut lacks = |what: &str, lacks: bool| {
                if lacks {
                    missing.push(format!("{name}: {what}"));
                }
            };
            let line = preset.summary.lines().count() == 1 && !preset.summary.ends_with('.');
            lacks("a summary in one line, without full stop", !line);
            let sentence = |text: &str| text.trim_end().ends_with('.') && !text.contains("  ");
            lacks("the incident, in sentences", !sentence(&preset.incident));
            lacks("the wire, in sentences", !sentence(&preset.wire));
            lacks("how to cope, in sentences", !sentence(&preset.cope));
            lacks("a source", preset.source.is_empty());
            lacks("a topic of the catalogue", !topics.contains(&&*preset.topic));
            lacks("a rule", preset.rule.is_empty());
            let rules = preset.specs().and_then(|specs| specs.into_iter().map(Rule::build).collect());
            if let Err(error) = rules.and_then(|rules| Rules::new(1, Engine::Tun, rules)) {
                lacks(&format!("rules that build: {error}"), true);
            }
        }
        assert!(missing.is_empty(), "missing:\n  {}", missing.join("\n  "));
    }

    #[test]
    fn every_file_is_in_the_list() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/presets");
        for entry in std::fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let name = file.strip_suffix(".toml").unwrap();
            assert!(PRESETS.iter().any(|(known, _)| *known == name), "{name} is not in PRESETS");
        }
    }

    #[test]
    fn the_rules_of_a_preset_are_named_after_it_and_match_what_is_asked() {
        let told = |text: &str| {
            let specs = Asked::read(text).and_then(|asked| asked.specs()).map_err(|e| e.to_string())?;
            Ok::<_, String>(specs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        for (text, expected) in [
            ("vxlan-63s", Ok("syn-drop for=63s name=vxlan-63s")),
            (
                "k8s-snat-race match.server=:5432 match.share=1",
                Ok("syn-drop first=1 match.server=:5432 match.share=1 name=k8s-snat-race; syn-drop first=1 \
                    match.server=:5432 match.share=1 match.sibling=1ms name=\"k8s-snat-race: bursts\""),
            ),
            ("vxlan-36s", Err(": no preset \"vxlan-36s\"\nhint: did you mean \"vxlan-63s\"?")),
            ("bogus", Err(": no preset \"bogus\"\nhint: \"halfopen presets\" lists them")),
            (
                "vxlan-63s for=3s",
                Err(": only match.client, match.server, match.flows and match.share go with vxlan-63s\n\
                     hint: for other values write its rules as --fault; \"halfopen presets NAME\" shows them"),
            ),
        ] {
            assert_eq!(told(text), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
        let second = Preset {
            rule: [Preset::named("vxlan-63s").unwrap().rule, Preset::named("dpi-reset").unwrap().rule]
                .concat(),
            ..Preset::named("vxlan-63s").unwrap()
        };
        let names: Vec<_> = second.specs().unwrap().into_iter().filter_map(|spec| spec.name).collect();
        assert_eq!(names, ["vxlan-63s", "vxlan-63s#2"]);
    }
}
