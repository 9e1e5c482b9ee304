//! The tables of nftables that lead connections to us, as `nft` sees them.

use std::io::Write as _;
use std::process::Stdio;

use halfopen::setup::netlink::Family;
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::lab::Way;
use crate::lab::events::Events;
use crate::lab::ns::Ns;
use crate::lab::process::{Halfopen, command, program};
use crate::succeeded;

/// What it prints, which must succeed. `input` goes to its stdin.
fn run(ns: &Ns, name: &str, args: &[&str], input: &str) -> String {
    let mut command = program(ns, name);
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{name} is needed: {e}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it is read");
    succeeded(name, &child.wait_with_output().expect("our child"))
}

/// All rules as nft lists them, without whose they are. Those that hold SYNs have other words where the kernel knows the target of
/// iptables only, which nft does not take.
fn listed(ns: &Ns) -> Vec<String> {
    let tables = run(ns, "nft", &["list", "ruleset"], "");
    let lines = tables.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim_end());
    let lines = lines.filter(|line| !line.is_empty() && line.trim() != "flags owner" && !holds(line));
    lines.map(str::to_owned).collect()
}

fn holds(line: &str) -> bool {
    line.contains(" queue ")
}

/// What halfopen makes is what a dry run prints: nft takes that, and lists both alike. At the end it is gone.
pub(crate) fn lists_what_a_dry_run_prints() {
    const GATEWAY: &[&str] = &["--mode", "gateway", "--ports", "5432,8000-8099"];
    const SIDECAR: &[&str] = &["--mode", "sidecar", "--ports", "5432,8000-8099", "--inbound-ports", "8443"];
    const SOCKETS: &[&str] = &["--engine", "sockets"];
    for (mode, engine) in [(GATEWAY, SOCKETS), (SIDECAR, SOCKETS), (SIDECAR, &[])] {
        let lab = Lab::new(Way::Direct);
        let host = if mode == GATEWAY { &lab.gateway } else { &lab.client };
        host.sysctl("net/ipv6/conf/all/forwarding", "1");
        let args = [&["run"], mode, engine].concat();
        let printed = command(host, &[&args[..], &["--dry-run"]].concat()).output().expect("it was built");
        let printed = succeeded("halfopen", &printed);
        let by_hand = Ns::new();
        run(&by_hand, "ip", &["tuntap", "add", "dev", "halfopen-lo", "mode", "tap"], "");
        let (mut tables, mut held) = (0, 0);
        for block in printed.split("nft -f - <<'END'\n").skip(1) {
            let (table, _) = block.split_once("END\n").expect("an end");
            let lines = table.lines().filter(|line| line.trim() != "flags owner" && !holds(line));
            run(&by_hand, "nft", &["-f", "-"], &lines.collect::<Vec<_>>().join("\n"));
            held += table.lines().filter(|line| holds(line)).count();
            tables += 1;
        }
        assert_eq!(tables, if engine == SOCKETS { 1 } else { 2 }, "{printed}");

        let mut halfopen = Halfopen::start(host, &args);
        assert_eq!(listed(host), listed(&by_hand), "{args:?}");
        let tables = run(host, "nft", &["list", "ruleset"], "");
        assert_eq!(tables.lines().filter(|line| holds(line)).count(), held, "{tables}");
        assert!(halfopen.end_by(Signal::SIGTERM).success());
        assert_eq!(listed(host), Vec::<String>::new(), "{args:?}: it is gone");
    }
}

/// Both legs of a gateway are one connection to the kernel's connection tracking, which must not lose the SYN that was held.
pub(crate) fn connects_at_once_where_connections_are_tracked() {
    let mut lab = Lab::new(Way::Direct);
    let tracked = "table inet firewall {\n chain seen {\n type filter hook input priority filter; policy accept;\n \
                   ct state established accept\n }\n}\n";
    run(&lab.gateway, "nft", &["-f", "-"], tracked);
    lab.way = Way::GatewaySockets;
    let events = Events::new();
    lab.start(&["--events", events.path()]);
    let pairs = Family::ALL.map(|family| lab.pair(family));
    drop(pairs);
    let log = events.after(lab.halfopen.take().expect("it runs"));
    assert_eq!(log.segments("segment-in", "client", "S").len(), 2, "no client repeats its SYN\n{log}");
}
