//! `halfopen ping`: the handshake latency of targets.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use tracing::Level;

use super::page::About;
use super::{Failure, LogFormat, Shared, Telling, ending, log};
use crate::app;
use crate::config::units::Time;
use crate::config::{Machine, OptionValue, Request, Settings, load};
use crate::engine::ping::{OpenError, PORTS, Raw, Via as Way};
use crate::ping::Settings as Pings;
use crate::time::Duration;

/// More targets are in no group of latencies, and so not told apart.
const MOST_TARGETS: usize = crate::measure::MOST_GROUPS;
/// Connects per second and target. The largest rate is beyond what one thread opens; the smallest one is four in an hour.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;
/// Most attempts in flight by kernel sockets, if they are not limited.
const MOST_IN_FLIGHT: usize = 65_536;

/// Measure the handshake latency of targets
///
/// Opens connections to HOST:PORT at a fixed rate, whatever becomes of those
/// before, until Ctrl-C, --count or --duration, and prints a summary. "connect"
/// counts from when an attempt should have started, so that a target that stalls
/// does not hide what it makes others wait ("coordinated omission"); what never
/// finished is part of it as a lower bound. "server_connect" counts from the SYN;
/// "added_by_proxy" is how late it left, "halfopen floor" what is noise.
///
/// Outcomes are those of the handshake: ok, refused-rst, refused-icmp (and by
/// which error), timeout; aborted: it could not be tried, for want of a port, or
/// before its timeout was over; open: under way at the end.
///
/// A name is resolved once, at the start, and its first address is used; start
/// again to follow a change.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Where to connect to, such as db.example.com:5432 or '[2001:db8::1]:443'
    #[arg(required = true, value_name = "HOST:PORT")]
    targets: Vec<String>,

    /// Use IPv4 addresses only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use IPv6 addresses only
    #[arg(short = '6', long)]
    ipv6: bool,

    #[command(flatten)]
    pace: Pace,

    #[command(flatten)]
    telling: Telling,
}

/// How often, how far, and by what.
#[derive(Debug, ClapArgs)]
pub(super) struct Pace {
    /// Connects per second to each target, 0.001 to 10000. Default: 1; for floor
    /// 100
    #[arg(long, value_name = "NUMBER")]
    rate: Option<String>,

    /// End after so many connects to each target. Default: without end; for floor
    /// 1000
    #[arg(short = 'n', long, value_name = "NUMBER")]
    count: Option<String>,

    /// Start no more connects after this time
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,

    /// Give up a connect so long after it should have started; above 0, to 150s.
    /// Default: 10s
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,

    /// Most connects under way at once, by our own TCP at most 535; one more waits,
    /// and its latency counts on. Default: 500
    #[arg(long, value_name = "NUMBER")]
    in_flight: Option<String>,

    /// Go as far as "half": SYN, SYN-ACK, RST, so that the target never accepts a
    /// connection; or "full": a whole handshake and a close by FIN. Default: full
    #[arg(
        long,
        value_name = "WORD",
        default_value = "full",
        hide_default_value = true,
        hide_possible_values = true
    )]
    handshake: Handshake,

    /// Connect by halfopen's "own" TCP, which sees each segment and needs
    /// CAP_NET_RAW, or by "kernel" sockets. Default: own where it is possible
    #[arg(long, value_name = "WORD", hide_possible_values = true)]
    via: Option<Via>,
}

/// How far a connect goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Handshake {
    Half,
    Full,
}

/// What opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Via {
    Own,
    Kernel,
}

pub(super) fn ping(args: &Args) -> Result<ExitCode, Failure> {
    log::start(&args.telling, Level::INFO);
    let targets = targets(args)?;
    run(&args.telling, &args.pace, &format!("ping {}", args.targets.join(" ")), targets, Defaults::default())
}

/// What [`Pace`] does not say.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    /// Instead of one connect per second.
    pub(super) rate: Option<f64>,
    /// Where neither a count nor a duration is given.
    pub(super) count: Option<u64>,
}

/// Pings the targets, and tells it; `what` is the title. Logging has begun.
pub(super) fn run(
    telling: &Telling,
    pace: &Pace,
    what: &str,
    targets: Vec<SocketAddr>,
    defaults: Defaults,
) -> Result<ExitCode, Failure> {
    let shared = Shared { telling: telling.clone(), ..Shared::default() };
    let mut pings = pace.settings(targets, &defaults)?;
    // Nothing is intercepted and there are no rules: no file of the config is about it.
    let mode = OptionValue { option: "ping", key: "intercept.mode", value: "exec".to_owned() };
    let bare = Request { no_file: true, ..Request::default() };
    let about = About::new(what, &load(&bare)?);
    let settings = Settings::resolve(&load(&Request { options: vec![mode], ..bare })?, Machine::here())?;
    let (watch, end) = ending::prepare(&shared, &settings, about)?;
    let way = pace.way()?;
    if matches!(way, Way::Own(..)) {
        pings.in_flight = pings.in_flight.min(PORTS.len());
    }
    // One attempt is told by the pinger, in one line.
    let watch = app::observer::Watch { log: telling.verbose > 1, ..watch };
    let live = telling.verbose == 0 && telling.log_format == LogFormat::Text;
    let secret = [Machine::here().random, Machine::here().random];
    let ended = app::ping::ping(pings, way, secret, watch, live)
        .map_err(|e| Failure::new(Failure::FAILED, format_args!("cannot start: {e}")))?;
    ending::tell(&shared, end, &ended, &mut std::io::stdout())
}

impl Pace {
    fn settings(&self, targets: Vec<SocketAddr>, defaults: &Defaults) -> Result<Pings, Failure> {
        let rate = self.rate.as_deref().map(rate).transpose()?.or(defaults.rate).unwrap_or(1.0);
        let number = |option, text: &Option<String>, most| {
            text.as_deref().map(|text| number(option, text, most)).transpose()
        };
        let year = Duration::from_secs(366 * 86_400);
        let duration = self.duration.as_deref().map(|text| time("--duration", text, year)).transpose()?;
        let timeout = self.timeout.as_deref().map(|text| time("--timeout", text, Duration::from_secs(150)));
        let count = number("--count", &self.count, u64::MAX)?;
        Ok(Pings {
            targets,
            interval: Duration::from_secs_f64(1.0 / rate),
            count: count.or_else(|| defaults.count.filter(|_| duration.is_none())),
            duration,
            timeout: timeout.transpose()?.unwrap_or(Duration::from_secs(10)),
            in_flight: number("--in-flight", &self.in_flight, MOST_IN_FLIGHT as u64)?.unwrap_or(500) as usize,
        })
    }

    /// Chooses the way, and says which if nobody has asked for it.
    fn way(&self) -> Result<Way, Failure> {
        let handshake = match self.handshake {
            Handshake::Half => crate::ping::Handshake::Half,
            Handshake::Full => crate::ping::Handshake::Full,
        };
        let own = match self.via {
            Some(Via::Kernel) if self.handshake == Handshake::Half => {
                let what = "--handshake half: a kernel socket completes every handshake";
                return Err(Failure::new(Failure::USAGE, what).hint("leave out --via kernel"));
            }
            Some(Via::Kernel) => None,
            Some(Via::Own) => Some(Raw::open().map_err(|e| no_own_tcp("--via own", &e))?),
            None if self.handshake == Handshake::Half => {
                Some(Raw::open().map_err(|e| no_own_tcp("--handshake half", &e))?)
            }
            None => Raw::open().inspect_err(|why| tracing::info!(%why, "no TCP of our own here")).ok(),
        };
        let via = if own.is_some() { "own" } else { "kernel" };
        let word =
            self.handshake.to_possible_value().map_or_else(String::new, |word| word.get_name().to_owned());
        tracing::info!(via, handshake = word, "ready");
        Ok(own.map_or(Way::Kernel, |raw| Way::Own(raw, handshake)))
    }
}

fn no_own_tcp(option: &str, error: &OpenError) -> Failure {
    let code = match error.cause.kind() {
        std::io::ErrorKind::PermissionDenied => Failure::NO_PERMISSION,
        _ => Failure::UNAVAILABLE,
    };
    Failure::new(code, format_args!("{option}: {error}")).hint(
        "our own TCP needs CAP_NET_RAW: run as root, or in a container add --cap-add NET_RAW; kernel sockets need nothing, \
         but complete every handshake",
    )
}

/// The addresses of the targets. Tells what names stand for.
fn targets(args: &Args) -> Result<Vec<SocketAddr>, Failure> {
    if args.targets.len() > MOST_TARGETS {
        let what = format!("{} targets are too many", args.targets.len());
        return Err(Failure::new(Failure::USAGE, what)
            .hint(format_args!("at most {MOST_TARGETS}, as many as the latencies are told apart for")));
    }
    args.targets.iter().map(|text| target(text, args)).collect()
}

fn target(text: &str, args: &Args) -> Result<SocketAddr, Failure> {
    let (host, port) = host_and_port(text)?;
    let resolved = (host, port).to_socket_addrs().map_err(|e| {
        Failure::new(Failure::UNAVAILABLE, format_args!("{text}: cannot be resolved: {e}"))
            .hint("check the name and the resolver, or give an address")
    })?;
    let wanted =
        |address: &SocketAddr| if args.ipv4 { address.is_ipv4() } else { !args.ipv6 || address.is_ipv6() };
    let mut found: Vec<SocketAddr> = resolved.filter(wanted).collect();
    found.dedup();
    let Some(&first) = found.first() else {
        let (version, option) = if args.ipv4 { ("IPv4", "-4") } else { ("IPv6", "-6") };
        let what = format!("{text}: has no {version} address");
        return Err(Failure::new(Failure::UNAVAILABLE, what).hint(format_args!("leave out {option}")));
    };
    if host.parse::<std::net::IpAddr>().is_err() {
        tracing::info!(name = text, address = %first, others_not_used = found.len() - 1, "resolved");
    }
    Ok(first)
}

fn host_and_port(text: &str) -> Result<(&str, u16), Failure> {
    let wrong = |what: &str| {
        Failure::new(Failure::USAGE, format_args!("{text}: {what}"))
            .hint("write HOST:PORT, such as db.example.com:5432, 10.0.0.2:80 or '[2001:db8::1]:443'")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(|| wrong("not a host and a port"))?,
        None if host.contains(':') => return Err(wrong("an IPv6 address needs brackets before its port")),
        None => host,
    };
    match port.parse() {
        _ if host.is_empty() => Err(wrong("the host is missing")),
        Ok(0) => Err(wrong("nobody can connect to port 0")),
        Ok(port) => Ok((host, port)),
        Err(_) => Err(wrong("not a port from 1 to 65535")),
    }
}

fn rate(text: &str) -> Result<f64, Failure> {
    text.parse().ok().filter(|rate| RATES.contains(rate)).ok_or_else(|| {
        Failure::new(Failure::USAGE, format_args!("--rate {text}: not a rate that can be had"))
            .hint(format_args!("allowed: {} to {} connects per second", RATES.start(), RATES.end()))
    })
}

fn number(option: &str, text: &str, most: u64) -> Result<u64, Failure> {
    text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        Failure::new(Failure::USAGE, format_args!("{option} {text}: not a number that can be had"))
            .hint(format_args!("allowed: 1 to {most}"))
    })
}

fn time(option: &str, text: &str, most: Duration) -> Result<Duration, Failure> {
    match text.parse::<Time>() {
        Ok(Time(time)) if time > Duration::ZERO && time <= most => Ok(time),
        Ok(_) => Err(Failure::new(Failure::USAGE, format_args!("{option} {text}: out of range"))
            .hint(format_args!("allowed: above 0, to {}", Time(most)))),
        Err(message) => {
            let (what, hint) = message.split_once('\n').unwrap_or((&message, "such as 60s"));
            Err(Failure::new(Failure::USAGE, format_args!("{option} {text}: {what}")).hint(hint))
        }
    }
}
