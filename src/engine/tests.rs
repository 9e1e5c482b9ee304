use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::tun::Framing;
use super::*;
use crate::trace::{Event, FlowId, Outcome, Record};
use crate::wire::{self, ChecksumMode, Flags, Packet, Segment, SeqNum, Tuple, VnetHdr};

const LONG: Duration = Duration::from_secs(5);

struct Tell(Sender<Record>);

impl Sink for Tell {
    fn record(&mut self, record: Record) {
        let _ = self.0.send(record);
    }
}

/// An engine whose device is one end of a pair of sockets, and what it tells.
fn engine() -> (Handle, UnixDatagram, Receiver<Record>) {
    let (ours, device) = UnixDatagram::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(LONG)).unwrap();
    let device = Device::from_fd(OwnedFd::from(device), Framing::Ip, None);
    let settings = Settings {
        relay: relay::Settings::default(),
        rules: Arc::default(),
        hash_seed: 1,
        clock: Clock::start(),
    };
    let (tell, told) = channel();
    let handle = start(&settings, vec![device], None, || Tell(tell.clone())).unwrap();
    (handle, ours, told)
}

fn tuple() -> Tuple {
    Tuple { src: "10.0.0.1:4000".parse().unwrap(), dst: "10.0.0.2:80".parse().unwrap() }
}

fn packet(tuple: Tuple, flags: Flags) -> Vec<u8> {
    let segment = Segment { seq: SeqNum(7), flags, ..Segment::default() };
    let (vnet, head) = wire::emit(tuple, &segment, ChecksumMode::Full);
    [&vnet.to_bytes()[..], &head].concat()
}

fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut buf = vec![0; 65_545];
    let n = socket.recv(&mut buf).unwrap();
    buf.truncate(n);
    buf
}

fn parse(packet: &[u8]) -> (Tuple, Segment) {
    let vnet = VnetHdr::from_bytes(packet[..10].try_into().unwrap());
    match wire::parse(&packet[10..], &vnet).unwrap() {
        Packet::Tcp(tcp) => (tcp.tuple, tcp.segment),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_syn_goes_on_with_our_own_number_and_a_refusal_comes_back() {
    let (handle, network, told) = engine();
    network.send(&packet(tuple(), Flags::SYN)).unwrap();
    let (dialled, syn) = parse(&receive(&network));
    assert_eq!((dialled, syn.flags), (tuple(), Flags::SYN));
    assert_ne!(syn.seq, SeqNum(7), "the server leg is a connection of its own");

    let rst = Segment { ack: syn.seq + 1, flags: Flags::RST | Flags::ACK, ..Segment::default() };
    let (vnet, head) = wire::emit(tuple().reverse(), &rst, ChecksumMode::Full);
    network.send(&[&vnet.to_bytes()[..], &head].concat()).unwrap();
    let (back, refusal) = parse(&receive(&network));
    assert_eq!((back, refusal.flags, refusal.ack), (tuple().reverse(), Flags::RST | Flags::ACK, SeqNum(8)));

    drop(handle);
    let closed = told.iter().find(|record| matches!(record.event, Event::FlowClosed { .. })).unwrap();
    assert_eq!(closed.flow, FlowId(1));
    assert!(matches!(closed.event, Event::FlowClosed { outcome: Outcome::RefusedRst, .. }));
}

#[test]
fn what_is_not_ours_is_written_back_unchanged() {
    let (_handle, network, _told) = engine();
    let mut ping = vec![0; 10];
    ping.extend([
        0x45, 0, 0, 28, 1, 2, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0xf7, 0xfc, 0, 1, 0, 2,
    ]);
    let sum = wire::checksum::Sum::default().with(&ping[10..30]).checksum();
    ping[20..22].copy_from_slice(&sum.to_be_bytes());
    for foreign in [packet(tuple(), Flags::ACK), packet(tuple(), Flags::SYN | Flags::FIN), ping] {
        network.send(&foreign).unwrap();
        assert_eq!(receive(&network), foreign);
    }
}

#[test]
fn a_stop_lets_new_connections_pass_and_tells_what_was_still_open() {
    let (handle, network, told) = engine();
    network.send(&packet(tuple(), Flags::SYN)).unwrap();
    receive(&network);
    handle.stop(Duration::from_millis(300));
    let other = Tuple { src: "10.0.0.9:1".parse().unwrap(), ..tuple() };
    let syn = packet(other, Flags::SYN);
    network.send(&syn).unwrap();
    assert_eq!(receive(&network), syn, "untouched");
    handle.join().unwrap();
    let last = told.iter().last().unwrap();
    assert!(matches!(last.event, Event::FlowClosed { outcome: Outcome::Open, .. }), "{last:?}");
}
