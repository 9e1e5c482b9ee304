//! Network namespaces without names: they live as long as somebody holds their descriptor or runs in them.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use halfopen::setup::netlink::Netlink;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};

/// A host.
pub(crate) struct Ns(OwnedFd);

impl Ns {
    /// A new network namespace with its loopback up. Congestion control is reno: the system's default may pace senders.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            let mut netlink = Netlink::open().expect("netlink");
            let lo = netlink.link("lo").expect("every namespace has it").index;
            netlink.set_up(lo, true).expect("set up");
            fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno").expect("reno is always there");
            // IPv6 addresses work at once.
            fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("IPv6 is part of the kernel");
            File::open("/proc/thread-self/ns/net").expect("a namespace has a file")
        });
        Self(made.join().expect("the thread above does not panic otherwise").into())
    }

    /// The same host.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.try_clone().expect("a descriptor"))
    }

    /// The host that a process is on.
    pub(crate) fn of(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).expect("the process lives").into())
    }

    /// Runs `f` on a thread of this host. What it opens stays on this host.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.as_fd(), CloneFlags::CLONE_NEWNET).expect("we may enter what we made");
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets `/proc/sys/KEY` of this host.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value).expect("a setting of this kernel"));
    }

    /// Reads `/proc/sys/KEY` of this host.
    pub(crate) fn read_sysctl(&self, key: &str) -> String {
        self.run(|| {
            fs::read_to_string(format!("/proc/sys/{key}"))
                .expect("a setting of this kernel")
                .trim()
                .to_owned()
        })
    }
}

impl AsFd for Ns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives this process the rights to make networks: as an ordinary user by a user namespace of its own, in which it is
/// root. Must be called before there is any thread.
pub(crate) fn become_able() -> Result<(), String> {
    if getuid().is_root() { Ok(()) } else { become_root_inside() }
}

/// A gateway cannot do without a TUN device, also not in a namespace of our own.
pub(crate) fn tun_opens() -> Result<(), String> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.map(drop).map_err(|e| {
        format!("kernel tests need /dev/net/tun, which does not open ({e}): load tun, give it mode 0666, or run as root")
    })
}

fn become_root_inside() -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(|e| {
        format!("kernel tests need root or user namespaces, and this system refuses to make one ({e}): run as root")
    })?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| format!("cannot write /proc/self/{file}: {e}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}
