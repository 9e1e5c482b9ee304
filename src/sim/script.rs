//! Segment scripts: what one TCP must do, segment by segment, at which time.
//!
//! One step per line, `[+SECONDS] MARK REST`; the time counts from the step before, absent means at once. `#` begins a
//! comment.
//!
//! | line | means |
//! |---|---|
//! | `config retries=3 buffer=8000` | numbers of the host, before the first step |
//! | `+0.1 < S. 0:0(0) ack 1 win 65535 <mss 1460>` | a segment arrives |
//! | `& . 1:1001(1000) ack 1` | a segment arrives in one batch with the next line, before anything is sent |
//! | `+0.2 > P. 1:101(100) ack 1` | a segment leaves, exactly then; `win` and options are compared if they are there |
//! | `+0.2~0.3 > …` | the same, within these bounds |
//! | `! send 1000` | the application calls; see [`Call`] |
//! | `= ESTABLISHED` | what the application or an observer sees; see [`Expect`] |
//!
//! A segment that no line expects is an error, so `+5 = ESTABLISHED` says that the next five seconds are silent. Our own
//! numbers count from our SYN (sequence number 0) and our first timestamp (0). The peer's are taken as they are
//! written. A segment may begin with its ECN bits: `[ect0]`, `[ect1]`, `[ce]`, `[noecn]`. A segment that arrives without `win`
//! has the window of the one before it.

mod call;
mod run;

use crate::time::Duration;
use std::fmt;

pub use call::{Call, Expect};

use crate::tcp::{Config, Congestion};
use crate::wire::SegmentNote;

/// A script that can be run.
#[derive(Clone, Debug)]
pub struct Script {
    config: Config,
    ipv6: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    line: usize,
    text: String,
    after: Window,
    act: Act,
}

/// When, counted from the step before.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    from: Duration,
    to: Duration,
}

#[derive(Clone, Debug)]
enum Act {
    Arrives(Pattern),
    /// As `Arrives`, but the connection is not asked for segments before the next step.
    Joins(Pattern),
    Leaves(Pattern),
    Call(Call),
    Expect(Expect),
}

impl Act {
    const fn joins(&self) -> bool {
        matches!(self, Self::Joins(_))
    }
}

/// A segment, and which of its fields were written.
#[derive(Clone, Debug)]
struct Pattern {
    note: SegmentNote,
    window: bool,
    options: bool,
    ecn: Option<u8>,
}

/// Where and why a script does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Line of the script, from 1.
    pub line: usize,
    /// What is wrong, in one or more lines.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// The first line that is no step.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let config = Config { buffer: 65_535, ..Config::default() };
        let mut script = Self { config, ipv6: false, steps: Vec::new() };
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let fail = |what| Failure { line: n + 1, what };
            if let Some(settings) = line.strip_prefix("config ") {
                settings.split_whitespace().try_for_each(|s| script.configure(s)).map_err(fail)?;
            } else if !line.is_empty() {
                script.steps.push(parse_step(n + 1, line).map_err(fail)?);
            }
        }
        Ok(script)
    }

    /// Plays the script against a connection of its own.
    ///
    /// # Errors
    /// The first step that does not hold, with what happened before it.
    pub fn run(&self) -> Result<(), Failure> {
        run::Run::new(&self.config, self.ipv6).play(&self.steps)
    }

    fn configure(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) = setting.split_once('=').ok_or_else(|| format!("{setting:?} is not key=value"))?;
        let config = &mut self.config;
        match key {
            "ipv6" if value == "yes" => self.ipv6 = true,
            "retries" => config.retries = number(value)?,
            "syn_ack_retries" => config.syn_ack_retries = number(value)?,
            "buffer" => config.buffer = number(value)?,
            "ranges" => config.out_of_order_ranges = number(value)?,
            "time_wait" => config.time_wait = seconds(value)?,
            "rto_min" => config.rto_min = seconds(value)?,
            "rto_max" => config.rto_max = seconds(value)?,
            "congestion" if value == "newreno" => config.congestion = Congestion::NewReno,
            "congestion" if value == "cubic" => config.congestion = Congestion::Cubic,
            _ => return Err(format!("no such setting: {setting:?}")),
        }
        Ok(())
    }
}

fn parse_step(line: usize, text: &str) -> Result<Step, String> {
    let (time, rest) = match text.strip_prefix('+') {
        Some(rest) => rest.split_once(' ').ok_or("a time without a step")?,
        None => ("0", text),
    };
    let after = match time.split_once('~') {
        Some((from, to)) => Window { from: seconds(from)?, to: seconds(to)? },
        None => Window { from: seconds(time)?, to: seconds(time)? },
    };
    let rest = rest.trim();
    let (mark, rest) = rest.split_at_checked(1).ok_or("no step")?;
    let rest = rest.trim();
    let act = match mark {
        "<" => Act::Arrives(pattern(rest)?),
        "&" => Act::Joins(pattern(rest)?),
        ">" => Act::Leaves(pattern(rest)?),
        "!" => Act::Call(Call::parse(rest)?),
        "=" => Act::Expect(Expect::parse(rest)?),
        _ => return Err(format!("no step begins with {mark:?}: one of < & > ! =")),
    };
    Ok(Step { line, text: text.to_owned(), after, act })
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let (ecn, text) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']').ok_or("no closing ']'")?;
            let names = ["noecn", "ect1", "ect0", "ce"];
            let bits =
                names.iter().position(|n| *n == name).ok_or_else(|| format!("no ECN bits: {name:?}"))?;
            (Some(bits as u8), rest)
        }
        None => (None, text),
    };
    let note: SegmentNote = text.trim().parse().map_err(|e| format!("{e}"))?;
    Ok(Pattern { note, window: text.contains(" win "), options: text.contains('<'), ecn })
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number in range"))
}

fn seconds(word: &str) -> Result<Duration, String> {
    let seconds: f64 = number(word)?;
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("{word:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_script_is_named_with_its_line() {
        for (text, failure) in [
            ("\n? what", "2: no step begins with \"?\": one of < & > ! ="),
            ("+1", "1: a time without a step"),
            ("+x < S 0:0(0)", "1: \"x\" is not a number in range"),
            ("+-1 = CLOSED", "1: \"-1\": cannot convert float seconds to Duration: value is negative"),
            ("< [xxx] S 0:0(0)", "1: no ECN bits: \"xxx\""),
            ("< S 0:1(0)", "1: not a segment: bad sequence numbers (first:after(length)): \"0:1(0)\""),
            ("! jump", "1: no such call: \"jump\""),
            ("! send many", "1: \"many\" is not a number in range"),
            ("= HAPPY", "1: nothing to see by that name: \"HAPPY\""),
            ("config colour=red", "1: no such setting: \"colour=red\""),
        ] {
            assert_eq!(Script::parse(text).unwrap_err().to_string(), failure);
        }
    }
}
