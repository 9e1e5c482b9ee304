//! Files of an earlier run, as anybody may hand them to `halfopen ladder`.

use crate::capture::Reader;
use crate::report::{Ladders, Style, Worst, html};
use crate::trace::{Record, Sink as _};

/// Most bytes of a piece of a capture, for its second reading.
const PIECE: usize = 7;

/// Bytes as a capture and as lines of events. A capture reads the same in pieces of any size, an event is written as one that
/// can be read, and of whatever was read every drawing can be made.
pub fn read(data: &[u8]) {
    let whole = capture(data, data.len().max(1));
    assert_eq!(capture(data, PIECE), whole, "in pieces");
    draw(&whole.0);
    let lines = data.split(|byte| *byte == b'\n').filter_map(|line| Record::from_json(line).ok());
    let records: Vec<Record> = lines.collect();
    for record in &records {
        let written = serde_json::to_vec(record).expect("an event can be written");
        assert!(Record::from_json(&written).is_ok(), "{}", String::from_utf8_lossy(&written));
    }
    draw(&records);
}

/// What is read, and how it ends.
fn capture(data: &[u8], piece: usize) -> (Vec<Record>, Result<bool, String>) {
    let (mut reader, mut records) = (Reader::default(), Vec::new());
    for piece in data.chunks(piece) {
        if let Err(foreign) = reader.feed(piece, &mut records) {
            return (records, Err(foreign.to_string()));
        }
    }
    let is_whole = reader.finish(&mut records);
    (records, Ok(is_whole))
}

fn draw(records: &[Record]) {
    if records.is_empty() {
        return;
    }
    let (mut ladders, mut worst) = (Ladders::default(), Worst::new(8));
    for record in records {
        ladders.record(record.clone());
        worst.record(record.clone());
    }
    let text = ladders.draw(&Style::default()).to_string();
    assert!(!text.contains(['\u{1b}', '\r']), "orders to a terminal: {text:?}");
    assert!(!ladders.mermaid().contains('\u{1b}'));
    let mut page = html::Page::new("", "");
    page.ladders(&worst);
    for picture in [ladders.svg(), page.finish("")] {
        assert!(!picture.contains("<script") && !picture.contains('\u{1b}'), "{picture}");
    }
}
