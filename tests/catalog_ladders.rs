//! One ladder per fault of the catalogue: client, halfopen and server in virtual time, to the letter. What a fault does to the
//! segments of both legs is what these files show; read a difference before you accept it.

use halfopen::fault::{Engine, KINDS, Kind, Rule, Rules};
use halfopen::report::{Ladder, Style};
use halfopen::sim::host::{App, Close};
use halfopen::sim::trio::Trio;
use halfopen::sim::world::Setup;
use halfopen::time::Duration;
use halfopen::trace::Record;

mod golden;

/// Fault, rule, bytes that the client sends and in what pieces, who closes first. A fault that is not here shows its example.
const SCENES: [(&str, &str, u64, u32, First); 6] = [
    ("syn-drop", "syn-drop first=2", 100, 100, First::Client),
    ("syn-ack-delay", "syn-ack-delay delay=300ms", 100, 100, First::Client),
    ("zero-window-stall", "zero-window-stall after_bytes=16KiB hold=1500ms", 60_000, 20_000, First::Client),
    ("ack-delay", "ack-delay delay=200ms every_other=false", 150, 50, First::Client),
    ("rst-inject", "rst-inject to=both after_bytes=1", 100, 100, First::Client),
    ("fin-drop", "fin-drop direction=downstream first=all", 100, 100, First::Server),
];

/// Who closes first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Client,
    Server,
}

/// The events of four seconds of one flow.
fn play(rule: &str, bytes: u64, chunk: u32, first: First) -> Vec<Record> {
    let rules = (!rule.is_empty())
        .then(|| Rule::build(rule.parse().expect("the rule can be read")).expect("the rule is right"));
    let rules = Rules::new(42, Engine::Tun, rules.into_iter().collect()).expect("the engine can do it");
    let close = |who| if who == first { Close::WhenSent } else { Close::AfterPeer };
    let pause = Duration::from_millis(300);
    let client = App { send: bytes, chunk, pause, close: close(First::Client), ..App::default() };
    let server = App { send: 2000, close: close(First::Server), ..App::default() };
    let mut trio = Trio::new(Setup { seed: 42, client, server, ..Setup::default() }, rules, Vec::new());
    trio.run_for(Duration::from_secs(4)).expect("no rule of TCP is broken");
    trio.close();
    trio.sink
}

fn scene(kind: &Kind) -> Vec<Record> {
    let own = SCENES.iter().find(|(name, ..)| *name == kind.name);
    let (_, rule, bytes, chunk, first) =
        own.copied().unwrap_or((kind.name, kind.example, 100, 100, First::Client));
    play(rule, bytes, chunk, first)
}

#[test]
fn each_fault_of_the_catalogue_has_its_ladder() {
    for kind in KINDS {
        let ladder = Ladder::of(&scene(kind)).draw(&Style::default()).to_string();
        assert!(ladder.contains(kind.name), "{} does not fire:\n{ladder}", kind.name);
        golden::check(&format!("ladder/fault/{}.txt", kind.name), &ladder);
    }
}

#[test]
fn a_flow_without_faults_has_its_ladder_too() {
    let ladder = Ladder::of(&play("", 100, 100, First::Client)).draw(&Style::default()).to_string();
    golden::check("ladder/fault/none.txt", &ladder);
}

#[test]
fn the_same_seed_gives_the_same_events_twice() {
    for kind in KINDS {
        assert_eq!(scene(kind), scene(kind), "{}", kind.name);
    }
}
