//! Reads what an earlier run has written, in bounded memory.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::capture::Reader;
use crate::cli::Failure;
use crate::trace::{Record, Sink};

/// Bytes of a capture that are read at a time.
const PIECE: usize = 64 << 10;
/// Longest line that is read, in bytes. The longest event is a flow with many rules.
const LINE: usize = 64 << 10;

/// Why a file cannot be drawn.
#[derive(Debug)]
pub(super) struct Problem {
    /// The line, if it has lines.
    line: Option<u64>,
    what: String,
    hint: Option<&'static str>,
}

impl Problem {
    fn new(what: impl fmt::Display) -> Self {
        Self { line: None, what: what.to_string(), hint: None }
    }

    /// As the command tells it.
    pub(super) fn about(self, file: &Path) -> Failure {
        let Self { line, what, hint } = self;
        let line = line.map_or_else(String::new, |line| format!("{line}:"));
        let failure = Failure::new(Failure::FAILED, format_args!("{}:{line} {what}", file.display()));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::new(format_args!("cannot be read: {error}"))
    }
}

/// Reads a file to its end. If it ends too early, what is missing is told.
pub(super) fn read(mut file: impl Read, sink: &mut impl Sink) -> Result<Option<String>, Problem> {
    // A pipe may have less at a time.
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head)?;
    let is_text = head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    match head[..] {
        [] => Err(Problem::new("is empty")),
        [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d] | [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1] => {
            Err(Problem::new("is a pcap file, which has no legs and no faults; --pcap writes pcapng"))
        }
        [0x0a, 0x0d, 0x0d, 0x0a] => capture(io::Cursor::new(head).chain(file), sink),
        _ if is_text => events(BufReader::new(io::Cursor::new(head).chain(file)), sink),
        _ => Err(Problem::new("is not what --events or --pcap of a run has written")),
    }
}

fn capture(mut file: impl Read, sink: &mut impl Sink) -> Result<Option<String>, Problem> {
    let (mut reader, mut piece) = (Reader::default(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((!reader.finish(sink)).then(|| "the last packet is cut off".to_owned())),
            Ok(bytes) => reader
                .feed(&piece[..bytes], sink)
                .map_err(|foreign| Problem::new(format_args!("is no capture of halfopen: {foreign}")))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn events(mut file: impl BufRead, sink: &mut impl Sink) -> Result<Option<String>, Problem> {
    let (mut bytes, mut number) = (Vec::new(), 0);
    loop {
        bytes.clear();
        file.by_ref().take(LINE as u64 + 1).read_until(b'\n', &mut bytes)?;
        number += 1;
        let wrong = |what: String| Problem {
            line: Some(number),
            what,
            hint: Some("a file that --events has written has one event in each line, as JSON"),
        };
        match (bytes.last(), Record::from_json(bytes.strip_suffix(b"\n").unwrap_or(&bytes))) {
            (None, _) => return Ok(None),
            _ if bytes.len() > LINE => return Err(wrong(format!("no event: longer than {LINE} bytes"))),
            (_, Ok(record)) => sink.record(record),
            (Some(b'\n'), Err(error)) => return Err(wrong(format!("no event: {error}"))),
            (_, Err(error)) if error.is_cut() => return Ok(Some(format!("line {number} is cut off"))),
            (_, Err(error)) => return Err(wrong(format!("no event: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Event, Outcome};

    const OPENED: &str =
        r#"{"at":0.1,"flow":1,"event":"flow-opened","client":"10.0.0.1:1","server":"10.0.0.2:2","rules":[]}"#;
    const CLOSED: &str =
        r#"{"at":0.2,"flow":1,"event":"flow-closed","outcome":"ok","upstream_bytes":0,"downstream_bytes":0}"#;

    /// What is read, and how it ends: nothing, what is missing, or what is wrong.
    fn reads(bytes: impl AsRef<[u8]>) -> (Vec<Record>, String) {
        let mut records = Vec::new();
        let said = match read(bytes.as_ref(), &mut records) {
            Ok(ending) => ending.unwrap_or_default(),
            Err(Problem { line, what, .. }) => {
                line.map_or_else(String::new, |line| format!("{line}: ")) + &what
            }
        };
        (records, said)
    }

    #[test]
    fn each_line_is_an_event() {
        let (records, said) = reads(format!("{OPENED}\n{CLOSED}\n"));
        assert_eq!((records.len(), &*said), (2, ""));
        assert!(matches!(records[1].event, Event::FlowClosed { outcome: Outcome::Ok, .. }));
        assert_eq!(reads(format!("{OPENED}\n{CLOSED}")).0.len(), 2, "the last line needs no end");
    }

    #[test]
    fn a_line_that_is_no_event_is_told_by_its_number() {
        for (text, expected) in [
            (format!("{OPENED}\nhello\n"), "2: no event: expected value at column 1"),
            (format!("{OPENED}\n\n"), "2: no event: EOF while parsing a value"),
            (format!("{OPENED}\n{}\n", &CLOSED[..30]), "2: no event: EOF while parsing a string"),
            (format!("{OPENED}\nhello"), "2: no event: expected value at column 1"),
            ("{\"flows\":3}\n".to_owned(), "1: no event: missing field `at`"),
            (format!("{OPENED}\n\"{}", "x".repeat(100_000)), "2: no event: longer than 65536 bytes"),
        ] {
            assert_eq!(reads(text).1, expected);
        }
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_told_and_the_others_count() {
        let (records, said) = reads(format!("{OPENED}\n{}", &CLOSED[..30]));
        assert_eq!((records.len(), &*said), (1, "line 2 is cut off"));
    }

    #[test]
    fn other_files_are_refused() {
        for (bytes, expected) in [
            (&b""[..], "is empty"),
            (
                &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0],
                "is a pcap file, which has no legs and no faults; --pcap writes pcapng",
            ),
            (
                &[0xa1, 0xb2, 0x3c, 0x4d, 0, 2],
                "is a pcap file, which has no legs and no faults; --pcap writes pcapng",
            ),
            (
                &[0x0a, 0x0d, 0x0d, 0x0a, 12, 0, 0, 0, 1, 2, 3, 4],
                "is no capture of halfopen: byte 0: no pcapng file: the byte-order magic is missing",
            ),
            (&[0x1f, 0x8b, 8, 0], "is not what --events or --pcap of a run has written"),
        ] {
            assert_eq!(reads(bytes).1, expected);
        }
    }
}
