//! Two hosts in random weather: whatever happens to the packets, the bytes are right, every rule of [`halfopen::sim::watch`]
//! holds at every moment, and everything ends.
//!
//! A failure names its seed; `HALFOPEN_SEED=n cargo test --test simulation` repeats exactly that run.

use std::ops::Range;

use halfopen::sim::chance::{
    LIMIT, catalogue, check_faults, check_rules, check_three_parties, check_two_hosts, faults, rules,
    two_hosts,
};
use halfopen::sim::world::World;
use halfopen::trace::Record;

/// Seeds of a plain `cargo test`; `soak` runs others.
const SEEDS: Range<u64> = 0..400;

fn seeds() -> Range<u64> {
    let Ok(seed) = std::env::var("HALFOPEN_SEED") else { return SEEDS };
    let seed = seed.parse().expect("HALFOPEN_SEED is a number");
    seed..seed + 1
}

fn run(check: fn(u64) -> Result<u64, String>) {
    for seed in seeds() {
        if let Err(what) = check(seed) {
            panic!(
                "HALFOPEN_SEED={seed}: {what}\n{:#?}\nfaults, where they are: {}",
                two_hosts(seed),
                told(seed)
            );
        }
    }
}

#[test]
fn two_hosts_in_any_weather_keep_every_rule() {
    run(check_two_hosts);
}

#[test]
fn two_hosts_with_a_relay_between_them_notice_nothing() {
    run(check_three_parties);
}

/// The rules of a seed as one would write them.
fn told(seed: u64) -> String {
    let rules = faults(seed);
    rules.rules().iter().map(|rule| format!("`{}`", rule.spec)).collect::<Vec<_>>().join(", ")
}

#[test]
fn any_faults_of_the_catalogue_in_any_weather_do_no_more_harm_than_they_say() {
    run(check_faults);
}

#[test]
fn each_rule_of_the_catalogue_does_no_more_harm_than_it_says() {
    for (number, text) in (0..).zip(catalogue()) {
        for seed in [number, 1000 + number] {
            if let Err(what) = check_rules(seed, rules(seed, &[text])) {
                panic!("`{text}`, world {seed}: {what}\n{:#?}", two_hosts(seed));
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let run = |seed| {
        let mut world = World::new(two_hosts(seed), Vec::<Record>::new());
        world.run(LIMIT).expect("checked above");
        world.sink
    };
    let events = run(7);
    assert!(events.len() > 50, "{} events", events.len());
    assert_eq!(run(7), events);
    assert_ne!(run(8), events);
}
