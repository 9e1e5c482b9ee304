//! Why the machine could not be prepared.

use std::fmt;
use std::io;

/// One clear line, and what to do about it.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure; decides the exit code.
    pub kind: ErrorKind,
    /// What failed, where and why.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Kinds of failures, by exit code (sysexits.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A right is missing: exit code 77.
    Permission,
    /// Something on this machine is missing or taken: exit code 69.
    Unavailable,
    /// The request makes no sense here, e.g. it names an interface that does not exist: exit code 78.
    Config,
}

impl ErrorKind {
    /// The exit code of a process that fails for this reason.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Permission => 77,
            Self::Unavailable => 69,
            Self::Config => 78,
        }
    }
}

impl Error {
    /// A failure without a hint.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the kernel answered to `what`; a missing right gets its hint here.
    pub fn from_io(what: impl fmt::Display, cause: &io::Error) -> Self {
        let text = format!("{what}: {cause}");
        match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::new(ErrorKind::Permission, text).hint(
                "needs CAP_NET_ADMIN in this network namespace: run as root, or in a container add --cap-add NET_ADMIN",
            ),
            Some(libc::EROFS) => Self::new(ErrorKind::Permission, text)
                .hint("/proc/sys is read-only here: set this value from outside, e.g. with `sysctls:` in compose"),
            _ => Self::new(ErrorKind::Unavailable, text),
        }
    }
}

impl From<crate::engine::tun::OpenError> for Error {
    fn from(e: crate::engine::tun::OpenError) -> Self {
        let kind = match e.cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ErrorKind::Permission,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, e.to_string()).hint(e.hint())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
