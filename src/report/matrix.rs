//! How a command copes with one fault after another: a table, JSON, and JUnit XML.

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::text::{Line, Role, Style, Text, duration, grouped, xml};
use crate::time::Duration;

/// All runs of a command.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// The seed of all of them.
    pub seed: u64,
    /// What idle times were multiplied with, where a run has any.
    pub time_scale: f64,
    /// Where the output of each run is.
    pub output: String,
    /// The run without a fault, which passed.
    pub clean: Run,
    /// The runs under faults.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The preset, or the rule.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Why, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The exit code, also that of a command that was ended for its time (128 + n after signal n).
    pub exit_code: Option<i32>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// How many connections it made, if halfopen could tell.
    pub flows: Option<u64>,
    /// How often faults acted, if halfopen could tell.
    pub fired: Option<u64>,
    /// True if its idle times were scaled.
    pub time_scaled: bool,
    /// Where its output is, below [`Matrix::output`].
    pub directory: Option<String>,
}

/// How a run came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The command met the fault and ended with 0.
    Pass,
    /// The command ended with another exit code, or an assertion does not hold.
    Fail,
    /// The command was ended because it took too long.
    Hang,
    /// The command ended with 0, but no fault has acted.
    NotExercised,
    /// Nothing is known of the command: halfopen itself failed.
    Broken,
    /// Not run: it cannot be done around a command.
    Impossible,
}

impl Outcome {
    /// The outcome in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Hang => "hang",
            Self::NotExercised => "not exercised",
            Self::Broken => "broken",
            Self::Impossible => "impossible",
        }
    }

    /// True if the command did not cope.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Fail | Self::Hang | Self::Broken)
    }
}

impl Matrix {
    /// True if the command coped with every fault that it met; `strict` also wants it to have met all.
    #[must_use]
    pub fn is_good(&self, strict: bool) -> bool {
        let bad = |run: &Run| run.outcome.is_bad() || (strict && run.outcome == Outcome::NotExercised);
        !self.runs.iter().any(bad)
    }

    /// `3 of 5 passed, 1 fail, 1 hang; 1 not exercised`: of those that met a fault.
    #[must_use]
    pub fn score(&self) -> String {
        let count = |outcome| self.runs.iter().filter(|run| run.outcome == outcome).count();
        let told = |outcomes: &[Outcome]| {
            let some = outcomes.iter().filter(|outcome| count(**outcome) > 0);
            some.map(|outcome| format!("{} {}", count(*outcome), outcome.name()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let bad = [Outcome::Fail, Outcome::Hang, Outcome::Broken];
        let passed = count(Outcome::Pass);
        let met = passed + bad.map(count).iter().sum::<usize>();
        let mut score = format!("{passed} of {met} passed");
        for (sign, part) in [(", ", told(&bad)), ("; ", told(&[Outcome::NotExercised, Outcome::Impossible]))]
        {
            if !part.is_empty() {
                score.push_str(&format!("{sign}{part}"));
            }
        }
        score
    }

    /// As a table.
    #[must_use]
    pub fn draw(&self, style: &Style) -> Text {
        const NAME: usize = 48;
        let clean = self.clean.seconds;
        let rows = std::iter::once((&self.clean, None)).chain(self.runs.iter().map(|run| (run, clean)));
        let names: Vec<String> = rows.clone().map(|(run, _)| style.cut(&run.name, NAME)).collect();
        let width = names.iter().map(|name| name.width()).max().unwrap_or(0).max("run".len());
        let mut head = Line::of(Role::Title, "run");
        head.pad_to(width + 2);
        head.push(
            Role::Title,
            format!("{:13}  {:>8}  {:>8}  {:>7}  {:>7}", "outcome", "time", "vs clean", "flows", "fired"),
        );
        let mut text = Text(vec![head]);
        for ((run, clean), name) in rows.zip(names) {
            let mut line = Line::of(Role::Plain, name);
            line.pad_to(width + 2);
            run.draw(clean, style, &mut line);
            text.0.push(line);
        }
        text.0.push(Line::default());
        text.0.push(Line::of(Role::Title, format!("score: {}", self.score())));
        let scale = match self.time_scale {
            1.0 => String::new(),
            factor => {
                let scaled = self.runs.iter().filter(|run| run.time_scaled).map(|run| run.name.as_str());
                format!("time scale {factor} ({}); ", scaled.collect::<Vec<_>>().join(", "))
            }
        };
        text.0.push(Line::of(Role::Dim, format!("{scale}seed {}; output in {}", self.seed, self.output)));
        text
    }

    /// As JUnit XML: what was not exercised is skipped, or with `strict` a failure.
    #[must_use]
    pub fn junit(&self, strict: bool) -> String {
        let mut cases = String::new();
        let (mut failures, mut errors, mut skipped, mut total) = (0, 0, 0, 0.0);
        let rows = std::iter::once(&self.clean).chain(&self.runs);
        for run in rows.clone() {
            let seconds = run.seconds.unwrap_or(0.0);
            total += seconds;
            let name = xml(&run.name);
            cases.push_str(&format!(
                "    <testcase classname=\"halfopen.matrix\" name=\"{name}\" time=\"{seconds:.3}\">\n"
            ));
            let element = match run.outcome {
                Outcome::Pass => None,
                Outcome::Fail | Outcome::Hang => Some(("failure", &mut failures)),
                Outcome::NotExercised if strict => Some(("failure", &mut failures)),
                Outcome::Broken => Some(("error", &mut errors)),
                Outcome::NotExercised | Outcome::Impossible => Some(("skipped", &mut skipped)),
            };
            if let Some((element, count)) = element {
                *count += 1;
                let why = run.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                let message = xml(&format!("{}{why}", run.outcome.name()));
                cases.push_str(&format!("      <{element} message=\"{message}\"/>\n"));
            }
            if let Some(directory) = &run.directory {
                let place = xml(&format!("{}/{directory}", self.output));
                cases.push_str(&format!("      <system-out>{place}</system-out>\n"));
            }
            cases.push_str("    </testcase>\n");
        }
        let counts = format!(
            "tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{total:.3}\"",
            rows.count()
        );
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"halfopen matrix\" {counts}>\n\
             {cases}  </testsuite>\n</testsuites>\n"
        )
    }
}

impl Run {
    /// Its row after its name; `clean` is how long the run without a fault took, if this is another.
    fn draw(&self, clean: Option<f64>, style: &Style, line: &mut Line) {
        let role = match self.outcome {
            Outcome::Pass => Role::Explain,
            Outcome::NotExercised | Outcome::Impossible => Role::Again,
            _ => Role::Fault,
        };
        line.push(role, format!("{:13}", self.outcome.name()));
        let [took, slower, flows, fired] = self.told(clean).map(|text| style.words(&text));
        line.push(Role::Plain, format!("  {took:>8}  {slower:>8}  {flows:>7}  {fired:>7}"));
        if let Some(why) = &self.why {
            line.push(Role::Dim, format!("  {why}"));
        }
    }

    /// Its time, how much longer that is than the run without a fault, its flows, and how often faults acted.
    pub(super) fn told(&self, clean: Option<f64>) -> [String; 4] {
        let time = |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let slower = match (self.seconds, clean) {
            (Some(took), Some(clean)) if took < clean => format!("-{}", time(clean - took)),
            (Some(took), Some(clean)) => format!("+{}", time(took - clean)),
            _ => String::new(),
        };
        let number = |number: Option<u64>| number.map_or_else(String::new, grouped);
        [self.seconds.map(time).unwrap_or_default(), slower, number(self.flows), number(self.fired)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, outcome: Outcome, seconds: f64, why: Option<&str>) -> Run {
        Run {
            name: name.to_owned(),
            outcome,
            why: why.map(str::to_owned),
            exit_code: Some(0),
            seconds: Some(seconds),
            flows: Some(1),
            fired: (outcome != Outcome::Broken).then_some(1200),
            time_scaled: name == "stuck-reader",
            directory: Some(format!("{name}.d")),
        }
    }

    fn matrix() -> Matrix {
        Matrix {
            seed: 42,
            time_scale: 0.01,
            output: "/tmp/x & y".to_owned(),
            clean: run("clean", Outcome::Pass, 0.5, None),
            runs: vec![
                run("stuck-reader", Outcome::Pass, 1.5, None),
                run("fin-drop name=\"<a>\"", Outcome::Fail, 0.25, Some("exit code 1\u{1}")),
                run("vxlan-63s", Outcome::Hang, 60.0, None),
                run("k8s-snat-race", Outcome::NotExercised, 0.5, None),
                run("odd", Outcome::Broken, 0.5, Some("no report")),
                Run {
                    seconds: None,
                    directory: None,
                    ..run("no", Outcome::Impossible, 0.0, Some("it is a socket"))
                },
            ],
        }
    }

    #[test]
    fn the_table_tells_each_run_and_the_score() {
        let expected = "\
run                  outcome            time  vs clean    flows    fired
clean                pass             500 ms                  1    1,200
stuck-reader         pass             1.50 s   +1.00 s        1    1,200
fin-drop name=\"<a>\"  fail             250 ms   -250 ms        1    1,200  exit code 1\u{1}
vxlan-63s            hang             60.0 s   +59.5 s        1    1,200
k8s-snat-race        not exercised    500 ms     +0 µs        1    1,200
odd                  broken           500 ms     +0 µs        1           no report
no                   impossible                               1    1,200  it is a socket

score: 1 of 4 passed, 1 fail, 1 hang, 1 broken; 1 not exercised, 1 impossible
time scale 0.01 (stuck-reader); seed 42; output in /tmp/x & y
";
        assert_eq!(matrix().draw(&Style::default()).to_string(), expected);
    }

    #[test]
    fn junit_escapes_names_and_counts_outcomes() {
        let xml = matrix().junit(false);
        assert!(
            xml.contains("tests=\"7\" failures=\"2\" errors=\"1\" skipped=\"2\" time=\"63.250\""),
            "{xml}"
        );
        assert!(xml.contains("name=\"fin-drop name=&quot;&lt;a&gt;&quot;\" time=\"0.250\">"), "{xml}");
        assert!(xml.contains("<failure message=\"fail: exit code 1\u{fffd}\"/>"), "{xml}");
        assert!(xml.contains("<system-out>/tmp/x &amp; y/odd.d</system-out>"), "{xml}");
        assert!(matrix().junit(true).contains("failures=\"3\" errors=\"1\" skipped=\"1\""));
    }

    #[test]
    fn only_a_strict_matrix_wants_every_fault_met() {
        let mut matrix = matrix();
        assert!(!matrix.is_good(false));
        matrix.runs.retain(|run| !run.outcome.is_bad());
        assert!(matrix.is_good(false) && !matrix.is_good(true));
    }
}
