//! The page of a matrix: how a command coped with one fault after another.

use super::chart::{Curve, figure};
use super::table::{Cell, table};
use super::{Fact, Mark, Page};
use crate::measure::{Kind, Latencies};
use crate::report::matrix::{Matrix, Outcome, Run};
use crate::report::text::xml;

/// The latencies that are drawn beside those of the run without a fault.
const DRAWN: [Kind; 2] = [Kind::Connect, Kind::Ttfb];

/// What a run of a matrix has left behind.
#[derive(Debug, Default)]
pub struct Part {
    /// Its latencies, as far as its log could be read.
    pub latencies: Latencies,
    /// Where its own report is: a path from that of the page, or an absolute one.
    pub report: Option<String>,
}

/// The page of a matrix: a table of all runs, and a part for each. `parts` are those of [`Matrix::runs`], in their order.
#[must_use]
pub fn matrix(
    title: &str,
    facts: &[Fact],
    matrix: &Matrix,
    clean: &Part,
    parts: &[Part],
    version: &str,
) -> String {
    let mut page = Page::new(title, &format!("{}; seed {}", matrix.score(), matrix.seed));
    let count = |outcome| matrix.runs.iter().filter(|run| run.outcome == outcome).count();
    let all = [
        Outcome::Pass,
        Outcome::Fail,
        Outcome::Hang,
        Outcome::Broken,
        Outcome::NotExercised,
        Outcome::Impossible,
    ];
    page.tiles(
        all.into_iter()
            .filter(|outcome| count(*outcome) > 0)
            .map(|outcome| (count(outcome).to_string(), outcome.name(), mark(outcome))),
    );
    overview(&mut page, matrix);
    let rows = std::iter::once((&matrix.clean, clean, true));
    let rows = rows.chain(matrix.runs.iter().zip(parts).map(|(run, part)| (run, part, false)));
    for (index, (run, part, is_clean)) in rows.enumerate() {
        page.heading(&run.name, &anchor(index));
        let why = run.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        page.notes([(mark(run.outcome), format!("{}{why}", run.outcome.name()))]);
        if let Some(report) = &part.report {
            let link = xml(report);
            page.body
                .push_str(&format!("<p><a href=\"{link}\">its own report, with ladders: {link}</a></p>\n"));
        }
        page.figures(&curves(part, (!is_clean).then_some(clean)));
    }
    page.heading("Settings", "settings");
    page.facts(facts);
    page.finish(version)
}

/// What is drawn of a run, beside the clean one if it is another.
fn curves(part: &Part, clean: Option<&Part>) -> String {
    let figure_of = |kind: Kind| {
        let latency = part.latencies.get(kind);
        let mut curves = vec![Curve { name: "this run", latency }];
        curves.extend(clean.map(|clean| Curve { name: "clean", latency: clean.latencies.get(kind) }));
        if latency.count() > 0 { figure(kind.name(), &curves, kind == Kind::Connect) } else { String::new() }
    };
    DRAWN.into_iter().map(figure_of).collect()
}

fn anchor(index: usize) -> String {
    format!("run-{index}")
}

const fn mark(outcome: Outcome) -> Mark {
    match outcome {
        Outcome::Pass => Mark::Good,
        Outcome::NotExercised | Outcome::Impossible => Mark::Look,
        Outcome::Fail | Outcome::Hang | Outcome::Broken => Mark::Bad,
    }
}

fn overview(page: &mut Page, matrix: &Matrix) {
    let rows = || std::iter::once(&matrix.clean).chain(&matrix.runs);
    let longest = rows().filter_map(|run| run.seconds).reduce(f64::max).unwrap_or(1.0).max(f64::MIN_POSITIVE);
    let row = |(index, run): (usize, &Run)| {
        let class = mark(run.outcome).class();
        let [took, slower, flows, fired] = run.told((index > 0).then_some(matrix.clean.seconds).flatten());
        vec![
            Cell::link(&run.name, &format!("#{}", anchor(index))),
            Cell::text(run.outcome.name()).marked(class),
            Cell::number(took),
            Cell::number(slower),
            Cell::bar(run.seconds.unwrap_or(0.0) / longest, class),
            Cell::number(flows),
            Cell::number(fired),
            Cell::text(run.why.as_deref().unwrap_or_default()),
        ]
    };
    let columns = ["run", "outcome", "#time", "#vs clean", "", "#flows", "#fired", "remark"];
    page.body.push_str(&table("runs", &columns, rows().enumerate().map(row)));
}
