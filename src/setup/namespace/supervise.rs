//! Watching the command: its end, and the signals on the way.
//!
//! The command stays in the caller's process group, so that it owns the terminal as it would without us. What the
//! terminal sends (Ctrl-C, Ctrl-\, Ctrl-Z, a resize) has reached it already and is not passed on; what another process
//! sends to us alone is.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, SigHandler, SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Signals that are meant for the command.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// `si_code` of a signal that the kernel sent, here the terminal.
const SI_KERNEL: i32 = 0x80;

/// The signals of this process, as a queue.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Takes the signals away from their default actions, for this thread and all that it starts from now on.
    #[allow(unsafe_code)]
    pub(super) fn catch() -> io::Result<Self> {
        let mut set: SigSet = PASSED_ON.into_iter().collect();
        set.add(Signal::SIGTSTP);
        set.add(Signal::SIGCHLD);
        // A caller that ignores SIGCHLD would have the kernel throw the exit code away.
        // SAFETY: no handler is installed, only the default restored.
        unsafe { signal::signal(Signal::SIGCHLD, SigHandler::SigDfl)? };
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?))
    }

    /// Waits for the next signal; true if the terminal sent it.
    fn next(&self) -> io::Result<(Signal, bool)> {
        loop {
            match self.0.read_signal() {
                Ok(Some(info)) => {
                    let signal = Signal::try_from(info.ssi_signo as i32)?;
                    return Ok((signal, info.ssi_code == SI_KERNEL));
                }
                Ok(None) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Pid,
    signals: Signals,
}

impl Running {
    pub(super) const fn new(child: Pid, signals: Signals) -> Self {
        Self { child, signals }
    }

    /// Waits for the command's end, passing signals on, and returns its exit code, or 128 + n after signal n. What it
    /// left running in the background loses its network when this process ends.
    pub fn wait(&self) -> io::Result<u8> {
        loop {
            match waitpid(self.child, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => return Ok(code as u8),
                WaitStatus::Signaled(_, signal, _) => return Ok(128 + signal as u8),
                _ => {}
            }
            match self.signals.next()? {
                (Signal::SIGCHLD, _) => {}
                (Signal::SIGTSTP, from_terminal) => {
                    if !from_terminal {
                        self.pass_on(Signal::SIGTSTP);
                    }
                    stop()?;
                }
                (signal, false) => self.pass_on(signal),
                (_, true) => {}
            }
        }
    }

    /// After the command's end: waits so long, and tells whether a signal meanwhile asked this process to end.
    #[must_use]
    pub fn is_told_to_end_within(&self, time: Duration) -> bool {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.signals.0.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut fds, timeout), Ok(1..)) {
            return false;
        }
        let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        self.signals.next().is_ok_and(|(signal, _)| ends.contains(&signal))
    }

    fn pass_on(&self, signal: Signal) {
        // It fails if the command has just ended (waitpid will tell) or changed its user; then nobody can signal it.
        let _ = kill(self.child, signal);
    }
}

/// Does what SIGTSTP does by default: stops, unless nobody could wake us (an orphaned process group).
fn stop() -> io::Result<()> {
    let set = SigSet::from(Signal::SIGTSTP);
    raise(Signal::SIGTSTP)?;
    set.thread_unblock()?;
    set.thread_block()?;
    Ok(())
}
