//! Three network namespaces in a row, and programs in them; all gone when dropped.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The server's addresses, one per peer: sockets that HAProxy leaves behind keep the addresses of both ends, and would catch
/// (early demux) the packets of the same connection through the next peer, which the kernel then does not forward.
pub(crate) const SERVERS: [&str; 6] =
    ["10.91.2.1", "10.91.2.11", "10.91.2.12", "10.91.2.13", "10.91.2.14", "10.91.2.15"];
/// Where nginx listens.
pub(crate) const HTTP: u16 = 80;
/// Where iperf3 listens.
pub(crate) const STREAM: u16 = 5201;
/// Where the sink of idle flows listens.
pub(crate) const IDLE: u16 = 7;

/// A namespace.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The client's.
    Client,
    /// The proxy's.
    Proxy,
    /// The server's.
    Server,
}

impl Place {
    const ALL: [Self; 3] = [Self::Client, Self::Proxy, Self::Server];

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "halfopen-bench-c",
            Self::Proxy => "halfopen-bench-p",
            Self::Server => "halfopen-bench-s",
        }
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(self) {
        let file = File::open(Path::new("/run/netns").join(self.name())).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// A command that runs in the namespace; the process is that of the command itself.
    pub(crate) fn command(self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(), program]).stdin(Stdio::null());
        command
    }
}

/// The namespaces and a directory for files.
pub(crate) struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    /// Makes it; what an earlier run has left is removed first.
    pub(crate) fn new() -> Self {
        remove();
        for place in Place::ALL {
            ip(&format!("netns add {}", place.name()));
            ip(&format!("-n {} link set lo up", place.name()));
        }
        let (c, p, s) = (Place::Client.name(), Place::Proxy.name(), Place::Server.name());
        ip(&format!("link add cli0 netns {p} type veth peer name eth0 netns {c}"));
        ip(&format!("link add srv0 netns {p} type veth peer name eth0 netns {s}"));
        for (namespace, device, address) in [
            (c, "eth0", "10.91.1.1/24"),
            (p, "cli0", "10.91.1.2/24"),
            (p, "srv0", "10.91.2.2/24"),
            (s, "eth0", "10.91.2.1/24"),
        ] {
            ip(&format!("-n {namespace} address add {address} dev {device}"));
            ip(&format!("-n {namespace} link set {device} up"));
        }
        ip(&format!("-n {c} route add default via 10.91.1.2"));
        ip(&format!("-n {s} route add default via 10.91.2.2"));
        for place in Place::ALL {
            place.sysctl("ipv4/tcp_congestion_control", "reno");
            place.sysctl("ipv4/ip_local_port_range", "2000 65000");
        }
        Place::Proxy.sysctl("ipv4/ip_forward", "1");
        for server in &SERVERS[1..] {
            ip(&format!("-n {s} address add {server}/24 dev eth0"));
        }
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Writes a file of the lab.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove();
    }
}

impl Place {
    /// Sets `net.KEY` in the namespace. /proc/sys/net shows the namespace of the thread that opens it.
    fn sysctl(self, key: &'static str, value: &'static str) {
        let write = move || {
            self.enter();
            let mut file = File::create(Path::new("/proc/sys/net").join(key)).unwrap();
            file.write_all(value.as_bytes()).unwrap();
        };
        std::thread::spawn(write).join().unwrap();
    }
}

fn remove() {
    for place in Place::ALL {
        if Path::new("/run/netns").join(place.name()).exists() {
            ip(&format!("netns delete {}", place.name()));
        }
    }
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split_whitespace()));
}

/// Runs a command to its end; it must succeed. Returns its output.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A program that is killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a program is in the path.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

/// Lets this process and its children open as many files as they may.
pub(crate) fn allow_many_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}
