//! `wscale-strip`: a middlebox that does not know window scaling.

use std::sync::Arc;

use super::option_strip::{Kinds, Mode};
use super::pick;
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment, SeqNum};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "wscale-strip",
    summary: "takes the window scale out of the SYN-ACK alone: the server scales its windows, the client does not know",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "wscale-strip drop_beyond=false",
    attributes: &[
        AttributeDoc {
            name: "drop_beyond",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "True: the option stays, and the middlebox instead drops data that begin beyond the window as the field \
                  says it without the scale.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Whose data suffer; downstream only with `drop_beyond`, for the SYN-ACK is what tells the client.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H9",
        incident: "Squid's BrokenWindowSize: uploads crawl behind a firewall; measured on Linux 6.18: 64,256 bytes announced as 502 \
                   are obeyed as 502",
    },
    also: &[Alias { id: "H10", name: "window-tracking-drop", rule: "wscale-strip drop_beyond=true" }],
    scene: Scene { rule: "wscale-strip", play: Play::Upload },
    sees: "the connection works and small requests too, but uploads crawl: a few hundred bytes per round trip instead of \
           64 KiB.",
    build: |reader, _| {
        let direction = reader.direction("direction")?;
        let drop_beyond = reader.flag("drop_beyond")?.unwrap_or(false);
        if direction == Direction::Downstream && !drop_beyond {
            return Err(reader
                .wrong("direction", "the SYN-ACK decides about uploads; downstream needs `drop_beyond`"));
        }
        Ok(Arc::new(WscaleStrip { direction, drop_beyond }))
    },
};

#[derive(Debug)]
struct WscaleStrip {
    direction: Direction,
    drop_beyond: bool,
}

/// The end of the window that the middlebox has seen: nothing may begin there or beyond.
#[derive(Clone, Copy, Debug, Default)]
struct Edge(Option<SeqNum>);

impl WscaleStrip {
    /// Where data pass, and where their ACKs pass, both on the client's side of our TCP.
    const fn data_way(&self) -> Way {
        match self.direction {
            Direction::Upstream => Way::In,
            Direction::Downstream => Way::Out,
        }
    }
}

impl Fault for WscaleStrip {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        match self.drop_beyond {
            false => pick::is_syn_ack(at, seg),
            // The window of a SYN is not scaled; the data that may follow it are none of ours.
            true => at.leg == pick::FROM_CLIENT.leg && seg.has(Flags::ACK) && !seg.has(Flags::RST),
        }
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if !self.drop_beyond {
            return match Kinds::WINDOW_SCALE.strip(Mode::Remove, Way::Out, &mut seg.options) {
                true => Verdict::Rewrite,
                false => Verdict::Pass,
            };
        }
        let edge = moment.memory.of::<Edge>();
        if moment.at.way != self.data_way() {
            let seen = seg.ack + u32::from(seg.window.0);
            edge.0 = Some(edge.0.filter(|edge| edge.after(seen)).unwrap_or(seen));
            return Verdict::Pass;
        }
        let beyond = !seg.payload.is_empty() && edge.0.is_some_and(|edge| seg.seq.at_or_after(edge));
        if beyond { Verdict::Drop } else { Verdict::Pass }
    }

    fn per_segment(&self) -> bool {
        self.drop_beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, seg};
    use crate::trace::Leg;
    use crate::wire::{Options, RawWindow, WindowScale};

    #[test]
    fn the_syn_ack_alone_loses_its_scale() {
        let scaled =
            Options { mss: Some(1460), window_scale: Some(WindowScale::new(7)), ..Options::default() };
        for (at, flags, verdict) in [
            (pick::FROM_CLIENT, Flags::SYN, Verdict::Pass),
            (Point { leg: Leg::Server, way: Way::In }, Flags::SYN | Flags::ACK, Verdict::Pass),
            (pick::TO_CLIENT, Flags::SYN | Flags::ACK, Verdict::Rewrite),
        ] {
            let mut segment = seg(flags);
            segment.options = scaled.clone();
            assert_eq!(Flow::of("wscale-strip").judge(at, &mut segment), verdict);
            let left = segment.options.window_scale.is_some();
            assert_eq!((left, segment.options.mss), (verdict == Verdict::Pass, Some(1460)));
        }
    }

    /// The windows say 0, 500 and 1000 beyond ACK 100, 100 and 600; each letter is for data at 50, 100, 599, 600 and 1600.
    #[test]
    fn data_that_begin_beyond_the_unscaled_window_are_dropped() {
        for (rule, way, acks) in [
            ("wscale-strip drop_beyond=true", Way::In, Way::Out),
            ("wscale-strip drop_beyond=true direction=downstream", Way::Out, Way::In),
        ] {
            let mut flow = Flow::of(rule);
            let mut seen = Vec::new();
            for (ack, window) in [(100, 0), (100, 500), (600, 1000), (100, 500)] {
                let ack = Segment { ack: SeqNum(ack), window: RawWindow(window), ..seg(Flags::ACK) };
                assert_eq!(flow.letter(Leg::Client, acks, &ack), 'P');
                let letters = [50, 100, 599, 600, 1600].map(|seq| {
                    let data = Segment { seq: SeqNum(seq), payload: b"x"[..].into(), ..seg(Flags::ACK) };
                    flow.letter(Leg::Client, way, &data)
                });
                seen.push(String::from_iter(letters));
            }
            assert_eq!(seen, ["PDDDD", "PPPDD", "PPPPD", "PPPPD"], "{rule}");
        }
    }

    #[test]
    fn a_pure_ack_beyond_the_window_passes_and_downstream_needs_drop_beyond() {
        let mut flow = Flow::of("wscale-strip drop_beyond=true");
        flow.letter(Leg::Client, Way::Out, &seg(Flags::ACK));
        let far = Segment { seq: SeqNum(9999), ..seg(Flags::ACK) };
        assert_eq!(flow.letter(Leg::Client, Way::In, &far), 'P');
        assert!(error("wscale-strip direction=downstream").contains("needs `drop_beyond`"));
    }
}
