//! Puts a report on the terminal: its width, its character set, and colours for the roles of the text.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style as Ansi};

use crate::report::{Role, Style, Text};

/// How to draw for this stream. An unknown width counts as 100 columns. ASCII is only for a terminal whose locale is not
/// UTF-8: files and pipes get UTF-8.
pub(super) fn style(stream: &impl IsTerminal) -> Style {
    let terminal = stream.is_terminal();
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let size = || terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| width.0.into());
    let width = columns.or_else(size).unwrap_or_else(|| Style::default().width);
    Style { width, ascii: terminal && !is_utf8(|name| std::env::var(name).ok()), explain: false }
}

/// Writes the text, coloured if the stream takes colours (`NO_COLOR` and `CLICOLOR_FORCE` are respected).
pub(super) fn write(stream: &mut impl Write, text: &Text) -> io::Result<()> {
    for line in &text.0 {
        let end = line.to_string().chars().count();
        let mut written = 0;
        for span in &line.0 {
            // Trailing spaces would only show up when the text is copied.
            let shown: String = span.text.chars().take(end - written).collect();
            written += shown.chars().count();
            let ansi = colour(span.role);
            write!(stream, "{ansi}{shown}{ansi:#}")?;
        }
        writeln!(stream)?;
    }
    Ok(())
}

const fn colour(role: Role) -> Ansi {
    match role {
        Role::Plain => Ansi::new(),
        Role::Title => Ansi::new().bold(),
        Role::Dim => Ansi::new().dimmed(),
        Role::State => AnsiColor::Cyan.on_default(),
        Role::Fault => AnsiColor::Red.on_default().bold(),
        Role::Again => AnsiColor::Yellow.on_default(),
        Role::Explain => AnsiColor::Green.on_default(),
    }
}

/// The first of the three variables that is set decides, as in setlocale(3).
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Line;

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        let utf8 = |all: &'static str, lang: &'static str| {
            is_utf8(move |name| match name {
                "LC_ALL" => Some(all.to_owned()),
                "LANG" => Some(lang.to_owned()),
                _ => None,
            })
        };
        assert!(utf8("", "C.UTF-8") && utf8("de_DE.utf8", "C"));
        assert!(!utf8("", "") && !utf8("C", "C.UTF-8") && !utf8("", "de_DE.ISO-8859-1"));
    }

    #[test]
    fn colours_wrap_the_parts_and_trailing_spaces_go() {
        let mut line = Line::of(Role::Dim, "0.1 ");
        line.push(Role::Fault, "fin-drop");
        line.pad_to(40);
        let mut out = Vec::new();
        write(&mut out, &Text(vec![line])).unwrap();
        let plain = anstream::adapter::strip_bytes(&out).into_vec();
        assert_eq!(String::from_utf8(plain).unwrap(), "0.1 fin-drop\n");
        assert!(String::from_utf8(out).unwrap().contains("\u{1b}[31mfin-drop"));
    }
}
