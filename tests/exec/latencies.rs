//! The latencies of a run, in its summary and in its files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use halfopen::setup::netlink::Family;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::Single;
use crate::command::{exec, printed};
use crate::lab::ns::Ns;
use crate::lab::process;
use crate::network::greeting_lab;

pub(crate) const SINGLES: &[Single] = &[
    ("what a fault adds to a connect is told apart, and the log says the same as the report", delays),
    ("a lost SYN is named by the step at which its connect sits", lost_syn),
    ("a full disk ends the files of the latencies, and neither the traffic nor the summary", full_disk),
    ("a disk that is slow holds up the files, and not the traffic", slow_disk),
];

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)))
}

fn number(latencies: &Value, kind: &str, what: &str) -> u64 {
    latencies[kind][what].as_u64().unwrap_or_else(|| panic!("no {what} of {kind}: {latencies}"))
}

fn delays() {
    const FLOWS: usize = 24;
    let (lab, _greeter, server) = greeting_lab(Family::V4);
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    let (report, log, percentiles) = (path("report.json"), path("run.hlog"), path("ttfb.hgrm"));
    let ttfb = format!("ttfb={percentiles}");
    let rule = "syn-ack-delay delay=200ms first=all match.share=0.3";
    let options =
        ["--seed", "42", "--fault", rule, "--report", &report, "--hlog", &log, "--hgrm", &ttfb, "--plot"];
    let words: Vec<&str> = std::iter::once("dial").chain(std::iter::repeat_n(&*server, FLOWS)).collect();
    let output = exec(&lab.client, &options, &words);
    assert_eq!(printed(&output).lines().count(), FLOWS);
    assert!(String::from_utf8_lossy(&output.stderr).contains("logarithmic"), "{output:?}");

    let told = json(&std::fs::read(report).expect("written"));
    let latencies = &told["latencies"];
    let delayed = number(latencies, "added_by_fault", "count");
    assert_eq!(delayed, told["fired"].as_u64().expect("a number"));
    assert!((1..FLOWS as u64 / 2).contains(&delayed), "{delayed} of {FLOWS}");
    assert_eq!(number(latencies, "connect", "count"), FLOWS as u64);
    assert_eq!(number(latencies, "connect_without_fault", "count"), FLOWS as u64);
    assert_eq!(number(latencies, "ttfb", "count"), FLOWS as u64);
    let added = number(latencies, "added_by_fault", "p50_us");
    assert!(added >= 200_000, "a timer is never early: {added}");
    assert!(number(latencies, "connect", "max_us") >= 200_000);
    // The slowest half of the connects is as fast as the others without the delay.
    assert!(number(latencies, "connect_without_fault", "p50_us") < 200_000);
    let by_rule = told["groups"].as_array().expect("a list").iter().find(|group| group["by"] == "rule");
    assert_eq!(by_rule.expect("a group")["values"]["count"], delayed);

    let read = json(&process::output(&Ns::new(), &["report", "--json", &log]).stdout);
    for (kind, latency) in latencies.as_object().expect("an object") {
        for what in ["count", "unfinished"] {
            assert_eq!(read["latencies"][kind][what], latency[what], "{what} of {kind}");
        }
    }
    assert_eq!(read["groups"].as_array().map(Vec::len), told["groups"].as_array().map(Vec::len));
    let text = std::fs::read_to_string(percentiles).expect("written");
    assert!(text.contains(&format!("Total count    = {FLOWS:>12}")), "{text}");
}

fn lost_syn() {
    let (lab, _greeter, server) = greeting_lab(Family::V4);
    let output = exec(&lab.client, &["--fault", "syn-drop first=1", "--json"], &["dial", &server]);
    let told = json(&output.stderr);
    let loss = &told["suspected_syn_loss"];
    assert_eq!(loss.as_array().map(Vec::len), Some(1), "the server has answered at once: {told}");
    assert_eq!(loss[0]["latency"], "connect");
    assert_eq!(loss[0]["steps"][0]["seconds"], 1, "{loss}");
    assert_eq!(loss[0]["by_faults"], 1);
    assert!(number(&told["latencies"], "added_by_fault", "max_us") >= 900_000, "{told}");
}

fn full_disk() {
    let (lab, _greeter, server) = greeting_lab(Family::V4);
    for (options, says) in [
        (
            ["--hlog", "/dev/full"],
            "halfopen: /dev/full: not all latencies are there: No space left on device",
        ),
        (["--hgrm", "/dev/full"], "halfopen: --hgrm /dev/full: cannot be written: No space left on device"),
    ] {
        let output = exec(&lab.client, &options, &["dial", &server]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(String::from_utf8_lossy(&output.stdout).ends_with(" hello\n"), "{output:?}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("1 flow: 1 ok") && said.contains(says) && said.contains("hint: "), "{said}");
    }
    let output = exec(&lab.client, &["--hgrm", "tfb=x"], &["dial", &server]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.starts_with("halfopen: --hgrm tfb=x: no latency \"tfb\"\n  hint: there are: connect, "),
        "{said}"
    );
}

/// All files are pipes that nobody reads until the command has done its work.
fn slow_disk() {
    const FLOWS: usize = 100;
    let (lab, _greeter, server) = greeting_lab(Family::V4);
    let directory = tempfile::tempdir().expect("a directory");
    let options = ["--events", "--pcap", "--hlog"];
    let paths = options.map(|option| directory.path().join(&option[2..]));
    let pipes = paths.clone().map(|path| {
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a directory of ours");
        let flags = OFlag::O_NONBLOCK.bits();
        let pipe = File::options().read(true).custom_flags(flags).open(&path).expect("a pipe of ours");
        fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).expect("as small as a pipe can be");
        pipe
    });
    let files = options.into_iter().zip(paths.iter().map(|path| path.to_str().expect("text")));
    let myself = process::myself();
    let mut args = vec!["exec"];
    args.extend(files.flat_map(|(option, path)| [option, path]).chain(["--", &*myself, "inside", "dial"]));
    args.extend(std::iter::repeat_n(&*server, FLOWS));
    let mut command = process::command(&lab.client, &args);
    command.env("HALFOPEN_MEASURE__INTERVAL", "100ms").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut halfopen = command.spawn().expect("the program was built with the test");
    let printed = BufReader::new(halfopen.stdout.take().expect("it is piped"));
    let greeted =
        printed.lines().take(FLOWS).filter(|line| line.as_ref().is_ok_and(|line| line.ends_with(" hello")));
    assert_eq!(greeted.count(), FLOWS, "all connections go on");

    let readers = pipes.map(|mut pipe| {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).expect("an open file");
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes)
        })
    });
    let [events, pcap, hlog] = readers.map(|reader| reader.join().expect("it reads").expect("an open pipe"));
    let output = halfopen.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(&format!("{FLOWS} flows: {FLOWS} ok")), "{said}");
    assert!(!said.contains("limit reached"), "{said}");
    let closed = String::from_utf8_lossy(&events).matches("\"event\":\"flow-closed\"").count();
    assert_eq!(closed, FLOWS, "nothing is lost");
    assert!(pcap.len() > 65_536 && pcap.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]), "{} bytes", pcap.len());
    assert!(String::from_utf8_lossy(&hlog).contains("\nTag=connect,"));
}
