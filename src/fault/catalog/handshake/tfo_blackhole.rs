//! `tfo-blackhole`: a middlebox loses SYNs that it does not understand.

use std::sync::Arc;

use crate::fault::{Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Verdict, Way};
use crate::trace::{Direction, Leg};
use crate::wire::{Flags, Segment};

pub(in crate::fault) const KIND: Kind = Kind {
    name: "tfo-blackhole",
    summary: "loses SYNs with data or with the TCP Fast Open option; plain ones pass",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec, Engine::Sockets],
    example: "tfo-blackhole first=all",
    attributes: &[],
    bounds: &["first", "nth", "after", "for", "at", "every", "share"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H24",
        incident: "RFC 7413 §7.1: paths that drop what carries option 34; Linux has tcp_fastopen_blackhole_timeout_sec for them",
    },
    also: &[],
    scene: Scene { rule: "tfo-blackhole", play: Play::Extensions },
    sees: "a client with TCP_FASTOPEN_CONNECT or MSG_FASTOPEN connects 1.0 s late, by the SYN that comes again without the \
           option; the others notice nothing.",
    build: |_, _| Ok(Arc::new(TfoBlackhole)),
};

/// IANA: Fast Open, and the number of the experiments before it (RFC 6994).
const FAST_OPEN: [u8; 2] = [34, 254];

#[derive(Debug)]
struct TfoBlackhole;

impl Fault for TfoBlackhole {
    fn direction(&self) -> Direction {
        Direction::Upstream
    }

    fn selects(&self, at: Point, seg: &Segment, _: &Progress) -> bool {
        at == Point { leg: Leg::Client, way: Way::In }
            && seg.has(Flags::SYN)
            && !seg.has(Flags::ACK)
            && (!seg.payload.is_empty() || seg.options.unknown_kinds().any(|kind| FAST_OPEN.contains(&kind)))
    }

    fn on_segment(&self, _: &mut Moment<'_>, _: &mut Segment) -> Verdict {
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::testing::{Flow, seg};
    use crate::wire::Options;

    /// A SYN with these option bytes, read as from the wire.
    fn syn(options: &[u8]) -> Segment {
        Segment { options: Options::parse(options), ..seg(Flags::SYN) }
    }

    #[test]
    fn only_syns_with_data_or_fast_open_are_lost() {
        let mut with_data = seg(Flags::SYN);
        with_data.payload = b"GET /"[..].into();
        for (what, segment, lost) in [
            ("a plain SYN", seg(Flags::SYN), 'P'),
            ("one with MSS and SACK", syn(&[2, 4, 5, 180, 4, 2, 1, 1]), 'P'),
            ("one that asks for a cookie", syn(&[2, 4, 5, 180, 34, 2, 1, 1]), 'D'),
            ("one with a cookie", syn(&[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]), 'D'),
            ("one with the old number", syn(&[254, 4, 0xf9, 0x89]), 'D'),
            ("one with another option", syn(&[30, 4, 34, 34]), 'P'),
            ("one with data", with_data, 'D'),
            ("data later on", Segment { payload: b"x"[..].into(), ..seg(Flags::ACK) }, 'P'),
        ] {
            let mut flow = Flow::of("tfo-blackhole");
            assert_eq!(flow.letter(Leg::Client, Way::In, &segment), lost, "{what}");
        }
    }
}
