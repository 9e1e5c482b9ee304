//! `mss-rewrite`: a middlebox that announces another segment size than the hosts.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::pick;
use crate::fault::attributes::{DIRECTIONS_BOTH, Directions};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "mss-rewrite",
    summary: "writes another MSS into the SYN, the SYN-ACK or both",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "mss-rewrite mss=536",
    attributes: &[
        AttributeDoc {
            name: "mss",
            unit: Unit::Count { from: 1, to: 65_535 },
            default: "536",
            zero: "",
            doc: "What is announced, in bytes; also more than there was. Linux takes less than 48 as 48 (tcp_min_snd_mss): 36 \
                  bytes of data with timestamps. Kernel sockets (TCP_MAXSEG) take 88 to 32767 and announce less, never more; \
                  their own segments on that leg are no larger either.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "both",
            zero: "",
            doc: "Upstream is the client's SYN, which bounds the segments of the server; downstream is the SYN-ACK, which bounds \
                  those of the client.",
        },
    ],
    bounds: &[],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H11",
        incident: "CVE-2019-11479: tiny segments eat a server's memory and time; MSS clamping of tunnels and PPPoE",
    },
    also: &[],
    scene: Scene { rule: "mss-rewrite mss=536", play: Play::Talk },
    sees: "many small segments: more packets and more work for the same bytes, and read() returns pieces that cut records \
           anywhere.",
    build: |reader, _| {
        let mss = reader.count("mss")?.and_then(|mss| u16::try_from(mss).ok()).unwrap_or(u16::MAX);
        Ok(Arc::new(MssRewrite { mss, directions: reader.directions("direction")? }))
    },
};

/// Values that Linux lets a socket announce (`TCP_MIN_MSS`, `MAX_TCP_WINDOW`).
const TAKEN: RangeInclusive<u16> = 88..=32_767;
const TAKES: &str = "its kernel sockets take an MSS of 88 to 32767 bytes";

#[derive(Debug)]
struct MssRewrite {
    mss: u16,
    directions: Directions,
}

impl Fault for MssRewrite {
    fn direction(&self) -> Direction {
        self.directions.first()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        if engine == Engine::Sockets {
            return (!TAKEN.contains(&self.mss)).then_some(TAKES);
        }
        let syn_alone = self.directions == Directions::One(Direction::Upstream);
        (engine == Engine::Exec && syn_alone).then_some(super::ANSWERS_WITH_THE_MSS_OF_THE_SYN)
    }

    /// Where the segment enters, so that both legs obey; where it comes from a kernel socket, where it leaves.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let syn_ack_at = match progress.server_is_socket {
            true => pick::TO_CLIENT,
            false => Point { leg: Leg::Server, way: Way::In },
        };
        let upstream = self.directions.contains(Direction::Upstream) && pick::is_syn(at, seg, progress);
        let syn_ack = at == syn_ack_at && seg.has(Flags::SYN | Flags::ACK);
        upstream || (self.directions.contains(Direction::Downstream) && syn_ack)
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        let kernels = moment.progress.has_no_segments();
        let rewrites = match seg.options.mss {
            Some(mss) if kernels => mss > self.mss,
            Some(mss) => mss != self.mss,
            // The kernel's own choice.
            None => kernels,
        };
        if !rewrites {
            return Verdict::Pass;
        }
        seg.options.mss = Some(self.mss);
        Verdict::Rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, error, refused, seg};

    /// The MSS of a SYN and of a SYN-ACK that enters and leaves.
    fn seen(rule: &str, socket: bool) -> [Option<u16>; 3] {
        let mut flow = Flow::of(rule);
        flow.progress.server_is_socket = socket;
        let syn_ack = Flags::SYN | Flags::ACK;
        let all = [
            (pick::FROM_CLIENT, Flags::SYN),
            (Point { leg: Leg::Server, way: Way::In }, syn_ack),
            (pick::TO_CLIENT, syn_ack),
        ];
        all.map(|(at, flags)| {
            let mut segment = seg(flags);
            segment.options.mss = Some(1460);
            flow.judge(at, &mut segment);
            segment.options.mss
        })
    }

    #[test]
    fn the_mss_is_rewritten_where_the_announcement_enters() {
        let (old, new) = (Some(1460), Some(536));
        for (rule, socket, expected) in [
            ("mss-rewrite", false, [new, new, old]),
            ("mss-rewrite", true, [new, old, new]),
            ("mss-rewrite direction=upstream", false, [new, old, old]),
            ("mss-rewrite direction=downstream", false, [old, new, old]),
            ("mss-rewrite mss=8960 direction=upstream", false, [Some(8960), old, old]),
        ] {
            assert_eq!(seen(rule, socket), expected, "{rule}, socket {socket}");
        }
    }

    #[test]
    fn kernel_sockets_announce_less_and_never_more() {
        let syn_ack = Flags::SYN | Flags::ACK;
        for (rule, flags, before, after) in [
            ("mss-rewrite", Flags::SYN, Some(1460), Some(536)),
            ("mss-rewrite", Flags::SYN, None, Some(536)),
            ("mss-rewrite mss=8960", Flags::SYN, Some(1460), Some(1460)),
            ("mss-rewrite", syn_ack, None, Some(536)),
            ("mss-rewrite direction=upstream", syn_ack, None, None),
        ] {
            let mut flow = Flow::of(rule);
            (flow.progress.server_is_socket, flow.progress.client_is_socket) = (true, true);
            let at = if flags == syn_ack { pick::TO_CLIENT } else { pick::FROM_CLIENT };
            let mut segment = seg(flags);
            segment.options.mss = before;
            flow.judge(at, &mut segment);
            assert_eq!(segment.options.mss, after, "{rule} {flags}");
        }
        let mut published = Flow::of("mss-rewrite mss=8960");
        published.progress.client_is_socket = true;
        let mut syn_ack = seg(syn_ack);
        syn_ack.options.mss = Some(1460);
        published.judge(Point { leg: Leg::Server, way: Way::In }, &mut syn_ack);
        assert_eq!(syn_ack.options.mss, Some(8960), "the server leg is our own TCP");
        for (mss, refuses) in [(87, true), (88, false), (32_767, false), (32_768, true)] {
            let rule = format!("mss-rewrite mss={mss}");
            assert_eq!(refused(&rule, Engine::Sockets).is_some(), refuses, "{rule}");
        }
    }

    #[test]
    fn exec_refuses_to_rewrite_the_syn_alone() {
        for (rule, refuses) in [
            ("mss-rewrite", false),
            ("mss-rewrite direction=downstream", false),
            ("mss-rewrite direction=upstream", true),
        ] {
            assert_eq!(refused(rule, Engine::Exec).is_some(), refuses, "{rule}");
        }
    }

    #[test]
    fn nothing_is_rewritten_where_nothing_is_announced_and_zero_is_refused() {
        let mut flow = Flow::of("mss-rewrite");
        assert_eq!(flow.judge(pick::FROM_CLIENT, &mut seg(Flags::SYN)), Verdict::Pass);
        let mut same = seg(Flags::SYN);
        same.options.mss = Some(536);
        assert_eq!(flow.judge(pick::FROM_CLIENT, &mut same), Verdict::Pass);
        assert!(error("mss-rewrite mss=0").contains("too small"));
    }
}
