//! `rst-inject`: somebody on the path resets the connection.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::Met;
use crate::fault::{
    Action, Alias, AttributeDoc, Engine, Fault, Kind, Memory, Play, Progress, Scene, Source, Topic, Unit,
};
use crate::time::{Duration, Instant};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "rst-inject",
    summary: "resets the connection with exact numbers, at a byte or at a time",
    topic: Topic::Established,
    engines: &Engine::ALL,
    example: "rst-inject to=both after_bytes=1",
    attributes: &[
        AttributeDoc {
            name: "to",
            unit: Unit::Word(&["client", "server", "both"]),
            default: "both",
            zero: "",
            doc: "Who gets the RST. A peer without one meets silence until it speaks, then RST.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Whose bytes `after_bytes` counts: upstream the client's, downstream the server's.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 3600 },
            default: "0",
            zero: "at once",
            doc: "How long after its bounds are met the RST comes, as from somebody beside the path who has to think: 7 ms were \
                  seen. What is said meanwhile passes. Not with `for`.",
        },
        AttributeDoc {
            name: "before_reply",
            unit: Unit::Bool,
            default: "false",
            zero: "",
            doc: "True: only while no byte of the server has come, as for the connections that wait in the queues of a listener \
                  that is closed: with `at` and `for`, and a refusal of new connections in the same time, a listener's restart.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    // The first data byte.
    default_bound: Some(("after_bytes", "1")),
    scales: &["after"],
    source: Source {
        id: "E16",
        incident: "klzgrad/naiveproxy#558: RST 7 ms after the ClientHello on a path of 318 ms; net4people/bbs#285",
    },
    also: &[
        Alias { id: "T18", name: "drain-cut", rule: "rst-inject at=300s" },
        Alias { id: "T19", name: "max-age", rule: "rst-inject after=1h" },
        Alias {
            id: "T17",
            name: "listener-restart",
            rule: "rst-inject to=client before_reply=true after_bytes=0 at=10s for=2s",
        },
    ],
    scene: Scene { rule: "rst-inject to=both after_bytes=1", play: Play::Talk },
    sees: "recv() gives ECONNRESET, then send() EPIPE.",
    build: |reader, bounds| {
        if bounds.lasts.is_some() && bounds.at.is_none() {
            return Err(reader
                .wrong("for", "changes nothing without `at`: the reset comes once, at its first chance"));
        }
        let delay = reader.duration("delay")?.unwrap_or_default();
        if bounds.lasts.is_some() && !delay.is_zero() {
            return Err(reader.wrong("delay", "cannot stand with `for`, which would be over before"));
        }
        let to = reader.word("to")?;
        let (client, server) = (to != Some("server"), to != Some("client"));
        let before_reply = reader.flag("before_reply")?.unwrap_or(false);
        let direction = reader.direction("direction")?;
        Ok(Arc::new(RstInject { direction, client, server, delay, before_reply }))
    },
};

#[derive(Debug)]
struct RstInject {
    direction: Direction,
    client: bool,
    server: bool,
    delay: Duration,
    before_reply: bool,
}

impl Fault for RstInject {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn action(&self) -> Option<Action> {
        Some(Action::Reset { client: self.client, server: self.server })
    }

    fn notice(&self, now: Instant, _: &Progress, memory: &mut Memory) {
        Met::notice(now, memory);
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        Met::due(memory, self.delay)
    }

    fn is_for(&self, progress: &Progress) -> bool {
        !self.before_reply || progress.downstream_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;
    use crate::time::Instant;

    #[test]
    fn the_reset_comes_once_when_its_bounds_are_met() {
        // (upstream, downstream) bytes at 100, 200, ... ms; the index at which the reset comes
        let bytes = [(0, 0), (1, 0), (50, 20), (100, 99), (100, 100)];
        for (rule, expected) in [
            ("rst-inject", Some(1)),
            ("rst-inject after_bytes=51", Some(3)),
            ("rst-inject direction=downstream after_bytes=1", Some(2)),
            ("rst-inject after_bytes=101", None),
            ("rst-inject after=200ms", Some(2)),
            ("rst-inject after=100ms after_bytes=60", Some(3)),
            ("rst-inject after_bytes=0", Some(0)),
        ] {
            let mut flow = Flow::of(rule);
            flow.at(100).established();
            let seen: Vec<bool> = (1..)
                .zip(bytes)
                .map(|(i, (up, down))| flow.at(100 * i).received(up, down).action().is_some())
                .collect();
            assert_eq!(seen.iter().position(|hit| *hit), expected, "{rule}");
            assert_eq!(
                seen.iter().filter(|hit| **hit).count(),
                usize::from(expected.is_some()),
                "{rule}: once"
            );
        }
    }

    #[test]
    fn a_flow_that_has_a_reply_may_be_spared() {
        for (rule, replied, hit) in [
            ("rst-inject before_reply=true at=1s for=1s after_bytes=0", 0, true),
            ("rst-inject before_reply=true at=1s for=1s after_bytes=0", 1, false),
            ("rst-inject at=1s for=1s after_bytes=0", 1, true),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            assert!(flow.at(999).action().is_none());
            assert_eq!(flow.at(1000).received(0, replied).action().is_some(), hit, "{rule}, {replied}");
        }
    }

    #[test]
    fn the_peers_are_chosen_and_each_reset_is_told() {
        for (rule, client, server, fired) in [
            ("rst-inject to=client", true, false, &["0.000 client downstream inject"][..]),
            ("rst-inject to=server", false, true, &["0.000 server upstream inject"]),
            ("rst-inject", true, true, &["0.000 client downstream inject", "0.000 server upstream inject"]),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            assert_eq!(flow.received(1, 0).action(), Some(Action::Reset { client, server }), "{rule}");
            assert_eq!(flow.fired(), fired, "{rule}");
        }
    }

    #[test]
    fn a_time_asks_to_be_woken_but_not_before_the_handshake() {
        let mut flow = Flow::of("rst-inject after=5s");
        assert_eq!((flow.at(10).action(), flow.timeout()), (None, None));
        flow.at(20).established();
        assert_eq!((flow.action(), flow.timeout()), (None, Some(Instant::from_millis(5020))));
        assert!(flow.at(5020).action().is_some());
        assert_eq!(flow.timeout(), None);
    }

    #[test]
    fn a_delay_counts_from_the_moment_at_which_the_bounds_are_met() {
        let mut flow = Flow::of("rst-inject after_bytes=1 delay=7ms");
        flow.at(20).established();
        assert_eq!(
            (flow.at(100).received(1, 0).action(), flow.timeout()),
            (None, Some(Instant::from_millis(107)))
        );
        assert_eq!(flow.at(105).received(500, 0).action(), None, "more bytes do not matter");
        assert!(flow.at(107).action().is_some());
        assert_eq!((flow.action(), flow.timeout()), (None, None));
        let error = crate::fault::testing::error("rst-inject at=5s for=1s delay=2s");
        assert!(error.contains("cannot stand with `for`"), "{error}");
    }

    #[test]
    fn a_moment_of_the_run_resets_the_flows_that_are_open_then() {
        let reset = |established, asked| {
            let mut flow = Flow::of("rst-inject at=5s for=1s");
            flow.at(established).established();
            let before = flow.action().is_some();
            let acted = flow.at(asked).action().is_some();
            (before, acted, flow.timeout().map(Instant::as_millis))
        };
        assert_eq!(reset(20, 4999), (false, false, Some(5000)));
        assert_eq!(reset(20, 5000), (false, true, None));
        assert_eq!(reset(5500, 5500), (true, false, None), "one that opens in between, at once");
        assert_eq!(reset(6000, 9000), (false, false, None));
        assert_eq!(
            crate::fault::testing::error("rst-inject for=1s"),
            "fault.rst-inject.for = \"1s\": changes nothing without `at`: the reset comes once, at its first chance; \
             allowed: 0 to 1day, with a unit such as \"200ms\" or \"1.5s\""
        );
    }
}
