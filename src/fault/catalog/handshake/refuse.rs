//! `refuse`: the client is turned away before anybody has dialled the server.

use std::sync::Arc;

use crate::fault::{
    Action, Alias, AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic,
    Unit, Verdict, Way,
};
use crate::time::Duration;
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "refuse",
    summary: "refuses the connection: by RST, by a RST that nobody believes, by an ICMP error, or by silence",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "refuse style=icmp-host delay=100ms",
    attributes: &[
        AttributeDoc {
            name: "style",
            unit: Unit::Word(&[
                "rst",
                "bad-rst",
                "icmp-port",
                "icmp-host",
                "icmp-net",
                "icmp-admin",
                "icmp-ttl",
                "silence",
            ]),
            default: "rst",
            zero: "",
            doc: "What answers the SYN. `bad-rst` acknowledges the SYN's own number instead of the next one, so that it is \
                  ignored. The ICMP errors are port, host and net unreachable, administratively prohibited, and TTL or hop \
                  limit exceeded, in the types and codes of the flow's family.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "0",
            zero: "at once",
            doc: "How long after the SYN the answer comes.",
        },
        AttributeDoc {
            name: "icmp_interval",
            unit: Unit::Duration { max_secs: 3600 },
            default: "0",
            zero: "no limit",
            doc: "Like a router that limits its ICMP errors (Linux: 1 s), answers the first flow of the rule in each \
                  interval of this length only; the SYNs of the others are lost once, and answered when they come again.",
        },
    ],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H17",
        incident: "chaos-mesh/chaos-mesh#5067 asked for fail-fast instead of silence; the errnos were measured on Linux 6.18",
    },
    also: &[
        Alias { id: "H18", name: "refuse-bad-rst", rule: "refuse style=bad-rst" },
        Alias { id: "H19", name: "refuse-icmp", rule: "refuse style=icmp-host" },
        Alias { id: "H20", name: "blackhole-silent", rule: "refuse style=silence" },
    ],
    scene: Scene { rule: "refuse delay=500ms", play: Play::Talk },
    sees: "rst and icmp-port give ECONNREFUSED, icmp-net ENETUNREACH, icmp-host, icmp-ttl and icmp-admin EHOSTUNREACH \
           (icmp-admin with IPv6: EACCES), all at once; with silence and bad-rst connect() runs into its timeout.",
    build: |reader, _| {
        let style = style(reader.word("style")?.unwrap_or_default());
        let interval = reader.duration("icmp_interval")?.unwrap_or_default();
        if !interval.is_zero() && !matches!(style, Style::Icmp { .. }) {
            return Err(reader.wrong("icmp_interval", "limits ICMP errors, and this style sends none"));
        }
        let delay = reader.duration("delay")?.unwrap_or_default();
        if !delay.is_zero() && matches!(style, Style::Silence) {
            return Err(reader.wrong("delay", "delays an answer, and silence is none"));
        }
        Ok(Arc::new(Refuse { style, delay, interval }))
    },
};

/// What answers the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Rst,
    BadRst,
    /// Types and codes.
    Icmp {
        v4: (u8, u8),
        v6: (u8, u8),
    },
    Silence,
}

fn style(word: &str) -> Style {
    match word {
        "bad-rst" => Style::BadRst,
        "icmp-port" => Style::Icmp { v4: (3, 3), v6: (1, 4) },
        "icmp-host" => Style::Icmp { v4: (3, 1), v6: (1, 3) },
        "icmp-net" => Style::Icmp { v4: (3, 0), v6: (1, 0) },
        "icmp-admin" => Style::Icmp { v4: (3, 13), v6: (1, 1) },
        "icmp-ttl" => Style::Icmp { v4: (11, 0), v6: (3, 0) },
        "silence" => Style::Silence,
        _ => Style::Rst,
    }
}

#[derive(Debug)]
struct Refuse {
    style: Style,
    delay: Duration,
    /// Between two ICMP errors; zero is no limit.
    interval: Duration,
}

impl Refuse {
    /// True if the router has a token left for this SYN.
    fn may_answer(&self, moment: &Moment<'_>) -> bool {
        let slot = |time: Duration| time.as_nanos() / self.interval.as_nanos().max(1);
        let place = moment.place;
        self.interval.is_zero()
            || moment.nth > 1
            || place.nth == 1
            || slot(place.since_first) != slot(place.since_first.saturating_sub(place.since_last))
    }
}

impl Fault for Refuse {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let is_ttl = matches!(self.style, Style::Icmp { v4: (11, _), .. });
        let odd = self.style == Style::BadRst || is_ttl;
        (engine == Engine::Sockets && odd).then_some("the kernel does not answer a SYN like this")
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        at == Point { leg: Leg::Client, way: Way::In }
            && seg.has(Flags::SYN)
            && !seg.has(Flags::ACK)
            && progress.client.is_none()
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        match self.style {
            Style::Rst => moment.act_after(Action::Refuse { icmp: None }, self.delay),
            Style::Icmp { v4, v6 } if self.may_answer(moment) => {
                let icmp = Some(if moment.progress.ipv6 { v6 } else { v4 });
                moment.act_after(Action::Refuse { icmp }, self.delay);
            }
            Style::BadRst => {
                let flags = Flags::RST | Flags::ACK;
                let rst = Segment { ack: seg.seq, flags, ..Segment::default() };
                moment.send(Leg::Client, rst, self.delay);
            }
            Style::Icmp { .. } | Style::Silence => {}
        }
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, rules, seg};
    use crate::fault::{Circumstances, Deed, Turns};
    use crate::time::Instant;
    use crate::trace::FlowId;
    use crate::wire::SeqNum;

    const AT: Point = Point { leg: Leg::Client, way: Way::In };

    #[test]
    fn each_style_has_its_answer_in_the_family_of_the_flow() {
        let icmp = |v4| Some(Some(v4));
        for (style, v4, v6) in [
            ("rst", Some(None), Some(None)),
            ("icmp-port", icmp((3, 3)), icmp((1, 4))),
            ("icmp-host", icmp((3, 1)), icmp((1, 3))),
            ("icmp-net", icmp((3, 0)), icmp((1, 0))),
            ("icmp-admin", icmp((3, 13)), icmp((1, 1))),
            ("icmp-ttl", icmp((11, 0)), icmp((3, 0))),
            ("silence", None, None),
        ] {
            for (ipv6, expected) in [(false, v4), (true, v6)] {
                let mut flow = Flow::of(&format!("refuse style={style}"));
                flow.progress.ipv6 = ipv6;
                assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)), 'D', "{style}");
                let expected: Vec<Deed> =
                    expected.map(|icmp| Deed::Act(Action::Refuse { icmp })).into_iter().collect();
                assert_eq!(flow.deeds(), expected, "{style}, IPv6: {ipv6}");
            }
        }
    }

    #[test]
    fn a_bad_rst_does_not_acknowledge_the_syn() {
        let mut flow = Flow::of("refuse style=bad-rst delay=20ms");
        let mut syn = Segment { seq: SeqNum(77), flags: Flags::SYN, ..Segment::default() };
        assert_eq!(flow.judge(AT, &mut syn), Verdict::Drop);
        let [Deed::Send { leg: Leg::Client, segment, after }] = &flow.deeds()[..] else {
            panic!("no segment")
        };
        assert_eq!((segment.flags, segment.ack), (Flags::RST | Flags::ACK, SeqNum(77)));
        assert_eq!(*after, Duration::from_millis(20));
    }

    #[test]
    fn a_late_refusal_comes_once_even_if_the_bounds_have_closed_by_then() {
        let mut flow = Flow::of("refuse delay=1500ms for=500ms");
        let syn = seg(Flags::SYN);
        assert_eq!(flow.at(0).letter(Leg::Client, Way::In, &syn), 'D');
        assert_eq!((flow.action(), flow.timeout()), (None, Some(Instant::from_millis(1500))));
        assert_eq!(flow.at(1000).letter(Leg::Client, Way::In, &syn), 'P', "the bounds are closed");
        assert_eq!(flow.at(1500).action(), Some(Action::Refuse { icmp: None }));
        assert_eq!((flow.action(), flow.timeout()), (None, None));
        assert_eq!(flow.fired(), ["0.000 client upstream drop", "1.500 client downstream inject"]);
    }

    #[test]
    fn only_a_client_without_an_answer_can_be_refused() {
        let mut flow = Flow::of("refuse");
        for (leg, way, flags) in [
            (Leg::Server, Way::Out, Flags::SYN),
            (Leg::Client, Way::In, Flags::ACK),
            (Leg::Client, Way::Out, Flags::SYN | Flags::ACK),
        ] {
            assert_eq!(flow.letter(leg, way, &seg(flags)), 'P');
        }
        let numbers = SeqNum(0);
        flow.progress.client =
            Some(crate::wire::Numbers { snd_una: numbers, snd_nxt: numbers, rcv_nxt: numbers });
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)), 'P', "it has a SYN-ACK");
    }

    #[test]
    fn a_router_answers_the_first_flow_of_each_interval_and_the_others_on_their_second_syn() {
        let rules = rules(42, Engine::Tun, "refuse style=icmp-port icmp_interval=1s").unwrap();
        let (mut turns, syn) = (Turns::default(), seg(Flags::SYN));
        let answered = [0, 10, 900, 1000, 1001, 2500].map(|millis| {
            let now = Instant::from_millis(millis);
            let alone = Circumstances { now, ..Circumstances::default() };
            let mut flow = Flow::numbered(&rules, 1);
            let addr = |text: &str| text.parse().unwrap();
            flow.plan = rules.plan(FlowId(1), addr("10.0.0.1:1"), addr("10.0.0.2:80"), &alone, &mut turns);
            let mut answers = |millis| {
                flow.at(millis).letter(Leg::Client, Way::In, &syn);
                flow.deeds().len()
            };
            (answers(millis), answers(millis + 1000))
        });
        assert_eq!(answered, [(1, 1), (0, 1), (0, 1), (1, 1), (0, 1), (1, 1)]);
    }

    #[test]
    fn attributes_that_change_nothing_are_refused() {
        for (rule, problem) in [
            ("refuse icmp_interval=1s", "limits ICMP errors, and this style sends none"),
            ("refuse style=silence delay=1s", "delays an answer, and silence is none"),
        ] {
            let error = error(rule);
            assert!(error.contains(problem), "{error}");
        }
    }
}
