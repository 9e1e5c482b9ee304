//! Kernel settings under `/proc/sys`. Those below `net/` belong to the network namespace of the calling thread.

use std::fs;
use std::io;

/// The value, without the newline; `None` if this kernel has no such setting.
pub(super) fn read(key: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sets the value.
pub(super) fn write(key: &str, value: &str) -> io::Result<()> {
    fs::write(path(key), value)
}

fn path(key: &str) -> String {
    format!("/proc/sys/{key}")
}
