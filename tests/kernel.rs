//! Real Linux clients and servers on both sides of a gateway, in network namespaces of their own. Most rows are done
//! twice, without and with halfopen, and what the client and the server saw is compared.
//!
//! Needs root or user namespaces. `HALFOPEN_LONG=1` makes the slow rows as long as they are in the field.
#![allow(clippy::disallowed_methods, reason = "the kernel's time is real")]

#[path = "kernel/beginning.rs"]
mod beginning;
#[path = "kernel/close.rs"]
mod close;
#[path = "kernel/container.rs"]
mod container;
#[allow(dead_code, reason = "some of it is for exec")]
#[path = "kernel/control.rs"]
mod control;
#[path = "kernel/endings.rs"]
mod endings;
#[path = "kernel/faults/mod.rs"]
mod faults;
#[path = "kernel/handshake.rs"]
mod handshake;
#[path = "kernel/held_syn.rs"]
mod held_syn;
#[path = "kernel/hostile.rs"]
mod hostile;
mod lab;
#[path = "kernel/listen.rs"]
mod listen;
#[path = "kernel/loopback.rs"]
mod loopback;
#[path = "kernel/offers.rs"]
mod offers;
#[path = "kernel/ping.rs"]
mod ping;
#[path = "kernel/setup.rs"]
mod setup;
#[path = "kernel/sidecar.rs"]
mod sidecar;
#[path = "kernel/stream.rs"]
mod stream;
#[path = "kernel/tproxy.rs"]
mod tproxy;
#[path = "kernel/transparent.rs"]
mod transparent;
#[path = "kernel/truth.rs"]
mod truth;

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

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(args.test_threads.map_or(AT_ONCE, |n| n.min(AT_ONCE)));
    if !args.list
        && let Err(why) = lab::ns::become_able().and_then(|()| lab::ns::tun_opens())
    {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    let conclusion = libtest_mimic::run(&args, trials());
    if !args.list && !conclusion.has_failed() {
        truth::update();
    }
    conclusion.exit_code()
}

fn trials() -> Vec<Trial> {
    let areas: [(&str, &[Row], &[Single]); 10] = [
        ("setup", &[], setup::SINGLES),
        ("container", &[], container::SINGLES),
        ("handshake", handshake::ROWS, &[]),
        ("stream", stream::ROWS, stream::SINGLES),
        ("close", close::ROWS, &[]),
        ("transparent", transparent::ROWS, &[]),
        ("faults", &[], faults::SINGLES),
        ("hostile", &[], hostile::SINGLES),
        ("ping", &[], ping::SINGLES),
        ("control", &[], control::SINGLES),
    ];
    let all = areas.into_iter().flat_map(|(area, rows, singles)| trials_of(area, rows, singles));
    let both = control::BOTH.iter().map(|(name, test)| trial((*name).to_owned(), || test(Way::Proxied)));
    let all = all.chain(sidecar::trials()).chain(listen::trials()).chain(tproxy::trials());
    let all = all.chain(held_syn::trials()).chain(offers::trials()).chain(endings::trials()).chain(both);
    let proofs = faults::PROOFS.iter().flat_map(|proofs| proofs.iter()).map(|proof| {
        Trial::test(format!("faults: {} ({}): {}", proof.fault, proof.entry, proof.expected), move || {
            truth::observe(proof, (proof.run)());
            Ok::<(), Failed>(())
        })
    });
    all.chain(proofs).collect()
}

fn trials_of(area: &str, rows: &'static [Row], singles: &'static [Single]) -> Vec<Trial> {
    let rows = rows.iter().flat_map(|(name, row)| {
        VERSIONS.map(|(family, version)| {
            trial(format!("{area}: {name} ({version})"), move || {
                compare(Way::Proxied, |lab| row(lab, family))
            })
        })
    });
    let singles = singles.iter().map(|(name, test)| trial(format!("{area}: {name}"), test));
    singles.chain(rows).collect()
}

const VERSIONS: [(Family, &str); 2] = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];

fn trial(name: String, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok::<(), Failed>(())
    })
}
