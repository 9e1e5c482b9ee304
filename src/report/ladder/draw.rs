//! Draws the rows of a ladder into columns.

use unicode_width::UnicodeWidthStr as _;

use super::Ladder;
use super::explain;
use super::rows::{Arrow, Fate, Fold, States, Way};
use super::words::{self, Canvas, walk};
use crate::report::text::{Line, Role, Style, Text, wrap};
use crate::time::Duration;
use crate::trace::{Leg, State};

/// Columns of the time and the space after it: `999.999999 `.
const TIME: usize = 11;
/// Columns that are left free between a lost segment's end and the line it did not reach.
const SHORT_OF: usize = 5;

pub(super) fn draw(ladder: &Ladder, style: &Style) -> Text {
    let mut pen = Pen::new(style);
    walk(ladder, &mut pen);
    pen.explanation();
    pen.text
}

struct Pen<'a> {
    style: &'a Style,
    /// Columns of a leg, between its two lifelines.
    leg: usize,
    text: Text,
    /// The sentence to the last arrow; the states that it brought come first.
    owed: Option<String>,
}

impl<'a> Pen<'a> {
    fn new(style: &'a Style) -> Self {
        Self { style, leg: (style.columns() - TIME - 3) / 2, text: Text::default(), owed: None }
    }

    fn explanation(&mut self) {
        let Some(sentence) = self.owed.take() else { return };
        for part in wrap(&sentence, self.style.columns() - TIME - 2) {
            let mut line = Line::default();
            line.pad_to(TIME + 1);
            let part = self.style.words(&part);
            line.push(Role::Explain, self.style.cut(&part, self.style.columns() - TIME - 2));
            self.text.0.push(line);
        }
        self.text.0.push(self.row(None, blank(self.leg), blank(self.leg)));
    }

    /// Time, both legs, and the three lifelines.
    fn row(&self, at: Option<Duration>, client: Line, server: Line) -> Line {
        let life = self.style.glyph("│", "|");
        let mut line = Line::of(Role::Dim, at.map_or_else(String::new, words::seconds));
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
        let mut line = Line::of(Role::Dim, at.map_or_else(String::new, words::seconds));
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
            room = room.saturating_sub(part.width());
            text.push(role, part);
        }
        let mut cell = Line::default();
        cell.pad_to(if right { (self.leg - 1).saturating_sub(text.width()) } else { 1 });
        text.0.into_iter().for_each(|span| cell.push(span.role, span.text));
        cell.pad_to(self.leg);
        cell
    }

    /// The arrow with its label inside.
    fn shaft(&self, arrow: &Arrow) -> Line {
        let rightwards = arrow.is_rightwards();
        let injected = arrow.is_injected();
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
        let label = words::label(self.style, arrow, columns.saturating_sub(6));
        let rest = columns.saturating_sub(label.width() + 5);
        let role = words::role(arrow);
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
}

impl Canvas for Pen<'_> {
    fn heading(&mut self, ladder: &Ladder) {
        if let Some(title) = words::title(self.style, ladder) {
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

    fn arrow(&mut self, arrow: &Arrow) {
        self.explanation();
        let shaft = self.shaft(arrow);
        let long = words::beside(self.style, arrow, true);
        let columns: usize = long.iter().map(|(_, text)| text.width() + 2).sum();
        let side = if columns <= self.leg { long } else { words::beside(self.style, arrow, false) };
        let line = match arrow.leg {
            Leg::Client => self.row(Some(arrow.at), shaft, self.flush(side, false)),
            Leg::Server => self.row(Some(arrow.at), self.flush(side, true), shaft),
        };
        self.text.0.push(line);
        self.owed = self.style.explain.then(|| explain::sentence(arrow)).flatten();
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
        self.explanation();
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
        self.explanation();
        let line = self.wide(None, Role::Dim, &words::fold(self.style, fold));
        self.text.0.push(line);
    }

    fn remark(&mut self, text: &str) {
        self.explanation();
        self.text.0.push(Line::of(Role::Dim, self.style.words(text)));
    }
}

fn blank(columns: usize) -> Line {
    let mut line = Line::default();
    line.pad_to(columns);
    line
}
