use proptest::prelude::*;

use super::*;

const OPEN: Range<u64> = 0..u64::MAX;

fn text(s: &'static str) -> Payload {
    Payload::from(s.as_bytes())
}

fn insert(a: &mut Assembler, offset: u64, s: &'static str) -> Inserted {
    a.insert(&OPEN, offset, &text(s), 8)
}

fn drain(a: &mut Assembler, mut next: u64) -> String {
    let mut out = Vec::new();
    while let Some(piece) = a.pop_ready(next) {
        next += piece.len() as u64;
        out.extend_from_slice(&piece);
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn data_in_order_passes_straight_through() {
    let mut a = Assembler::default();
    assert_eq!(insert(&mut a, 0, "hello"), Inserted { new: 5, ..Inserted::default() });
    assert_eq!((drain(&mut a, 0).as_str(), a.bytes(), a.is_empty()), ("hello", 0, true));
}

#[test]
fn a_gap_holds_back_what_follows_until_it_is_filled() {
    let mut a = Assembler::default();
    insert(&mut a, 5, "world");
    assert_eq!(a.pop_ready(0), None);
    insert(&mut a, 0, "hello");
    assert_eq!((drain(&mut a, 0).as_str(), a.len()), ("helloworld", 0));
}

#[test]
fn the_first_received_copy_of_a_byte_wins() {
    let mut a = Assembler::default();
    insert(&mut a, 2, "cd");
    insert(&mut a, 6, "gh");
    let filled = insert(&mut a, 0, "ABCDEFGHIJ");
    assert_eq!(filled, Inserted { new: 6, duplicate: Some(2..4), limit_hit: false });
    assert_eq!(drain(&mut a, 0), "ABcdEFghIJ");
}

#[test]
fn sack_blocks_come_latest_segment_first() {
    let mut a = Assembler::default();
    for offset in [10, 30, 20] {
        insert(&mut a, offset, "xx");
    }
    assert_eq!(a.ranges().collect::<Vec<_>>(), [20..22, 30..32, 10..12]);
    insert(&mut a, 12, "yy");
    assert_eq!(
        a.ranges().collect::<Vec<_>>(),
        [10..14, 20..22, 30..32],
        "growing a range makes it the latest"
    );
    insert(&mut a, 30, "xx");
    assert_eq!(a.ranges().next(), Some(30..32), "so does a duplicate (RFC 2883 §4.1.2)");
    insert(&mut a, 14, "zzzzzz");
    assert_eq!(a.ranges().collect::<Vec<_>>(), [10..22, 30..32], "a bridge joins two");
}

/// RFC 2883 §4: the first contiguous part that had been received before.
#[test]
fn duplicates_are_reported_for_dsack() {
    let mut a = Assembler::default();
    insert(&mut a, 20, "xxxxx");
    let window = 10..100;
    let rows = [
        ("wholly below the next byte", 2, "12345", Some(2..7)),
        ("partly below the next byte", 8, "1234", Some(8..10)),
        ("inside a held range", 21, "12", Some(21..23)),
        ("over the end of a held range", 23, "12345", Some(23..25)),
        ("nothing held there", 40, "12", None),
    ];
    for (row, offset, data, duplicate) in rows {
        assert_eq!(a.insert(&window, offset, &text(data), 8).duplicate, duplicate, "{row}");
    }
}

#[test]
fn data_outside_the_window_is_cut_off() {
    let mut a = Assembler::default();
    assert_eq!(a.insert(&(4..6), 0, &text("abcdefgh"), 8).new, 2);
    assert_eq!(drain(&mut a, 4), "ef");
    assert_eq!(a.insert(&(6..6), 6, &text("g"), 8).new, 0, "zero window");
    assert_eq!(a.insert(&(0..10), u64::MAX - 1, &text("abc"), 8).new, 0, "no overflow");
}

#[test]
fn at_the_limit_a_new_range_is_refused_but_an_old_one_still_grows() {
    let mut a = Assembler::default();
    for offset in [10, 20] {
        a.insert(&OPEN, offset, &text("xx"), 2);
    }
    assert_eq!(a.insert(&OPEN, 30, &text("xx"), 2), Inserted { limit_hit: true, ..Inserted::default() });
    assert_eq!(a.insert(&OPEN, 12, &text("xx"), 2).new, 2);
    assert_eq!(a.insert(&OPEN, 14, &text("xxxxxx"), 2).new, 6);
    assert_eq!((a.len(), a.bytes()), (1, 12));
    a.insert(&OPEN, 30, &text("xx"), 2);
    assert_eq!(a.insert(&OPEN, 0, &text("xx"), 2).new, 2, "what is next in order always enters");
    assert_eq!(drain(&mut a, 0), "xx");
}

#[test]
fn tiny_segments_are_copied_together() {
    let mut forth = Assembler::default();
    let mut back = Assembler::default();
    for i in 0..10_000 {
        forth.insert(&OPEN, 1 + i, &text("x"), 8);
        back.insert(&OPEN, 10_000 - i, &text("x"), 8);
    }
    for a in [&mut forth, &mut back] {
        let pieces = a.ranges[&1].pieces.len();
        assert!(pieces <= 10, "{pieces} pieces");
        a.insert(&OPEN, 0, &text("x"), 8);
        assert_eq!(drain(a, 0).len(), 10_001);
    }
}

#[test]
fn a_reader_that_starts_inside_a_piece_gets_the_rest_of_it() {
    let mut a = Assembler::default();
    insert(&mut a, 0, "abcdef");
    assert_eq!(drain(&mut a, 4), "ef");
    insert(&mut a, 3, "xyz");
    assert_eq!((drain(&mut a, 9).as_str(), a.bytes(), a.len()), ("", 0, 0));
}

proptest! {
    /// Against one byte per offset. Every segment carries its own letter, so that a replaced byte would show.
    #[test]
    fn behaves_like_a_map_of_bytes(
        segments in prop::collection::vec((0u64..60, 1usize..14, any::<bool>()), 1..60),
        limit in 1usize..6,
    ) {
        let mut a = Assembler::default();
        let mut model: Vec<Option<u8>> = vec![None; 80];
        let (mut next, mut stream) = (0u64, Vec::new());
        for (n, &(offset, len, pop)) in segments.iter().enumerate() {
            let letter = n as u8;
            let edge = (next + 40).min(80);
            let got = a.insert(&(next..edge), offset, &Bytes::from(vec![letter; len]).into(), limit);
            let here = offset.max(next)..(offset + len as u64).min(edge);
            if got.limit_hit {
                prop_assert_eq!(got.new, 0);
                prop_assert!(a.len() >= limit);
            } else {
                let mut new = 0;
                for at in here {
                    new += u32::from(model[at as usize].is_none());
                    model[at as usize].get_or_insert(letter);
                }
                prop_assert_eq!(got.new, new);
            }
            if pop {
                while let Some(piece) = a.pop_ready(next) {
                    prop_assert!(!piece.is_empty());
                    stream.extend_from_slice(&piece);
                    next += piece.len() as u64;
                }
                let ready: Vec<u8> = model.iter().map_while(|b| *b).collect();
                prop_assert_eq!(&stream, &ready);
            }
            check(&a, &model, next)?;
        }
    }
}

/// The ranges are exactly the runs of the model, and all counters agree.
fn check(a: &Assembler, model: &[Option<u8>], next: u64) -> Result<(), TestCaseError> {
    let held: Vec<u64> = (next..model.len() as u64).filter(|&at| model[at as usize].is_some()).collect();
    let mut ranges: Vec<Range<u64>> = a.ranges().collect();
    ranges.sort_by_key(|r| r.start);
    prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "ranges touch: {:?}", ranges);
    prop_assert_eq!(a.bytes() as usize, held.len());
    prop_assert_eq!(a.len(), ranges.len());
    prop_assert_eq!(ranges.into_iter().flatten().collect::<Vec<_>>(), held);
    for (first, range) in &a.ranges {
        prop_assert_eq!(range.pieces.iter().map(Bytes::len).sum::<usize>() as u64, range.end - first);
    }
    Ok(())
}
