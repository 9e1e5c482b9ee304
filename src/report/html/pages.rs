//! The page of a run, and that of logs.

use super::table::{Cell, table};
use super::{Fact, Mark, Page};
use crate::measure::{By, Counters, Kind, Latency, NameCount, TimeWait};
use crate::report::ladder::Worst;
use crate::report::percentiles::quantile;
use crate::report::runs::{Comparison, LoggedRun, told};
use crate::report::summary::{Summary, observed};
use crate::report::text::{bytes, duration, grouped};
use crate::time::Duration;

/// The page of a run. `title` says what was run, `facts` how.
#[must_use]
pub fn run(title: &str, facts: &[Fact], summary: &Summary<'_>, worst: &Worst, version: &str) -> String {
    let took = duration(Duration::try_from_secs_f64(summary.seconds).unwrap_or_default());
    let seed = summary.seed.map_or_else(String::new, |seed| format!(", seed {seed}"));
    let mut page = Page::new(title, &(took + &seed));
    head(&mut page, summary);
    page.heading("Latencies", "latencies");
    page.curves(summary.latencies, None);
    let all = summary.latencies.iter().map(|(kind, latency)| (kind.name(), latency));
    page.percentiles("percentiles", "latency", all);
    page.groups(&summary.groups);
    page.heading("Outcomes and rules", "outcomes");
    outcomes(&mut page, summary);
    rules(&mut page, summary);
    time_wait(&mut page, &summary.counters.time_wait);
    for (caption, names) in [
        ("ICMP errors that refused", summary.refused_icmp),
        ("limits that were reached", summary.limits),
        ("packets discarded", summary.discarded),
    ] {
        counts(&mut page, caption, names);
    }
    page.ladders(worst);
    page.heading("Settings", "settings");
    page.facts(facts);
    page.finish(version)
}

/// What is to be seen first.
fn head(page: &mut Page, summary: &Summary<'_>) {
    let Counters {
        flows, outcomes, retransmissions, fired, upstream_bytes, downstream_bytes, untimed, ..
    } = summary.counters;
    let failed = outcomes.iter().map(|(_, count)| count).sum::<u64>() - outcomes.ok - outcomes.open;
    let connect = summary.latencies.get(Kind::Connect);
    let p99 = connect.percentile(99.0).map_or_else(|| "–".to_owned(), quantile);
    page.tiles([
        (grouped(flows), "flows", Mark::Plain),
        (grouped(outcomes.ok), "ok", if outcomes.ok > 0 { Mark::Good } else { Mark::Plain }),
        (grouped(failed), "failed", if failed > 0 { Mark::Bad } else { Mark::Plain }),
        (p99, "connect p99", Mark::Plain),
        (grouped(fired), "times a fault acted", Mark::Plain),
        (grouped(retransmissions), "retransmissions", Mark::Plain),
        (bytes(upstream_bytes + downstream_bytes), "payload delivered", Mark::Plain),
    ]);
    let judged = summary.assertions.iter().map(|judgement| {
        let seen: Vec<String> = judgement.observed.iter().map(observed).collect();
        let (mark, told) = if judgement.holds { (Mark::Good, "holds") } else { (Mark::Bad, "fails") };
        (mark, format!("assert {}: {told}; {}", judgement.assertion, seen.join(", ")))
    });
    page.notes(judged);
    page.syn_loss(&summary.suspected_syn_loss);
    if untimed > 0 {
        page.notes([(Mark::Look, format!("{} flows have no latencies: too many at once", grouped(untimed)))]);
    }
    let scale = summary.time_scale.iter().flat_map(|scale| scale.draw());
    page.notes(scale.map(|line| (Mark::Look, line.to_string())));
}

fn outcomes(page: &mut Page, summary: &Summary<'_>) {
    let flows = summary.counters.flows.max(1) as f64;
    let none = Latency::default();
    let connect = |name: &str| {
        let same = |by, of: &str| by == By::Outcome && of == name;
        let group =
            summary.groups.iter().find(|group| group.kind == Kind::Connect && same(group.by, &group.name));
        group.map_or(&none, |group| &group.values)
    };
    let rows = summary.counters.outcomes.iter().map(|(name, count)| {
        let share = count as f64 / flows;
        let class = match name {
            "ok" => "good",
            "open" => "",
            _ => "fault",
        };
        let latency = connect(name);
        let told = |bound: Option<_>| Cell::number(bound.map_or_else(String::new, quantile));
        vec![
            Cell::code(name),
            Cell::number(grouped(count)),
            Cell::number(format!("{:.1} %", share * 100.0)),
            Cell::bar(share, class),
            told(latency.percentile(50.0)),
            told(latency.percentile(99.0)),
            told(latency.max()),
        ]
    });
    let columns = ["outcome", "#flows", "#share", "", "#connect p50", "#connect p99", "#connect max"];
    page.body.push_str(&table("outcomes of flows", &columns, rows));
}

fn rules(page: &mut Page, summary: &Summary<'_>) {
    if summary.rules.is_empty() {
        return;
    }
    let rows = summary.rules.iter().map(|rule| {
        let fired = match rule.fired {
            0 => Cell::number("never").marked("fault"),
            fired => Cell::number(grouped(fired)),
        };
        vec![Cell::code(&rule.rule), Cell::code(rule.fault), Cell::number(grouped(rule.matched)), fired]
    });
    page.body.push_str(&table("rules", &["rule", "fault", "#flows matched", "#fired"], rows));
}

fn time_wait(page: &mut Page, owners: &TimeWait) {
    let rows: Vec<_> = owners.all().filter(|(.., count)| *count > 0).collect();
    if !rows.is_empty() {
        let rows = rows.into_iter().map(|(leg, owner, count)| {
            let who = if owner == "peer" { leg.name() } else { owner };
            vec![Cell::text(leg.name()), Cell::text(who), Cell::number(grouped(count))]
        });
        let caption = "who closed a leg first, and keeps it in TIME-WAIT";
        page.body.push_str(&table(caption, &["leg", "first FIN", "#legs"], rows));
    }
}

fn counts(page: &mut Page, caption: &str, names: &[NameCount]) {
    if !names.is_empty() {
        let rows = names
            .iter()
            .map(|NameCount { name, count }| vec![Cell::code(name), Cell::number(grouped(*count))]);
        page.body.push_str(&table(caption, &["name", "#times"], rows));
    }
}

/// The page of a run that was read from logs.
#[must_use]
pub fn log(run: &LoggedRun<'_>, version: &str) -> String {
    let mut page = Page::new("halfopen report", &run.files.join(", "));
    page.syn_loss(&run.suspected_syn_loss);
    page.heading("Latencies", "latencies");
    page.curves(run.latencies, None);
    page.percentiles(
        "percentiles",
        "latency",
        run.latencies.iter().map(|(kind, latency)| (kind.name(), latency)),
    );
    page.groups(&run.groups);
    page.finish(version)
}

/// The page of two runs side by side.
#[must_use]
pub fn comparison(both: &Comparison<'_>, version: &str) -> String {
    let Comparison { first, second, .. } = both;
    let lead = format!("first: {}; second: {}", first.files.join(", "), second.files.join(", "));
    let mut page = Page::new("halfopen report: two runs", &lead);
    page.syn_loss(&second.suspected_syn_loss);
    page.heading("Latencies", "latencies");
    page.curves(second.latencies, Some(first.latencies));
    differences(&mut page, both);
    page.finish(version)
}

fn differences(page: &mut Page, both: &Comparison<'_>) {
    if both.differences.is_empty() {
        return page.paragraph("No latency has values in both runs.");
    }
    let rows = both.differences.iter().map(|row| {
        let [first, second, difference, interval] = told(row).map(Cell::number);
        let interval = if row.is_clear() { interval.marked("again") } else { interval };
        vec![Cell::code(row.latency), Cell::text(row.quantile), first, second, difference, interval]
    });
    let columns = ["latency", "quantile", "#first", "#second", "#difference", "#95 % of chance"];
    page.body.push_str(&table("second less first; what chance does not explain is marked", &columns, rows));
}
