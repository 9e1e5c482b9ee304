//! The address of the control socket. It is an abstract one, which needs no file: it works where nothing is writable, belongs
//! to the network namespace, and is gone with the process, however that ends.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The name of a control socket, without the process.
const NAME: &str = "halfopen.control.";
/// The state of a socket that listens, in `/proc/net/unix` (`__SO_ACCEPTCON`).
const LISTENS: &str = "00010000";

/// The control socket of a process, by the number that it has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub u32);

impl Name {
    /// The control sockets in a text like `/proc/net/unix`, each once, in order.
    #[must_use]
    pub fn all(table: &str) -> Vec<Self> {
        let listening = table.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            (fields.nth(3)? == LISTENS).then_some(())?;
            fields.nth(3)?.strip_prefix('@')?.strip_prefix(NAME)?.parse().ok().map(Self)
        });
        let mut all: Vec<_> = listening.collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}{}", self.0)
    }
}

/// The control socket of this process.
pub(super) fn bind() -> io::Result<UnixListener> {
    let listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(Name(std::process::id()).to_string())?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// True if the process at the other end belongs to root or to `owner`. Abstract sockets have no permissions of their own.
pub(super) fn may_ask(stream: &tokio::net::UnixStream, owner: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| [0, owner].contains(&peer.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_found_among_all_sockets_of_a_namespace() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 11 @halfopen.control.77
0000000000000000: 00000003 00000000 00000000 0001 03 12 @halfopen.control.77
0000000000000000: 00000003 00000000 00000000 0001 03 13
0000000000000000: 00000002 00000000 00010000 0001 01 14 /run/halfopen.control.5
0000000000000000: 00000002 00000000 00010000 0001 01 15 @halfopen.control.x
0000000000000000: 00000002 00000000 00010000 0001 01 16 @halfopen.control.9
0000000000000000: 00000003 00000000 00000000 0001 03 17 @halfopen.control.6
";
        assert_eq!(Name::all(table), [Name(9), Name(77)]);
        assert_eq!(Name::all(""), []);
    }
}
