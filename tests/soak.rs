//! The worlds of `simulation`, without end: as many seeds as fit into `HALFOPEN_SOAK_SECONDS` (default 2) of real time, and more
//! until they have sent `HALFOPEN_SOAK_SEGMENTS` (default 0), from `HALFOPEN_SOAK_FROM` (default 1000000) on.

use std::time::{Duration, SystemTime};

use halfopen::sim::chance::{check_faults, check_three_parties, check_two_hosts, faults, two_hosts};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long to go on, not what happens, depends on the clock")]
fn no_seed_breaks_a_rule() {
    let end = SystemTime::now() + Duration::from_secs(setting("HALFOPEN_SOAK_SECONDS", 2));
    let (from, most) = (setting("HALFOPEN_SOAK_FROM", 1_000_000), setting("HALFOPEN_SOAK_SEGMENTS", 0));
    let (mut seed, mut segments) = (from, 0);
    while SystemTime::now() < end || segments < most {
        for check in [check_two_hosts, check_three_parties, check_faults] {
            segments += check(seed).unwrap_or_else(|what| {
                let rules = faults(seed);
                let rules: Vec<String> = rules.rules().iter().map(|rule| rule.spec.to_string()).collect();
                panic!(
                    "HALFOPEN_SEED={seed}: {what}\n{:#?}\nfaults, where they are: {rules:?}",
                    two_hosts(seed)
                );
            });
        }
        seed += 1;
    }
    println!("{} worlds, from seed {from}; {segments} segments", seed - from);
    assert!(seed > from, "not one world in the time given");
}
