//! The program under test as a child process on one of the hosts.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ns::Ns;
use super::{PATIENCE, PORT};

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
    command.stdin(Stdio::null());
    let ns = ns.as_fd().as_raw_fd();
    // SAFETY: setns and prctl are system calls without memory effects; the descriptor lives in the forked copy too.
    unsafe {
        command.pre_exec(move || {
            let fd = std::os::fd::BorrowedFd::borrow_raw(ns);
            nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    command
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

    /// Runs with these arguments; returns when it says `ready`.
    pub(crate) fn start(ns: &Ns, args: &[&str]) -> Self {
        let mut child = command(ns, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let stderr = child.stderr.take().expect("it is piped");
        let said = Arc::new(Mutex::new(String::new()));
        let (tell, told) = mpsc::channel();
        let copy = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("ready") {
                    let _ = tell.send(());
                }
                let mut said = copy.lock().expect("nobody panics with it");
                said.push_str(&line);
                said.push('\n');
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

    /// Sends a signal and waits for the end.
    pub(crate) fn end_by(&mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).expect("our child");
        self.child.wait().expect("our child")
    }
}

impl Halfopen {
    /// Ends it in the usual way; its summary, if it was started with `--json`.
    pub(crate) fn finish(mut self) -> serde_json::Value {
        let status = self.end_by(Signal::SIGTERM);
        assert!(status.success(), "halfopen ended with {status}; it said:\n{}", self.said());
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
