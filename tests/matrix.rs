//! `halfopen matrix` and assertions, with the clients of `examples/` as commands and their server on the host's loopback.
//! This program is the commands itself: called with `inside`, it does what they do.
//!
//! Needs root or user namespaces.
#![allow(clippy::disallowed_methods, reason = "processes end in the kernel's time")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "as an example it has a main")]
#[path = "../examples/echo_server.rs"]
mod echo_server;
#[allow(dead_code, reason = "as an example it has a main")]
#[path = "../examples/naive_client.rs"]
mod naive_client;
#[allow(dead_code, reason = "as an example it has a main")]
#[path = "../examples/tolerant_client.rs"]
mod tolerant_client;

mod golden;
#[path = "matrix/presets.rs"]
mod presets;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long something may take that happens at once on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// More at once would make each other late on a small machine.
const AT_ONCE: usize = 2;

type Row = (&'static str, fn());
const ROWS: &[Row] = &[
    ("a naive client fails where a tolerant one copes", clients),
    ("every preset meets a naive and a tolerant client", presets::both_tables),
    ("a time scale lets a stuck reader read on before a client is given up", time_scale),
    ("a command that fails without a fault stops the matrix", clean_fails),
    ("the same seed chooses the same flows", seeds),
    ("faults that no run of a command can have are told and not run", impossible),
    ("JUnit has a case for each run, and a strict matrix fails for what was not exercised", junit),
    ("the page of a matrix leads to those of its runs", page),
    ("an interrupted matrix leaves nothing running", interrupted),
    ("a run that takes too long is ended with all that it started", timed_out),
    ("an assertion that does not hold is exit code 3 and tells what was observed", assertions),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("inside", words)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return inside(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut args = Arguments::from_args();
    args.test_threads = Some(args.test_threads.map_or(AT_ONCE, |n| n.min(AT_ONCE)));
    let trial = |(name, row): &Row| {
        let row = *row;
        Trial::test(*name, move || {
            row();
            Ok::<(), Failed>(())
        })
    };
    libtest_mimic::run(&args, ROWS.iter().map(trial).collect()).exit_code()
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap())
}

/// What this program does as a command.
fn inside(words: &[&str]) -> ExitCode {
    let done = match *words {
        ["naive", server, time] => naive_client::run(server, millis(time), "requests"),
        ["naive", server, time, workload] => naive_client::run(server, millis(time), workload),
        ["tolerant", server, time] => tolerant_client::run(server, millis(time), "requests"),
        ["tolerant", server, time, workload] => tolerant_client::run(server, millis(time), workload),
        ["dial", server, times] => {
            (0..times.parse().unwrap()).try_for_each(|_| TcpStream::connect(server).map(drop))
        }
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        ["linger", directory] => linger(Path::new(directory)),
        ["idle"] => loop {
            std::thread::park();
        },
        _ => panic!("{words:?} is nothing to do"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for ever for a child in a session of its own; leaves the numbers of both in `pids`.
fn linger(directory: &Path) -> std::io::Result<()> {
    let mut child = Command::new("/proc/self/exe");
    child.args(["inside", "idle"]);
    // SAFETY: a system call only.
    unsafe {
        child.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
    }
    let mut child = child.spawn()?;
    // Under another name first, so that who finds it finds all of it.
    let part = directory.join("part");
    std::fs::write(&part, format!("{} {}", std::process::id(), child.id())).unwrap();
    std::fs::rename(part, directory.join("pids")).unwrap();
    child.wait().map(drop)
}

/// The address of an echo server that lives as long as this program, and that of the one that it can start.
fn servers() -> (SocketAddr, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = echo_server::Second::reserve("127.0.0.1:0".parse().unwrap()).unwrap();
    let addresses = (listener.local_addr().unwrap(), second.address);
    std::thread::spawn(move || echo_server::serve(&listener, second));
    addresses
}

fn server() -> String {
    servers().0.to_string()
}

/// A call of halfopen with a directory for its output.
struct Call {
    output: tempfile::TempDir,
    words: Vec<String>,
}

impl Call {
    fn matrix(options: &[&str]) -> Self {
        let output = tempfile::tempdir().unwrap();
        let mut call = Self { words: vec!["matrix".to_owned()], output };
        let directory = call.output.path().to_str().unwrap().to_owned();
        call.push(&["--seed", "7", "--output", &directory]);
        call.push(options);
        call
    }

    fn exec(options: &[&str]) -> Self {
        let mut call = Self { words: vec!["exec".to_owned()], output: tempfile::tempdir().unwrap() };
        call.push(options);
        call
    }

    fn push(&mut self, words: &[&str]) {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
    }

    /// With this program as the command.
    fn command(&self, inside: &[&str]) -> Command {
        // No config of the user who runs the tests.
        let config = concat!(env!("CARGO_TARGET_TMPDIR"), "/matrix.toml");
        std::fs::write(config, "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_halfopen"));
        command.args(&self.words).arg("--").arg(std::env::current_exe().unwrap()).arg("inside").args(inside);
        command.env_clear().env("HALFOPEN_CONFIG", config).stdin(Stdio::null());
        command
    }

    fn run(&self, inside: &[&str]) -> Output {
        self.command(inside).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(output)))
}

/// `NAME: OUTCOME` of each run.
fn outcomes(matrix: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let runs = matrix["runs"].as_array().unwrap();
    runs.iter().map(|run| format!("{}: {}", text(&run["name"]), text(&run["outcome"]))).collect()
}

fn clients() {
    let server = server();
    // Both think for 50 ms between requests: the RST of dpi-reset comes 7 ms after the first bytes. The first connection only: a client that tries again meets a network that has recovered.
    let options = [
        "--json",
        "--timeout",
        "12s",
        "--jobs",
        "4",
        "--preset",
        "vxlan-63s match.flows=1",
        "--preset",
        "stuck-reader match.flows=1",
        "--preset",
        "dpi-reset match.flows=1",
        "--preset",
        "nagle-40ms",
        "--preset",
        "k8s-snat-race match.flows=99",
        "--fault",
        "rst-inject",
        "--fault",
        "syn-drop first=1",
    ];
    let naive = Call::matrix(&options).run(&["naive", &server, "50"]);
    assert_eq!(
        (naive.status.code(), outcomes(&json(&naive))),
        (
            Some(1),
            [
                "vxlan-63s match.flows=1: hang",
                "stuck-reader match.flows=1: hang",
                "dpi-reset match.flows=1: fail",
                "nagle-40ms: pass",
                "k8s-snat-race match.flows=99: not-exercised",
                "rst-inject: fail",
                "syn-drop first=1: pass",
            ]
            .map(str::to_owned)
            .to_vec()
        ),
        "{}",
        said(&naive)
    );
    let tolerant = Call::matrix(&options).run(&["tolerant", &server, "50"]);
    assert_eq!(
        (tolerant.status.code(), outcomes(&json(&tolerant))),
        (
            Some(1),
            [
                "vxlan-63s match.flows=1: pass",
                "stuck-reader match.flows=1: pass",
                "dpi-reset match.flows=1: pass",
                "nagle-40ms: pass",
                "k8s-snat-race match.flows=99: not-exercised",
                // It gives up after three resets, and says so.
                "rst-inject: fail",
                "syn-drop first=1: pass",
            ]
            .map(str::to_owned)
            .to_vec()
        ),
        "{}",
        said(&tolerant)
    );
}

fn time_scale() {
    let call = Call::matrix(&[
        "--json",
        "--timeout",
        "30s",
        "--time-scale",
        "0.01",
        "--preset",
        "stuck-reader",
        "--preset",
        "nagle-40ms",
    ]);
    let output = call.run(&["naive", &server(), "0"]);
    let matrix = json(&output);
    assert_eq!(outcomes(&matrix), ["stuck-reader: pass", "nagle-40ms: pass"], "{}", said(&output));
    assert_eq!(output.status.code(), Some(0));
    let scaled: Vec<&Value> =
        matrix["runs"].as_array().unwrap().iter().map(|run| &run["time_scaled"]).collect();
    assert_eq!(scaled, [true, false]);
    let directory = call.output.path().join("01-stuck-reader");
    let report = std::fs::read(directory.join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let expected = serde_json::json!({
        "factor": 0.01,
        "scaled": [{ "rule": "stuck-reader", "attribute": "hold", "from_seconds": 60.0, "seconds": 0.6 }],
        "unscaled": [],
    });
    assert_eq!(report["time_scale"], expected);
    let stderr = std::fs::read_to_string(directory.join("stderr")).unwrap();
    assert!(stderr.contains("stuck-reader: hold 1m becomes 600ms"), "told at the start: {stderr}");
    assert!(stderr.contains("time scale 0.01"), "and in the summary: {stderr}");
}

fn clean_fails() {
    for (words, told) in [
        (&["exit", "7"][..], "the command fails already without a fault: exit code 7\n"),
        (&["naive", "127.0.0.1:1", "0"], "the command fails already without a fault: exit code 1\n"),
    ] {
        let output = Call::matrix(&["--preset", "nagle-40ms"]).run(words);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", said(&output));
        assert!(said(&output).contains(told), "{}", said(&output));
    }
    let mut call = Call::matrix(&["--preset", "nagle-40ms", "--timeout", "500ms"]);
    let junit = call.output.path().join("junit.xml").to_str().unwrap().to_owned();
    call.push(&["--junit", &junit]);
    let output = call.run(&["idle"]);
    assert!(said(&output).contains("without a fault: it took too long"), "{}", said(&output));
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains("tests=\"1\" failures=\"1\"") && xml.contains("name=\"clean\""), "{xml}");
    // halfopen's own reason, where it cannot even begin.
    let output = Call::matrix(&["--preset", "nagle-40ms"])
        .command(&["exit", "0"])
        .env("HALFOPEN_RULE", "[{fault={fin-drop={}}}]")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("the config has rules"), "{}", said(&output));
}

fn seeds() {
    let server = server();
    let fault = "syn-ack-delay delay=1ms match.share=0.5";
    let fired = |seed: &str| {
        let call = Call::matrix(&["--json", "--fault", fault, "--fault", fault]);
        let mut call = call;
        call.words.retain(|word| word != "--seed" && word != "7");
        call.push(&["--seed", seed]);
        let matrix = json(&call.run(&["dial", &server, "24"]));
        assert_eq!(matrix["seed"].to_string(), seed);
        let runs = matrix["runs"].as_array().unwrap();
        runs.iter().map(|run| (run["flows"].as_u64(), run["fired"].as_u64())).collect::<Vec<_>>()
    };
    let one = fired("1");
    assert_eq!(one[0], one[1]);
    assert_eq!(fired("1"), one);
    let others: Vec<_> = ["2", "3", "4"].map(fired).into();
    assert!(others.iter().any(|other| *other != one), "{others:?} and {one:?}");
}

fn impossible() {
    let call = Call::matrix(&["--fault", "ack-delay direction=downstream"]);
    let output = call.run(&["exit", "0"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("the exec engine cannot do"), "{}", said(&output));
    // All of them: what cannot be done is a row of its own, and no failure.
    let matrix = json(&Call::matrix(&["--json", "--fault", "all"]).run(&["exit", "0"]));
    let all = outcomes(&matrix);
    assert_eq!(all.len(), halfopen::fault::KINDS.len());
    let told = |run: &String| run.ends_with(": not-exercised") || run.ends_with(": impossible");
    assert!(all.iter().all(told), "{all:?}");
}

fn junit() {
    let mut call =
        Call::matrix(&["--strict", "--preset", "dpi-reset", "--preset", "nagle-40ms match.flows=9"]);
    let file = call.output.path().join("junit.xml").to_str().unwrap().to_owned();
    call.push(&["--junit", &file, "--assert", "count(ok) == 1"]);
    let output = call.run(&["naive", &server(), "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("score: 0 of 1 passed, 1 fail; 1 not exercised\n"), "{table}");
    let xml = std::fs::read_to_string(file).unwrap();
    assert!(xml.contains("tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"0\""), "{xml}");
    let failure = "<failure message=\"fail: exit code 1; assertion failed: count(ok) == 1\"/>";
    assert!(xml.contains(failure), "{xml}");
}

fn page() {
    let mut call = Call::matrix(&["--preset", "dpi-reset", "--fault", "syn-drop first=1"]);
    let file = |name: &str| call.output.path().join(name);
    let (page, json) = (file("matrix.html"), file("matrix.json"));
    call.push(&["--report", page.to_str().unwrap(), "--report", json.to_str().unwrap()]);
    let output = call.run(&["naive", &server(), "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let page = std::fs::read_to_string(page).unwrap();
    for (index, directory) in ["clean", "01-dpi-reset", "02-syn-drop-first-1"].into_iter().enumerate() {
        assert!(page.contains(&format!("<h2 id=\"run-{index}\">")), "{page}");
        // Beside the page, so that both can be moved.
        assert!(page.contains(&format!("<a href=\"{directory}/report.html\">")), "{page}");
        let of_run = std::fs::read_to_string(call.output.path().join(directory).join("report.html")).unwrap();
        assert!(
            of_run.contains("<svg class=\"ladder\"") && of_run.contains("<circle class=\"c1\""),
            "{directory}"
        );
    }
    assert!(page.contains("<circle class=\"c2\"") && page.contains("exit code 1"), "{page}");
    let json: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!((&json["runs"][0]["outcome"], &json["seed"]), (&"fail".into(), &7.into()));
}

/// The numbers that [`linger`] leaves.
fn pids(directory: &Path) -> Vec<Pid> {
    let file = directory.join("pids");
    wait_until("the command lingers", || file.exists());
    let text = std::fs::read_to_string(file).unwrap();
    text.split(' ').map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn all_are_gone(pids: &[Pid]) {
    for pid in pids {
        wait_until(&format!("{pid} is gone"), || kill(*pid, None).is_err());
    }
}

/// A child that is killed if the test ends early.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn interrupted() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let directory = tempfile::tempdir().unwrap();
        let call = Call::matrix(&["--preset", "nagle-40ms"]);
        let mut command = call.command(&["linger", directory.path().to_str().unwrap()]);
        let mut matrix = Guard(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let pids = pids(directory.path());
        kill(Pid::from_raw(matrix.0.id() as i32), signal).unwrap();
        assert_eq!(matrix.0.wait().unwrap().code(), Some(code));
        all_are_gone(&pids);
    }
    // Nobody could stop it in an orderly way: its runs end by themselves.
    let directory = tempfile::tempdir().unwrap();
    let call = Call::matrix(&["--preset", "nagle-40ms"]);
    let mut command = call.command(&["linger", directory.path().to_str().unwrap()]);
    let mut matrix = Guard(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let pids = pids(directory.path());
    matrix.0.kill().unwrap();
    matrix.0.wait().unwrap();
    all_are_gone(&pids[..1]);
    // What has left its group and its session, nobody ends.
    kill(pids[1], Signal::SIGKILL).unwrap();
}

fn timed_out() {
    let directory = tempfile::tempdir().unwrap();
    let call = Call::matrix(&["--preset", "nagle-40ms", "--timeout", "3s"]);
    let output = call.run(&["linger", directory.path().to_str().unwrap()]);
    assert!(said(&output).contains("it took too long"), "{}", said(&output));
    all_are_gone(&pids(directory.path()));
}

fn assertions() {
    let server = server();
    let run = |options: &[&str], words: &[&str]| {
        let output = Call::exec(options).run(words);
        (output.status.code().unwrap(), said(&output))
    };
    let (code, told) =
        run(&["--assert", "flows == 1 and count(ok) == 1 and p99(connect) < 10s"], &["naive", &server, "0"]);
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("assert flows == 1 and count(ok) == 1 and p99(connect) < 10s: holds; flows 1"),
        "{told}"
    );

    let options =
        ["--fault", "syn-drop first=all", "--assert", "max(connect) < 1h", "--assert", "flows == 9"];
    let (code, told) = run(&options, &["tolerant", &server, "0"]);
    assert_eq!(code, 1, "the exit code of a command that failed by itself says more: {told}");
    assert!(
        told.contains("halfopen: assertion failed: max(connect) < 1h; observed max(connect) ≥"),
        "{told}"
    );
    assert!(told.contains("hint: ≥ is a lower bound"), "{told}");

    let (code, told) = run(&["--assert", "flows == 9"], &["naive", &server, "0"]);
    assert_eq!(code, 3, "{told}");
    assert!(told.ends_with("halfopen: assertion failed: flows == 9; observed flows 1\n"), "{told}");

    let strict = ["--strict", "--fault", "fin-drop match.flows=9", "--assert", "fired(fin-drop) > 0"];
    let (code, told) = run(&strict, &["naive", &server, "0"]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("observed fired(fin-drop) 0\nhalfopen: never fired: fin-drop\n"), "{told}");
}
