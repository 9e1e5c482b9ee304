//! The command: who it is, how it ends, and what of its end is told.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal};

use crate::Single;
use crate::lab::ns::Ns;
use crate::lab::process::{Halfopen, NOBODY, become_powerless, command, command_of_user, myself, output};
use crate::lab::{PATIENCE, Way};

pub(crate) const SINGLES: &[Single] = &[
    ("the exit code is that of the command", exit_codes),
    ("a command that cannot start has the exit codes of env(1)", not_started),
    ("a signal to halfopen is passed on to the command", signals),
    ("a stopped halfopen goes on when told so, and so does the command", stop_and_continue),
    ("nothing is left when halfopen is killed", killed),
    ("the command is who its caller is", identity),
    ("bad options end with 125 and one clear line", bad_options),
    ("no user namespaces: 125 and what to do", no_namespaces),
    ("stdout belongs to the command", stdout),
];

/// Runs `halfopen exec OPTIONS -- THIS inside WORDS` to its end.
pub(crate) fn exec(ns: &Ns, options: &[&str], words: &[&str]) -> Output {
    exec_by(Way::Exec, ns, options, words)
}

/// The same as whom `way` says.
pub(crate) fn exec_by(way: Way, ns: &Ns, options: &[&str], words: &[&str]) -> Output {
    let myself = myself();
    let args = [&["exec"], options, &["--", &myself, "inside"], words].concat();
    let mut command = if way == Way::UserExec { command_of_user(ns, &args) } else { command(ns, &args) };
    command.output().expect("the program was built with the test")
}

/// Both ways of a caller.
pub(crate) const CALLERS: [Way; 2] = [Way::Exec, Way::UserExec];

/// What the command printed; halfopen said nothing but its summary.
pub(crate) fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}\n{err}", output.status);
    out.trim_end().to_owned()
}

fn exit_codes() {
    let ns = Ns::new();
    for way in CALLERS {
        for (words, code) in [
            (["exit", "0"], 0),
            (["exit", "3"], 3),
            (["exit", "200"], 200),
            (["die", "SIGTERM"], 143),
            (["die", "SIGKILL"], 137),
        ] {
            let output = exec_by(way, &ns, &[], &words);
            assert_eq!(output.status.code(), Some(code), "{way:?} {words:?}: {output:?}");
        }
    }
}

fn not_started() {
    let ns = Ns::new();
    for (name, code, says) in [
        ("no-such-command", 127, "no-such-command: command not found"),
        ("/no/such/command", 127, "/no/such/command: command not found"),
        ("/etc/passwd", 126, "cannot execute /etc/passwd: Permission denied"),
        ("/", 126, "cannot execute /: Permission denied"),
    ] {
        let output = output(&ns, &["exec", "--", name]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.starts_with(&format!("halfopen: {says}")), "{said}");
        assert!(!said.contains("flows"), "there is no summary of nothing: {said}");
    }
}

fn signals() {
    let ns = Ns::new();
    for (signal, code) in
        [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGUSR1, 138), (Signal::SIGHUP, 129)]
    {
        for user in [false, true] {
            let (mut halfopen, _) = Halfopen::exec(&ns, user, &[]);
            assert_eq!(halfopen.end_by(signal).code(), Some(code), "{signal}");
        }
    }
}

/// The letter of a process's state: `R`, `S`, `T` for stopped; `None` if it is gone or nobody waits for it.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next().filter(|state| *state != 'Z')
}

fn wait_for_state(pid: u32, wanted: fn(Option<char>) -> bool) {
    let start = Instant::now();
    while !wanted(state(pid)) {
        assert!(start.elapsed() < PATIENCE, "process {pid} is {:?}", state(pid));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stop_and_continue() {
    let (mut halfopen, _) = Halfopen::exec(&Ns::new(), false, &[]);
    let (outer, inner) = (halfopen.pid(), halfopen.inside());
    nix::sys::signal::kill(outer, Signal::SIGTSTP).expect("our child");
    wait_for_state(inner, |state| state == Some('T'));
    wait_for_state(outer.as_raw() as u32, |state| state == Some('T'));
    nix::sys::signal::kill(outer, Signal::SIGCONT).expect("our child");
    wait_for_state(inner, |state| state == Some('S'));
    assert_eq!(halfopen.end_by(Signal::SIGTERM).code(), Some(143));
}

fn killed() {
    for user in [false, true] {
        let (mut halfopen, _) = Halfopen::exec(&Ns::new(), user, &[]);
        let inner = halfopen.inside();
        halfopen.end_by(Signal::SIGKILL);
        // Its namespaces, device and routes end with it.
        wait_for_state(inner, |state| state.is_none());
    }
}

fn identity() {
    let ns = Ns::new();
    let root = printed(&exec(&ns, &[], &["who"]));
    assert!(root.starts_with("user 0 capabilities "), "{root}");
    let user = printed(&exec_by(Way::UserExec, &ns, &[], &["who"]));
    assert_eq!(user, format!("user {NOBODY} capabilities {:016x}", 0));
    // What a Rust program ignores by itself (SIGPIPE) is not handed down; what its caller ignores is.
    let mut caller = command(&ns, &["exec", "--", "/bin/cat", "/proc/self/status"]);
    // SAFETY: a system call only.
    unsafe {
        caller.pre_exec(|| {
            nix::sys::signal::signal(Signal::SIGUSR1, SigHandler::SigIgn)?;
            Ok(())
        });
    }
    let status = printed(&caller.output().expect("the program was built with the test"));
    let hex = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("it is there");
    let ignored = u64::from_str_radix(hex, 16).expect("a mask");
    let looked_at = [libc::SIGPIPE, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1];
    let found: Vec<_> = looked_at.into_iter().filter(|signal| ignored & (1 << (signal - 1)) != 0).collect();
    assert_eq!(found, [libc::SIGUSR1]);
}

fn bad_options() {
    let ns = Ns::new();
    let events = Path::new("/no/such/directory/events");
    for (options, says) in [
        (["--fault", "fin-dorp"], "fin-dorp"),
        (["--host-loopback", "perhaps"], "neither on, off nor ports"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (["--events", events.to_str().expect("it is ASCII")], "/no/such/directory/events"),
    ] {
        let output = exec(&ns, &options, &["exit", "0"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.starts_with("halfopen: ") && said.contains(says), "{options:?}: {said}");
    }
}

fn no_namespaces() {
    use std::os::unix::process::CommandExt as _;

    use nix::sched::{CloneFlags, unshare};
    let (ns, myself) = (Ns::new(), myself());
    let mut command = command(&ns, &["exec", "--", &myself, "inside", "exit", "0"]);
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(|| {
            // In a user namespace of its own a process may forbid itself the next ones.
            unshare(CloneFlags::CLONE_NEWUSER)?;
            std::fs::write("/proc/self/uid_map", "0 0 1")?;
            std::fs::write("/proc/sys/user/max_user_namespaces", "0")?;
            Ok(become_powerless()?)
        });
    }
    let output = command.output().expect("the program was built with the test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.starts_with("halfopen: cannot make user and network namespaces: "), "{said}");
    assert!(said.contains("hint: user namespaces are off on this machine"), "{said}");
}

fn stdout() {
    let ns = Ns::new();
    for options in [&[][..], &["--json"], &["--ladder"]] {
        let output = exec(&ns, options, &["who"]);
        let printed = printed(&output);
        assert!(printed.starts_with("user ") && printed.lines().count() == 1, "{options:?}: {printed}");
        assert!(!output.stderr.is_empty(), "{options:?}: the summary goes to stderr");
    }
    let json = exec(&ns, &["--json"], &["exit", "0"]).stderr;
    let summary: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(summary["flows"], 0);
}
