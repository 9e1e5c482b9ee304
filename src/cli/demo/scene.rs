//! Which play shows which fault best.

use super::script::Play;
use crate::fault::Kind;
use crate::time::Duration;

/// A fault (or none) and what the two applications do.
#[derive(Debug)]
pub(super) struct Scene {
    /// The rule, as on the command line; empty for none.
    pub(super) rule: String,
    /// What the applications do.
    pub(super) play: Play,
}

/// The most that a scene may last.
pub(super) const LONGEST: Duration = Duration::from_secs(12);

/// For each fault the play in which it matters, and a rule whose times suit a demonstration.
const SCENES: [(&str, &str, Play); 6] = [
    ("syn-drop", "syn-drop first=2", Play::Talk),
    ("syn-ack-delay", "syn-ack-delay delay=1200ms", Play::Talk),
    ("zero-window-stall", "zero-window-stall after_bytes=16KiB hold=1500ms", Play::Upload),
    ("ack-delay", "ack-delay delay=200ms every_other=false", Play::TwoWrites),
    ("rst-inject", "rst-inject to=both after_bytes=1", Play::Talk),
    ("fin-drop", "fin-drop direction=downstream first=all", Play::ServerCloses),
];

impl Scene {
    /// A connection without any fault.
    pub(super) fn healthy() -> Self {
        Self { rule: String::new(), play: Play::Talk }
    }

    /// The scene of a fault; `rule` may be its name alone or a rule of the user's.
    pub(super) fn of(kind: &Kind, rule: &str) -> Self {
        let scene = SCENES.iter().find(|(name, ..)| *name == kind.name);
        let (default, play) = scene.map_or((kind.example, Play::Talk), |(_, rule, play)| (rule, *play));
        let rule = if rule == kind.name { default } else { rule };
        Self { rule: rule.to_owned(), play }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Engine, KINDS, Rule, Rules};

    #[test]
    fn every_fault_has_a_rule_that_the_engine_of_the_demo_can_do() {
        for kind in KINDS {
            let scene = Scene::of(kind, kind.name);
            let rule =
                Rule::build(scene.rule.parse().unwrap()).unwrap_or_else(|e| panic!("{}: {e}", scene.rule));
            assert_eq!(rule.kind.name, kind.name);
            Rules::new(0, Engine::Tun, vec![rule]).unwrap();
        }
    }

    #[test]
    fn every_scene_belongs_to_a_fault_and_a_rule_of_the_users_replaces_its_own() {
        for (name, ..) in SCENES {
            assert!(crate::fault::kind(name).is_some(), "{name}");
        }
        let kind = crate::fault::kind("fin-drop").unwrap();
        let scene = Scene::of(kind, "fin-drop first=1");
        assert_eq!((scene.rule.as_str(), scene.play), ("fin-drop first=1", Play::ServerCloses));
    }
}
