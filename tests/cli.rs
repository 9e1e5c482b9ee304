//! The command line as its users meet it: help texts, what bad input is answered with, exit codes. Needs no root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

mod golden;
#[path = "cli/ping.rs"]
mod ping;

/// Runs halfopen in a directory of its own, with nothing in its environment but what is given.
struct Halfopen {
    directory: tempfile::TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

/// What a run said, and its exit code.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Halfopen {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// With a file in its directory.
    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn says(&self, args: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_halfopen"))
            .args(args)
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.environment.iter().copied())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What `config check` complains of.
    #[track_caller]
    fn complains(&self, stderr: &str) {
        let said = self.says(&["config", "check"]);
        assert_eq!(said, Said { code: 78, stdout: String::new(), stderr: stderr.to_owned() });
    }
}

#[test]
fn every_command_explains_itself() {
    for (name, args) in [
        ("help", &["--help"][..]),
        ("demo", &["demo", "--help"]),
        ("exec", &["exec", "--help"]),
        ("run", &["run", "--help"]),
        ("matrix", &["matrix", "--help"]),
        ("ping", &["ping", "--help"]),
        ("floor", &["floor", "--help"]),
        ("flows", &["flows", "--help"]),
        ("flows-kill", &["flows", "kill", "--help"]),
        ("stats", &["stats", "--help"]),
        ("rules", &["rules", "--help"]),
        ("report", &["report", "--help"]),
        ("ladder", &["ladder", "--help"]),
        ("faults", &["faults", "--help"]),
        ("presets", &["presets", "--help"]),
        ("healthcheck", &["healthcheck", "--help"]),
        ("config", &["config", "--help"]),
        ("config-check", &["config", "check", "--help"]),
        ("config-show", &["config", "show", "--help"]),
        ("config-schema", &["config", "schema", "--help"]),
    ] {
        let said = Halfopen::new().says(args);
        assert_eq!((said.code, &*said.stderr), (0, ""), "{name}");
        assert!(
            said.stdout.lines().all(|line| line.chars().count() <= 80),
            "{name}: lines beyond 80 columns"
        );
        golden::check(&format!("help/{name}.txt"), &said.stdout);
    }
}

#[test]
fn wrong_usage_is_answered_with_2() {
    for args in [
        &["bogus"][..],
        &["run", "--bogus"],
        &["exec"],
        &["matrix"],
        &["ping"],
        &["ping", "127.0.0.1:80", "--via", "tun"],
        &["ping", "127.0.0.1:80", "-4", "-6"],
        &["config"],
        &["run", "--log-format", "xml"],
        &["flows", "x"],
        &["flows", "kill"],
        &["flows", "kill", "1"],
        &["flows", "kill", "1", "--rst", "--fin"],
        &["flows", "1", "kill", "1", "--rst"],
    ] {
        assert_eq!(Halfopen::new().says(args).code, 2, "{args:?}");
    }
}

#[test]
fn a_wrong_option_names_itself_and_what_is_allowed() {
    let said = Halfopen::new()
        .says(&["run", "--ports", "http", "--seed", "many", "--grace", "8", "--mode", "router"]);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        r#"halfopen: --grace: engine.grace = 8: missing unit
  hint: write "8ms" or "8s"
halfopen: --mode: intercept.mode = "router": not one of the allowed values
  hint: allowed here: gateway, exec, sidecar, listen
halfopen: --ports: intercept.ports = "http": not a port or a range of ports
  hint: write a port from 1 to 65535, or a range such as "8000-8099"
halfopen: --seed: seed = "many": not a seed
  hint: write a whole number from 0 to 18446744073709551615, or "random"
"#
    );
}

#[test]
fn a_wrong_listener_says_what_one_looks_like() {
    let said = Halfopen::new().says(&["run", "--mode", "listen", "--listen", "5432=db:5432"]);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        r#"halfopen: --listen: listener = "5432=db:5432": not an address and a port
  hint: write both, such as "0.0.0.0:5432" or "[::]:5432"
"#
    );
    Halfopen::new()
        .file(
            "halfopen.yaml",
            "intercept: { mode: listen }\nlistener:\n  - { listen: \"0.0.0.0:80\", upstream: db }\n\
             rule:\n  - fault: { ack-delay: { direction: downstream } }\n",
        )
        .complains(
            r#"halfopen: halfopen.yaml:3: listener[1].upstream = "db": not a host and a port
  hint: write both, such as "db:5432" or "[fd00::1]:5432"
"#,
        );
    Halfopen::new()
        .file("halfopen.toml", "intercept.mode = 'listen'\n[[listener]]\nlisten = '0.0.0.0:81'\n")
        .complains("halfopen: halfopen.toml:2: listener[1]: has no upstream\n  hint: add one\n");
    Halfopen::new()
        .file(
            "halfopen.toml",
            "intercept.mode = 'listen'\nlistener = ['0.0.0.0:80=db:80']\n[[rule]]\nfault.ack-delay = { direction = 'downstream' }\n",
        )
        .complains(
            r#"halfopen: halfopen.toml:4: rule[1].fault.ack-delay: the exec engine cannot do `ack-delay direction=downstream`: its server leg is a kernel socket, which decides about windows and acknowledgements itself
  hint: a gateway can, where both legs are halfopen's own TCP
"#,
        );
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest_key() {
    Halfopen::new()
        .file("halfopen.toml", "[intercept]\nports = [80]\n[limits]\nflow = 3\n[web]\n")
        .complains(
            r#"halfopen: halfopen.toml:4: limits.flow = 3: unknown key
  hint: did you mean "flows"?
halfopen: halfopen.toml:5: web: unknown key
  hint: allowed here: seed, time_scale, preset, intercept, listener, tcp, limits, engine, capture, measure, metrics, control, rule
"#,
        );
    Halfopen::new().file("halfopen.yml", "tcp:\n  bufer: 1MiB\n").complains(
        r#"halfopen: halfopen.yml:2: tcp.bufer = "1MiB": unknown key
  hint: did you mean "buffer"?
"#,
    );
    Halfopen::new().env("HALFOPEN_TCP__BUFER", "1MiB").complains(
        r#"halfopen: HALFOPEN_TCP__BUFER: tcp.bufer = "1MiB": unknown key
  hint: did you mean "buffer"?
"#,
    );
}

#[test]
fn wrong_units_and_ranges_are_told_together() {
    let file =
        "[intercept]\nports = [80]\n[tcp]\nbuffer = '5 kg'\ntime_wait = 60\n[engine]\ngrace = 'soon'\n";
    Halfopen::new().file("halfopen.toml", file).complains(
        r#"halfopen: halfopen.toml:4: tcp.buffer = "5 kg": not a size
  hint: write a number and a unit: B, kB, KiB, MB, MiB, GB, GiB; such as "1MiB"
halfopen: halfopen.toml:5: tcp.time_wait = 60: missing unit
  hint: write "60ms" or "60s"
halfopen: halfopen.toml:7: engine.grace = "soon": not a time: expected number at 0
  hint: write a number and a unit: us, ms, s, m, h; such as "200ms"
"#,
    );
    Halfopen::new()
        .file("halfopen.toml", "[tcp]\nretries = 101\n")
        .env("HALFOPEN_INTERCEPT__PORTS", "[80]")
        .complains(
            r#"halfopen: halfopen.toml:2: tcp.retries = 101: out of range
  hint: allowed: 1 to 100
"#,
        );
}

#[test]
fn wrong_rules_are_told_with_the_nearest_name() {
    let file = "intercept.ports = [80]\n\n[[rule]]\nfault.fin-dorp = {}\n\n[[rule]]\nfault.syn-ack-delay = { delay = 200 }\n";
    let said = Halfopen::new().file("halfopen.toml", file).says(&["run", "-f", "syn-drop first=2 share=20"]);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        r#"halfopen: halfopen.toml:4: rule[1].fault: unknown fault "fin-dorp"; `halfopen faults` lists them
  hint: did you mean "fin-drop"?
halfopen: halfopen.toml:7: rule[2].fault.syn-ack-delay.delay = 200: missing unit; allowed: 0 to 5m, with a unit such as "200ms" or "1.5s"
  hint: write "200ms" or "200s"
halfopen: --fault 'syn-drop first=2 share=20': fault.syn-drop.share = "20": not a share from 0 to 1; allowed: 0 to 1
  hint: 20 percent is 0.2
"#
    );
    let said = Halfopen::new().says(&["faults", "fin-dorp"]);
    assert_eq!(
        (said.code, &*said.stderr),
        (2, "halfopen: no fault \"fin-dorp\"\n  hint: did you mean \"fin-drop\"?\n")
    );
}

#[test]
fn the_catalogue_explains_every_fault() {
    let list = Halfopen::new().says(&["faults"]).stdout;
    golden::check("faults/list.txt", &list);
    for line in list.lines() {
        let name = line.split_whitespace().next().unwrap();
        let said = Halfopen::new().says(&["faults", name]);
        assert!(said.stdout.starts_with(&format!("{name}: ")) && said.stdout.contains("on the wire, with "));
        if name == "fin-drop" {
            golden::check("faults/fin-drop.txt", &said.stdout);
        }
        let json = Halfopen::new().says(&["faults", name, "--json"]).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["name"], name);
    }
}

#[test]
fn the_pages_of_the_catalogue_are_those_that_halfopen_prints() {
    golden::check("../../docs/faults.md", &Halfopen::new().says(&["faults", "--markdown"]).stdout);
    golden::check("../../docs/config.schema.json", &Halfopen::new().says(&["config", "schema"]).stdout);
}

#[test]
fn every_preset_is_explained() {
    let list = Halfopen::new().says(&["presets"]).stdout;
    golden::check("presets/list.txt", &list);
    let all: Vec<serde_json::Value> =
        serde_json::from_str(&Halfopen::new().says(&["presets", "--json"]).stdout).unwrap();
    assert_eq!(all.len(), list.lines().count());
    for line in list.lines() {
        let name = line.split_whitespace().next().unwrap();
        let said = Halfopen::new().says(&["presets", name]);
        golden::check(&format!("presets/{name}.txt"), &said.stdout);
        let json = Halfopen::new().says(&["presets", name, "--json"]).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(all.contains(&json) && json["name"] == name);
    }
}

/// Exit code and stderr, with nothing on stdout.
#[track_caller]
fn refused(args: &[&str], code: i32, stderr: &str) {
    let said = Halfopen::new().says(args);
    assert_eq!(said, Said { code, stdout: String::new(), stderr: stderr.to_owned() }, "{args:?}");
}

#[test]
fn a_wrong_preset_names_the_nearest() {
    let said = "halfopen: no preset \"stuck-raeder\"\n  hint: did you mean \"stuck-reader\"?\n";
    refused(&["presets", "stuck-raeder"], 2, said);
    let said = "halfopen: --preset 'stuck-raeder': no preset \"stuck-raeder\"\n  hint: did you mean \"stuck-reader\"?\n";
    refused(&["run", "--ports", "80", "--preset", "stuck-raeder"], 78, said);
    refused(&["exec", "--preset", "stuck-raeder", "true"], 125, said);
    refused(&["matrix", "--preset", "stuck-raeder", "true"], 78, said);
    refused(
        &["exec", "--preset", "stuck-reader hold=1s", "true"],
        125,
        "halfopen: --preset 'stuck-reader hold=1s': only match.client, match.server, match.flows and match.share go with \
         stuck-reader\n  hint: for other values write its rules as --fault; \"halfopen presets NAME\" shows them\n",
    );
    refused(
        &["exec", "--preset", "stuck-reader match.server=9.9.9.9/33", "true"],
        125,
        "halfopen: --preset 'stuck-reader match.server=9.9.9.9/33': match.server = \"9.9.9.9/33\": \"9.9.9.9/33\" is neither \
         an address nor a network; allowed: \"any\", an address or a network, such as \"10.0.0.0/8:5432\", \":80-89\" or \
         \"[fd00::/8]:443\"\n",
    );
}

#[test]
fn a_time_scale_is_a_factor_that_changes_something() {
    let run = |factor: &'static str, rest: [&'static str; 2]| {
        ["run", "--ports", "80", "--time-scale", factor, rest[0], rest[1]]
    };
    refused(
        &run("fast", ["--preset", "stuck-reader"]),
        78,
        "halfopen: --time-scale: time_scale = \"fast\": a text where a number should be\n",
    );
    refused(
        &run("0", ["--preset", "stuck-reader"]),
        78,
        "halfopen: --time-scale: time_scale = 0: out of range\n  hint: allowed: 0.000001 to 1000\n",
    );
    let nothing = "  hint: remove it: the times of syn-drop only make sense against the kernels' own timers, which do not scale\n";
    refused(
        &run("0.1", ["--preset", "vxlan-63s"]),
        78,
        &format!(
            "halfopen: --time-scale: time_scale = 0.1: no rule has a time that may be scaled\n{nothing}"
        ),
    );
    refused(
        &["matrix", "--time-scale", "0.1", "--preset", "vxlan-63s", "true"],
        2,
        "halfopen: --time-scale: no run has a time that may be scaled\n  hint: remove it; \"halfopen presets NAME\" tells what it scales\n",
    );
}

#[test]
fn a_wrong_assertion_names_its_column_and_what_is_allowed_there() {
    let latencies = halfopen::measure::Kind::NAMES.join(", ");
    let said = format!(
        "halfopen: --assert 'p99(conect) < 1s': column 5: no latency \"conect\"\n  hint: write p99(LATENCY), of {latencies}\n"
    );
    refused(&["exec", "--assert", "p99(conect) < 1s", "true"], 125, &said);
    refused(&["matrix", "--assert", "p99(conect) < 1s", "true"], 2, &said);
    let near = "no rule or fault of this run is called \"fin-dorp\"\n  hint: did you mean \"fin-drop\"?\n";
    let said = format!("halfopen: --assert 'fired(fin-dorp) > 0': {near}");
    refused(&["exec", "-f", "fin-drop", "--assert", "fired(fin-dorp) > 0", "true"], 125, &said);
    let none = "no rule or fault of this run is called \"x\"\n  hint: there are no rules\n";
    refused(
        &["exec", "--assert", "fired(x) > 0", "true"],
        125,
        &format!("halfopen: --assert 'fired(x) > 0': {none}"),
    );
}

#[test]
fn a_matrix_refuses_what_it_cannot_do_before_it_runs_anything() {
    for (option, value, stderr) in [
        ("--timeout", "8", "halfopen: --timeout 8: missing unit\n  hint: write \"8ms\" or \"8s\"\n"),
        ("--timeout", "0", "halfopen: --timeout 0: out of range\n  hint: allowed: above 0, to 1day\n"),
        ("--jobs", "0", "halfopen: --jobs 0: not a number of runs\n  hint: allowed: 1 to 64\n"),
        ("--jobs", "many", "halfopen: --jobs many: not a number of runs\n  hint: allowed: 1 to 64\n"),
    ] {
        refused(&["matrix", option, value, "true"], 2, stderr);
    }
    refused(
        &["matrix", "--junit", "gone/junit.xml", "true"],
        1,
        "halfopen: --junit gone/junit.xml: cannot be created: No such file or directory (os error 2)\n  hint: name a file in a directory that is there and may be written to\n",
    );
    let said = Halfopen::new().file("halfopen.toml", "preset = ['dpi-reset']\n").says(&["matrix", "true"]);
    let told = "halfopen: the config has rules, which would act on every run\n  hint: take them out of the config, and give them as --fault or --preset\n";
    assert_eq!((said.code, &*said.stderr), (78, told));
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    Halfopen::new().file("halfopen.toml", "seed = 1\nseed = 2\n").complains(
        r#"halfopen: halfopen.toml:2: duplicate key
"#,
    );
    let said = Halfopen::new().says(&["run", "--config", "gone.toml"]);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        "halfopen: --config: no file at gone.toml\n  hint: give the path of a TOML or YAML file\n"
    );
    Halfopen::new().env("HALFOPEN_CONFIG", "gone.toml").complains(
        "halfopen: HALFOPEN_CONFIG: no file at gone.toml\n  hint: give the path of a TOML or YAML file\n",
    );
}

#[test]
fn a_gateway_needs_ports() {
    let said = Halfopen::new().says(&["run"]);
    assert_eq!(said.code, 78);
    assert_eq!(
        said.stderr,
        "halfopen: intercept.ports = []: is empty, so nothing would be intercepted\n  \
         hint: name the server ports, such as --ports 5432; a file for exec says mode = \"exec\"\n"
    );
}

#[test]
fn exec_and_run_are_not_taken_for_each_other() {
    let halfopen = Halfopen::new().file("halfopen.toml", "[intercept]\nmode = 'exec'\n");
    let said = halfopen.says(&["run"]);
    assert_eq!(
        (said.code, &*said.stderr),
        (
            78,
            "halfopen: intercept.mode = \"exec\": that is another command\n  hint: use: halfopen exec -- COMMAND\n"
        )
    );
    let halfopen = Halfopen::new().file("halfopen.toml", "[intercept]\nports = [80]\n");
    let said = halfopen.says(&["exec", "true"]);
    assert_eq!(
        (said.code, &*said.stderr),
        (
            125,
            "halfopen: halfopen.toml:2: intercept.ports = [80]: mode exec takes all ports\n  \
             hint: remove it; a rule chooses its ports by match.server = \":5432\"\n"
        )
    );
}

#[test]
fn show_tells_every_value_and_where_it_was_written() {
    let halfopen = Halfopen::new()
        .file("halfopen.toml", "seed = 7\n[intercept]\nports = [80]\n")
        .env("HALFOPEN_TCP__RETRIES", "3");
    let said = halfopen.says(&["config", "show", "--seed", "8"]);
    assert_eq!((said.code, &*said.stderr), (0, ""));
    let place = |key: &str| {
        let line = said.stdout.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(place("seed"), "seed = 8 # --seed");
    assert_eq!(place("intercept.ports"), "intercept.ports = [80] # halfopen.toml:3");
    assert_eq!(place("tcp.retries"), "tcp.retries = 3 # HALFOPEN_TCP__RETRIES");
    assert_eq!(place("tcp.buffer"), "tcp.buffer = \"1MiB\" # default");

    let json = halfopen.says(&["config", "show", "--json"]).stdout;
    let all: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let retries = all.iter().find(|v| v["key"] == "tcp.retries").unwrap();
    assert_eq!((&retries["value"], &retries["from"]), (&"3".into(), &"HALFOPEN_TCP__RETRIES".into()));
}

#[test]
fn the_files_that_come_with_halfopen_pass_the_check() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let said = Halfopen::new().says(&["config", "check", "--config", path.to_str().unwrap()]);
        assert_eq!((said.code, &*said.stderr), (0, ""), "{}", path.display());
    }
}
