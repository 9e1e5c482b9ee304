//! How a run is told at its end: ladders, summary, and the exit code.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstream::stream::RawStream;

use super::{Failure, Shared, paint};
use crate::app::Ended;
use crate::report::Summary;

/// Tells it on the stream. Fails for what went wrong on the way, and with `--strict` for rules that never fired.
pub(super) fn tell(
    shared: &Shared,
    ended: &Ended,
    stream: &mut (impl RawStream + IsTerminal),
) -> Result<ExitCode, Failure> {
    write(shared, ended, stream)
        .map_err(|e| Failure::new(Failure::FAILED, format_args!("cannot print the summary: {e}")))?;
    let report = &ended.report;
    if let Some(error) = &ended.engine_error {
        return Err(Failure::new(Failure::FAILED, format_args!("the device failed: {error}")));
    }
    if let (Some(error), Some(path)) = (&report.events_error, &shared.events) {
        return Err(Failure::new(
            Failure::FAILED,
            format_args!("{}: not all events are there: {error}", path.display()),
        ));
    }
    let idle = ended.idle_rules();
    if shared.strict && !idle.is_empty() {
        return Err(Failure::new(Failure::FAILED, format_args!("never fired: {}", idle.join(", ")))
            .hint("the run does not show how these faults are met; widen the match or the bounds"));
    }
    Ok(ExitCode::SUCCESS)
}

fn write(shared: &Shared, ended: &Ended, stream: &mut (impl RawStream + IsTerminal)) -> io::Result<()> {
    let style = paint::style(stream);
    let report = &ended.report;
    let summary = Summary::new(&report.measure, ended.seed, ended.at);
    let mut out = anstream::AutoStream::new(Vec::new(), anstream::AutoStream::choice(stream));
    if shared.ladder {
        paint::write(&mut out, &report.ladders.draw(&style))?;
    }
    if shared.json {
        serde_json::to_writer(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        paint::write(&mut out, &summary.draw(&style))?;
    }
    stream.write_all(&out.into_inner())?;
    stream.flush()
}
