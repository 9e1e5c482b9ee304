//! The table that leads connections to kernel sockets, as `nft` sees it.

use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::lab::Way;
use crate::lab::ns::Ns;
use crate::lab::process::{command, program};
use crate::succeeded;

/// What this prints, which must succeed. `input` goes to its stdin.
fn nft(ns: &Ns, args: &[&str], input: &str) -> String {
    let mut command = program(ns, "nft");
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("nft is needed: {e}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("nft reads it");
    succeeded("nft", &child.wait_with_output().expect("our child"))
}

/// The rules as nft lists them, without whose they are.
fn listed(ns: &Ns) -> Vec<String> {
    let table = nft(ns, &["list", "table", "inet", "halfopen"], "");
    let lines = table.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim_end());
    lines.filter(|line| !line.is_empty() && line.trim() != "flags owner").map(str::to_owned).collect()
}

/// What halfopen makes is what a dry run prints: nft takes that, and lists both alike. At the end it is gone.
pub(crate) fn lists_what_a_dry_run_prints() {
    let places = [
        (Way::GatewaySockets, &["--mode", "gateway", "--ports", "5432,8000-8099"][..]),
        (
            Way::SidecarSockets,
            &["--mode", "sidecar", "--ports", "5432,8000-8099", "--inbound-ports", "8443"][..],
        ),
    ];
    for (way, mode) in places {
        let lab = Lab::new(Way::Direct);
        let host = if way == Way::GatewaySockets { &lab.gateway } else { &lab.client };
        let run = [&["run", "--engine", "sockets"], mode].concat();
        let printed = command(host, &[&run[..], &["--dry-run"]].concat()).output().expect("it was built");
        let printed = succeeded("halfopen", &printed);
        let (_, table) = printed.split_once("nft -f - <<'END'\n").expect("a table");
        let by_hand = Ns::new();
        nft(&by_hand, &["-f", "-"], &table.replace("END\n", "").replace("\tflags owner\n", ""));

        let mut halfopen = crate::lab::process::Halfopen::start(host, &run);
        assert_eq!(listed(host), listed(&by_hand), "{way:?}");
        assert!(halfopen.end_by(Signal::SIGTERM).success());
        assert_eq!(nft(host, &["list", "tables"], ""), "", "{way:?}: it is gone");
    }
}
