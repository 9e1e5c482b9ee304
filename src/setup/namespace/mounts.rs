//! The mount namespace: `/etc/resolv.conf`, and nothing else, differs from the caller's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::setup::resolv;

const NONE: Option<&str> = None;

/// Later mounts of the caller still arrive here; ours stay here.
pub(super) fn detach() -> io::Result<()> {
    Ok(mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?)
}

/// Puts `text` where the C library looks. A machine without that file has no name service to redirect.
pub(super) fn replace_resolv_conf(text: &str) -> io::Result<()> {
    // The file may be a link to somewhere else; the mount must cover what it leads to.
    let target = match OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(resolv::PATH) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    // The new file lives on a file system without a place: mounted for a moment over /etc, where a directory certainly
    // is, and taken away again once the file is mounted alone. No temporary file can be left behind.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("halfopen"), "/etc", Some("tmpfs"), flags, Some("mode=755,size=64k"))?;
    let result = cover(&target, text);
    umount2("/etc", MntFlags::MNT_DETACH)?;
    result
}

fn cover(target: &File, text: &str) -> io::Result<()> {
    std::fs::write(resolv::PATH, text)?;
    let target = format!("/proc/self/fd/{}", target.as_raw_fd());
    Ok(mount(Some(resolv::PATH), target.as_str(), NONE, MsFlags::MS_BIND, NONE)?)
}
