//! `accept-first`: something on the path accepts the client before it has asked the server.

use std::sync::Arc;

use crate::fault::{
    AcceptFirst, AttributeDoc, Engine, Fault, Kind, OnFail, Play, Scene, Source, Topic, Unit,
};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "accept-first",
    summary: "accepts the client at once and dials the server afterwards, as load balancers do",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "accept-first on_fail=rst",
    attributes: &[
        AttributeDoc {
            name: "on_fail",
            unit: Unit::Word(&["fin", "rst", "hang"]),
            default: "fin",
            zero: "",
            doc: "What the client sees when the server refuses or stays silent (127 s): FIN as from docker-proxy, RST, or an \
                  open connection on which nothing ever comes.",
        },
        AttributeDoc {
            name: "delay",
            unit: Unit::Duration { max_secs: 300 },
            default: "0",
            zero: "at once",
            doc: "How long after the client's SYN the server is dialled. What the client sends meanwhile waits.",
        },
    ],
    bounds: &["at", "for", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H21",
        incident: "moby/moby#16976, #48132, testcontainers/testcontainers-java#160: the port is open, and then end-of-file",
    },
    also: &[],
    scene: Scene { rule: "accept-first delay=500ms", play: Play::Talk },
    sees: "connect() always succeeds at once, also to a server that is down; then the first read gives end-of-file (fin), \
           ECONNRESET (rst) or nothing (hang). Checks of the open port pass.",
    build: |reader, _| {
        let on_fail = match reader.word("on_fail")? {
            Some("rst") => OnFail::Reset,
            Some("hang") => OnFail::Hang,
            _ => OnFail::Finish,
        };
        let delay = reader.duration("delay")?.unwrap_or_default();
        Ok(Arc::new(First(AcceptFirst { delay, on_fail })))
    },
};

#[derive(Debug)]
struct First(AcceptFirst);

impl Fault for First {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn accepts_first(&self) -> Option<AcceptFirst> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;
    use crate::time::Duration;

    #[test]
    fn the_client_is_accepted_as_the_rule_says() {
        let how = |millis, on_fail| Some(AcceptFirst { delay: Duration::from_millis(millis), on_fail });
        for (rule, at, expected) in [
            ("accept-first", 0, how(0, OnFail::Finish)),
            ("accept-first on_fail=rst delay=2s", 0, how(2000, OnFail::Reset)),
            ("accept-first on_fail=hang at=10s for=1s", 10_500, how(0, OnFail::Hang)),
            ("accept-first at=10s for=1s", 9_999, None),
            ("accept-first at=10s for=1s", 11_000, None),
            ("syn-drop", 0, None),
        ] {
            let mut flow = Flow::of(rule);
            assert_eq!(flow.at(at).accepts_first(), expected, "{rule} at {at} ms");
            assert_eq!(flow.timeout(), None, "{rule}: only a SYN asks");
            assert_eq!(flow.fired().len(), usize::from(expected.is_some()), "{rule}");
        }
    }
}
