//! The namespaces themselves, and why a machine may refuse them.

use std::fs;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::Error;

/// `CAP_SYS_ADMIN` of linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;

/// Moves this process to new network and mount namespaces. One who may make them keeps his user namespace, and the
/// command his identity with all that belongs to it. Everyone else needs a new user namespace, in which he is mapped to
/// himself, so that the command sees its own user; the capabilities over the namespaces end when the command starts.
pub(super) fn enter() -> Result<(), Error> {
    let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if has_capability(CAP_SYS_ADMIN) && unshare(own).is_ok() {
        return Ok(());
    }
    // The ids must be read before: in the new user namespace they read as 65534 until they are mapped.
    let (user, group) = (geteuid(), getegid());
    unshare(own | CloneFlags::CLONE_NEWUSER).map_err(|e| refused("make user and network namespaces", e))?;
    // Without privileges a group map is taken only when setgroups(2), which could drop a denying group, is off.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", &format!("{group} {group} 1"))
}

fn write(path: &str, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| refused(&format!("write {path}"), e))
}

/// An error of a step that user namespaces may forbid.
pub(super) fn refused(what: &str, cause: impl Into<io::Error>) -> Error {
    Error::setup(what, cause, hint())
}

fn hint() -> String {
    let setting = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
    reason(setting, Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists()).to_owned()
}

/// Which of the usual obstacles stands here; `setting` reads a sysctl file and gives "" where there is none.
fn reason(setting: impl Fn(&str) -> String, in_container: bool) -> &'static str {
    let is = |name, value| setting(name).trim() == value;
    if is("user/max_user_namespaces", "0") {
        "user namespaces are off on this machine: run `sysctl user.max_user_namespaces=10000` as root"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "only root may make user namespaces here: run `sysctl kernel.unprivileged_userns_clone=1` as root"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces here: run `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root, \
         or give halfopen an AppArmor profile with `userns,`"
    } else if in_container {
        "the container's seccomp profile forbids namespaces: start it with `--security-opt seccomp=unconfined` or \
         `--cap-add SYS_ADMIN`"
    } else {
        "user namespaces must be allowed (check seccomp and `unshare --user --net true`), or run as root"
    }
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << number) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_obstacle() {
        let cases = [
            ("user/max_user_namespaces", "0\n", false, "user.max_user_namespaces"),
            ("kernel/unprivileged_userns_clone", "0\n", true, "unprivileged_userns_clone"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1\n", false, "AppArmor"),
            ("none", "", true, "seccomp=unconfined"),
            ("none", "", false, "unshare --user"),
        ];
        for (name, value, in_container, expected) in cases {
            let setting = |n: &str| if n == name { value.to_owned() } else { String::new() };
            let hint = reason(setting, in_container);
            assert!(hint.contains(expected), "{name}: {hint}");
        }
    }
}
