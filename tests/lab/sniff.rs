//! Sees what a device carries, with times: the tests' own, independent reading of packets.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TcpHeader, TransportSlice};
use nix::poll::PollFlags;

use super::ns::Ns;
use super::packet::{self, Layer};
use super::wait;

/// A TCP segment on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Since the sniffer was started.
    pub(crate) at: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Time to live or hop limit, and traffic class.
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) tcp: TcpHeader,
    pub(crate) len: usize,
}

impl Seen {
    /// tcpdump's letters: `S`, `S.`, `.`, `P.`, `F.`, `R`, `R.`.
    pub(crate) fn flags(&self) -> String {
        let t = &self.tcp;
        let letters = [(t.syn, 'S'), (t.fin, 'F'), (t.rst, 'R'), (t.psh, 'P'), (t.urg, 'U'), (t.ack, '.')];
        letters.iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect()
    }
}

/// Reads all TCP segments of a device, both ways, until it is asked what it saw.
pub(crate) struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Seen>>,
}

impl Sniffer {
    pub(crate) fn start(ns: &Ns, device: &str) -> Self {
        let mut socket = File::from(packet::open(ns, device, Layer::Ip, false));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut seen = Vec::new();
            let mut buf = vec![0; 1 << 16];
            // One more look after the stop: what happened before it is in the queue.
            loop {
                let last = stopped.load(Ordering::Relaxed);
                while wait(socket.as_fd(), PollFlags::POLLIN, Duration::from_millis(20)) {
                    let len = socket.read(&mut buf).expect("an open socket");
                    seen.extend(segment(start.elapsed(), &buf[..len]));
                }
                if last {
                    return seen;
                }
            }
        });
        Self { stop, thread }
    }

    /// Stops and returns all segments so far.
    pub(crate) fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sniffer does not panic")
    }
}

/// Reads an IP packet; `None` if it is not TCP.
pub(crate) fn segment(at: Duration, packet: &[u8]) -> Option<Seen> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { return None };
    let (from, to, ttl, tos): (IpAddr, IpAddr, u8, u8) = match sliced.net? {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.ttl(), packet[1])
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.hop_limit(), ip.traffic_class())
        }
        NetSlice::Arp(_) => return None,
    };
    let (from, to) = (SocketAddr::new(from, tcp.source_port()), SocketAddr::new(to, tcp.destination_port()));
    Some(Seen { at, from, to, ttl, tos, len: tcp.payload().len(), tcp: tcp.to_header() })
}
