use super::*;
use crate::setup::facts::tests::{facts, ip};

fn request() -> Request {
    Request {
        ports: vec![5432..=5432, 8000..=8099],
        inbound_ports: vec![],
        source_ports: 61_000..=64_999,
        device: "halfopen0".to_owned(),
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_plan_reads_as_commands() {
    let plan = request().plan(&facts(Ipv6::Ready)).expect("a good request");
    assert_eq!(plan.to_string(), include_str!("plan.txt"));
}

/// A connection from this peer to port 8080.
fn from_outside(peer: &str) -> Connection {
    let peer: std::net::SocketAddr = peer.parse().expect("an address");
    let own = if peer.is_ipv4() { "172.18.0.3" } else { "fd18::3" };
    Connection { local: std::net::SocketAddr::new(ip(own), 8080), peer, is_over: false }
}

#[test]
fn connections_from_outside_are_taken_but_not_those_from_before() {
    let request = Request { ports: vec![], inbound_ports: vec![8080..=8080], ..request() };
    let connections = vec![
        from_outside("172.18.0.9:50000"),
        from_outside("[fd18::9]:50001"),
        Connection { local: "172.18.0.3:9090".parse().expect("an address"), ..from_outside("172.18.0.9:1") },
        Connection { peer: "172.18.0.3:50000".parse().expect("an address"), ..from_outside("172.18.0.9:1") },
    ];
    let facts = Facts { connections, ..facts(Ipv6::Ready) };
    let told = lines(&request.plan(&facts).expect("a good request"));
    let of_tcp: Vec<&str> = told.iter().map(String::as_str).filter(|line| line.contains("tcp")).collect();
    assert_eq!(
        of_tcp,
        [
            "ip -4 rule add pref 11 iif lo ipproto tcp sport 8080 dport 61000-64999 lookup 10400 protocol 104",
            "ip -4 rule add pref 15 from 172.18.0.9 ipproto tcp sport 50000 dport 8080 goto 19 protocol 104",
            "ip -4 rule add pref 16 ipproto tcp dport 8080 lookup 10401 protocol 104",
            "ip -6 rule add pref 11 iif lo ipproto tcp sport 8080 dport 61000-64999 lookup 10400 protocol 104",
            "ip -6 rule add pref 15 from fd18::9 ipproto tcp sport 50001 dport 8080 goto 19 protocol 104",
            "ip -6 rule add pref 16 ipproto tcp dport 8080 lookup 10401 protocol 104",
        ]
    );
    let own = told.iter().filter(|line| line.contains("table 10401"));
    let own: Vec<&str> = own.map(|line| line.split(" protocol").next().unwrap_or_default()).collect();
    assert_eq!(
        own,
        [
            "ip -4 route replace 172.18.0.3/32 dev halfopen0 table 10401",
            "ip -6 route replace fd18::3/128 dev halfopen0 table 10401",
        ]
    );
    assert!(!told[0].contains("::1"), "nothing of this host is taken: {}", told[0]);
    let facts = Facts { early_demux: false, ..facts };
    let told = lines(&request.plan(&facts).expect("a good request"));
    assert!(
        told.iter().all(|line| !line.contains("pref 15")),
        "they take the way through the device: {told:?}"
    );
}

#[test]
fn more_connections_from_before_than_rules_are_told() {
    let request = Request { inbound_ports: vec![8080..=8080], ..request() };
    let connections = (1..=300).map(|n| from_outside(&format!("172.18.0.9:{n}"))).collect();
    let facts = Facts { connections, ..facts(Ipv6::Off) };
    let plan = request.plan(&facts).expect("a good request");
    assert_eq!(lines(&plan).iter().filter(|line| line.contains("pref 15")).count(), 256);
    assert!(plan.notes.iter().any(|n| n.contains("of 300 connections") && n.contains("tcp_early_demux: 0")));
}

#[test]
fn ipv6_that_passes_by_is_told_with_what_to_add() {
    let missing = vec!["net.ipv6.conf.all.disable_ipv6: 0", "net.ipv6.conf.all.forwarding: 1"];
    let plan = request().plan(&facts(Ipv6::PassesBy(missing))).expect("a good request");
    assert_eq!(
        plan.notes[0],
        "IPv6 connections pass by: add `sysctls: {net.ipv6.conf.all.disable_ipv6: 0, net.ipv6.conf.all.forwarding: 1}` \
         to this service in the compose file"
    );
    assert!(lines(&plan).iter().all(|line| !line.starts_with("ip -6")), "{plan}");
}

#[test]
fn reverse_path_filtering_of_all_interfaces_keeps_ipv4_errors_out_of_the_device() {
    let facts = Facts { rp_filter: true, ..facts(Ipv6::Off) };
    let plan = request().plan(&facts).expect("a good request");
    assert!(!plan.to_string().contains("ipproto icmp"), "{plan}");
    assert!(plan.notes.iter().any(|note| note.contains("all.rp_filter")), "{:?}", plan.notes);
}

#[test]
fn impossible_requests_say_what_to_do() {
    let fails = |request: Request, facts: &Facts| request.plan(facts).expect_err("impossible").to_string();
    let container = facts(Ipv6::Off);
    assert!(
        fails(Request { ports: vec![], ..request() }, &container)
            .starts_with("no ports to intercept\nhint: ")
    );
    let bad = Request { ports: vec![1..=65_535], ..request() };
    assert!(fails(bad, &container).contains("cannot be intercepted\nhint: ports go from 1 to 65534"));
    let greedy = Facts { given_out: vec![1024..=64_000], ..container };
    assert_eq!(
        fails(request(), &greedy),
        "the source ports 61000-64999 are among those that connections get here (1024-64000)\n\
         hint: set intercept.source_ports to others, or add `sysctls: {net.ipv4.ip_local_reserved_ports: 61000-64999}` \
         to this service in the compose file"
    );
}

#[test]
fn what_is_missing_in_a_container_is_told_with_its_line_of_the_compose_file() {
    let told = |kind, what: &str| in_compose(Error::new(kind, what).hint("old")).hint.unwrap_or_default();
    for (kind, what, line) in [
        (ErrorKind::Permission, "cannot create the TUN device halfopen0: EPERM", "`cap_add: [NET_ADMIN]`"),
        (ErrorKind::Permission, "cannot open /dev/net/tun: EPERM", "`devices: [\"/dev/net/tun\"]`"),
        (ErrorKind::Unavailable, "cannot open /dev/net/tun: ENOENT", "`devices: [\"/dev/net/tun\"]`"),
        (ErrorKind::Unavailable, "another halfopen already intercepts", "`command: run --mode sidecar"),
        (ErrorKind::Config, "no ports", "old"),
    ] {
        assert!(told(kind, what).contains(line), "{what}: {}", told(kind, what));
    }
}

#[test]
fn what_takes_the_ipv6_loopback_reads_as_commands() {
    let plan = |request: &Request, facts: &Facts| {
        let steps = loopback::plan(request, facts)?;
        Some(Plan { steps: steps.into(), notes: vec![] }.to_string())
    };
    let mut facts = facts(Ipv6::Off);
    assert_eq!(plan(&request(), &facts).as_deref(), Some(include_str!("loopback.txt")));
    let inbound = Request { ports: vec![], inbound_ports: vec![8443..=8443], ..request() };
    assert_eq!(plan(&inbound, &facts), None, "what comes in comes from elsewhere");
    facts.early_demux = false;
    let same_port = plan(&request(), &facts).expect("there is such an address");
    assert!(same_port.contains(" tcp sport 5432 fwd to "), "{same_port}");
    facts.addresses.retain(|address| !address.ip.is_loopback());
    assert_eq!(plan(&request(), &facts), None, "nobody has this address");
}

#[test]
fn without_early_demultiplexing_the_port_stays() {
    let request = Request { inbound_ports: vec![8443..=8443], ..request() };
    let mut facts = facts(Ipv6::Ready);
    facts.early_demux = false;
    // Nobody else needs to leave the source ports alone then.
    facts.given_out = vec![10_000..=64_000];
    let lines = lines(&request.plan(&facts).expect("a good request"));
    for rule in [
        "ip -4 rule add pref 10 ipproto tcp sport 5432 lookup 10400 protocol 104",
        "ip -6 rule add pref 11 iif lo ipproto tcp sport 8443 lookup 10400 protocol 104",
    ] {
        assert!(lines.iter().any(|line| line == rule), "{rule} is missing in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("61000")), "{lines:#?}");
    facts.given_out = vec![8_080..=60_000];
    assert!(!request.keeps_port(&facts), "a connection may come from a port that is taken");
}
