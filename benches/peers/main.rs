//! Compares halfopen as a gateway with the kernel's forwarding and with HAProxy, on this machine, in one interleaved run:
//!
//! ```text
//! sudo cargo bench --bench peers -- [--rounds N] [--seconds S] [--only PEER]
//! ```
//!
//! ```text
//!  namespace c                 namespace p                    namespace s
//!  iperf3 -c, wrk  ── veth ──  peer under test  ── veth ──  iperf3 -s, nginx
//! ```
//!
//! All three namespaces use reno, because the BBR of some kernels paces senders and measures itself. HAProxy is a TPROXY
//! with one thread that copies (no splicing) and with the client's address; with its port, too, its sockets would collide
//! in TIME-WAIT. Each number is the median of the rounds. All share the cores of one machine, programs included: the
//! ratios say more than the numbers.
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

fn main() -> ExitCode {
    let Options { rounds, seconds, peers } = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            return fail(
                2,
                &wrong,
                "sudo cargo bench --bench peers -- [--rounds N] [--seconds S] [--only PEER]",
            );
        }
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
    let lab = Lab::new();
    let _servers = load::Servers::start(&lab);
    let mut table = Table::default();
    for round in 1..=rounds {
        for &peer in &peers {
            eprintln!("round {round} of {rounds}: {}", peer.name());
            measure(&lab, peer, seconds, &mut table);
        }
    }
    print!("{}", table.render(&peers));
    ExitCode::SUCCESS
}

fn measure(lab: &Lab, peer: Peer, seconds: u32, table: &mut Table) {
    let running = peer.start(lab);
    table.add(peer, Row::StreamUp, load::stream(peer.server(), seconds, false));
    table.add(peer, Row::StreamDown, load::stream(peer.server(), seconds, true));
    let connections = load::requests(peer.server(), seconds, false);
    table.add(peer, Row::Connections, connections.per_second);
    let requests = load::requests(peer.server(), seconds, true);
    table.add(peer, Row::Requests, requests.per_second);
    table.add(peer, Row::P99, requests.p99_ms);
    if let Some(process) = running.process() {
        table.add(peer, Row::Idle, load::idle_flow_bytes(peer.server(), process));
    }
}

fn fail(code: u8, what: &str, hint: &str) -> ExitCode {
    eprintln!("peers: {what}\n  hint: {hint}");
    ExitCode::from(code)
}

struct Options {
    rounds: u32,
    seconds: u32,
    peers: Vec<Peer>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { rounds: 3, seconds: 3, peers: Peer::ALL.to_vec() };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                // cargo bench adds it.
                "--bench" => {}
                "--rounds" => options.rounds = value()?.parse().map_err(|e| format!("--rounds: {e}"))?,
                "--seconds" => options.seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?,
                "--only" => {
                    let name = value()?;
                    options.peers.retain(|peer| peer.name() == name);
                    if options.peers.is_empty() {
                        return Err(format!("--only {name}: the peers are kernel, haproxy, halfopen"));
                    }
                }
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        Ok(options)
    }
}
