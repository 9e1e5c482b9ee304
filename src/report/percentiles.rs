//! Distributions as text: a table of percentiles, a plot, and the percentile file of HdrHistogram (`.hgrm`).

use super::text::{Line, Role, Style, duration, grouped};
use crate::measure::{Bound, Latency, PERCENTILES};

/// The percentiles of a plot, evenly spaced to the eye on a logarithmic axis.
const PLOTTED: [f64; 11] = [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];
/// Steps of a `.hgrm` file per halving of the distance to 100 %, as all tools of HdrHistogram write it.
const TICKS_PER_HALF_DISTANCE: f64 = 5.0;

/// A table of percentiles, one line per latency, with names in `columns` columns; `title` is above the names.
pub(super) fn table<'l>(
    title: &str,
    columns: usize,
    rows: impl IntoIterator<Item = (String, &'l Latency)>,
    style: &Style,
) -> Vec<Line> {
    let mut head = Line::of(Role::Title, title);
    head.pad_to(columns);
    let mut names = format!("  {:>8}", "count");
    for (name, _) in PERCENTILES.iter().copied().chain([("max", 100.0)]) {
        names.push_str(&format!("  {name:>8}"));
    }
    head.push(Role::Title, names);
    let mut lines = vec![head];
    for (name, latency) in rows {
        let mut line = Line::of(Role::Plain, style.cut(&name, columns));
        line.pad_to(columns);
        let mut row = format!("  {:>8}", grouped(latency.count()));
        let quantiles = PERCENTILES.iter().map(|(_, p)| latency.percentile(*p)).chain([latency.max()]);
        for bound in quantiles {
            row.push_str(&format!("  {:>8}", style.words(&bound.map_or_else(String::new, quantile))));
        }
        line.push(Role::Plain, row);
        if latency.unfinished_count() > 0 {
            let unfinished = format!("  {} unfinished", grouped(latency.unfinished_count()));
            line.push(Role::Fault, unfinished);
        }
        lines.push(line);
    }
    lines
}

/// `1.02 s`, or `≥3.00 s` if it is a lower bound.
pub(super) fn quantile(bound: Bound) -> String {
    let sign = if bound.at_least { "≥" } else { "" };
    format!("{sign}{}", duration(bound.value))
}

/// The distribution as bars, both axes logarithmic: a line per percentile as far as there are values for it. Nothing without
/// values.
pub(super) fn plot(name: &str, latency: &Latency, style: &Style) -> Vec<Line> {
    let (Some(least), Some(most)) = (latency.percentile(0.0), latency.max()) else { return Vec::new() };
    let micros = |bound: Bound| bound.value.as_micros().max(1) as f64;
    let (low, high) = (micros(least), micros(most));
    let title = format!("{name}, {} to {}, logarithmic", duration(least.value), duration(most.value));
    let mut lines = vec![Line::of(Role::Title, style.words(&title))];
    let room = style.columns().min(100) - 22;
    for percent in PLOTTED {
        let above = (100.0 - percent) / 100.0 * latency.count() as f64;
        let Some(bound) = latency.percentile(percent).filter(|_| percent == 100.0 || above >= 1.0 - 1e-6)
        else {
            continue;
        };
        let label = if percent == 100.0 { "max".to_owned() } else { format!("p{percent}") };
        let mut line = Line::of(Role::Plain, format!("{label:>8}  {:>8}  ", style.words(&quantile(bound))));
        let part = if high > low { (micros(bound) / low).ln() / (high / low).ln() } else { 0.0 };
        let length = 1 + (part * (room - 1) as f64).round() as usize;
        // What is only a lower bound must not look like a value.
        let (glyph, role) = match bound.at_least {
            true => (style.glyph("░", "-"), Role::Fault),
            false => (style.glyph("█", "#"), Role::Plain),
        };
        line.push(role, glyph.repeat(length));
        lines.push(line);
    }
    lines
}

/// The percentile file of HdrHistogram, values in milliseconds; plotters of `.hgrm` files read it. Values that never finished are
/// in it as they are.
#[must_use]
pub fn hgrm(latency: &Latency) -> String {
    let mut out =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let millis = |micros: f64| micros / 1000.0;
    let Some(histogram) = latency.histogram() else {
        return out
            + "#[Mean    =        0.000, StdDeviation   =        0.000]\n#[Max     =        0.000, Total count    =            0]\n";
    };
    let total = histogram.len();
    let (mut level, mut count) = (0.0f64, 0);
    'values: for step in histogram.iter_recorded() {
        count += step.count_at_value();
        let value = millis(step.value_iterated_to() as f64);
        while 100.0 * count as f64 / total as f64 >= level {
            let rest = 1.0 / (1.0 - level / 100.0);
            out += &format!("{value:>12.3} {:>14.12} {count:>10} {rest:>14.2}\n", level / 100.0);
            let halvings = (100.0 / (100.0 - level)).log2().floor() + 1.0;
            level += 100.0 / (TICKS_PER_HALF_DISTANCE * halvings.exp2());
            if count == total {
                break 'values;
            }
        }
    }
    let max = millis(histogram.max() as f64);
    out += &format!("{max:>12.3} {:>14.12} {total:>10}\n", 1.0);
    let (mean, deviation) = (millis(histogram.mean()), millis(histogram.stdev()));
    out += &format!("#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]\n");
    out += &format!("#[Max     = {max:>12.3}, Total count    = {total:>12}]\n");
    let sub_buckets = 2 * 10u64.pow(u32::from(histogram.sigfig()));
    out + &format!(
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        histogram.buckets(),
        sub_buckets.next_power_of_two()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn some() -> Latency {
        let mut latency = Latency::default();
        for micros in 1..=2000 {
            latency.record(Duration::from_micros(micros));
        }
        latency
    }

    #[test]
    fn a_plot_has_a_line_per_percentile_that_has_values_and_marks_lower_bounds() {
        let mut latency = some();
        let ascii = Style { ascii: true, width: 68, ..Style::default() };
        let text = |latency: &Latency| {
            plot("connect", latency, &ascii).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let lines = text(&latency);
        assert_eq!(lines[0], "connect, 1 us to 2.00 ms, logarithmic");
        let labels: Vec<_> = lines[1..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(labels, ["p0", "p50", "p75", "p90", "p95", "p99", "p99.5", "p99.9", "p99.95", "max"]);
        assert_eq!(lines[1].matches('#').count(), 1);
        assert_eq!(lines[10].matches('#').count(), 46, "{}", lines[10]);
        latency.unfinished(Duration::from_secs(3));
        assert!(text(&latency).last().unwrap().contains(">=3.00 s  ---"));
        assert_eq!(text(&Latency::default()), [""; 0]);
    }

    #[test]
    fn all_that_takes_the_same_time_is_one_mark() {
        let mut latency = Latency::default();
        latency.record(Duration::from_millis(3));
        let lines = plot("connect", &latency, &Style::default());
        assert_eq!(lines[1].to_string(), "      p0   3.00 ms  █");
    }

    #[test]
    fn a_percentile_file_ends_with_all_values() {
        let text = hgrm(&some());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "       0.001 0.000000000000          1           1.00");
        assert_eq!(lines[3], "       0.200 0.100000000000        200           1.11");
        assert!(lines.contains(&"       2.000 1.000000000000       2000"));
        assert_eq!(lines[lines.len() - 1], "#[Buckets =           18, SubBuckets     =         2048]");
        assert!(hgrm(&Latency::default()).contains("Total count    =            0"));
    }
}
