//! `pmtu-blackhole`: a path whose packets are smaller than the hosts believe.

use std::sync::Arc;

use crate::fault::attributes::{DIRECTIONS_BOTH, Directions};
use crate::fault::{
    AttributeDoc, Engine, Fault, Kind, Moment, Play, Point, Progress, Scene, Source, Topic, Unit, Verdict,
    Way,
};
use crate::trace::{Direction, Leg};
use crate::wire::Segment;

pub(in crate::fault) const KIND: Kind = Kind {
    name: "pmtu-blackhole",
    summary: "drops packets that are longer than the MTU of the path, with or without telling the sender",
    topic: Topic::Handshake,
    engines: &[Engine::Tun, Engine::Exec],
    example: "pmtu-blackhole mtu=1400 icmp=none",
    attributes: &[
        AttributeDoc {
            name: "mtu",
            unit: Unit::Count { from: 68, to: 65_535 },
            default: "1400",
            zero: "",
            doc: "The longest packet that passes, in bytes with its IP header.",
        },
        AttributeDoc {
            name: "icmp",
            unit: Unit::Word(&["none", "frag-needed"]),
            default: "none",
            zero: "",
            doc: "What the sender hears: nothing, or \"fragmentation needed\" (IPv6: \"packet too big\") with the MTU, as path \
                  MTU discovery needs it. Linux believes no less than 552 bytes, over IPv6 no less than 1280.",
        },
        AttributeDoc {
            name: "direction",
            unit: DIRECTIONS_BOTH,
            default: "both",
            zero: "",
            doc: "Whose packets are dropped.",
        },
    ],
    bounds: &["after_bytes", "after", "for", "at", "every"],
    default_bound: None,
    scales: &[],
    source: Source {
        id: "H12",
        incident: "moby/moby#22028, #12565, docker/for-linux#594, hashicorp/setup-packer#49: an overlay or VPN with a small MTU, and \
                   a firewall that drops ICMP",
    },
    also: &[],
    scene: Scene { rule: "pmtu-blackhole mtu=1400 direction=downstream", play: Play::Download },
    sees: "connect() and small messages work, the first large one (a certificate, a POST) hangs: Linux sends it again after 0.2, \
           0.65, 1.5, 3.2, 6.5, 13, 26 s and ends with ETIMEDOUT; tcp_mtu_probing = 1 gets through after 3.2 or 6.5 s, ICMP in one \
           round trip.",
    build: |reader, _| {
        Ok(Arc::new(PmtuBlackhole {
            mtu: reader.count("mtu")?.and_then(|mtu| u32::try_from(mtu).ok()).unwrap_or(u32::MAX),
            icmp: reader.word("icmp")? == Some("frag-needed"),
            directions: reader.directions("direction")?,
        }))
    },
};

#[derive(Debug)]
struct PmtuBlackhole {
    mtu: u32,
    icmp: bool,
    directions: Directions,
}

/// The length of its IP packet; none of ours has IP options.
fn packet_len(seg: &Segment, ipv6: bool) -> u32 {
    let ip = if ipv6 { 40 } else { 20 };
    ip + 20 + seg.options.to_bytes().len() as u32 + seg.payload.len()
}

impl Fault for PmtuBlackhole {
    fn direction(&self) -> Direction {
        self.directions.first()
    }

    fn refusal(&self, engine: Engine) -> Option<&'static str> {
        let tells_server = self.icmp && self.directions.contains(Direction::Downstream);
        (engine == Engine::Exec && tells_server)
            .then_some("its server leg is a kernel socket, whose peer it cannot send an ICMP error to")
    }

    /// A packet is met where it enters, so that its sender stays without an ACK; where that is a kernel socket, where it leaves.
    fn selects(&self, at: Point, seg: &Segment, progress: &Progress) -> bool {
        let direction = at.direction();
        let here = match direction {
            Direction::Downstream if progress.server_is_socket => Point { leg: Leg::Client, way: Way::Out },
            direction => Point { leg: direction.enters(), way: Way::In },
        };
        at == here && self.directions.contains(direction) && packet_len(seg, progress.ipv6) > self.mtu
    }

    fn on_segment(&self, moment: &mut Moment<'_>, seg: &mut Segment) -> Verdict {
        if self.icmp {
            // Routers do not limit the rate of these (icmp_ratelimit of Linux spares them).
            let (kind, code) = if moment.progress.ipv6 { (2, 0) } else { (3, 4) };
            moment.icmp(seg, kind, code, self.mtu);
        }
        Verdict::Drop
    }

    fn per_segment(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Deed;
    use crate::fault::testing::{Flow, refused, seg};
    use crate::wire::{Flags, Timestamps};

    fn data(len: usize) -> Segment {
        let mut segment = seg(Flags::ACK);
        segment.options.timestamps = Some(Timestamps::default());
        segment.payload = bytes::Bytes::from(vec![0; len]).into();
        segment
    }

    #[test]
    fn packets_longer_than_the_mtu_are_lost() {
        // The payload that just fits 1400 bytes: 1400 - 20 - 32, and over IPv6 1400 - 40 - 32.
        for (ipv6, fits) in [(false, 1348), (true, 1328)] {
            for (rule, client, server) in [
                ("pmtu-blackhole", "PD", "PD"),
                ("pmtu-blackhole direction=upstream", "PD", "PP"),
                ("pmtu-blackhole direction=downstream", "PP", "PD"),
                ("pmtu-blackhole mtu=1500", "PP", "PP"),
            ] {
                let mut flow = Flow::of(rule);
                flow.progress.ipv6 = ipv6;
                let mut seen = |leg| [fits, fits + 1].map(|len| flow.letter(leg, Way::In, &data(len)));
                assert_eq!(String::from_iter(seen(Leg::Client)), client, "{rule}, IPv6 {ipv6}");
                assert_eq!(String::from_iter(seen(Leg::Server)), server, "{rule}, IPv6 {ipv6}");
                assert_eq!(flow.deeds(), [], "{rule}: without a word");
            }
        }
    }

    #[test]
    fn the_sender_is_told_in_the_words_of_its_family() {
        for (ipv6, expected) in [(false, (3, 4)), (true, (2, 0))] {
            for leg in [Leg::Client, Leg::Server] {
                let mut flow = Flow::of("pmtu-blackhole icmp=frag-needed");
                flow.progress.ipv6 = ipv6;
                flow.letter(leg, Way::In, &data(1448));
                let deeds = flow.deeds();
                let [Deed::Icmp { leg: to, kind, code, mtu: 1400, .. }] = &deeds[..] else {
                    panic!("{deeds:?}")
                };
                assert_eq!((*to, (*kind, *code)), (leg, expected));
            }
        }
    }

    #[test]
    fn behind_a_socket_our_own_segments_to_the_client_are_dropped() {
        let mut flow = Flow::of("pmtu-blackhole");
        assert_eq!(flow.letter(Leg::Client, Way::Out, &data(1448)), 'P');
        flow.progress.server_is_socket = true;
        assert_eq!(flow.letter(Leg::Client, Way::Out, &data(1448)), 'D');
        assert_eq!(flow.letter(Leg::Client, Way::In, &data(1448)), 'D');
        for (rule, refuses) in [
            ("pmtu-blackhole", false),
            ("pmtu-blackhole icmp=frag-needed direction=upstream", false),
            ("pmtu-blackhole icmp=frag-needed", true),
        ] {
            assert_eq!(refused(rule, Engine::Exec).is_some(), refuses, "{rule}");
        }
    }
}
