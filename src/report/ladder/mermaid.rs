//! Ladders as a Mermaid sequence diagram, for pages that draw it from its text.

use super::Ladder;
use super::rows::{Arrow, Fate, Fold, States, Way};
use super::words::{self, Canvas, walk};
use crate::report::text::{Role, Style};
use crate::time::Duration;
use crate::trace::Leg;

/// Columns of a segment's text: with its options an arrow would be wider than the page.
const LABEL: usize = 44;
const BOTH: &str = "over client,server";

/// One diagram of all ladders: Mermaid has one per file. `remark` stands at its end.
pub(super) fn draw<'a>(ladders: impl Iterator<Item = &'a Ladder>, remark: Option<&str>) -> String {
    let mut text = "sequenceDiagram\n".to_owned();
    for who in ["client", "halfopen", "server"] {
        text.push_str(&format!("    participant {who}\n"));
    }
    let mut pen = Pen { style: Style::default(), text };
    ladders.for_each(|ladder| walk(ladder, &mut pen));
    if let Some(remark) = remark {
        pen.remark(remark);
    }
    pen.text
}

struct Pen {
    style: Style,
    text: String,
}

impl Pen {
    fn beside(&mut self, place: &str, text: &str) {
        self.text.push_str(&format!("    Note {place}: {}\n", escaped(text)));
    }
}

impl Canvas for Pen {
    fn heading(&mut self, ladder: &Ladder) {
        let title = words::title(&self.style, ladder);
        self.beside(BOTH, &title.unwrap_or_else(|| format!("flow {}", ladder.flow)));
    }

    fn arrow(&mut self, arrow: &Arrow) {
        let peer = arrow.leg.name();
        let (from, to) = if arrow.way == Way::In { (peer, "halfopen") } else { ("halfopen", peer) };
        let line = match arrow.fate {
            Fate::Passed => "->>",
            Fate::Dropped => "-x",
            Fate::Held => "--)",
        };
        let label = format!("{} {}", seconds(arrow.at), words::label(&self.style, arrow, LABEL));
        self.text.push_str(&format!("    {from}{line}{to}: {}\n", escaped(&label)));
        let beside: Vec<String> =
            words::beside(&self.style, arrow, true).into_iter().map(|(_, text)| text).collect();
        if !beside.is_empty() {
            let place = if arrow.leg == Leg::Client { "right of halfopen" } else { "left of halfopen" };
            self.beside(place, &beside.join("; "));
        }
    }

    fn states(&mut self, states: &States) {
        let ([client, server], [ours_client, ours_server]) = (states.peers, states.ours);
        for (place, state) in [
            ("left of client", client),
            ("left of halfopen", ours_client),
            ("right of halfopen", ours_server),
            ("right of server", server),
        ] {
            if let Some(state) = state {
                self.beside(place, state.name());
            }
        }
    }

    fn note(&mut self, at: Duration, leg: Option<Leg>, _: Role, text: &str) {
        let place = match leg {
            Some(Leg::Client) => "over client,halfopen",
            Some(Leg::Server) => "over halfopen,server",
            None => BOTH,
        };
        self.beside(place, &format!("{} {text}", seconds(at)));
    }

    fn fold(&mut self, fold: &Fold) {
        let text = words::fold(&self.style, fold);
        self.beside(BOTH, &text);
    }

    fn remark(&mut self, text: &str) {
        self.beside(BOTH, text);
    }
}

fn seconds(at: Duration) -> String {
    words::seconds(at).trim_start().to_owned()
}

/// Mermaid reads ';' as the end of a line, '#' as the start of a character's number, '%%{' as an order to itself, and
/// markup as HTML. Only what certainly means nothing to it stays as it is.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || " .,:()+-_/=[]…→×≥µ".contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("#{};", u32::from(c)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_an_order_to_mermaid() {
        assert_eq!(escaped("0.1 S. 0:0(0) ×2 規則"), "0.1 S. 0:0(0) ×2 規則");
        assert_eq!(escaped("a;b#c"), "a#59;b#35;c");
        assert_eq!(escaped("%%{init}%%<b>\n"), "#37;#37;#123;init#125;#37;#37;#60;b#62;#10;");
    }
}
