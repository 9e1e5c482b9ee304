//! Draws the rows of a ladder into columns.

use unicode_width::UnicodeWidthStr as _;

use super::Ladder;
use super::explain;
use super::rows::{Arrow, Fate, Fold, Item, States, Way};
use super::track::{Again, Meaning};
use crate::report::text::{Line, Role, Style, Text, bytes, grouped, wrap};
use crate::time::Duration;
use crate::trace::{Did, Leg, Resend, State};
use crate::wire::Flags;

/// Columns of the time and the space after it: `999.999999 `.
const TIME: usize = 11;
/// Columns that are left free between a lost segment's end and the line it did not reach.
const SHORT_OF: usize = 5;

pub(super) fn draw(ladder: &Ladder, style: &Style) -> Text {
    let mut pen = Pen::new(style);
    pen.heading(ladder);
    let mut owed = None;
    for item in ladder.rows.items() {
        if !matches!(item, Item::States(_)) {
            pen.explanation(owed.take());
        }
        match item {
            Item::Arrow(arrow) => {
                pen.arrow(arrow);
                owed = style.explain.then(|| explain::sentence(arrow)).flatten();
            }
            Item::States(states) => pen.states(states),
            Item::Note { at, leg, role, text } => pen.note(*at, *leg, *role, text),
            Item::Fold(fold) => pen.fold(fold),
        }
    }
    pen.states(&ladder.last_states());
    pen.explanation(owed);
    if let Some(end) = &ladder.end {
        pen.note(end.at, None, Role::Dim, &end.text);
        if end.open {
            pen.states(&States { peers: ladder.peers.map(Some), ours: ladder.ours.map(Some) });
        }
    }
    if ladder.rows.omitted() > 0 {
        let text = format!("… {} more rows", grouped(ladder.rows.omitted()));
        pen.text.0.push(Line::of(Role::Dim, style.words(&text)));
    }
    pen.text
}

struct Pen<'a> {
    style: &'a Style,
    /// Columns of a leg, between its two lifelines.
    leg: usize,
    text: Text,
}

impl<'a> Pen<'a> {
    fn new(style: &'a Style) -> Self {
        Self { style, leg: (style.columns() - TIME - 3) / 2, text: Text::default() }
    }

    fn heading(&mut self, ladder: &Ladder) {
        if let Some((client, server, rules)) = &ladder.opened {
            let to = self.style.words("→");
            let mut title = format!("flow {}: {client} {to} {server}", ladder.flow);
            if !rules.is_empty() {
                title.push_str(&format!(", rules: {}", rules.join(", ")));
            }
            let title = self.style.cut(&title, self.style.columns());
            self.text.0.push(Line::of(Role::Title, title));
        }
        let mut line = Line::of(Role::Title, format!("{:>w$} client", "time", w = TIME - 1));
        line.pad_to(TIME + self.leg + 1 - "half".len());
        line.push(Role::Title, "halfopen");
        line.pad_to(TIME + 2 * self.leg + 3 - "server".len());
        line.push(Role::Title, "server");
        self.text.0.push(line);
    }

    fn explanation(&mut self, sentence: Option<String>) {
        let Some(sentence) = sentence else { return };
        for part in wrap(&sentence, self.style.columns() - TIME - 2) {
            let mut line = Line::default();
            line.pad_to(TIME + 1);
            line.push(Role::Explain, self.style.words(&part));
            self.text.0.push(line);
        }
        self.text.0.push(self.row(None, blank(self.leg), blank(self.leg)));
    }

    fn arrow(&mut self, arrow: &Arrow) {
        let shaft = self.shaft(arrow);
        let long = self.beside(arrow, true);
        let columns: usize = long.iter().map(|(_, text)| text.width() + 2).sum();
        let side = if columns <= self.leg { long } else { self.beside(arrow, false) };
        let line = match arrow.leg {
            Leg::Client => self.row(Some(arrow.at), shaft, self.flush(side, false)),
            Leg::Server => self.row(Some(arrow.at), self.flush(side, true), shaft),
        };
        self.text.0.push(line);
    }

    fn states(&mut self, states: &States) {
        if *states == States::default() {
            return;
        }
        let name = |state: Option<State>| state.map_or("", State::name);
        let cell = |left: &str, right: &str| {
            let mut cell = Line::of(Role::Plain, " ");
            cell.push(Role::State, left);
            cell.pad_to(self.leg - right.width() - 1);
            cell.push(Role::State, right);
            cell.pad_to(self.leg);
            cell
        };
        let [client, server] = states.peers.map(name);
        let [ours_client, ours_server] = states.ours.map(name);
        let line = self.row(None, cell(client, ours_client), cell(ours_server, server));
        self.text.0.push(line);
    }

    fn note(&mut self, at: Duration, leg: Option<Leg>, role: Role, text: &str) {
        let text = self.style.words(text);
        let line = match leg {
            Some(leg) if text.width() <= self.leg - 2 => {
                let cell = self.flush(vec![(role, text)], false);
                match leg {
                    Leg::Client => self.row(Some(at), cell, blank(self.leg)),
                    Leg::Server => self.row(Some(at), blank(self.leg), cell),
                }
            }
            _ => self.wide(Some(at), role, &text),
        };
        self.text.0.push(line);
    }

    fn fold(&mut self, fold: &Fold) {
        let mut text = format!("… {} segments", grouped(fold.segments));
        for (moved, direction) in [(fold.upstream, "upstream"), (fold.downstream, "downstream")] {
            if moved > 0 {
                text.push_str(&format!(", {} {direction}", bytes(moved)));
            }
        }
        let line = self.wide(None, Role::Dim, &self.style.words(&format!("{text} …")));
        self.text.0.push(line);
    }

    /// Time, both legs, and the three lifelines.
    fn row(&self, at: Option<Duration>, client: Line, server: Line) -> Line {
        let life = self.style.glyph("│", "|");
        let mut line = Line::of(Role::Dim, at.map_or_else(String::new, seconds));
        line.pad_to(TIME);
        for cell in [client, server] {
            line.push(Role::Dim, life);
            cell.0.into_iter().for_each(|span| line.push(span.role, span.text));
        }
        line.push(Role::Dim, life);
        line
    }

    /// Text across both legs.
    fn wide(&self, at: Option<Duration>, role: Role, text: &str) -> Line {
        let life = self.style.glyph("│", "|");
        let columns = 2 * self.leg + 1;
        let mut line = Line::of(Role::Dim, at.map_or_else(String::new, seconds));
        line.pad_to(TIME);
        line.push(Role::Dim, life);
        line.push(role, format!(" {}", self.style.cut(text, columns - 2)));
        line.pad_to(TIME + 1 + columns);
        line.push(Role::Dim, life);
        line
    }

    /// Parts in a cell, next to its left or right lifeline, cut where they do not fit.
    fn flush(&self, parts: Vec<(Role, String)>, right: bool) -> Line {
        let mut text = Line::default();
        let mut room = self.leg - 2;
        for (role, part) in parts {
            let part = if text.0.is_empty() { part } else { format!("; {part}") };
            let part = self.style.cut(&part, room);
            room -= part.width();
            text.push(role, part);
        }
        let mut cell = Line::default();
        cell.pad_to(if right { self.leg - 1 - text.width() } else { 1 });
        text.0.into_iter().for_each(|span| cell.push(span.role, span.text));
        cell.pad_to(self.leg);
        cell
    }

    /// The arrow with its label inside.
    fn shaft(&self, arrow: &Arrow) -> Line {
        let rightwards = (arrow.leg == Leg::Client) == (arrow.way == Way::In);
        let injected = arrow.marks.iter().any(|mark| mark.did == Did::Inject);
        let dash = if injected { self.style.glyph("═", "=") } else { self.style.glyph("─", "-") };
        let head = match (arrow.fate, rightwards) {
            (Fate::Passed, true) => self.style.glyph("▶", ">"),
            (Fate::Passed, false) => self.style.glyph("◀", "<"),
            (Fate::Dropped, _) => self.style.glyph("✗", "x"),
            (Fate::Held, _) => self.style.glyph("…", "~"),
        };
        // What halfopen itself does not let out ends before it reaches the peer.
        let short = if arrow.fate != Fate::Passed && arrow.way == Way::Out { SHORT_OF } else { 0 };
        let columns = self.leg - short;
        let label = self.label(arrow, columns.saturating_sub(6));
        let rest = columns.saturating_sub(label.width() + 5);
        let role = match arrow.fate {
            Fate::Passed if arrow.again.is_some() => Role::Again,
            Fate::Passed if injected => Role::Fault,
            Fate::Passed => Role::Plain,
            Fate::Dropped | Fate::Held => Role::Fault,
        };
        let mut line = Line::default();
        if rightwards {
            line.push(role, format!("{} {label} {}{head}", dash.repeat(2), dash.repeat(rest)));
            line.pad_to(self.leg);
        } else {
            line.pad_to(short);
            line.push(role, format!("{head}{} {label} {}", dash.repeat(2), dash.repeat(rest)));
        }
        line
    }

    /// The longest form of the segment that fits.
    fn label(&self, Arrow { seg, meaning, .. }: &Arrow, columns: usize) -> String {
        let times = self.style.glyph("×", "x");
        let mut short = seg.flags.to_string();
        let pure_ack =
            matches!(meaning, Meaning::Ack | Meaning::FirstAck | Meaning::AckOfFin | Meaning::HandshakeAck);
        if !pure_ack {
            short.push_str(&format!(" {}:{}({})", seg.seq, seg.seq.wrapping_add(seg.len), seg.len));
        }
        if seg.bad_checksum {
            short.push_str(" cksum bad");
        }
        if seg.segs > 1 {
            short.push_str(&format!(" {times}{}", seg.segs));
        }
        let mut middle = short.clone();
        if seg.flags.has(Flags::ACK) {
            middle.push_str(&format!(" ack {}", seg.ack));
        }
        let mut long = format!("{middle} win {}", seg.window);
        if seg.urgent > 0 {
            long.push_str(&format!(" urg {}", seg.urgent));
        }
        let full = seg.options.as_ref().filter(|o| !o.is_empty()).map(|o| format!("{long} <{}>", brief(o)));
        let fits = [full, Some(long), Some(middle), Some(short.clone())];
        let fits = fits.into_iter().flatten().find(|label| label.width() <= columns);
        fits.unwrap_or_else(|| self.style.cut(&short, columns))
    }

    /// What stands beside an arrow: what faults did to it, and whether it is a repetition.
    fn beside(&self, arrow: &Arrow, long: bool) -> Vec<(Role, String)> {
        let mut parts = Vec::new();
        let mut say = |role, text: String| parts.push((role, self.style.words(&text)));
        for mark in &arrow.marks {
            let rule = &mark.rule;
            say(
                Role::Fault,
                match mark.did {
                    _ if long => format!("{rule} {}", mark.does()),
                    Did::Hold(time) => format!("{rule}, {} s", brief_seconds(time)),
                    Did::Behind(segments) => format!("{rule}, behind {segments}"),
                    _ => rule.to_string(),
                },
            );
        }
        if let Some(time) = arrow.released {
            say(Role::Fault, format!("held for {} s", brief_seconds(time)));
        }
        match (arrow.again, arrow.resent, arrow.meaning) {
            (_, Some(Resend::WindowProbe), _) | (None, None, Meaning::WindowProbe) => {
                say(Role::Again, "window probe".to_owned());
            }
            (_, Some(Resend::Keepalive), _) | (None, None, Meaning::KeepaliveProbe) => {
                say(Role::Again, "keepalive probe".to_owned());
            }
            (Some(Again { count, after }), resent, _) => {
                let what = match resent {
                    Some(Resend::Tlp) => "tail loss probe",
                    Some(Resend::Rack) if long => "RACK retransmission",
                    _ if long => "retransmission",
                    _ => "resent",
                };
                say(Role::Again, format!("{what} {count}, +{} s", brief_seconds(after)));
            }
            _ => {}
        }
        parts
    }
}

fn blank(columns: usize) -> Line {
    let mut line = Line::default();
    line.pad_to(columns);
    line
}

/// `   1.234567`, right-aligned in the time column.
fn seconds(at: Duration) -> String {
    format!("{:>3}.{:06}", at.as_secs(), at.subsec_micros())
}

/// `0.204`.
pub(super) fn brief_seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// The options of a SYN without their padding.
fn brief(options: &str) -> String {
    let words = options.split(',').filter(|word| *word != "nop");
    let words: Vec<_> = words.map(|word| if word.starts_with("TS ") { "TS" } else { word }).collect();
    words.join(",")
}
