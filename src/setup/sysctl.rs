//! Kernel settings under `/proc/sys`. Those below `net/` belong to the network namespace of the calling thread.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

/// The value, without the newline; `None` if this kernel has no such setting.
pub(super) fn read(key: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A setting that can be set as often as needed, also by a process that may open it no more.
#[derive(Debug)]
pub(super) struct Setting(File);

impl Setting {
    pub(super) fn open(key: &str) -> io::Result<Self> {
        File::options().write(true).open(path(key)).map(Self)
    }

    /// Sets the value. The kernel takes one only at the start of the file.
    pub(super) fn set(&self, value: &str) -> io::Result<()> {
        self.0.write_all_at(value.as_bytes(), 0)
    }
}

fn path(key: &str) -> String {
    format!("/proc/sys/{key}")
}
