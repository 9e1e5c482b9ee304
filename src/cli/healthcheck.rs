//! `halfopen healthcheck`: asks a running instance whether it is ready, for the health check of a container.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::ending::METRICS;
use super::{Failure, Sources};
use crate::config::load;
use crate::config::units::MetricsAddr;

/// An instance that has no answer by then is not well. Shorter than the timeout of the image's HEALTHCHECK.
const PATIENCE: Duration = Duration::from_secs(2);
/// The whole answer has less than that.
const MOST: u64 = 4096;

/// Ask the instance that runs here whether it takes new connections
///
/// Exit code 0 if it does, 1 if it does not. Asks /readyz at metrics.addr, which
/// the config file or the environment (HALFOPEN_METRICS__ADDR) tells both.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Read the config from FILE, as "halfopen run" does
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Ask at ADDR. Default: metrics.addr of the config, else 127.0.0.1:8474
    #[arg(long, value_name = "ADDR")]
    metrics_addr: Option<String>,
}

pub(super) fn healthcheck(args: &Args) -> Result<ExitCode, Failure> {
    let Args { config, metrics_addr } = args;
    let sources = Sources { config: config.clone(), ..Sources::default() };
    let request = sources.request([("--metrics-addr", "metrics.addr", metrics_addr.clone())]);
    let address = match load(&request)?.raw.metrics.addr {
        MetricsAddr::Auto => METRICS,
        MetricsAddr::At(address) => reachable(address),
        MetricsAddr::Off => {
            return Err(Failure::new(Failure::BAD_CONFIG, "metrics.addr = \"off\": there is nobody to ask")
                .hint("give it an address such as \"127.0.0.1:8474\", or leave the health check out"));
        }
    };
    let answer = ask(address).map_err(|e| {
        Failure::new(Failure::FAILED, format_args!("no answer from {address}: {e}"))
            .hint("is it there? Tell another metrics.addr by HALFOPEN_METRICS__ADDR to both commands")
    })?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::new(Failure::FAILED, format_args!("not ready: {address} answers \"{status}\"")));
    }
    anstream::println!("ready");
    Ok(ExitCode::SUCCESS)
}

/// Who listens on all addresses is asked at the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Status line, head and body.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    Ok(answer)
}
