//! How a run is told at its end: ladders, summary, assertions, and the exit code.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::stream::RawStream;

use super::page::{self, About};
use super::{Failure, Shared, paint};
use crate::app::observer::Watch;
use crate::app::pcap::Pcap;
use crate::app::{Ended, time_scale};
use crate::config::raw::Mode;
use crate::config::units::MetricsAddr;
use crate::config::{Scaling, Settings};
use crate::control::Endpoint;
use crate::fault::{Rules, nearest};
use crate::measure::{Assertion, Judgement, Kind};
use crate::report::summary::observed;
use crate::report::{Summary, percentiles};
use crate::setup::process;

/// Where `run` tells its metrics.
pub(super) const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8474);

/// What a run is judged and told by at its end, prepared at its start so that nothing of it can be wrong then.
#[derive(Debug)]
pub(super) struct Ending {
    assertions: Vec<Assertion>,
    reports: Vec<(PathBuf, File)>,
    hgrm: Vec<(Kind, PathBuf, File)>,
    about: About,
}

/// Prepares the end and what is to be watched. Creates the files.
pub(super) fn prepare(
    shared: &Shared,
    settings: &Settings,
    about: About,
) -> Result<(Watch, Ending), Failure> {
    let assertions = assertions(&shared.assertions)?;
    known_rules(&assertions, &settings.rules)?;
    let events = shared.events.as_ref().map(|path| create("--events", path)).transpose()?;
    let reports = shared.reports.iter().map(|path| Ok((path.clone(), create("--report", path)?)));
    let reports = reports.collect::<Result<Vec<_>, Failure>>()?;
    let pcap = shared.pcap.as_ref().map(|path| {
        let file = create("--pcap", path)?;
        Ok::<_, Failure>(Pcap {
            file,
            path: path.clone(),
            snaplen: settings.snaplen,
            rotate: settings.rotate,
        })
    });
    let hlog = shared.hlog.as_ref().map(|path| create("--hlog", path)).transpose()?;
    let hgrm = shared.hgrm.iter().map(|text| percentile_file(text)).collect::<Result<_, _>>()?;
    let watch = Watch {
        events,
        metrics: metrics(settings)?,
        control: control(settings),
        hlog,
        interval: settings.interval,
        pcap: pcap.transpose()?,
        ladders: shared.ladder,
        worst: reports.iter().any(|(path, _)| page::is_page(path)).then_some(settings.ladders),
        history: settings.history,
        log: true,
        waiting: settings.events,
        waiting_bytes: settings.capture,
        ..Watch::default()
    };
    tell_scaling(&settings.scaling);
    Ok((watch, Ending { assertions, reports, hgrm, about }))
}

/// The endpoint for metrics. A port that was not asked for may be taken: by another instance, perhaps.
fn metrics(settings: &Settings) -> Result<Option<Endpoint>, Failure> {
    let (address, asked) = match settings.metrics {
        MetricsAddr::At(address) => (address, true),
        MetricsAddr::Auto if settings.mode != Mode::Exec => (METRICS, false),
        MetricsAddr::Auto | MetricsAddr::Off => return Ok(None),
    };
    match Endpoint::for_metrics(address, settings.metrics_connections) {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) if asked => {
            let what = format_args!("metrics.addr = \"{address}\": cannot listen there: {error}");
            Err(Failure::new(Failure::UNAVAILABLE, what).hint("give a free address, or \"off\""))
        }
        Err(error) => {
            tracing::warn!(%address, %error, "no metrics; --metrics-addr gives another address, or \"off\"");
            Ok(None)
        }
    }
}

/// The control socket. A run does its work without it, too.
fn control(settings: &Settings) -> Option<Endpoint> {
    let endpoint =
        settings.control.then(|| Endpoint::for_control(process::owner(), settings.control_connections))?;
    endpoint
        .inspect_err(
            |error| tracing::warn!(%error, "no control socket; control.socket = false leaves it out"),
        )
        .ok()
}

pub(super) fn create(option: &str, path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|e| {
        Failure::new(Failure::FAILED, format_args!("{option} {}: cannot be created: {e}", path.display()))
            .hint("name a file in a directory that is there and may be written to")
    })
}

/// The file of `--hgrm [LATENCY=]FILE`, created.
fn percentile_file(text: &str) -> Result<(Kind, PathBuf, File), Failure> {
    let is_word = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let (kind, path) = match text.split_once('=').filter(|(name, _)| is_word(name)) {
        None => (Kind::Connect, text),
        Some((name, path)) => {
            let kind = Kind::of(name).ok_or_else(|| {
                Failure::new(Failure::USAGE, format_args!("--hgrm {text}: no latency \"{name}\""))
                    .hint(format_args!("there are: {}", Kind::NAMES.join(", ")))
            })?;
            (kind, path)
        }
    };
    Ok((kind, path.into(), create("--hgrm", path.as_ref())?))
}

/// Reads the assertions.
pub(super) fn assertions(texts: &[String]) -> Result<Vec<Assertion>, Failure> {
    let read = |text: &String| {
        text.parse::<Assertion>().map_err(|mistake| {
            Failure::new(Failure::USAGE, format_args!("--assert '{text}': {mistake}")).hint(mistake.hint)
        })
    };
    texts.iter().map(read).collect()
}

/// Refuses assertions about rules that there are not.
pub(super) fn known_rules(assertions: &[Assertion], rules: &Rules) -> Result<(), Failure> {
    let names: Vec<&str> = rules.rules().iter().flat_map(|rule| [&*rule.name, rule.kind.name]).collect();
    for assertion in assertions {
        let Some(wrong) = assertion.rules().into_iter().find(|name| !names.contains(name)) else { continue };
        let what =
            format!("--assert '{}': no rule or fault of this run is called \"{wrong}\"", assertion.text());
        let failure = Failure::new(Failure::USAGE, what);
        return Err(match (nearest(wrong, &names), names.is_empty()) {
            (Some(near), _) => failure.hint(format_args!("did you mean \"{near}\"?")),
            (None, true) => failure.hint("there are no rules"),
            (None, false) => failure.hint(format_args!("there are: {}", names.join(", "))),
        });
    }
    Ok(())
}

/// Times are never scaled silently.
pub(super) fn tell_scaling(scaling: &Scaling) {
    if scaling.factor == 1.0 {
        return;
    }
    let scaled: Vec<String> = scaling.scaled.iter().map(ToString::to_string).collect();
    let (factor, unscaled) = (scaling.factor, scaling.unscaled.join(", "));
    tracing::warn!(
        time_scale = factor,
        scaled = scaled.join("; "),
        unscaled,
        "times are not those of the field"
    );
}

/// Tells it on the stream. Fails for what went wrong on the way, for assertions that do not hold, and with `--strict` for
/// rules that never fired.
pub(super) fn tell(
    shared: &Shared,
    ending: Ending,
    ended: &Ended,
    stream: &mut (impl RawStream + IsTerminal),
) -> Result<ExitCode, Failure> {
    let report = &ended.report;
    let judged: Vec<Judgement> =
        ending.assertions.iter().map(|assertion| assertion.judge(&report.measure)).collect();
    let summary = Summary {
        time_scale: time_scale(&ended.scaling),
        assertions: &judged,
        plot: shared.plot,
        ..Summary::new(&report.measure, ended.seed, ended.at)
    };
    write(shared, ended, &summary, stream)
        .map_err(|e| Failure::new(Failure::FAILED, format_args!("cannot print the summary: {e}")))?;
    write_files(ending, ended, &summary)?;
    if let Some(error) = &ended.engine_error {
        return Err(Failure::new(Failure::FAILED, format_args!("the device failed: {error}")));
    }
    if ended.abandoned {
        let what = "this network namespace has lost its network: its owner, such as the application's container, has ended";
        return Err(Failure::new(Failure::UNAVAILABLE, what).hint(
            "with `restart: always` in the compose file it starts again, in the application's new network",
        ));
    }
    let files = [
        (&report.events_error, &shared.events, "not all events are there"),
        (&report.pcap_error, &shared.pcap, "not all packets are there"),
        (&report.hlog_error, &shared.hlog, "not all latencies are there"),
    ];
    for (error, path, missing) in files {
        if let (Some(error), Some(path)) = (error, path) {
            let failure =
                Failure::new(Failure::FAILED, format_args!("{}: {missing}: {error}", path.display()));
            return Err(failure.hint("the summary has counted everything; make room or choose another place"));
        }
    }
    let broken = judged.iter().filter(|judgement| !judgement.holds).map(does_not_hold);
    let idle = ended.idle_rules();
    let unmet = (shared.strict && !idle.is_empty()).then(|| {
        Failure::new(Failure::FAILED, format_args!("never fired: {}", idle.join(", ")))
            .hint("the run does not show how these faults are met; widen the match or the bounds")
    });
    match broken.chain(unmet).reduce(Failure::and) {
        Some(failure) => Err(failure),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Writes what is written at the end only.
fn write_files(ending: Ending, ended: &Ended, summary: &Summary<'_>) -> Result<(), Failure> {
    let wrong = |option: &str, path: &Path, e: io::Error| {
        Failure::new(Failure::FAILED, format_args!("{option} {}: cannot be written: {e}", path.display()))
            .hint("the summary on the terminal has all; make room or choose another place")
    };
    let Ending { reports, hgrm, about, .. } = ending;
    for (path, mut file) in reports {
        let written = match page::is_page(&path) {
            true => file.write_all(about.page(ended, summary).as_bytes()),
            false => write_json(file, summary),
        };
        written.map_err(|e| wrong("--report", &path, e))?;
    }
    for (kind, path, mut file) in hgrm {
        let text = percentiles::hgrm(summary.latencies.get(kind));
        file.write_all(text.as_bytes()).map_err(|e| wrong("--hgrm", &path, e))?;
    }
    Ok(())
}

fn does_not_hold(judgement: &Judgement) -> Failure {
    let Judgement { assertion, observed: readings, .. } = judgement;
    let seen: Vec<String> = readings.iter().map(observed).collect();
    let failure = Failure::new(
        Failure::ASSERTION,
        format_args!("assertion failed: {assertion}; observed {}", seen.join(", ")),
    );
    if seen.iter().any(|seen| seen.contains('≥')) {
        return failure.hint("≥ is a lower bound, because a step never finished: no upper limit is proven");
    }
    failure
}

fn write_json(mut out: impl Write, summary: &Summary<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut out, summary)?;
    writeln!(out)
}

fn write(
    shared: &Shared,
    ended: &Ended,
    summary: &Summary<'_>,
    stream: &mut (impl RawStream + IsTerminal),
) -> io::Result<()> {
    let style = paint::style(stream);
    let mut out = anstream::AutoStream::new(Vec::new(), anstream::AutoStream::choice(stream));
    if shared.ladder {
        paint::write(&mut out, &ended.report.ladders.draw(&style))?;
    }
    if shared.json {
        write_json(&mut out, summary)?;
    } else {
        paint::write(&mut out, &summary.draw(&style))?;
    }
    stream.write_all(&out.into_inner())?;
    stream.flush()
}
