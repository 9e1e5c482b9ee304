#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]
use halfopen::engine::Outside;
use halfopen::engine::exec::address::FIRST_NAMESERVER;
use halfopen::engine::exec::*;
use halfopen::setup::{listeners, namespace, resolv};
use std::os::fd::AsRawFd;
fn main() {
    let command: Vec<_> = std::env::args_os().skip(1).collect();
    let resolv = resolv::Resolv::parse(&std::fs::read_to_string(resolv::PATH).unwrap());
    let inside = namespace::Inside {
        command,
        loopback_ports: listeners::ranges(&listeners::on_loopback().unwrap()),
        resolv_conf: Some(resolv.with_nameservers_from(FIRST_NAMESERVER)),
    };
    eprintln!("{inside:?}");
    let (prepared, mut device) = match namespace::prepare(&inside) {
        Ok(x) => x,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(e.code.into())
        }
    };
    eprintln!("{:?}", device.framing());
    let mut caller =
        Caller::new(AddressMap { host_loopback: HostLoopback::On, nameservers: resolv.nameservers }, 100);
    std::thread::spawn(move || {
        let mut poll = mio::Poll::new().unwrap();
        let raw = device.as_raw_fd();
        poll.registry()
            .register(&mut mio::unix::SourceFd(&raw), mio::Token(0), mio::Interest::READABLE)
            .unwrap();
        caller.start(poll.registry().try_clone().unwrap(), 1).unwrap();
        let mut events = mio::Events::with_capacity(64);
        let mut buf = bytes::BytesMut::new();
        let start = std::time::Instant::now();
        loop {
            poll.poll(&mut events, None).unwrap();
            for e in &events {
                if e.token().0 > 0 {
                    caller.on_ready(e);
                }
            }
            loop {
                while caller.poll_packet(&mut buf) {
                    device.send(&Default::default(), &buf, &[]).unwrap();
                }
                let Some(hdr) = device.recv(&mut buf).unwrap() else { break };
                let now = halfopen::time::Instant::from_nanos(start.elapsed().as_nanos() as u64);
                if std::env::var("TRACE").is_ok() {
                    eprintln!("{hdr:?} {} {:?}", buf.len(), halfopen::wire::parse(&buf, &hdr));
                }
                caller.on_packet(now, &buf, hdr.flags & 1 != 0);
            }
        }
    });
    match prepared.start() {
        Ok(r) => std::process::exit(r.wait().unwrap().into()),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(e.code.into())
        }
    }
}
