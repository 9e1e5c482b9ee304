//! The interval log of HdrHistogram (`.hlog`): what was measured, interval by interval, readable by the tools of HdrHistogram
//! and merged by `halfopen report`.
//!
//! ```text
//! #[halfopen 0.1.0: values are microseconds; those of unfinished/TAG are lower bounds among those of TAG]
//! #[StartTime: 1764278373.204 (seconds since epoch)]
//! #[BaseTime: 1764278373.204 (seconds since epoch)]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! Tag=connect,0.000,10.000,1023,HISTFAAAA…
//! Tag=connect/target=10.0.0.2:80,0.000,10.000,1023,HISTFAAAA…
//! Tag=unfinished/connect,0.000,10.000,3002367,HISTFAAAA…
//! ```
//!
//! A line is one histogram (V2, compressed, base64) of one interval; without values there is no line. What is in a name of a
//! group that a tag cannot hold is written as `%XX`, a byte each.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::latencies::{By, Kind, Latencies};
use super::latency::Latency;
use crate::time::Instant;

/// How our logs begin: whoever reads one must know the unit.
const OURS: &str = "#[halfopen ";
const LEGEND: &str = r#""StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram""#;
const UNFINISHED: &str = "unfinished/";

/// What a log begins with. `epoch`: nanoseconds since 1970 when the run started.
#[must_use]
pub fn head(version: &str, epoch: u64) -> String {
    let start = epoch as f64 / 1e9;
    format!(
        "{OURS}{version}: values are microseconds; those of {UNFINISHED}TAG are lower bounds among those of TAG]\n\
         #[StartTime: {start:.3} (seconds since epoch)]\n#[BaseTime: {start:.3} (seconds since epoch)]\n{LEGEND}\n"
    )
}

/// The lines of one interval; empty if nothing was measured.
///
/// # Errors
/// If a histogram cannot be written: it has more than 2⁶³ values.
pub fn interval(latencies: &Latencies, from: Instant, to: Instant) -> Result<String, String> {
    let mut out = String::new();
    let time = format!("{:.3},{:.3}", from.as_secs_f64(), to.since(from).as_secs_f64());
    let mut serializer = V2DeflateSerializer::new();
    let mut line = |tag: &str, histogram: Option<&Histogram<u64>>| -> Result<(), String> {
        let Some(histogram) = histogram else { return Ok(()) };
        let mut bytes = Vec::new();
        serializer.serialize(histogram, &mut bytes).map_err(|error| error.to_string())?;
        out += &format!("Tag={tag},{time},{}.0,{}\n", histogram.max(), STANDARD.encode(bytes));
        Ok(())
    };
    let named = latencies.iter().map(|(kind, latency)| (kind.name().to_owned(), latency));
    let groups = latencies.groups().map(|group| {
        let tag = format!("{}/{}={}", group.kind.name(), group.by.name(), escaped(&group.name));
        (tag, &group.values)
    });
    for (tag, latency) in named.chain(groups) {
        line(&tag, latency.histogram())?;
        line(&format!("{UNFINISHED}{tag}"), latency.unfinished_histogram())?;
    }
    Ok(out)
}

fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'%' | b'"');
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn unescaped(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Reads logs line by line and merges them.
#[derive(Default)]
pub struct Reader {
    latencies: Latencies,
    /// Lines of the current log.
    line: u64,
    deserializer: Deserializer,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Reader {
    /// The next log begins.
    pub const fn begin(&mut self) {
        self.line = 0;
    }

    /// Takes the next line, with or without its end. After an error nothing of this line has been added.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn line(&mut self, line: &str) -> Result<(), String> {
        self.line += 1;
        let line = line.trim_end();
        match self.line {
            1 if line.starts_with(OURS) => return Ok(()),
            1 => return Err("not an interval log of halfopen: the unit of its values is unknown".to_owned()),
            _ if line.is_empty() || line.starts_with('#') || line == LEGEND => return Ok(()),
            _ => {}
        }
        let mut parts = line.splitn(5, ',');
        let mut part = || parts.next().ok_or("not a line of an interval log");
        let tag = part()?.strip_prefix("Tag=").ok_or("a histogram without a tag")?;
        for _ in 0..3 {
            part()?.parse::<f64>().map_err(|_| "not a line of an interval log")?;
        }
        let bytes = STANDARD.decode(part()?).map_err(|error| format!("not a histogram: {error}"))?;
        let histogram: Histogram<u64> = self
            .deserializer
            .deserialize(&mut &bytes[..])
            .map_err(|error| format!("not a histogram: {error}"))?;
        let (tag, unfinished) = match tag.strip_prefix(UNFINISHED) {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        self.latency(tag)?.add_read(&histogram, unfinished);
        Ok(())
    }

    /// The latency of a tag.
    fn latency(&mut self, tag: &str) -> Result<&mut Latency, String> {
        let unknown = || format!("\"{tag}\" is no latency that this version knows");
        let (kind, group) = match tag.split_once('/') {
            Some((kind, group)) => (kind, Some(group)),
            None => (tag, None),
        };
        let kind = Kind::of(kind).ok_or_else(unknown)?;
        let Some(group) = group else { return Ok(self.latencies.get_mut(kind)) };
        let (by, name) = group.split_once('=').ok_or_else(unknown)?;
        let by = By::of(by).ok_or_else(unknown)?;
        let name: Arc<str> = unescaped(name).ok_or_else(unknown)?.into();
        Ok(self.latencies.group(kind, by, &name))
    }

    /// All that was read.
    #[must_use]
    pub fn finish(self) -> Latencies {
        self.latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn some(from: u64, to: u64) -> Latencies {
        let mut latencies = Latencies::default();
        let rule: Arc<str> = "eine von fünf, 100 %".into();
        for millis in from..to {
            let time = Duration::from_micros(millis * 1237);
            latencies.get_mut(Kind::Connect).record(time);
            latencies.group(Kind::Connect, By::Rule, &rule).record(time);
        }
        latencies.get_mut(Kind::Connect).unfinished(Duration::from_secs(to));
        latencies
    }

    fn written(latencies: &[Latencies]) -> String {
        let lines =
            latencies.iter().map(|some| interval(some, Instant::ZERO, Instant::from_millis(10_000)).unwrap());
        head("1.0", 1_764_278_373_204_000_000) + &lines.collect::<String>()
    }

    /// All counts of all values.
    fn counts(latency: &Latency) -> Vec<(u64, u64)> {
        let all = latency.histogram().into_iter().flat_map(|all| all.iter_recorded());
        all.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    #[test]
    fn what_several_logs_say_together_is_what_one_would_have_said() {
        let mut reader = Reader::default();
        for log in [written(&[some(1, 500), some(500, 900)]), written(&[some(900, 1000)])] {
            reader.begin();
            log.lines().for_each(|line| reader.line(line).unwrap());
        }
        let read = reader.finish();
        let mut expected = some(1, 500);
        expected.add(&some(500, 900));
        expected.add(&some(900, 1000));
        for (kind, latency) in expected.iter() {
            assert_eq!(counts(read.get(kind)), counts(latency), "{}", kind.name());
            assert_eq!(read.get(kind).unfinished_count(), latency.unfinished_count());
            assert_eq!(
                read.get(kind).percentile(99.9).map(|b| b.at_least),
                latency.percentile(99.9).map(|b| b.at_least)
            );
        }
        let [group] = read.groups().collect::<Vec<_>>()[..] else { panic!("one group") };
        assert_eq!((&*group.name, group.by, group.values.count()), ("eine von fünf, 100 %", By::Rule, 999));
    }

    #[test]
    fn an_interval_without_values_has_no_lines() {
        assert_eq!(interval(&Latencies::default(), Instant::ZERO, Instant::from_millis(1)).unwrap(), "");
        let mut used = some(1, 9);
        used.clear();
        assert_eq!(interval(&used, Instant::ZERO, Instant::from_millis(1)).unwrap(), "");
    }

    #[test]
    fn what_is_foreign_or_broken_is_refused_with_the_reason() {
        let good = written(&[some(1, 9)]);
        let histogram = good.lines().find(|line| line.starts_with("Tag=connect,")).unwrap();
        let (_, rest) = histogram.split_once(',').unwrap();
        let rows = [
            ("#[Histogram log format version 1.2]", "unit of its values is unknown"),
            ("\u{7f}ELF", "unit of its values is unknown"),
        ];
        for (line, reason) in rows {
            let error = Reader::default().line(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        let rows = [
            (format!("Tag=latency,{rest}"), "no latency that this version knows"),
            (format!("Tag=connect/colour=red,{rest}"), "no latency that this version knows"),
            (rest.to_owned(), "without a tag"),
            ("Tag=connect,0.0,1.0".to_owned(), "not a line of an interval log"),
            (histogram[..histogram.len() - 30].to_owned(), "not a histogram"),
            ("Tag=connect,0.0,1.0,2.0,AAAA".to_owned(), "not a histogram"),
        ];
        for (line, reason) in rows {
            let mut reader = Reader::default();
            reader.line(good.lines().next().unwrap()).unwrap();
            let error = reader.line(&line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
            assert_eq!(reader.finish().get(Kind::Connect).count(), 0, "{line}");
        }
    }
}
