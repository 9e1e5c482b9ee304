//! `acked-but-lost`: whoever acknowledged the data dies before it has passed them on.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::catalog::stream::reset_peer::LoseThenReset;
use crate::fault::{AttributeDoc, Engine, Kind, Play, Scene, Source, Topic, Unit};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "acked-but-lost",
    summary: "acknowledges the data of one direction, loses them, and resets both sides",
    topic: Topic::Established,
    engines: &[Engine::Tun, Engine::Exec],
    example: "acked-but-lost direction=upstream after_bytes=1 hold=200ms",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "upstream",
            zero: "",
            doc: "The direction of the data that get lost, their end too; upstream loses the client's requests.",
        },
        AttributeDoc {
            name: "hold",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "200ms",
            zero: "in place of the acknowledgement, so that nothing is acknowledged",
            doc: "How long after the first lost data the RST comes. Till then all is well for the writer.",
        },
    ],
    // It cannot end before the connection does: later bytes would follow a hole.
    bounds: &["after_bytes", "after", "at"],
    default_bound: Some(("after_bytes", "1")),
    scales: &[],
    source: Source {
        id: "E26",
        incident: "every split-TCP proxy or load balancer that crashes: what it has acknowledged is gone",
    },
    also: &[],
    scene: Scene { rule: "acked-but-lost hold=1s", play: Play::Talk },
    sees: "send() succeeds and SIOCOUTQ is 0, though the server never gets a byte; then recv() gives ECONNRESET. Only a reply \
           of the application proves delivery.",
    build: |reader, _| {
        Ok(Arc::new(LoseThenReset {
            direction: reader.direction("direction")?,
            after: reader.duration("hold")?.unwrap_or_default(),
        }))
    },
};

#[cfg(test)]
mod tests {
    use crate::fault::Action;
    use crate::fault::testing::Flow;
    use crate::time::Instant;
    use crate::trace::Direction;

    #[test]
    fn the_first_bytes_are_lost_and_the_reset_follows_after_the_hold() {
        let reset = Some(Action::Reset { client: true, server: true });
        for (rule, lost, opened) in [
            ("acked-but-lost hold=1s", Direction::Upstream, 300),
            ("acked-but-lost hold=1s after_bytes=51", Direction::Upstream, 400),
            ("acked-but-lost hold=1s direction=downstream", Direction::Downstream, 500),
            ("acked-but-lost hold=1s after=100ms", Direction::Upstream, 200),
        ] {
            let mut flow = Flow::of(rule);
            flow.at(100).established();
            for (at, up, down) in [(200, 0, 0), (300, 50, 0), (400, 51, 0), (500, 51, 9)] {
                flow.at(at).received(up, down);
                let shape = flow.shape(lost);
                let expected = at >= opened;
                assert_eq!((shape.lose, shape.lose_fin), (expected, expected), "{rule} at {at}");
                assert_eq!(flow.action(), None, "{rule} at {at}");
            }
            assert_eq!(flow.timeout(), Some(Instant::from_millis(opened + 1000)), "{rule}");
            assert_eq!(flow.at(opened + 999).action(), None, "{rule}");
            assert_eq!((flow.at(opened + 1000).action(), flow.action()), (reset, None), "{rule}");
        }
    }
}
