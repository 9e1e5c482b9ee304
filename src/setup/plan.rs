//! What will be changed on the machine, as a list of steps. Each can be done, undone, and shown as a command.

use std::fmt;
use std::io;

use super::Error;
use super::netlink::nft::{OwnedTable, Table};
use super::netlink::{Family, Ipv4Setting, Link, Netlink, PROTOCOL, Route, Rule};
use super::sysctl::{self, Setting};
use crate::engine::tun::{ETH_LEN, MAX_PACKET, QUEUE_PACKETS};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Our device, which the engine has created: without addresses of its own, and up. Undone by its disappearance.
    Device {
        /// Its name.
        name: String,
    },
    /// The same for frames of `lo`.
    Tap {
        /// Its name.
        name: String,
    },
    /// An IPv4 setting of one interface.
    Ipv4 {
        /// Name of the interface.
        device: String,
        /// Which setting.
        setting: Ipv4Setting,
        /// Its new value.
        value: u32,
    },
    /// A setting below `/proc/sys/`.
    Sysctl {
        /// Its path, e.g. `net/ipv6/conf/all/forwarding`.
        key: String,
        /// Its new value.
        value: &'static str,
    },
    /// A route.
    Route {
        /// The route, without the number of its interface, which may not exist yet.
        route: Route,
        /// Name of the interface.
        device: Option<String>,
    },
    /// The kernel's own rule for local addresses moves behind ours.
    MoveLocalRule {
        /// IPv4 or IPv6.
        family: Family,
        /// Its new place.
        priority: u32,
    },
    /// A policy routing rule.
    Rule(Rule),
    /// A table of nftables, which is gone with our process.
    Table(Table),
}

impl fmt::Display for Step {
    /// The command that does the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { name } => {
                writeln!(f, "ip tuntap add dev {name} mode tun vnet_hdr")?;
                link_up(f, name, MAX_PACKET)
            }
            Self::Tap { name } => {
                writeln!(f, "ip tuntap add dev {name} mode tap vnet_hdr")?;
                link_up(f, name, MAX_PACKET - ETH_LEN)
            }
            Self::Ipv4 { device, setting, value } => {
                write!(f, "sysctl -w net/ipv4/conf/{device}/{}={value}", setting.name())
            }
            Self::Sysctl { key, value } => write!(f, "sysctl -w {key}={value}"),
            Self::Route { route, device } => {
                let Route { family, table, source, mss, .. } = route;
                write!(f, "ip {} route replace {route}", family.flag())?;
                if let Some(device) = device {
                    write!(f, " dev {device}")?;
                }
                write!(f, " table {table} protocol {PROTOCOL}")?;
                if let Some(source) = source {
                    write!(f, " src {source}")?;
                }
                mss.map_or(Ok(()), |mss| write!(f, " advmss {mss}"))
            }
            Self::MoveLocalRule { family, priority } => {
                let family = family.flag();
                writeln!(f, "ip {family} rule add pref {priority} lookup local protocol {PROTOCOL}")?;
                write!(f, "ip {family} rule del pref 0 lookup local")
            }
            Self::Rule(rule) => write!(f, "ip {} rule add {rule}", rule.family.flag()),
            Self::Table(table) => {
                writeln!(f, "# an owner's table is gone with the process that has made it")?;
                write!(f, "nft -f - <<'END'\n{table}\nEND")
            }
        }
    }
}

fn link_up(f: &mut fmt::Formatter<'_>, name: &str, mtu: usize) -> fmt::Result {
    write!(f, "ip link set dev {name} mtu {mtu} txqueuelen {QUEUE_PACKETS} addrgenmode none up")
}

/// How to take a change back.
#[derive(Debug)]
enum Undo {
    Ipv4 { device: String, index: u32, setting: Ipv4Setting, old: u32 },
    Sysctl { key: String, setting: Setting, old: String },
    Route(Route),
    LocalRule { family: Family, priority: u32 },
    Rule(Rule),
    Table { _table: OwnedTable },
}

impl Step {
    /// Does it. `None`: there is nothing to take back.
    fn apply(&self, netlink: &mut Netlink) -> io::Result<Option<Undo>> {
        match self {
            Self::Device { name } => set_up(netlink, name, MAX_PACKET).map(|()| None),
            Self::Tap { name } => set_up(netlink, name, MAX_PACKET - ETH_LEN).map(|()| None),
            Self::Ipv4 { device, setting, value } => {
                let link = netlink.link(device)?;
                let old = link.ipv4(*setting);
                if old == *value {
                    return Ok(None);
                }
                netlink.set_ipv4(link.index, *setting, *value)?;
                Ok(Some(Undo::Ipv4 { device: device.clone(), index: link.index, setting: *setting, old }))
            }
            Self::Sysctl { key, value } => match sysctl::read(key)? {
                Some(old) if old == *value => Ok(None),
                Some(old) => {
                    let setting = Setting::open(key)?;
                    setting.set(value)?;
                    Ok(Some(Undo::Sysctl { key: key.clone(), setting, old }))
                }
                None => Err(io::ErrorKind::NotFound.into()),
            },
            Self::Route { route, device } => {
                let device = device.as_ref().map(|name| netlink.link(name)).transpose()?;
                let route = Route { device: device.map(|link| link.index), ..route.clone() };
                netlink.add_route(&route)?;
                Ok(Some(Undo::Route(route)))
            }
            Self::MoveLocalRule { family, priority } => {
                netlink.move_local_rule(*family, *priority)?;
                Ok(Some(Undo::LocalRule { family: *family, priority: *priority }))
            }
            Self::Rule(rule) => {
                netlink.add_rule(rule).or_else(|e| match e.raw_os_error() {
                    Some(libc::EEXIST) => Ok(()),
                    _ => Err(e),
                })?;
                Ok(Some(Undo::Rule(rule.clone())))
            }
            Self::Table(table) => Ok(Some(Undo::Table { _table: table.make()? })),
        }
    }
}

impl Step {
    /// What is told when it fails.
    fn failed(&self) -> String {
        match self {
            Self::Table(_) => "cannot make a table of nftables".to_owned(),
            _ => format!("cannot do `{}`", self.to_string().replace('\n', "; ")),
        }
    }

    /// What to do about a failure, where more is known of it than the kernel said.
    fn hint(&self, error: &io::Error) -> Option<String> {
        match error.raw_os_error() {
            Some(libc::EROFS) => self.in_compose().map(|line| {
                format!("/proc/sys is read-only here: add `{line}` to this service in the compose file")
            }),
            Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL | libc::EPROTONOSUPPORT)
                if matches!(self, Self::Table(_)) =>
            {
                let lacks = "the kernel lacks nftables or a part of it: `modprobe -a nft_tproxy nft_socket nft_fib_inet`, \
                             or use --engine tun";
                Some(lacks.to_owned())
            }
            Some(libc::EMSGSIZE) if matches!(self, Self::Table(_)) => {
                Some("take fewer ranges of ports, or raise net.core.wmem_max of the host".to_owned())
            }
            _ => None,
        }
    }

    /// The line of a compose file that has a container start with this setting. It cannot name a device of ours, which is
    /// not there yet.
    fn in_compose(&self) -> Option<&'static str> {
        let Self::Sysctl { key, .. } = self else { return None };
        Some(if key.ends_with("/disable_ipv6") {
            "sysctls: {net.ipv6.conf.all.disable_ipv6: 0}"
        } else {
            "sysctls: {net.ipv6.conf.all.forwarding: 1}"
        })
    }
}

fn set_up(netlink: &mut Netlink, name: &str, mtu: usize) -> io::Result<()> {
    let index = netlink.link(name)?.index;
    // The networks on both sides know their MTU; ours must not be the smallest.
    netlink.set_mtu(index, mtu as u32)?;
    netlink.set_queue_len(index, QUEUE_PACKETS)?;
    netlink.set_no_link_local(index).or_else(without_ipv6)?;
    netlink.set_up(index, true)
}

/// A device has no IPv6 settings where IPv6 is off.
fn without_ipv6(e: io::Error) -> io::Result<()> {
    match e.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EINVAL) => Ok(()),
        _ => Err(e),
    }
}

impl Undo {
    /// Takes it back. What is already gone, e.g. with its interface, is no failure.
    fn run(self, netlink: &mut Netlink) -> Result<(), Error> {
        let (what, result) = match self {
            Self::Ipv4 { device, index, setting, old } => (
                format!("cannot restore {}={old} of {device}", setting.name()),
                netlink.set_ipv4(index, setting, old),
            ),
            Self::Sysctl { key, setting, old } => (format!("cannot restore {key}={old}"), setting.set(&old)),
            Self::Route(route) => (format!("cannot remove the route {route}"), netlink.delete_route(&route)),
            Self::LocalRule { family, priority } => (
                "cannot move the rule for local addresses back to its place".to_owned(),
                netlink.restore_local_rule(family, priority),
            ),
            Self::Rule(rule) => (format!("cannot remove the rule {rule}"), netlink.delete_rule(&rule)),
            // Dropped, and so gone.
            Self::Table { .. } => return Ok(()),
        };
        match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV)) => Ok(()),
            other => other.map_err(|e| Error::from_io(what, &e)),
        }
    }
}

/// The ordered list of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is done, in this order, and undone in reverse.
    pub steps: Vec<Step>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Does all steps. If one fails, those before it are taken back.
    pub fn apply(&self, netlink: Netlink) -> Result<Applied, Error> {
        let mut applied = Applied { netlink, undo: Vec::new() };
        // An early return drops `applied`, which takes back what is done.
        applied.add(&self.steps)?;
        Ok(applied)
    }
}

impl fmt::Display for Plan {
    /// The commands that do the same, and the notes as comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "# note: {note}")?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// The changes that were made; dropping it takes them back.
#[derive(Debug)]
pub struct Applied {
    netlink: Netlink,
    undo: Vec<Undo>,
}

impl Applied {
    /// Does further steps.
    pub(super) fn add(&mut self, steps: &[Step]) -> Result<(), Error> {
        for step in steps {
            let undo = step.apply(&mut self.netlink).map_err(|e| {
                let error = Error::from_io(step.failed(), &e);
                match step.hint(&e) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            })?;
            self.undo.extend(undo);
        }
        Ok(())
    }

    /// The interfaces that there are now.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        self.netlink.links()
    }

    /// Takes everything back, in reverse; returns what could not be.
    pub fn undo(mut self) -> Vec<Error> {
        self.run()
    }

    fn run(&mut self) -> Vec<Error> {
        let Self { netlink, undo } = self;
        undo.drain(..).rev().filter_map(|undo| undo.run(netlink).err()).collect()
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        for error in self.run() {
            tracing::warn!("{error}");
        }
    }
}
