//! Gateway, sidecar and listeners: set up, run until a signal, stop, undo; in this order whatever happens in between.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::live::LiveLine;
use super::observer::Watch;
use super::pcap::Pcap;
use super::{Ended, Run, service};
use crate::config::listeners::Upstream;
use crate::config::raw::{EngineKind, Mode};
use crate::config::units::PortRange;
use crate::config::{Problem, Scaling, Settings};
use crate::engine::Outside;
use crate::engine::listen::{Listener, Upstreams, look_up};
use crate::engine::sockets::{Accepting, Transparent};
use crate::fault::{Engine, Rule, Rules};
use crate::relay::Uplink;
use crate::report::status_line;
use crate::setup::confine::{Needs, confine};
use crate::setup::plan::Plan;
use crate::setup::{self, Interception, gateway, listen, sidecar, tproxy};
use crate::time::Duration;

/// The name of our device.
const DEVICE: &str = "halfopen0";
/// How often a sidecar looks whether its network namespace still has an owner.
const LOOK: Duration = Duration::from_secs(1);
/// So many looks must find none. An application that is restarted has its new network by then, and a container engine that
/// starts us again finds it: Docker does not try twice.
const LOOKS: u32 = 3;
/// How often the live line is drawn, and the engine asked whether it still runs.
const TICK: Duration = Duration::from_millis(250);

/// Why there was no run.
#[derive(Debug)]
pub enum Error {
    /// The machine could not be prepared.
    Setup(setup::Error),
    /// The system refused something that a run needs.
    System(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// The plan of the set-up, without doing it.
pub fn dry_run(settings: &Settings) -> Result<Plan, setup::Error> {
    match (settings.mode, settings.engine) {
        (Mode::Listen, EngineKind::Sockets) => Ok(Plan::default()),
        (Mode::Listen, EngineKind::Tun) => listen::dry_run(&listen_request(settings)),
        (Mode::Sidecar, EngineKind::Sockets) => tproxy::dry_run_sidecar(&sidecar_request(settings)),
        (Mode::Sidecar, EngineKind::Tun) => sidecar::dry_run(&sidecar_request(settings)),
        (Mode::Gateway | Mode::Exec, EngineKind::Sockets) => {
            tproxy::dry_run_gateway(&gateway_request(settings))
        }
        (Mode::Gateway | Mode::Exec, EngineKind::Tun) => gateway::dry_run(&gateway_request(settings)),
    }
}

/// What leads into our device, if we need one; and the kernel sockets behind it, or instead of it.
type SetUp = (Option<Interception>, Option<Box<dyn Outside>>);

fn set_up(settings: &Settings) -> Result<SetUp, setup::Error> {
    let request = || listen_request(settings);
    Ok(match (settings.mode, settings.engine) {
        (Mode::Listen, EngineKind::Sockets) => {
            let accepting = Accepting::new(listen::open(&request().listeners)?, upstreams(settings));
            (None, Some(Box::new(accepting)))
        }
        (Mode::Listen, EngineKind::Tun) => {
            (Some(listen::up(&request())?), Some(Box::new(upstreams(settings))))
        }
        (Mode::Sidecar, EngineKind::Sockets) => {
            behind(tproxy::sidecar(&sidecar_request(settings))?, settings, false)?
        }
        (Mode::Sidecar, EngineKind::Tun) => (Some(sidecar::up(&sidecar_request(settings))?), None),
        (Mode::Gateway | Mode::Exec, EngineKind::Sockets) => {
            behind(tproxy::gateway(&gateway_request(settings))?, settings, true)?
        }
        (Mode::Gateway | Mode::Exec, EngineKind::Tun) => {
            (Some(gateway::up(&gateway_request(settings))?), None)
        }
    })
}

/// What stands behind these listeners: the servers that their clients dialled.
fn behind(up: tproxy::Up, settings: &Settings, keeps_port: bool) -> Result<SetUp, setup::Error> {
    let tproxy::Up { mut interception, listeners, queue } = up;
    interception.holds_syns = queue.is_some();
    if let Some((rule, _)) = beyond_plain_sockets(&settings.rules).filter(|_| queue.is_none()) {
        let what = format!("rule `{}` cannot be done here: {}", rule.name, interception.notes.join("; "));
        return Err(setup::Error::new(setup::ErrorKind::Unavailable, what)
            .hint("the tun engine can, whose TCP is halfopen's own"));
    }
    let servers = Transparent::new(&listeners, keeps_port, tproxy::CUT, queue)
        .map_err(|e| setup::Error::from_io("cannot tell the address of a listener", &e))?;
    Ok((Some(interception), Some(Box::new(Accepting::new(listeners, servers)))))
}

/// A rule that kernel sockets can only do where the kernel holds SYNs, and why.
fn beyond_plain_sockets(rules: &Rules) -> Option<(&Rule, &'static str)> {
    rules.rules().iter().find_map(|rule| Some((&**rule, rule.refusal(Engine::PlainSockets)?)))
}

fn range(ports: PortRange) -> RangeInclusive<u16> {
    ports.first..=ports.last
}

fn gateway_request(settings: &Settings) -> gateway::Request {
    gateway::Request {
        ports: settings.ports.iter().copied().map(range).collect(),
        client_interface: settings.client_interface.clone(),
        server_interface: settings.server_interface.clone(),
        device: DEVICE.to_owned(),
        shards: settings.shards,
    }
}

fn sidecar_request(settings: &Settings) -> sidecar::Request {
    sidecar::Request {
        ports: settings.ports.iter().copied().map(range).collect(),
        inbound_ports: settings.inbound_ports.iter().copied().map(range).collect(),
        source_ports: range(settings.source_ports),
        device: DEVICE.to_owned(),
    }
}

fn listen_request(settings: &Settings) -> listen::Request {
    listen::Request {
        listeners: settings.listeners.iter().map(|listener| listener.listen.0).collect(),
        device: DEVICE.to_owned(),
    }
}

/// What stands behind the listeners.
fn upstreams(settings: &Settings) -> Upstreams {
    let listeners = settings.listeners.iter().map(|listener| {
        let Upstream { host, port } = listener.upstream.clone();
        Listener { listen: listener.listen.0, host, port }
    });
    Upstreams::new(listeners.collect())
}

/// Tells of upstreams that cannot be found now: they may be there when somebody connects.
fn check_upstreams(settings: &Settings) {
    for Upstream { host, port } in settings.listeners.iter().map(|listener| listener.upstream.clone()) {
        // Nobody waits for a slow name server; a thread that does ends with the process.
        std::thread::spawn(move || {
            if let Err(error) = look_up(&host, port) {
                tracing::warn!(upstream = format!("{host}:{port}"), %error, "not found now");
            }
        });
    }
}

/// Intercepts until SIGTERM or SIGINT. SIGHUP asks `reload` for new rules.
pub fn intercept(
    settings: &Settings,
    watch: Watch,
    live: bool,
    reload: impl FnMut() -> Result<(Rules, Scaling), Vec<Problem>>,
) -> Result<Ended, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    // Before anything else: as process 1 of a container there is no default action for SIGTERM.
    let signals = Signals::listen()?;
    let (mut interception, outside) = set_up(settings).map_err(Error::Setup)?;
    for note in interception.iter().flat_map(|interception| &interception.notes) {
        tracing::warn!(note, "set-up");
    }
    // Before the first thread, so that it holds for all.
    let confined = confine(&needs(&watch))?;
    tracing::debug!(capabilities = confined.capabilities.join(","), landlock = confined.landlock, "confined");
    // Declared after the interception, so that a panic ends the engine first and the set-up after it.
    let devices = interception.as_mut().map(|up| std::mem::take(&mut up.devices)).unwrap_or_default();
    let settings = &at_run(settings, interception.as_ref());
    let run = Run::start(settings, watch, devices, outside)?;
    let ports: Vec<String> =
        settings.ports.iter().chain(&settings.inbound_ports).map(ToString::to_string).collect();
    let listeners = settings.listeners.iter().map(|listener| listener.listen.to_string());
    let at: Vec<String> = ports.into_iter().chain(listeners).collect();
    let accepts_first = settings.engine == EngineKind::Sockets && settings.relay.uplink != Uplink::HeldSyn;
    if accepts_first && interception.is_none() {
        tracing::info!("kernel sockets carry the bytes: a client is accepted before its server is dialled");
    }
    let device = interception.as_ref().filter(|_| settings.engine == EngineKind::Tun).map(|_| DEVICE);
    tracing::info!(seed = settings.rules.seed(), ports = at.join(","), device, "ready");
    service::ready();
    check_upstreams(settings);
    let watched = interception.as_mut();
    let grace = settings.grace;
    let abandoned = runtime.block_on(until_ended(&run, watched, signals, grace, live, accepts_first, reload));
    let ended = Ended { abandoned, ..run.finish() };
    for error in interception.into_iter().flat_map(Interception::down) {
        tracing::error!(error = error.what, "could not be undone");
    }
    Ok(ended)
}

/// The settings with what only the set-up knows.
fn at_run(settings: &Settings, interception: Option<&Interception>) -> Settings {
    let mut settings = settings.clone();
    if interception.is_some_and(|up| up.same_port) {
        settings.relay.uplink = Uplink::SamePort;
    }
    if interception.is_some_and(|up| up.holds_syns) {
        settings.relay.uplink = Uplink::HeldSyn;
    }
    settings
}

/// Files that are made after the start.
fn needs(watch: &Watch) -> Needs {
    let rotates = watch.pcap.as_ref().filter(|pcap| pcap.rotate > 0);
    // A name without a directory is one in the working directory.
    let directory = |pcap: &Pcap| match pcap.path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Needs { directories: rotates.map(directory).into_iter().collect() }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Returns when the engine has ended. The first signal lets open flows end within `grace`, the second ends them. True if
/// the network namespace has lost its owner, which ends all flows.
async fn until_ended(
    run: &Run,
    mut interception: Option<&mut Interception>,
    mut signals: Signals,
    grace: Duration,
    live: bool,
    accepts_first: bool,
    mut reload: impl FnMut() -> Result<(Rules, Scaling), Vec<Problem>>,
) -> bool {
    let mut line = LiveLine::new(live);
    let mut tick = tokio::time::interval(TICK);
    let mut look = tokio::time::interval(LOOK);
    let (mut stopping, mut limits_told, mut abandoned) = (false, 0, 0);
    while !run.has_ended() {
        tokio::select! {
            _ = tick.tick() => {
                limits_told = warn_of_limits(run, &mut line, limits_told);
                line.draw(|| status_line(&run.counters()));
            }
            _ = look.tick(), if abandoned < LOOKS => {
                let gone = interception.as_mut().is_some_and(|up| up.is_abandoned());
                abandoned = if gone { abandoned + 1 } else { 0 };
                if abandoned == LOOKS {
                    service::stopping();
                    run.stop(Duration::ZERO);
                }
            }
            _ = signals.hangup.recv() => {
                line.clear();
                service::reloading();
                replace_rules(run, reload(), accepts_first);
                service::ready();
            }
            _ = async { tokio::select! { _ = signals.terminate.recv() => (), _ = signals.interrupt.recv() => () } } => {
                line.clear();
                let grace = if stopping { Duration::ZERO } else { grace };
                tracing::info!(?grace, open = run.counters().open, "stopping");
                service::stopping();
                run.stop(grace);
                stopping = true;
                // The end is near; look for it sooner.
                tick = tokio::time::interval(TICK / 10);
            }
        }
    }
    line.clear();
    abandoned == LOOKS
}

/// Tells the operator of each limit once, when it is first hit; the summary says how often. `told` is how many are told.
fn warn_of_limits(run: &Run, line: &mut LiveLine, told: usize) -> usize {
    let limits = run.limits();
    for limit in &limits[told..] {
        line.clear();
        tracing::warn!(limit = limit.name, "limit reached");
    }
    limits.len()
}

fn replace_rules(run: &Run, rules: Result<(Rules, Scaling), Vec<Problem>>, accepts_first: bool) {
    match rules {
        Ok((rules, scaling)) => match beyond_plain_sockets(&rules).filter(|_| accepts_first) {
            Some((rule, why)) => {
                let rule = &*rule.name;
                tracing::error!(rule, why, "not where the kernel holds no SYNs; the old rules stay");
            }
            None => {
                tracing::info!(rules = rules.rules().len(), "rules replaced");
                run.set_rules(rules, scaling);
            }
        },
        Err(problems) => {
            for problem in problems {
                tracing::error!(%problem, hint = problem.hint, "the old rules stay");
            }
        }
    }
}
