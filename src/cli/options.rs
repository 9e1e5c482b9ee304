//! Options that several commands share.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::config::{OptionValue, Request};

/// Where the config comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct Sources {
    /// Read the config from FILE (TOML, or YAML by its extension). Default:
    /// $HALFOPEN_CONFIG, ./halfopen.{toml,yaml,yml},
    /// ~/.config/halfopen/config.*, /etc/halfopen/config.*
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Add the rules of a preset, such as stuck-reader or 'stuck-reader
    /// match.server=:5432'. May be repeated. See "halfopen presets"
    #[arg(long = "preset", value_name = "NAME")]
    pub presets: Vec<String>,

    /// Add a rule, such as 'fin-drop direction=downstream first=all'; after the
    /// rules of the config. May be repeated. See "halfopen faults"
    #[arg(short, long = "fault", value_name = "RULE")]
    pub faults: Vec<String>,

    /// Multiply the idle times of the rules, such as 0.01 to make 350 s 3.5 s.
    /// Refused if no rule has any; told at the start and in the summary.
    /// Default: 1
    #[arg(long, value_name = "FACTOR")]
    pub time_scale: Option<String>,

    /// Start the dice of all rules at SEED, to repeat a run. Default: random
    #[arg(long, value_name = "SEED")]
    pub seed: Option<String>,
}

/// Options of every command that intercepts.
#[derive(Clone, Debug, Default, Args)]
pub struct Shared {
    /// Where the config comes from.
    #[command(flatten)]
    pub sources: Sources,

    /// What is told of the run.
    #[command(flatten)]
    pub telling: Telling,

    /// Serve /metrics (Prometheus), /healthz and /readyz over HTTP at ADDR, or
    /// nowhere with "off". Default: 127.0.0.1:8474 for run, off for exec
    #[arg(long, value_name = "ADDR")]
    pub metrics_addr: Option<String>,

    /// Fail with exit code 1 if a rule never fired, so that a test that proves
    /// nothing does not pass
    #[arg(long)]
    pub strict: bool,
}

/// What is told is asked for in one way, whoever measures.
impl std::ops::Deref for Shared {
    type Target = Telling;
    fn deref(&self) -> &Telling {
        &self.telling
    }
}

/// Options of every command that measures: what it tells, and how it judges.
#[derive(Clone, Debug, Default, Args)]
pub struct Telling {
    /// Write every event to FILE, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,

    /// Capture the segments of both legs to FILE (pcapng), with what faults did
    /// as comments. How is said in the section capture of the config
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Write the latencies to FILE, as an interval log that "halfopen report" and
    /// the tools of HdrHistogram read; values are microseconds
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,

    /// Write the percentiles of a latency at the end to FILE, in milliseconds,
    /// for plotters of HdrHistogram; as LATENCY=FILE of another one than connect.
    /// May be repeated
    #[arg(long, value_name = "FILE")]
    pub hgrm: Vec<String>,

    /// Draw the distribution of connect with the summary
    #[arg(long)]
    pub plot: bool,

    /// Print the ladder of each flow at the end: both legs, every segment,
    /// faults marked
    #[arg(long)]
    pub ladder: bool,

    /// Keep the ladders of the N newest flows, for "halfopen flows" to show while
    /// it runs; looks at every segment, as --ladder does. Default: 0
    #[arg(long, value_name = "N")]
    pub history: Option<String>,

    /// Print the summary at the end as JSON
    #[arg(long)]
    pub json: bool,

    /// Write the summary at the end to FILE, as JSON; to a FILE that ends in .html
    /// as a page with curves and the ladders of the slowest and of failed flows.
    /// May be repeated
    #[arg(long = "report", value_name = "FILE")]
    pub reports: Vec<PathBuf>,

    /// Fail with exit code 3 unless EXPR holds at the end, such as
    /// 'p99(connect) < 250ms and count(timeout) == 0'. May be repeated. Of what:
    /// flows, retransmissions, fired, count(OUTCOME), pN(LATENCY), max(LATENCY),
    /// unfinished(LATENCY), fired(RULE), matched(RULE)
    #[arg(long = "assert", value_name = "EXPR")]
    pub assertions: Vec<String>,

    /// Write logs as text or json. Default: text
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub log_format: LogFormat,

    /// Log each flow; twice (-vv): each segment
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object per line.
    Json,
}

impl Sources {
    /// What to load: the file, the environment, and the options that stand for keys.
    #[must_use]
    pub fn request(
        &self,
        options: impl IntoIterator<Item = (&'static str, &'static str, Option<String>)>,
    ) -> Request {
        let seed = ("--seed", "seed", self.seed.clone());
        let time_scale = ("--time-scale", "time_scale", self.time_scale.clone());
        let options = [seed, time_scale].into_iter().chain(options);
        Request {
            file: self.config.clone(),
            no_file: false,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            options: options
                .filter_map(|(option, key, value)| Some(OptionValue { option, key, value: value? }))
                .collect(),
            presets: self.presets.clone(),
            rules: self.faults.clone(),
            scale_if_possible: false,
        }
    }
}
