//! The file of a capture, and its successors when it grows too large.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::capture::Capture;
use crate::time::Instant;
use crate::trace::Record;

/// Who writes it, as the file tells.
const APPLICATION: &str = concat!("halfopen ", env!("CARGO_PKG_VERSION"));

/// Where a capture goes.
#[derive(Debug)]
pub struct Pcap {
    /// The file, created.
    pub file: File,
    /// Its path; the next ones end in `.1`, `.2` and so on.
    pub path: PathBuf,
    /// Bytes of a packet that are kept, headers included.
    pub snaplen: u32,
    /// Bytes of a file after which the next one begins; 0: never.
    pub rotate: u64,
}

/// A capture on its way to its files.
#[derive(Debug)]
pub(super) struct Writer {
    pcap: Pcap,
    capture: Capture,
    /// Bytes in the current file.
    written: u64,
    /// Files before the current one.
    files: u32,
}

impl Writer {
    /// `epoch`: nanoseconds since 1970 when the run started.
    pub(super) fn new(pcap: Pcap, epoch: u64) -> Self {
        let capture = Capture::new(epoch, pcap.snaplen, APPLICATION);
        Self { pcap, capture, written: 0, files: 0 }
    }

    /// Takes events. What is written is complete up to the last few packets.
    pub(super) fn record(&mut self, records: &[Record]) -> io::Result<()> {
        records.iter().for_each(|record| self.capture.record(record));
        self.write()?;
        if self.pcap.rotate > 0 && self.written >= self.pcap.rotate {
            self.files += 1;
            let mut path: OsString = self.pcap.path.clone().into();
            path.push(format!(".{}", self.files));
            self.pcap.file = File::create(path)?;
            self.written = 0;
            self.capture.begin(APPLICATION);
        }
        Ok(())
    }

    /// Writes the end; `lost` packets are missing.
    pub(super) fn end(mut self, now: Instant, lost: u64) -> io::Result<()> {
        self.capture.end(now, lost);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let bytes = self.capture.take();
        self.pcap.file.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
