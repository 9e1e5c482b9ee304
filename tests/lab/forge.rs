//! Packets that no honest host sends, put on the client's cable as they are.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};

use super::packet::{self, Layer};
use super::{Lab, client_ip};
use halfopen::setup::netlink::Family;

/// Puts packets on the client's cable.
pub(crate) struct Forger {
    cable: File,
    /// The Ethernet addresses of the gateway and of the client.
    addresses: [u8; 12],
}

/// A TCP segment whose parts need not fit together.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub(crate) flags: u8,
    /// Header length in 32-bit words; `None`: what it is.
    pub(crate) offset: Option<u8>,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Forger {
    pub(crate) fn new(lab: &Lab) -> Self {
        let mut cable = File::from(packet::open(&lab.client, "c0", Layer::Ethernet, false));
        lab.warm_up();
        let mut frame = [0; 2048];
        // The Ethernet addresses of any packet of the client will do.
        let IpAddr::V4(client) = client_ip(Family::V4) else { unreachable!("an IPv4 address") };
        loop {
            let len = cable.read(&mut frame).expect("an open socket");
            if frame[12..14] == [8, 0] && len > 34 && frame[26..30] == client.octets() {
                return Self { cable, addresses: std::array::from_fn(|i| frame[i]) };
            }
        }
    }

    /// Sends an IP packet.
    pub(crate) fn send(&mut self, ip: &[u8]) {
        let kind: [u8; 2] = if ip[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        // A full queue is not what is tested.
        let _ = self.cable.write(&[&self.addresses[..], &kind, ip].concat());
    }
}

impl Forged {
    /// A segment without anything.
    pub(crate) fn new(from: SocketAddr, to: SocketAddr, flags: u8) -> Self {
        let nothing = Vec::new();
        Self { from, to, seq: 0, ack: 0, flags, offset: None, options: nothing.clone(), payload: nothing }
    }

    /// The TCP part with a right checksum, so that nobody discards it for that.
    pub(crate) fn tcp(&self) -> Vec<u8> {
        let offset = self.offset.unwrap_or_else(|| 5 + self.options.len().div_ceil(4) as u8);
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([offset << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        tcp
    }

    /// The packet.
    pub(crate) fn packet(&self) -> Vec<u8> {
        ip(self.from.ip(), self.to.ip(), self.tcp())
    }
}

/// An IP packet around a TCP part, whose checksum is filled in where it has one.
pub(crate) fn ip(from: IpAddr, to: IpAddr, mut tcp: Vec<u8>) -> Vec<u8> {
    let (from, to, header) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            header[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (from.octets().to_vec(), to.octets().to_vec(), header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
            header[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
            header.extend(from.octets());
            header.extend(to.octets());
            (from.octets().to_vec(), to.octets().to_vec(), header)
        }
        _ => panic!("one family"),
    };
    if tcp.len() >= 18 {
        let pseudo = [&from[..], &to, &(tcp.len() as u32).to_be_bytes(), &[0, 0, 0, 6], &tcp].concat();
        tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    }
    [header, tcp].concat()
}

/// The internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
