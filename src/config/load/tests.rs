use super::super::raw::Congestion;
use super::super::units::{Seed, Size};
use super::*;

fn request(dir: &Path, name: &str, text: &str, environment: &[(&str, &str)]) -> Request {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Request { file: Some(path), environment, ..Request::default() }
}

/// The problems of a file as a person reads them, hints indented.
fn problems(name: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let problems = load(&request(dir.path(), name, text, &[])).unwrap_err();
    let lines = problems.iter().map(|p| match &p.hint {
        Some(hint) => format!("{p}\n  hint: {hint}\n"),
        None => format!("{p}\n"),
    });
    lines.collect::<String>().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn later_layers_win_and_each_value_knows_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = "seed = 1\n\n[tcp]\nbuffer = \"64KiB\"\nretries = 3\n";
    let mut request = request(dir.path(), "c.toml", text, &[("HALFOPEN_TCP__RETRIES", "4"), ("OTHER", "x")]);
    request.options.push(OptionValue { option: "--seed", key: "seed", value: "2".into() });
    let layers = load(&request).unwrap();
    assert_eq!(layers.raw.seed, Seed::Fixed(2));
    assert_eq!((layers.raw.tcp.buffer, layers.raw.tcp.retries), (Size(65_536), 4));
    assert_eq!(layers.raw.tcp.congestion, Congestion::Cubic);
    let place = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(|k| (*k).to_owned()).collect();
        layers.place(&path).to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(place(&["seed"]), "--seed");
    assert_eq!(place(&["tcp", "buffer"]), "c.toml:4");
    assert_eq!(place(&["tcp", "retries"]), "HALFOPEN_TCP__RETRIES");
    assert_eq!(place(&["tcp", "time_wait"]), "default");
}

#[test]
fn toml_and_yaml_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "seed = 7\n[intercept]\nports = [80, '8000-8099']\n[[rule]]\nname = 12\nmatch = { share = 0.2 }\nfault.fin-drop = { first = 'all' }\n";
    let yaml = "seed: 7\nintercept:\n  ports: [80, 8000-8099]\nrule:\n- name: 12\n  match: { share: 0.2 }\n  fault:\n    fin-drop: { first: all }\n";
    let toml = load(&request(dir.path(), "a.toml", toml, &[])).unwrap().raw;
    let yaml = load(&request(dir.path(), "a.yml", yaml, &[])).unwrap().raw;
    assert_eq!(toml, yaml);
    assert_eq!(toml.rule[0].matches["share"], crate::fault::Value::Float(0.2));
}

#[test]
fn an_empty_file_is_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.toml", "a.yaml"] {
        assert_eq!(load(&request(dir.path(), name, "", &[])).unwrap().raw, Raw::default());
    }
}

#[test]
fn all_problems_are_told_with_line_and_hint() {
    let toml = "seed = -1\n[intercept]\nports = [80, 'http']\nmod = 'gateway'\n[tcp]\nbuffer = '5 kg'\nrto_min = 200\nretries = 'many'\ncongestion = 'cubik'\n[[rule]]\nfault.fin-drop = {}\nnam = 'x'\n[limit]\n";
    assert_eq!(
        problems("c.toml", toml),
        r#"c.toml:1: seed = -1: not a seed
  hint: write a whole number from 0 to 18446744073709551615, or "random"
c.toml:3: intercept.ports[2] = "http": not a port or a range of ports
  hint: write a port from 1 to 65535, or a range such as "8000-8099"
c.toml:4: intercept.mod = "gateway": unknown key
  hint: did you mean "mode"?
c.toml:6: tcp.buffer = "5 kg": not a size
  hint: write a number and a unit: B, kB, KiB, MB, MiB, GB, GiB; such as "1MiB"
c.toml:7: tcp.rto_min = 200: missing unit
  hint: write "200ms" or "200s"
c.toml:8: tcp.retries = "many": a text where a whole number from 0 should be
c.toml:9: tcp.congestion = "cubik": not one of the allowed values
  hint: did you mean "cubic"?
c.toml:12: rule[1].nam = "x": unknown key
  hint: did you mean "name"?
c.toml:13: limit: unknown key
  hint: did you mean "limits"?
"#
    );
    let yaml = "intercept:\n  mode: gateway\n  porst: [80]\n";
    assert_eq!(
        problems("c.yaml", yaml),
        r#"c.yaml:3: intercept.porst = [80]: unknown key
  hint: did you mean "ports"?
"#
    );
}

#[test]
fn who_has_read_of_tproxy_learns_its_name_here() {
    assert_eq!(
        problems("c.toml", "engine.kind = 'TPROXY'\nintercept.mode = 'tproxy'\n"),
        r#"c.toml:1: engine.kind = "TPROXY": not one of the allowed values
  hint: TPROXY is called "sockets" here
c.toml:2: intercept.mode = "tproxy": not one of the allowed values
  hint: allowed here: gateway, exec, sidecar, listen
"#
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_in_plain_words() {
    let toml = "tcp = 1\nrule = 'x'\n[intercept]\nclient_interface = ['a']\nports = { a = 1 }\n[limits]\nflows = -1\n";
    assert_eq!(
        problems("c.toml", toml),
        r#"c.toml:1: tcp = 1: a number where a table should be
c.toml:2: rule = "x": a text where a list should be
c.toml:4: intercept.client_interface = ["a"]: a list where a text should be
c.toml:5: intercept.ports: a table where a list of ports, such as [5432, "8000-8099"] should be
c.toml:7: limits.flows = -1: out of range
  hint: write a whole number from 0
"#
    );
}

#[test]
fn errors_of_syntax_name_the_line() {
    assert_eq!(
        problems("c.toml", "seed = 1\nseed =\n"),
        "c.toml:2: string values must be quoted, expected literal string\n"
    );
    assert_eq!(
        problems("c.yaml", "seed: 1\ntcp: [\n"),
        "c.yaml:2: unclosed bracket '[' at line 2, column 6\n"
    );
}
