//! `window-update-lost`: the ACK that opens a closed window is lost.

use std::sync::Arc;

use super::{DIRECTION, refusal};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::tcp::Knobs;
use crate::tcp::knobs::WindowKnob;
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, RawWindow, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "window-update-lost",
    summary: "loses the ACKs that would open a closed window, until the writer's next probe",
    topic: Topic::Window,
    engines: &[Engine::Tun, Engine::Exec],
    example: "window-update-lost direction=upstream lose=1",
    attributes: &[
        DIRECTION,
        AttributeDoc {
            name: "lose",
            unit: Unit::Count { from: 1, to: 1000 },
            default: "1",
            zero: "",
            doc: "1 loses the update, and whatever else would open the window, until the writer probes; the answer to this probe \
                  is true. Each more loses also the answer to a probe.",
        },
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 3600 },
            default: "0",
            zero: "the window closes only when the reader at the far end falls behind",
            doc: "Closes the window first, for this long, once.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "E3",
        incident: "smoltcp-rs/smoltcp#199: an update that is never sent stalls a connection for ever; arcboxlabs/arcbox#477",
    },
    also: &[],
    scene: Scene { rule: "window-update-lost hold=300ms after_bytes=16KiB", play: Play::Upload },
    sees: "a write that waits longer than the reader does: until the writer's persist timer, 0.2 s after its last data and then \
           doubling up to 120 s, asks again. No error. A host without that timer waits for ever.",
    build: |reader, _| {
        Ok(Arc::new(WindowUpdateLost {
            direction: reader.direction("direction")?,
            lose: reader.count("lose")?.unwrap_or(1),
            hold: reader.duration("hold")?.unwrap_or_default(),
        }))
    },
};

#[derive(Debug)]
struct WindowUpdateLost {
    direction: Direction,
    lose: u64,
    hold: Duration,
}

/// What the writer believes.
#[derive(Debug, Default)]
struct Closed {
    /// That its window is closed.
    now: bool,
    /// How often it has probed since it was last told so.
    probes: u64,
}

impl Fault for WindowUpdateLost {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        refusal(engine, self.direction)
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at.leg == self.direction.enters() && seg.has(Flags::ACK) && !seg.flags.any(Flags::SYN | Flags::RST)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let closed: &mut Closed = moment.memory.of();
        if moment.at.way == Way::In {
            // Linux probes with the number before the one that is due, others with a new byte (RFC 9293 §3.8.6.1).
            let old = |due| seg.seq.before(due) && seg.seq_len() <= 1;
            let numbers = moment.progress.numbers(moment.at.leg);
            closed.probes += u64::from(numbers.is_none_or(|n| old(n.rcv_nxt) || seg.payload.len() == 1));
            return Verdict::Pass;
        }
        if seg.window.0 == 0 {
            *closed = Closed { now: true, probes: 0 };
            return Verdict::Pass;
        }
        if !closed.now || closed.probes >= self.lose {
            closed.now = false;
            return Verdict::Pass;
        }
        if seg.seq_len() == 0 {
            return Verdict::Drop;
        }
        // What the other direction says is not lost, only its news of the window.
        seg.window = RawWindow(0);
        Verdict::Rewrite
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        let (step, pause) = (u32::MAX, self.hold);
        knobs.window = WindowKnob::Edge { first: 0, step, pause, refuse: false };
        leg == self.direction.enters() && !self.hold.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::wire::{Numbers, Payload, SeqNum};

    fn window(bytes: u16) -> Segment {
        Segment { window: RawWindow(bytes), ..seg(Flags::ACK) }
    }

    /// What becomes of segments: `z` is a window of zero, `w` an open one, `d` data with an open one, all to the writer; `p` is
    /// a probe of the writer and `a` an ACK of the writer.
    fn letters(rule: &str, segments: &str) -> String {
        let mut flow = Flow::of(rule);
        flow.established();
        let due = SeqNum(1001);
        flow.progress.client = Some(Numbers { snd_una: SeqNum(1), snd_nxt: SeqNum(1), rcv_nxt: due });
        let data = Segment { payload: Payload::from(bytes::Bytes::from_static(b"xy")), ..window(9) };
        let from = |seq| Segment { seq, ..seg(Flags::ACK) };
        let judge = |letter| match letter {
            'z' => (Way::Out, window(0)),
            'w' => (Way::Out, window(9)),
            'd' => (Way::Out, data.clone()),
            'p' => (Way::In, from(due - 1)),
            _ => (Way::In, from(due)),
        };
        segments.chars().map(judge).map(|(way, seg)| flow.letter(Leg::Client, way, &seg)).collect()
    }

    #[test]
    fn what_would_open_a_closed_window_is_lost_until_enough_probes_came() {
        for (sentence, rule, segments, expected) in [
            ("an open window stays so", "window-update-lost", "wawdw", "PPPPP"),
            ("the update is lost, the answer to the probe is not", "window-update-lost", "zwwpww", "PDDPPP"),
            ("every window that closes", "window-update-lost", "zwpwzwpw", "PDPPPDPP"),
            ("probes while it is closed in truth do not count", "window-update-lost", "zpzpzwpw", "PPPPPDPP"),
            ("an ACK is no probe", "window-update-lost", "zawpw", "PPDPP"),
            ("the answer to the first probe as well", "window-update-lost lose=2", "zwpwpw", "PDPDPP"),
            ("data go on without the news", "window-update-lost", "zdpd", "PRPP"),
        ] {
            assert_eq!(letters(rule, segments), expected, "{sentence}");
        }
    }

    #[test]
    fn it_closes_the_window_itself_if_it_is_told_to() {
        let knob = |rule, leg| {
            let mut flow = Flow::of(rule);
            flow.established();
            flow.knobs(leg).window
        };
        let pause = Duration::from_secs(1);
        let closed = WindowKnob::Edge { first: 0, step: u32::MAX, pause, refuse: false };
        assert_eq!(knob("window-update-lost hold=1s", Leg::Client), closed);
        assert_eq!(knob("window-update-lost hold=1s", Leg::Server), WindowKnob::Natural);
        assert_eq!(knob("window-update-lost", Leg::Client), WindowKnob::Natural);
        assert!(refused("window-update-lost direction=downstream", Engine::Exec).is_some());
    }
}
