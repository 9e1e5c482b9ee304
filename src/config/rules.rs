//! The rules of the config and of the command line, checked, with the place of whatever is wrong.

use super::error::{Place, Problem};
use super::load::{Layers, dotted};
use super::presets::Asked;
use super::raw::{self, EngineKind, Mode};
use super::scale::{Scaled, Scaling, scale};
use crate::fault::{Engine, Error, Rule, RuleSpec, Rules, Value};

/// Builds all rules: those of the config, those of presets, those of the command line. Tells everything that is wrong, not
/// only the first.
pub(super) fn build(layers: &Layers, seed: u64) -> Result<(Rules, Scaling), Vec<Problem>> {
    let mode = layers.raw.intercept.mode;
    let engine = match (mode, layers.raw.engine.kind) {
        (Mode::Gateway | Mode::Sidecar, EngineKind::Sockets) => Engine::Sockets,
        (Mode::Exec | Mode::Listen, EngineKind::Sockets) => Engine::PlainSockets,
        (Mode::Gateway | Mode::Sidecar, EngineKind::Tun) => Engine::Tun,
        (Mode::Exec | Mode::Listen, EngineKind::Tun) => Engine::Exec,
    };
    let factor = layers.raw.time_scale;
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    let mut times = Vec::new();
    for Candidate { origin, spec, scalable } in candidates(layers) {
        let checked = spec.and_then(Rule::build).and_then(|rule| {
            let engine = if is_published(layers, &rule) { Engine::Tun } else { engine };
            // Alone first: an error of all rules together does not know which of them it is about.
            Rules::new(seed, engine, vec![rule.clone()])?;
            if mode == Mode::Sidecar {
                beside_an_application(&rule)?;
            }
            if !scalable || factor == 1.0 {
                return Ok((rule, Vec::new()));
            }
            let mut spec = rule.spec.clone();
            let times = scale(&mut spec, rule.kind, factor)?;
            Ok((Rule::build(spec)?, times))
        });
        match checked {
            Ok((rule, scaled)) => {
                rules.push((origin, rule));
                times.push(scaled);
            }
            Err(error) => problems.push(origin.problem(layers, error)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if factor != 1.0 && !layers.scale_if_possible && times.iter().all(Vec::is_empty) {
        return Err(vec![nothing_to_scale(layers, &rules)]);
    }
    let all = rules.iter().map(|(_, rule)| rule.clone()).collect();
    // Each has been held to its engine alone.
    let built = Rules::new(seed, Engine::Tun, all).map_err(|error| {
        let blamed = |rule: &Rule| error.value.as_ref().is_some_and(|name| name.to_string() == *rule.name);
        let origin = rules.iter().rev().find(|(_, rule)| blamed(rule)).map(|(origin, _)| *origin);
        vec![origin.map_or_else(|| plain(&error), |origin| origin.problem(layers, error.clone()))]
    })?;
    let scaling = scaling(factor, &built, times);
    Ok((built, scaling))
}

/// True for a rule about a published port of an `exec` command: the server leg of its flows is our own TCP.
fn is_published(layers: &Layers, rule: &Rule) -> bool {
    let publish = &layers.raw.intercept.publish.0;
    rule.matches.server.port().is_some_and(|port| publish.iter().any(|published| published.port == port))
}

/// Refuses what cannot be done in the network namespace of an application.
fn beside_an_application(rule: &Rule) -> Result<(), Error> {
    if rule.kind.name != "half-open-flood" {
        return Ok(());
    }
    Err(Error {
        key: format!("fault.{}", rule.kind.name),
        value: None,
        problem: format!(
            "mode sidecar cannot do `{}`: its connections would need further ports of this host",
            rule.spec
        ),
        hint: Some("a gateway can, where the client's address is on another host".to_owned()),
    })
}

/// A rule that somebody wants.
struct Candidate<'a> {
    origin: Origin<'a>,
    spec: Result<RuleSpec, Error>,
    /// False for the rules of a preset that scaled times would falsify.
    scalable: bool,
}

fn candidates(layers: &Layers) -> Vec<Candidate<'_>> {
    let mut all = Vec::new();
    for (i, rule) in layers.raw.rule.iter().enumerate() {
        all.push(Candidate { origin: Origin::Config(i), spec: spec(rule), scalable: true });
    }
    let configured =
        layers.raw.preset.iter().enumerate().map(|(i, text)| (Origin::Preset(i), text.0.as_str()));
    let given = layers.presets.iter().map(|text| (Origin::PresetOption(text), text.as_str()));
    for (origin, text) in configured.chain(given) {
        match Asked::read(text).and_then(|asked| Ok((asked.preset.time_scale_applies, asked.specs()?))) {
            Ok((scalable, specs)) => {
                all.extend(specs.into_iter().map(|spec| Candidate { origin, spec: Ok(spec), scalable }));
            }
            Err(error) => all.push(Candidate { origin, spec: Err(error), scalable: false }),
        }
    }
    for text in &layers.rules {
        all.push(Candidate { origin: Origin::Option(text), spec: text.parse(), scalable: true });
    }
    all
}

/// A time scale that changes nothing is a mistake.
fn nothing_to_scale(layers: &Layers, rules: &[(Origin<'_>, Rule)]) -> Problem {
    let mut kinds: Vec<&str> = rules.iter().map(|(_, rule)| rule.kind.name).collect();
    kinds.dedup();
    let message = match kinds[..] {
        [] => "there is no rule whose times could be scaled\nremove it, or add a rule".to_owned(),
        _ => format!(
            "no rule has a time that may be scaled\nremove it: the times of {} only make sense against the kernels' own \
             timers, which do not scale",
            kinds.join(", ")
        ),
    };
    layers.problem(&["time_scale".to_owned()], &message)
}

fn scaling(factor: f64, rules: &Rules, times: Vec<Vec<Scaled>>) -> Scaling {
    let mut scaling = Scaling { factor, ..Scaling::default() };
    if factor == 1.0 {
        return scaling;
    }
    for (rule, times) in rules.rules().iter().zip(times) {
        if times.is_empty() {
            scaling.unscaled.push(rule.name.clone());
        }
        // Only now the names are those of the reports.
        scaling.scaled.extend(times.into_iter().map(|time| Scaled { rule: rule.name.clone(), ..time }));
    }
    scaling
}

/// What the config says of a rule; it must name one fault.
pub(super) fn spec(rule: &raw::Rule) -> Result<RuleSpec, Error> {
    let mut faults = rule.fault.iter();
    let (Some((fault, attributes)), None) = (faults.next(), faults.next()) else {
        let (what, hint) = match rule.fault.len() {
            0 => ("names no fault", "as in fault.fin-drop = { first = \"all\" }"),
            _ => ("names more than one fault", "write a [[rule]] for each"),
        };
        return Err(Error {
            key: "fault".to_owned(),
            value: None,
            problem: what.to_owned(),
            hint: Some(hint.to_owned()),
        });
    };
    Ok(RuleSpec {
        name: rule.name.as_ref().map(|name| name.0.clone()),
        matches: rule.matches.clone(),
        fault: fault.clone(),
        attributes: attributes.clone(),
    })
}

/// Where a rule was written.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// The how-manieth of the config, from 0.
    Config(usize),
    /// The how-manieth preset of the config, from 0.
    Preset(usize),
    /// A preset on the command line.
    PresetOption(&'a str),
    /// On the command line.
    Option(&'a str),
}

impl Origin<'_> {
    fn problem(self, layers: &Layers, error: Error) -> Problem {
        let problem = plain(&error);
        match self {
            Self::Config(index) => {
                let keys = error.key.split('.').filter(|key| !key.is_empty()).map(str::to_owned);
                let path: Vec<String> =
                    ["rule".to_owned(), index.to_string()].into_iter().chain(keys).collect();
                Problem { place: layers.place(&path), key: dotted(&path), ..problem }
            }
            Self::Preset(index) => {
                let path = ["preset".to_owned(), index.to_string()];
                let what = if problem.key.is_empty() {
                    problem.what
                } else {
                    format!("{}: {}", problem.key, problem.what)
                };
                Problem { place: layers.place(&path), key: dotted(&path), what, ..problem }
            }
            Self::PresetOption(text) => {
                Problem { place: Place::Option(format!("--preset '{text}'")), ..problem }
            }
            Self::Option(text) => Problem { place: Place::Option(format!("--fault '{text}'")), ..problem },
        }
    }
}

fn plain(error: &Error) -> Problem {
    let value = match &error.value {
        Some(Value::Text(text)) => format!("{text:?}"),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    Problem {
        place: Place::Default,
        key: error.key.clone(),
        value,
        what: error.problem.clone(),
        hint: error.hint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Request, load};
    use super::*;

    fn told(toml: &str, options: &[&str], mode: Mode) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, toml).unwrap();
        let rules = options.iter().map(|rule| (*rule).to_owned()).collect();
        let mut layers = load(&Request { file: Some(path), rules, ..Request::default() }).unwrap();
        layers.raw.intercept.mode = mode;
        match build(&layers, 1) {
            Ok((rules, _)) => {
                Ok(rules.rules().iter().map(|rule| format!("{}: {}", rule.name, rule.spec)).collect())
            }
            Err(problems) => {
                let lines = problems.iter().map(|p| match &p.hint {
                    Some(hint) => format!("{p}\n  hint: {hint}\n"),
                    None => format!("{p}\n"),
                });
                Err(lines.collect::<String>().replace(&format!("{}/", dir.path().display()), ""))
            }
        }
    }

    #[test]
    fn rules_of_the_command_line_come_after_those_of_the_file() {
        let toml =
            "[[rule]]\nname = 'slow'\nmatch = { share = 0.5 }\nfault.syn-ack-delay = { delay = '200ms' }\n";
        assert_eq!(
            told(toml, &["syn-drop first=2", "syn-drop"], Mode::Gateway).unwrap(),
            [
                "slow: syn-ack-delay delay=200ms match.share=0.5 name=slow",
                "syn-drop: syn-drop first=2",
                "syn-drop#2: syn-drop",
            ]
        );
    }

    #[test]
    fn each_wrong_rule_is_told_with_its_place() {
        let toml = "[[rule]]\nfault.fin-dorp = {}\n[[rule]]\nmatch = { server = '10.0.0.0/99' }\nfault.syn-drop = {}\n\
                    [[rule]]\nfault.syn-drop = { first = 'lots' }\n[[rule]]\nname = 'x'\n[[rule]]\nfault = { syn-drop = {}, fin-drop = {} }\n";
        let options = ["fin-drop direction=sideways", "fin-drop all"];
        assert_eq!(
            told(toml, &options, Mode::Gateway).unwrap_err(),
            r#"c.toml:2: rule[1].fault: unknown fault "fin-dorp"; `halfopen faults` lists them
  hint: did you mean "fin-drop"?
c.toml:4: rule[2].match.server = "10.0.0.0/99": "10.0.0.0/99" is neither an address nor a network; allowed: "any", an address or a network, such as "10.0.0.0/8:5432", ":80-89" or "[fd00::/8]:443"
c.toml:7: rule[3].fault.syn-drop.first = "lots": not a count; allowed: "all" or a count from 1
c.toml:8: rule[4].fault: names no fault
  hint: as in fault.fin-drop = { first = "all" }
c.toml:11: rule[5].fault: names more than one fault
  hint: write a [[rule]] for each
--fault 'fin-drop direction=sideways': fault.fin-drop.direction = "sideways": not one of the known words; allowed: upstream, downstream
--fault 'fin-drop all': fault: "all" is not of the form key=value
  hint: quote a value with spaces: name="two words"
"#
        );
    }

    #[test]
    fn two_rules_of_one_name_are_told_at_the_second() {
        let toml = "[[rule]]\nname = 'a'\nfault.syn-drop = {}\n[[rule]]\nname = 'a'\nfault.fin-drop = {}\n";
        assert_eq!(
            told(toml, &[], Mode::Gateway).unwrap_err(),
            "c.toml:5: rule[2].name = \"a\": two rules have this name\n  hint: give each rule a name of its own\n"
        );
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused_with_the_reason() {
        let toml = "[[rule]]\nfault.ack-delay = { direction = 'downstream' }\n";
        assert!(told(toml, &[], Mode::Gateway).is_ok());
        assert_eq!(
            told(toml, &[], Mode::Exec).unwrap_err(),
            "c.toml:2: rule[1].fault.ack-delay: the exec engine cannot do `ack-delay direction=downstream`: its server leg is \
             a kernel socket, which decides about windows and acknowledgements itself\n  hint: a gateway can, where both \
             legs are halfopen's own TCP\n"
        );
    }

    /// Of the six faults that every seat is asked for, kernel sockets can do four where the kernel holds the client's SYN, and two
    /// behind a listener. Ends they can do, but no FIN that is lost or late.
    #[test]
    fn what_kernel_sockets_cannot_do_is_refused_with_the_reason_and_who_can() {
        let handshake = "the kernel makes its handshakes by itself";
        let windows = "the kernel decides about its windows itself";
        let table = [
            ("syn-drop first=2", handshake, true),
            ("syn-ack-delay delay=1s", handshake, true),
            ("mss-rewrite mss=536", handshake, true),
            ("mss-rewrite mss=48", "its kernel sockets take an MSS of 88 to 32767 bytes", false),
            ("tiny-window window=2kB", windows, true),
            ("tiny-window window=512B", "its kernel sockets offer 1152 bytes at least: window=1152B", false),
            ("silly-window", windows, false),
            ("zero-window-stall answer_probes=false", "the kernel answers window probes by itself", false),
            ("half-closed-timeout", "nothing there cuts a kernel socket off", true),
            ("ack-delay direction=upstream", "the kernel acknowledges by itself", false),
            (
                "fin-drop direction=downstream",
                "the kernel makes its segments itself, and shows them to nobody",
                false,
            ),
            ("refuse style=bad-rst", "the kernel does not answer a SYN like this", false),
            ("blackhole direction=upstream", "a kernel socket is cut off both ways", false),
            ("idle-timeout style=rst-on-next", "the kernel shows nobody who speaks next", false),
        ];
        let sockets = "engine.kind = 'sockets'\n";
        for mode in [Mode::Gateway, Mode::Sidecar, Mode::Listen] {
            for (rule, reason, held) in table {
                if held && mode != Mode::Listen {
                    assert!(told(sockets, &[rule], mode).is_ok(), "{rule}");
                    continue;
                }
                let name = rule.split(' ').next().unwrap();
                let reason = match (mode, name) {
                    (Mode::Listen, "refuse" | "mss-rewrite") => handshake,
                    (Mode::Listen, "tiny-window") => windows,
                    (Mode::Listen, "blackhole" | "idle-timeout") => {
                        "the kernel makes its segments itself, and shows them to nobody"
                    }
                    _ => reason,
                };
                let (engine, who) = match mode {
                    Mode::Listen if held => (
                        "plain-sockets",
                        "kernel sockets in a gateway or a sidecar can, and so can the tun engine, whose TCP is halfopen's own",
                    ),
                    Mode::Listen => ("plain-sockets", "the tun engine can, whose TCP is halfopen's own"),
                    _ => ("sockets", "the tun engine can, whose TCP is halfopen's own"),
                };
                assert_eq!(
                    told(sockets, &[rule], mode).unwrap_err(),
                    format!(
                        "--fault '{rule}': fault.{name}: the {engine} engine cannot do `{rule}`: {reason}\n  hint: {who}\n"
                    )
                );
            }
            for rule in [
                "rst-inject to=both after_bytes=1",
                "zero-window-stall direction=upstream hold=1s",
                "half-close-broken direction=downstream style=rst",
                "half-closed-timeout style=fin",
                "rst-instead-of-fin direction=upstream delay=1s",
                "client-closes-first relieve=rst",
            ] {
                assert!(told(sockets, &[rule], mode).is_ok(), "{rule}");
            }
        }
    }

    #[test]
    fn a_rule_about_a_published_port_may_touch_the_servers_segments() {
        let rule =
            |port| format!("[[rule]]\nmatch.server = ':{port}'\nfault.ack-delay.direction = 'downstream'\n");
        let publish = "intercept = { mode = 'exec', publish = ['8080:80'] }\n";
        assert!(told(&format!("{publish}{}", rule(80)), &[], Mode::Exec).is_ok());
        assert!(
            told(&format!("{publish}{}", rule(8080)), &[], Mode::Exec).is_err(),
            "that is the caller's port"
        );
        assert!(told(&rule(80), &[], Mode::Exec).is_err());
    }

    #[test]
    fn what_a_sidecar_cannot_do_is_refused_with_the_reason() {
        let toml = "[[rule]]\nfault.half-open-flood = { n = 3 }\n";
        assert!(told(toml, &[], Mode::Gateway).is_ok());
        assert_eq!(
            told(toml, &["syn-drop"], Mode::Sidecar).unwrap_err(),
            "c.toml:2: rule[1].fault.half-open-flood: mode sidecar cannot do `half-open-flood n=3`: its connections would need \
             further ports of this host\n  hint: a gateway can, where the client's address is on another host\n"
        );
    }

    #[test]
    fn presets_stand_between_the_rules_of_the_file_and_those_of_the_command_line() {
        let toml = "preset = ['vxlan-63s match.flows=2']\n[[rule]]\nfault.fin-drop = {}\n";
        assert_eq!(
            told(toml, &["syn-drop"], Mode::Gateway).unwrap(),
            [
                "fin-drop: fin-drop",
                "vxlan-63s: syn-drop for=63s match.flows=2 name=vxlan-63s",
                "syn-drop: syn-drop"
            ]
        );
        let toml = "preset = ['vxlan-36s']\n";
        assert_eq!(
            told(toml, &[], Mode::Gateway).unwrap_err(),
            "c.toml:1: preset[1]: no preset \"vxlan-36s\"\n  hint: did you mean \"vxlan-63s\"?\n"
        );
        let toml = "preset = ['dpi-reset', 'dpi-reset']\n";
        assert_eq!(
            told(toml, &[], Mode::Gateway).unwrap_err(),
            "c.toml:1: preset[2] = \"dpi-reset\": name: two rules have this name\n  hint: give each rule a name of its own\n"
        );
    }

    #[test]
    fn a_time_scale_that_changes_nothing_is_refused_with_the_reason() {
        let rules = "[[rule]]\nfault.zero-window-stall = { hold = '60s' }\n[[rule]]\nfault.syn-drop = { for = '63s' }\n";
        assert_eq!(
            told(&format!("time_scale = 0.1\n{rules}"), &[], Mode::Gateway).unwrap(),
            ["zero-window-stall: zero-window-stall hold=6s", "syn-drop: syn-drop for=63s"]
        );
        assert_eq!(
            told("time_scale = 0.1\npreset = ['vxlan-63s']\n", &[], Mode::Gateway).unwrap_err(),
            "c.toml:1: time_scale = 0.1: no rule has a time that may be scaled\n  hint: remove it: the times of syn-drop only \
             make sense against the kernels' own timers, which do not scale\n"
        );
        assert_eq!(
            told("time_scale = 0.1\n", &[], Mode::Gateway).unwrap_err(),
            "c.toml:1: time_scale = 0.1: there is no rule whose times could be scaled\n  hint: remove it, or add a rule\n"
        );
    }
}
