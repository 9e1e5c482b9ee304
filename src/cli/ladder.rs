//! `halfopen ladder`: draws the flows of an earlier run.

mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};

use super::{Failure, paint};
use crate::report::Ladders;
use crate::trace::{FlowId, Record, Sink};

/// Draw the ladders of an earlier run from its events or its capture: both legs,
/// every segment, faults marked
///
/// Exit code: 1 if FILE cannot be read or ends too early (what is there is
/// drawn), 2 if it has no flow N.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// What --events or --pcap of the run has written. A capture tells less: no
    /// outcomes, limits, ICMP errors and knobs, and the states of halfopen's own
    /// ends are inferred from the segments
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Draw the flow with this number, whichever it is. Default: the first 16
    #[arg(long, value_name = "N")]
    flow: Option<u64>,

    /// Draw as text, as a sequence diagram in the language of mermaid, or as a
    /// picture (svg). Default: text
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        hide_default_value = true,
        hide_possible_values = true
    )]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Mermaid,
    Svg,
}

pub(super) fn ladder(args: &Args) -> Result<ExitCode, Failure> {
    let path = args.file.display();
    let failed = |e: io::Error| Failure::new(Failure::FAILED, format_args!("{path}: cannot be read: {e}"));
    let file = File::open(&args.file).map_err(failed)?;
    let mut seen = Seen::new(args.flow.map(FlowId));
    let ending = read::read(file, &mut seen).map_err(|problem| problem.about(&args.file))?;
    if seen.flows.is_empty() {
        let cut = ending.map_or_else(String::new, |cut| format!("; {cut}"));
        return Err(Failure::new(Failure::FAILED, format_args!("{path}: there is no flow in it{cut}")));
    }
    if let Some(flow) = args.flow
        && !seen.flows.has(flow)
    {
        let what = format!("--flow {flow}: {path} has no such flow");
        return Err(Failure::new(Failure::USAGE, what).hint(format_args!("it has {}", seen.flows.list())));
    }
    match print(args.format, &seen.ladders) {
        // Whoever read on the other side of a pipe has seen enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Failure::FAILED, format_args!("cannot print the ladder: {e}")))
        }
        _ => match ending {
            None => Ok(ExitCode::SUCCESS),
            Some(cut) => Err(Failure::new(Failure::FAILED, format_args!("{path}: {cut}"))
                .hint("the ladder shows what came before; a run that goes on has not written all yet")),
        },
    }
}

fn print(format: Format, ladders: &Ladders) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Text => paint::write(&mut out, &ladders.draw(&paint::style(&io::stdout())))?,
        Format::Mermaid => out.write_all(ladders.mermaid().as_bytes())?,
        Format::Svg => out.write_all(ladders.svg().as_bytes())?,
    }
    out.flush()
}

/// What was seen of a file: ladders, and which flows there are.
#[derive(Debug)]
struct Seen {
    ladders: Ladders,
    flows: Flows,
}

impl Seen {
    fn new(only: Option<FlowId>) -> Self {
        Self { ladders: only.map_or_else(Ladders::default, Ladders::only), flows: Flows::default() }
    }
}

impl Sink for Seen {
    fn record(&mut self, record: Record) {
        self.flows.insert(record.flow.0);
        self.ladders.record(record);
    }
}

/// Numbers of flows, as ranges: most files have them without gaps, however many they are.
#[derive(Debug, Default)]
struct Flows(BTreeMap<u64, u64>);

impl Flows {
    /// Most ranges that are remembered, and most that are told.
    const REMEMBERED: usize = 10_000;
    const TOLD: usize = 8;

    fn insert(&mut self, flow: u64) {
        // 0 is no flow.
        if flow == 0 || self.has(flow) {
            return;
        }
        let before =
            self.0.range(..flow).next_back().filter(|(_, last)| **last == flow - 1).map(|(first, _)| *first);
        let after = flow.checked_add(1).and_then(|next| self.0.remove(&next));
        if before.is_none() && self.0.len() >= Self::REMEMBERED {
            return;
        }
        self.0.insert(before.unwrap_or(flow), after.unwrap_or(flow));
    }

    fn has(&self, flow: u64) -> bool {
        self.0.range(..=flow).next_back().is_some_and(|(_, last)| *last >= flow)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `flow 3`, `the flows 1-4, 7`.
    fn list(&self) -> String {
        let range = |(first, last): (&u64, &u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let told: Vec<String> = self.0.iter().take(Self::TOLD).map(range).collect();
        let one = self.0.len() == 1 && self.0.iter().all(|(first, last)| first == last);
        let more = if self.0.len() > Self::TOLD { " and more" } else { "" };
        format!("{} {}{more}", if one { "flow" } else { "the flows" }, told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_told_as_ranges() {
        for (numbers, expected) in [
            (&[3][..], "flow 3"),
            (&[1, 2, 3, 4], "the flows 1-4"),
            (&[4, 2, 0, 1, 3, 3, 9, 8], "the flows 1-4, 8-9"),
            (&[u64::MAX, u64::MAX - 1], "the flows 18446744073709551614-18446744073709551615"),
            (&[1, 3, 5, 7, 9, 11, 13, 15, 17], "the flows 1, 3, 5, 7, 9, 11, 13, 15 and more"),
        ] {
            let mut flows = Flows::default();
            numbers.iter().for_each(|flow| flows.insert(*flow));
            assert_eq!(flows.list(), expected);
            assert!(numbers.iter().all(|flow| flows.has(*flow) == (*flow != 0)) && !flows.has(1000));
        }
    }

    #[test]
    fn flows_without_any_order_take_bounded_memory() {
        let mut flows = Flows::default();
        (0..30_000).for_each(|n| flows.insert(n * 2));
        assert_eq!(flows.0.len(), Flows::REMEMBERED);
    }
}
