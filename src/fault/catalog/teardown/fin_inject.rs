//! `fin-inject`: an application gets a FIN in the middle of its work, while the far side stays open.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{Action, Alias, AttributeDoc, Engine, Fault, Kind, Play, Scene, Source, Topic, Unit};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "fin-inject",
    summary: "sends FIN at a byte or at a time, as if the far side had closed",
    topic: Topic::Teardown,
    engines: &Engine::ALL,
    example: "fin-inject to=client after_bytes=1",
    attributes: &[
        AttributeDoc {
            name: "to",
            unit: Unit::Word(&["client", "server", "both"]),
            default: "client",
            zero: "",
            doc: "Who gets the FIN. What the far side still sends to it is acknowledged and lost; the other direction goes on.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "Whose bytes `after_bytes` counts: upstream the client's, downstream the server's.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: Some(("after_bytes", "1")),
    scales: &["after"],
    source: Source {
        id: "T5",
        incident: "haproxy/haproxy#1362, #1453, kubernetes/kubernetes#18354: sockets that stay in CLOSE-WAIT by the thousand",
    },
    also: &[Alias {
        id: "T12",
        name: "graceful-close-crossing",
        rule: "fin-inject to=client direction=upstream after_bytes=1",
    }],
    scene: Scene { rule: "fin-inject to=client after_bytes=1", play: Play::Talk },
    sees: "read() gives 0 where a reply was due; a socket that is not closed then stays in CLOSE-WAIT for ever, and writes to \
           it still succeed.",
    build: |reader, bounds| {
        if bounds.lasts.is_some() && bounds.at.is_none() {
            return Err(
                reader.wrong("for", "changes nothing without `at`: the FIN comes once, at its first chance")
            );
        }
        let to = reader.word("to")?;
        let (client, server) = (to != Some("server"), to == Some("server") || to == Some("both"));
        Ok(Arc::new(FinInject { direction: reader.direction("direction")?, client, server }))
    },
};

#[derive(Debug)]
struct FinInject {
    direction: Direction,
    client: bool,
    server: bool,
}

impl Fault for FinInject {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn action(&self) -> Option<Action> {
        Some(Action::Finish { client: self.client, server: self.server })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error};

    #[test]
    fn the_fin_comes_once_when_its_bounds_are_met() {
        let bytes = [(0, 0), (1, 0), (50, 20), (100, 100)];
        for (rule, expected, client, server) in [
            ("fin-inject", Some(1), true, false),
            ("fin-inject to=server after_bytes=51", Some(3), false, true),
            ("fin-inject to=both direction=downstream", Some(2), true, true),
            ("fin-inject after_bytes=0 after=200ms", Some(2), true, false),
            ("fin-inject after_bytes=101", None, true, false),
        ] {
            let mut flow = Flow::of(rule);
            flow.at(100).established();
            let seen: Vec<_> = (1..)
                .zip(bytes)
                .map(|(i, (up, down))| flow.at(100 * i).received(up, down).action())
                .collect();
            let hits: Vec<usize> = (0..4).filter(|i| seen[*i].is_some()).collect();
            assert_eq!(hits, Vec::from_iter(expected), "{rule}");
            let finish = Action::Finish { client, server };
            assert!(seen.iter().flatten().all(|action| *action == finish), "{rule}");
        }
    }

    #[test]
    fn an_end_without_a_moment_is_refused() {
        assert!(error("fin-inject for=1s").contains("changes nothing without `at`"));
    }
}
