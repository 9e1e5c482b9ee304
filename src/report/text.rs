//! Lines of text whose parts have roles. The host part may colour the roles; without colour the text says the same.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthStr as _;

use crate::time::Duration;

/// What a part of a line is; only ever used for colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Nothing special.
    #[default]
    Plain,
    /// A heading.
    Title,
    /// Time, lifelines, side notes.
    Dim,
    /// A state of RFC 9293.
    State,
    /// What a fault did.
    Fault,
    /// Something sent again.
    Again,
    /// An explanation.
    Explain,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its role.
    pub role: Role,
    /// Its text, without line breaks.
    pub text: String,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line(pub Vec<Span>);

/// Lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text(pub Vec<Line>);

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal. Default 100, for when it is unknown; below [`Style::NARROWEST`] counts as that.
    pub width: usize,
    /// Only ASCII characters of our own; names are printed as they are.
    pub ascii: bool,
    /// With a sentence of explanation after each step.
    pub explain: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 100, ascii: false, explain: false }
    }
}

impl Style {
    /// With fewer columns the states of the two ends of a leg would run into each other.
    pub const NARROWEST: usize = 68;

    /// The columns that are drawn on.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.width.max(Self::NARROWEST)
    }

    /// The character, or its stand-in.
    pub(super) const fn glyph(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    /// Our own words in the character set of the style.
    pub(crate) fn words(&self, text: &str) -> String {
        if !self.ascii {
            return text.to_owned();
        }
        text.replace('…', "...").replace('→', "->").replace('×', "x").replace('≥', ">=").replace('µ', "u")
    }

    /// `text` cut to `columns` columns, with an ellipsis where it was cut.
    #[must_use]
    pub fn cut(&self, text: &str, columns: usize) -> String {
        if text.width() <= columns {
            return text.to_owned();
        }
        let ellipsis = self.glyph("…", "~");
        let mut out = String::new();
        let room = columns.saturating_sub(1);
        for c in text.chars() {
            out.push(c);
            // Not the sum of the characters: some are wider together.
            if out.width() > room {
                out.pop();
                break;
            }
        }
        if columns > 0 {
            out.push_str(ellipsis);
        }
        out
    }
}

impl Line {
    /// A line of one part.
    pub fn of(role: Role, text: impl Into<String>) -> Self {
        Self(vec![Span { role, text: text.into() }])
    }

    /// Adds a part.
    pub fn push(&mut self, role: Role, text: impl Into<String>) {
        let text = text.into();
        match self.0.last_mut() {
            Some(last) if last.role == role => last.text.push_str(&text),
            _ if text.is_empty() => {}
            _ => self.0.push(Span { role, text }),
        }
    }

    /// Columns that the line takes.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.iter().map(|span| span.text.width()).sum()
    }

    /// Fills up with spaces to `columns`.
    pub fn pad_to(&mut self, columns: usize) {
        let missing = columns.saturating_sub(self.width());
        self.push(Role::Plain, " ".repeat(missing));
    }
}

impl Text {
    /// Adds a paragraph in lines of the style's width.
    pub fn paragraph(&mut self, style: &Style, role: Role, text: &str) {
        self.0.extend(wrap(text, style.columns()).into_iter().map(|line| Line::of(role, style.words(&line))));
    }
}

impl fmt::Display for Line {
    /// Without colour and without trailing spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.0.iter().map(|span| span.text.as_str()).collect();
        f.write_str(text.trim_end())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// `text` in lines of at most `columns` columns, broken at spaces; a longer word has a line of its own.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.width() + 1 + word.width() <= columns {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// `12345` as `12,345`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Bytes in the unit in which they are easiest to read, e.g. `12.0 MiB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 10 * 1024 {
        return format!("{} {}", grouped(number), if number == 1 { "byte" } else { "bytes" });
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Three significant digits and the unit: `210 µs`, `12.3 ms`, `1.02 s`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let micros = time.as_micros() as f64;
    let (value, unit) = match micros {
        m if m < 999.5 => (m, "µs"),
        m if m < 999_500.0 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    match value {
        v if unit == "µs" || v >= 99.95 => format!("{v:.0} {unit}"),
        v if v >= 9.995 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

/// A text as XML 1.0 has it: marks escaped, white space as blanks, and U+FFFD for what it cannot hold.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_counts_columns_and_not_characters() {
        let style = Style::default();
        assert_eq!(style.cut("fin-drop", 8), "fin-drop");
        assert_eq!(style.cut("fin-drop", 6), "fin-d…");
        assert_eq!(style.cut("規則規則", 8), "規則規則");
        assert_eq!(style.cut("規則規則", 6), "規則…");
        assert_eq!(style.cut("規則規則", 0), "");
        // A text symbol that a selector makes a picture of two columns.
        assert_eq!(style.cut("☺\u{fe0f}☺\u{fe0f}☺\u{fe0f}", 4).width(), 4);
    }

    #[test]
    fn numbers_read_easily() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1204), grouped(1_234_567)],
            ["0", "999", "1,204", "1,234,567"]
        );
        let sizes = [0, 1, 4500, 12 << 20, 5 << 30].map(bytes);
        assert_eq!(sizes, ["0 bytes", "1 byte", "4,500 bytes", "12.0 MiB", "5.0 GiB"]);
    }

    #[test]
    fn durations_have_three_digits_and_the_unit_that_suits_them() {
        let micros = [1, 210, 999, 1000, 12_340, 100_400, 999_400, 1_020_000, 134_800_000];
        let texts = micros.map(|m| duration(Duration::from_micros(m)));
        let expected =
            ["1 µs", "210 µs", "999 µs", "1.00 ms", "12.3 ms", "100 ms", "999 ms", "1.02 s", "135 s"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn wrapping_never_breaks_a_word() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible word", 5), ["incomprehensible", "word"]);
    }

    #[test]
    fn no_text_is_markup() {
        assert_eq!(xml("<mss 1460> & \"x\""), "&lt;mss 1460&gt; &amp; &quot;x&quot;");
        assert_eq!(xml("a\u{0}\u{1b}[31m\n規則"), "a\u{fffd}\u{fffd}[31m 規則");
    }
}
