//! How a run is told at its end: ladders, summary, assertions, and the exit code.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::stream::RawStream;

use super::{Failure, Shared, paint};
use crate::app::Ended;
use crate::app::observer::Watch;
use crate::app::pcap::Pcap;
use crate::config::{Scaling, Settings};
use crate::fault::{Rules, nearest};
use crate::measure::{Assertion, Judgement};
use crate::report::Summary;
use crate::report::summary::{ScaledTime, TimeScale, observed};

/// What a run is judged and told by at its end, prepared at its start so that nothing of it can be wrong then.
#[derive(Debug)]
pub(super) struct Ending {
    assertions: Vec<Assertion>,
    report: Option<(PathBuf, File)>,
}

/// Prepares the end and what is to be watched. Creates the files.
pub(super) fn prepare(shared: &Shared, settings: &Settings) -> Result<(Watch, Ending), Failure> {
    let assertions = assertions(&shared.assertions)?;
    known_rules(&assertions, &settings.rules)?;
    let create = |option: &str, path: &Path| {
        File::create(path).map_err(|e| {
            Failure::new(Failure::FAILED, format_args!("{option} {}: cannot be created: {e}", path.display()))
        })
    };
    let events = shared.events.as_ref().map(|path| create("--events", path)).transpose()?;
    let report = shared
        .report
        .as_ref()
        .map(|path| create("--report", path).map(|file| (path.clone(), file)))
        .transpose()?;
    let pcap = shared.pcap.as_ref().map(|path| {
        let file = create("--pcap", path)?;
        Ok::<_, Failure>(Pcap {
            file,
            path: path.clone(),
            snaplen: settings.snaplen,
            rotate: settings.rotate,
        })
    });
    let watch = Watch {
        events,
        pcap: pcap.transpose()?,
        ladders: shared.ladder,
        log: true,
        waiting: settings.events,
        waiting_bytes: settings.capture,
        ..Watch::default()
    };
    tell_scaling(&settings.scaling);
    Ok((watch, Ending { assertions, report }))
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
fn tell_scaling(scaling: &Scaling) {
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
        ..Summary::new(&report.measure, ended.seed, ended.at)
    };
    write(shared, ended, &summary, stream)
        .map_err(|e| Failure::new(Failure::FAILED, format_args!("cannot print the summary: {e}")))?;
    if let Some((path, file)) = ending.report {
        write_json(file, &summary).map_err(|e| {
            Failure::new(Failure::FAILED, format_args!("--report {}: cannot be written: {e}", path.display()))
        })?;
    }
    if let Some(error) = &ended.engine_error {
        return Err(Failure::new(Failure::FAILED, format_args!("the device failed: {error}")));
    }
    if let (Some(error), Some(path)) = (&report.events_error, &shared.events) {
        return Err(Failure::new(
            Failure::FAILED,
            format_args!("{}: not all events are there: {error}", path.display()),
        ));
    }
    if let (Some(error), Some(path)) = (&report.pcap_error, &shared.pcap) {
        return Err(Failure::new(
            Failure::FAILED,
            format_args!("{}: not all packets are there: {error}", path.display()),
        ));
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

fn time_scale(scaling: &Scaling) -> Option<TimeScale> {
    let scaled = scaling.scaled.iter().map(|time| ScaledTime {
        rule: time.rule.clone(),
        attribute: time.attribute,
        from_seconds: time.from.as_secs_f64(),
        seconds: time.to.as_secs_f64(),
    });
    (scaling.factor != 1.0).then(|| TimeScale {
        factor: scaling.factor,
        scaled: scaled.collect(),
        unscaled: scaling.unscaled.clone(),
    })
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
