//! What `halfopen report` tells of logs: one run, or two side by side.

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::percentiles::{plot, quantile, table};
use super::summary::loss_line;
use super::text::{Line, Role, Style, Text, duration};
use crate::measure::{
    Bound, By, Difference, Group, Kind, Latencies, Latency, PERCENTILES, SynLoss, compare, syn_loss,
};
use crate::time::Duration;

/// Widest a group's name is printed.
const NAME: usize = 40;

/// One run, read from its logs. Serialised, it is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct LoggedRun<'a> {
    /// The files.
    pub files: Vec<String>,
    /// The latencies, in microseconds.
    pub latencies: &'a Latencies,
    /// The same of flows that have something in common.
    pub groups: Vec<&'a Group>,
    /// Where SYNs seem to be lost.
    pub suspected_syn_loss: Vec<SynLoss>,
}

/// Two runs side by side. Serialised, it is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Comparison<'a> {
    /// The first run.
    pub first: LoggedRun<'a>,
    /// The second run.
    pub second: LoggedRun<'a>,
    /// The seed of the intervals.
    pub seed: u64,
    /// Second less first.
    pub differences: Vec<Difference>,
}

impl<'a> LoggedRun<'a> {
    /// A run of these files.
    #[must_use]
    pub fn new(files: Vec<String>, latencies: &'a Latencies) -> Self {
        Self {
            files,
            latencies,
            groups: latencies.groups().collect(),
            suspected_syn_loss: syn_loss(latencies),
        }
    }

    /// As text.
    #[must_use]
    pub fn draw(&self, style: &Style) -> Text {
        let mut text = Text::default();
        let shown = self.latencies.iter().filter(|(_, latency)| latency.count() > 0);
        let rows: Vec<_> = shown.map(|(kind, latency)| (kind.name().to_owned(), latency)).collect();
        if rows.is_empty() {
            text.0.push(Line::of(Role::Plain, "no values"));
            return text;
        }
        text.0.extend(table("latency", 21, rows, style));
        text.0.extend(self.suspected_syn_loss.iter().map(|loss| loss_line(loss, style)));
        for (kind, by) in [
            (Kind::Connect, By::Outcome),
            (Kind::Connect, By::Retransmits),
            (Kind::Connect, By::Rule),
            (Kind::Connect, By::Target),
            (Kind::ServerConnect, By::Target),
        ] {
            let groups = self.groups.iter().filter(|group| (group.kind, group.by) == (kind, by));
            let rows: Vec<_> = groups.map(|group| (group.name.to_string(), &group.values)).collect();
            // A group that is all there is says nothing new.
            if rows.len() < 2 {
                continue;
            }
            let title = format!("{} by {}", kind.name(), by.name());
            let widest = rows.iter().map(|(name, _)| name.width()).chain([title.width()]).max();
            text.0.push(Line::default());
            text.0.extend(table(&title, widest.unwrap_or_default().min(NAME), rows, style));
        }
        text.0.push(Line::default());
        text.0.extend(plot(Kind::Connect.name(), self.latencies.get(Kind::Connect), style));
        text
    }

    /// As CSV, a line per quantile.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut out = "latency,by,name,count,unfinished,quantile,us,at_least\n".to_owned();
        let all = self.latencies.iter().map(|(kind, latency)| (kind.name(), "", String::new(), latency));
        let groups = self
            .groups
            .iter()
            .map(|group| (group.kind.name(), group.by.name(), quoted(&group.name), &group.values));
        for (latency, by, name, values) in all.chain(groups) {
            for (quantile, bound) in quantiles(values) {
                let (us, at_least) = (bound.value.as_micros(), bound.at_least);
                let (count, unfinished) = (values.count(), values.unfinished_count());
                out += &format!("{latency},{by},{name},{count},{unfinished},{quantile},{us},{at_least}\n");
            }
        }
        out
    }
}

impl<'a> Comparison<'a> {
    /// Compares two runs. The same seed gives the same intervals.
    #[must_use]
    pub fn new(first: LoggedRun<'a>, second: LoggedRun<'a>, seed: u64) -> Self {
        let differences = compare(first.latencies, second.latencies, seed);
        Self { first, second, seed, differences }
    }

    /// As text.
    #[must_use]
    pub fn draw(&self, style: &Style) -> Text {
        let mut text = Text::default();
        for (name, run) in [("first", &self.first), ("second", &self.second)] {
            let connects = run.latencies.get(Kind::Connect).count();
            text.0.push(Line::of(
                Role::Plain,
                format!("{name}: {} ({connects} connects)", run.files.join(", ")),
            ));
        }
        text.0.push(Line::default());
        if self.differences.is_empty() {
            text.0.push(Line::of(Role::Plain, "no latency has values in both runs"));
            return text;
        }
        let head = format!(
            "{:<21}  {:>8}  {:>9}  {:>9}  {:>10}  95 % of chance",
            "latency", "quantile", "first", "second", "difference"
        );
        text.0.push(Line::of(Role::Title, head));
        let mut last = "";
        for row in &self.differences {
            let name = if row.latency == last { "" } else { row.latency };
            last = row.latency;
            let [first, second, difference, interval] = told(row).map(|text| style.words(&text));
            let mut line = Line::of(
                Role::Plain,
                format!("{name:<21}  {:>8}  {first:>9}  {second:>9}  {difference:>10}  ", row.quantile),
            );
            let (role, clear) = if row.is_clear() { (Role::Again, "  differs") } else { (Role::Dim, "") };
            line.push(role, format!("{interval}{clear}"));
            text.0.push(line);
        }
        text
    }

    /// As CSV, a line per quantile.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut out = "latency,quantile,first_us,first_at_least,second_us,second_at_least,difference_us,low_us,high_us\n".to_owned();
        for row in &self.differences {
            let number = |us: Option<i64>| us.map_or_else(String::new, |us| us.to_string());
            out += &format!(
                "{},{},{},{},{},{},{},{},{}\n",
                row.latency,
                row.quantile,
                row.first_us,
                row.first_at_least,
                row.second_us,
                row.second_at_least,
                number(row.difference_us),
                number(row.low_us),
                number(row.high_us)
            );
        }
        out
    }
}

/// Of the first run, of the second, the difference, and its interval.
pub(super) fn told(row: &Difference) -> [String; 4] {
    let value = |us, at_least| quantile(Bound { value: Duration::from_micros(us), at_least });
    let end = |us: Option<i64>| us.map_or_else(|| "?".to_owned(), signed);
    [
        value(row.first_us, row.first_at_least),
        value(row.second_us, row.second_at_least),
        end(row.difference_us),
        format!("{} … {}", end(row.low_us), end(row.high_us)),
    ]
}

fn quantiles(latency: &Latency) -> impl Iterator<Item = (&'static str, Bound)> + '_ {
    let all =
        PERCENTILES.iter().map(|(name, p)| (*name, latency.percentile(*p))).chain([("max", latency.max())]);
    all.filter_map(|(name, bound)| Some((name, bound?)))
}

fn signed(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "+" };
    format!("{sign}{}", duration(Duration::from_micros(us.unsigned_abs())))
}

/// A field of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
