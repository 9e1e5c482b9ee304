//! Logs: to stderr, as text or JSON.

use std::io::IsTerminal as _;

use tracing::Level;

use super::{LogFormat, Shared};

/// Starts logging. `quiet` is the level without `--verbose`.
pub(super) fn start(shared: &Shared, quiet: Level) {
    let level = match shared.verbose {
        0 => quiet,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // Fails only if there is a logger already.
    let _ = match shared.log_format {
        LogFormat::Text => tracing::subscriber::set_global_default(
            log.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()).finish(),
        ),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().flatten_event(true).finish()),
    };
}
