//! halfopen: a transparent TCP proxy and fault injector with its own userspace TCP on both sides.
//!
//! Two builds in one package. The **core** (`--no-default-features`) is pure: no clock, sockets, files, logging or
//! randomness of the system. The **host** part (feature `host`) touches the machine.
//!
//! # Where things are
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`rng`], [`cx`], [`trace`] | what every call into the core carries: the time, seeded chance, and the only door out, events |
//! | [`wire`] | packets: parse, emit, checksums, sequence numbers, and the one text form of a segment |
//! | [`tcp`] | an honest TCP (RFC 9293) without I/O, one connection per leg; knows nothing of faults |
//! | [`fault`] | rules, plans and the catalogue: misbehaviour around a connection |
//! | [`relay`] | the seam between the two legs of a flow |
//! | [`ping`] | connections of our own at intended times, by our TCP or by the kernel's |
//! | [`measure`], [`report`], [`capture`] | counts and latencies; ladders, summaries and pages; pcapng: all made from events |
//! | `sim` | two hosts, lossy links and scripted peers in virtual time; for tests, and the ladders of `halfopen faults` (feature `sim`) |
//! | `engine` | how packets reach the relay: the device, the loop, the clock, kernel sockets |
//! | `setup` | links, routes, rules, nftables, namespaces: plan, apply, undo |
//! | `config` | from text to meaning: files, environment, options |
//! | `control` | what a running instance tells: metrics, and the control socket with its client |
//! | `cli`, `app` | the commands; wiring, signals, order of start and stop |
//!
//! Arrows between them: `main → cli → app → {engine, control, setup, config}`; `engine → relay, tcp, fault, wire, trace`;
//! `relay → tcp, fault, wire, trace`; `ping → tcp, wire, trace`; `fault → wire, tcp::knobs`; `tcp → wire, trace, cx`. Observers (`measure`, `report`, `capture`)
//! see only events, so they cannot change behaviour. `tests/tidy.rs` holds the arrows.
//!
//! # One word per thing
//!
//! | word | meaning |
//! |---|---|
//! | flow | one intercepted connection, client to server; numbered from 1 in the order of the first SYNs |
//! | leg | one side of a flow: `client` or `server` |
//! | direction | `upstream`: client to server; `downstream`: server to client |
//! | segment | one TCP segment as on the wire; a super-segment (GSO) counts as its parts |
//! | fault | one named misbehaviour of the catalogue: `syn-drop`, `fin-drop` |
//! | rule | match + fault + attributes + bounds, from config or command line |
//! | preset | a named file of rules tied to a documented incident: `stuck-reader` |
//! | assertion | what a run must have shown at its end: `p99(connect) < 250ms` |
//! | time scale | what the idle times of rules are multiplied with; never silently |
//! | plan | the faults of one flow, resolved when its first SYN arrives |
//! | verdict | what a fault says of a segment: pass, drop, hold, duplicate |
//! | knobs | the few values of our own TCP that a fault may turn |
//! | engine | how connections are reached: `tun` (our TCP on both legs), `exec` (a kernel socket on the server leg: modes `exec` and `listen`), `sockets` (on both legs, as `engine.kind` says) |
//! | mode | where halfopen stands: `gateway` (between two networks), `sidecar` (in an application's network namespace), `listen` (at addresses of its own), `exec` (around a command) |
//! | listener | in listen mode: an address where clients arrive, and its upstream |
//! | upstream, of a listener | the server behind it, by name or address |
//! | door | a kernel socket that listens for clients: of a published port, of a listener with kernel sockets, of TPROXY |
//! | attempt | one connect of `ping`; the flow of it has halfopen itself for a client, and no client leg |
//! | target | what `ping` connects to; in groups of latencies, the server's address and port |
//! | source port | the port that a sidecar's server leg comes from |
//! | event | one entry of the only trace vocabulary; logs, counters, histograms and ladders are made from events |
//! | page | a report as one file of HTML, without script |
//! | history | the ladders of the newest flows, kept while a run goes on |
//! | kill | the end of a flow from outside: by RST, by FIN, or without a word |
//! | ladder | the sequence diagram of a flow: both legs, every segment, faults marked |
#![cfg_attr(not(feature = "host"), forbid(unsafe_code))]

// ── core ──
pub mod capture;
pub mod cx;
pub mod fault;
pub mod measure;
pub mod ping;
pub mod relay;
pub mod report;
pub mod rng;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tcp;
pub mod time;
pub mod trace;
pub mod wire;

// ── host ──
#[cfg(feature = "host")]
pub mod app;
#[cfg(feature = "host")]
pub mod cli;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod control;
#[cfg(feature = "host")]
pub mod engine;
#[cfg(feature = "host")]
pub mod setup;
