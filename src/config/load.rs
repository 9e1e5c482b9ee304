//! Puts the layers of the config on each other: defaults, one file, the environment, the command line. Later layers win; a
//! list replaces the list below it. The only user of figment, which remembers where each value came from.

use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{Place, Problem, suggest};
use super::locate::{line_at, line_of};
use super::raw::Raw;

const PREFIX: &str = "HALFOPEN_";
const CONFIG_VARIABLE: &str = "HALFOPEN_CONFIG";

/// How a config file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Yaml,
}

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The file of `--config`; without it the file is looked for.
    pub file: Option<PathBuf>,
    /// No file, also if there is one where it is looked for.
    pub no_file: bool,
    /// The environment; only variables that begin with `HALFOPEN_` count.
    pub environment: Vec<(String, String)>,
    /// Options of the command line that stand for keys.
    pub options: Vec<OptionValue>,
    /// Presets of the command line in their text form, after those of the file.
    pub presets: Vec<String>,
    /// Rules of the command line in their text form, after all others.
    pub rules: Vec<String>,
    /// A time scale that changes nothing is no mistake.
    pub scale_if_possible: bool,
}

/// An option of the command line that stands for a key.
#[derive(Clone, Debug)]
pub struct OptionValue {
    /// As it is written, `--seed`.
    pub option: &'static str,
    /// The key, `seed` or `intercept.mode`.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
}

/// The layers on each other, and where each value came from.
#[derive(Debug)]
pub struct Layers {
    /// The values.
    pub raw: Raw,
    /// Presets of the command line in their text form, after those of [`Raw::preset`].
    pub presets: Vec<String>,
    /// Rules of the command line in their text form, after all others.
    pub rules: Vec<String>,
    /// A time scale that changes nothing is no mistake.
    pub scale_if_possible: bool,
    value: Value,
    figment: Figment,
    file: Option<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    format: Format,
    text: String,
}

/// The config file: `--config`, else `$HALFOPEN_CONFIG`, else the first that exists of `./halfopen.{toml,yaml,yml}`,
/// `$XDG_CONFIG_HOME/halfopen/config.*` (`~/.config` if unset) and `/etc/halfopen/config.*`.
fn find(request: &Request) -> Result<Option<PathBuf>, Vec<Problem>> {
    if request.no_file {
        return Ok(None);
    }
    let variable = |name: &str| request.environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let named = match (&request.file, variable(CONFIG_VARIABLE)) {
        (Some(path), _) => Some((path.clone(), Place::Option("--config".to_owned()))),
        (None, Some(path)) => Some((path.into(), Place::Environment(CONFIG_VARIABLE.to_owned()))),
        (None, None) => None,
    };
    if let Some((path, place)) = named {
        let missing = || {
            let what = format!("no file at {}\ngive the path of a TOML or YAML file", path.display());
            vec![Problem::new(place, String::new(), String::new(), &what)]
        };
        return if path.is_file() { Ok(Some(path)) } else { Err(missing()) };
    }
    let home = match (variable("XDG_CONFIG_HOME"), variable("HOME")) {
        (Some(config), _) => Some(PathBuf::from(config)),
        (None, Some(home)) => Some(Path::new(home).join(".config")),
        (None, None) => None,
    };
    let stems = [
        Some(PathBuf::from("halfopen")),
        home.map(|home| home.join("halfopen/config")),
        Some(PathBuf::from("/etc/halfopen/config")),
    ];
    let mut candidates = stems
        .iter()
        .flatten()
        .flat_map(|stem| ["toml", "yaml", "yml"].map(|extension| stem.with_extension(extension)));
    Ok(candidates.find(|path| path.is_file()))
}

/// Loads all layers. Tells everything that is wrong, not only the first.
pub fn load(request: &Request) -> Result<Layers, Vec<Problem>> {
    let file = find(request).and_then(|path| path.map(File::read).transpose())?;
    let mut figment = Figment::from(Serialized::defaults(Raw::default()));
    if let Some(file) = &file {
        let dict = file.parse()?;
        let metadata = Metadata::named("file").source(&*file.path);
        figment = figment.merge(Layer { metadata, dict });
    }
    for (name, text) in &request.environment {
        if let Some(key) = name.strip_prefix(PREFIX).filter(|_| name != CONFIG_VARIABLE) {
            let path = key.to_ascii_lowercase().replace("__", ".");
            figment = figment.merge(Layer::single(name, &path, text));
        }
    }
    for OptionValue { option, key, value } in &request.options {
        figment = figment.merge(Layer::single(option, key, value));
    }
    let value = figment
        .find_value("")
        .map_err(|e| vec![Problem::new(Place::Default, String::new(), String::new(), &e.to_string())])?;
    let (presets, rules) = (request.presets.clone(), request.rules.clone());
    let scale_if_possible = request.scale_if_possible;
    let mut layers = Layers { raw: Raw::default(), presets, rules, scale_if_possible, value, figment, file };
    let mut problems = layers.extract();
    problems.sort_by_key(|p| match p.place {
        Place::File { line, .. } => line,
        _ => None,
    });
    if problems.is_empty() { Ok(layers) } else { Err(problems) }
}

impl File {
    fn read(path: PathBuf) -> Result<Self, Vec<Problem>> {
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("yaml" | "yml") => Format::Yaml,
            _ => Format::Toml,
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, format, text }),
            Err(e) => {
                let place = Place::File { path, line: None };
                Err(vec![Problem::new(place, String::new(), String::new(), &format!("cannot read it: {e}"))])
            }
        }
    }

    /// The values of the file; an error here is one of syntax.
    fn parse(&self) -> Result<Dict, Vec<Problem>> {
        let (message, line) = match self.format {
            Format::Toml => match toml::from_str(&self.text) {
                Ok(dict) => return Ok(dict),
                Err(e) => (e.message().to_owned(), e.span().map(|span| line_at(&self.text, span.start))),
            },
            Format::Yaml if self.text.trim().is_empty() => return Ok(Dict::new()),
            Format::Yaml => {
                let options = serde_saphyr::options! { strict_booleans: true };
                match serde_saphyr::from_str_with_options(&self.text, options) {
                    Ok(dict) => return Ok(dict),
                    Err(e) => {
                        let line = e.location().and_then(|l| usize::try_from(l.line()).ok());
                        let message = e.without_snippet().to_string();
                        (message.lines().next().unwrap_or_default().to_owned(), line)
                    }
                }
            }
        };
        let message = message.replace('\n', " ");
        let place = Place::File { path: self.path.clone(), line };
        Err(vec![Problem::new(place, String::new(), String::new(), &message)])
    }
}

impl Layers {
    /// The config file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| &*file.path)
    }

    /// Where the value at a key path (`["tcp", "buffer"]`) was written.
    #[must_use]
    pub fn place(&self, path: &[String]) -> Place {
        let mut tag = None;
        let mut value = Some(&self.value);
        for key in path {
            value = value.and_then(|v| child(v, key));
            tag = value.map(Value::tag).or(tag);
        }
        let Some(metadata) = tag.and_then(|tag| self.figment.get_metadata(tag)) else {
            return Place::Default;
        };
        match (&*metadata.name, &self.file) {
            ("file", Some(file)) => {
                Place::File { path: file.path.clone(), line: line_of(file.format, &file.text, path) }
            }
            (name, _) if name.starts_with(PREFIX) => Place::Environment(name.to_owned()),
            (name, _) if name.starts_with("--") => Place::Option(name.to_owned()),
            _ => Place::Default,
        }
    }

    /// A problem with the value at a key path; the message is `what` or `what\nhint`.
    #[must_use]
    pub(super) fn problem(&self, path: &[String], message: &str) -> Problem {
        let value = path.iter().try_fold(&self.value, child).map(written).unwrap_or_default();
        Problem::new(self.place(path), dotted(path), value, message)
    }

    /// Every value with its key path and where it was written.
    #[must_use]
    pub fn values(&self) -> Vec<(String, String, Place)> {
        let mut all = Vec::new();
        let value = Value::serialize(&self.raw).expect("the config serialises, it was made from text");
        leaves(&value, &mut Vec::new(), &mut |path, value| {
            all.push((dotted(path), written(value), self.place(path)));
        });
        all
    }

    /// Reads the values into [`Raw`]. serde stops at the first error, so take out what was wrong and try again.
    fn extract(&mut self) -> Vec<Problem> {
        let mut value = self.value.clone();
        let mut problems = Vec::new();
        let mut taken_out: Vec<Vec<String>> = Vec::new();
        loop {
            let error = match value.deserialize::<Raw>() {
                Ok(raw) => {
                    self.raw = raw;
                    return problems;
                }
                Err(error) => error,
            };
            // What we have taken out ourselves is missing now, and told already.
            let told = match &error.kind {
                Kind::MissingField(name) => taken_out.contains(&[&*error.path, &[name.to_string()]].concat()),
                _ => false,
            };
            if !told {
                problems.push(self.problem(&error.path, &explain(&error.kind)));
            }
            if !remove(&mut value, &error.path) {
                return problems;
            }
            taken_out.push(error.path);
        }
    }
}

/// One file, variable or option.
struct Layer {
    metadata: Metadata,
    dict: Dict,
}

impl Layer {
    fn single(name: &str, key: &str, text: &str) -> Self {
        let value: Value = match text.parse() {
            Ok(value) => value,
            Err(never) => match never {},
        };
        let dict = figment::util::nest(key, value).into_dict().unwrap_or_default();
        Self { metadata: Metadata::named(name.to_owned()), dict }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

fn child<'v>(value: &'v Value, key: &String) -> Option<&'v Value> {
    match value {
        Value::Dict(_, dict) => dict.get(key),
        Value::Array(_, items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Takes a key out; a whole list if the path leads to an item of it that is no table, so that no index moves.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match value {
        Value::Dict(_, dict) => {
            let Some(inner) = dict.get_mut(first) else { return false };
            (!rest.is_empty() && remove(inner, rest)) || dict.remove(first).is_some()
        }
        Value::Array(_, items) => {
            let item = first.parse::<usize>().ok().and_then(|i| items.get_mut(i));
            item.is_some_and(|item| !rest.is_empty() && remove(item, rest))
        }
        _ => false,
    }
}

fn leaves(value: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Value)) {
    let children: Vec<(String, &Value)> = match value {
        Value::Dict(_, dict) => dict.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(_, items) if items.iter().any(|item| item.as_dict().is_some()) => {
            items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect()
        }
        leaf => return visit(path, leaf),
    };
    for (key, value) in children {
        path.push(key);
        leaves(value, path, visit);
        path.pop();
    }
}

/// `rule[2].fault.syn-ack-delay.delay`, items counted from 1 as people do.
pub(super) fn dotted(path: &[String]) -> String {
    let mut out = String::new();
    for key in path {
        match key.parse::<usize>() {
            Ok(index) => out.push_str(&format!("[{}]", index + 1)),
            Err(_) if out.is_empty() => out.push_str(key),
            Err(_) => {
                out.push('.');
                out.push_str(key);
            }
        }
    }
    out
}

/// A value as one would write it in TOML; empty for a table.
fn written(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("\"{c}\""),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, n) => match (n.to_u128_lossy(), n.to_i128(), n.to_f64()) {
            (_, _, Some(f)) => f.to_string(),
            (_, Some(i), _) => i.to_string(),
            (u, _, _) => u.map(|u| u.to_string()).unwrap_or_default(),
        },
        Value::Array(_, items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Empty(..) | Value::Dict(..) => String::new(),
    }
}

/// What is wrong and a hint, for people.
fn explain(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(name, allowed) => {
            format!("unknown key\n{}", suggest(name, allowed))
        }
        Kind::UnknownVariant(name, allowed) => {
            let hint = known_elsewhere(name, allowed).unwrap_or_else(|| suggest(name, allowed));
            format!("not one of the allowed values\n{hint}")
        }
        Kind::InvalidType(actual, expected) => {
            format!("{} where {} should be", told(actual), plain(expected))
        }
        Kind::MissingField(name) => format!("has no {name}\nadd one"),
        Kind::InvalidValue(_, expected) => format!("out of range\nwrite {}", plain(expected)),
        other => other.to_string(),
    }
}

/// What a value is called here that has another name in the documentation of Linux.
fn known_elsewhere(name: &str, allowed: &[&str]) -> Option<String> {
    let here = match name.to_ascii_lowercase().as_str() {
        "tproxy" => "sockets",
        _ => return None,
    };
    allowed.contains(&here).then(|| format!("TPROXY is called \"{here}\" here"))
}

/// serde's word for what it expected, in words for people.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a map" => "a table",
        expected if expected.starts_with("struct ") => "a table",
        expected if expected.starts_with("sequence") || expected.starts_with("a sequence") => "a list",
        expected => expected,
    }
}

fn told(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests;
