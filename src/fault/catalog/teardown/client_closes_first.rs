//! `client-closes-first`: the server's FIN waits until the client has closed, so that TIME-WAIT is the client's.

use std::sync::Arc;

use super::{rst_for_fin, where_it_leaves};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Shape, Source, Topic, Unit,
    Verdict,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "client-closes-first",
    summary: "holds the server's FIN back until the client has closed",
    topic: Topic::Teardown,
    engines: &Engine::ALL,
    example: "client-closes-first",
    attributes: &[AttributeDoc {
        name: "relieve",
        unit: Unit::Word(&["none", "rst"]),
        default: "none",
        zero: "",
        doc: "rst: the server's FIN, when it may go, becomes a RST, which spares the client its TIME-WAIT.",
    }],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T13",
        incident: "cilium/cilium#36427, varnish/hitch#213: EADDRNOTAVAIL after 28232 ports in 60 s, about 470 connections per second to one server",
    },
    also: &[],
    scene: Scene { rule: "client-closes-first", play: Play::EachCloses },
    sees: "no end-of-file before the client closes by itself (one that waits for it waits for ever); then TIME-WAIT for 60 s on the client's \
           port, and connect() gives EADDRNOTAVAIL when the ports run out.",
    build: |reader, _| Ok(Arc::new(ClientClosesFirst { relieve: reader.word("relieve")? == Some("rst") })),
};

#[derive(Debug)]
struct ClientClosesFirst {
    relieve: bool,
}

impl Fault for ClientClosesFirst {
    fn direction(&self) -> Direction {
        Direction::Downstream
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        self.relieve && at == where_it_leaves(Direction::Downstream) && seg.has(Flags::FIN)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        rst_for_fin(moment, seg)
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.fin_last = true;
        direction == Direction::Downstream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, seg};
    use crate::fault::{Action, Deed, Way};
    use crate::trace::Leg;

    #[test]
    fn only_the_servers_fin_waits_and_may_become_a_rst() {
        for (rule, letter) in [("client-closes-first", 'P'), ("client-closes-first relieve=rst", 'R')] {
            let mut flow = Flow::of(rule);
            flow.established();
            let last = [Direction::Upstream, Direction::Downstream].map(|d| flow.shape(d).fin_last);
            assert_eq!(last, [false, true], "{rule}");
            let fin = seg(Flags::FIN | Flags::ACK);
            assert_eq!(flow.letter(Leg::Server, Way::Out, &fin), 'P');
            assert_eq!(flow.letter(Leg::Client, Way::Out, &fin), letter, "{rule}");
            let acts = (letter == 'R').then_some(Deed::Act(Action::forget(Leg::Client)));
            assert_eq!(flow.deeds(), Vec::from_iter(acts));
        }
    }
}
