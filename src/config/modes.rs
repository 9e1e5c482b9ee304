//! Which keys each mode knows, and what it wants of them.

use std::net::IpAddr;

use super::listeners::{Listener, Upstream};
use super::raw::{self, EngineKind, Mode};
use super::resolve::Check;
use super::units::{Loopback, PortRange};

impl Check<'_> {
    pub(super) fn intercept(&mut self, raw: &raw::Raw) {
        let intercept = &raw.intercept;
        let mode = match intercept.mode {
            Mode::Exec => return self.exec(intercept),
            Mode::Listen => return self.listen(intercept),
            Mode::Gateway => {
                self.only_beside(intercept);
                "gateway"
            }
            Mode::Sidecar => {
                self.no_interfaces(intercept, "sidecar");
                if raw.engine.kind == EngineKind::Tun {
                    self.source_ports(intercept);
                }
                "sidecar"
            }
        };
        if intercept.host_loopback != Loopback::On {
            let hint = "remove it, or use mode = \"exec\"";
            let message = format!("a {mode} reaches nobody's loopback\n{hint}");
            self.wrong("intercept.host_loopback", &message);
        }
        if intercept.ports.0.is_empty() && intercept.inbound_ports.0.is_empty() {
            let hint = "name the server ports, such as --ports 5432; a file for exec says mode = \"exec\"";
            self.wrong("intercept.ports", &format!("is empty, so nothing would be intercepted\n{hint}"));
        }
        // The kernel refuses a rule whose range of ports ends at 65535.
        let lists = [("ports", &intercept.ports), ("inbound_ports", &intercept.inbound_ports)];
        for (key, _) in lists.iter().filter(|(_, list)| list.0.iter().any(|range| range.contains(u16::MAX))) {
            let message = format!("a {mode} cannot take port 65535\nend the range at 65534");
            self.wrong(&format!("intercept.{key}"), &message);
        }
    }

    fn source_ports(&mut self, intercept: &raw::Intercept) {
        let source_ports = intercept.source_ports;
        if source_ports.contains(u16::MAX) {
            self.wrong("intercept.source_ports", "a sidecar cannot take port 65535\nend the range at 65534");
        }
        let meets = |p: &PortRange| p.first <= source_ports.last && source_ports.first <= p.last;
        let lists = [("ports", &intercept.ports), ("inbound_ports", &intercept.inbound_ports)];
        for (key, _) in lists.iter().filter(|(_, list)| list.0.iter().any(meets)) {
            let message =
                format!("{source_ports} are the ports of server legs\nset intercept.source_ports to others");
            self.wrong(&format!("intercept.{key}"), &message);
        }
    }

    /// Keys that only a sidecar knows.
    fn only_beside(&mut self, intercept: &raw::Intercept) {
        let default = raw::Intercept::default();
        for (key, set) in [
            ("inbound_ports", intercept.inbound_ports != default.inbound_ports),
            ("source_ports", intercept.source_ports != default.source_ports),
        ] {
            if set {
                let message = "only a sidecar has these\nremove it, or use mode = \"sidecar\"";
                self.wrong(&format!("intercept.{key}"), message);
            }
        }
    }

    fn exec(&mut self, intercept: &raw::Intercept) {
        if !intercept.ports.0.is_empty() {
            let hint = "remove it; a rule chooses its ports by match.server = \":5432\"";
            self.wrong("intercept.ports", &format!("mode exec takes all ports\n{hint}"));
        }
        self.no_interfaces(intercept, "exec");
        self.only_beside(intercept);
    }

    fn listen(&mut self, intercept: &raw::Intercept) {
        if !intercept.ports.0.is_empty() {
            let message = "a listener has its port with its address\nremove it, or use mode = \"sidecar\"";
            self.wrong("intercept.ports", message);
        }
        if intercept.host_loopback != Loopback::On {
            let message = "mode listen reaches nobody's loopback\nremove it, or use mode = \"exec\"";
            self.wrong("intercept.host_loopback", message);
        }
        self.no_interfaces(intercept, "listen");
        self.only_beside(intercept);
    }

    pub(super) fn publish(&mut self, intercept: &raw::Intercept) {
        let all = &intercept.publish.0;
        if intercept.mode != Mode::Exec && !all.is_empty() {
            let message = "only exec publishes ports of its command\nremove it, or use mode = \"exec\"";
            self.wrong("intercept.publish", message);
        }
        for (i, published) in all.iter().enumerate() {
            if all[..i].iter().any(|before| before.listen == published.listen) {
                let message = format!("{} is published already\nchoose another port", published.listen);
                self.wrong(&format!("intercept.publish.{i}"), &message);
            }
        }
    }

    pub(super) fn listeners(&mut self, raw: &raw::Raw) {
        let listeners = &raw.listener.0;
        if raw.intercept.mode != Mode::Listen {
            if !listeners.is_empty() {
                self.wrong(
                    "listener",
                    "only mode listen has listeners\nremove them, or use mode = \"listen\"",
                );
            }
            return;
        }
        if listeners.is_empty() {
            let hint = "name them, such as --listen 0.0.0.0:5432=db:5432";
            self.wrong("listener", &format!("is empty, so there would be nothing to connect to\n{hint}"));
        }
        for (i, Listener { listen, upstream }) in listeners.iter().enumerate() {
            let Upstream { host, port } = upstream;
            if listeners[..i].iter().any(|before| before.listen == *listen) {
                let message =
                    format!("{listen} is listened at already\ngive each listener an address of its own");
                self.wrong(&format!("listener.{i}"), &message);
            }
            let ip: Option<IpAddr> = host.parse().ok();
            if *port == listen.0.port() && ip == Some(listen.0.ip()) {
                let message = format!("{upstream} is the listener itself\nname what stands behind it");
                self.wrong(&format!("listener.{i}"), &message);
            }
        }
    }

    fn no_interfaces(&mut self, intercept: &raw::Intercept, mode: &str) {
        for (key, name) in [
            ("intercept.client_interface", &intercept.client_interface),
            ("intercept.server_interface", &intercept.server_interface),
        ] {
            if !name.0.is_empty() {
                let hint = "remove it, or use mode = \"gateway\"";
                self.wrong(key, &format!("mode {mode} has no interfaces to choose from\n{hint}"));
            }
        }
    }

    pub(super) fn engine(&mut self, raw: &raw::Raw) {
        if raw.engine.kind == EngineKind::Sockets {
            self.sockets(raw);
        }
        self.shards(raw);
    }

    fn sockets(&mut self, raw: &raw::Raw) {
        if raw.intercept.mode == Mode::Exec {
            let hint = "remove it, or use another mode";
            self.wrong("engine.kind", &format!("exec cannot do without our own TCP\n{hint}"));
        }
        if raw.intercept.source_ports != raw::Intercept::default().source_ports {
            let hint = "remove it, or use engine.kind = \"tun\"";
            self.wrong(
                "intercept.source_ports",
                &format!("the kernel chooses the ports of its sockets\n{hint}"),
            );
        }
    }

    fn shards(&mut self, raw: &raw::Raw) {
        let mode = match raw.intercept.mode {
            Mode::Gateway if raw.engine.kind == EngineKind::Tun => return,
            Mode::Gateway => "gateway with kernel sockets",
            Mode::Exec => "exec",
            Mode::Listen => "listen",
            // The two legs of a flow have different ports, so the kernel may steer them to different threads.
            Mode::Sidecar => "sidecar",
        };
        if raw.engine.shards > 1 {
            let message = format!("mode {mode} has one thread for packets\nremove it, or set it to 1");
            self.wrong("engine.shards", &message);
        }
    }
}
