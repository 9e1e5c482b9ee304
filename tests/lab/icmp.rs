//! A router that answers SYNs by ICMP errors of any type and code.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use halfopen::setup::netlink::Family;
use nix::poll::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::forge::checksum;
use super::ns::Ns;
use super::packet::{self, Layer};
use super::{sniff, wait};

/// Answers what comes in to a device for a host of network 3, as long as it lives.
pub(crate) struct Refuser {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Refuser {
    /// `answers`: type and code for the hosts 1, 2, ... of network 3.
    pub(crate) fn start(ns: &Ns, device: &str, family: Family, answers: &'static [(u8, u8)]) -> Self {
        let mut incoming = File::from(packet::open(ns, device, Layer::Ip, true));
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let outgoing = ns.run(|| Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buf = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                if !wait(incoming.as_fd(), PollFlags::POLLIN, Duration::from_millis(20)) {
                    continue;
                }
                let len = incoming.read(&mut buf).expect("an open socket");
                let Some(seen) = sniff::segment(Duration::ZERO, &buf[..len]) else { continue };
                let Some((kind, code)) = answer(seen.to.ip(), answers) else { continue };
                let error = message(family, kind, code, &buf[..len]);
                outgoing.send_to(&error, &SocketAddr::new(seen.from.ip(), 0).into()).expect("a raw send");
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Refuser {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))), "the refuser panicked");
    }
}

fn answer(to: IpAddr, answers: &[(u8, u8)]) -> Option<(u8, u8)> {
    let (net, host) = match to {
        IpAddr::V4(ip) => (u16::from(ip.octets()[2]), ip.octets()[3]),
        IpAddr::V6(ip) => (ip.segments()[1], ip.octets()[15]),
    };
    (net == 3).then(|| answers.get(usize::from(host).checked_sub(1)?).copied())?
}

/// The error about `packet`: as much of it as fits for IPv6, header and 8 bytes for IPv4. The kernel adds the ICMPv6
/// checksum by itself.
fn message(family: Family, kind: u8, code: u8, packet: &[u8]) -> Vec<u8> {
    let quoted = match family {
        Family::V4 => usize::from(packet[0] & 15) * 4 + 8,
        Family::V6 => packet.len().min(1232),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..quoted.min(packet.len())]);
    if family == Family::V4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}
