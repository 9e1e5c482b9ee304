//! The life of the child until it is the command.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{execvp, getegid};

use crate::engine::tun::Device;

use super::handover::{Channel, Message};
use super::{Error, Inside, mounts, network, users};

/// Sets everything up, waits for the word and becomes the command. On failure it says why and exits.
pub(super) fn run(inside: &Inside, channel: &Channel) -> ! {
    let error = match stand_by(inside, channel) {
        Ok(()) => execute(inside),
        Err(error) => error,
    };
    let code = i32::from(error.code);
    // If the parent does not hear it, it is gone, and so is everyone who could have cared.
    let _ = channel.send_failed(&error);
    std::process::exit(code)
}

fn stand_by(inside: &Inside, channel: &Channel) -> Result<(), Error> {
    users::enter()?;
    end_with_parent()?;
    let device = network::set_up(inside)?;
    allow_low_ports_and_ping();
    mounts::detach().map_err(|e| users::refused("detach the mounts", e))?;
    if let Some(text) = &inside.resolv_conf {
        mounts::replace_resolv_conf(text).map_err(|e| users::refused("replace /etc/resolv.conf", e))?;
    }
    hand_over(device, channel)
}

/// Gives the device away and waits until the engine runs on it.
fn hand_over(device: Device, channel: &Channel) -> Result<(), Error> {
    let talk = |e| Error::setup("talk to the parent process", e, "");
    channel.send_device(&device).map_err(talk)?;
    drop(device);
    match channel.receive().map_err(talk)? {
        Some(Message::Go) => Ok(()),
        _ => Err(talk(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// SIGTERM when the parent dies. Not SIGKILL: the command may still have things of its own to clean up, and one that
/// ignores SIGTERM has said that it wants to go on, without a network. A parent that died before this call is noticed by
/// its closed channel.
fn end_with_parent() -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGTERM).map_err(|e| Error::setup("tie the command to halfopen", e, ""))
}

/// What a caller could do outside by a file capability, which a user namespace takes away: bind a low port, and ping.
/// A read-only /proc/sys (containers) forbids it; then low ports and ping are refused as they usually are.
fn allow_low_ports_and_ping() {
    let group = getegid();
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{group} {group}"));
}

/// Returns only if that failed.
#[allow(unsafe_code)]
fn execute(inside: &Inside) -> Error {
    let name = inside.command.first().map(OsString::as_os_str).unwrap_or_default();
    let words: Result<Vec<CString>, _> =
        inside.command.iter().map(|word| CString::new(word.as_bytes())).collect();
    let Ok(words) = words else { return not_started(name, nix::Error::EINVAL) };
    let Some(program) = words.first() else { return not_started(name, nix::Error::ENOENT) };
    // Rust ignores SIGPIPE, which would be inherited and make `yes | head` run for ever.
    // SAFETY: no handler is installed, only the default restored.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    match execvp(program, &words) {
        Err(e) => not_started(name, e),
        Ok(never) => match never {},
    }
}

fn not_started(name: &OsStr, error: nix::Error) -> Error {
    let name = name.to_string_lossy();
    match error {
        nix::Error::ENOENT => Error {
            code: 127,
            what: format!("{name}: command not found"),
            hint: if name.contains('/') { String::new() } else { "it is looked up in PATH".into() },
        },
        error => Error {
            code: 126,
            what: format!("cannot execute {name}: {}", io::Error::from(error)),
            hint: String::new(),
        },
    }
}
