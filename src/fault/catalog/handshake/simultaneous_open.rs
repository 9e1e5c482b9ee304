//! `simultaneous-open`: both ends send their SYN at once.

use std::sync::Arc;

use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Options, Segment, SeqNum, Timestamps};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "simultaneous-open",
    summary: "answers the client's SYN by a SYN, and then by the SYN-ACK, as if both ends had dialled",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "simultaneous-open gap=5ms",
    attributes: &[AttributeDoc {
        name: "gap",
        unit: Unit::Duration { max_secs: 60 },
        default: "5ms",
        zero: "the SYN-ACK follows at once",
        doc: "Time between the SYN and the SYN-ACK.",
    }],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H23",
        incident: "tokio-rs/tokio#3405, ktorio/ktor#2237: connections that met themselves (RFC 9293 §3.5, figure 7)",
    },
    also: &[],
    scene: Scene { rule: "simultaneous-open", play: Play::Talk },
    sees: "nothing: Linux is connected after the SYN-ACK. Whoever believes that a SYN is only ever answered by a SYN-ACK \
           (firewalls, TCP stacks of devices) does not connect.",
    build: |reader, _| Ok(Arc::new(SimultaneousOpen { gap: reader.duration("gap")?.unwrap_or_default() })),
};

#[derive(Debug)]
struct SimultaneousOpen {
    gap: Duration,
}

impl Fault for SimultaneousOpen {
    fn direction(&self) -> Direction {
        Direction::Downstream
    }

    /// Our SYN-ACK, and that of the client, which took our SYN for a dial.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at.leg == Leg::Client && seg.has(Flags::SYN | Flags::ACK) && progress.established.is_none()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if moment.at.way == Way::In {
            // Our end never sent a SYN alone: for it this is the ACK of its SYN-ACK.
            *seg = without_syn(seg);
            return Verdict::Rewrite;
        }
        if std::mem::replace(moment.memory.of::<bool>(), true) {
            return Verdict::Pass;
        }
        moment.send(Leg::Client, without_ack(seg), Duration::ZERO);
        if self.gap.is_zero() { Verdict::Pass } else { Verdict::Hold(self.gap) }
    }
}

/// The SYN that a host with this SYN-ACK would have sent.
fn without_ack(syn_ack: &Segment) -> Segment {
    // A SYN asks for ECN by both bits (RFC 3168 §6.1.1).
    let ecn = if syn_ack.has(Flags::ECE) { Flags::ECE | Flags::CWR } else { Flags::default() };
    let mut syn = Segment { flags: Flags::SYN | ecn, ack: SeqNum::default(), ..syn_ack.clone() };
    syn.options.timestamps = syn.options.timestamps.map(|stamps| Timestamps { ecr: 0, ..stamps });
    syn
}

/// The ACK that is left of a SYN-ACK whose SYN is known. Unlike that one's its window is scaled (RFC 7323 §2.2).
fn without_syn(syn_ack: &Segment) -> Segment {
    let scale = syn_ack.options.window_scale.unwrap_or_default();
    Segment {
        seq: syn_ack.seq + 1,
        flags: syn_ack.flags.without(Flags::SYN | Flags::ECE | Flags::CWR),
        window: scale.raw(u32::from(syn_ack.window.0)),
        options: Options { timestamps: syn_ack.options.timestamps, ..Options::default() },
        ..syn_ack.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, seg};
    use crate::wire::{RawWindow, WindowScale};

    const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);

    fn syn_ack(seq: u32, ack: u32) -> Segment {
        let timestamps = Some(Timestamps { val: 5, ecr: 6 });
        let options = Options {
            mss: Some(1460),
            window_scale: Some(WindowScale::new(7)),
            timestamps,
            ..Options::default()
        };
        let (seq, ack) = (SeqNum(seq), SeqNum(ack));
        Segment { seq, ack, flags: SYN_ACK, window: RawWindow(64_240), options, ..Segment::default() }
    }

    #[test]
    fn a_syn_goes_before_the_first_syn_ack_only() {
        let mut flow = Flow::of("simultaneous-open gap=30ms");
        let at = Point { leg: Leg::Client, way: Way::Out };
        let mut first = syn_ack(100, 8);
        assert_eq!(flow.judge(at, &mut first), Verdict::Hold(Duration::from_millis(30)));
        let [Deed::Send { leg: Leg::Client, segment, after: Duration::ZERO }] = &flow.deeds()[..] else {
            panic!("no SYN")
        };
        assert_eq!((segment.flags, segment.seq, segment.ack), (Flags::SYN, SeqNum(100), SeqNum(0)));
        assert_eq!(segment.options.timestamps, Some(Timestamps { val: 5, ecr: 0 }));
        assert_eq!((segment.options.mss, segment.window), (Some(1460), RawWindow(64_240)));
        assert_eq!(flow.judge(at, &mut syn_ack(100, 8)), Verdict::Pass, "one that comes again");
        assert_eq!(flow.deeds(), []);
        assert_eq!(Flow::of("simultaneous-open gap=0").judge(at, &mut syn_ack(100, 8)), Verdict::Pass);
    }

    #[test]
    fn the_clients_syn_ack_is_taken_for_an_ack() {
        let mut flow = Flow::of("simultaneous-open");
        let mut crossing = syn_ack(7, 101);
        assert_eq!(flow.judge(Point { leg: Leg::Client, way: Way::In }, &mut crossing), Verdict::Rewrite);
        assert_eq!((crossing.seq, crossing.ack, crossing.flags), (SeqNum(8), SeqNum(101), Flags::ACK));
        assert_eq!(crossing.window, RawWindow(501), "64240 bytes, rounded down by the scale or up");
        assert_eq!((crossing.options.mss, crossing.options.window_scale), (None, None));
    }

    #[test]
    fn everything_else_is_left_alone() {
        let mut flow = Flow::of("simultaneous-open");
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)), 'P');
        assert_eq!(flow.letter(Leg::Server, Way::In, &seg(SYN_ACK)), 'P');
        flow.established();
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(SYN_ACK)), 'P');
    }
}
