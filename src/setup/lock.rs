//! One interception per network namespace: two would divert each other's packets. The lock is an abstract unix socket,
//! which belongs to the network namespace and vanishes with its process, however that ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{Error, ErrorKind};

const NAME: &str = "halfopen.intercept";

/// Held as long as this process intercepts.
#[derive(Debug)]
pub(super) struct Lock {
    _socket: UnixListener,
}

impl Lock {
    /// Takes the lock of this network namespace.
    pub(super) fn take() -> Result<Self, Error> {
        Self::take_named(NAME)
    }

    fn take_named(name: &str) -> Result<Self, Error> {
        let fail = |e| Error::from_io("cannot take the lock of this network namespace", &e);
        let address = SocketAddr::from_abstract_name(name).map_err(fail)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(taken(&address)),
            Err(e) => Err(fail(e)),
        }
    }
}

fn taken(address: &SocketAddr) -> Error {
    let holder = UnixStream::connect_addr(address).ok().and_then(|s| getsockopt(&s, PeerCredentials).ok());
    let who = holder.map_or_else(String::new, |c| format!(" (process {})", c.pid()));
    let what = format!("another halfopen{who} already intercepts in this network namespace");
    Error::new(ErrorKind::Unavailable, what).hint("stop it, or add the ports to its configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_with_the_process_of_the_first() {
        let pid = std::process::id();
        let name = format!("halfopen.test.{pid}");
        let first = Lock::take_named(&name).expect("a name of this process");
        let error = Lock::take_named(&name).expect_err("it is held");
        assert!(error.to_string().contains(&format!("(process {pid})")), "{error}");
        drop(first);
        Lock::take_named(&name).expect("free again");
    }
}
