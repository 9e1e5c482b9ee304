//! Three hosts in network namespaces of their own: client, gateway, server. The gateway forwards either as the kernel
//! does (`Way::Direct`) or through halfopen (`Way::Proxied`), so that a test can do the same thing twice and compare what
//! the client and the server saw. The namespaces have no names: whatever ends the test also ends them.
#![allow(dead_code)] // each test binary uses its part of the lab

pub(crate) mod events;
pub(crate) mod forge;
pub(crate) mod icmp;
pub(crate) mod lossy;
pub(crate) mod ns;
pub(crate) mod packet;
pub(crate) mod process;
pub(crate) mod sniff;

use std::fmt::Debug;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use halfopen::setup::netlink::{Family, Ipv4Setting, Netlink, Route, RouteKind};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use ns::Ns;
use process::Halfopen;

/// The intercepted server port.
pub(crate) const PORT: u16 = 5432;
/// Where a sidecar's own connections come from.
pub(crate) const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 61_000..=64_999;
/// The option for kernel sockets.
const SOCKETS: &[&str] = &["--engine", "sockets"];
/// No single wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How the gateway connects the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the kernel's forwarding.
    Direct,
    /// Through halfopen.
    Proxied,
    /// By the kernel's forwarding, but the client runs inside `halfopen exec` on its host.
    Exec,
    /// The same without any privilege.
    UserExec,
    /// By the kernel's forwarding, but halfopen is a sidecar on the client's host.
    Sidecar,
    /// The same with the kernel's early demultiplexing off, where the client's port stays.
    SamePort,
    /// A sidecar on the server's host, for what comes in.
    Inbound,
    /// The same with the kernel's early demultiplexing off.
    InboundSamePort,
    /// Through halfopen in the gateway, by kernel sockets.
    GatewaySockets,
    /// halfopen is a sidecar on the client's host, by kernel sockets.
    SidecarSockets,
    /// The same on the server's host, for what comes in.
    InboundSockets,
    /// halfopen listens on the host in between, which forwards nothing; clients dial that instead of the server.
    Listen,
    /// The same by kernel sockets.
    ListenSockets,
    /// The server runs inside `halfopen exec` on its host, which publishes its port; without any privilege.
    Publish,
}

impl Way {
    /// True if the client runs inside `halfopen exec`.
    pub(crate) const fn is_exec(self) -> bool {
        matches!(self, Self::Exec | Self::UserExec)
    }
}

/// The three hosts.
pub(crate) struct Lab {
    pub(crate) client: Ns,
    /// Where `halfopen exec` runs, if the client is inside of it.
    pub(crate) caller: Option<Ns>,
    pub(crate) gateway: Ns,
    pub(crate) server: Ns,
    /// Where the server listens, if that is not its address in its own network.
    pub(crate) at: Option<IpAddr>,
    /// Which address of the listening halfopen clients dial, if not that in their own network.
    pub(crate) dial: Option<IpAddr>,
    /// Where `halfopen exec` runs, if the server is inside of it.
    pub(crate) publisher: Option<Ns>,
    /// Hosts that nobody is on any more. Without them the other ends of their cables would vanish, sooner or later.
    left: Vec<Ns>,
    pub(crate) way: Way,
    pub(crate) halfopen: Option<Halfopen>,
}

/// An address in network `net` (1: clients, 2: servers, 3 and 4: behind the server).
pub(crate) fn address(family: Family, net: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 81, net, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd81, net.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

pub(crate) fn prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

pub(crate) fn client_ip(family: Family) -> IpAddr {
    address(family, 1, 2)
}

pub(crate) fn server_at(family: Family) -> SocketAddr {
    SocketAddr::new(address(family, 2, 2), PORT)
}

/// A host behind the server that never answers: the server drops what is for it.
pub(crate) fn silent_at(family: Family) -> SocketAddr {
    SocketAddr::new(address(family, 3, 7), PORT)
}

impl Lab {
    /// The three hosts, connected; with halfopen in the gateway unless `way` is direct.
    pub(crate) fn new(way: Way) -> Self {
        Self::with(way, &[])
    }

    /// The same with options for halfopen.
    pub(crate) fn with(way: Way, options: &[&str]) -> Self {
        let way = if std::env::var_os("HALFOPEN_LAB_DIRECT").is_some() { Way::Direct } else { way };
        let mut lab = Self::unconnected(way);
        cable(&lab.client, "c0", &lab.gateway, "cli0");
        cable(&lab.server, "s0", &lab.gateway, "srv0");
        lab.configure();
        lab.start(options);
        lab.warm_up();
        lab
    }

    /// The three hosts without cables.
    pub(crate) fn unconnected(way: Way) -> Self {
        Self {
            client: Ns::new(),
            caller: None,
            gateway: Ns::new(),
            server: Ns::new(),
            at: None,
            dial: None,
            publisher: None,
            left: Vec::new(),
            way,
            halfopen: None,
        }
    }

    /// Addresses, routes and, unless halfopen is in the gateway, forwarding; the interfaces `c0`, `cli0`, `srv0` and `s0` exist.
    pub(crate) fn configure(&self) {
        for (ns, device, net, host) in [
            (&self.client, "c0", 1, 2),
            (&self.gateway, "cli0", 1, 1),
            (&self.gateway, "srv0", 2, 1),
            (&self.server, "s0", 2, 2),
        ] {
            ns.run(|| attach(device, net, host));
        }
        for family in Family::ALL {
            self.client.route(family, None, Some(address(family, 1, 1)), RouteKind::Unicast);
            self.server.route(family, None, Some(address(family, 2, 1)), RouteKind::Unicast);
            for net in [3, 4] {
                self.gateway.route(family, Some((net, 0)), Some(address(family, 2, 2)), RouteKind::Unicast);
            }
        }
        if !matches!(self.way, Way::Proxied | Way::GatewaySockets | Way::Listen | Way::ListenSockets) {
            self.gateway.forward(&["cli0", "srv0"]);
        }
        // What IPv6 needs, and a container gets by `sysctls:`.
        match self.way {
            Way::Sidecar | Way::SamePort => self.client.sysctl("net/ipv6/conf/all/forwarding", "1"),
            Way::Inbound | Way::InboundSamePort => self.server.sysctl("net/ipv6/conf/all/forwarding", "1"),
            Way::Listen => self.gateway.sysctl("net/ipv6/conf/all/forwarding", "1"),
            _ => {}
        }
        match self.way {
            Way::SamePort => self.client.sysctl("net/ipv4/tcp_early_demux", "0"),
            Way::InboundSamePort => self.server.sysctl("net/ipv4/tcp_early_demux", "0"),
            _ => {}
        }
    }

    /// Starts halfopen in the gateway, if this lab has one, with these options besides the usual ones.
    pub(crate) fn start(&mut self, options: &[&str]) {
        match self.way {
            Way::Proxied => self.halfopen = Some(Halfopen::gateway(&self.gateway, options)),
            Way::Sidecar | Way::SamePort => {
                self.halfopen = Some(Halfopen::sidecar(&self.client, options));
            }
            Way::Inbound | Way::InboundSamePort => {
                self.halfopen = Some(Halfopen::inbound(&self.server, options))
            }
            Way::GatewaySockets => {
                self.halfopen = Some(Halfopen::gateway(&self.gateway, &[options, SOCKETS].concat()));
            }
            Way::SidecarSockets => {
                self.halfopen = Some(Halfopen::sidecar(&self.client, &[options, SOCKETS].concat()));
            }
            Way::InboundSockets => {
                self.halfopen = Some(Halfopen::inbound(&self.server, &[options, SOCKETS].concat()));
            }
            Way::Listen => self.halfopen = Some(Halfopen::listen(&self.gateway, options)),
            Way::ListenSockets => {
                self.halfopen = Some(Halfopen::listen(&self.gateway, &[options, SOCKETS].concat()));
            }
            Way::Publish => {
                let (halfopen, inside) = Halfopen::publish(&self.server, options);
                self.halfopen = Some(halfopen);
                self.publisher = Some(std::mem::replace(&mut self.server, inside));
            }
            Way::Direct | Way::Exec | Way::UserExec => {}
        }
        if self.way.is_exec() {
            let (halfopen, inside) = Halfopen::exec(&self.client, self.way == Way::UserExec, options);
            self.halfopen = Some(halfopen);
            self.caller = Some(std::mem::replace(&mut self.client, inside));
        }
    }

    /// Lets the hosts learn their neighbours, by a port that is not intercepted.
    pub(crate) fn warm_up(&self) {
        for family in Family::ALL {
            let closed = SocketAddr::new(server_at(family).ip(), 1);
            let refused = self.connect(closed).expect_err("nobody listens there");
            assert_eq!(errno(&refused), "ECONNREFUSED", "the hosts are connected");
        }
    }

    /// The host of the client, which carries its packets.
    pub(crate) fn client_host(&self) -> &Ns {
        self.caller.as_ref().unwrap_or(&self.client)
    }

    /// The device that the client sees.
    pub(crate) const fn client_device(&self) -> &'static str {
        if self.way.is_exec() { "halfopen0" } else { "c0" }
    }

    /// From now on the server is on the client's own host, and listens at this address of it.
    pub(crate) fn bring_home(&mut self, at: IpAddr) {
        self.left.push(std::mem::replace(&mut self.server, self.client.again()));
        self.at = Some(at);
    }

    /// From now on the client is on the host in between.
    pub(crate) fn move_client(&mut self) {
        self.left.push(std::mem::replace(&mut self.client, self.gateway.again()));
    }

    /// Where the server is.
    pub(crate) fn server_at(&self, family: Family) -> SocketAddr {
        self.at.map_or_else(|| server_at(family), |ip| SocketAddr::new(ip, PORT))
    }

    /// What a client dials that wants to get to `to`.
    pub(crate) fn dialled(&self, to: SocketAddr) -> SocketAddr {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        match self.way {
            Way::Publish => SocketAddr::new(server_at(family).ip(), to.port()),
            Way::Listen | Way::ListenSockets => {
                SocketAddr::new(self.dial.unwrap_or_else(|| address(family, 1, 1)), to.port())
            }
            _ => to,
        }
    }

    /// A server that listens on [`PORT`].
    pub(crate) fn listen(&self, family: Family) -> Listener {
        let at = match (self.way, family) {
            (Way::Publish, Family::V4) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT),
            (Way::Publish, Family::V6) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT),
            _ => self.server_at(family),
        };
        self.server.run(|| listen(at).expect("the server's port is free"))
    }

    /// What a client's connect to `to` gives, within [`PATIENCE`].
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let to = self.dialled(to);
        let stream = self.client.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        limited(stream)
    }

    /// A connection: the client's end and the server's. The server sees the client's true address and port.
    pub(crate) fn pair(&self, family: Family) -> (TcpStream, TcpStream) {
        let listener = self.listen(family);
        self.pair_by(&listener)
    }

    /// A connection to a server that is there.
    pub(crate) fn pair_by(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let to = listener.local_addr().expect("it is bound");
        let client = self.connect(to).expect("the server listens");
        let (server, peer) = accept(listener).expect("the client has connected");
        let own = client.local_addr().expect("connected");
        match self.way {
            Way::Direct | Way::Proxied | Way::GatewaySockets | Way::SamePort | Way::InboundSamePort => {
                assert_eq!(peer, own, "the server logs the client's address");
            }
            Way::SidecarSockets | Way::InboundSockets => {
                assert_eq!(peer.ip(), own.ip(), "the server logs the client's address");
            }
            Way::Sidecar | Way::Inbound => {
                assert_eq!(peer.ip(), own.ip(), "the server logs the client's address");
                assert!(SOURCE_PORTS.contains(&peer.port()), "{peer} is halfopen's own port");
            }
            Way::Publish => assert_eq!(peer, own, "the server logs the client's address"),
            Way::Exec | Way::UserExec | Way::Listen | Way::ListenSockets => {}
        }
        (client, limited(server).expect("a live socket"))
    }
}

/// `accept` within [`PATIENCE`].
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    if !wait(listener.as_fd(), nix::poll::PollFlags::POLLIN, PATIENCE) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    listener.accept()
}

/// Waits until `fd` is ready for `what`; false: it took longer than `for_at_most`.
pub(crate) fn wait(fd: BorrowedFd<'_>, what: nix::poll::PollFlags, for_at_most: Duration) -> bool {
    let timeout = nix::poll::PollTimeout::try_from(for_at_most).expect("a short time");
    let mut fds = [nix::poll::PollFd::new(fd, what)];
    loop {
        match nix::poll::poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            other => return other.expect("poll on an open descriptor") > 0,
        }
    }
}

pub(crate) fn listen(at: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(Listener(socket.into()))
}

/// A server, whose port is free once this is dropped: a program that another thread starts has a copy of the descriptor until it
/// runs, and so the close alone ends nothing.
pub(crate) struct Listener(TcpListener);

impl Deref for Listener {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.0
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Linux stops to listen; POSIX does not know it.
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

/// Reads and writes that take longer than [`PATIENCE`] fail with `EAGAIN`.
fn limited(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A veth pair between two hosts.
pub(crate) fn cable(a: &Ns, a_name: &str, b: &Ns, b_name: &str) {
    a.run(|| {
        let mut netlink = Netlink::open().expect("netlink");
        netlink.add_veth(a_name, b_name, Some(b.as_fd())).expect("a veth pair");
    });
}

/// Sets a device up with its addresses in network `net`.
fn attach(device: &str, net: u8, host: u8) {
    let mut netlink = Netlink::open().expect("netlink");
    let index = netlink.link(device).expect("the device").index;
    netlink.set_up(index, true).expect("set up");
    for family in Family::ALL {
        netlink.add_address(index, address(family, net, host), prefix(family)).expect("an address");
    }
}

impl Ns {
    /// Adds a route in the main table to a network (host 0), to one host, or the default route.
    pub(crate) fn route(&self, family: Family, to: Option<(u8, u8)>, via: Option<IpAddr>, kind: RouteKind) {
        let to = to.map(|(net, host)| match (family, host) {
            (_, 0) => (address(family, net, 0), prefix(family)),
            (Family::V4, _) => (address(family, net, host), 32),
            (Family::V6, _) => (address(family, net, host), 128),
        });
        let route =
            Route { to, family, device: None, via, source: None, mss: None, table: Route::MAIN, kind };
        self.run(|| Netlink::open().expect("netlink").add_route(&route).expect("a route"));
    }

    /// This host forwards what comes in by these devices.
    pub(crate) fn forward(&self, devices: &[&str]) {
        self.run(|| {
            let mut netlink = Netlink::open().expect("netlink");
            for device in devices {
                let index = netlink.link(device).expect("the device").index;
                netlink.set_ipv4(index, Ipv4Setting::Forwarding, 1).expect("forwarding");
            }
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding");
        });
    }
}

/// The name of the errno of a failed call; `EAGAIN` where it ran into [`PATIENCE`].
pub(crate) fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{:?}", Errno::from_raw(code)),
        None => format!("{:?}", error.kind()),
    }
}

/// The rows of these names, each of which must be there.
pub(crate) fn chosen<T: Copy>(rows: &[(&'static str, T)], names: &[&str]) -> Vec<(&'static str, T)> {
    let row =
        |name: &&str| *rows.iter().find(|row| row.0 == *name).unwrap_or_else(|| panic!("no row {name:?}"));
    names.iter().map(row).collect()
}

/// `ok` or the errno.
pub(crate) fn outcome<T>(result: &io::Result<T>) -> String {
    result.as_ref().map_or_else(errno, |_| "ok".to_owned())
}

/// Reads to the end: all bytes, and `EOF` or the errno that ended it.
pub(crate) fn drain(stream: &mut TcpStream) -> (Vec<u8>, String) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes, end.map_or_else(|e| errno(&e), |_| "EOF".to_owned()))
}

/// The error that the kernel keeps for a socket, waiting for it up to [`PATIENCE`].
pub(crate) fn pending_error(stream: &TcpStream) -> String {
    wait(stream.as_fd(), nix::poll::PollFlags::POLLERR, PATIENCE);
    match stream.take_error().expect("a live socket") {
        Some(error) => errno(&error),
        None => "none".to_owned(),
    }
}

/// Closes with a RST (SO_LINGER with time 0).
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a live socket");
}

/// Does `row` without and with halfopen and compares what was seen. With halfopen, flows must have been its own; in exec
/// mode there is no other way.
pub(crate) fn compare<T: Debug + PartialEq>(with: Way, row: impl Fn(&Lab) -> T) {
    compare_in(with, |_| (), row);
}

/// The same in a lab that `arrange` has changed.
pub(crate) fn compare_in<T: Debug + PartialEq>(
    with: Way,
    arrange: impl Fn(&mut Lab),
    row: impl Fn(&Lab) -> T,
) {
    let mut lab = Lab::new(Way::Direct);
    arrange(&mut lab);
    let direct = row(&lab);
    let runs = !with.is_exec() && with != Way::Publish;
    let options: &[&str] = if runs { &["--json", "--grace", "0"] } else { &[] };
    let mut lab = Lab::with(with, options);
    arrange(&mut lab);
    let proxied = row(&lab);
    let summary = lab.halfopen.take().filter(|_| runs).map(Halfopen::finish);
    assert_eq!(proxied, direct, "left: with halfopen, right: without");
    let flows = summary.map(|s| s["flows"].as_u64().expect("a number"));
    assert!(flows.is_none_or(|n| n > 0), "halfopen only looked on");
}
