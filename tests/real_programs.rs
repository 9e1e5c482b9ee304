//! Programs that people really run, unmodified, through the gateway and through `exec`. A missing program is a failure; the
//! README and `.ci/run` say which packages have them.
#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

#[path = "real/capture.rs"]
mod capture;
mod lab;
#[path = "real/metrics.rs"]
mod metrics;
#[path = "real/nft.rs"]
mod nft;
#[path = "real/page.rs"]
mod page;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use halfopen::setup::netlink::Family;
use libtest_mimic::{Arguments, Failed, Trial};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use lab::process::{command, program};
use lab::{Lab, PORT, Way, server_at};

/// What curl fetches.
const LARGE: u64 = 1 << 30;
/// What scp copies.
const MEDIUM: u64 = 64 << 20;
/// The account that PostgreSQL runs under, as it refuses root.
const NOBODY: u32 = 65_534;

/// How the client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// A gateway between the two; the client runs beside it, untouched.
    Gateway,
    /// The same by kernel sockets.
    Sockets,
    /// `halfopen exec` around the client.
    Exec,
}

impl Via {
    fn lab(self) -> Lab {
        Lab::new(match self {
            Self::Gateway => Way::Proxied,
            Self::Sockets => Way::GatewaySockets,
            Self::Exec => Way::Direct,
        })
    }

    /// The client program.
    fn client(self, lab: &Lab, name: &str, args: &[&str]) -> Command {
        let mut client = match self {
            Self::Gateway | Self::Sockets => program(&lab.client, name),
            Self::Exec => command(&lab.client, &["exec", "--", name]),
        };
        client
            .args(args)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root");
        client
    }

    /// Runs the client to its end, which must be a success.
    fn run(self, lab: &Lab, name: &str, args: &[&str]) -> String {
        let done = self.client(lab, name, args).output().unwrap_or_else(|e| panic!("{name} is needed: {e}"));
        succeeded(name, &done)
    }
}

fn succeeded(name: &str, done: &Output) -> String {
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{name}: {}\n{out}\n{err}", done.status);
    out
}

/// A server on the server's host; killed when dropped.
struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens on [`PORT`], asking from its own host.
    fn start(lab: &Lab, mut command: Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut this = Self(child.unwrap_or_else(|e| panic!("{command:?} is needed: {e}")));
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        let start = Instant::now();
        while lab.server.run(|| TcpStream::connect(at)).is_err() {
            if let Some(status) = this.0.try_wait().expect("our child") {
                let mut said = String::new();
                let _ = this.0.stderr.take().expect("it is piped").read_to_string(&mut said);
                panic!("{command:?} ended with {status}: {said}");
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("a plain path").to_owned()
}

/// A file whose bytes never repeat at the size of any buffer; returns its hash.
fn large_file(at: &str, size: u64) -> String {
    let mut file = fs::File::create(at).expect("room for a large file");
    let mut hash = Sha256::new();
    let mut block = vec![0u8; 1 << 20];
    for i in 0..size >> 20 {
        for (j, word) in block.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(
                &(i * 0x9e37_79b9 + j as u64).wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes(),
            );
        }
        hash.update(&block);
        file.write_all(&block).expect("room for a large file");
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn hash_of(mut from: impl Read) -> (u64, String) {
    let (mut hash, mut size, mut block) = (Sha256::new(), 0, vec![0u8; 1 << 20]);
    loop {
        match from.read(&mut block).expect("readable") {
            0 => return (size, hex(&hash.finalize())),
            n => {
                hash.update(&block[..n]);
                size += n as u64;
            }
        }
    }
}

/// nginx in the foreground, as one process.
fn nginx(lab: &Lab, dir: &TempDir) -> Server {
    let at = dir.path().display();
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
         fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
         server {{ listen {PORT} backlog=1024; listen [::]:{PORT}; root {at}; location = /small {{ return 200 \"small\"; }} }} }}\n"
    );
    let config = path(dir, "nginx.conf");
    fs::write(&config, text).expect("a file of ours");
    let mut nginx = program(&lab.server, "nginx");
    nginx.args(["-e", &path(dir, "error.log"), "-c", &config]);
    Server::start(lab, nginx)
}

fn curl_fetches_a_gibibyte(via: Via) {
    let (lab, dir) = (via.lab(), TempDir::new().expect("a folder"));
    let expected = large_file(&path(&dir, "large"), LARGE);
    let _server = nginx(&lab, &dir);
    for family in Family::ALL {
        let url = format!("http://{}/large", server_at(family));
        let mut curl = via.client(&lab, "curl", &["--silent", "--show-error", "--fail", "--globoff", &url]);
        let mut child = curl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl is needed");
        let got = hash_of(child.stdout.take().expect("it is piped"));
        succeeded("curl", &child.wait_with_output().expect("our child"));
        assert_eq!(got, (LARGE, expected.clone()), "{family:?}");
    }
}

fn wrk_loads_nginx(via: Via) {
    let (lab, dir) = (via.lab(), TempDir::new().expect("a folder"));
    let _server = nginx(&lab, &dir);
    for family in Family::ALL {
        let url = format!("http://{}/small", server_at(family));
        for close in [&[][..], &["-H", "Connection: close"]] {
            let out = via.run(&lab, "wrk", &[&["-t", "1", "-c", "64", "-d", "2", &url], close].concat());
            assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{family:?}\n{out}");
            let done = out
                .split_whitespace()
                .zip(out.split_whitespace().skip(1))
                .find(|(_, word)| *word == "requests");
            assert!(done.is_some_and(|(n, _)| n.parse::<u64>().is_ok_and(|n| n > 100)), "{family:?}\n{out}");
        }
    }
}

fn redis_benchmark_finishes(via: Via) {
    let (lab, dir) = (via.lab(), TempDir::new().expect("a folder"));
    let mut redis = program(&lab.server, "redis-server");
    redis.args([
        "--port",
        &PORT.to_string(),
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
    ]);
    redis.arg(dir.path());
    let _server = Server::start(&lab, redis);
    let at = server_at(Family::V4);
    let (ip, port) = (at.ip().to_string(), PORT.to_string());
    let args = [
        "-h",
        &ip,
        "-p",
        &port,
        "-t",
        "set,get,lpush",
        "-n",
        "20000",
        "-c",
        "50",
        "-P",
        "4",
        "-d",
        "512",
        "--csv",
    ];
    let out = via.run(&lab, "redis-benchmark", &args);
    let rows =
        out.lines().filter(|l| ["\"SET\"", "\"GET\"", "\"LPUSH\""].iter().any(|t| l.starts_with(t))).count();
    assert_eq!(rows, 3, "{out}");
}

/// Debian keeps the server's programs out of PATH.
fn postgres_program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is needed");
    let found = versions.flatten().map(|v| v.path().join("bin").join(name)).find(|p| p.exists());
    found.expect("PostgreSQL is needed").to_str().expect("a plain path").to_owned()
}

/// Root becomes nobody, in the namespace that it has entered.
fn as_nobody(command: &mut Command) -> &mut Command {
    if nix::unistd::getuid().is_root() {
        // SAFETY: system calls without memory effects.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setgid(NOBODY.into())?;
                Ok(nix::unistd::setuid(NOBODY.into())?)
            });
        }
    }
    command
}

fn pgbench_runs_on_postgresql(via: Via) {
    let (lab, dir) = (via.lab(), TempDir::new().expect("a folder"));
    if nix::unistd::getuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let data = path(&dir, "data");
    let mut init = program(&lab.server, &postgres_program("initdb"));
    init.args(["-D", &data, "-U", "postgres", "-A", "trust", "-N", "--locale=C"]).env("HOME", dir.path());
    succeeded("initdb", &as_nobody(&mut init).output().expect("PostgreSQL is needed"));
    fs::write(Path::new(&data).join("pg_hba.conf"), "host all all all trust\n").expect("a file of ours");
    let mut server = program(&lab.server, &postgres_program("postgres"));
    let sockets = format!("unix_socket_directories={}", dir.path().display());
    server.args([
        "-D",
        &data,
        "-p",
        &PORT.to_string(),
        "-c",
        "listen_addresses=*",
        "-c",
        &sockets,
        "-c",
        "fsync=off",
    ]);
    as_nobody(&mut server);
    let _server = Server::start(&lab, server);
    // It listens before it is ready.
    let ready = || {
        program(&lab.server, &postgres_program("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &PORT.to_string()])
            .status()
    };
    let start = Instant::now();
    while !ready().expect("PostgreSQL is needed").success() {
        assert!(start.elapsed() < Duration::from_secs(30), "PostgreSQL does not get ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    let at = server_at(Family::V4);
    let (ip, port, pgbench) = (at.ip().to_string(), PORT.to_string(), postgres_program("pgbench"));
    let to = ["-h", &ip, "-p", &port, "-U", "postgres"];
    via.run(&lab, &pgbench, &[&to[..], &["-i", "-q", "-s", "2", "postgres"]].concat());
    let out = via.run(&lab, &pgbench, &[&to[..], &["-c", "8", "-j", "2", "-t", "200", "postgres"]].concat());
    assert!(out.contains("number of transactions actually processed: 1600/1600"), "{out}");
}

fn scp_copies_a_file(via: Via) {
    let (lab, dir) = (via.lab(), TempDir::new().expect("a folder"));
    let (host_key, user_key) = (path(&dir, "host_key"), path(&dir, "user_key"));
    for key in [&host_key, &user_key] {
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", key]).output();
        succeeded("ssh-keygen", &made.expect("ssh-keygen is needed"));
    }
    let config = path(&dir, "sshd_config");
    let text = format!(
        "Port {PORT}\nHostKey {host_key}\nAuthorizedKeysFile {user_key}.pub\nStrictModes no\nPidFile none\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    );
    fs::write(&config, text).expect("a file of ours");
    // Debian's sshd wants this directory, and only its service makes it.
    fs::create_dir_all("/run/sshd").expect("ssh tests run as root");
    let mut sshd = program(&lab.server, "/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f", &config]);
    let _server = Server::start(&lab, sshd);
    let (from, to) = (path(&dir, "from"), path(&dir, "to"));
    let expected = large_file(&from, MEDIUM);
    let (port, remote) = (PORT.to_string(), format!("root@{}:{from}", server_at(Family::V4).ip()));
    let options =
        ["-q", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
    via.run(&lab, "scp", &[&options[..], &["-i", &user_key, "-P", &port, &remote, &to]].concat());
    assert_eq!(hash_of(fs::File::open(&to).expect("scp wrote it")), (MEDIUM, expected));
}

fn python_talks_http_to_itself(via: Via) {
    let (lab, dir) = (via.lab(), TempDir::new().expect("a folder"));
    let expected = large_file(&path(&dir, "large"), 16 << 20);
    let mut python = program(&lab.server, "python3");
    python.args([
        "-m",
        "http.server",
        "--directory",
        &path(&dir, ""),
        "--bind",
        "0.0.0.0",
        &PORT.to_string(),
    ]);
    let _server = Server::start(&lab, python);
    let url = format!("http://{}/large", server_at(Family::V4));
    let fetch = format!(
        "import hashlib,urllib.request as r\nprint([hashlib.sha256(r.urlopen('{url}').read()).hexdigest() for _ in range(3)])"
    );
    let out = via.run(&lab, "python3", &["-c", &fetch]);
    assert_eq!(out.matches(&expected).count(), 3, "{out}");
}

/// Something that a real client does with a real server.
type Row = (&'static str, fn(Via));

const ROWS: [Row; 6] = [
    ("curl fetches 1 GiB from nginx", curl_fetches_a_gibibyte),
    ("wrk loads nginx", wrk_loads_nginx),
    ("redis-benchmark finishes", redis_benchmark_finishes),
    ("pgbench runs on PostgreSQL", pgbench_runs_on_postgresql),
    ("scp copies a file", scp_copies_a_file),
    ("python talks HTTP to itself", python_talks_http_to_itself),
];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // One after the other: each row is a load of its own.
    args.test_threads = Some(1);
    if !args.list
        && let Err(why) = lab::ns::become_able()
    {
        eprintln!("error: {why}");
        return ExitCode::FAILURE;
    }
    let trials = ROWS.into_iter().flat_map(|(name, row)| {
        [("gateway", Via::Gateway), ("exec", Via::Exec)].map(|(how, via)| {
            Trial::test(format!("{how}: {name}"), move || {
                row(via);
                Ok::<(), Failed>(())
            })
        })
    });
    let capture = Trial::test("gateway: Wireshark reads a capture", || {
        capture::wireshark_reads_the_capture();
        Ok::<(), Failed>(())
    });
    let metrics = Trial::test("gateway: Prometheus reads the metrics", || {
        metrics::prometheus_reads_the_metrics();
        Ok::<(), Failed>(())
    });
    let page = Trial::test("gateway: Chromium shows a report", || {
        page::chromium_shows_a_report();
        Ok::<(), Failed>(())
    });
    let sockets = Trial::test("sockets: curl fetches 1 GiB from nginx", || {
        curl_fetches_a_gibibyte(Via::Sockets);
        Ok::<(), Failed>(())
    });
    let nft = Trial::test("sockets: nft lists what a dry run prints", || {
        nft::lists_what_a_dry_run_prints();
        Ok::<(), Failed>(())
    });
    let tracked = Trial::test("sockets: who is held connects at once where connections are tracked", || {
        nft::connects_at_once_where_connections_are_tracked();
        Ok::<(), Failed>(())
    });
    libtest_mimic::run(&args, trials.chain([capture, metrics, page, sockets, nft, tracked]).collect())
        .exit_code()
}
