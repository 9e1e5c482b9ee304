//! `half-open-flood`: connections that are begun and never completed.

use std::sync::Arc;

use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment, SeqNum};

/// Hard limit per flow.
const MOST: u64 = 64;
/// Source ports from here on: above those that Linux takes for its own connections (32768 to 60999).
const PORTS: u16 = 61_000;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "half-open-flood",
    summary: "begins further connections to the server in the client's name, and never completes them",
    topic: Topic::Handshake,
    engines: &[Engine::Tun],
    example: "half-open-flood n=16",
    attributes: &[AttributeDoc {
        name: "n",
        unit: Unit::Count { from: 1, to: MOST },
        default: "16",
        zero: "",
        doc: "How many, for each flow, from ports 61000 and above of the client's address, once the server has answered the \
              client. Its answers to them are swallowed, and RSTs end them when the flow ends.",
    }],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H27",
        incident: "SYN floods and slow-loris handshakes; Linux keeps such a connection in SYN-RECEIVED for 63 s",
    },
    also: &[],
    scene: Scene { rule: "half-open-flood n=4", play: Play::Talk },
    sees: "the client nothing; the server has connections in SYN-RECEIVED, and with a small backlog (or \
           tcp_max_syn_backlog) drops the SYNs of others or answers by SYN cookies.",
    build: |reader, _| Ok(Arc::new(HalfOpenFlood { n: reader.count("n")?.unwrap_or(1) as u16 })),
};

#[derive(Debug)]
struct HalfOpenFlood {
    n: u16,
}

impl Fault for HalfOpenFlood {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    /// The server's first answer: nobody is asked who does not listen.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at == Point { leg: Leg::Server, way: Way::In }
            && seg.has(Flags::SYN | Flags::ACK)
            && progress.server.is_some_and(|ours| seg.ack == ours.snd_nxt)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if std::mem::replace(moment.memory.of::<bool>(), true) {
            return Verdict::Pass;
        }
        let first = PORTS + moment.dice.below(u64::from(u16::MAX - PORTS - self.n) + 1) as u16;
        let syns = (0..self.n).map(|i| {
            // What the server offers it also takes.
            let mut syn = Segment {
                seq: SeqNum(moment.dice.next_u32()),
                flags: Flags::SYN,
                window: seg.window,
                options: seg.options.clone(),
                ..Segment::default()
            };
            syn.options.timestamps = None;
            (first + i, syn)
        });
        let syns = syns.collect();
        moment.begin(syns);
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, error, refused};
    use crate::wire::Numbers;

    const AT: Point = Point { leg: Leg::Server, way: Way::In };

    fn syn_ack(ack: u32) -> Segment {
        Segment { ack: SeqNum(ack), flags: Flags::SYN | Flags::ACK, ..Segment::default() }
    }

    #[test]
    fn connections_begin_once_the_server_has_answered_and_only_once() {
        for (rule, n) in [("half-open-flood", 16), ("half-open-flood n=1", 1), ("half-open-flood n=64", 64)] {
            let mut flow = Flow::of(rule);
            let snd_nxt = SeqNum(8);
            flow.progress.server = Some(Numbers { snd_una: SeqNum(7), snd_nxt, rcv_nxt: SeqNum(0) });
            assert_eq!(flow.judge(AT, &mut syn_ack(9)), Verdict::Pass);
            assert_eq!(flow.deeds(), [], "that one answers another SYN");
            assert_eq!(flow.judge(AT, &mut syn_ack(8)), Verdict::Pass);
            let [Deed::Begin { syns }] = &flow.deeds()[..] else { panic!("nothing begins") };
            assert_eq!(syns.len(), n);
            assert!(syns.iter().all(|(port, syn)| *port >= PORTS && syn.flags == Flags::SYN));
            let mut ports: Vec<u16> = syns.iter().map(|(port, _)| *port).collect();
            ports.dedup();
            assert_eq!(ports.len(), n, "each from its own port");
            flow.judge(AT, &mut syn_ack(8));
            assert_eq!(flow.deeds(), [], "{rule}: a SYN-ACK that comes again");
        }
    }

    #[test]
    fn there_is_a_hard_limit_and_exec_has_no_such_leg() {
        assert!(error("half-open-flood n=65").contains("too large"));
        assert!(refused("half-open-flood", Engine::Exec).is_some());
    }
}
