//! `ghost-connection`: the client is connected to a server that knows nothing of it.

use std::sync::Arc;

use super::option_strip::{Kinds, Mode};
use super::pick;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Memory, Moment, Play, Point, Progress, Scene, Source, Topic,
    Unit, Verdict, Way,
};
use crate::tcp::Knobs;
use crate::time::{Duration, Instant};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

/// A ghost from which nothing has been heard for this long is forgotten: longer than any client sends again.
const FORGOTTEN: Duration = Duration::from_secs(3600);

pub(in crate::fault) const KIND: Kind = Kind {
    name: "ghost-connection",
    summary: "answers the SYN with a SYN cookie whose ACK is lost: connected for the client, unknown to the server",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "ghost-connection hold=9s",
    attributes: &[
        AttributeDoc {
            name: "recover_on_data",
            unit: Unit::Bool,
            default: "true",
            zero: "",
            doc: "Whether the first data (or FIN) after `hold` make the connection real. False: silence for ever.",
        },
        AttributeDoc {
            name: "hold",
            // The true server gives its own SYN-ACK up after 63 s.
            unit: Unit::Duration { max_secs: 60 },
            default: "9s",
            zero: "the first data are taken",
            doc: "How long data are ignored as well, counted from the first ACK. ACKs without data are always ignored.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H7",
        incident: "with the settings of every distribution a burst of two SYNs more than the backlog makes the last one a SYN \
                   cookie whose ACK meets a full accept queue; measured on Linux 6.18",
    },
    also: &[],
    scene: Scene { rule: "ghost-connection hold=1s", play: Play::Talk },
    sees: "connect() returns at once, and then nothing ever comes, neither data nor RST nor FIN: a client that waits for a \
           greeting waits for ever, one that writes repeats itself until the server takes it or until ETIMEDOUT.",
    build: |reader, _| {
        Ok(Arc::new(GhostConnection {
            recover_on_data: reader.flag("recover_on_data")?.unwrap_or(true),
            hold: reader.duration("hold")?.unwrap_or_default(),
        }))
    },
};

#[derive(Debug)]
struct GhostConnection {
    recover_on_data: bool,
    hold: Duration,
}

/// What is known of one ghost.
#[derive(Clone, Copy, Debug, Default)]
struct Ghost {
    first_ack: Option<Instant>,
    last_heard: Instant,
    real: bool,
}

impl Fault for GhostConnection {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        pick::is_syn(at, seg, progress) || pick::completes(at, seg, progress)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if seg.has(Flags::SYN) {
            // A cookie has no room for them; both legs do without.
            let stripped = Kinds::BUT_MSS.strip(Mode::Remove, Way::In, &mut seg.options);
            return if stripped { Verdict::Rewrite } else { Verdict::Pass };
        }
        let now = moment.now;
        let ghost = moment.memory.of::<Ghost>();
        ghost.last_heard = now;
        let first_ack = *ghost.first_ack.get_or_insert(now);
        if self.recover_on_data && seg.seq_len() > 0 && now >= first_ack + self.hold {
            ghost.real = true;
            return Verdict::Pass;
        }
        Verdict::Drop
    }

    fn turn(&self, leg: Leg, knobs: &mut Knobs) -> bool {
        knobs.syn_cookie = true;
        leg == Leg::Client
    }

    fn action(&self) -> Option<Action> {
        Some(Action::Reset { client: false, server: true })
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        let ghost = memory.get::<Ghost>().filter(|ghost| !ghost.real)?;
        Some(ghost.last_heard + FORGOTTEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, seg};
    use crate::wire::{Options, WindowScale};

    fn flow(rule: &str) -> Flow {
        let mut flow = Flow::of(rule);
        flow.answered();
        flow
    }

    #[test]
    fn only_data_after_the_hold_make_it_real() {
        let mut data = seg(Flags::ACK | Flags::PSH);
        data.payload = b"hello"[..].into();
        let (ack, fin) = (seg(Flags::ACK), seg(Flags::ACK | Flags::FIN));
        for (rule, seen) in [
            ("ghost-connection", "DDDDPP"),
            ("ghost-connection hold=500ms", "DDPDPP"),
            ("ghost-connection hold=0", "DPPDPP"),
            ("ghost-connection recover_on_data=false", "DDDDDD"),
        ] {
            let mut flow = flow(rule);
            let all = [(100, &ack), (200, &data), (600, &data), (8000, &ack), (9100, &data), (9200, &fin)];
            let all = all.map(|(at, seg)| flow.at(at).letter(Leg::Client, Way::In, seg));
            assert_eq!(String::from_iter(all), seen, "{rule}");
        }
    }

    #[test]
    fn the_syn_loses_all_options_but_the_mss_and_the_handshake_has_no_timer() {
        let mut flow = flow("ghost-connection");
        let mss = Options { mss: Some(1460), ..Options::default() };
        let mut syn = seg(Flags::SYN);
        syn.options =
            Options { window_scale: Some(WindowScale::new(7)), sack_permitted: true, ..mss.clone() };
        assert_eq!(flow.judge(pick::FROM_CLIENT, &mut syn), Verdict::Rewrite);
        assert_eq!(syn.options, mss);
        assert_eq!(flow.letter(Leg::Client, Way::In, &syn), 'P', "nothing left to take");
        assert!(flow.knobs(Leg::Client).syn_cookie && !flow.knobs(Leg::Server).syn_cookie);
    }

    #[test]
    fn a_ghost_is_forgotten_an_hour_after_the_last_segment() {
        let mut flow = flow("ghost-connection recover_on_data=false");
        assert_eq!(flow.at(0).action(), None);
        assert_eq!(flow.timeout(), None);
        for at in [100, 5000] {
            flow.at(at).letter(Leg::Client, Way::In, &seg(Flags::ACK));
        }
        assert_eq!(flow.action(), None);
        assert_eq!(flow.timeout(), Some(Instant::from_millis(3_605_000)));
        let forgotten = flow.at(3_605_000).action();
        assert_eq!(forgotten, Some(Action::Reset { client: false, server: true }));
    }
}
