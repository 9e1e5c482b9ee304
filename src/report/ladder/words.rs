//! What the drawings of a ladder have in common: the order of what is drawn, and the words.

use unicode_width::UnicodeWidthStr as _;

use super::Ladder;
use super::rows::{Arrow, Fate, Fold, Item, States};
use super::track::{Again, Meaning};
use crate::report::text::{Role, Style, bytes, grouped};
use crate::time::Duration;
use crate::trace::{Did, Leg, Resend};
use crate::wire::Flags;

/// What a ladder is drawn on, from top to bottom.
pub(super) trait Canvas {
    fn heading(&mut self, ladder: &Ladder);
    fn arrow(&mut self, arrow: &Arrow);
    fn states(&mut self, states: &States);
    /// At a leg, or across both.
    fn note(&mut self, at: Duration, leg: Option<Leg>, role: Role, text: &str);
    fn fold(&mut self, fold: &Fold);
    /// Something about the drawing and not about the flow.
    fn remark(&mut self, text: &str);
}

pub(super) fn walk(ladder: &Ladder, canvas: &mut impl Canvas) {
    canvas.heading(ladder);
    for item in ladder.rows.items() {
        match item {
            Item::Arrow(arrow) => canvas.arrow(arrow),
            Item::States(states) => canvas.states(states),
            Item::Note { at, leg, role, text } => canvas.note(*at, *leg, *role, text),
            Item::Fold(fold) => canvas.fold(fold),
        }
    }
    canvas.states(&ladder.last_states());
    if let Some(end) = &ladder.end {
        canvas.note(end.at, None, Role::Dim, &end.text);
        if end.open {
            canvas.states(&States { peers: ladder.peers.map(Some), ours: ladder.ours.map(Some) });
        }
    }
    if ladder.rows.omitted() > 0 {
        canvas.remark(&format!("… {} more rows", grouped(ladder.rows.omitted())));
    }
}

/// Number, addresses and rules of a flow, if its beginning was seen.
pub(super) fn title(style: &Style, ladder: &Ladder) -> Option<String> {
    let (client, server, rules) = ladder.opened.as_ref()?;
    let mut title = format!("flow {}: {client} {} {server}", ladder.flow, style.words("→"));
    if !rules.is_empty() {
        title.push_str(&format!(", rules: {}", rules.join(", ")));
    }
    Some(title)
}

pub(super) fn fold(style: &Style, fold: &Fold) -> String {
    let mut text = format!("… {} segments", grouped(fold.segments));
    for (moved, direction) in [(fold.upstream, "upstream"), (fold.downstream, "downstream")] {
        if moved > 0 {
            text.push_str(&format!(", {} {direction}", bytes(moved)));
        }
    }
    style.words(&format!("{text} …"))
}

/// The role of an arrow.
pub(super) fn role(arrow: &Arrow) -> Role {
    match arrow.fate {
        Fate::Passed if arrow.again.is_some() => Role::Again,
        Fate::Passed if arrow.is_injected() => Role::Fault,
        Fate::Passed => Role::Plain,
        Fate::Dropped | Fate::Held => Role::Fault,
    }
}

/// The longest form of the segment that fits.
pub(super) fn label(style: &Style, Arrow { seg, meaning, .. }: &Arrow, columns: usize) -> String {
    let times = style.glyph("×", "x");
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
    fits.unwrap_or_else(|| style.cut(&short, columns))
}

/// What stands beside an arrow: what faults did to it, and whether it is a repetition.
pub(super) fn beside(style: &Style, arrow: &Arrow, long: bool) -> Vec<(Role, String)> {
    let mut parts = Vec::new();
    let mut say = |role, text: String| parts.push((role, style.words(&text)));
    for mark in &arrow.marks {
        let rule = &mark.rule;
        say(
            Role::Fault,
            match mark.did {
                _ if long => format!("{rule} {}", mark.did),
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

/// `   1.234567`, right-aligned in the time column.
pub(super) fn seconds(at: Duration) -> String {
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
