//! Which TCP connections this network namespace has, from `/proc/net/tcp` and `tcp6`.

use std::fs;
use std::io;
use std::net::SocketAddr;

use super::listeners::parse_address;

/// `TCP_LISTEN`, `TCP_TIME_WAIT` and `TCP_CLOSE` of include/net/tcp_states.h, as procfs prints them.
const LISTEN: &str = "0A";
const TIME_WAIT: &str = "06";
const CLOSE: &str = "07";

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// This end.
    pub(super) local: SocketAddr,
    /// The other end.
    pub(super) peer: SocketAddr,
    /// It is over, and only remembered.
    pub(super) is_over: bool,
}

/// All connections, those in TIME-WAIT last. A kernel without IPv6 has no `tcp6`.
pub(super) fn connections() -> io::Result<Vec<Connection>> {
    let mut text = fs::read_to_string("/proc/thread-self/net/tcp")?;
    text += &fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default();
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Connection> {
    let mut all: Vec<Connection> = text.lines().filter_map(connection).collect();
    all.sort_by_key(|connection| connection.is_over);
    all
}

/// One line, if it is a connection; not so the line with the names of the columns.
fn connection(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace();
    let (local, peer, state) = (words.nth(1)?, words.next()?, words.next()?);
    if [LISTEN, CLOSE].contains(&state) {
        return None;
    }
    Some(Connection { local: end(local)?, peer: end(peer)?, is_over: state == TIME_WAIT })
}

/// IPv4 of a socket for both is IPv4.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(parse_address(address)?.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_read_and_those_that_are_over_come_last() {
        let v4 = |text: &str| {
            format!("{:08X}", u32::from_ne_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets()))
        };
        let line = |local: &str, peer: &str, state| {
            format!(" 1: {local}:1F90 {peer}:C350 {state} 00000000:00000000\n")
        };
        let (own, far) = (v4("10.0.0.1"), v4("10.0.0.2"));
        let mapped = |ip: &str| format!("0000000000000000{:08X}{ip}", u32::from_ne_bytes([0, 0, 0xff, 0xff]));
        let text = ["head of the table\n".to_owned(), line(&own, &far, "06"), line(&own, "00000000", "0A")]
            .concat()
            + &line(&mapped(&own), &mapped(&far), "01");
        let one = |is_over| Connection {
            local: "10.0.0.1:8080".parse().unwrap(),
            peer: "10.0.0.2:50000".parse().unwrap(),
            is_over,
        };
        assert_eq!(parse(&text), [one(false), one(true)]);
    }
}
