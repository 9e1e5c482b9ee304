//! Programs that are started in a process group of their own, and ended with all that they started; and what is to be known
//! of processes.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// The user whose process this is.
#[must_use]
pub fn owner() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Moves the calling thread, the only one, into the network namespace of another process.
///
/// # Errors
/// What the system says: `ENOENT` without that process, `EPERM` or `EACCES` without the privilege.
pub fn enter_network_of(pid: u32) -> std::io::Result<()> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    Ok(nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?)
}

/// Makes the program the leader of a process group, told to end (SIGTERM) when the calling thread ends, whatever ends it.
#[allow(unsafe_code)]
pub fn lead_group(command: &mut Command) {
    command.process_group(0);
    // SAFETY: a system call without memory effects.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
    }
}

/// Tells all of a group to end. A group that is gone is as good.
pub fn end_group(leader: u32) {
    signal(leader, Signal::SIGTERM);
}

/// Ends all of a group at once.
pub fn kill_group(leader: u32) {
    signal(leader, Signal::SIGKILL);
}

fn signal(leader: u32, signal: Signal) {
    if let Some(group) = i32::try_from(leader).ok().filter(|group| *group > 1) {
        let _ = killpg(Pid::from_raw(group), signal);
    }
}

/// From here on, what programs of ours leave behind becomes a child of this process.
pub fn adopt_orphans() {
    // Without it orphans are their own masters, as usual.
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Ends all children of this process, and theirs.
pub fn end_orphans() {
    loop {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            // Their own children become ours by that, and are found by the next look.
            let _ = kill(child, Signal::SIGKILL);
            if waitpid(child, None).is_err() {
                return;
            }
        }
    }
}

/// Empty where the kernel does not tell.
fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<String> = lists.collect();
    let pids = all.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(|pid| pid.parse().ok());
    pids.map(Pid::from_raw).collect()
}
