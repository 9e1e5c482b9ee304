//! `halfopen run`: intercepts until it is told to stop.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use tracing::Level;

use super::page::About;
use super::{Failure, LogFormat, Shared, ending, log};
use crate::app::intercept;
use crate::config::raw::Mode;
use crate::config::{Machine, Settings, load};

/// Intercept connections until SIGTERM or SIGINT, then undo everything
///
/// SIGHUP reads the config again and replaces the rules; a file with mistakes
/// changes nothing. Prints a summary at the end.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,

    /// Stand between two networks ("gateway"), in the network namespace of an
    /// application ("sidecar"), or at addresses of its own ("listen").
    /// Default: gateway
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,

    /// Take connections to these server ports, such as 5432,8000-8099;
    /// everything else passes untouched
    #[arg(short, long, value_name = "PORTS")]
    ports: Option<String>,

    /// Take connections from outside to these ports of the application; sidecar
    /// only
    #[arg(long, value_name = "PORTS")]
    inbound_ports: Option<String>,

    /// Listen at ADDR:PORT of this host, and pass its connections on to
    /// HOST:PORT; mode listen only. May be repeated
    #[arg(long, value_name = "ADDR:PORT=HOST:PORT")]
    listen: Vec<String>,

    /// Carry the bytes by halfopen's own TCP ("tun"), or by kernel sockets
    /// ("sockets"), which do fewer faults: a listener without privileges, a
    /// gateway and a sidecar without a device. Default: tun
    #[arg(long, value_name = "KIND")]
    engine: Option<String>,

    /// Take connections that come in from the clients by this interface.
    /// Default: any
    #[arg(long, value_name = "NAME")]
    client_interface: Option<String>,

    /// Take answers that come in from the servers by this interface.
    /// Default: any
    #[arg(long, value_name = "NAME")]
    server_interface: Option<String>,

    /// Wait this long for open flows to end when told to stop. Default: 8s
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,

    /// Print the commands that would set up the interception, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let Args {
        shared,
        mode,
        ports,
        inbound_ports,
        listen,
        engine,
        client_interface,
        server_interface,
        grace,
        dry_run,
    } = args;
    let request = shared.sources.request([
        ("--mode", "intercept.mode", mode.clone()),
        ("--ports", "intercept.ports", ports.clone()),
        ("--inbound-ports", "intercept.inbound_ports", inbound_ports.clone()),
        ("--listen", "listener", (!listen.is_empty()).then(|| listen.join(","))),
        ("--engine", "engine.kind", engine.clone()),
        ("--client-interface", "intercept.client_interface", client_interface.clone()),
        ("--server-interface", "intercept.server_interface", server_interface.clone()),
        ("--grace", "engine.grace", grace.clone()),
        ("--metrics-addr", "metrics.addr", shared.metrics_addr.clone()),
        ("--history", "control.history", shared.history.clone()),
    ]);
    let machine = Machine::here();
    let layers = load(&request)?;
    let settings = Settings::resolve(&layers, machine)?;
    if settings.mode == Mode::Exec {
        return Err(Failure::new(Failure::BAD_CONFIG, "intercept.mode = \"exec\": that is another command")
            .hint("use: halfopen exec -- COMMAND"));
    }
    if *dry_run {
        anstream::print!("{}", intercept::dry_run(&settings)?);
        return Ok(ExitCode::SUCCESS);
    }
    log::start(shared, Level::INFO);
    let (watch, end) = ending::prepare(shared, &settings, About::new("run", &layers))?;
    // The dice go on as they were, also where the seed was drawn at the start.
    let machine = Machine { random: settings.rules.seed(), ..machine };
    let reload = || {
        let settings = Settings::resolve(&load(&request)?, machine)?;
        ending::tell_scaling(&settings.scaling);
        Ok((settings.rules, settings.scaling))
    };
    let live = shared.verbose == 0 && shared.log_format == LogFormat::Text;
    let ended = intercept::intercept(&settings, watch, live, reload)?;
    ending::tell(shared, end, &ended, &mut std::io::stdout())
}
