//! Logs: to stderr, as text or JSON.

use std::io::IsTerminal as _;

use tracing::Level;

use super::{LogFormat, Telling};

/// Starts logging. `quiet` is the level without `--verbose`.
pub(super) fn start(telling: &Telling, quiet: Level) {
    let level = match telling.verbose {
        0 => quiet,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // Fails only if there is a logger already.
    let _ = match telling.log_format {
        LogFormat::Text => tracing::subscriber::set_global_default(
            log.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).finish(),
        ),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().flatten_event(true).finish()),
    };
}
