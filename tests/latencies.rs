//! Every latency against known truth: a client, halfopen and a server in virtual time. The client is 5 ms away and the server
//! 10 ms, so that each time can be told beforehand. What takes no time counts as 1 µs, the least that is told apart.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use halfopen::fault::{Engine, Rule, RuleSpec, Rules};
use halfopen::measure::{By, Kind, Measure, syn_loss};
use halfopen::sim::host::{App, Close};
use halfopen::sim::link::Weather;
use halfopen::sim::trio::Trio;
use halfopen::sim::world::Setup;
use halfopen::time::Duration;
use halfopen::trace::Outcome;

/// What happens besides.
#[derive(Clone, Copy, Debug, Default)]
struct World {
    rule: Option<&'static str>,
    /// From when to when the way to the server loses everything.
    lost: [Duration; 2],
    client: App,
    server: App,
    /// When the run ends, whatever is open then.
    end: Duration,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Request and reply at once; the client finishes, then the server.
fn talk(rule: Option<&'static str>) -> World {
    let client = App { send: 100, close: Close::WhenSent, ..App::default() };
    let server = App { send: 2000, close: Close::AfterPeer, ..App::default() };
    World { rule, lost: [Duration::ZERO; 2], client, server, end: ms(10_000) }
}

fn measure(world: World) -> Measure {
    let rules = world.rule.map(|text| Rule::build(text.parse::<RuleSpec>().unwrap()).unwrap());
    let rules = Rules::new(1, Engine::Tun, rules.into_iter().collect()).unwrap();
    let names: Vec<_> = rules.rules().iter().map(|rule| (rule.name.clone(), rule.kind.name)).collect();
    let setup = Setup { seed: 1, client: world.client, server: world.server, ..Setup::default() };
    let mut trio = Trio::new(setup, rules, Measure::new(names));
    let far = |millis| Weather { delay: ms(millis), ..Weather::default() };
    for link in [&mut trio.client.from, &mut trio.client.to] {
        link.set_weather(far(5));
    }
    let [from, to] = world.lost;
    trio.server.from.set_weather(far(10));
    trio.server.to.set_weather(far(10));
    trio.run_for(from).unwrap();
    trio.server.to.set_weather(Weather { loss: 1.0, ..far(10) });
    trio.run_for(to - from).unwrap();
    trio.server.to.set_weather(far(10));
    trio.run_for(world.end - to).unwrap();
    trio.close();
    let end = trio.now;
    let mut measure = trio.sink;
    measure.finish(end);
    measure
}

/// `(latency, values, of these unfinished, the largest in µs)` of those that have values.
fn told(measure: &Measure) -> Vec<(&'static str, u64, u64, u64)> {
    let latencies = measure.latencies().iter().filter(|(_, latency)| latency.count() > 0);
    let told = latencies.map(|(kind, latency)| {
        let max = latency.max().unwrap();
        assert_eq!(max.at_least, latency.unfinished_count() > 0, "{}", kind.name());
        (kind.name(), latency.count(), latency.unfinished_count(), max.value.as_micros() as u64)
    });
    told.collect()
}

/// Asserts which latencies there are: name and milliseconds of one finished value each.
fn check(measure: &Measure, expected: &[(&'static str, f64)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, millis)| (*name, 1, 0, ((millis * 1000.0) as u64).max(1))).collect();
    assert_eq!(told(measure), expected);
}

/// Steps of suspected losses of `connect` and of those of `server_connect`, and how many are by faults.
fn losses(measure: &Measure) -> Vec<(&'static str, u64, u64, Option<u64>)> {
    let found = syn_loss(measure.latencies());
    found.iter().map(|loss| (loss.latency, loss.steps[0].seconds, loss.suspected(), loss.by_faults)).collect()
}

/// The teardown of [`talk`]: the FIN of the client comes with its request. It goes on at once, and the server's comes back after
/// one round trip there, with the acknowledgement of ours.
const END: [(&str, f64); 4] =
    [("client_fin_ack", 10.0), ("client_fin_fin", 20.0), ("server_fin_ack", 20.0), ("server_fin_fin", 20.0)];

fn with_end(handshake: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    handshake.iter().copied().chain(END).collect()
}

#[test]
fn a_healthy_flow() {
    let measure = measure(talk(None));
    let expected = with_end(&[
        ("connect", 30.0),
        ("connect_without_fault", 30.0),
        ("added_by_proxy", 0.0),
        ("client_rtt", 10.0),
        ("server_connect", 20.0),
        ("server_net", 20.0),
        ("ttfb", 20.0),
    ]);
    check(&measure, &expected);
    assert_eq!(losses(&measure), []);
}

#[test]
fn a_syn_that_the_network_loses_costs_a_second_and_is_suspected() {
    let measure = measure(World { lost: [ms(0), ms(500)], ..talk(None) });
    let expected = with_end(&[
        ("connect", 1030.0),
        ("connect_without_fault", 1030.0),
        ("added_by_proxy", 0.0),
        ("client_rtt", 10.0),
        ("server_connect", 1020.0),
        ("server_net", 20.0),
        ("ttfb", 20.0),
    ]);
    check(&measure, &expected);
    assert_eq!(losses(&measure), [("connect", 1, 1, Some(0)), ("server_connect", 1, 1, None)]);
}

#[test]
fn what_a_fault_adds_to_a_connect_is_told_apart_from_the_rest() {
    // Rule, connect, added by the fault, server_connect.
    let rows = [
        ("syn-drop first=1", 1030.0, 1000.0, 20.0),
        ("syn-drop first=2", 2030.0, 2000.0, 20.0),
        // The SYN that the client sends again at 1 s is answered with the SYN-ACK that was lost at 20 ms.
        ("syn-ack-drop first=1", 1010.0, 980.0, 20.0),
        ("syn-ack-delay delay=200ms first=all", 230.0, 200.0, 20.0),
    ];
    for (rule, connect, added, server_connect) in rows {
        let measure = measure(talk(Some(rule)));
        let told = told(&measure);
        let expected = [
            ("connect", connect),
            ("connect_without_fault", 30.0),
            ("added_by_fault", added),
            ("added_by_proxy", 0.0),
            ("client_rtt", 10.0),
            ("server_connect", server_connect),
            ("server_net", 20.0),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(name, millis)| (*name, 1, 0, ((millis * 1000.0) as u64).max(1))).collect();
        assert_eq!(told[..expected.len()], expected, "{rule}");
        let by_rule = measure.latencies().groups().find(|group| group.by == By::Rule).unwrap();
        assert_eq!(by_rule.name, measure.rules()[0].rule, "{rule}");
        assert_eq!(by_rule.values.max().unwrap().value, Duration::from_micros((connect * 1000.0) as u64));
        let seconds = (connect / 1000.0) as u64;
        let suspected: &[_] = if seconds > 0 { &[("connect", seconds, 1, Some(1))] } else { &[] };
        assert_eq!(losses(&measure), suspected, "{rule}");
    }
}

#[test]
fn a_final_ack_that_a_fault_loses_is_its_time_until_the_next_one_arrives() {
    // The request follows the ACK that is lost, and says the same. One that waits 300 ms first is the next to come.
    let client = App { wait: ms(315), ..talk(None).client };
    let measure = measure(World { client, ..talk(Some("final-ack-drop first=1")) });
    let latencies = measure.latencies();
    let micros = |kind| latencies.get(kind).max().unwrap().value.as_micros();
    // The final ACK was lost at 35 ms, and the request comes at 320 ms; both 5 ms after the first SYN and more.
    assert_eq!(micros(Kind::ConnectWithoutFault), 30_000);
    assert_eq!(micros(Kind::AddedByFault), 285_000);
    assert_eq!(micros(Kind::Connect), 315_000);
}

#[test]
fn a_refusal_is_an_outcome_and_no_connect() {
    let measure = measure(talk(Some("refuse style=rst")));
    assert_eq!(told(&measure), []);
    let groups: Vec<_> =
        measure.latencies().groups().map(|g| (g.by.name(), &*g.name, g.values.count())).collect();
    assert_eq!(groups, [("outcome", "refused-rst", 1)]);
}

#[test]
fn silence_counts_as_long_as_it_has_lasted() {
    let measure = measure(World { lost: [ms(0), ms(3000)], end: ms(3000), ..talk(None) });
    // SYNs at 0, 1 and 2 s, 5 ms from the client.
    let expected = [
        ("connect", 1, 1, 2_995_000),
        ("connect_without_fault", 1, 1, 2_995_000),
        ("server_connect", 1, 1, 2_995_000),
        ("server_net", 1, 1, 995_000),
    ];
    assert_eq!(told(&measure), expected);
    assert_eq!(losses(&measure), [], "nobody was answered at 3 s");
}

#[test]
fn a_client_that_gives_up_is_counted_with_all_that_it_has_waited() {
    let end = ms(400_000);
    let measure = measure(World { lost: [ms(0), end], end, ..talk(None) });
    // The last SYN goes out after 69 s, and the client is believed to live for long after that: more than is told apart.
    let connect = measure.latencies().get(Kind::Connect).max().unwrap();
    assert_eq!((connect.value, connect.at_least), (Duration::from_secs(150), true));
    assert_eq!(measure.counters().outcomes.iter().collect::<Vec<_>>(), [("timeout", 1)]);
    let groups = measure.latencies().groups().map(|group| (group.by.name(), group.name.to_string()));
    let groups: Vec<_> = groups.collect();
    assert!(groups.contains(&("outcome", "timeout".to_owned())), "{groups:?}");
    assert!(groups.contains(&("retransmits", "3+".to_owned())), "{groups:?}");
    assert_eq!(
        groups.iter().filter(|group| **group == ("target", "10.0.0.2:80".to_owned())).count(),
        2,
        "connect and server_connect"
    );
}

#[test]
fn a_flow_that_a_fault_has_kept_from_connecting_says_nothing_about_the_network() {
    let measure = measure(World { end: ms(3000), ..talk(Some("syn-drop first=all")) });
    let expected = [("connect", 1, 1, 2_995_000), ("added_by_fault", 1, 1, 2_995_000)];
    assert_eq!(told(&measure), expected);
}

#[test]
fn a_half_close_lasts_from_fin_to_fin() {
    // The server sends its 2000 bytes in two pieces, 300 ms apart, and closes then.
    let server = App { chunk: 1000, pause: ms(300), ..talk(None).server };
    let measure = measure(World { server, ..talk(None) });
    let latencies = measure.latencies();
    let micros = |kind| latencies.get(kind).max().unwrap().value.as_micros();
    assert_eq!((micros(Kind::ClientFinFin), micros(Kind::ServerFinFin)), (320_000, 320_000));
    assert_eq!((micros(Kind::ClientFinAck), micros(Kind::ServerFinAck)), (10_000, 20_000));
}

#[test]
fn a_fin_that_is_never_acknowledged_counts_as_long_as_it_has_waited() {
    // The handshake is complete at 35 ms; the request and FIN, 100 ms later, never reach the server.
    let client = App { wait: ms(130), ..talk(None).client };
    let measure = measure(World { client, lost: [ms(50), ms(2000)], end: ms(2000), ..talk(None) });
    for kind in [Kind::ServerFinAck, Kind::ServerFinFin, Kind::ClientFinFin] {
        let max = measure.latencies().get(kind).max().unwrap();
        assert_eq!((max.value, max.at_least), (ms(2000 - 135), true), "{}", kind.name());
    }
    assert_eq!(measure.latencies().get(Kind::ClientFinAck).count(), 0, "we have sent the client no FIN");
    assert_eq!(measure.counters().outcomes.iter().next(), Some((Outcome::Open.name(), 1)));
}

#[test]
fn a_fin_that_a_fault_loses_has_come_all_the_same() {
    let measure = measure(World { end: ms(2000), ..talk(Some("fin-drop direction=upstream first=all")) });
    let latencies = measure.latencies();
    let max = latencies.get(Kind::ClientFinFin).max().unwrap();
    assert_eq!((max.value, max.at_least), (ms(2000 - 35), true));
    assert_eq!(latencies.get(Kind::ServerFinFin).count(), 0, "nobody has told the server");
}

#[test]
fn an_answer_that_never_comes_is_a_time_to_first_byte_that_is_unfinished() {
    let client = App { close: Close::AfterPeer, ..talk(None).client };
    let server = App { wait: ms(60_000), ..talk(None).server };
    let measure = measure(World { client, server, ..talk(None) });
    let ttfb = measure.latencies().get(Kind::Ttfb).max().unwrap();
    assert_eq!((ttfb.value, ttfb.at_least), (ms(10_000 - 35), true));
}

#[test]
fn where_the_server_speaks_first_its_greeting_is_timed_from_the_final_ack() {
    let client = App { wait: ms(500), ..talk(None).client };
    let measure = measure(World { client, ..talk(None) });
    let ttfb = measure.latencies().get(Kind::Ttfb);
    assert_eq!((ttfb.count(), ttfb.max().unwrap().value), (1, ms(20)));
}
