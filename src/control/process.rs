//! What every Prometheus client tells of its process, from /proc.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Clock ticks per second in /proc; the same on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// This process at one moment; what /proc does not tell is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    cpu_seconds: Option<f64>,
    /// Seconds since 1970.
    start: Option<f64>,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        Self {
            open_files,
            ..Self::parse(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"))
        }
    }

    fn parse(stat: &str, status: &str, system: &str) -> Self {
        // The name in parentheses may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // proc_pid_stat(5) counts from 1, and the state, here the first, is field 3.
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let boot = value(system, "btime ");
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, kernel)| (user + kernel) / TICKS),
            start: field(22).zip(boot).map(|(since, boot)| boot as f64 + since / TICKS),
            resident_bytes: value(status, "VmRSS:").map(|kib| kib * 1024),
            open_files: None,
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = self.cpu_seconds {
            let help = "Time on the processors, in user space and in the kernel";
            let mut metric = out.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        if let Some(seconds) = self.start {
            let help = "When the process began, since 1970";
            let mut metric =
                out.encode_descriptor("start_time", help, Some(&Unit::Seconds), MetricType::Gauge)?;
            metric.encode_gauge(&seconds)?;
        }
        for (name, help, unit, value) in [
            ("resident_memory", "Memory in use", Some(&Unit::Bytes), self.resident_bytes),
            ("open_fds", "Open file descriptors", None, self.open_files),
        ] {
            let Some(value) = value else { continue };
            let mut metric = out.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_name_of_the_program() {
        let stat = "7 (half) open) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 3 0 1000 9 9";
        let process = Process::parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n", "cpu 1 2\nbtime 1700000000\n");
        let expected = Process {
            cpu_seconds: Some(3.0),
            start: Some(1_700_000_010.0),
            resident_bytes: Some(2 << 20),
            open_files: None,
        };
        assert_eq!(process, expected);
        assert_eq!(Process::parse("", "", ""), Process::default());
        assert!(Process::now().open_files > Some(0) && Process::now().resident_bytes > Some(0));
    }
}
