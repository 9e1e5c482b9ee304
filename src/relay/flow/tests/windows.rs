//! Faults of windows, ACKs and keepalive.

use super::*;

#[rustfmt::skip]
const FAULTS: &[Row] = &[
    ("a stalled window stays zero until the hold is over, and probes are answered", Transparent, &["zero-window-stall after_bytes=10 hold=5s"], "
        open
        c> P. 1:10 ack 1
        c< . 1 ack 10
        s< P. 1:10 ack 1
        c> P. 10:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 10:21 ack 1
        s> . 1 ack 21
        +200ms
        c> . 20 ack 1
        c< . 1 ack 21 win 0
        +4799ms
        +1ms
        c< . 1 ack 21
    ", None),
    ("what was already allowed is still taken", Transparent, &["zero-window-stall after_bytes=10 hold=5s"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        c> P. 21:31 ack 1
        c< . 1 ack 31 win 0
        s< P. 21:31 ack 1
    ", None),
    ("a dead reader answers no probe", Transparent, &["zero-window-stall after_bytes=10 answer_probes=false"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        s> . 1 ack 21
        +200ms
        c> . 20 ack 1
        +400ms
        c> . 20 ack 1
    ", None),
    ("the other direction of a stalled flow goes on", Transparent, &["zero-window-stall after_bytes=10"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        s> P. 1:11 ack 21
        c< P. 1:11 ack 21 win 0
        s< . 21 ack 11
    ", None),
    ("an acknowledgement comes late, and not along with data either", Transparent, &["ack-delay delay=40ms"], "
        open
        c> P. 1:11 ack 1
        s< P. 1:11 ack 1
        s> . 1 ack 11
        +20ms
        s> P. 1:6 ack 11
        c< P. 1:6 ack 1
        s< . 11 ack 6
        +19ms
        +1ms
        c< . 6 ack 11
    ", None),
    ("a second full segment ends the wait", Transparent, &["ack-delay delay=40ms"], "
        open
        c> . 1:1461 ack 1
        s< P. 1:1461 ack 1
        c> . 1461:2921 ack 1
        c< . 1 ack 2921
        s< P. 1461:2921 ack 1
    ", None),
    ("a window that is taken back refuses everything, and an update gives it back", Transparent, &["window-shrink after_bytes=10 to=100 hold=5s"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21
        s< P. 1:21 ack 1
        s> . 1 ack 21
        c> P. 21:121 ack 1
        +4999ms
        c> P. 21:121 ack 1
        +1ms
        c< . 1 ack 21
        c> P. 21:121 ack 1
        c< . 1 ack 121
        s< P. 21:121 ack 1
    ", None),
    ("a window that is taken back takes what fits, if told so", Transparent, &["window-shrink after_bytes=10 to=100 take=true"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21
        s< P. 1:21 ack 1
        s> . 1 ack 21
        c> P. 21:221 ack 1
        c< . 1 ack 121 win 0
        s< P. 21:121 ack 1
    ", None),
    ("what is sent meanwhile does not make a knob forget its end", Transparent, &["window-shrink after_bytes=10 to=100 take=true hold=100ms"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21
        s< P. 1:21 ack 1
        +99ms
        +1ms
        c< . 1 ack 21
        s> . 1 ack 21
    ", None),
    ("an update that is lost leaves the window closed until a probe asks", Transparent, &["window-update-lost after_bytes=10 hold=1s"], "
        open
        c> P. 1:21 ack 1
        c< . 1 ack 21 win 0
        s< P. 1:21 ack 1
        s> . 1 ack 21
        +1s
        +1s
        c> . 20 ack 1
        s< . 20 ack 1
        s> . 1 ack 21
        c< . 1 ack 21
    ", None),
    ("a window in crumbs opens by the clock", Transparent, &["silly-window step=10 pause=50ms"], "
        c> S 0
        s< S 0
        s> S. 0 ack 1
        c< S. 0 ack 1
        c> . 1 ack 1
        c< . 1 ack 1
        s< . 1 ack 1
        c> P. 1:11 ack 1
        c< . 1 ack 11 win 0
        s< P. 1:11 ack 1
        s> . 1 ack 11
        +49ms
        +1ms
        c< . 1 ack 11
        +50ms
        c< . 1 ack 11
    ", None),
    ("a keepalive is swallowed", Transparent, &["keepalive-swallow"], "
        open
        c> . 0 ack 1
        +1s
        s> . 0 ack 1
        c< . 0 ack 1
    ", None),
    ("a keepalive is answered for a server that does not hear of it", Transparent, &["keepalive-swallow fake=true"], "
        open
        c> . 0 ack 1
        c< . 1 ack 1
    ", None),
    ("a burst of old ACKs", Transparent, &["ack-storm n=3 per_second=10"], "
        open
        c> P. 1:11 ack 1
        c< . 1 ack 11
        s< P. 1:11 ack 1
        s> P. 1:6 ack 11
        c< P. 1:6 ack 11
        s< . 11 ack 6
        c> . 11 ack 6
        c< . 4 ack 11
        +99ms
        +1ms
        c< . 4 ack 11
        +100ms
        c< . 4 ack 11
        +10s
    ", None),
    ("one ACK for many segments", Transparent, &["ack-stretch n=3 time=1s"], "
        open
        c> . 1:1461 ack 1
        s< P. 1:1461 ack 1
        c> . 1461:2921 ack 1
        s< P. 1461:2921 ack 1
        c> . 2921:4381 ack 1
        c< . 1 ack 4381
        s< P. 2921:4381 ack 1
    ", None),
    ("ACKs are held and leave back to back", Transparent, &["ack-stretch mode=compress time=20ms"], "
        open
        c> . 1:1461 ack 1
        s< P. 1:1461 ack 1
        +10ms
        c> . 1461:2921 ack 1
        s< P. 1461:2921 ack 1
        s> . 1 ack 2921
        +9ms
        +1ms
        c< . 1 ack 1461
        c< . 1 ack 2921
    ", None),
    ("a time bound that runs beyond the end of the flow does nothing", Transparent, &["ack-delay after=30s", "rst-inject after=5s"], "
        open
        c> F. 1 ack 1
        c< . 1 ack 2
        s< F. 1 ack 1
        s> F. 1 ack 2
        c< F. 1 ack 2
        s< . 2 ack 2
        c> . 2 ack 2
        +61s
    ", Some(Fine)),
];

#[test]
fn faults() {
    check(FAULTS);
}

#[test]
fn a_knob_is_turned_before_the_first_bytes_even_if_they_come_in_one_batch_with_the_handshake() {
    let mut script = Script::new(Transparent, &["ack-delay delay=200ms every_other=false"]);
    script.lines("c> S 0\n s< S 0\n s> S. 0 ack 1\n c< S. 0 ack 1");
    for text in [". 1 ack 1", "P. 1:11 ack 1"] {
        let segment = segment(text, CLIENT_ISN, script.ours[0]);
        script.flow.on_segment(&mut Cx::new(script.now, &mut script.log), Leg::Client, segment);
    }
    script.drain();
    script.run("s< P. 1:11 ack 1\n s> . 1 ack 11\n +199ms\n +1ms\n c< . 1 ack 11");
}

/// Where a window must be exact to the byte, our SYN there offers no scale factor, and the other leg is as ever.
#[test]
fn a_fault_of_windows_offers_a_scale_factor_of_zero_on_its_leg() {
    for (rule, client, server) in [
        ("tiny-window window=512", (Some(0), 512), (Some(7), 64_240)),
        ("tiny-window window=512 direction=downstream", (Some(7), 64_240), (Some(0), 512)),
        ("tiny-window window=100kB", (Some(7), 64_240), (Some(7), 64_240)),
        ("window-shrink", (Some(0), 64_240), (Some(7), 64_240)),
        ("ack-delay", (Some(7), 64_240), (Some(7), 64_240)),
    ] {
        let mut s = Script::new(Transparent, &[rule]);
        let offer = |seg: &Segment| (seg.options.window_scale.map(WindowScale::shift), seg.window.0);
        s.lines("c> S 0\n s< S 0");
        assert_eq!(offer(&s.last[1]), server, "{rule}");
        s.lines("s> S. 0 ack 1\n c< S. 0 ack 1");
        assert_eq!(offer(&s.last[0]), client, "{rule}");
        s.lines("c> . 1 ack 1\n s< . 1 ack 1\n c> P. 1:11 ack 1");
        let expected = if rule.contains("512") { 512 } else { u16::MAX };
        assert!(s.last.iter().any(|seg| seg.window.0 <= expected), "{rule}");
    }
}
