//! The seed decides.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use halfopen::setup::netlink::Family;
use socket2::{Domain, Socket, Type};

use super::bench::Bench;
use crate::lab::events::Entry;
use crate::lab::{self, Lab};

/// The same seed gives the same event log twice, modulo time and the numbers that the hosts choose.
pub(super) fn same_seed() {
    let run = || {
        let mut bench = Bench::new(
            Family::V4,
            &["syn-drop match.share=0.3 first=1", "syn-ack-delay match.share=0.5 delay=50ms jitter=30ms"],
        );
        for port in 40_000..40_010 {
            let mut stream = connect_from(&bench.lab, port);
            let (mut server, _) = lab::accept(&bench.listener).expect("it has connected");
            stream.write_all(b"hello").expect("sent");
            server.read_exact(&mut [0; 5]).expect("delivered");
            lab::reset(stream);
            bench.events.wait("end of the flow", |log| {
                log.0.iter().filter(|e| e.text("event") == "flow-closed").count() > port as usize - 40_000
            });
        }
        let log = bench.log();
        let line = |e: &Entry| {
            let names = ["event", "leg", "client", "server", "rule", "from", "to", "outcome"]
                .map(|field| e.text(field).to_owned());
            format!("{} {} {} {}", e.flow(), names.join(" "), e.did_exactly(), e.flags())
        };
        log.0.iter().map(line).collect::<Vec<String>>()
    };
    let (first, second) = (run(), run());
    assert!(
        first.iter().any(|line| line.contains("syn-drop"))
            && first.iter().any(|line| line.contains("syn-ack-delay"))
    );
    assert_eq!(first, second);
}

/// Connects from a port of our choice.
fn connect_from(lab: &Lab, port: u16) -> TcpStream {
    lab.client.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(lab::client_ip(Family::V4), port).into()).expect("a free port");
        socket
            .connect_timeout(&lab::server_at(Family::V4).into(), lab::PATIENCE)
            .expect("the server listens");
        socket.into()
    })
}
