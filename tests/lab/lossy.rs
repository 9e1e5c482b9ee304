//! A bad cable between the gateway and the server: it loses, and it delivers out of order, by dice with a seed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use halfopen::rng::Rng;
use halfopen::setup::netlink::Netlink;
use nix::poll::PollFlags;

use super::ns::Ns;
use super::packet::{self, Layer};
use super::{Lab, Way, cable, sniff, wait};

/// How bad a cable is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Share of the segments that are lost.
    pub(crate) loss: f64,
    /// Share of the segments that are overtaken by the next few.
    pub(crate) reorder: f64,
    /// Start of the dice.
    pub(crate) seed: u64,
}

/// The cable; both directions are equally bad.
pub(crate) struct Lossy {
    _ns: Ns,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    lost: AtomicU64,
    late: AtomicU64,
}

impl Lossy {
    /// The three hosts, with a bad cable between the gateway and the server.
    pub(crate) fn lab(way: Way, quality: Quality) -> (Lab, Self) {
        let mut lab = Lab::unconnected(way);
        let middle = Ns::new();
        cable(&lab.client, "c0", &lab.gateway, "cli0");
        cable(&lab.gateway, "srv0", &middle, "m0");
        cable(&lab.server, "s0", &middle, "m1");
        middle.run(|| {
            let mut netlink = Netlink::open().expect("netlink");
            for device in ["m0", "m1"] {
                let index = netlink.link(device).expect("the device").index;
                netlink.set_up(index, true).expect("set up");
            }
        });
        packet::single_segments(&lab.gateway, "srv0");
        packet::single_segments(&lab.server, "s0");
        let lossy = Self::start(middle, quality);
        lab.configure();
        lab.start(&[]);
        lab.warm_up();
        (lab, lossy)
    }

    fn start(ns: Ns, quality: Quality) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let threads = [("m0", "m1"), ("m1", "m0")].into_iter().enumerate().map(|(stream, (from, to))| {
            let from = File::from(packet::open(&ns, from, Layer::Ethernet, true));
            let to = File::from(packet::open(&ns, to, Layer::Ethernet, true));
            let dice = Rng::new(quality.seed, stream as u64);
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            thread::spawn(move || forward(from, to, quality, dice, &stop, &counts))
        });
        Self { threads: threads.collect(), _ns: ns, stop, counts }
    }

    /// Segments lost and segments overtaken so far.
    pub(crate) fn harm(&self) -> (u64, u64) {
        (self.counts.lost.load(Ordering::Relaxed), self.counts.late.load(Ordering::Relaxed))
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the cable panicked");
        }
    }
}

fn forward(
    mut from: File,
    mut to: File,
    quality: Quality,
    mut dice: Rng,
    stop: &AtomicBool,
    counts: &Counts,
) {
    let mut buf = vec![0; 1 << 16];
    // Frames that wait until so many others have passed.
    let mut late: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let mut passed = 0;
    // A frame that finds no room is lost, as on any cable.
    let mut send = |frame: &[u8]| drop(to.write(frame));
    while !stop.load(Ordering::Relaxed) {
        if wait(from.as_fd(), PollFlags::POLLIN, Duration::from_millis(5)) {
            let len = from.read(&mut buf).expect("an open socket");
            let frame = &buf[..len];
            passed += 1;
            let is_tcp = frame.get(14..).is_some_and(|ip| sniff::segment(Duration::ZERO, ip).is_some());
            if is_tcp && dice.chance(quality.loss) {
                counts.lost.fetch_add(1, Ordering::Relaxed);
            } else if is_tcp && dice.chance(quality.reorder) {
                counts.late.fetch_add(1, Ordering::Relaxed);
                late.push_back((passed + 1 + dice.below(5), frame.to_vec()));
            } else {
                send(frame);
            }
        } else {
            passed = u64::MAX;
        }
        while let Some((_, frame)) = late.pop_front_if(|(due, _)| *due <= passed) {
            send(&frame);
        }
        if passed == u64::MAX {
            passed = 0;
        }
    }
}
