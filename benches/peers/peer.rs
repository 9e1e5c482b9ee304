//! Who is compared: each can be started in the proxy's namespace, and is stopped when dropped.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::lab::{HTTP, IDLE, Lab, Place, Running, SERVERS, STREAM, run};
use super::load::{idle_flows, wait_for};

/// One of the compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// The kernel forwards; nobody proxies.
    Kernel,
    /// HAProxy as a TPROXY.
    Haproxy,
    /// Ours.
    Halfopen,
    /// Another build of ours.
    Before,
    /// Ours, with a rule on every flow that never fires.
    Armed,
    /// Ours by kernel sockets, as HAProxy is.
    Sockets,
}

/// A byte that no measurement reaches.
const NEVER: &str = "rst-inject after_bytes=1000GiB";

impl Peer {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Haproxy => "haproxy",
            Self::Halfopen => "halfopen",
            Self::Before => "before",
            Self::Armed => "armed",
            Self::Sockets => "sockets",
        }
    }

    /// The server's address for it.
    pub(crate) const fn server(self) -> &'static str {
        SERVERS[self as usize]
    }

    /// Starts it and waits until connections pass. `before` is the program of [`Peer::Before`].
    pub(crate) fn start(self, lab: &Lab, before: Option<&str>) -> Started {
        let started = match self {
            Self::Kernel => Started { program: None, tproxy: false },
            Self::Haproxy => {
                let config = lab.file("haproxy.cfg", &haproxy());
                let program =
                    Place::Proxy.command("haproxy").arg("-db").arg("-f").arg(config).spawn().unwrap();
                // Before it listens, the kernel would forward past it.
                wait_for(Place::Proxy, "127.0.0.1", 15_000);
                divert(lab);
                Started { program: Some(Running(program)), tproxy: true }
            }
            Self::Halfopen => Started::gateway(env!("CARGO_BIN_EXE_halfopen"), &[]),
            Self::Before => Started::gateway(before.expect("it is a peer only if it is named"), &[]),
            Self::Armed => Started::gateway(env!("CARGO_BIN_EXE_halfopen"), &["--fault", NEVER]),
            Self::Sockets => Started::gateway(env!("CARGO_BIN_EXE_halfopen"), &["--engine", "sockets"]),
        };
        wait_for(Place::Client, self.server(), HTTP);
        started
    }
}

/// A peer that works.
pub(crate) struct Started {
    program: Option<Running>,
    tproxy: bool,
}

impl Started {
    fn gateway(program: &str, options: &[&str]) -> Self {
        Self { program: Some(halfopen(program, options)), tproxy: false }
    }

    /// The process, where there is one.
    pub(crate) fn process(&self) -> Option<u32> {
        self.program.as_ref().map(|program| program.0.id())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(program) = &self.program {
            // halfopen takes back what it has set up.
            run(Command::new("kill").args(["-TERM", &program.0.id().to_string()]));
        }
        if let Some(Running(child)) = &mut self.program {
            child.wait().unwrap();
        }
        if self.tproxy {
            run(Place::Proxy.command("nft").args(["delete", "table", "ip", "peers"]));
            run(Place::Proxy.command("ip").args("rule delete pref 10 fwmark 1 lookup 100".split(' ')));
        }
    }
}

fn halfopen(program: &str, options: &[&str]) -> Running {
    let ports = format!("{STREAM},{HTTP},{IDLE}");
    let mut command = Place::Proxy.command(program);
    let command = command
        .args(["run", "--mode", "gateway", "--ports", &ports, "--grace", "0"])
        .args(options)
        .stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| {
        let ready = line.contains("ready");
        if !ready {
            eprintln!("{line}");
        }
        ready
    });
    // Somebody must read what it says, or it waits.
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .filter(|line| !line.contains(" INFO "))
            .for_each(|line| eprintln!("{line}"));
    });
    let running = Running(child);
    assert!(ready, "halfopen did not get ready");
    running
}

/// Sends the packets of both legs to HAProxy's sockets.
fn divert(lab: &Lab) {
    let rules = lab.file("tproxy.nft", &format!(
        "table ip peers {{\n  chain pre {{\n    type filter hook prerouting priority mangle;\n    meta l4proto tcp socket transparent 1 meta mark set 1 accept\n    \
         iif cli0 tcp dport {{ {STREAM}, {HTTP}, {IDLE} }} tproxy to :15000 meta mark set 1 accept\n  }}\n}}\n"
    ));
    run(Place::Proxy.command("nft").arg("-f").arg(rules));
    run(Place::Proxy.command("ip").args("rule add pref 10 fwmark 1 lookup 100".split(' ')));
    run(Place::Proxy.command("ip").args("route replace local default dev lo table 100".split(' ')));
}

fn haproxy() -> String {
    let most = idle_flows() + 100;
    format!(
        "global\n  nbthread 1\n  maxconn {most}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
         listen all\n  bind 0.0.0.0:15000 transparent\n  source 0.0.0.0 usesrc clientip\n  server server {}\n",
        Peer::Haproxy.server()
    )
}
