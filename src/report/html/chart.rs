//! Percentile curves: one picture per latency, both axes logarithmic, the upper end of the distribution as wide as the rest.

use std::fmt::Write as _;

use crate::measure::{Bound, Latency};
use crate::report::percentiles::quantile;
use crate::report::text::{grouped, xml};

/// Pixels: the picture, and the room for its axes.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Percentiles that are named. Their distance is that of their distances to 100 %.
const NAMED: [(&str, f64); 6] =
    [("p0", 0.0), ("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];
/// Points of a curve per tenfold distance to 100 %.
const POINTS: u32 = 60;
/// Seconds after which Linux sends a SYN again; see `measure::syn_loss`.
const SYN_AGAIN: [u64; 3] = [1, 3, 7];

/// A curve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curve<'l> {
    pub(super) name: &'l str,
    pub(super) latency: &'l Latency,
}

/// One picture of up to three curves with values; nothing if there are none. `is_connect` shows when SYNs are sent again.
pub(super) fn figure(title: &str, curves: &[Curve<'_>], is_connect: bool) -> String {
    let curves: Vec<&Curve<'_>> = curves.iter().filter(|curve| curve.latency.count() > 0).take(3).collect();
    let Some(axes) = Axes::around(&curves) else { return String::new() };
    let mut drawn = axes.draw(is_connect);
    for (number, curve) in (1..).zip(&curves) {
        axes.curve(number, curve.latency, &mut drawn);
    }
    let is_alone = curves.len() == 1;
    let told: Vec<String> = curves.iter().map(|curve| told(curve, is_alone)).collect();
    let legend: String = (1..)
        .zip(&told)
        .map(|(number, told)| format!("<li class=\"c{number}\">{}</li>", xml(told)))
        .collect();
    let bound = curves.iter().any(|curve| curve.latency.unfinished_count() > 0);
    let bound = if bound { "<li class=\"bound\">lower bound: some never finished</li>" } else { "" };
    format!(
        "<figure><figcaption>{title}</figcaption>\n\
         <svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n<title>{title}, percentiles</title>\n\
         <desc>{}</desc>\n{drawn}</svg>\n<ul class=\"legend\">{legend}{bound}</ul></figure>\n",
        xml(&told.join("; ")),
        title = xml(title)
    )
}

/// `connect: 400 values, p50 210 µs, p99 1.02 s, max 3.01 s`; without the name if there is no other curve.
fn told(Curve { name, latency }: &Curve<'_>, is_alone: bool) -> String {
    let values = if latency.count() == 1 { "value" } else { "values" };
    let count = grouped(latency.count());
    let mut text = if is_alone { format!("{count} {values}") } else { format!("{name}: {count} {values}") };
    let quantiles =
        [("p50", latency.percentile(50.0)), ("p99", latency.percentile(99.0)), ("max", latency.max())];
    for (name, bound) in quantiles {
        if let Some(bound) = bound {
            let _ = write!(text, ", {name} {}", quantile(bound));
        }
    }
    text
}

/// A value of the axis: 1, 2 or 5 of a power of ten.
fn tick(micros: f64) -> String {
    match micros {
        m if m < 999.5 => format!("{m:.0} µs"),
        m if m < 999_500.0 => format!("{:.0} ms", m / 1e3),
        m => format!("{:.0} s", m / 1e6),
    }
}

/// What the axes reach over.
struct Axes {
    /// Tenfold distances to 100 %: 4 is p99.99.
    decades: f64,
    /// Powers of ten, in microseconds.
    low: i32,
    high: i32,
}

fn micros(bound: Bound) -> f64 {
    bound.value.as_micros().max(1) as f64
}

impl Axes {
    fn around(curves: &[&Curve<'_>]) -> Option<Self> {
        let all = || curves.iter().map(|curve| curve.latency);
        let least = all().filter_map(|latency| latency.percentile(0.0)).map(micros).reduce(f64::min)?;
        let most = all().filter_map(Latency::max).map(micros).reduce(f64::max)?;
        let count = all().map(Latency::count).max()? as f64;
        let low = least.log10().floor() as i32;
        let high = (most.log10().ceil() as i32).max(low + 1);
        Some(Self { decades: count.log10().ceil().clamp(1.0, 4.0), low, high })
    }

    /// Where a distance to 100 % stands: 0 is p0, 2 is p99.
    fn x(&self, decades: f64) -> f64 {
        LEFT + decades / self.decades * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, micros: f64) -> f64 {
        let part = (micros.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)
    }

    fn draw(&self, is_connect: bool) -> String {
        let mut out = String::new();
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
        let steps: &[f64] = if self.high - self.low <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        for power in self.low..=self.high {
            for step in steps.iter().filter(|step| power < self.high || **step == 1.0) {
                let value = step * 10f64.powi(power);
                let y = self.y(value);
                let label = tick(value);
                let _ = writeln!(
                    out,
                    "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                    left - 6.0,
                    y + 5.0
                );
            }
        }
        for (name, percent) in NAMED {
            let decades = -(1.0 - percent / 100.0).log10();
            if decades > self.decades + 0.01 {
                break;
            }
            let x = self.x(decades);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/><text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{name}</text>",
                bottom + 20.0
            );
        }
        let reaches = |seconds: &u64| {
            let micros = *seconds as f64 * 1e6;
            micros > 10f64.powi(self.low) && micros < 10f64.powi(self.high)
        };
        for seconds in SYN_AGAIN.iter().filter(|seconds| is_connect && reaches(seconds)) {
            let y = self.y(*seconds as f64 * 1e6);
            let _ = writeln!(
                out,
                "<path class=\"again\" d=\"M{left} {y:.1}H{right}\"><title>a SYN is sent again after {seconds} s</title></path>\
                 <text class=\"again\" x=\"{:.0}\" y=\"{:.1}\">SYN again, {seconds} s</text>",
                left + 5.0,
                y - 3.0
            );
        }
        out
    }

    /// A curve as far as there are values, and a mark at the largest. From the first lower bound on it is drawn as one.
    fn curve(&self, number: u32, latency: &Latency, out: &mut String) {
        let count = (latency.count() as f64).log10();
        // A single value is a line to the median.
        let last = count.max(2f64.log10()).min(self.decades);
        let points = (0..=(self.decades as u32 * POINTS)).map(|n| f64::from(n) / f64::from(POINTS));
        let points = points.take_while(|at| *at < last).chain([last]);
        let points: Vec<(f64, Bound)> = points
            .filter_map(|at| {
                // The largest value is that of the last of `count` values.
                let bound = if at >= count {
                    latency.max()
                } else {
                    latency.percentile(100.0 * (1.0 - 10f64.powf(-at)))
                };
                bound.map(|bound| (at, bound))
            })
            .collect();
        let split = points.iter().position(|(_, bound)| bound.at_least).unwrap_or(points.len());
        let (known, bounds) = points.split_at(split);
        let line = |class: &str, points: &[(f64, Bound)]| match self.path(points) {
            Some(path) => format!("<path class=\"{class}\" d=\"{path}\"/>\n"),
            None => String::new(),
        };
        out.push_str(&line(&format!("curve c{number}"), known));
        // The two parts meet.
        let bounds = if split > 0 && !bounds.is_empty() { &points[split - 1..] } else { bounds };
        out.push_str(&line(&format!("curve c{number} bound"), bounds));
        if let Some((at, bound)) = points.last() {
            let class = if bound.at_least { " bound" } else { "" };
            let (x, y) = (self.x(*at), self.y(micros(*bound)));
            let _ = writeln!(
                out,
                "<circle class=\"c{number}{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}</title></circle>",
                quantile(*bound)
            );
        }
    }

    /// A path through the points, without those in the middle of a level stretch.
    fn path(&self, points: &[(f64, Bound)]) -> Option<String> {
        if points.len() < 2 {
            return None;
        }
        let level = |n: usize| {
            n > 0 && n + 1 < points.len() && points[n - 1].1 == points[n].1 && points[n].1 == points[n + 1].1
        };
        let mut path = String::new();
        for (n, (at, bound)) in points.iter().enumerate().filter(|(n, _)| !level(*n)) {
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if n == 0 { 'M' } else { 'L' },
                self.x(*at),
                self.y(micros(*bound))
            );
        }
        Some(path)
    }
}
