//! Ladders as a picture: one SVG without script and without anything from elsewhere.

use super::Ladder;
use super::rows::{Arrow, Fate, Fold, States, Way};
use super::words::{self, Canvas, walk};
use crate::report::text::{Role, Style, xml};
use crate::time::Duration;
use crate::trace::{Leg, State};

/// Pixels: the whole picture, and where its three lifelines stand.
const WIDTH: u32 = 1070;
const LIVES: [u32; 3] = [100, 575, 1050];
const LEG: u32 = LIVES[1] - LIVES[0];
/// Between a text and the line it stands at.
const GAP: u32 = 8;
/// What is left free between a lost segment's end and the line it did not reach.
const SHORT_OF: u32 = 50;
/// A column is a little wider than in any common monospaced font at 12 pixels, so that nothing overlaps.
const COLUMN: f64 = 7.4;

/// Colours by name: on white, and on a dark ground. A picture of its own is white, whoever looks at it.
pub(in crate::report) const PALETTE: [(&str, &str, &str); 8] = [
    ("paper", "#fff", "#171b21"),
    ("ink", "#222", "#d5dae1"),
    ("title", "#000", "#f4f6f8"),
    ("dim", "#666", "#98a2ad"),
    ("state", "#00558b", "#6cb6ef"),
    ("fault", "#b00020", "#ff7b89"),
    ("again", "#8a5300", "#e3ab55"),
    ("life", "#999", "#596470"),
];

/// Who is drawn how; `@` stands before a colour.
const STYLE: [(&str, &str); 14] = [
    (
        "text",
        "font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono','Noto Sans Mono CJK SC',monospace;fill:@ink",
    ),
    (".title", "font-weight:bold;fill:@title"),
    (".dim", "fill:@dim"),
    (".state", "fill:@state"),
    (".fault", "fill:@fault;font-weight:bold"),
    (".again", "fill:@again"),
    (".life", "stroke:@life"),
    (".fold", "stroke:@life;stroke-dasharray:2 4"),
    ("line.plain,path.plain", "stroke:@ink;fill:@ink"),
    ("line.again,path.again", "stroke:@again;fill:@again"),
    ("line.fault,path.fault", "stroke:@fault;fill:@fault"),
    (".held", "stroke-dasharray:6 4"),
    (".injected", "stroke-width:3"),
    (".paper", "fill:@paper"),
];

/// The rules of CSS for what is `within`, a selector or nothing; `colour` tells a colour by its name.
pub(in crate::report) fn style(within: &str, colour: impl Fn(&'static str) -> String) -> String {
    let rule = |(selectors, declarations): (&str, &str)| {
        let selectors: Vec<String> = selectors.split(',').map(|one| format!("{within}{one}")).collect();
        let coloured = PALETTE.iter().fold(declarations.to_owned(), |text, (name, ..)| {
            text.replace(&format!("@{name}"), &colour(name))
        });
        format!("{}{{{coloured}}}", selectors.join(","))
    };
    STYLE.into_iter().map(rule).collect()
}

/// The ladders below each other; `remark` stands at the end.
pub(super) fn draw<'a>(ladders: impl Iterator<Item = &'a Ladder>, remark: Option<&str>) -> String {
    let (height, drawn) = picture(ladders, remark);
    let light = |name| PALETTE.iter().find(|(known, ..)| *known == name).map_or("", |(_, light, _)| light);
    let style = style("", |name| light(name).to_owned());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\">\n<title>TCP ladder: client, halfopen, server</title>\n<style>{style}</style>\n{drawn}</svg>\n"
    )
}

/// One ladder as a part of a page that has the [`style`] within `.ladder`.
pub(in crate::report) fn part(ladder: &Ladder) -> String {
    let (height, drawn) = picture(std::iter::once(ladder), None);
    let title = xml(&ladder.title());
    format!(
        "<svg class=\"ladder\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>TCP ladder of {title}</title>\n\
         {drawn}</svg>\n"
    )
}

/// Its height, and what is in it.
fn picture<'a>(ladders: impl Iterator<Item = &'a Ladder>, remark: Option<&str>) -> (u32, String) {
    let mut pen = Pen { style: Style::default(), y: 10, lives: String::new(), body: String::new() };
    for ladder in ladders {
        walk(ladder, &mut pen);
        pen.y += 24;
    }
    if let Some(remark) = remark {
        pen.remark(remark);
    }
    let (height, Pen { lives, body, .. }) = (pen.y + 6, pen);
    (height, format!("<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n{lives}{body}"))
}

struct Pen {
    style: Style,
    /// Where the next row begins.
    y: u32,
    /// Lifelines, below everything else.
    lives: String,
    body: String,
}

/// Which part of a text is at its x.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl Pen {
    /// Makes room for a row, with its lifelines.
    fn row(&mut self, height: u32) -> u32 {
        let (from, to) = (self.y, self.y + height);
        for x in LIVES {
            self.lives.push_str(&format!(
                "<line class=\"life\" x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{to}\"/>\n"
            ));
        }
        self.y = to;
        from
    }

    fn text(&mut self, (x, y): (u32, u32), anchor: Anchor, parts: &[(Role, String)]) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        self.body.push_str(&format!("<text x=\"{x}\" y=\"{y}\"{anchor}>"));
        for (role, text) in parts {
            self.body.push_str(&format!("<tspan class=\"{}\">{}</tspan>", class(*role), xml(text)));
        }
        self.body.push_str("</text>\n");
    }

    fn time(&mut self, at: Duration, y: u32) {
        let text = words::seconds(at).trim_start().to_owned();
        self.text((LIVES[0] - GAP, y), Anchor::End, &[(Role::Dim, text)]);
    }

    /// Text across both legs; the lifeline in the middle is hidden behind it.
    fn wide(&mut self, y: u32, role: Role, text: &str) {
        let (x, width) = (LIVES[0] + 1, 2 * LEG - 2);
        self.body.push_str(&format!(
            "<rect class=\"paper\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"22\"/>\n",
            y - 15
        ));
        let text = self.style.cut(text, columns(width - 2 * GAP));
        self.text((LIVES[0] + GAP, y), Anchor::Start, &[(role, text)]);
    }

    /// The line of an arrow and what it ends in.
    fn shaft(&mut self, arrow: &Arrow, y: u32) {
        let (from, to) = ends(arrow);
        let rightwards = arrow.is_rightwards();
        let back = |by: u32| if rightwards { to - by } else { to + by };
        let class = class(words::role(arrow));
        let (end, mark) = match arrow.fate {
            Fate::Passed => (back(8), format!("M{to} {y}L{b} {}L{b} {}z", y - 5, y + 5, b = back(10))),
            Fate::Dropped => {
                let (a, b, c, d) = (to - 5, to + 5, y - 5, y + 5);
                (to, format!("M{a} {c}L{b} {d}M{a} {d}L{b} {c}"))
            }
            Fate::Held => (back(2), format!("M{to} {}L{to} {}", y - 5, y + 5)),
        };
        let held = if arrow.fate == Fate::Held { " held" } else { "" };
        let injected = if arrow.is_injected() { " injected" } else { "" };
        self.body.push_str(&format!(
            "<line class=\"{class}{held}{injected}\" x1=\"{from}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\"/>\n\
             <path class=\"{class}\" d=\"{mark}\"/>\n"
        ));
    }
}

impl Canvas for Pen {
    fn heading(&mut self, ladder: &Ladder) {
        let title = self.style.cut(&ladder.title(), columns(WIDTH - 20));
        self.text((10, self.y + 14), Anchor::Start, &[(Role::Title, title)]);
        self.y += 28;
        let places = LIVES.into_iter().zip([Anchor::Start, Anchor::Middle, Anchor::End]);
        for ((x, anchor), who) in places.zip(["client", "halfopen", "server"]) {
            self.text((x, self.y + 12), anchor, &[(Role::Title, who.to_owned())]);
        }
        self.y += 18;
    }

    fn arrow(&mut self, arrow: &Arrow) {
        let y = self.row(30);
        self.time(arrow.at, y + 24);
        self.shaft(arrow, y + 20);
        let (from, to) = ends(arrow);
        let label = words::label(&self.style, arrow, columns(from.abs_diff(to) - 3 * GAP));
        self.text((from.midpoint(to), y + 13), Anchor::Middle, &[(words::role(arrow), label)]);
        let mut room = columns(LEG - 2 * GAP);
        let mut parts = Vec::new();
        for (role, text) in words::beside(&self.style, arrow, true) {
            let text = if parts.is_empty() { text } else { format!("; {text}") };
            let text = self.style.cut(&text, room);
            room = room.saturating_sub(unicode_width::UnicodeWidthStr::width(&*text));
            parts.push((role, text));
        }
        match arrow.leg {
            _ if parts.is_empty() => {}
            Leg::Client => self.text((LIVES[1] + GAP, y + 24), Anchor::Start, &parts),
            Leg::Server => self.text((LIVES[1] - GAP, y + 24), Anchor::End, &parts),
        }
    }

    fn states(&mut self, states: &States) {
        if *states == States::default() {
            return;
        }
        let y = self.row(18) + 13;
        let ([client, server], [ours_client, ours_server]) = (states.peers, states.ours);
        for (x, anchor, state) in [
            (LIVES[0] + GAP, Anchor::Start, client),
            (LIVES[1] - GAP, Anchor::End, ours_client),
            (LIVES[1] + GAP, Anchor::Start, ours_server),
            (LIVES[2] - GAP, Anchor::End, server),
        ] {
            if let Some(name) = state.map(State::name) {
                self.text((x, y), anchor, &[(Role::State, name.to_owned())]);
            }
        }
    }

    fn note(&mut self, at: Duration, leg: Option<Leg>, role: Role, text: &str) {
        let y = self.row(22) + 15;
        self.time(at, y);
        let room = columns(LEG - 2 * GAP);
        match leg {
            Some(leg) if self.style.cut(text, room) == text => {
                let x = LIVES[leg as usize] + GAP;
                self.text((x, y), Anchor::Start, &[(role, text.to_owned())]);
            }
            _ => self.wide(y, role, text),
        }
    }

    fn fold(&mut self, fold: &Fold) {
        let y = self.row(26);
        let text = words::fold(&self.style, fold);
        self.wide(y + 17, Role::Dim, &text);
        let (x1, x2) = (LIVES[0], LIVES[2]);
        for y in [y + 3, y + 23] {
            self.body
                .push_str(&format!("<line class=\"fold\" x1=\"{x1}\" y1=\"{y}\" x2=\"{x2}\" y2=\"{y}\"/>\n"));
        }
    }

    fn remark(&mut self, text: &str) {
        let y = self.y + 14;
        self.text((LIVES[0], y), Anchor::Start, &[(Role::Dim, text.to_owned())]);
        self.y += 20;
    }
}

/// Where an arrow starts and ends. What halfopen itself does not let out ends before it reaches the peer.
fn ends(arrow: &Arrow) -> (u32, u32) {
    let (left, right) = match arrow.leg {
        Leg::Client => (LIVES[0], LIVES[1]),
        Leg::Server => (LIVES[1], LIVES[2]),
    };
    let short = if arrow.fate != Fate::Passed && arrow.way == Way::Out { SHORT_OF } else { 0 };
    if arrow.is_rightwards() { (left, right - short) } else { (right, left + short) }
}

fn columns(pixels: u32) -> usize {
    (f64::from(pixels) / COLUMN) as usize
}

const fn class(role: Role) -> &'static str {
    match role {
        Role::Plain | Role::Explain => "plain",
        Role::Title => "title",
        Role::Dim => "dim",
        Role::State => "state",
        Role::Fault => "fault",
        Role::Again => "again",
    }
}
