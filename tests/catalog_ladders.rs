//! One ladder per fault of the catalogue: client, halfopen and server in virtual time, to the letter. What a fault does to the
//! segments of both legs is what these files show; read a difference before you accept it.

use halfopen::fault::{Engine, KINDS, Play, Rule, Rules};
use halfopen::report::{Ladder, Style};
use halfopen::sim::scene;
use halfopen::trace::Record;

mod golden;

/// The events of a scene.
fn perform(rule: &str, play: Play) -> Vec<Record> {
    let rules = (!rule.is_empty())
        .then(|| Rule::build(rule.parse().expect("the rule can be read")).expect("the rule is right"));
    let rules = Rules::new(42, Engine::Tun, rules.into_iter().collect()).expect("the engine can do it");
    scene::perform(rules, play).expect("no rule of TCP is broken")
}

#[test]
fn each_fault_of_the_catalogue_has_its_ladder() {
    for kind in KINDS {
        let ladder =
            Ladder::of(&perform(kind.scene.rule, kind.scene.play)).draw(&Style::default()).to_string();
        assert!(ladder.contains(kind.name), "{} does not fire:\n{ladder}", kind.name);
        golden::check(&format!("ladder/fault/{}.txt", kind.name), &ladder);
    }
}

#[test]
fn a_flow_without_faults_has_its_ladder_too() {
    let ladder = Ladder::of(&perform("", Play::Talk)).draw(&Style::default()).to_string();
    golden::check("ladder/fault/none.txt", &ladder);
}

#[test]
fn the_same_seed_gives_the_same_events_twice() {
    for kind in KINDS {
        let events = || perform(kind.scene.rule, kind.scene.play);
        assert_eq!(events(), events(), "{}", kind.name);
    }
}
