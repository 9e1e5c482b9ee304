//! How connections end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::thread;

use halfopen::setup::netlink::Family;

use crate::lab::{Lab, drain, outcome, pending_error, reset};
use crate::{Row, Seen};

pub(crate) const ROWS: &[Row] = &[
    ("a client that has finished still gets the answer", client_half_closes),
    ("a server that has finished still gets the rest of the request", server_half_closes),
    ("a reset by the client is a reset for the server, and then a broken pipe", client_resets),
    ("a reset by the server is a reset for the client, and then a broken pipe", server_resets),
    ("data before a reset that is read first is delivered", reset_after_data),
    ("a client that closes with unread data resets the server", client_closes_unread),
    ("a server that closes with unread data resets the client", server_closes_unread),
    ("both may close at the same time", simultaneous),
    ("a close that is answered by data is a reset", data_after_close),
];

/// `finisher` says something and shuts down; `other` reads that, answers, and closes.
fn half_close(mut finisher: TcpStream, mut other: TcpStream) -> Seen {
    finisher.write_all(b"a question").expect("an open connection");
    finisher.shutdown(Shutdown::Write).expect("an open connection");
    let (question, end) = drain(&mut other);
    let mut seen = vec![format!("other: {:?} {end}", String::from_utf8_lossy(&question))];
    // More than any buffer, so that the answer needs the connection for a while.
    let answer = vec![7; 3 << 20];
    let reader = thread::spawn(move || drain(&mut finisher));
    seen.push(format!("other answers: {}", outcome(&other.write_all(&answer))));
    drop(other);
    let (got, end) = reader.join().expect("the reader does not panic");
    seen.push(format!("finisher: {} equal: {} {end}", got.len(), got == answer));
    seen
}

fn client_half_closes(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    half_close(client, server)
}

fn server_half_closes(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    half_close(server, client)
}

/// `one` resets an idle connection.
fn resets(one: TcpStream, mut other: TcpStream) -> Seen {
    reset(one);
    let mut byte = [0];
    let read = other.read(&mut byte);
    let again = other.read(&mut byte);
    let write = other.write(b"x");
    vec![
        format!("other reads: {}", outcome(&read)),
        format!("and again: {again:?}"),
        format!("and writes: {}", outcome(&write)),
    ]
}

fn client_resets(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    resets(client, server)
}

fn server_resets(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    resets(server, client)
}

fn reset_after_data(lab: &Lab, family: Family) -> Seen {
    let (mut client, mut server) = lab.pair(family);
    client.write_all(b"last words").expect("an open connection");
    let mut words = [0; 10];
    let read = server.read_exact(&mut words);
    reset(client);
    let (rest, end) = drain(&mut server);
    vec![
        format!("server: {} {:?}", outcome(&read), String::from_utf8_lossy(&words)),
        format!("then {rest:?} {end}"),
    ]
}

/// `one` closes while `other`'s bytes wait unread in its socket.
fn closes_unread(one: TcpStream, mut other: TcpStream) -> Seen {
    other.write_all(b"never read").expect("an open connection");
    let arrived = one.peek(&mut [0]);
    drop(one);
    let error = pending_error(&other);
    let write = other.write(b"x");
    vec![
        format!("arrived: {}", outcome(&arrived)),
        format!("other's error: {error}"),
        format!("other writes: {}", outcome(&write)),
    ]
}

fn client_closes_unread(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    closes_unread(client, server)
}

fn server_closes_unread(lab: &Lab, family: Family) -> Seen {
    let (client, server) = lab.pair(family);
    closes_unread(server, client)
}

fn simultaneous(lab: &Lab, family: Family) -> Seen {
    let listener = lab.listen(family);
    let ends: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, mut server) = lab.pair_by(&listener);
            let start = Barrier::new(2);
            let close = |stream: &mut TcpStream| {
                start.wait();
                let shut = stream.shutdown(Shutdown::Write);
                let (bytes, end) = drain(stream);
                format!("{} {bytes:?} {end}", outcome(&shut))
            };
            thread::scope(|scope| {
                let client = scope.spawn(|| close(&mut client));
                let server = close(&mut server);
                format!("client {} server {server}", client.join().expect("no panic"))
            })
        })
        .collect();
    ends
}

fn data_after_close(lab: &Lab, family: Family) -> Seen {
    let (client, mut server) = lab.pair(family);
    drop(client);
    let (bytes, end) = drain(&mut server);
    let first = server.write(b"too late");
    let error = pending_error(&server);
    let second = server.write(b"again");
    vec![
        format!("server: {bytes:?} {end}"),
        format!("writes: {}", outcome(&first)),
        format!("error: {error}"),
        format!("writes: {}", outcome(&second)),
    ]
}
