//! `half-closed-timeout`: a connection of which one direction has ended is cut after a time.

use std::sync::Arc;

use super::where_fin_enters;
use crate::fault::{
    Action, Alias, AttributeDoc, Engine, Fault, Kind, Memory, Moment, Play, Point, Progress, Scene, Source,
    Topic, Unit, Verdict,
};
use crate::time::{Duration, Instant};
use crate::trace::Direction;
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "half-closed-timeout",
    summary: "ends or forgets a connection some time after its first FIN",
    topic: Topic::Teardown,
    engines: &Engine::ALL,
    example: "half-closed-timeout timeout=60s style=silent",
    attributes: &[
        AttributeDoc {
            name: "timeout",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "60s",
            zero: "at the first FIN",
            doc: "Time from the first FIN that passes, from whichever side. conntrack's nf_conntrack_tcp_timeout_close_wait is 60s \
                  (and begins again with each later segment, which this does not), socat's -t is 500ms.",
        },
        AttributeDoc {
            name: "style",
            unit: Unit::Word(&["silent", "fin", "rst"]),
            default: "silent",
            zero: "",
            doc: "What happens then: silent forgets the flow, so that everything later is lost in both directions, the other FIN \
                  too; fin and rst end both directions. Kernel sockets behind a listener cannot forget one.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &["timeout"],
    source: Source { id: "T6", incident: "istio/istio#43297: both ends keep their sockets for an hour" },
    also: &[Alias { id: "T8", name: "half-close-cut", rule: "half-closed-timeout timeout=500ms style=fin" }],
    scene: Scene { rule: "half-closed-timeout timeout=200ms style=silent", play: Play::EachCloses },
    sees: "silent: the side that finished first waits in FIN-WAIT-2 for ever, the other one repeats its FIN (or its reply) for 15 minutes and \
           more. fin: a reply that takes longer is cut off by end-of-file. rst: ECONNRESET.",
    build: |reader, _| {
        let style = match reader.word("style")? {
            Some("fin") => Style::Fin,
            Some("rst") => Style::Rst,
            _ => Style::Silent,
        };
        Ok(Arc::new(HalfClosedTimeout { timeout: reader.duration("timeout")?.unwrap_or_default(), style }))
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Silent,
    Fin,
    Rst,
}

#[derive(Debug)]
struct HalfClosedTimeout {
    timeout: Duration,
    style: Style,
}

/// When the time is up, once a FIN has passed.
#[derive(Debug, Default)]
struct Deadline(Option<Instant>);

impl Fault for HalfClosedTimeout {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    /// To forget a flow is to lose every segment of it, on both sides and both ways.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let both = [Direction::Upstream, Direction::Downstream];
        let fin = seg.has(Flags::FIN) && both.iter().any(|d| at == where_fin_enters(*d, progress));
        fin || self.style == Style::Silent
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let silent = self.style == Style::Silent;
        (engine == Engine::PlainSockets && silent).then_some("nothing there cuts a kernel socket off")
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let entering = [Direction::Upstream, Direction::Downstream]
            .into_iter()
            .any(|direction| moment.at == where_fin_enters(direction, moment.progress));
        let deadline = moment.memory.of::<Deadline>();
        match deadline.0 {
            Some(at) if self.style == Style::Silent && moment.now >= at => return Verdict::Drop,
            None if entering && seg.has(Flags::FIN) => deadline.0 = Some(moment.now + self.timeout),
            _ => {}
        }
        Verdict::Pass
    }

    fn action(&self) -> Option<Action> {
        let (client, server) = (true, true);
        Some(match self.style {
            Style::Silent => Action::Silence,
            Style::Fin => Action::Finish { client, server },
            Style::Rst => Action::Reset { client, server },
        })
    }

    /// Where segments are met, losing each of them is enough.
    fn is_for(&self, progress: &Progress) -> bool {
        self.style != Style::Silent || progress.has_no_segments()
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        memory.get::<Deadline>().and_then(|deadline| deadline.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Way;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::trace::Leg;

    const FIN: Flags = Flags::FIN.with(Flags::ACK);

    #[test]
    fn everything_is_lost_some_time_after_the_first_fin() {
        let mut flow = Flow::of("half-closed-timeout timeout=1s");
        flow.established();
        assert_eq!(flow.at(5000).letter(Leg::Client, Way::In, &seg(Flags::ACK)), 'P', "no FIN, no time");
        assert_eq!(flow.letter(Leg::Server, Way::In, &seg(FIN)), 'P');
        assert_eq!(flow.at(5500).letter(Leg::Server, Way::In, &seg(FIN)), 'P', "the first FIN counts");
        for (leg, way) in
            [(Leg::Client, Way::In), (Leg::Client, Way::Out), (Leg::Server, Way::In), (Leg::Server, Way::Out)]
        {
            for flags in [FIN, Flags::ACK, Flags::RST] {
                assert_eq!(flow.at(5999).letter(leg, way, &seg(flags)), 'P');
                assert_eq!(flow.at(6000).letter(leg, way, &seg(flags)), 'D', "{leg:?} {way:?} {flags:?}");
            }
        }
        assert_eq!((flow.action(), flow.timeout()), (None, None));
    }

    #[test]
    fn between_kernel_sockets_all_is_silent_instead() {
        let mut flow = Flow::of("half-closed-timeout timeout=1s");
        flow.established();
        (flow.progress.client_is_socket, flow.progress.server_is_socket) = (true, true);
        flow.at(5000).letter(Leg::Server, Way::In, &seg(FIN));
        assert_eq!((flow.action(), flow.timeout()), (None, Some(Instant::from_millis(6000))));
        assert_eq!(flow.at(6000).action(), Some(Action::Silence));
        for engine in [Engine::Exec, Engine::Sockets] {
            assert_eq!(refused("half-closed-timeout", engine), None);
        }
        assert_eq!(refused("half-closed-timeout style=rst", Engine::PlainSockets), None);
        let why = refused("half-closed-timeout", Engine::PlainSockets);
        assert!(why.as_ref().is_some_and(|why| why.contains("cuts")), "{why:?}");
    }

    #[test]
    fn both_ends_are_told_in_the_other_styles() {
        let (client, server) = (true, true);
        for (style, action) in
            [("fin", Action::Finish { client, server }), ("rst", Action::Reset { client, server })]
        {
            let mut flow = Flow::of(&format!("half-closed-timeout timeout=500ms style={style}"));
            flow.established();
            assert_eq!((flow.at(100).action(), flow.timeout()), (None, None));
            flow.letter(Leg::Client, Way::Out, &seg(FIN));
            assert_eq!((flow.action(), flow.timeout()), (None, None), "our own FIN is not the first");
            flow.letter(Leg::Client, Way::In, &seg(FIN));
            assert_eq!((flow.action(), flow.timeout()), (None, Some(Instant::from_millis(600))));
            assert_eq!(flow.at(600).action(), Some(action));
            assert_eq!((flow.at(700).action(), flow.timeout()), (None, None), "once");
        }
    }
}
