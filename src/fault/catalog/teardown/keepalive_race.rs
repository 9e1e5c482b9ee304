//! `keepalive-race`: the server closes an idle connection just as the next request is under way.

use std::sync::Arc;

use super::rst;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit,
    Verdict, Way,
};
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "keepalive-race",
    summary: "closes a connection at the first request after an idle time, which is lost",
    topic: Topic::Teardown,
    engines: &[Engine::Tun, Engine::Exec],
    example: "keepalive-race idle=5s style=fin-then-rst",
    attributes: &[
        AttributeDoc {
            name: "idle",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "5s",
            zero: "at every request but the first",
            doc: "How long after the last byte of a reply a request meets its end. Node and gunicorn keep 5s, Bun 10s, AWS ALB 60s, \
                  nginx 75s, Google's load balancer 600s. The dice of `share` are rolled for each such request.",
        },
        AttributeDoc {
            name: "style",
            unit: Unit::Word(&["fin-then-rst", "rst-only", "fin"]),
            default: "fin-then-rst",
            zero: "",
            doc: "fin-then-rst: FIN, and RST to what the client sends after it. rst-only: RST, as when the FIN was long ago and got \
                  lost. fin: FIN; the request is acknowledged when it is repeated, and lost.",
        },
    ],
    bounds: &["share"],
    default_bound: None,
    scales: &["idle"],
    source: Source {
        id: "T11",
        incident: "nodejs/node#17749, #27363, #52649, yhirose/cpp-httplib#1282: 502 at load balancers, ECONNRESET in clients",
    },
    also: &[],
    scene: Scene { rule: "keepalive-race idle=1s", play: Play::Pause },
    sees: "send() succeeds. fin-then-rst: recv() 0, then send() EPIPE. rst-only: recv() ECONNRESET. fin: recv() 0, and send() still \
           succeeds. The request is not executed; the server reads end-of-file.",
    build: |reader, bounds| {
        let style = match reader.word("style")? {
            Some("rst-only") => Style::RstOnly,
            Some("fin") => Style::Fin,
            _ => Style::FinThenRst,
        };
        // The share is one of races, not of segments.
        let share = std::mem::replace(&mut bounds.share, 1.0);
        Ok(Arc::new(KeepaliveRace { idle: reader.duration("idle")?.unwrap_or_default(), style, share }))
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    FinThenRst,
    RstOnly,
    Fin,
}

#[derive(Debug)]
struct KeepaliveRace {
    idle: Duration,
    style: Style,
    share: f64,
}

#[derive(Debug, Default)]
struct State {
    /// When the last byte of a reply left; `None` once a request follows it.
    replied: Option<Instant>,
    race: Race,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Race {
    #[default]
    None,
    /// The FIN is sent; what the client says next draws a RST.
    FinSent,
    Over,
}

impl Fault for KeepaliveRace {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    /// Bytes at the client leg, and all that the client sends.
    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at.leg == Leg::Client && (at.way == Way::In || !seg.payload.is_empty())
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let now = moment.now;
        let state = moment.memory.of::<State>();
        if moment.at.way == Way::Out {
            state.replied = Some(now);
            return Verdict::Pass;
        }
        match state.race {
            Race::FinSent => {
                state.race = Race::Over;
                self.answer(moment);
                Verdict::Drop
            }
            Race::None if !seg.payload.is_empty() => {
                let idle = state.replied.take().is_some_and(|at| now.since(at) >= self.idle);
                if idle && moment.dice.chance(self.share) { self.begin(moment, seg) } else { Verdict::Pass }
            }
            _ => Verdict::Pass,
        }
    }
}

impl KeepaliveRace {
    fn begin(&self, moment: &mut Moment<'_>, request: &Segment) -> Verdict {
        let race = match self.style {
            Style::FinThenRst => Race::FinSent,
            Style::RstOnly | Style::Fin => Race::Over,
        };
        moment.memory.of::<State>().race = race;
        if self.style == Style::RstOnly {
            // What a host says that has no such connection (RFC 9293 §3.10.7.1).
            moment.send(Leg::Client, rst(request.ack), Duration::ZERO);
            moment.act(Action::finish(Leg::Server));
            moment.act(Action::forget(Leg::Client));
        } else {
            moment.act(Action::Finish { client: true, server: true });
        }
        Verdict::Drop
    }

    /// The RST after the FIN, with the number behind it.
    fn answer(&self, moment: &mut Moment<'_>) {
        if let Some(numbers) = moment.progress.numbers(Leg::Client) {
            moment.send(Leg::Client, rst(numbers.snd_nxt), Duration::ZERO);
        }
        moment.act(Action::forget(Leg::Client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, seg};
    use crate::wire::{Flags, Numbers, SeqNum};

    fn bytes() -> Segment {
        Segment { ack: SeqNum(77), payload: b"x"[..].into(), ..seg(Flags::ACK) }
    }

    /// A request at 0, its reply at 100 ms, the next request at this time.
    fn next_request(rule: &str, at: u64) -> (Flow, char) {
        let mut flow = Flow::of(rule);
        flow.established();
        assert_eq!(flow.letter(Leg::Client, Way::In, &bytes()), 'P', "the first request");
        assert_eq!(flow.at(100).letter(Leg::Client, Way::Out, &bytes()), 'P', "its reply");
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::ACK)), 'P', "no request");
        let letter = flow.at(at).letter(Leg::Client, Way::In, &bytes());
        (flow, letter)
    }

    #[test]
    fn a_request_after_the_idle_time_is_lost() {
        for (rule, at, letter) in [
            ("keepalive-race", 5099, 'P'),
            ("keepalive-race", 5100, 'D'),
            ("keepalive-race idle=0", 100, 'D'),
            ("keepalive-race idle=10s", 9000, 'P'),
            ("keepalive-race share=0", 9000, 'P'),
        ] {
            assert_eq!(next_request(rule, at).1, letter, "{rule} {at}");
        }
        let (mut flow, _) = next_request("keepalive-race", 1000);
        assert_eq!(flow.at(20_000).letter(Leg::Client, Way::In, &bytes()), 'P', "still the same request");
    }

    #[test]
    fn each_style_ends_the_connection_in_its_way() {
        let both = Action::Finish { client: true, server: true };
        let reset =
            |seq| Deed::Send { leg: Leg::Client, segment: Box::new(rst(SeqNum(seq))), after: Duration::ZERO };
        let (mut flow, _) = next_request("keepalive-race", 6000);
        assert_eq!(flow.deeds(), [Deed::Act(both)]);
        let zero = SeqNum(0);
        flow.progress.client = Some(Numbers { snd_una: zero, snd_nxt: SeqNum(78), rcv_nxt: zero });
        assert_eq!(
            flow.letter(Leg::Client, Way::In, &seg(Flags::ACK)),
            'D',
            "the ACK of the FIN draws the RST"
        );
        assert_eq!(flow.deeds(), [reset(78), Deed::Act(Action::forget(Leg::Client))]);
        assert_eq!(flow.letter(Leg::Client, Way::In, &bytes()), 'P');

        let (mut flow, _) = next_request("keepalive-race style=rst-only", 6000);
        let acts = [Action::finish(Leg::Server), Action::forget(Leg::Client)].map(Deed::Act);
        assert_eq!(flow.deeds(), [&[reset(77)], &acts[..]].concat());

        let (mut flow, _) = next_request("keepalive-race style=fin", 6000);
        assert_eq!(flow.deeds(), [Deed::Act(both)]);
        assert_eq!(flow.letter(Leg::Client, Way::In, &bytes()), 'P', "acknowledged, and lost");
    }
}
