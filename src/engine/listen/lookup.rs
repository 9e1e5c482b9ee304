//! Name lookups, each upstream's on a thread of its own: the resolver of the system waits for its name servers, and no packet
//! waits for it. There is at most one lookup per upstream at a time.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::unix::pipe;

/// Looks a name up: all its addresses, in the order in which they should be tried.
///
/// # Errors
/// What the system's resolver says, also if the name has no address.
pub fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

type Answer = io::Result<Vec<SocketAddr>>;

/// The address of one upstream.
#[derive(Debug)]
pub(super) enum Lookup {
    /// It is given.
    Known(SocketAddr),
    /// It has a name.
    Named {
        host: String,
        port: u16,
        /// Once the loop runs.
        resolver: Option<Resolver>,
    },
}

/// A thread that looks up one name whenever it is asked.
#[derive(Debug)]
pub(super) struct Resolver {
    ask: Sender<()>,
    answers: Receiver<Answer>,
    /// Readable when there is an answer.
    bell: pipe::Receiver,
    asked: bool,
    /// The last answer was an error, which has been told.
    failing: bool,
}

impl Lookup {
    pub(super) fn new(host: &str, port: u16) -> Self {
        match host.parse::<IpAddr>() {
            Ok(ip) => Self::Known(SocketAddr::new(ip, port)),
            Err(_) => Self::Named { host: host.to_owned(), port, resolver: None },
        }
    }

    /// Starts what it needs to run; what is readable when there is an answer, if there is ever one.
    pub(super) fn run(&mut self) -> io::Result<Option<&mut pipe::Receiver>> {
        let Self::Named { host, port, resolver } = self else { return Ok(None) };
        Ok(Some(&mut resolver.insert(Resolver::start(host.clone(), *port)?).bell))
    }

    /// The address; `None`: it is being looked up, and [`Self::poll`] will tell.
    pub(super) fn start(&mut self) -> Option<SocketAddr> {
        match self {
            Self::Known(address) => Some(*address),
            Self::Named { resolver, .. } => {
                if let Some(resolver) = resolver {
                    resolver.ask();
                }
                None
            }
        }
    }

    /// The answer, once; none at all for a name that is not found, which the log tells the first time.
    pub(super) fn poll(&mut self) -> Option<Vec<SocketAddr>> {
        match self {
            Self::Named { resolver: Some(resolver), host, port } => match resolver.poll()? {
                Ok(addresses) => {
                    resolver.failing = false;
                    Some(addresses)
                }
                Err(error) => {
                    if !std::mem::replace(&mut resolver.failing, true) {
                        tracing::warn!(upstream = format!("{host}:{port}"), %error, "not found; its clients are refused");
                    }
                    Some(Vec::new())
                }
            },
            _ => None,
        }
    }
}

impl Resolver {
    fn start(host: String, port: u16) -> io::Result<Self> {
        let (ask, asked) = channel::<()>();
        let (tell, answers) = channel();
        let (mut ring, bell) = pipe::new()?;
        // It ends when it is asked no more; one that waits for a name server ends with the process.
        std::thread::Builder::new().name(format!("lookup {host}")).spawn(move || {
            for () in asked {
                let told = tell.send(look_up(&host, port)).is_ok() && ring.write_all(&[0]).is_ok();
                if !told {
                    break;
                }
            }
        })?;
        Ok(Self { ask, answers, bell, asked: false, failing: false })
    }

    fn ask(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            // The thread lives as long as we do.
            let _ = self.ask.send(());
        }
    }

    fn poll(&mut self) -> Option<Answer> {
        // At most one byte is there, for there is one lookup at a time; readiness is edge-triggered.
        let _ = self.bell.read(&mut [0; 8]);
        let answer = self.answers.try_recv().ok()?;
        self.asked = false;
        Some(answer)
    }
}
