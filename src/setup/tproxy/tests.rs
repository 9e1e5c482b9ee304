use super::*;
use crate::setup::facts::Ipv6;
use crate::setup::facts::tests::facts as beside;
use crate::setup::gateway::tests::facts as between;

fn ways(v6: bool, queueing: Option<Queueing>) -> Ways {
    let doors = |port| {
        let all = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().expect("an address"), port));
        all.into_iter().take(if v6 { 2 } else { 1 }).collect()
    };
    let offering = if queueing.is_some() { doors(OFFERING_DOOR) } else { Vec::new() };
    Ways { doors: doors(DOOR), offering, queueing }
}

const HELD: Option<Queueing> = Some(Queueing::Expression);

fn beside_request() -> sidecar::Request {
    sidecar::Request {
        ports: vec![5432..=5432, 8000..=8099],
        inbound_ports: vec![8443..=8443],
        source_ports: 61_000..=64_999,
        device: "halfopen0".to_owned(),
    }
}

fn between_request() -> gateway::Request {
    gateway::Request {
        ports: vec![5432..=5432],
        client_interface: Some("cli0".to_owned()),
        server_interface: None,
        device: "halfopen0".to_owned(),
        shards: 1,
    }
}

#[test]
fn the_plan_of_a_sidecar_reads_as_commands() {
    let connection = |local: &str, peer: &str| Connection {
        local: local.parse().expect("an address"),
        peer: peer.parse().expect("an address"),
        is_over: false,
    };
    let connections = vec![
        connection("172.18.0.3:40000", "192.0.2.1:5432"),
        connection("[fd18::3]:8443", "[fd18::9]:50000"),
        // To other ports, and on this host: these are not taken.
        connection("172.18.0.3:40001", "192.0.2.1:9000"),
        connection("127.0.0.1:40002", "127.0.0.1:5432"),
    ];
    let mut facts = beside(Ipv6::Ready);
    facts.connections = connections;
    let plan = sidecar_plan(&beside_request(), &facts, &ways(true, HELD)).expect("a good request");
    assert_eq!(plan.to_string(), include_str!("sidecar.txt"));
}

#[test]
fn the_plan_of_a_gateway_reads_as_commands() {
    let plan = gateway_plan(&between_request(), between(gateway::Ipv6::PerDevice), &ways(true, HELD));
    assert_eq!(plan.expect("a good request").to_string(), include_str!("gateway.txt"));
}

#[test]
fn without_interfaces_a_gateway_leaves_its_own_connections_alone() {
    let request = gateway::Request { client_interface: None, ..between_request() };
    let plan =
        gateway_plan(&request, between(gateway::Ipv6::Off), &ways(false, HELD)).expect("a good request");
    assert!(
        plan.to_string().contains("\t\tiifname != \"lo\" meta nfproto ipv4 meta l4proto tcp tcp dport 5432 "),
        "{plan}"
    );
}

#[test]
fn what_passes_by_is_told() {
    let notes = |facts: &Facts, v6| {
        sidecar_plan(&beside_request(), facts, &ways(v6, HELD)).expect("a good request").notes
    };
    assert_eq!(notes(&beside(Ipv6::Ready), true), Vec::<String>::new());
    assert!(notes(&beside(Ipv6::Ready), false)[0].starts_with("IPv6 connections pass by"));
    let connection = Connection {
        local: "172.18.0.3:40000".parse().expect("an address"),
        peer: "192.0.2.1:5432".parse().expect("an address"),
        is_over: false,
    };
    let mut facts = beside(Ipv6::Ready);
    facts.connections = vec![connection; MOST_BEFORE_US + 1];
    assert_eq!(notes(&facts, true), ["of 257 connections only 256 will survive the start"]);
}

/// Below 32768 clients have none.
#[test]
fn a_port_that_clients_may_have_too_is_taken_only_with_another_one_of_theirs() {
    let request = sidecar::Request {
        ports: vec![50_051..=50_051],
        inbound_ports: vec![60_999..=61_005],
        ..beside_request()
    };
    let mut facts = beside(Ipv6::Ready);
    let plan = |facts: &Facts| sidecar_plan(&request, facts, &ways(false, HELD)).expect("a good request");
    let seen = plan(&facts);
    for rule in [
        "\t\tmeta l4proto tcp tcp dport 50051 tcp sport 32768-60999 meta mark set 0x000028a0 accept\n",
        "\t\tmeta l4proto tcp tcp sport 60999-61005 tcp dport 32768-60999 tcp flags & rst != rst meta mark set 0x000028a0 \
         accept\n",
    ] {
        assert!(seen.to_string().contains(rule), "{seen}");
    }
    let told = &seen.notes[1];
    assert!(told.starts_with("connections may come from 50051,60999-61005 as well"), "{told}");
    assert!(told.contains("{net.ipv4.ip_local_reserved_ports: \"50051,60999-61005\"}"), "{told}");
    facts.given_out = vec![32_768..=50_050, 50_052..=60_998];
    assert_eq!(plan(&facts).notes[1..], Vec::<String>::new(), "these are reserved");
}

#[test]
fn what_passes_a_gateway_by_is_told() {
    use gateway::Ipv6::{Forwards, Off};
    let notes = |ipv6, v6| {
        gateway_plan(&between_request(), between(ipv6), &ways(v6, HELD)).expect("a good request").notes
    };
    assert_eq!(notes(Forwards, true), Vec::<String>::new());
    assert!(notes(Forwards, false)[0].starts_with("IPv6 connections pass by, because `lo` has IPv6 off"));
    assert_eq!(notes(Off, false), ["IPv6 is off on all interfaces: only IPv4 is intercepted"]);
}

#[test]
fn bad_ports_are_refused() {
    for ports in [vec![], vec![0..=1], vec![1..=u16::MAX]] {
        let request = gateway::Request { ports: ports.clone(), ..between_request() };
        gateway_plan(&request, between(gateway::Ipv6::Off), &ways(true, HELD)).expect_err("no such ports");
        let request = sidecar::Request { ports, inbound_ports: vec![], ..beside_request() };
        sidecar_plan(&request, &beside(Ipv6::Ready), &ways(true, HELD)).expect_err("no such ports");
    }
}

/// A kernel that cannot hold SYNs leads them to our listeners at once.
#[test]
fn without_a_queue_first_syns_go_to_our_listeners() {
    let plan = gateway_plan(&between_request(), between(gateway::Ipv6::PerDevice), &ways(true, None));
    let plan = plan.expect("a good request").to_string();
    let tproxy = "tcp dport 5432 tcp flags & (fin | syn | rst | ack) == syn tproxy ip6 to [::1]:10400 ";
    assert!(plan.contains(tproxy) && !plan.contains("queue") && !plan.contains("reject"), "{plan}");
}
