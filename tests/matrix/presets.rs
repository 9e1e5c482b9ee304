//! Every preset against a naive and a tolerant client, each in a workload in which some connection meets it.

use std::net::SocketAddr;

use halfopen::config::presets::PRESETS;

use crate::{Call, golden, json, outcomes, servers};

/// Presets with the workload in which a connection meets them, and the options and times that this takes.
struct Occasion {
    presets: &'static [&'static str],
    /// What comes behind the name of each.
    matching: &'static str,
    options: &'static [&'static str],
    time: &'static str,
    workload: &'static str,
}

/// Only the first connection: a client that tries again meets a network that has recovered.
const FIRST: &str = " match.flows=1 match.share=1";

/// Where a preset that is not among these is met.
const REQUESTS: Occasion = Occasion {
    presets: &[],
    matching: FIRST,
    // Idle times, scaled, are over before the next request.
    options: &["--timeout", "15s", "--jobs", "6", "--time-scale", "0.002"],
    time: "1500",
    workload: "requests",
};

const OCCASIONS: &[Occasion] = &[
    // A reader that stands still for 60 s. All other idle times are too long for a test.
    Occasion {
        presets: &["stuck-reader"],
        matching: FIRST,
        options: &["--timeout", "15s"],
        time: "0",
        workload: "requests",
    },
    // 3 s after the first MiB has come down, there must be something left to transfer. The second block brings it, 2 s after the
    // first; so its end comes at 5 s, in the middle of the pause before the fourth, which then hears of it.
    Occasion {
        presets: &["conntrack-invalid-rst"],
        matching: FIRST,
        options: &[],
        time: "2000",
        workload: "bulk",
    },
    // Its server is not up yet when the port is open.
    Occasion {
        presets: &["docker-proxy-early-accept"],
        matching: "",
        options: &[],
        time: "1500",
        workload: "start",
    },
    // Its server closes first, so that the tail that is lost is that of a reply.
    Occasion { presets: &["early-413"], matching: FIRST, options: &[], time: "0", workload: "calls" },
    // It is about every connection but the first.
    Occasion { presets: &["ipvs-port-reuse"], matching: "", options: &[], time: "0", workload: "calls" },
    // Begins 5 s after the start. The server works all the time: whenever that is, a connection waits for its reply.
    Occasion { presets: &["rolling-restart"], matching: "", options: &[], time: "900", workload: "calls" },
    Occasion {
        presets: &["half-close-broken"],
        matching: FIRST,
        options: &[],
        time: "0",
        workload: "half-close",
    },
    // The reply comes after the 120 ms that are left of 60 s, and before a tolerant client has waited for too long.
    Occasion {
        presets: &["half-closed-leak"],
        matching: FIRST,
        options: &["--timeout", "15s", "--time-scale", "0.002"],
        time: "1000",
        workload: "half-close",
    },
];

/// `NAME: OUTCOME` of each preset, whose fault has acted. One that no connection meets would prove nothing.
fn meet(
    occasion: &Occasion,
    presets: &[&str],
    client: &str,
    (first, second): (SocketAddr, SocketAddr),
) -> Vec<String> {
    let asked: Vec<String> = presets.iter().map(|name| format!("{name}{}", occasion.matching)).collect();
    // The second does not listen yet.
    let loopback = format!("{},{}", first.port(), second.port());
    let mut options = vec!["--json", "--host-loopback", &loopback];
    options.extend(occasion.options);
    options.extend(asked.iter().flat_map(|asked| ["--preset", asked]));
    let output = Call::matrix(&options).run(&[client, &first.to_string(), occasion.time, occasion.workload]);
    let matrix = json(&output);
    for run in matrix["runs"].as_array().unwrap() {
        assert_ne!(run["outcome"], "not-exercised", "{client}: {run}");
        // A run that hangs is ended, and may not come to its report any more.
        let unknown = run["outcome"] == "hang" && run["fired"].is_null();
        assert!(unknown || run["fired"].as_u64() > Some(0), "{client}: {run}");
    }
    outcomes(&matrix).iter().map(|outcome| outcome.replace(occasion.matching, "")).collect()
}

/// The outcomes of all presets are a golden table for each client.
pub(crate) fn both_tables() {
    let servers = servers();
    let all: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
    let special = OCCASIONS.iter().map(|occasion| (occasion, occasion.presets.to_vec()));
    let is_special = |name: &&str| OCCASIONS.iter().any(|occasion| occasion.presets.contains(name));
    let usual = all.iter().copied().filter(|name| !is_special(name)).collect();
    let occasions: Vec<(&Occasion, Vec<&str>)> = special.chain([(&REQUESTS, usual)]).collect();
    for client in ["naive", "tolerant"] {
        // They wait most of the time.
        let rows: Vec<String> = std::thread::scope(|scope| {
            let run = |(occasion, presets): &(&'static Occasion, Vec<&'static str>)| {
                let (occasion, presets) = (*occasion, presets.clone());
                scope.spawn(move || meet(occasion, &presets, client, servers))
            };
            let running: Vec<_> = occasions.iter().map(run).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut table = String::new();
        for name in &all {
            let row = rows.iter().find(|row| row.starts_with(&format!("{name}: "))).unwrap();
            table += row;
            table.push('\n');
        }
        golden::check(&format!("matrix/{client}.txt"), &table);
    }
}
