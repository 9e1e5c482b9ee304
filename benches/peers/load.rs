//! What is measured: streams, requests, idle flows.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{Shutdown, shutdown};

use super::lab::{HTTP, IDLE, Lab, Place, Running, SERVERS, run};

/// Idle flows: as many as the limit of open files lets one process hold both ends of, at most 10,000.
pub(crate) fn idle_flows() -> usize {
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    usize::try_from(files).map_or(10_000, |files| (files.saturating_sub(1000) / 2).min(10_000))
}

/// Connections that wrk holds open.
const CONNECTIONS: u32 = 32;

/// The servers of streams and requests.
pub(crate) struct Servers {
    _iperf: Running,
    _nginx: Running,
}

impl Servers {
    /// Starts iperf3 and nginx.
    pub(crate) fn start(lab: &Lab) -> Self {
        let config = lab.file("nginx.conf", NGINX);
        let directory = config.parent().unwrap();
        let mut nginx = Place::Server.command("nginx");
        nginx.arg("-p").arg(directory).arg("-c").arg(&config).arg("-e").arg(directory.join("error.log"));
        let mut iperf = Place::Server.command("iperf3");
        let mut iperf = iperf.args(["-s", "--forceflush"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(iperf.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.any(|line| line.starts_with("Server listening")), "iperf3 does not listen");
        // Somebody must read what it says, or it waits.
        std::thread::spawn(move || said.for_each(drop));
        let servers = Self { _iperf: Running(iperf), _nginx: Running(nginx.spawn().unwrap()) };
        wait_for(Place::Client, SERVERS[0], HTTP);
        servers
    }
}

const NGINX: &str = "
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 30000;
pid nginx.pid;
events { worker_connections 20000; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server { listen 80 backlog=4096; location / { return 200 'ok'; } }
}
";

/// Waits until somebody answers a connection to this address from this place.
pub(crate) fn wait_for(place: Place, host: &str, port: u16) {
    let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
    let connect = move || {
        place.enter();
        (0..100).any(|_| {
            let answered = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            if !answered {
                pause(Duration::from_millis(50));
            }
            answered
        })
    };
    assert!(std::thread::spawn(connect).join().unwrap(), "nothing answers at {address}");
}

#[expect(clippy::disallowed_methods, reason = "programs of others do not tell when they are ready, or done")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Gbit/s of one TCP stream, as received.
pub(crate) fn stream(server: &str, seconds: u32, down: bool) -> f64 {
    let mut iperf = Place::Client.command("iperf3");
    iperf.args(["-J", "-c", server, "-t", &seconds.to_string()]);
    if down {
        iperf.arg("-R");
    }
    // One client at a time: the server may still be busy with the end of the one before.
    let report = (0..50)
        .map(|_| serde_json::from_str::<serde_json::Value>(&run(&mut iperf)).unwrap())
        .find(|report| {
            let busy = report["error"].as_str().is_some_and(|error| error.contains("busy"));
            if busy {
                pause(Duration::from_millis(100));
            }
            !busy
        })
        .expect("the iperf3 server becomes free within seconds");
    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or_else(|| panic!("iperf3 does not say what it received: {report}"))
        / 1e9
}

/// What wrk says.
pub(crate) struct Requests {
    /// Requests per second.
    pub per_second: f64,
    /// 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
}

/// HTTP requests over kept connections, or each over a new one.
pub(crate) fn requests(server: &str, seconds: u32, keep_alive: bool) -> Requests {
    let mut wrk = Place::Client.command("wrk");
    wrk.args(["-t1", "--latency", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s")]);
    if !keep_alive {
        wrk.args(["-H", "Connection: close"]);
    }
    let report = run(wrk.arg(format!("http://{server}:{HTTP}/")));
    let value = |key: &str| {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(key));
        line.unwrap_or_else(|| panic!("wrk does not say {key}\n{report}")).trim().to_owned()
    };
    Requests { per_second: value("Requests/sec:").parse().unwrap(), p99_ms: milliseconds(&value("99%")) }
}

fn milliseconds(text: &str) -> f64 {
    let number = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[number.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        unit => panic!("wrk uses the unit {unit}"),
    };
    number.parse::<f64>().unwrap() * factor
}

/// Bytes of resident memory that the process takes for each of many idle flows.
pub(crate) fn idle_flow_bytes(server: &'static str, process: u32) -> f64 {
    let listen = || {
        Place::Server.enter();
        TcpListener::bind(("0.0.0.0", IDLE)).unwrap()
    };
    let listener = std::thread::spawn(listen).join().unwrap();
    let at_end = listener.try_clone().unwrap();
    let accept = move || listener.incoming().map_while(Result::ok).collect::<Vec<_>>();
    let accepting = std::thread::spawn(accept);
    let connect = move || {
        Place::Client.enter();
        let before = resident(process);
        let flows: Vec<TcpStream> =
            (0..idle_flows()).map(|_| TcpStream::connect((server, IDLE)).unwrap()).collect();
        pause(Duration::from_secs(1));
        let after = resident(process);
        drop(flows);
        // Then nobody accepts any more.
        shutdown(at_end.as_raw_fd(), Shutdown::Both).unwrap();
        drop(accepting.join().unwrap());
        (after.saturating_sub(before)) as f64 / idle_flows() as f64
    };
    std::thread::spawn(connect).join().unwrap()
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux reports VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
