//! Rules: which flows get which faults.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::attributes::{AttributeDoc, Attributes, Reader, Unit};
use super::circumstances::{Asked, Circumstances, NEIGHBOURS, Neighbourhood, Turns};
use super::error::Error;
use super::plan::{Armed, Plan};
use super::{Bounds, Engine, Fault, Kind, Ordinals, Peer, RuleSpec, Shape, Topic, catalog};
use crate::rng::Rng;
use crate::tcp::Knobs;
use crate::trace::{FlowId, Leg};

/// The documentation of the keys of `match`.
pub const MATCH: &[AttributeDoc] = &[
    AttributeDoc {
        name: "client",
        unit: Unit::Peer,
        default: "any",
        zero: "",
        doc: "Only flows from this address or network, and port.",
    },
    AttributeDoc {
        name: "server",
        unit: Unit::Peer,
        default: "any",
        zero: "",
        doc: "Only flows to this address or network, and port, as the client dialled it.",
    },
    AttributeDoc {
        name: "flows",
        unit: Unit::Ordinals,
        default: "any",
        zero: "",
        doc: "Only flows with these numbers; the first of the run is 1.",
    },
    AttributeDoc {
        name: "share",
        unit: Unit::Share,
        default: "1",
        zero: "no flow",
        doc: "Only this share of the flows, by the seeded dice of this rule and flow.",
    },
    NEIGHBOURS[0],
    NEIGHBOURS[1],
    NEIGHBOURS[2],
    NEIGHBOURS[3],
];

/// Which flows a rule is about: all that fulfil all of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Clients.
    pub client: Peer,
    /// Servers, as the client dialled them.
    pub server: Peer,
    /// Numbers of the flows.
    pub flows: Ordinals,
    /// Share of the flows, from 0 to 1.
    pub share: f64,
    /// What must be true of the flows around it.
    pub neighbours: Neighbourhood,
}

impl Match {
    fn read(given: &Attributes) -> Result<Self, Error> {
        known(given, MATCH, "key")?;
        let reader = Reader::new(given, MATCH);
        Ok(Self {
            client: reader.peer("client")?.unwrap_or_default(),
            server: reader.peer("server")?.unwrap_or_default(),
            flows: reader.ordinals("flows")?.unwrap_or_else(Ordinals::any),
            share: reader.share("share")?.unwrap_or(1.0),
            neighbours: Neighbourhood::read(&reader)?,
        })
    }

    fn contains(
        &self,
        flow: FlowId,
        client: SocketAddr,
        server: SocketAddr,
        circumstances: &Circumstances,
    ) -> bool {
        self.flows.contains(flow.0)
            && self.client.contains(client)
            && self.server.contains(server)
            && self.neighbours.contains(circumstances)
    }
}

/// One rule, checked.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name in events, reports and metrics.
    pub name: Arc<str>,
    /// Which flows.
    pub matches: Match,
    /// The kind of its fault.
    pub kind: &'static Kind,
    /// The fault.
    pub fault: Arc<dyn Fault>,
    /// When.
    pub bounds: Bounds,
    /// How it was written.
    pub spec: RuleSpec,
    pub(super) hooks: Hooks,
}

/// What a fault does besides judging segments: asked once for each rule, as the answers are the same for all flows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hooks {
    /// Turns knobs.
    pub(super) turns: bool,
    /// Shapes bytes.
    pub(super) shapes: bool,
    /// Has an action.
    pub(super) acts: bool,
    /// Stands outermost.
    pub(super) outermost: bool,
}

impl Hooks {
    fn of(fault: &dyn Fault) -> Self {
        let legs = [Leg::Client, Leg::Server];
        Self {
            turns: legs.iter().any(|leg| fault.turn(*leg, &mut Knobs::default())),
            shapes: legs.iter().any(|leg| fault.shape(leg.outward(), &mut Shape::default())),
            acts: fault.action().is_some(),
            outermost: fault.is_outermost(),
        }
    }
}

impl Rule {
    /// Checks what was written. The error's key path starts at the rule: `match.server`, `fault.fin-drop.first`.
    pub fn build(spec: RuleSpec) -> Result<Self, Error> {
        let Some(kind) = catalog::kind(&spec.fault) else {
            let names: Vec<&str> = catalog::KINDS.iter().map(|k| k.name).collect();
            return Err(Error::unknown_fault(&spec.fault, &names));
        };
        let matches = Match::read(&spec.matches).map_err(|e| e.under("match"))?;
        let (fault, bounds) = read(kind, &spec.attributes).map_err(|e| e.under(kind.name).under("fault"))?;
        let name = spec.name.as_deref().unwrap_or(kind.name).into();
        let hooks = Hooks::of(&*fault);
        Ok(Self { name, matches, kind, fault, bounds, spec, hooks })
    }

    /// Why the engine cannot do this, if it cannot.
    #[must_use]
    pub fn refusal(&self, engine: Engine) -> Option<&'static str> {
        if !self.kind.engines.contains(&engine) {
            return Some(match (engine, self.kind.topic) {
                (Engine::Sockets | Engine::PlainSockets, Topic::Handshake) => {
                    "the kernel makes its handshakes by itself"
                }
                (Engine::Sockets | Engine::PlainSockets, Topic::Window) => {
                    "the kernel decides about its windows itself"
                }
                (Engine::Sockets | Engine::PlainSockets, Topic::Ack) => "the kernel acknowledges by itself",
                (Engine::Sockets | Engine::PlainSockets, _) => {
                    "the kernel makes its segments itself, and shows them to nobody"
                }
                _ => "this engine has no access to what the fault changes",
            });
        }
        self.fault.refusal(engine)
    }
}

fn read(kind: &'static Kind, given: &Attributes) -> Result<(Arc<dyn Fault>, Bounds), Error> {
    let docs = kind.documented();
    let untaken =
        super::BOUNDS.iter().find(|b| given.contains_key(b.name) && docs.iter().all(|d| d.name != b.name));
    if let Some(bound) = untaken {
        let taken = if kind.bounds.is_empty() { "none".to_owned() } else { kind.bounds.join(", ") };
        let error =
            Error::key(bound.name, format!("{} does not take this bound; it takes {taken}", kind.name));
        return Err(match bound.name {
            "share" => error.hint("`match.share` is the share of the flows"),
            _ => error,
        });
    }
    known(given, &docs, "attribute")?;
    // The default bound holds only for a rule without any bound: `after = "1s"` alone means all from then on.
    let bounded = given.keys().any(|key| kind.bounds.contains(&key.as_str()));
    let default_bound = match kind.default_bound {
        Some((name, value)) if !bounded => Some((name.to_owned(), value.into())),
        _ => None,
    };
    let given: Attributes = given.clone().into_iter().chain(default_bound).collect();
    let docs: Vec<AttributeDoc> = docs
        .into_iter()
        .map(|doc| if kind.bounds.contains(&doc.name) { AttributeDoc { default: "", ..doc } } else { doc })
        .collect();
    let mut bounds = Bounds::read(&given, &docs)?;
    let fault = (kind.build)(&Reader::new(&given, &docs), &mut bounds)?;
    bounds.check(&Reader::new(&given, &docs))?;
    Ok((fault, bounds))
}

/// Refuses names that are not documented.
fn known(given: &Attributes, docs: &[AttributeDoc], what: &str) -> Result<(), Error> {
    let names: Vec<&str> = docs.iter().map(|doc| doc.name).collect();
    match given.keys().find(|key| !names.contains(&key.as_str())) {
        Some(key) => Err(Error::unknown("", what, key, &names)),
        None => Ok(()),
    }
}

/// All rules of a run, in their order, and the seed of their dice.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    seed: u64,
    rules: Vec<Arc<Rule>>,
}

impl Rules {
    /// Names the rules and refuses what the engine cannot do. A rule without a name of its own has the fault's name, the
    /// second of them `fin-drop#2`.
    pub fn new(seed: u64, engine: Engine, rules: Vec<Rule>) -> Result<Self, Error> {
        let mut taken: HashSet<Arc<str>> = HashSet::new();
        for rule in rules.iter().filter(|rule| rule.spec.name.is_some()) {
            if !taken.insert(rule.name.clone()) {
                let problem = "two rules have this name";
                return Err(Error::value("name", &(&*rule.name).into(), problem)
                    .hint("give each rule a name of its own"));
            }
        }
        let mut named = Vec::with_capacity(rules.len());
        for mut rule in rules {
            if let Some(reason) = rule.refusal(engine) {
                let problem = format!("the {} engine cannot do `{}`: {reason}", engine.name(), rule.spec);
                let hint = match rule.refusal(Engine::Exec) {
                    None if engine == Engine::PlainSockets && rule.refusal(Engine::Sockets).is_none() => {
                        "kernel sockets in a gateway or a sidecar can, and so can the tun engine, whose TCP is halfopen's own"
                    }
                    None if matches!(engine, Engine::Sockets | Engine::PlainSockets) => {
                        "the tun engine can, whose TCP is halfopen's own"
                    }
                    _ => "a gateway can, where both legs are halfopen's own TCP",
                };
                return Err(Error::key(format!("fault.{}", rule.kind.name), problem).hint(hint));
            }
            if rule.spec.name.is_none() {
                let numbered = (1..).map(|n| match n {
                    1 => rule.name.clone(),
                    n => format!("{}#{n}", rule.name).into(),
                });
                rule.name =
                    numbered.into_iter().find(|name| !taken.contains(name)).expect("numbers do not end");
                taken.insert(rule.name.clone());
            }
            named.push(Arc::new(rule));
        }
        Ok(Self { seed, rules: named })
    }

    /// The seed of all dice.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// What the rules ask of neighbours.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let mut asked = Asked::default();
        self.rules.iter().for_each(|rule| rule.matches.neighbours.ask(&mut asked));
        asked
    }

    /// The faults of a new flow. `turns` counts it for the rules that match it.
    #[must_use]
    pub fn plan(
        &self,
        flow: FlowId,
        client: SocketAddr,
        server: SocketAddr,
        circumstances: &Circumstances,
        turns: &mut Turns,
    ) -> Plan {
        let matching = self
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.matches.contains(flow, client, server, circumstances));
        let armed = matching.filter_map(|(index, rule)| {
            let mut dice = Rng::for_rule(self.seed, flow.0, index);
            let chosen = dice.chance(rule.matches.share);
            chosen.then(|| {
                let turn = turns.take(index, circumstances.now, rule.fault.service());
                Armed::new(rule.clone(), dice, turn)
            })
        });
        Plan::new(armed.collect(), |place| Rng::for_rule(self.seed, flow.0, place))
    }
}

#[cfg(test)]
mod tests;
