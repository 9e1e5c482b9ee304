//! The program under test as a child process on one of the hosts.

use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::ns::Ns;
use super::{PATIENCE, PORT, server_at};
use halfopen::setup::netlink::Family;

/// A running halfopen. Killed and waited for when dropped; what it said is shown if the test failed.
pub(crate) struct Halfopen {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// The command, to be run on a host, which dies with the thread that starts it.
pub(crate) fn command(ns: &Ns, args: &[&str]) -> Command {
    let mut command = program(ns, env!("CARGO_BIN_EXE_halfopen"));
    // No config of the user who runs the tests.
    let config = concat!(env!("CARGO_TARGET_TMPDIR"), "/empty.toml");
    std::fs::write(config, "").expect("cargo makes this directory");
    command.args(args).env_clear().env("HALFOPEN_CONFIG", config).env("RUST_BACKTRACE", "1");
    command
}

/// Any program, to be run on a host, which dies with the thread that starts it.
pub(crate) fn program(ns: &Ns, path: &str) -> Command {
    let mut command = Command::new(path);
    // A process group of its own, with us as the parent outside: only a group that is not orphaned can be stopped by
    // SIGTSTP, and the tests may run in one that is.
    command.stdin(Stdio::null()).process_group(0);
    let ns = ns.as_fd().as_raw_fd();
    // SAFETY: setns and prctl are system calls without memory effects; the descriptor lives in the forked copy too.
    unsafe {
        command.pre_exec(move || {
            move_to(ns)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    command
}

/// Moves a child to a host, with all signals as they are by default: a shell lets what it starts in the background ignore
/// some, and ignoring is inherited.
fn move_to(ns: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor lives in the forked copy too; the dispositions are the child's own.
    unsafe {
        let fd = std::os::fd::BorrowedFd::borrow_raw(ns);
        nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET)?;
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
            nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
        }
    }
    Ok(())
}

/// A descriptor of this very test program and one of halfopen, inherited by all children. A child that is nobody runs
/// them through these, wherever they are.
fn programs() -> (RawFd, RawFd) {
    static PROGRAMS: OnceLock<(RawFd, RawFd)> = OnceLock::new();
    *PROGRAMS.get_or_init(|| {
        let open = |path: &str| {
            let fd = nix::fcntl::open(path, OFlag::O_PATH, Mode::empty()).expect("the program is there");
            fd.into_raw_fd()
        };
        (open("/proc/self/exe"), open(env!("CARGO_BIN_EXE_halfopen")))
    })
}

/// This test program as a command: it then does what [`crate::inside`] says.
pub(crate) fn myself() -> String {
    format!("/proc/self/fd/{}", programs().0)
}

/// The same as [`command`] for [`NOBODY`], who has no privileges.
pub(crate) fn command_of_user(ns: &Ns, args: &[&str]) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", programs().1));
    command.args(args).stdin(Stdio::null()).env_clear().current_dir("/").process_group(0);
    let ns = ns.as_fd().as_raw_fd();
    let is_root = has_many_users();
    // SAFETY: system calls without memory effects; the descriptor lives in the forked copy too.
    unsafe {
        command.pre_exec(move || {
            move_to(ns)?;
            if is_root {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setresgid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
                nix::unistd::setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
            } else {
                become_nobody()?;
            }
            // After the change of user, which clears it.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    command
}

/// In a user namespace of its own, root may call itself what it likes; with another name, it is nobody special after exec.
fn become_nobody() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", "65534 0 1")?;
    std::fs::write("/proc/self/gid_map", "65534 0 1")
}

/// Root is nobody special any more in what this process executes.
pub(crate) fn become_powerless() -> nix::Result<()> {
    const SECBIT_NOROOT: libc::c_ulong = 1;
    // SAFETY: a system call without memory effects.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NOROOT) }).map(drop)
}

/// The user and group without any file of their own.
pub(crate) const NOBODY: u32 = 65_534;

/// True if this process may become somebody else.
pub(crate) fn has_many_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("procfs");
    map.split_ascii_whitespace().nth(2).and_then(|n| n.parse().ok()).is_some_and(|n: u64| n > NOBODY.into())
}

/// Runs the command on a host to its end.
pub(crate) fn output(ns: &Ns, args: &[&str]) -> Output {
    command(ns, args).output().expect("the program was built with the test")
}

impl Halfopen {
    /// `halfopen run` between `cli0` and `srv0` for [`PORT`]; returns when it says `ready`.
    pub(crate) fn gateway(ns: &Ns, options: &[&str]) -> Self {
        let port = PORT.to_string();
        let mut args = vec!["run", "--mode", "gateway", "--ports", &port];
        args.extend(["--client-interface", "cli0", "--server-interface", "srv0"]);
        args.extend(options);
        Self::start(ns, &args)
    }

    /// `halfopen run` on the client's own host for [`PORT`]; returns when it says `ready`.
    pub(crate) fn sidecar(ns: &Ns, options: &[&str]) -> Self {
        let port = PORT.to_string();
        Self::start(ns, &[&["run", "--mode", "sidecar", "--ports", &port], options].concat())
    }

    /// The same on the server's host, for connections from outside.
    pub(crate) fn inbound(ns: &Ns, options: &[&str]) -> Self {
        let port = PORT.to_string();
        Self::start(ns, &[&["run", "--mode", "sidecar", "--inbound-ports", &port], options].concat())
    }

    /// `halfopen run` at all addresses of a host; behind its [`PORT`] is the server.
    pub(crate) fn listen(ns: &Ns, options: &[&str]) -> Self {
        let listeners = Family::ALL.map(|family| {
            let any = if family == Family::V4 { "0.0.0.0" } else { "[::]" };
            format!("{any}:{PORT}={}", server_at(family))
        });
        let args = ["run", "--mode", "listen", "--listen", &listeners[0], "--listen", &listeners[1]];
        Self::start(ns, &[&args, options].concat())
    }

    /// `halfopen exec` with a command that does nothing; returns when that says `ready`, with the host that it is on.
    pub(crate) fn exec(ns: &Ns, user: bool, options: &[&str]) -> (Self, Ns) {
        let myself = myself();
        let args = [&["exec"], options, &["--", &myself, "inside", "idle"]].concat();
        let this = Self::start_command(if user { command_of_user(ns, &args) } else { command(ns, &args) });
        let inside = Ns::of(this.inside());
        (this, inside)
    }

    /// The same as somebody without privileges, with [`PORT`] of all addresses of the host published.
    pub(crate) fn publish(ns: &Ns, options: &[&str]) -> (Self, Ns) {
        let published = [format!("0.0.0.0:{PORT}"), format!("[::]:{PORT}")];
        let publish = ["--publish", &published[0], "--publish", &published[1]];
        Self::exec(ns, true, &[&publish, options].concat())
    }

    /// The process of the idle command.
    pub(crate) fn inside(&self) -> u32 {
        let said = self.said();
        let line = said.lines().find_map(|line| line.strip_prefix("ready ")).expect("it is ready");
        line.parse().expect("its process")
    }

    /// Runs with these arguments; returns when it says `ready`.
    pub(crate) fn start(ns: &Ns, args: &[&str]) -> Self {
        Self::start_command(command(ns, args))
    }

    pub(crate) fn start_command(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program was built");
        let stderr = child.stderr.take().expect("it is piped");
        let said = Arc::new(Mutex::new(String::new()));
        let (tell, told) = mpsc::channel();
        let copy = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let ready = line.contains("ready");
                let mut said = copy.lock().expect("nobody panics with it");
                said.push_str(&line);
                said.push('\n');
                if ready {
                    let _ = tell.send(());
                }
            }
        });
        let this = Self { child, said, reader: Some(reader) };
        this.wait_ready(&told);
        this
    }

    fn wait_ready(&self, told: &Receiver<()>) {
        assert!(told.recv_timeout(PATIENCE).is_ok(), "halfopen did not get ready; it said:\n{}", self.said());
    }

    /// What it wrote to stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("every process has it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// True while it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("our child");
    }

    /// Sends a signal and waits for the end, within [`PATIENCE`].
    pub(crate) fn end_by(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait_for_end(signal.as_str())
    }

    /// Waits for the end that something else is the cause of, within [`PATIENCE`].
    pub(crate) fn wait_for_end(&mut self, cause: &str) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "halfopen does not end by {cause}; it said:\n{}",
                self.said()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Halfopen {
    /// Ends it in the usual way; its summary, if it was started with `--json`.
    pub(crate) fn finish(mut self) -> serde_json::Value {
        let status = self.end_by(Signal::SIGTERM);
        assert!(status.success(), "halfopen ended with {status}; it said:\n{}", self.said());
        self.summary()
    }

    /// The summary of one that has ended, if it was started with `--json`.
    pub(crate) fn summary(mut self) -> serde_json::Value {
        let stdout = self.child.stdout.take().expect("it is piped");
        serde_json::from_reader(stdout).expect("a summary as JSON")
    }
}

impl Drop for Halfopen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("--- halfopen said:\n{}---", self.said());
        }
    }
}
