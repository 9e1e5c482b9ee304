//! What a run amounts to: flows, outcomes, rules, latencies, limits; as text and as JSON.

use std::sync::Arc;

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::percentiles::{plot, quantile, table};
use super::text::{Line, Role, Style, Text, bytes, grouped};
use crate::measure::{
    Bound, Counters, Group, Judgement, Kind, Latencies, Latency, Measure, NameCount, Observed, Reading,
    RuleCount, SynLoss, syn_loss,
};
use crate::time::{Duration, Instant};

/// Widest a rule's name is printed.
const RULE: usize = 40;

/// The end report of a run. Serialised, it is the object that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary<'a> {
    /// The seed; the same one gives the same faults. Nothing where there are no dice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How long the run lasted.
    pub seconds: f64,
    /// The totals.
    #[serde(flatten)]
    pub counters: Counters,
    /// Each rule, also those that never mattered.
    pub rules: &'a [RuleCount],
    /// The latencies, in microseconds.
    pub latencies: &'a Latencies,
    /// The same of flows that have something in common.
    pub groups: Vec<&'a Group>,
    /// Where SYNs seem to be lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspected_syn_loss: Vec<SynLoss>,
    /// Which ICMP errors refused flows.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub refused_icmp: &'a [NameCount],
    /// Limits that were reached.
    pub limits: &'a [NameCount],
    /// Why packets were discarded.
    pub discarded: &'a [NameCount],
    /// What the time scale did, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_scale: Option<TimeScale>,
    /// How the assertions came out.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub assertions: &'a [Judgement],
    /// Draw the distribution of `connect`, too.
    #[serde(skip)]
    pub plot: bool,
}

/// A time scale other than 1.
#[derive(Clone, Debug, Serialize)]
pub struct TimeScale {
    /// What times are multiplied with.
    pub factor: f64,
    /// The times that are scaled.
    pub scaled: Vec<ScaledTime>,
    /// The rules that keep their times.
    pub unscaled: Vec<Arc<str>>,
}

/// A time of a rule that is scaled.
#[derive(Clone, Debug, Serialize)]
pub struct ScaledTime {
    /// The rule.
    pub rule: Arc<str>,
    /// Its attribute.
    pub attribute: &'static str,
    /// The time as it was written, in seconds.
    pub from_seconds: f64,
    /// The time that is in force, in seconds.
    pub seconds: f64,
}

impl<'a> Summary<'a> {
    /// The summary of a run that ends `now`, if [`Measure::finish`] has been called; else that of a run that goes on.
    #[must_use]
    pub fn new(measure: &'a Measure, seed: impl Into<Option<u64>>, now: Instant) -> Self {
        Self {
            seed: seed.into(),
            seconds: now.as_secs_f64(),
            counters: measure.counters(),
            rules: measure.rules(),
            latencies: measure.latencies(),
            groups: measure.latencies().groups().collect(),
            suspected_syn_loss: syn_loss(measure.latencies()),
            refused_icmp: measure.refused_icmp(),
            limits: measure.limits(),
            discarded: measure.discarded(),
            time_scale: None,
            assertions: &[],
            plot: false,
        }
    }

    /// As text.
    #[must_use]
    pub fn draw(&self, style: &Style) -> Text {
        let mut text = Text::default();
        text.0.extend(self.totals(style));
        text.0.extend(self.rule_table(style));
        text.0.extend(self.latency_table(style));
        if self.plot {
            text.0.push(Line::default());
            text.0.extend(plot(Kind::Connect.name(), self.latencies.get(Kind::Connect), style));
        }
        text.0.extend(self.suspected_syn_loss.iter().map(|loss| loss_line(loss, style)));
        let named = [
            ("refused-icmp", self.refused_icmp),
            ("limit reached", self.limits),
            ("discarded", self.discarded),
        ];
        for (what, names) in named {
            for NameCount { name, count } in names {
                let line = format!("{what}: {name}, {} {}", grouped(*count), times(*count));
                text.0.push(Line::of(Role::Again, line));
            }
        }
        if self.counters.untimed > 0 {
            let line =
                format!("{} flows have no latencies: too many at once", grouped(self.counters.untimed));
            text.0.push(Line::of(Role::Again, line));
        }
        text.0.extend(self.time_scale.iter().flat_map(TimeScale::draw));
        text.0.extend(self.assertion_lines(style));
        text
    }

    fn assertion_lines(&self, style: &Style) -> Vec<Line> {
        let line = |judgement: &Judgement| {
            let Judgement { assertion, holds, observed: seen } = judgement;
            let (told, role) = if *holds { ("holds", Role::Plain) } else { ("fails", Role::Fault) };
            let seen: Vec<String> = seen.iter().map(observed).collect();
            let mut line = Line::of(Role::Plain, format!("assert {assertion}: "));
            line.push(role, told);
            line.push(Role::Plain, format!("; {}", style.words(&seen.join(", "))));
            line
        };
        self.assertions.iter().map(line).collect()
    }

    fn totals(&self, style: &Style) -> Vec<Line> {
        let Counters { flows, outcomes, upstream_bytes, downstream_bytes, retransmissions, .. } =
            self.counters;
        let mut line = Line::of(Role::Title, format!("{} {}", grouped(flows), plural(flows, "flow")));
        let ended: Vec<_> =
            outcomes.iter().map(|(name, count)| format!("{} {name}", grouped(count))).collect();
        if !ended.is_empty() {
            line.push(Role::Plain, format!(": {}", ended.join(", ")));
        }
        let mut moved = format!(
            "{} upstream, {} downstream, {} {}; {:.3} s",
            bytes(upstream_bytes),
            bytes(downstream_bytes),
            grouped(retransmissions),
            plural(retransmissions, "retransmission"),
            self.seconds
        );
        moved.extend(self.seed.map(|seed| format!(", seed {seed}")));
        vec![line, Line::of(Role::Dim, style.words(&moved))]
    }

    /// What each rule has matched and fired, behind an empty line; nothing without rules.
    #[must_use]
    pub fn rule_table(&self, style: &Style) -> Vec<Line> {
        let names: Vec<_> = self.rules.iter().map(|r| style.cut(&r.rule, RULE)).collect();
        let columns = names.iter().map(|name| name.width()).chain(["rule".len()]).max().unwrap_or_default();
        let mut lines = Vec::new();
        if !names.is_empty() {
            let mut head = Line::of(Role::Title, "rule");
            head.pad_to(columns);
            head.push(Role::Title, format!("  {:>8}  {:>8}  fault", "matched", "fired"));
            lines.extend([Line::default(), head]);
        }
        for (name, rule) in names.into_iter().zip(self.rules) {
            let mut line = Line::of(Role::Plain, name);
            line.pad_to(columns);
            let (matched, fired) = (grouped(rule.matched), grouped(rule.fired));
            line.push(Role::Plain, format!("  {matched:>8}  {fired:>8}  {}", rule.fault));
            if rule.fired == 0 {
                line.push(Role::Fault, "  never fired");
            }
            lines.push(line);
        }
        lines
    }

    fn latency_table(&self, style: &Style) -> Vec<Line> {
        let faults = self.latencies.get(Kind::AddedByFault).count() > 0;
        let shown = |(kind, latency): &(Kind, &Latency)| match kind {
            Kind::Connect | Kind::ServerConnect | Kind::ServerNet => true,
            Kind::ConnectWithoutFault => faults,
            _ => latency.count() > 0,
        };
        let rows: Vec<_> = self.latencies.iter().filter(shown).collect();
        if rows.iter().all(|(_, latency)| latency.count() == 0) {
            return Vec::new();
        }
        let rows = rows.into_iter().map(|(kind, latency)| (kind.name().to_owned(), latency));
        let mut lines = vec![Line::default()];
        lines.extend(table("latency", 21, rows, style));
        lines
    }
}

impl TimeScale {
    pub(super) fn draw(&self) -> Vec<Line> {
        let Self { factor, scaled, unscaled } = self;
        let mut lines = vec![Line::of(Role::Again, format!("time scale {factor}"))];
        for ScaledTime { rule, attribute, from_seconds, seconds } in scaled {
            let line = format!("  {rule}: {attribute} {from_seconds} s is {seconds} s");
            lines.push(Line::of(Role::Again, line));
        }
        if !unscaled.is_empty() {
            lines.push(Line::of(Role::Again, format!("  not scaled: {}", unscaled.join(", "))));
        }
        lines
    }
}

/// `suspected SYN loss: 12 of 400 connect (3.0 %) took 1 s (10), 3 s (2); 12 by faults`
pub(super) fn loss_line(loss: &SynLoss, style: &Style) -> Line {
    let SynLoss { latency, connects, steps, by_faults } = loss;
    let suspected = loss.suspected();
    let steps: Vec<String> =
        steps.iter().map(|step| format!("{} s ({})", step.seconds, grouped(step.count))).collect();
    let share = suspected as f64 / (*connects).max(1) as f64 * 100.0;
    let mut text = format!(
        "suspected SYN loss: {} of {} {latency} ({share:.1} %) took {}",
        grouped(suspected),
        grouped(*connects),
        steps.join(", ")
    );
    if let Some(count) = by_faults.filter(|count| *count > 0) {
        text.push_str(&format!("; {} by faults", grouped(count)));
    }
    Line::of(Role::Again, style.words(&text))
}

/// What a quantity of an assertion was: `p99(connect) ≥3.00 s`.
#[must_use]
pub fn observed(Observed { what, value }: &Observed) -> String {
    match *value {
        Reading::Count { count } => format!("{what} {}", grouped(count)),
        Reading::Time { micros, at_least } => {
            format!("{what} {}", quantile(Bound { value: Duration::from_micros(micros), at_least }))
        }
        Reading::Nothing {} => format!("{what} without a value"),
    }
}

/// The totals in one line, for a status line that is drawn again and again.
#[must_use]
pub fn status_line(counters: &Counters) -> String {
    let Counters { flows, open, opening, outcomes, upstream_bytes, downstream_bytes, fired, .. } = *counters;
    let mut line = format!("{} {}, {} open", grouped(flows), plural(flows, "flow"), grouped(open));
    if opening > 0 {
        line.push_str(&format!(" ({} opening)", grouped(opening)));
    }
    for (name, count) in outcomes.iter() {
        line.push_str(&format!(", {} {name}", grouped(count)));
    }
    if upstream_bytes + downstream_bytes > 0 {
        line.push_str(&format!("; {} up, {} down", bytes(upstream_bytes), bytes(downstream_bytes)));
    }
    if fired > 0 {
        line.push_str(&format!("; {} fired", grouped(fired)));
    }
    line
}

/// What a status line adds of a latency: `; connect p50 1.02 ms, p99 3.10 ms, max ≥3.00 s`. Nothing without values.
#[must_use]
pub fn latency_line(name: &str, latency: &Latency) -> String {
    let quantiles =
        [("p50", latency.percentile(50.0)), ("p99", latency.percentile(99.0)), ("max", latency.max())];
    let told: Vec<String> = quantiles
        .into_iter()
        .filter_map(|(name, bound)| Some(format!("{name} {}", quantile(bound?))))
        .collect();
    if told.is_empty() { String::new() } else { format!("; {name} {}", told.join(", ")) }
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

const fn times(count: u64) -> &'static str {
    if count == 1 { "time" } else { "times" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Outcomes;

    #[test]
    fn the_status_line_tells_only_what_is_there() {
        assert_eq!(status_line(&Counters::default()), "0 flows, 0 open");
        let counters = Counters {
            flows: 1204,
            open: 12,
            opening: 2,
            outcomes: Outcomes { ok: 1190, reset: 2, ..Outcomes::default() },
            upstream_bytes: 100,
            downstream_bytes: 12 << 20,
            fired: 5,
            ..Counters::default()
        };
        let line =
            "1,204 flows, 12 open (2 opening), 1,190 ok, 2 reset; 100 bytes up, 12.0 MiB down; 5 fired";
        assert_eq!(status_line(&counters), line);
    }
}
