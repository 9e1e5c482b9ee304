//! Compares halfopen as a gateway with the kernel's forwarding and with HAProxy, on this machine, in one interleaved run:
//!
//! ```text
//! sudo cargo bench --bench peers -- [--rounds N] [--seconds S] [--only PEER,...] [--row TEXT] [--before PROGRAM] [--armed] [--sockets]
//! ```
//!
//! `--before` names another build of halfopen, which becomes one more peer, as does with `--armed` halfopen with a rule on every flow
//! that never fires, and with `--sockets` halfopen by kernel sockets; `--row` measures only rows with this text.
//!
//! ```text
//!  namespace c                 namespace p                    namespace s
//!  iperf3 -c, wrk  ── veth ──  peer under test  ── veth ──  iperf3 -s, nginx
//! ```
//!
//! All three namespaces use reno, because the BBR of some kernels paces senders and measures itself. HAProxy is a TPROXY
//! with one thread that copies (no splicing) and with the client's address; with its port, too, its sockets would collide
//! in TIME-WAIT.
//!
//! All share the cores of one machine, programs included, and the machine drifts, and feels whoever came before: the peers take
//! turns at each row, in another order in each round, and backwards when each of them has been first. A ratio compares what was measured within one round; of the rounds, the table shows the median and
//! the middle half. The ratios say more than the numbers, and many short rounds more than a few long ones.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

mod lab;
mod load;
mod peer;
mod table;

use std::process::ExitCode;

use lab::Lab;
use peer::Peer;
use table::{Row, Table};

const PROGRAMS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iperf3", "iperf3"),
    ("wrk", "wrk"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
];

const USAGE: &str = "sudo cargo bench --bench peers -- [--rounds N] [--seconds S] [--only PEER,...] [--row TEXT] [--before PROGRAM] [--armed] [--sockets]";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => return fail(2, &wrong, USAGE),
    };
    if !nix::unistd::geteuid().is_root() {
        return fail(77, "peers needs root: it makes network namespaces", "sudo cargo bench --bench peers");
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !lab::installed(program)).collect();
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        let hint = format!("apt-get install --no-install-recommends {}", packages.join(" "));
        return fail(69, &format!("missing programs: {}", programs.join(", ")), &hint);
    }
    lab::allow_many_files();
    let mut peers = options.peers.clone();
    let mut table = Table::default();
    for round in 1..=options.rounds {
        for row in Row::ALL {
            // The p99 comes with the requests. Memory does not drift, and opening the flows takes time.
            if row == Row::P99 || (row == Row::Idle && round > 1) || !row.name().contains(&options.row) {
                continue;
            }
            eprintln!("round {round} of {}: {}", options.rounds, row.name());
            // Fresh each time: thousands of sockets that HAProxy leaves behind halve its connections in the next round.
            let lab = Lab::new();
            let _servers = load::Servers::start(&lab);
            for &peer in &peers {
                measure(&lab, peer, row, &options, &mut table);
            }
        }
        peers.rotate_left(1);
        if (round as usize).is_multiple_of(peers.len()) {
            peers.reverse();
        }
    }
    print!("{}", table.render(&options.peers));
    ExitCode::SUCCESS
}

/// Each time with a fresh process.
fn measure(lab: &Lab, peer: Peer, row: Row, options: &Options, table: &mut Table) {
    let (server, seconds) = (peer.server(), options.seconds);
    let running = peer.start(lab, options.before.as_deref());
    let value = match row {
        Row::StreamUp => load::stream(server, seconds, false),
        Row::StreamDown => load::stream(server, seconds, true),
        Row::Connections => load::requests(server, seconds, false).per_second,
        Row::Requests | Row::P99 => {
            let requests = load::requests(server, seconds, true);
            table.add(peer, Row::P99, requests.p99_ms);
            requests.per_second
        }
        Row::Idle => match running.process() {
            Some(process) => load::idle_flow_bytes(server, process),
            None => return,
        },
    };
    table.add(peer, row, value);
}

fn fail(code: u8, what: &str, hint: &str) -> ExitCode {
    eprintln!("peers: {what}\n  hint: {hint}");
    ExitCode::from(code)
}

struct Options {
    rounds: u32,
    seconds: u32,
    peers: Vec<Peer>,
    row: String,
    before: Option<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let peers = vec![Peer::Kernel, Peer::Haproxy, Peer::Halfopen];
        let mut options = Self { rounds: 5, seconds: 2, peers, row: String::new(), before: None };
        let mut only = None;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                // cargo bench adds it.
                "--bench" => {}
                "--rounds" => options.rounds = value()?.parse().map_err(|e| format!("--rounds: {e}"))?,
                "--seconds" => options.seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?,
                "--row" => options.row = value()?,
                "--before" => {
                    options.before = Some(value()?);
                    options.peers.push(Peer::Before);
                }
                "--armed" => options.peers.push(Peer::Armed),
                "--sockets" => options.peers.push(Peer::Sockets),
                "--only" => only = Some(value()?),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        if let Some(only) = only {
            options.peers.retain(|peer| only.split(',').any(|name| name == peer.name()));
            if options.peers.is_empty() {
                let hint = "the peers are kernel, haproxy, halfopen, and before, armed and sockets if they are asked for";
                return Err(format!("--only {only}: {hint}"));
            }
        }
        Ok(options)
    }
}
