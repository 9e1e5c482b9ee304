use super::super::facts::tests::facts;
use super::*;

fn request(listeners: &[&str]) -> Request {
    let listeners = listeners.iter().map(|at| at.parse().expect("an address")).collect();
    Request { listeners, device: "halfopen0".to_owned() }
}

#[test]
fn the_plan_reads_as_commands() {
    let request = request(&["0.0.0.0:5432", "127.0.0.1:6379", "[fd18::3]:80"]);
    let plan = request.plan(&facts(Ipv6::Ready)).expect("a good request");
    assert_eq!(plan.to_string(), include_str!("plan.txt"));
}

#[test]
fn a_family_without_listeners_is_left_alone() {
    let of = |family: &str, listeners: &[&str]| {
        let plan = request(listeners).plan(&facts(Ipv6::Ready)).expect("a good request");
        plan.to_string().lines().filter(|line| line.starts_with(&format!("ip {family} "))).count()
    };
    assert_eq!((of("-6", &["0.0.0.0:80"]), of("-4", &["[::]:80"])), (0, 0));
    let passes_by = facts(Ipv6::PassesBy(vec!["net.ipv6.conf.all.forwarding: 1"]));
    assert!(request(&["0.0.0.0:80"]).plan(&passes_by).expect("a good request").notes.is_empty());
}

#[test]
fn addresses_that_cannot_be_taken_say_what_to_do() {
    let fails = |at: &str, ipv6: Ipv6| request(&[at]).plan(&facts(ipv6)).expect_err("impossible").to_string();
    assert_eq!(
        fails("[::1]:80", Ipv6::Ready),
        "cannot listen at [::1]:80: the kernel takes packets for it by one interface alone\n\
         hint: listen at 127.0.0.1 instead of ::1, or at a global IPv6 address"
    );
    assert_eq!(
        fails(
            "[::]:80",
            Ipv6::PassesBy(vec!["net.ipv6.conf.all.disable_ipv6: 0", "net.ipv6.conf.all.forwarding: 1"])
        ),
        "cannot listen at [::]:80: IPv6 packets do not get through our device here\n\
         hint: add `sysctls: {net.ipv6.conf.all.disable_ipv6: 0, net.ipv6.conf.all.forwarding: 1}` to this service in \
         the compose file, or listen at 0.0.0.0"
    );
}

#[test]
fn reverse_path_filtering_of_all_interfaces_keeps_ipv4_errors_out_of_the_device() {
    let mut facts = facts(Ipv6::Off);
    facts.rp_filter = true;
    let plan = request(&["0.0.0.0:80"]).plan(&facts).expect("a good request");
    assert!(!plan.to_string().contains("ipproto icmp"), "{plan}");
    assert!(plan.notes.iter().any(|note| note.contains("all.rp_filter")), "{:?}", plan.notes);
}
