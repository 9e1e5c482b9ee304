//! What ends a command early, and the exit code for it.

use std::fmt;
use std::process::ExitCode;

use crate::app::intercept;
use crate::config::Problem;
use crate::setup;

/// Why a command could not do its work: lines for people, and an exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// Exit code: something failed at run time.
    pub const FAILED: u8 = 1;
    /// Exit code: wrong usage.
    pub const USAGE: u8 = 2;
    /// Exit code: an assertion does not hold.
    pub const ASSERTION: u8 = 3;
    /// Exit code: something that is needed is not there (`EX_UNAVAILABLE`).
    pub const UNAVAILABLE: u8 = 69;
    /// Exit code: a privilege is missing (`EX_NOPERM`).
    pub const NO_PERMISSION: u8 = 77;
    /// Exit code: the config is wrong (`EX_CONFIG`).
    pub const BAD_CONFIG: u8 = 78;

    /// A failure with one line: lower case, says what and where, no full stop.
    #[must_use]
    pub fn new(code: u8, what: impl fmt::Display) -> Self {
        Self { code, messages: vec![Message { what: what.to_string(), hint: None }] }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        if let Some(last) = self.messages.last_mut() {
            last.hint = Some(hint.to_string());
        }
        self
    }

    /// Both; the exit code is that of the first.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.messages.extend(other.messages);
        self
    }

    /// The same with another exit code: `exec` has its own, the ones below 125 belong to the command.
    #[must_use]
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Tells it on stderr.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        for Message { what, hint } in &self.messages {
            anstream::eprintln!("halfopen: {what}");
            if let Some(hint) = hint {
                anstream::eprintln!("  hint: {hint}");
            }
        }
        ExitCode::from(self.code)
    }
}

impl From<setup::Error> for Failure {
    fn from(error: setup::Error) -> Self {
        let setup::Error { kind, what, hint } = error;
        Self { code: kind.exit_code(), messages: vec![Message { what, hint }] }
    }
}

impl From<intercept::Error> for Failure {
    fn from(error: intercept::Error) -> Self {
        match error {
            intercept::Error::Setup(error) => error.into(),
            intercept::Error::System(error) => Self::new(Self::FAILED, format_args!("cannot start: {error}")),
        }
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        let message = |p: Problem| Message { what: p.to_string(), hint: p.hint };
        Self { code: Self::BAD_CONFIG, messages: problems.into_iter().map(message).collect() }
    }
}
