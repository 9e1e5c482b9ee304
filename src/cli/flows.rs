//! `halfopen flows`: the flows of a running instance, one of them, and the end of one.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::instance::{Asked, Running, print, print_json};
use super::{Failure, paint};
use crate::control::api::{FLOWS, Flows, Killing};
use crate::engine::{FlowInfo, RuleFired};
use crate::report::ladder::printable;
use crate::report::text::{bytes, duration, grouped};
use crate::report::{Line, Role, Style, Text};
use crate::time::Duration;
use crate::trace::Kill;

/// List the open flows of a running instance, show one, or kill one
///
/// States are those of halfopen's own two ends. A flow is shown with its ladder
/// so far if that is kept: for the N newest flows with --history N (or
/// control.history in the config) when the instance was started, for the first
/// 16 with --ladder.
///
/// Exit code: 2 if there is no flow N, 1 if it has ended, 69 if no instance runs
/// here, 77 if it belongs to somebody else.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    /// Show the flow with this number
    #[arg(value_name = "N")]
    flow: Option<u64>,

    /// List flows with numbers after N only
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, conflicts_with = "flow")]
    after: u64,

    /// List so many flows at most, up to 10000. Default: 1000
    #[arg(long, value_name = "N", default_value_t = FLOWS, hide_default_value = true, conflicts_with = "flow")]
    limit: usize,

    #[command(flatten)]
    asked: Asked,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Kill(KillArgs),
}

/// End a flow
///
/// The faults of the flow act on what is sent for that as on any segment.
#[derive(Debug, ClapArgs)]
struct KillArgs {
    /// The flow
    #[arg(value_name = "N")]
    flow: u64,

    #[command(flatten)]
    way: Way,

    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Way {
    /// By a RST to both ends
    #[arg(long)]
    rst: bool,

    /// By a FIN to both ends, after the bytes that wait for them; what they send
    /// then is taken and lost
    #[arg(long)]
    fin: bool,

    /// Without a word: neither end hears anything, and for 3 hours nothing that
    /// they send is answered. A leg that is a kernel socket (exec, listen) stays
    /// open as long, or until the run ends, and nobody reads from it
    #[arg(long)]
    vanish: bool,
}

impl Way {
    const fn kill(&self) -> Kill {
        match (self.rst, self.fin) {
            (true, _) => Kill::Rst,
            (_, true) => Kill::Fin,
            _ => Kill::Vanish,
        }
    }
}

pub(super) fn flows(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(Command::Kill(args)) = &args.command {
        return kill(args);
    }
    let running = args.asked.find()?;
    match args.flow {
        Some(flow) => one(&running, flow, args.asked.json),
        None => list(&running, args),
    }
}

fn kill(KillArgs { flow, way, asked }: &KillArgs) -> Result<ExitCode, Failure> {
    let killing = Killing { how: way.kill() };
    asked.find()?.post(&format!("/v1/flows/{flow}/kill"), &killing)?;
    if asked.json {
        return print_json(&killing);
    }
    print(|out| writeln!(out, "flow {flow} is killed {}", killing.how.how()))
}

fn list(running: &Running, args: &Args) -> Result<ExitCode, Failure> {
    let Args { after, limit, asked, .. } = args;
    let flows: Flows = running.get(&format!("/v1/flows?after={after}&limit={limit}"))?;
    if asked.json {
        return print_json(&flows);
    }
    print(|mut out| paint::write(&mut out, &table(&flows, &paint::style(&io::stdout()))))
}

/// A flow with its ladder, as JSON.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    flow: FlowInfo,
    /// Its lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    ladder: Option<Vec<String>>,
}

fn one(running: &Running, number: u64, json: bool) -> Result<ExitCode, Failure> {
    let flow: FlowInfo = running.get(&format!("/v1/flows/{number}"))?;
    let ladder = running.draw(&format!("/v1/flows/{number}/ladder"))?;
    if json {
        let ladder = ladder.ok().map(|text| text.0.iter().map(Line::to_string).collect());
        return print_json(&Whole { flow, ladder });
    }
    let mut text = whole(&flow);
    text.0.push(Line::default());
    match ladder {
        Ok(ladder) => text.0.extend(ladder.0),
        Err(problem) => {
            let hint = problem.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            text.paragraph(&paint::style(&io::stdout()), Role::Dim, &format!("{}{hint}", problem.error));
        }
    }
    print(|mut out| paint::write(&mut out, &text))
}

/// Seconds as they read easily.
fn seconds(seconds: f64, style: &Style) -> String {
    style.words(&duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

fn table(Flows { flows, more }: &Flows, style: &Style) -> Text {
    let head = [
        "flow",
        "client",
        "client leg",
        "server",
        "server leg",
        "upstream",
        "downstream",
        "age",
        "idle",
        "rules",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(flows.iter().map(|flow| {
        let fired = |RuleFired { rule, fired, .. }: &RuleFired| format!("{} {fired}", printable(rule));
        [
            flow.flow.to_string(),
            flow.client.to_string(),
            flow.client_state.to_string(),
            flow.server.to_string(),
            flow.server_state.to_string(),
            bytes(flow.upstream_bytes),
            bytes(flow.downstream_bytes),
            seconds(flow.age, style),
            seconds(flow.idle, style),
            flow.rules.iter().map(fired).collect::<Vec<_>>().join(", "),
        ]
    }));
    let widths: Vec<usize> =
        (0..head.len()).map(|at| rows.iter().map(|row| row[at].width()).max().unwrap_or_default()).collect();
    let mut text = Text::default();
    for (number, row) in rows.into_iter().enumerate() {
        let mut line = Line::default();
        for (at, cell) in row.into_iter().enumerate() {
            let role = match at {
                _ if number == 0 => Role::Title,
                2 | 4 => Role::State,
                9 => Role::Fault,
                _ => Role::Plain,
            };
            let gap = if at == 0 { 0 } else { 2 };
            let pad = widths[at].saturating_sub(cell.width());
            // Numbers end at the same column.
            let (before, after) = if matches!(at, 0 | 5..=8) { (pad, 0) } else { (0, pad) };
            line.push(Role::Plain, " ".repeat(gap + before));
            line.push(role, cell);
            line.push(Role::Plain, " ".repeat(after));
        }
        text.0.push(line);
    }
    match (flows.last(), more) {
        (None, _) => text.0 = vec![Line::of(Role::Dim, "no open flows")],
        (Some(last), 1..) => {
            let remark = format!("{} more; --after {} shows the next", grouped(*more as u64), last.flow);
            text.0.push(Line::of(Role::Dim, remark));
        }
        _ => {}
    }
    text
}

/// All that is known of a flow.
fn whole(flow: &FlowInfo) -> Text {
    let style = paint::style(&io::stdout());
    let ended = flow.outcome.map_or_else(String::new, |outcome| format!(", ended: {}", outcome.name()));
    let mut text = Text(vec![Line::of(Role::Title, format!("flow {}{ended}", flow.flow))]);
    let port = flow.source_port.map_or_else(String::new, |port| format!("; it sees port {port}"));
    for (leg, peer, state, more) in [
        ("client", flow.client, flow.client_state, String::new()),
        ("server", flow.server, flow.server_state, port),
    ] {
        let mut line = Line::of(Role::Plain, format!("{leg}  {peer}  "));
        line.push(Role::State, state.name());
        line.push(Role::Plain, more);
        text.0.push(line);
    }
    let (up, down) = (bytes(flow.upstream_bytes), bytes(flow.downstream_bytes));
    let waiting = bytes(flow.waiting_bytes.into());
    let moved = format!("bytes   {up} upstream, {down} downstream, {waiting} waiting");
    text.0.push(Line::of(Role::Plain, moved));
    let (age, idle) = (seconds(flow.age, &style), seconds(flow.idle, &style));
    text.0.push(Line::of(Role::Plain, format!("age     {age}, idle {idle}")));
    for RuleFired { rule, fault, fired } in &flow.rules {
        let mut line = Line::of(Role::Plain, "rule    ");
        line.push(Role::Fault, &*printable(rule));
        let fault = printable(&Arc::from(&**fault));
        line.push(Role::Plain, format!(" ({fault}), fired {}", grouped((*fired).into())));
        text.0.push(line);
    }
    text
}
