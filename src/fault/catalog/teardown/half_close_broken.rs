//! `half-close-broken`: a proxy on the path takes the end of one direction for the end of both.

use std::sync::Arc;

use super::where_fin_enters;
use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "half-close-broken",
    summary: "ends both directions when one of them ends",
    topic: Topic::Teardown,
    engines: &Engine::ALL,
    example: "half-close-broken direction=upstream style=fin",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Whose FIN ends both; upstream is the client's.",
        },
        AttributeDoc {
            name: "style",
            unit: Unit::Word(&["fin", "rst"]),
            default: "fin",
            zero: "",
            doc: "How both directions end.",
        },
    ],
    bounds: &["share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "T7",
        incident: "moby/moby#27539, envoyproxy/envoy#2067: after shutdown(WR) the reply never comes",
    },
    also: &[],
    scene: Scene { rule: "half-close-broken", play: Play::Talk },
    sees: "the side that shut down its direction reads end-of-file (or ECONNRESET) instead of the reply.",
    build: |reader, _| {
        Ok(Arc::new(HalfCloseBroken {
            direction: reader.direction("direction")?,
            reset: reader.word("style")? == Some("rst"),
        }))
    },
};

#[derive(Debug)]
struct HalfCloseBroken {
    direction: Direction,
    reset: bool,
}

impl Fault for HalfCloseBroken {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at == where_fin_enters(self.direction, progress) && seg.has(Flags::FIN)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if moment.nth > 1 {
            return Verdict::Pass;
        }
        if !self.reset {
            moment.act(Action::Finish { client: true, server: true });
            return Verdict::Pass;
        }
        moment.act(Action::Reset { client: true, server: true });
        if moment.at.way == Way::In {
            return Verdict::Pass;
        }
        // It would reach the client before the RST, as an honest end of file.
        seg.flags = seg.flags.without(Flags::FIN);
        if seg.payload.is_empty() { Verdict::Drop } else { Verdict::Rewrite }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, seg};
    use crate::trace::Leg;

    const FIN: Flags = Flags::FIN.with(Flags::ACK);

    #[test]
    fn the_first_fin_ends_both_directions() {
        let (client, server) = (true, true);
        for (rule, leg, action) in [
            ("half-close-broken", Leg::Client, Action::Finish { client, server }),
            ("half-close-broken style=rst", Leg::Client, Action::Reset { client, server }),
            ("half-close-broken direction=downstream", Leg::Server, Action::Finish { client, server }),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            for other in [Flags::ACK, Flags::RST] {
                assert_eq!(flow.letter(leg, Way::In, &seg(other)), 'P');
            }
            assert_eq!(flow.letter(leg.other(), Way::In, &seg(FIN)), 'P');
            assert_eq!(flow.deeds(), [], "{rule}");
            assert_eq!(flow.letter(leg, Way::In, &seg(FIN)), 'P', "the FIN itself goes on");
            assert_eq!(flow.deeds(), [Deed::Act(action)], "{rule}");
            flow.letter(leg, Way::In, &seg(FIN));
            assert_eq!(flow.deeds(), [], "{rule}: once");
        }
    }

    #[test]
    fn a_fin_of_a_kernel_socket_gives_way_to_the_reset() {
        for (rule, payload, letter) in [
            ("half-close-broken direction=downstream style=rst", &b""[..], 'D'),
            ("half-close-broken direction=downstream style=rst", b"bye", 'R'),
            ("half-close-broken direction=downstream style=fin", b"", 'P'),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            flow.progress.server_is_socket = true;
            let fin = Segment { payload: payload.into(), ..seg(FIN) };
            assert_eq!(flow.letter(Leg::Client, Way::Out, &fin), letter, "{rule}");
            assert_eq!(flow.deeds().len(), 1);
        }
    }
}
