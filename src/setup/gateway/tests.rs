use super::*;

pub(in crate::setup) fn facts(ipv6: Ipv6) -> Facts {
    let link = |index, name: &str, flags: i32| Link::for_test(index, name, flags as u32);
    let links = vec![
        link(1, "lo", libc::IFF_UP | libc::IFF_LOOPBACK),
        link(2, "cli0", libc::IFF_UP),
        link(3, "srv0", libc::IFF_UP),
        link(4, "down0", 0),
    ];
    Facts { links, ipv6, ..Facts::default() }
}

fn request() -> Request {
    Request {
        ports: vec![5432..=5432, 8000..=8099],
        client_interface: Some("cli0".to_owned()),
        server_interface: Some("srv0".to_owned()),
        device: "halfopen0".to_owned(),
        shards: 1,
    }
}

fn anywhere() -> Request {
    Request { client_interface: None, server_interface: None, ..request() }
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_plan_with_interface_names_reads_as_commands() {
    let plan = request().plan(&facts(Ipv6::PerDevice)).expect("a good request");
    let rules = |f: &str, icmp: &str| {
        [
            format!("ip {f} route replace default dev halfopen0 table 10400 protocol 104"),
            format!("ip {f} rule add pref 10 iif cli0 ipproto tcp dport 5432 lookup 10400 protocol 104"),
            format!("ip {f} rule add pref 11 iif srv0 ipproto tcp sport 5432 lookup 10400 protocol 104"),
            format!("ip {f} rule add pref 10 iif cli0 ipproto tcp dport 8000-8099 lookup 10400 protocol 104"),
            format!("ip {f} rule add pref 11 iif srv0 ipproto tcp sport 8000-8099 lookup 10400 protocol 104"),
            format!("ip {f} rule add pref 12 iif srv0 ipproto {icmp} lookup 10400 protocol 104"),
            format!("ip {f} rule add pref 12 iif cli0 ipproto {icmp} lookup 10400 protocol 104"),
        ]
    };
    let mut expected = vec![
        "ip tuntap add dev halfopen0 mode tun vnet_hdr".to_owned(),
        "ip link set dev halfopen0 mtu 65535 txqueuelen 4096 addrgenmode none up".to_owned(),
    ];
    expected
        .extend(["cli0", "srv0", "halfopen0"].map(|d| format!("sysctl -w net/ipv4/conf/{d}/forwarding=1")));
    let ours = ["accept_local=1", "rp_filter=0"];
    expected.extend(ours.map(|setting| format!("sysctl -w net/ipv4/conf/halfopen0/{setting}")));
    expected.extend(
        ["cli0", "srv0", "halfopen0"].map(|d| format!("sysctl -w net/ipv6/conf/{d}/force_forwarding=1")),
    );
    let own = |f: &str, icmp: &str, types: &str| {
        format!("ip {f} rule add pref 8 iif lo ipproto {icmp} dport {types} lookup 10400 protocol 104")
    };
    expected.extend(rules("-4", "icmp"));
    expected.extend(["768-1023", "2816-3071"].map(|types| own("-4", "icmp", types)));
    expected.extend(rules("-6", "ipv6-icmp"));
    expected.push(own("-6", "ipv6-icmp", "256-1023"));
    assert_eq!(lines(&plan), expected);
}

#[test]
fn without_interface_names_our_own_device_and_this_host_pass_by() {
    let request = Request { ports: vec![80..=80], ..anywhere() };
    let plan = request.plan(&facts(Ipv6::Off)).expect("a good request");
    let expected = [
        "# note: IPv6 is off on all interfaces: only IPv4 is intercepted",
        "ip tuntap add dev halfopen0 mode tun vnet_hdr",
        "ip link set dev halfopen0 mtu 65535 txqueuelen 4096 addrgenmode none up",
        "sysctl -w net/ipv4/conf/cli0/forwarding=1",
        "sysctl -w net/ipv4/conf/srv0/forwarding=1",
        "sysctl -w net/ipv4/conf/halfopen0/forwarding=1",
        "sysctl -w net/ipv4/conf/halfopen0/accept_local=1",
        "sysctl -w net/ipv4/conf/halfopen0/rp_filter=0",
        "ip -4 route replace default dev halfopen0 table 10400 protocol 104",
        "ip -4 rule add pref 19 nop protocol 104",
        "ip -4 rule add pref 9 iif halfopen0 goto 19 protocol 104",
        "ip -4 rule add pref 9 iif lo goto 19 protocol 104",
        "ip -4 rule add pref 10 ipproto tcp dport 80 lookup 10400 protocol 104",
        "ip -4 rule add pref 11 ipproto tcp sport 80 lookup 10400 protocol 104",
        "ip -4 rule add pref 12 ipproto icmp lookup 10400 protocol 104",
        "ip -4 rule add pref 8 iif lo ipproto icmp dport 768-1023 lookup 10400 protocol 104",
        "ip -4 rule add pref 8 iif lo ipproto icmp dport 2816-3071 lookup 10400 protocol 104",
    ];
    assert_eq!(lines(&plan), expected);
}

#[test]
fn ipv6_forwarding_is_switched_on_in_the_smallest_way_this_kernel_has() {
    let sysctls = |ipv6, off_by_default| {
        let facts = Facts { ipv6_off_by_default: off_by_default, ..facts(ipv6) };
        let plan = request().plan(&facts).expect("a good request");
        lines(&plan).into_iter().filter(|l| l.contains("net/ipv6")).collect::<Vec<_>>()
    };
    assert_eq!(sysctls(Ipv6::Forwards, false), [""; 0]);
    assert_eq!(sysctls(Ipv6::All, false), ["sysctl -w net/ipv6/conf/all/forwarding=1"]);
    assert_eq!(sysctls(Ipv6::Forwards, true), ["sysctl -w net/ipv6/conf/halfopen0/disable_ipv6=0"]);
}

#[test]
fn impossible_requests_say_what_to_do() {
    let fails = |request: Request, facts: &Facts| request.plan(facts).expect_err("impossible").to_string();
    let facts = facts(Ipv6::Off);
    let ports = |ports| Request { ports, ..request() };
    assert!(fails(ports(vec![]), &facts).starts_with("no ports to intercept\nhint: "));
    for bad in [0..=9, 1..=65_535, RangeInclusive::new(9, 8)] {
        assert!(
            fails(ports(vec![bad]), &facts).contains("cannot be intercepted\nhint: ports go from 1 to 65534")
        );
    }
    let named = |a: &str, b: &str| Request {
        client_interface: Some(a.to_owned()),
        server_interface: Some(b.to_owned()),
        ..request()
    };
    for (a, b, wrong) in [("cli0", "eth9", "eth9"), ("down0", "srv0", "down0"), ("lo", "srv0", "lo")] {
        let expected = format!(
            "there is no interface {wrong} that is up\nhint: interfaces that are up here: cli0, srv0"
        );
        assert_eq!(fails(named(a, b), &facts), expected);
    }
    let nothing = Facts::default();
    assert!(
        fails(anywhere(), &nothing).starts_with("no network interface is up besides the loopback\nhint: ")
    );
}

#[test]
fn reverse_path_filtering_of_all_interfaces_keeps_own_ipv4_errors_out_of_the_device() {
    let facts = Facts { rp_filter: true, ..facts(Ipv6::Forwards) };
    let plan = request().plan(&facts).expect("a good request");
    let own: Vec<String> = lines(&plan).into_iter().filter(|l| l.contains("iif lo")).collect();
    assert_eq!(
        own,
        ["ip -6 rule add pref 8 iif lo ipproto ipv6-icmp dport 256-1023 lookup 10400 protocol 104"]
    );
    assert!(plan.notes.iter().any(|n| n.contains("all.rp_filter")), "{:?}", plan.notes);
}

#[test]
fn active_connection_tracking_is_mentioned() {
    let facts = Facts { conntrack: true, ..facts(Ipv6::Forwards) };
    let plan = request().plan(&facts).expect("a good request");
    assert!(plan.notes.iter().any(|n| n.contains("notrack")), "{:?}", plan.notes);
}

#[test]
fn without_a_device_only_connection_tracking_is_in_the_way() {
    let facts = Facts { conntrack: true, rp_filter: true, ..facts(Ipv6::Forwards) };
    let plan = without_device(&request(), facts).expect("a good request");
    assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
    assert!(plan.notes[0].starts_with("connection tracking is active here"), "{:?}", plan.notes);
    assert_eq!(lines(&plan).len(), 3, "{plan}");
}
