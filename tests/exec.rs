//! `halfopen exec` between real Linux clients and servers: the rows of the gateway, with the client inside the command,
//! as root and as somebody without privileges; and what only this mode has.
//!
//! Needs root or user namespaces. `HALFOPEN_LONG=1` makes the slow rows as long as they are in the field.
#![allow(clippy::disallowed_methods, reason = "the kernel's time is real")]

#[path = "kernel/close.rs"]
mod close;
#[path = "exec/command.rs"]
mod command;
#[allow(dead_code, reason = "the singles are for the gateway")]
#[path = "kernel/control.rs"]
mod control;
#[path = "exec/faults.rs"]
mod faults;
#[path = "kernel/handshake.rs"]
mod handshake;
#[path = "exec/inside.rs"]
mod inside;
mod lab;
#[path = "exec/latencies.rs"]
mod latencies;
#[path = "exec/network.rs"]
mod network;
#[path = "exec/opening.rs"]
mod opening;
#[path = "exec/publish.rs"]
mod publish;
#[allow(dead_code, reason = "the singles are for the gateway; this mode has its own")]
#[path = "kernel/stream.rs"]
mod stream;

use std::process::ExitCode;

use halfopen::setup::netlink::Family;
use libtest_mimic::{Arguments, Failed, Trial};

use lab::{Lab, Way, compare};

/// What the client and the server saw, in words.
type Seen = Vec<String>;
/// Something that a client and a server do, once per IP version, without and with halfopen.
type Row = (&'static str, fn(&Lab, Family) -> Seen);
/// Something that is done once, with halfopen.
type Single = (&'static str, fn());

/// More at once would make each other late on a small machine.
const AT_ONCE: usize = 4;
/// Rows that hold only where halfopen itself makes the server's segments. For the first one this mode has its own.
const GATEWAY_ONLY: &[&str] = &[
    "a client that gives up dialling is gone for the server too",
    "options of the SYN and SYN-ACK are those of the peers",
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "inside") {
        return inside::main(&words[1..]);
    }
    let mut args = Arguments::from_args();
    args.test_threads = Some(args.test_threads.map_or(AT_ONCE, |n| n.min(AT_ONCE)));
    if !args.list
        && let Err(why) = lab::ns::become_able()
    {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    let rows = [handshake::ROWS, close::ROWS, stream::ROWS].concat();
    let rows = rows.into_iter().filter(|(name, _)| !GATEWAY_ONLY.contains(name)).flat_map(trials_of);
    let singles = [
        control::OF_EXEC,
        command::SINGLES,
        latencies::SINGLES,
        network::SINGLES,
        faults::SINGLES,
        opening::SINGLES,
        publish::SINGLES,
    ]
    .concat()
    .into_iter()
    .map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    });
    let control = control::BOTH.iter().map(|(name, test)| {
        Trial::test(*name, || {
            test(Way::UserExec);
            Ok::<(), Failed>(())
        })
    });
    let published = publish::rows().into_iter().flat_map(|(name, row)| {
        [("IPv4", Family::V4), ("IPv6", Family::V6)].map(|(version, family)| {
            Trial::test(format!("published: {name} ({version})"), move || {
                compare(Way::Publish, |lab| row(lab, family));
                Ok::<(), Failed>(())
            })
        })
    });
    libtest_mimic::run(&args, singles.chain(control).chain(rows).chain(published).collect()).exit_code()
}

fn trials_of((name, row): Row) -> Vec<Trial> {
    let ways = [
        ("root, IPv4", Way::Exec, Family::V4),
        ("root, IPv6", Way::Exec, Family::V6),
        ("user, IPv4", Way::UserExec, Family::V4),
    ];
    let trial = |(what, way, family)| {
        Trial::test(format!("{name} ({what})"), move || {
            compare(way, |lab| row(lab, family));
            Ok::<(), Failed>(())
        })
    };
    ways.map(trial).into()
}
