//! One line on the terminal that is drawn again and again.

use std::io::{self, IsTerminal as _, Write as _};

use crate::report::Style;

/// The line. Whatever else is to be written to stderr needs [`Self::clear`] before.
#[derive(Debug)]
pub(super) struct LiveLine {
    on: bool,
    shown: bool,
}

impl LiveLine {
    /// A line if it is wanted and stderr is a terminal.
    pub(super) fn new(wanted: bool) -> Self {
        Self { on: wanted && io::stderr().is_terminal(), shown: false }
    }

    pub(super) fn draw(&mut self, text: impl FnOnce() -> String) {
        if self.on {
            // A line that wraps could not be drawn over.
            let columns =
                terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0.into());
            let text = Style::default().cut(&text(), columns - 1);
            self.write(&format!("\r{text}\x1b[K"));
            self.shown = true;
        }
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.write("\r\x1b[K");
        }
    }

    /// A terminal that has gone away takes the line with it.
    fn write(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
