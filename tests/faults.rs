//! The faults in virtual time: two hosts with halfopen between them, and what each of the three sees.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are not marked as tests")]

use halfopen::fault::{Engine, Rule, Rules};
use halfopen::rng::Rng;
use halfopen::sim::host::{App, Close, End};
use halfopen::sim::link::Weather;
use halfopen::sim::trio::Trio;
use halfopen::sim::world::Setup;
use halfopen::tcp::Event as TcpEvent;
use halfopen::time::Duration;
use halfopen::trace::{Event, Leg, Outcome, Record, State};
use halfopen::wire::Flags;

const CLIENT: Leg = Leg::Client;
const SERVER: Leg = Leg::Server;

/// Sends this much and closes.
fn sends(bytes: u64) -> App {
    App { send: bytes, close: Close::WhenSent, ..App::default() }
}

/// Sends this much and closes after its peer.
fn follows(bytes: u64) -> App {
    App { send: bytes, ..App::default() }
}

fn trio(rules: &[&str], client: App, server: App) -> Trio<Vec<Record>> {
    stormy(rules, client, server, Weather::default(), 42)
}

fn stormy(rules: &[&str], client: App, server: App, weather: Weather, seed: u64) -> Trio<Vec<Record>> {
    let rules = rules.iter().map(|rule| Rule::build(rule.parse().unwrap()).unwrap()).collect();
    let rules = Rules::new(seed, Engine::Tun, rules).unwrap();
    let setup = Setup { seed, client, server, upstream: weather, downstream: weather, ..Setup::default() };
    Trio::new(setup, rules, Vec::new())
}

/// Milliseconds at which something was told about a leg.
fn millis(trio: &Trio<Vec<Record>>, leg: Leg, what: impl Fn(&Event) -> bool) -> Vec<u64> {
    let told = trio.sink.iter().filter(|record| record.leg == Some(leg) && what(&record.event));
    told.map(|record| record.at.as_millis()).collect()
}

fn arrives(flags: Flags) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::SegmentIn { segment } if segment.flags.has(flags))
}

fn leaves(flags: Flags) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::SegmentOut { segment } if segment.flags.has(flags))
}

fn outcome(trio: &Trio<Vec<Record>>) -> Option<Outcome> {
    trio.sink.iter().find_map(|record| match record.event {
        Event::FlowClosed { outcome, .. } => Some(outcome),
        _ => None,
    })
}

/// Every byte of both directions has arrived, and both hosts have closed.
#[track_caller]
fn all_is_well(trio: &Trio<Vec<Record>>) {
    let (client, server) = (&trio.client.host, &trio.server.host);
    assert_eq!((server.received, client.received), (client.written, server.written));
    assert_eq!((client.end, server.end), (Some(End::Closed), Some(End::Closed)));
    assert_eq!(outcome(trio), Some(Outcome::Ok));
}

/// H1: the client connects by its own schedule of 0, 1, 2, 3, 4, 5, 7 s, and the server sees one SYN.
#[test]
fn lost_syns_delay_the_connect_by_the_client_s_schedule() {
    for (rule, connected) in [
        ("syn-drop", 1),
        ("syn-drop first=2", 2),
        ("syn-drop first=6", 7),
        ("syn-drop nth=2", 0),
        ("syn-drop for=2500ms", 3),
    ] {
        let mut trio = trio(&[rule], sends(100), follows(1000));
        trio.run_for(Duration::from_secs(100)).unwrap();
        let established = millis(&trio, CLIENT, |event| *event == Event::Established);
        assert_eq!(established, [connected * 1000 + 5], "{rule}");
        assert_eq!(millis(&trio, SERVER, leaves(Flags::SYN)), [connected * 1000 + 1], "{rule}");
        all_is_well(&trio);
    }
}

/// H22: connect() takes the delay; beyond 1 s the client sends its SYN again.
#[test]
fn a_late_syn_ack_is_what_the_connect_takes_longer() {
    for (rule, connected, syns) in [
        ("syn-ack-delay", 205, &[1][..]),
        ("syn-ack-delay delay=1500ms", 1505, &[1, 1001]),
        ("syn-ack-delay delay=1500ms answer_dup=false", 1505, &[1, 1001]),
    ] {
        let mut trio = trio(&[rule], sends(100), follows(1000));
        trio.run_for(Duration::from_secs(100)).unwrap();
        assert_eq!(millis(&trio, CLIENT, |event| *event == Event::Established), [connected], "{rule}");
        assert_eq!(millis(&trio, CLIENT, arrives(Flags::SYN)), syns, "{rule}");
        assert_eq!(millis(&trio, SERVER, leaves(Flags::SYN)).len(), 1, "{rule}");
        all_is_well(&trio);
    }
}

/// E1: the writer waits and probes, then everything arrives; the other direction is not disturbed.
#[test]
fn a_stalled_writer_goes_on_after_the_hold_and_loses_nothing() {
    let mut trio = trio(&["zero-window-stall hold=10s"], sends(1 << 20), follows(1 << 20));
    trio.run_for(Duration::from_secs(9)).unwrap();
    let stalled = trio.server.host.received;
    assert!((65_536..400_000).contains(&stalled), "{stalled} bytes were on their way when the window closed");
    assert_eq!(trio.client.host.received, 1 << 20, "the other direction is open");
    trio.run_for(Duration::from_secs(91)).unwrap();
    all_is_well(&trio);
}

/// E2 by `answer_probes=false`: nothing is acknowledged any more, and the writer gives up.
#[test]
fn a_dead_reader_makes_the_writer_give_up() {
    let mut trio = trio(&["zero-window-stall hold=24h answer_probes=false"], sends(1 << 20), follows(0));
    trio.run_for(Duration::from_secs(3600)).unwrap();
    assert_eq!(trio.client.host.end, Some(End::TimedOut));
}

/// E7: data are acknowledged after the delay, and not before. (The first data of this host come with the handshake's ACK.)
#[test]
fn acknowledgements_come_late() {
    for (rule, after) in
        [("ack-delay", 40), ("ack-delay delay=200ms", 200), ("ack-delay direction=downstream", 0)]
    {
        let mut trio =
            trio(&[rule], App { chunk: 100, pause: Duration::from_secs(2), ..sends(300) }, follows(0));
        trio.run_for(Duration::from_secs(100)).unwrap();
        let data = millis(&trio, CLIENT, arrives(Flags::PSH))[1];
        let acks = millis(
            &trio,
            CLIENT,
            |event| matches!(event, Event::SegmentOut { segment } if segment.flags.has(Flags::ACK) && segment.len == 0),
        );
        let first = acks.into_iter().find(|at| *at >= data);
        assert_eq!(first, Some(data + after), "{rule}");
        all_is_well(&trio);
    }
}

/// T1: the closer stays in FIN-WAIT-1 and repeats its FIN, the other side never hears of an end.
#[test]
fn a_lost_fin_is_repeated_and_never_heard() {
    let mut trio = trio(&["fin-drop direction=downstream"], follows(100), sends(1000));
    trio.run_for(Duration::from_secs(4)).unwrap();
    let (client, server) = (&trio.client.host, &trio.server.host);
    assert_eq!((server.received, client.received), (100, 1000), "the data arrive");
    assert_eq!(server.connection().map(|c| c.state()), Some(State::FinWait1));
    assert!(!client.events.contains(&TcpEvent::FinReceived), "{:?}", client.events);
    let fins = millis(&trio, SERVER, arrives(Flags::FIN));
    assert!(fins.len() >= 4 && fins.windows(3).all(|f| f[2] - f[1] >= f[1] - f[0]), "backing off: {fins:?}");

    let mut once = self::trio(&["fin-drop direction=downstream first=1"], follows(100), sends(1000));
    once.run_for(Duration::from_secs(100)).unwrap();
    all_is_well(&once);
}

/// E16: whoever gets a RST is reset at once, whoever does not meets a RST when it speaks.
#[test]
fn a_reset_reaches_whom_it_is_for() {
    for (rule, at_once) in [
        ("rst-inject to=both", [true, true]),
        ("rst-inject to=client", [true, false]),
        ("rst-inject to=server", [false, true]),
    ] {
        let slow = App { pause: Duration::from_secs(1), chunk: 100, ..sends(1000) };
        let mut trio = trio(&[rule], slow, slow);
        trio.run_for(Duration::from_millis(150)).unwrap();
        let ends = [&trio.client, &trio.server].map(|side| side.host.end == Some(End::Reset));
        assert_eq!(ends, at_once, "{rule}");
        trio.run_for(Duration::from_secs(10)).unwrap();
        let ends = [&trio.client, &trio.server].map(|side| side.host.end);
        assert_eq!(ends, [Some(End::Reset); 2], "{rule}");
        assert_eq!(outcome(&trio), Some(Outcome::Reset), "{rule}");
    }
}

/// The same seed is the same run, event by event; another seed is another.
#[test]
fn the_same_seed_gives_the_same_events() {
    let run = |seed| {
        let rules = ["syn-drop first=all share=0.5", "syn-ack-delay jitter=100ms", "fin-drop share=0.5"];
        let weather = Weather { loss: 0.05, ..Weather::default() };
        let mut trio = stormy(&rules, follows(50_000), sends(50_000), weather, seed);
        trio.run_for(Duration::from_secs(300)).unwrap();
        trio.sink
    };
    let first = run(7);
    assert!(first.iter().any(|record| matches!(record.event, Event::Fired { .. })));
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}

/// Without a rule halfopen is a cable: the same run, with every rule matching no flow, is the same to the event.
#[test]
fn rules_that_match_no_flow_change_nothing() {
    let run = |rules: &[&str]| {
        let mut trio = trio(rules, sends(100_000), follows(100_000));
        trio.run_for(Duration::from_secs(100)).unwrap();
        all_is_well(&trio);
        trio.sink
    };
    assert_eq!(
        run(&["syn-drop match.flows=2..", "fin-drop match.server=:81", "rst-inject match.share=0"]),
        run(&[])
    );
}

/// Whatever faults meet on one flow in bad weather: what arrives is what was sent, and halfopen forgets the flow. `HALFOPEN_SEEDS=FROM-TO` plays other seeds than the first 200.
#[test]
fn any_two_faults_in_bad_weather_leave_no_wrong_byte_and_nothing_behind() {
    const RULES: [&str; 12] = [
        "syn-drop share=0.5 first=all",
        "syn-drop for=3s",
        "syn-ack-delay delay=2s jitter=1s",
        "syn-ack-delay answer_dup=false",
        "zero-window-stall hold=5s after_bytes=1000",
        "zero-window-stall direction=downstream answer_probes=false hold=20s after_bytes=0",
        "ack-delay delay=500ms every_other=false",
        "ack-delay direction=downstream after=1s for=1s",
        "rst-inject to=client after_bytes=40000",
        "rst-inject to=server direction=downstream after_bytes=1",
        "fin-drop first=3",
        "fin-drop direction=upstream share=0.3",
    ];
    meet_in_bad_weather(&RULES);
}

/// The same for the faults of single segments, except those that spoil bytes on purpose.
#[test]
fn any_two_faults_of_single_segments_in_bad_weather_leave_no_wrong_byte_and_nothing_behind() {
    meet_in_bad_weather(&[
        "loss p=0.05 burst=3",
        "loss p=1 kinds=fin,syn first=3 leg=server",
        "duplicate share=0.1 copies=3 delay=50ms",
        "duplicate share=0.1 leg=server",
        "reorder share=0.1 segments=4 delay=300ms",
        "reorder share=0.1 segments=0 leg=server",
        "corrupt share=0.05 direction=both",
        "corrupt share=0.05 leg=server direction=both",
        "sequence-shift",
        "sequence-shift mode=iss direction=downstream sack=translated",
        "sequence-shift leg=server direction=upstream offset=-5",
        "timestamp-mangle mode=rewind by=5s",
        "timestamp-mangle mode=freeze direction=both for=3s",
        "rst-blind first=5",
        "rst-blind to=server offset=-5 direction=downstream",
        "late-segment-rst hold=1s after_bytes=1000",
        "odd-flags flags=reserved,ece,cwr,ae direction=both",
    ]);
}

/// Two of these rules on one flow, for each seed.
fn meet_in_bad_weather(all: &[&str]) {
    let seeds = std::env::var("HALFOPEN_SEEDS").unwrap_or_else(|_| "1-200".to_owned());
    let (from, to) = seeds.split_once('-').expect("HALFOPEN_SEEDS is FROM-TO");
    for seed in from.parse::<u64>().unwrap()..=to.parse().unwrap() {
        let mut dice = Rng::new(seed, 99);
        let mut rule = || all[dice.below(all.len() as u64) as usize];
        let rules = [rule(), rule()];
        let weather = Weather {
            loss: 0.03,
            reorder: 0.1,
            duplicate: 0.02,
            jitter: Duration::from_millis(20),
            ..Weather::default()
        };
        let mut trio =
            stormy(&rules, sends(dice.below(100_000)), follows(dice.below(100_000)), weather, seed);
        let told = |what: &str| format!("seed {seed}, {rules:?}: {what}");
        trio.run_for(Duration::from_secs(7200)).unwrap_or_else(|broken| panic!("{}", told(&broken)));
        let (client, server) = (&trio.client.host, &trio.server.host);
        assert!(trio.is_forgotten(), "{}", told("the flow is not forgotten"));
        if outcome(&trio) == Some(Outcome::Ok) {
            let (sent, got) = ((client.written, server.written), (server.received, client.received));
            assert_eq!(got, sent, "{}", told("a flow that ended well has lost bytes"));
        }
    }
}
