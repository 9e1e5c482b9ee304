//! `timeout`: no data get through, and then the connection closes.

use std::sync::Arc;

use crate::fault::attributes::DIRECTIONS;
use crate::fault::{
    Action, AttributeDoc, Engine, Fault, Kind, Memory, Play, Progress, Scene, Shape, Source, Topic, Unit,
};
use crate::time::{Duration, Instant};
use crate::trace::Direction;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "timeout",
    summary: "acknowledges and loses all data of one direction, and closes when none has come for a while",
    topic: Topic::Stream,
    engines: &Engine::ALL,
    example: "timeout direction=downstream timeout=30s",
    attributes: &[
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS,
            default: "downstream",
            zero: "",
            doc: "The direction of the data that get lost.",
        },
        AttributeDoc {
            name: "timeout",
            unit: Unit::Duration { max_secs: 86_400 },
            default: "30s",
            zero: "never closes",
            doc: "How long after the last data of this direction both sides get a FIN. Each piece of data starts it anew.",
        },
    ],
    // It cannot end before the connection does: later bytes would follow a hole.
    bounds: &["after_bytes", "after", "at"],
    default_bound: None,
    scales: &["timeout"],
    source: Source { id: "X4", incident: "Toxiproxy's toxic of this name" },
    also: &[],
    scene: Scene { rule: "timeout timeout=1s", play: Play::Pause },
    sees: "connect() and send() succeed and no byte comes; end-of-file after the timeout, or never with timeout = 0.",
    build: |reader, _| {
        Ok(Arc::new(Timeout {
            direction: reader.direction("direction")?,
            timeout: reader.duration("timeout")?.unwrap_or_default(),
        }))
    },
};

#[derive(Debug)]
struct Timeout {
    direction: Direction,
    timeout: Duration,
}

/// Bytes of the direction, and since when there were no more.
#[derive(Default)]
struct Quiet(Option<(u64, Instant)>);

impl Fault for Timeout {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn shape(&self, direction: Direction, shape: &mut Shape) -> bool {
        shape.lose = true;
        direction == self.direction
    }

    fn action(&self) -> Option<Action> {
        (!self.timeout.is_zero()).then_some(Action::Finish { client: true, server: true })
    }

    fn notice(&self, now: Instant, progress: &Progress, memory: &mut Memory) {
        let bytes = progress.bytes(self.direction);
        let quiet = &mut memory.of::<Quiet>().0;
        if quiet.is_none_or(|(before, _)| before != bytes) {
            *quiet = Some((bytes, now));
        }
    }

    fn due(&self, memory: &Memory) -> Option<Instant> {
        memory.get::<Quiet>()?.0.map(|(_, since)| since + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::Flow;

    #[test]
    fn the_data_of_one_direction_are_lost_within_the_bounds() {
        for (rule, upstream, downstream) in [
            ("timeout", false, true),
            ("timeout direction=upstream", true, false),
            ("timeout after=1s", false, false),
            ("timeout after_bytes=5", false, true),
            ("timeout after_bytes=6", false, false),
        ] {
            let mut flow = Flow::of(rule);
            flow.established();
            flow.received(5, 5);
            let seen = [Direction::Upstream, Direction::Downstream].map(|way| flow.shape(way).lose);
            assert_eq!(seen, [upstream, downstream], "{rule}");
        }
    }

    /// As Toxiproxy does it: a byte every 150 ms against a timeout of 500 never closes.
    #[test]
    fn data_start_the_clock_anew_and_zero_never_closes() {
        let mut flow = Flow::of("timeout timeout=500ms");
        flow.established();
        for step in 0..10 {
            assert_eq!(flow.at(150 * step).received(step, step).action(), None);
        }
        assert_eq!(flow.timeout(), Some(Instant::from_millis(1350 + 500)));
        let closed = Some(Action::Finish { client: true, server: true });
        assert_eq!(flow.at(1849).received(99, 9).action(), None, "the other direction does not count");
        assert_eq!((flow.at(1850).action(), flow.action()), (closed, None));
        assert_eq!(flow.timeout(), None);
        let mut never = Flow::of("timeout timeout=0");
        never.established();
        assert_eq!((never.at(1 << 40).action(), never.timeout()), (None, None));
    }
}
