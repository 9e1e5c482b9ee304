//! `idle-timeout`: a middlebox forgets a connection on which nothing was said for a while.

use std::sync::Arc;

use crate::fault::{
    Action, Alias, AttributeDoc, Engine, Fault, Kind, Memory, Moment, Play, Point, Progress, Scene, Source,
    Topic, Unit, Verdict, Way,
};
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Numbers, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "idle-timeout",
    summary: "forgets a connection without a segment for a while, in silence or with a RST",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "idle-timeout idle=350s style=rst-on-next rst_to=sender",
    attributes: &[
        AttributeDoc {
            name: "idle",
            unit: Unit::Duration { max_secs: 432_000 },
            default: "350s",
            zero: "refused, as is all below 1ms",
            doc: "How long no segment must pass in either direction. Azure's load balancer forgets after 240 s, AWS's NLB, \
                  Network Firewall and newest EC2 hosts after 350 s, GCP's VPC after 600 s, Linux conntrack after 5 days.",
        },
        AttributeDoc {
            name: "style",
            unit: Unit::Word(&["silent", "rst-on-next", "rst-both"]),
            default: "silent",
            zero: "",
            doc: "silent: from then on everything vanishes, both ways. rst-on-next: the next segment is answered with a RST. \
                  rst-both: both sides get a RST when the time is over.",
        },
        AttributeDoc {
            name: "rst_to",
            unit: Unit::Word(&["sender", "inside", "both"]),
            default: "sender",
            zero: "",
            doc: "Who gets the RST of rst-on-next: whoever sends the segment (AWS NLB), only the client (AWS NAT gateway; what \
                  the server sends vanishes), or both sides at once.",
        },
        AttributeDoc {
            name: "count_keepalives",
            unit: Unit::Bool,
            default: "true",
            zero: "",
            doc: "Whether keepalive probes, their answers and other segments that bring nothing new keep the connection alive. \
                  Kernel sockets answer them by themselves: there only bytes do.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &["idle"],
    source: Source {
        id: "E10",
        incident: "gitlab-org/charts/gitlab#2519, cockroachdb/cockroach#13823: a pooled connection hangs on its next request",
    },
    also: &[
        Alias {
            id: "E11",
            name: "idle-timeout-rst-on-next",
            rule: "idle-timeout idle=350s style=rst-on-next rst_to=sender",
        },
        Alias { id: "E12", name: "idle-timeout-rst-both", rule: "idle-timeout idle=240s style=rst-both" },
    ],
    scene: Scene { rule: "idle-timeout idle=1s style=rst-on-next", play: Play::Pause },
    sees: "silent: the next request hangs, sent again after 0.2, 0.6, 1.5, 3.1, 6.5 s and so on for about 15 minutes. \
           rst-on-next: send() succeeds, recv() gives ECONNRESET. rst-both: ECONNRESET while idle, then send() gives EPIPE.",
    build: |reader, _| {
        let idle = reader.duration("idle")?.unwrap_or_default();
        if idle < Duration::from_millis(1) {
            return Err(reader.wrong("idle", "shorter than 1ms"));
        }
        let to = match reader.word("rst_to")? {
            Some("inside") => To::Inside,
            Some("both") => To::Both,
            _ => To::Sender,
        };
        let style = match reader.word("style")? {
            Some("rst-on-next") => Style::OnNext(to),
            Some(other) if to != To::Sender => {
                return Err(reader.wrong("rst_to", &format!("is only for style=rst-on-next, not {other}")));
            }
            Some("rst-both") => Style::AtOnce,
            _ => Style::Silent,
        };
        let count_keepalives = reader.flag("count_keepalives")?.unwrap_or(true);
        Ok(Arc::new(IdleTimeout { idle, style, count_keepalives }))
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Silent,
    OnNext(To),
    AtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Sender,
    Inside,
    Both,
}

#[derive(Debug)]
struct IdleTimeout {
    idle: Duration,
    style: Style,
    count_keepalives: bool,
}

/// What the middlebox knows of the connection.
#[derive(Debug, Default)]
struct Entry {
    /// When it saw the last segment that counts.
    seen: Option<Instant>,
    /// It has forgotten the connection.
    expired: bool,
    /// Bytes that came by kernel sockets.
    from_socket: u64,
    /// When that server spoke after the connection was forgotten.
    socket_spoke: Option<Instant>,
    /// The RST is on its way. What comes later meets a host without this connection.
    answered: bool,
}

impl Entry {
    /// True if the connection is forgotten by now; if not, it has been seen again.
    fn forgot(&mut self, now: Instant, idle: Duration, counts: bool, open: bool) -> bool {
        self.expired |= open && self.seen.is_some_and(|seen| seen + idle <= now);
        if counts && !self.expired {
            self.seen = Some(now);
        }
        self.expired
    }
}

const BOTH: Action = Action::Reset { client: true, server: true };

impl IdleTimeout {
    /// What is done to the flow when `sender` speaks after the connection is forgotten.
    fn answer(&self, sender: Leg) -> Option<Action> {
        let (client, server) = (sender == Leg::Client, sender == Leg::Server);
        match self.style {
            Style::OnNext(To::Sender) => Some(Action::Reset { client, server }),
            Style::OnNext(To::Both) => Some(BOTH),
            Style::OnNext(To::Inside) | Style::Silent | Style::AtOnce => None,
        }
    }
}

impl Fault for IdleTimeout {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let on_next = matches!(self.style, Style::OnNext(_));
        (engine == Engine::Sockets && on_next).then_some("the kernel shows nobody who speaks next")
    }

    /// What our own TCP sends stands for what the far host would have sent again.
    fn selects(&self, _: Point, _: &Segment, _: &Progress) -> bool {
        true
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let at = moment.at;
        let counts = self.count_keepalives || !is_small_talk(at.way, seg, moment.progress.numbers(at.leg));
        let open = moment.progress.established.is_some();
        let entry = moment.memory.of::<Entry>();
        if !entry.forgot(moment.now, self.idle, counts, open) || entry.answered || self.style == Style::AtOnce
        {
            return Verdict::Pass;
        }
        let sender = if at.way == Way::In { at.leg } else { at.leg.other() };
        if let Some(action) = self.answer(sender).filter(|_| !seg.has(Flags::RST)) {
            entry.answered = true;
            moment.act(action);
        } else if self.style == Style::OnNext(To::Inside) && at == (Point { leg: Leg::Client, way: Way::In })
        {
            inform(moment, seg);
        }
        Verdict::Drop
    }

    /// What is done by time alone, and for a server whose segments are not seen (exec).
    fn action(&self) -> Option<Action> {
        Some(match self.style {
            Style::Silent | Style::OnNext(To::Inside) => Action::Silence,
            Style::OnNext(To::Sender) => Action::Reset { client: false, server: true },
            Style::OnNext(To::Both) | Style::AtOnce => BOTH,
        })
    }

    fn notice(&self, now: Instant, progress: &Progress, memory: &mut Memory) {
        if !progress.server_is_socket {
            return;
        }
        let entry = memory.of::<Entry>();
        let upstream = if progress.client_is_socket { progress.upstream_bytes } else { 0 };
        let bytes = progress.downstream_bytes + upstream;
        if std::mem::replace(&mut entry.from_socket, bytes) == bytes {
            return;
        }
        if entry.forgot(now, self.idle, true, true) {
            entry.socket_spoke.get_or_insert(now);
            entry.answered = !matches!(self.style, Style::Silent | Style::OnNext(To::Inside));
        }
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        let entry = memory.get::<Entry>()?;
        match self.style {
            Style::OnNext(To::Sender | To::Both) => entry.socket_spoke,
            _ => entry.seen.map(|seen| seen + self.idle),
        }
    }
}

/// A RST for a segment of the client, as it would come from the server. The connection stays forgotten.
fn inform(moment: &mut Moment<'_>, seg: &Segment) {
    let Some(numbers) = moment.progress.numbers(Leg::Client).filter(|_| !seg.has(Flags::RST)) else { return };
    let flags = Flags::RST | Flags::ACK;
    let rst = Segment { seq: numbers.snd_nxt, ack: seg.end(), flags, ..Segment::default() };
    moment.send(Leg::Client, rst, Duration::ZERO);
}

/// True for a segment that brings its receiver nothing new: keepalive probes, their answers, window updates.
fn is_small_talk(way: Way, seg: &Segment, numbers: Option<Numbers>) -> bool {
    let Some(numbers) = numbers else { return false };
    if seg.flags.any(Flags::SYN | Flags::FIN | Flags::RST) || seg.payload.len() > 1 {
        return false;
    }
    let (next, acked) = match way {
        Way::In => (numbers.rcv_nxt, seg.ack.after(numbers.snd_una)),
        // An acknowledgement of ours follows data that came in.
        Way::Out => (numbers.snd_una, false),
    };
    let old = seg.payload.is_empty() || seg.seq.before(next);
    old && !acked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, error, seg};
    use crate::wire::SeqNum;

    const ACK: Flags = Flags::ACK;

    fn open(rule: &str) -> Flow {
        let mut flow = Flow::of(rule);
        flow.letter(Leg::Client, Way::In, &seg(Flags::SYN));
        flow.at(100).established();
        flow.letter(Leg::Client, Way::In, &seg(ACK));
        let numbers =
            |snd, rcv| Some(Numbers { snd_una: SeqNum(snd), snd_nxt: SeqNum(snd), rcv_nxt: SeqNum(rcv) });
        (flow.progress.client, flow.progress.server) = (numbers(700, 500), numbers(50, 70));
        flow
    }

    #[test]
    fn segments_of_any_leg_and_way_keep_it_alive_until_there_are_none_for_the_time() {
        let mut flow = open("idle-timeout idle=1s");
        let (client, server) = (Leg::Client, Leg::Server);
        let steps = [(900, client, Way::In), (1800, client, Way::Out), (2700, server, Way::Out)];
        for (at, leg, way) in steps.into_iter().chain([(3600, server, Way::In)]) {
            assert_eq!(flow.at(at).letter(leg, way, &seg(ACK)), 'P', "at {at}");
            assert_eq!((flow.action(), flow.timeout()), (None, Some(Instant::from_millis(at + 1000))));
        }
        assert_eq!(flow.at(4600).action(), Some(Action::Silence));
        for at in [4600, 4601, 9000] {
            for (leg, way) in [(client, Way::In), (server, Way::In), (client, Way::Out), (server, Way::Out)] {
                assert_eq!(flow.at(at).letter(leg, way, &seg(ACK)), 'D', "at {at}");
            }
            assert_eq!((flow.action(), flow.timeout()), (None, None));
        }
        assert_eq!(flow.deeds(), []);
    }

    #[test]
    fn a_handshake_does_not_expire() {
        let mut flow = Flow::of("idle-timeout idle=1s style=rst-both");
        flow.letter(Leg::Client, Way::In, &seg(Flags::SYN));
        assert_eq!((flow.at(5000).action(), flow.timeout()), (None, None));
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::SYN)), 'P');
    }

    #[test]
    fn styles_and_receivers_of_the_reset_are_chosen() {
        let reset = |client, server| Some(Action::Reset { client, server });
        for (rule, at_expiry, client_speaks, server_speaks) in [
            ("", Some(Action::Silence), None, None),
            ("style=rst-both", reset(true, true), None, None),
            ("style=rst-on-next", None, reset(true, false), reset(false, true)),
            ("style=rst-on-next rst_to=both", None, reset(true, true), reset(true, true)),
        ] {
            for (leg, expected) in [(Leg::Client, client_speaks), (Leg::Server, server_speaks)] {
                let mut flow = open(&format!("idle-timeout idle=1s {rule}"));
                assert_eq!(flow.at(1099).action(), None, "{rule}");
                assert_eq!(flow.at(1100).action(), at_expiry, "{rule}");
                let met = if at_expiry == reset(true, true) { 'P' } else { 'D' };
                assert_eq!(flow.at(5000).letter(leg, Way::In, &seg(ACK)), met, "{rule}");
                assert_eq!(flow.deeds(), expected.map(Deed::Act).into_iter().collect::<Vec<_>>(), "{rule}");
            }
        }
    }

    #[test]
    fn only_the_inside_is_told_each_time_it_speaks() {
        let mut flow = open("idle-timeout idle=1s style=rst-on-next rst_to=inside");
        assert_eq!(flow.at(1100).action(), Some(Action::Silence));
        assert_eq!(flow.letter(Leg::Server, Way::In, &seg(ACK)), 'D');
        assert_eq!(flow.letter(Leg::Client, Way::In, &seg(Flags::RST)), 'D', "a RST is never answered");
        assert_eq!(flow.deeds(), []);
        let mut data = seg(ACK);
        (data.seq, data.payload) = (SeqNum(500), b"hello"[..].into());
        for _ in 0..2 {
            assert_eq!(flow.letter(Leg::Client, Way::In, &data), 'D');
            let deeds = flow.deeds();
            let [Deed::Send { leg: Leg::Client, segment, .. }] = &deeds[..] else { panic!("{deeds:?}") };
            assert_eq!(
                (segment.seq, segment.ack, segment.flags),
                (SeqNum(700), SeqNum(505), Flags::RST | ACK)
            );
        }
    }

    #[test]
    fn what_brings_nothing_new_counts_only_if_it_should() {
        let from_client = |seq, ack, len: usize| {
            let mut segment = seg(ACK);
            (segment.seq, segment.ack) = (SeqNum(seq), SeqNum(ack));
            segment.payload = bytes::Bytes::from(vec![0; len]).into();
            segment
        };
        for (sentence, segment, way, counts) in [
            ("a probe", from_client(499, 700, 0), Way::In, false),
            ("a probe with a byte", from_client(499, 700, 1), Way::In, false),
            ("its answer", from_client(500, 700, 0), Way::In, false),
            ("a byte", from_client(500, 700, 1), Way::In, true),
            ("an acknowledgement", from_client(500, 701, 0), Way::In, true),
            ("data", from_client(500, 700, 100), Way::In, true),
            ("a probe of ours", from_client(699, 500, 0), Way::Out, false),
            ("an answer of ours", from_client(700, 500, 0), Way::Out, false),
            ("data of ours", from_client(700, 500, 1), Way::Out, true),
            ("the end", Segment { flags: Flags::FIN | ACK, ..from_client(500, 700, 0) }, Way::In, true),
        ] {
            for (rule, counts) in [("", true), (" count_keepalives=false", counts)] {
                let mut flow = open(&format!("idle-timeout idle=1s{rule}"));
                flow.at(600).letter(Leg::Client, way, &segment);
                flow.action();
                let expected = Instant::from_millis(if counts { 1600 } else { 1100 });
                assert_eq!(flow.timeout(), Some(expected), "{sentence}{rule}");
            }
        }
    }

    /// Exec: the server's segments are not seen, its bytes are.
    #[test]
    fn bytes_from_a_kernel_socket_count_and_are_answered() {
        let mut flow = open("idle-timeout idle=1s style=rst-on-next");
        flow.progress.server_is_socket = true;
        assert_eq!(flow.at(900).received(0, 10).action(), None);
        assert_eq!(flow.at(1800).letter(Leg::Client, Way::In, &seg(ACK)), 'P');
        assert_eq!(flow.at(2800).action(), None, "nobody has spoken");
        let server_only = Action::Reset { client: false, server: true };
        assert_eq!(flow.at(3000).received(0, 11).action(), Some(server_only));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (rule, problem) in [
            ("idle-timeout idle=0", "idle = \"0\": shorter than 1ms"),
            (
                "idle-timeout style=rst-both rst_to=both",
                "rst_to = \"both\": is only for style=rst-on-next, not rst-both",
            ),
            ("idle-timeout rst_to=inside", "rst_to = \"inside\": is only for style=rst-on-next, not silent"),
        ] {
            let error = error(rule);
            assert!(error.contains(problem), "{error}");
        }
    }
}
