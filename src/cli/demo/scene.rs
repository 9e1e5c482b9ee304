//! Which play shows a fault: the scene of its kind, or the user's own rule in its place.

use crate::fault::{Kind, Play};
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

impl Scene {
    /// A connection without any fault.
    pub(super) fn healthy() -> Self {
        Self { rule: String::new(), play: Play::Talk }
    }

    /// The scene of a fault; `rule` may be its name alone or a rule of the user's.
    pub(super) fn of(kind: &Kind, rule: &str) -> Self {
        let rule = if rule == kind.name { kind.scene.rule } else { rule };
        Self { rule: rule.to_owned(), play: kind.scene.play }
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
    fn a_rule_of_the_users_replaces_that_of_the_scene() {
        let kind = crate::fault::kind("fin-drop").unwrap();
        let scene = Scene::of(kind, "fin-drop first=1");
        assert_eq!((scene.rule.as_str(), scene.play), ("fin-drop first=1", Play::ServerCloses));
    }
}
