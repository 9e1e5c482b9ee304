//! What the fuzz targets run, and `cargo test` over their seed corpus: bytes in, a panic if something is wrong.

mod flow;
mod read;

pub use flow::flow;
pub use read::read;

use crate::wire::{self, ChecksumMode, IpMeta, Packet, Segment, SegmentNote, VnetHdr};

/// A virtio header and a packet. What can be read is written again, and reads the same; so does its text.
pub fn wire(data: &[u8]) {
    let Some((vnet, packet)) = data.split_first_chunk() else { return };
    match wire::parse(packet, &VnetHdr::from_bytes(*vnet)) {
        Ok(Packet::Tcp(tcp)) => {
            let (tuple, segment) = tcp.with_payload(packet);
            let single = Segment { gso_size: 0, ..segment.clone() };
            for (mode, expected) in [(ChecksumMode::Offload, &segment), (ChecksumMode::Full, &single)] {
                let (vnet, head) = wire::emit(tuple, &segment, mode);
                let packet = [&head[..], &segment.payload.to_vec()].concat();
                let Ok(Packet::Tcp(again)) = wire::parse(&packet, &vnet) else {
                    panic!("{mode:?}: not a segment")
                };
                assert_eq!(again.with_payload(&packet), (tuple, expected.clone()), "{mode:?}");
            }
            // The text says nothing of the IP header.
            let note = SegmentNote { ip: IpMeta::default(), ..SegmentNote::from(&segment) };
            assert_eq!(note.to_string().parse(), Ok(note));
        }
        Ok(Packet::Icmp(note)) => {
            let packet = wire::icmp::emit(&note, &Segment { seq: note.seq, ..Segment::default() });
            assert_eq!(wire::parse(&packet, &VnetHdr::default()), Ok(Packet::Icmp(note)));
        }
        Ok(Packet::Other) | Err(_) => {}
    }
    if let Ok(note) = String::from_utf8_lossy(packet).parse::<SegmentNote>() {
        assert_eq!(note.to_string().parse(), Ok(note));
    }
}
