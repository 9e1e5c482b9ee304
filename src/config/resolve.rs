//! From the shape of the config to its meaning. After this everything is in range, every combination is possible, and no
//! text is left to be understood.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use super::error::Problem;
use super::listeners::{Listener, Publish};
use super::load::Layers;
use super::raw::{self, EngineKind, Mode};
use super::rules;
use super::scale::Scaling;
use super::units::{Loopback, MetricsAddr, PortRange, Seed, Text};
use crate::fault::Rules;
use crate::relay;
use crate::tcp;
use crate::time::Duration;

/// What the config means.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where halfopen stands.
    pub mode: Mode,
    /// Server ports to take, sorted, without overlap; empty in exec mode, which takes all.
    pub ports: Vec<PortRange>,
    /// Sidecar: ports of services of its own host to take, sorted, without overlap.
    pub inbound_ports: Vec<PortRange>,
    /// Sidecar: where server legs come from.
    pub source_ports: PortRange,
    /// Listen: where clients arrive, and what stands behind.
    pub listeners: Vec<Listener>,
    /// The interface towards the clients; `None`: any.
    pub client_interface: Option<String>,
    /// The interface towards the servers; `None`: any.
    pub server_interface: Option<String>,
    /// The rules of the config, those of the presets, then those of the command line.
    pub rules: Rules,
    /// What the time scale did to them.
    pub scaling: Scaling,
    /// Exec: which services on the caller's loopback are reachable.
    pub host_loopback: Loopback,
    /// Exec: ports of the command that are reachable from outside.
    pub publish: Vec<Publish>,
    /// What the relay is told.
    pub relay: relay::Settings,
    /// A number that nobody outside can guess; hashes the addresses of flows.
    pub hash_seed: u64,
    /// Events that may wait to be written.
    pub events: usize,
    /// Payload bytes that may wait to be captured.
    pub capture: usize,
    /// Open flows that are followed for a report in HTML.
    pub ladders: usize,
    /// Bytes of a captured packet that are kept.
    pub snaplen: u32,
    /// Bytes of a capture file after which the next one begins; 0: never.
    pub rotate: u64,
    /// How long an interval of the log of latencies is.
    pub interval: Duration,
    /// UDP flows relayed at once.
    pub udp_flows: usize,
    /// Threads that carry packets, at least 1.
    pub shards: usize,
    /// What carries the bytes.
    pub engine: EngineKind,
    /// How long a stop waits for open flows to end.
    pub grace: Duration,
    /// Where metrics are served.
    pub metrics: MetricsAddr,
    /// Connections for metrics at once.
    pub metrics_connections: usize,
    /// There is a control socket.
    pub control: bool,
    /// Connections to it at once.
    pub control_connections: usize,
    /// The newest flows whose ladders are kept while the run goes on.
    pub history: usize,
}

/// What the machine adds to the config.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// A random number: the seed where none is given.
    pub random: u64,
    /// Cores to run on.
    pub cores: usize,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        Self { random: random(), cores: std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

impl Settings {
    /// Gives the layers their meaning. Tells everything that is wrong, not only the first.
    pub fn resolve(layers: &Layers, machine: Machine) -> Result<Self, Vec<Problem>> {
        let raw = &layers.raw;
        let mut check = Check { layers, problems: Vec::new() };
        check.ranges(raw);
        check.intercept(raw);
        check.listeners(raw);
        check.engine(raw);
        check.publish(&raw.intercept);
        let seed = match raw.seed {
            Seed::Fixed(seed) => seed,
            Seed::Random => machine.random,
        };
        let (rules, scaling) = rules::build(layers, seed).unwrap_or_else(|problems| {
            check.problems.extend(problems);
            Default::default()
        });
        if !check.problems.is_empty() {
            return Err(check.problems);
        }
        let name = |text: &Text| Some(text.0.clone()).filter(|name| !name.is_empty());
        Ok(Self {
            rules,
            scaling,
            mode: raw.intercept.mode,
            ports: merged(&raw.intercept.ports.0),
            inbound_ports: merged(&raw.intercept.inbound_ports.0),
            source_ports: raw.intercept.source_ports,
            listeners: raw.listener.0.clone(),
            client_interface: name(&raw.intercept.client_interface),
            server_interface: name(&raw.intercept.server_interface),
            host_loopback: raw.intercept.host_loopback.clone(),
            publish: raw.intercept.publish.0.clone(),
            relay: relay_settings(raw),
            hash_seed: random(),
            events: raw.limits.events,
            capture: usize::try_from(raw.limits.capture.0).unwrap_or(usize::MAX),
            ladders: raw.limits.ladders,
            snaplen: raw.capture.snaplen.0 as u32,
            rotate: raw.capture.rotate.0,
            interval: raw.measure.interval.0,
            udp_flows: raw.limits.udp_flows,
            shards: match raw.engine.shards {
                0 if machine.cores <= 2 || raw.intercept.mode != Mode::Gateway => 1,
                0 => machine.cores / 2,
                shards => shards,
            },
            engine: raw.engine.kind,
            grace: raw.engine.grace.0,
            metrics: raw.metrics.addr,
            metrics_connections: raw.limits.metrics_connections,
            control: raw.control.socket,
            control_connections: raw.limits.control_connections,
            history: raw.control.history,
        })
    }
}

/// A number from the system's randomness, which keys every `RandomState`: SipHash of a constant under a random key.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn relay_settings(raw: &raw::Raw) -> relay::Settings {
    let raw::Limits {
        flows,
        half_open,
        lingering,
        bytes,
        out_of_order_ranges,
        held_segments,
        neighbours,
        events: _,
        udp_flows: _,
        capture: _,
        ladders: _,
        control_connections: _,
        metrics_connections: _,
    } = raw.limits;
    let tcp = tcp::Config {
        rto_min: raw.tcp.rto_min.0,
        rto_max: raw.tcp.rto_max.0,
        retries: raw.tcp.retries,
        syn_ack_retries: raw.tcp.syn_ack_retries,
        time_wait: raw.tcp.time_wait.0,
        buffer: u32::try_from(raw.tcp.buffer.0).unwrap_or(u32::MAX),
        out_of_order_ranges,
        congestion: match raw.tcp.congestion {
            raw::Congestion::Cubic => tcp::Congestion::Cubic,
            raw::Congestion::NewReno => tcp::Congestion::NewReno,
        },
        secret: [random(), random()],
    };
    relay::Settings {
        tcp: Arc::new(tcp),
        limits: relay::Limits { flows, half_open, lingering, bytes: bytes.0, held_segments, neighbours },
        uplink: match raw.intercept.mode {
            Mode::Gateway => relay::Uplink::Transparent,
            Mode::Exec | Mode::Listen => relay::Uplink::Socket,
            Mode::Sidecar => {
                let PortRange { first, last } = raw.intercept.source_ports;
                relay::Uplink::OtherPort(relay::SourcePorts { first, last })
            }
        },
    }
}

/// Sorted, with overlapping and neighbouring ranges made one: fewer kernel rules.
fn merged(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<PortRange> = Vec::new();
    for range in sorted {
        match out.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last)
            }
            _ => out.push(range),
        }
    }
    out
}

/// Collects what is wrong.
pub(super) struct Check<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn wrong(&mut self, key: &str, message: &str) {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        self.problems.push(self.layers.problem(&path, message));
    }

    fn range<T: PartialOrd>(&mut self, key: &str, value: T, (least, most): (T, T), told: &str) {
        if value < least || value > most {
            self.wrong(key, &format!("out of range\nallowed: {told}"));
        }
    }

    fn ranges(&mut self, raw: &raw::Raw) {
        let raw::Raw {
            tcp,
            limits,
            engine,
            capture,
            measure,
            time_scale,
            seed: _,
            preset: _,
            intercept: _,
            listener: _,
            metrics: _,
            control,
            rule: _,
        } = raw;
        self.range("time_scale", *time_scale, (1e-6, 1e3), "0.000001 to 1000");
        let ten_minutes = Duration::from_secs(600);
        self.range("tcp.buffer", tcp.buffer.0, (4 << 10, 1 << 30), "4KiB to 1GiB");
        self.range("tcp.rto_min", tcp.rto_min.0, (Duration::from_millis(1), ten_minutes), "1ms to 10m");
        self.range("tcp.rto_max", tcp.rto_max.0, (Duration::from_millis(1), ten_minutes), "1ms to 10m");
        if tcp.rto_min.0 > tcp.rto_max.0 {
            let message =
                format!("is above tcp.rto_max, which is {}\nlower it, or raise tcp.rto_max", tcp.rto_max);
            self.wrong("tcp.rto_min", &message);
        }
        self.range("tcp.retries", tcp.retries, (1, 100), "1 to 100");
        self.range("tcp.syn_ack_retries", tcp.syn_ack_retries, (0, 100), "0 to 100");
        self.range("tcp.time_wait", tcp.time_wait.0, (Duration::ZERO, ten_minutes), "0 to 10m");
        let (some, slots) = ((1, usize::MAX), (1, 1 << 24));
        self.range("limits.flows", limits.flows, slots, "1 to 16777216");
        self.range("limits.half_open", limits.half_open, slots, "1 to 16777216");
        self.range("limits.lingering", limits.lingering, slots, "1 to 16777216");
        self.range("limits.bytes", limits.bytes.0, (1 << 20, u64::MAX), "1MiB or more");
        self.range("limits.out_of_order_ranges", limits.out_of_order_ranges, (1, 65_536), "1 to 65536");
        self.range("limits.held_segments", limits.held_segments, some, "1 or more");
        self.range("limits.neighbours", limits.neighbours, slots, "1 to 16777216");
        self.range("limits.events", limits.events, (1024, usize::MAX), "1024 or more");
        self.range("limits.udp_flows", limits.udp_flows, some, "1 or more");
        self.range("limits.capture", limits.capture.0, (1 << 20, u64::MAX), "1MiB or more");
        self.range("limits.ladders", limits.ladders, (1, 65_536), "1 to 65536");
        for (key, connections) in [
            ("limits.control_connections", limits.control_connections),
            ("limits.metrics_connections", limits.metrics_connections),
        ] {
            self.range(key, connections, (1, 1024), "1 to 1024");
        }
        self.range("control.history", control.history, (0, 1000), "0 to 1000");
        self.range("engine.shards", engine.shards, (0, 64), "0 to 64");
        let intervals = (Duration::from_millis(100), Duration::from_secs(86_400));
        self.range("measure.interval", measure.interval.0, intervals, "100ms to 1day");
        self.range("capture.snaplen", capture.snaplen.0, (64, 256 << 10), "64B to 256KiB");
        if capture.rotate.0 != 0 {
            self.range("capture.rotate", capture.rotate.0, (1 << 20, u64::MAX), "0, or 1MiB or more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Request, load};
    use super::*;

    const MACHINE: Machine = Machine { random: 99, cores: 2 };

    fn resolve(toml: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, toml).unwrap();
        let layers = load(&Request { file: Some(path), ..Request::default() }).unwrap();
        Settings::resolve(&layers, MACHINE).map_err(|problems| {
            let lines = problems.iter().map(|p| format!("{p}; {}\n", p.hint.clone().unwrap_or_default()));
            lines.collect::<String>().replace(&format!("{}/", dir.path().display()), "")
        })
    }

    #[test]
    fn what_is_not_said_comes_from_the_machine() {
        let settings = resolve("intercept.ports = [80]").unwrap();
        assert_eq!((settings.rules.seed(), settings.shards), (99, 1));
        assert_eq!(settings.client_interface, None);
    }

    #[test]
    fn ports_are_sorted_and_merged() {
        let settings = resolve("intercept.ports = [90, '80-82', 83, '81-85', 1]").unwrap();
        let ports: Vec<String> = settings.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["1", "80-85", "90"]);
    }

    #[test]
    fn values_out_of_range_are_all_told() {
        let toml = "[intercept]\nports = [80]\n[tcp]\nbuffer = 4095\nretries = 0\nrto_min = '11m'\n[limits]\nflows = 0\nneighbours = 0\n[engine]\nshards = 65\n";
        assert_eq!(
            resolve(toml).unwrap_err(),
            "c.toml:4: tcp.buffer = 4095: out of range; allowed: 4KiB to 1GiB\n\
             c.toml:6: tcp.rto_min = \"11m\": out of range; allowed: 1ms to 10m\n\
             c.toml:6: tcp.rto_min = \"11m\": is above tcp.rto_max, which is 2m; lower it, or raise tcp.rto_max\n\
             c.toml:5: tcp.retries = 0: out of range; allowed: 1 to 100\n\
             c.toml:8: limits.flows = 0: out of range; allowed: 1 to 16777216\n\
             c.toml:9: limits.neighbours = 0: out of range; allowed: 1 to 16777216\n\
             c.toml:11: engine.shards = 65: out of range; allowed: 0 to 64\n"
        );
        assert!(
            resolve("intercept.ports = [80]\ntcp = { buffer = 4096, retries = 1, rto_max = '10m' }").is_ok()
        );
    }

    #[test]
    fn impossible_combinations_are_refused() {
        for (toml, told) in [
            (
                "",
                "intercept.ports = []: is empty, so nothing would be intercepted; name the server ports, such as --ports 5432; a file for exec says mode = \"exec\"\n",
            ),
            (
                "intercept.ports = ['1-65535']",
                "c.toml:1: intercept.ports = [\"1-65535\"]: a gateway cannot take port 65535; end the range at 65534\n",
            ),
            (
                "intercept = { mode = 'exec', ports = [80] }",
                "c.toml:1: intercept.ports = [80]: mode exec takes all ports; remove it; a rule chooses its ports by match.server = \":5432\"\n",
            ),
            (
                "[intercept]\nmode = 'exec'\nclient_interface = 'eth0'",
                "c.toml:3: intercept.client_interface = \"eth0\": mode exec has no interfaces to choose from; remove it, or use mode = \"gateway\"\n",
            ),
            (
                "[intercept]\nports = [80]\nhost_loopback = 'off'",
                "c.toml:3: intercept.host_loopback = \"off\": a gateway reaches nobody's loopback; remove it, or use mode = \"exec\"\n",
            ),
            (
                "intercept = { ports = [80], source_ports = '5-6' }",
                "c.toml:1: intercept.source_ports = \"5-6\": only a sidecar has these; remove it, or use mode = \"sidecar\"\n",
            ),
            (
                "intercept = { mode = 'sidecar', ports = [80, 61005], client_interface = 'eth0' }",
                "c.toml:1: intercept.client_interface = \"eth0\": mode sidecar has no interfaces to choose from; remove it, or use mode = \"gateway\"\n\
                 c.toml:1: intercept.ports = [80, 61005]: 61000-64999 are the ports of server legs; set intercept.source_ports to others\n",
            ),
            (
                "engine.shards = 2\nintercept = { mode = 'sidecar', ports = [80] }",
                "c.toml:1: engine.shards = 2: mode sidecar has one thread for packets; remove it, or set it to 1\n",
            ),
            (
                "engine.shards = 2\nintercept.mode = 'exec'",
                "c.toml:1: engine.shards = 2: mode exec has one thread for packets; remove it, or set it to 1\n",
            ),
            (
                "engine.kind = 'sockets'\nengine.shards = 2\nintercept.ports = [80]",
                "c.toml:2: engine.shards = 2: mode gateway with kernel sockets has one thread for packets; remove it, or set it to 1\n",
            ),
            (
                "engine.kind = 'sockets'\nintercept.mode = 'exec'",
                "c.toml:1: engine.kind = \"sockets\": exec cannot do without our own TCP; remove it, or use another mode\n",
            ),
            (
                "engine.kind = 'sockets'\nintercept = { mode = 'sidecar', ports = [61005], source_ports = '61000-61009' }",
                "c.toml:2: intercept.source_ports = \"61000-61009\": the kernel chooses the ports of its sockets; remove it, or use engine.kind = \"tun\"\n",
            ),
            (
                "intercept.mode = 'listen'",
                "listener = []: is empty, so there would be nothing to connect to; name them, such as --listen 0.0.0.0:5432=db:5432\n",
            ),
            (
                "intercept.ports = [80]\nlistener = ['0.0.0.0:80=db:80']",
                "c.toml:2: listener = [\"0.0.0.0:80=db:80\"]: only mode listen has listeners; remove them, or use mode = \"listen\"\n",
            ),
            (
                "[intercept]\nmode = 'listen'\nports = [80]\n[[listener]]\nlisten = '0.0.0.0:80'\nupstream = 'db:80'\n\
                 [[listener]]\nlisten = '0.0.0.0:80'\nupstream = 'db2:80'\n[[listener]]\nlisten = '127.0.0.1:81'\nupstream = '127.0.0.1:81'",
                "c.toml:3: intercept.ports = [80]: a listener has its port with its address; remove it, or use mode = \"sidecar\"\n\
                 c.toml:7: listener[2]: 0.0.0.0:80 is listened at already; give each listener an address of its own\n\
                 c.toml:10: listener[3]: 127.0.0.1:81 is the listener itself; name what stands behind it\n",
            ),
        ] {
            assert_eq!(resolve(toml).unwrap_err(), told);
        }
        assert!(resolve("intercept.mode = 'exec'").unwrap().ports.is_empty());
        assert!(resolve("intercept.ports = ['1-65534']").is_ok());
    }
}
