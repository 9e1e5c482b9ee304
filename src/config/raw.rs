//! The shape of the config: which keys there are and their defaults, without meaning. Unknown keys are errors.
//! `config/default.toml` shows the same to people; a test holds the two equal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::listeners::{List, Listener, Publish};
use super::units::{Loopback, MetricsAddr, PortRange, Ports, Seed, Size, Text, Time};
use crate::fault::Attributes;
use crate::relay;
use crate::tcp;
use crate::time::Duration;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// Where the dice of all rules start. Default `random`.
    pub seed: Seed,
    /// The idle times of rules are multiplied with this. 0.000001 - 1000, default 1.
    pub time_scale: f64,
    /// Presets: rules tied to a documented incident, after those of [`Self::rule`]. Default none.
    pub preset: Vec<Text>,
    /// Which connections are taken, and how.
    pub intercept: Intercept,
    /// Listen: addresses of this host and what stands behind each. Default none; mode listen wants at least one.
    pub listener: List<Listener>,
    /// The numbers of our own TCP.
    pub tcp: Tcp,
    /// How much of everything there may be.
    pub limits: Limits,
    /// The machine room.
    pub engine: Engine,
    /// What `--pcap` writes.
    pub capture: Capture,
    /// What `--hlog` writes.
    pub measure: Measure,
    /// What Prometheus is told.
    pub metrics: Metrics,
    /// What `halfopen flows` and `halfopen stats` are told.
    pub control: Control,
    /// The rules, first to last; all that match a flow act on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<Rule>,
}

/// `[intercept]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Intercept {
    /// Where halfopen stands. Default `gateway`; the command `exec` sets `exec`.
    pub mode: Mode,
    /// Gateway and sidecar: server ports whose connections are taken, at least one. `exec` takes all and wants none here.
    pub ports: Ports,
    /// Sidecar: ports of the application's own services, whose connections from outside are taken. Default none; with some of
    /// these a sidecar can do without [`Self::ports`].
    pub inbound_ports: Ports,
    /// Sidecar: the ports that server legs come from, which nothing else may use. 1 - 65534, default 61000-64999: above those
    /// that Linux gives to connections. As many connections are open to one server at once; further SYNs get no answer.
    pub source_ports: PortRange,
    /// Gateway: the interface towards the clients. Default empty: any.
    pub client_interface: Text,
    /// Gateway: the interface towards the servers. Default empty: any.
    pub server_interface: Text,
    /// Exec: which services of the caller's loopback are reachable at their own address. Default `on`.
    pub host_loopback: Loopback,
    /// Exec: ports of the command that clients outside reach, at addresses of the caller. Default none.
    pub publish: List<Publish>,
}

/// Where halfopen stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Between two networks, transparent.
    Gateway,
    /// Around one command.
    Exec,
    /// In the network namespace of the application.
    Sidecar,
    /// At addresses of its own, each with an upstream behind it.
    Listen,
}

/// `[tcp]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcp {
    /// Most bytes waiting per direction of a flow; also the largest window offered. 4 KiB - 1 GiB, default 1 MiB.
    pub buffer: Size,
    /// Congestion control. Default `cubic`.
    pub congestion: Congestion,
    /// Lower bound of the retransmission timeout. 1 ms - `rto_max`, default 200 ms as in Linux.
    pub rto_min: Time,
    /// Upper bound of the retransmission timeout. `rto_min` - 10 min, default 120 s as in Linux.
    pub rto_max: Time,
    /// Retransmissions of data before the connection is given up. 1 - 100, default 15 as in Linux (`tcp_retries2`).
    pub retries: u32,
    /// Retransmissions of a SYN-ACK. 0 - 100, default 5 as in Linux (`tcp_synack_retries`).
    pub syn_ack_retries: u32,
    /// How long TIME-WAIT lasts. 0 - 10 min, default 60 s as in Linux.
    pub time_wait: Time,
}

/// Congestion control algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// RFC 9438.
    Cubic,
    /// RFC 5681 and RFC 6582.
    NewReno,
}

/// `[limits]`: at each of these a counter tells how often it was hit. Those of flows hold per shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Flows at once; further SYNs get no answer. 1 - 2^24, default 65536.
    pub flows: usize,
    /// Flows whose client has not completed its handshake; further SYNs get no answer. 1 - 2^24, default 16384.
    pub half_open: usize,
    /// Closed flows remembered for TIME-WAIT; beyond it the oldest is forgotten. 1 - 2^24, default 65536.
    pub lingering: usize,
    /// Bytes waiting in all flows together; from half of it on windows are small. At least 1 MiB, default 256 MiB.
    pub bytes: Size,
    /// Out-of-order ranges kept per leg. 1 - 65536, default 256.
    pub out_of_order_ranges: usize,
    /// Segments held back by faults, per flow; one more is lost. At least 1, default 1024.
    pub held_segments: usize,
    /// Addresses that rules remember for `match.sibling`, `reused`, `stamp_behind` and `crowd`, each; beyond it the oldest
    /// is forgotten. 1 - 2^24, default 65536.
    pub neighbours: usize,
    /// Events waiting to be written; further ones are lost and counted. At least 1024, default 65536.
    pub events: usize,
    /// UDP flows (DNS and others) relayed at once by `exec`. At least 1, default 1024.
    pub udp_flows: usize,
    /// Payload bytes waiting to be captured; further packets are captured without. At least 1 MiB, default 64 MiB.
    pub capture: Size,
    /// Open flows whose ladders are kept for a report in HTML, which shows those of the worst; others are not followed.
    /// 1 - 65536, default 256.
    pub ladders: usize,
    /// Connections to the control socket at once; one more is closed. 1 - 1024, default 16.
    pub control_connections: usize,
    /// Connections for metrics at once; one more is closed. 1 - 1024, default 16.
    pub metrics_connections: usize,
}

/// `[capture]`: what `--pcap` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Bytes of each packet that are kept, headers included. 64 - 256 KiB, default 256 KiB: all.
    pub snaplen: Size,
    /// Bytes of a file after which the next one begins (FILE.1, FILE.2, ...). At least 1 MiB; default 0: never.
    pub rotate: Size,
}

/// `[measure]`: what `--hlog` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measure {
    /// How long an interval of the log is. 100 ms - 1 day, default 10 s.
    pub interval: Time,
}

/// `[metrics]`: a small HTTP listener with `/metrics` for Prometheus, `/healthz` and `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Its address and port, or `off`. Default `auto`: `run` listens at 127.0.0.1:8474 if that is free, `exec` nowhere.
    pub addr: MetricsAddr,
}

/// `[control]`: the local socket that `halfopen flows` and `halfopen stats` ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Whether there is one: the abstract unix socket `halfopen.control.PID`, for root and the user of the process. Default true.
    pub socket: bool,
    /// The newest flows whose ladders are kept for `halfopen flows N` while the run goes on. 0 - 1000, default 0: only those
    /// that `--ladder` keeps. With any, every segment is looked at, as with `--ladder`.
    pub history: usize,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// What carries the bytes. Default `tun`.
    pub kind: EngineKind,
    /// Threads that carry packets. 0 - 64, default 0: one on up to 2 cores, else half of the cores.
    pub shards: usize,
    /// How long a stop waits for open flows to end. Default 8 s, below the 10 s of container runtimes; 0 stops at once.
    pub grace: Time,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Our own TCP towards the clients, by a TUN device; every fault.
    #[default]
    Tun,
    /// Kernel sockets on both sides; the faults that are listed for `sockets`, and behind a listener those for `plain-sockets`. A
    /// listener needs no privileges for it; a gateway and a sidecar use nftables (TPROXY) and no device. Not exec.
    Sockets,
}

/// `[[rule]]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// What reports call it. Default: the fault's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Which flows it applies to. Default all.
    #[serde(rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: Attributes,
    /// The fault and its attributes: `fault.NAME = { … }`.
    pub fault: BTreeMap<String, Attributes>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            time_scale: 1.0,
            preset: Vec::new(),
            intercept: Intercept::default(),
            listener: List::default(),
            tcp: Tcp::default(),
            limits: Limits::default(),
            engine: Engine::default(),
            capture: Capture::default(),
            measure: Measure::default(),
            metrics: Metrics::default(),
            control: Control::default(),
            rule: Vec::new(),
        }
    }
}

impl Default for Intercept {
    fn default() -> Self {
        Self {
            mode: Mode::Gateway,
            ports: Ports::default(),
            inbound_ports: Ports::default(),
            source_ports: PortRange { first: 61_000, last: 64_999 },
            client_interface: Text::default(),
            server_interface: Text::default(),
            host_loopback: Loopback::On,
            publish: List::default(),
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        let tcp = tcp::Config::default();
        Self {
            buffer: Size(tcp.buffer.into()),
            congestion: match tcp.congestion {
                tcp::Congestion::Cubic => Congestion::Cubic,
                tcp::Congestion::NewReno => Congestion::NewReno,
            },
            rto_min: Time(tcp.rto_min),
            rto_max: Time(tcp.rto_max),
            retries: tcp.retries,
            syn_ack_retries: tcp.syn_ack_retries,
            time_wait: Time(tcp.time_wait),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let relay = relay::Limits::default();
        Self {
            flows: relay.flows,
            half_open: relay.half_open,
            lingering: relay.lingering,
            bytes: Size(relay.bytes),
            out_of_order_ranges: tcp::Config::default().out_of_order_ranges,
            held_segments: relay.held_segments,
            neighbours: relay.neighbours,
            events: 65_536,
            udp_flows: 1_024,
            capture: Size(64 << 20),
            ladders: 256,
            control_connections: 16,
            metrics_connections: 16,
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self { snaplen: Size(256 << 10), rotate: Size(0) }
    }
}

impl Default for Measure {
    fn default() -> Self {
        Self { interval: Time(Duration::from_secs(10)) }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: true, history: 0 }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self { kind: EngineKind::Tun, shards: 0, grace: Time(Duration::from_secs(8)) }
    }
}
