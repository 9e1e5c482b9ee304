//! `final-ack-drop`: the last segment of the handshake gets lost.

use std::sync::Arc;

use super::pick;
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
};
use crate::trace::Direction;
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "final-ack-drop",
    summary: "loses the client's handshake ACK: the client is connected, the server is not yet",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "final-ack-drop first=1",
    attributes: &[AttributeDoc {
        name: "drop_data",
        unit: Unit::Bool,
        default: "false",
        zero: "",
        doc: "Whether data that come before the handshake is complete are lost too, and counted by the bounds. False: the first \
              data carry the missing ACK.",
    }],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: Some(("first", "1")),
    scales: &[],
    source: Source {
        id: "H4",
        incident: "protocols in which the server speaks first (SMTP, SSH, MySQL, FTP) pay 1.0 s for one lost ACK, measured on \
                   Linux 6.18; described with SYN cookies",
    },
    also: &[],
    scene: Scene { rule: "final-ack-drop drop_data=true for=950ms", play: Play::Greeting },
    sees: "connect() returns at once. A server that speaks first is accepted, and heard, 1.0 s late, when its SYN-ACK has come \
           again; a client that speaks first loses nothing.",
    build: |reader, _| Ok(Arc::new(FinalAckDrop { drop_data: reader.flag("drop_data")?.unwrap_or(false) })),
};

#[derive(Debug)]
struct FinalAckDrop {
    drop_data: bool,
}

impl Fault for FinalAckDrop {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        pick::completes(at, seg, progress) && (self.drop_data || seg.seq_len() == 0)
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::Way;
    use crate::fault::testing::{Flow, seg};
    use crate::trace::Leg;
    use crate::wire::Flags;

    /// An ACK, data, an ACK and data again.
    fn seen(flow: &mut Flow) -> String {
        let ack = seg(Flags::ACK);
        let mut data = seg(Flags::ACK | Flags::PSH);
        data.payload = b"hello"[..].into();
        let all = [(0, &ack), (200, &data), (1000, &ack), (1100, &data)];
        all.map(|(at, seg)| flow.at(at).letter(Leg::Client, Way::In, seg)).into_iter().collect()
    }

    #[test]
    fn what_completes_the_handshake_is_lost_within_the_bounds() {
        for (rule, lost) in [
            ("final-ack-drop", "DPPP"),
            ("final-ack-drop first=2", "DPDP"),
            ("final-ack-drop first=2 drop_data=true", "DDPP"),
            ("final-ack-drop drop_data=true for=1100ms", "DDDP"),
            ("final-ack-drop drop_data=true first=all", "DDDD"),
        ] {
            let mut flow = Flow::of(rule);
            flow.answered();
            assert_eq!(seen(&mut flow), lost, "{rule}");
        }
    }

    #[test]
    fn before_the_syn_ack_and_after_the_handshake_nothing_is_lost() {
        let mut flow = Flow::of("final-ack-drop first=all drop_data=true");
        assert_eq!(seen(&mut flow), "PPPP", "nothing to complete yet");
        flow.answered();
        for flags in [Flags::SYN, Flags::RST, Flags::RST | Flags::ACK] {
            assert_eq!(flow.letter(Leg::Client, Way::In, &seg(flags)), 'P', "{flags:?}");
        }
        assert_eq!(flow.letter(Leg::Server, Way::In, &seg(Flags::ACK)), 'P');
        flow.established();
        assert_eq!(seen(&mut flow), "PPPP", "complete");
    }
}
