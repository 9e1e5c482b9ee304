//! Faults that meet single segments: cut, shifted, overtaken, copied.

use super::*;

/// A super-segment of five, and what leaves for the server: numbers and bytes of single segments.
fn bulk(rules: &[&str]) -> (usize, Vec<(u32, u16)>) {
    let mut s = Script::new(Transparent, rules);
    s.lines("open");
    let whole = Segment {
        gso_size: 1000,
        window: RawWindow(s.window),
        ..segment("P. 1:5001 ack 1", CLIENT_ISN, s.ours[0])
    };
    s.flow.on_segment(&mut Cx::new(s.now, &mut s.log), Leg::Client, whole);
    let mut left = Vec::new();
    let caps = Caps { tx: TxCaps { max_payload: 65_000 }, buffer: 1 << 20 };
    while let Some(output) = s.flow.poll_output(&mut Cx::new(s.now, &mut s.log), caps) {
        if let Output::Segment { segment, .. } = output
            && !segment.payload.is_empty()
        {
            left.push((segment.payload.len(), segment.gso_size));
        }
    }
    let met = |record: &&Record| {
        let Event::SegmentIn { segment } = &record.event else { return false };
        segment.len > 0
    };
    (s.log.iter().filter(met).count(), left)
}

/// Only faults that ask for it pay for single segments.
#[test]
fn super_segments_stay_whole_unless_a_fault_must_meet_each_segment() {
    let whole = (1, vec![(5000, 1460)]);
    for rules in [
        &[][..],
        &["rst-inject after=1h"],
        &["fin-drop"],
        &["blackhole after=1h"],
        &["sequence-shift"],
        &["timestamp-mangle after=1h"],
        &["rst-blind after=1h"],
        &["late-segment-rst after=1h"],
    ] {
        assert_eq!(bulk(rules), whole, "{rules:?}");
    }
    let single = (5, vec![(1460, 0), (1460, 0), (1460, 0), (620, 0)]);
    for rule in ["loss p=0", "duplicate share=0", "reorder share=0", "corrupt share=0", "odd-flags share=0"] {
        assert_eq!(bulk(&[rule]), single, "{rule}");
    }
}

/// A middlebox on the client's leg: neither end may notice, and a refusal still quotes the client's own SYN.
#[test]
fn shifted_numbers_are_consistent_from_the_first_syn_to_the_last_reset() {
    for rule in [
        "sequence-shift sack=translated",
        "sequence-shift sack=translated direction=downstream",
        "sequence-shift mode=iss sack=translated",
    ] {
        let mut s = Script::new(Transparent, &[rule]);
        s.run(
            "c> S 0
            s< S 0
            c> S 0
            s< S 0
            s> S. 0 ack 1
            c< S. 0 ack 1
            c> . 1 ack 1
            s< . 1 ack 1
            c> P. 1:11 ack 1
            c< . 1 ack 11
            s< P. 1:11 ack 1
            s> P. 1:21 ack 11
            c< P. 1:21 ack 11
            s< . 11 ack 21
            c> R 11
            s< R. 11 ack 21",
        );
        assert_eq!(s.outcome(), Some(Reset), "{rule}");
        let mut s = Script::new(Transparent, &[rule]);
        s.run(
            "c> S 0
            s< S 0
            i> 3/1
            i< 3/1 from 10.9.9.9 seq 0",
        );
        let mut s = Script::new(Transparent, &[rule]);
        s.lines(
            "c> S 0
            s< S 0
            s> R. 0 ack 1",
        );
        // A host in SYN-SENT looks at the acknowledgement only (RFC 9293 §3.10.7.3).
        let refusal = s.output.pop_front();
        assert!(refusal.is_some_and(|r| r.starts_with("c< R. ") && r.ends_with(" ack 1")), "{rule}");
        let syn = |s: &Script, text| s.flow.is_superseded_by(&segment(text, CLIENT_ISN, None));
        let mut s = Script::new(Transparent, &[rule]);
        s.lines("c> S 0\n s< S 0");
        assert!(!syn(&s, "S 0") && syn(&s, "S 5"), "{rule}: the same SYN again is the same flow");
    }
}

/// What other faults hold or make is shifted as well, and so is what comes after the end.
#[test]
fn shifted_numbers_reach_what_other_faults_hold_and_the_late_segments() {
    for shift in ["sequence-shift sack=translated", "sequence-shift sack=translated direction=downstream"] {
        for rules in [[shift, "syn-ack-delay delay=200ms"], ["syn-ack-delay delay=200ms", shift]] {
            let mut s = Script::new(Transparent, &rules);
            s.run(
                "c> S 0
                s< S 0
                s> S. 0 ack 1
                +200ms
                c< S. 0 ack 1
                c> . 1 ack 1
                s< . 1 ack 1
                s> F. 1 ack 1
                c< F. 1 ack 1
                s< . 1 ack 2
                c> F. 1 ack 2
                c< . 2 ack 2
                s< F. 1 ack 2
                s> . 2 ack 2
                +1s
                c> F. 1 ack 2
                c< . 2 ack 2",
            );
            let syn = |text| s.flow.is_superseded_by(&segment(text, CLIENT_ISN, None));
            assert!(!syn("S 0") && syn("S 5"), "{rules:?}: another SYN opens another flow");
        }
    }
}

#[test]
fn overtaken_segments_wait_for_their_number_or_for_their_time() {
    let mut s = Script::new(Transparent, &["reorder nth=1 segments=2 direction=upstream delay=100ms"]);
    s.run(
        "open
        c> P. 1:11 ack 1
        c> P. 11:21 ack 1
        c< . 1 ack 1
        c> . 21 ack 1
        c< . 1 ack 21
        s< P. 1:21 ack 1",
    );
    let mut s = Script::new(Transparent, &["reorder nth=1 segments=2 direction=downstream delay=100ms"]);
    s.lines(
        "open
        s> P. 1:11 ack 1
        s< . 1 ack 11
        s> P. 11:21 ack 1
        c< P. 11:21 ack 1
        s< . 1 ack 21
        +99ms
        +1ms
        c< P. 1:11 ack 1",
    );
}

#[test]
fn copies_come_after_their_time() {
    let mut s = Script::new(Transparent, &["duplicate nth=2 copies=2 delay=50ms direction=downstream"]);
    s.lines(
        "open
        s> P. 1:11 ack 1
        c< P. 1:11 ack 1
        s< . 1 ack 11
        c> . 1 ack 11
        +49ms
        +1ms
        c< P. 1:11 ack 1
        c< P. 1:11 ack 1",
    );
}
