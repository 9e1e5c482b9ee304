//! A report as a page of HTML: one file without script and without anything from elsewhere, for a browser, a phone, paper.
//!
//! A [`Page`] is put together from parts; [`run`], [`log`], [`comparison`] and [`matrix()`] are whole ones. Whatever comes from outside (names of
//! rules, addresses, the config) becomes markup in `table` and by `xml` only.

mod chart;
mod matrix;
mod pages;
mod style;
mod table;

pub use matrix::{Part, matrix};
pub use pages::{comparison, log, run};

use super::ladder::{self, Ladder, Worst};
use super::percentiles::quantile;
use super::summary::loss_line;
use super::text::{Style, duration, grouped, xml};
use crate::measure::{By, Group, Kind, Latencies, Latency, PERCENTILES, SynLoss};
use chart::{Curve, figure};
use table::{Cell, table};

/// Something that is known of a run: a key of the config, a time, a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where it was said; may be empty.
    pub from: String,
}

impl Fact {
    /// A fact that nobody has said.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), from: String::new() }
    }
}

/// How a number or a remark is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it is.
    Plain,
    /// It went well.
    Good,
    /// It is worth a look.
    Look,
    /// It went wrong.
    Bad,
}

impl Mark {
    const fn class(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "good",
            Self::Look => "again",
            Self::Bad => "fault",
        }
    }
}

/// A page that is being put together.
#[derive(Debug)]
pub struct Page {
    title: String,
    lead: String,
    body: String,
}

impl Page {
    /// An empty page; `lead` stands below the title.
    #[must_use]
    pub fn new(title: &str, lead: &str) -> Self {
        Self { title: xml(title), lead: xml(lead), body: String::new() }
    }

    /// A heading; `anchor` is where links lead, of letters, digits and `-`.
    pub fn heading(&mut self, text: &str, anchor: &str) {
        self.body.push_str(&format!("<h2 id=\"{}\">{}</h2>\n", xml(anchor), xml(text)));
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.body.push_str(&format!("<p>{}</p>\n", xml(text)));
    }

    /// The numbers that matter most, with what they count.
    pub fn tiles<'t>(&mut self, tiles: impl IntoIterator<Item = (String, &'t str, Mark)>) {
        self.body.push_str("<ul class=\"tiles\">");
        for (number, what, mark) in tiles {
            let (number, what) = (xml(&number), xml(what));
            self.body
                .push_str(&format!("<li class=\"{}\"><b>{number}</b><span>{what}</span></li>", mark.class()));
        }
        self.body.push_str("</ul>\n");
    }

    /// Remarks, one below the other; nothing without any.
    pub fn notes(&mut self, notes: impl IntoIterator<Item = (Mark, String)>) {
        let notes: String = notes
            .into_iter()
            .map(|(mark, text)| format!("<li class=\"{}\">{}</li>\n", mark.class(), xml(&text)))
            .collect();
        if !notes.is_empty() {
            self.body.push_str(&format!("<ul class=\"notes\">\n{notes}</ul>\n"));
        }
    }

    /// Where SYNs seem to be lost.
    pub fn syn_loss(&mut self, found: &[SynLoss]) {
        let lines = found.iter().map(|loss| loss_line(loss, &Style::default()).to_string());
        self.notes(lines.map(|line| (Mark::Look, line)));
    }

    /// A curve for each latency that has values, beside that of the run `before`, if there is one. `connect` is drawn with
    /// and without what faults have added.
    pub fn curves(&mut self, latencies: &Latencies, before: Option<&Latencies>) {
        let has_faults = latencies.get(Kind::AddedByFault).count() > 0;
        let mut figures = String::new();
        for (kind, latency) in latencies.iter() {
            let mut curves = vec![Curve { name: kind.name(), latency }];
            match (kind, before) {
                (_, Some(before)) => {
                    curves = vec![
                        Curve { name: "first", latency: before.get(kind) },
                        Curve { name: "second", latency },
                    ];
                }
                (Kind::Connect, None) if has_faults => {
                    let latency = latencies.get(Kind::ConnectWithoutFault);
                    curves.push(Curve { name: Kind::ConnectWithoutFault.name(), latency });
                }
                // Without faults it is the same curve again; with them it is in that of `connect`.
                (Kind::ConnectWithoutFault, None) => continue,
                _ => {}
            }
            let is_connect = matches!(kind, Kind::Connect | Kind::ConnectWithoutFault | Kind::ServerConnect);
            figures.push_str(&figure(kind.name(), &curves, is_connect));
        }
        self.figures(&figures);
    }

    fn figures(&mut self, figures: &str) {
        if !figures.is_empty() {
            self.body.push_str(&format!("<div class=\"figures\">\n{figures}</div>\n"));
        }
    }

    /// A table of percentiles; nothing without rows.
    pub fn percentiles<'l>(
        &mut self,
        caption: &str,
        first: &str,
        rows: impl IntoIterator<Item = (&'l str, &'l Latency)>,
    ) {
        let rows: Vec<_> = rows.into_iter().filter(|(_, latency)| latency.count() > 0).collect();
        if rows.is_empty() {
            return;
        }
        let names: Vec<String> = PERCENTILES.iter().map(|(name, _)| format!("#{name}")).collect();
        let mut columns = vec![first, "#count"];
        columns.extend(names.iter().map(String::as_str).chain(["#max", "#unfinished"]));
        let rows = rows.into_iter().map(|(name, latency)| {
            let mut row = vec![Cell::code(name), Cell::number(grouped(latency.count()))];
            let bounds = PERCENTILES.iter().map(|(_, percent)| latency.percentile(*percent));
            row.extend(bounds.chain([latency.max()]).map(|bound| {
                let cell = Cell::number(bound.map_or_else(String::new, quantile));
                if bound.is_some_and(|bound| bound.at_least) { cell.marked("fault") } else { cell }
            }));
            row.push(match latency.unfinished_count() {
                0 => Cell::number(""),
                count => Cell::number(grouped(count)).marked("fault"),
            });
            row
        });
        self.body.push_str(&table(caption, &columns, rows));
    }

    /// The latencies of flows that have something in common, a table for each that is worth one.
    pub fn groups(&mut self, groups: &[&Group]) {
        for (kind, by) in [
            (Kind::Connect, By::Retransmits),
            (Kind::Connect, By::Rule),
            (Kind::Connect, By::Target),
            (Kind::ServerConnect, By::Target),
        ] {
            let of = groups.iter().filter(|group| (group.kind, group.by) == (kind, by));
            let rows: Vec<_> = of.map(|group| (&*group.name, &group.values)).collect();
            // A group that is all there is says nothing new.
            if rows.len() > 1 {
                let caption = format!("{} by {}", kind.name(), by.name());
                self.percentiles(&caption, by.name(), rows);
            }
        }
    }

    /// The ladders of the worst flows, and how many are left out.
    pub fn ladders(&mut self, worst: &Worst) {
        let (slowest, ok) = worst.slowest();
        if slowest.is_empty() && worst.failed().is_empty() && worst.unfollowed() == 0 {
            return;
        }
        self.heading("Flows", "flows");
        for failed in worst.failed() {
            let name = failed.outcome.name();
            let shown = failed.ladders.len() as u64;
            let first = if shown < failed.count { format!(" the first {shown} of") } else { String::new() };
            self.body.push_str(&format!("<h3>{name}:{first} {}</h3>\n", flows(failed.count)));
            for (index, ladder) in failed.ladders.iter().enumerate() {
                self.ladder(ladder, &ladder.title(), index == 0);
            }
        }
        if !slowest.is_empty() {
            let shown = slowest.len() as u64;
            let few = if shown < ok { format!(" the slowest {shown} of") } else { String::new() };
            self.body.push_str(&format!("<h3>ok:{few} {}</h3>\n", flows(ok)));
        }
        for (index, slow) in slowest.iter().enumerate() {
            let title = format!("{}; waited {}", slow.ladder.title(), duration(slow.waited));
            self.ladder(&slow.ladder, &title, index == 0);
        }
        if worst.unfollowed() > 0 {
            let text = format!(
                "{} could not be followed, because too many were open at once (limits.ladders)",
                flows(worst.unfollowed())
            );
            self.notes([(Mark::Look, text)]);
        }
    }

    fn ladder(&mut self, ladder: &Ladder, title: &str, open: bool) {
        let (title, picture) = (xml(title), ladder::part(ladder));
        let open = if open { " open=\"open\"" } else { "" };
        self.body.push_str(&format!(
            "<details{open}><summary>{title}</summary>\n<div class=\"scroll\" role=\"region\" aria-label=\"{title}\" tabindex=\"0\">{picture}</div></details>\n"
        ));
    }

    /// What is known of a run; nothing without any.
    pub fn facts(&mut self, facts: &[Fact]) {
        if facts.is_empty() {
            return;
        }
        let says_where = facts.iter().any(|fact| !fact.from.is_empty());
        let columns: &[&str] = if says_where { &["key", "value", "from"] } else { &["key", "value"] };
        let rows = facts.iter().map(|Fact { name, value, from }| {
            [Cell::code(name), Cell::code(value), Cell::text(from)].into_iter().take(columns.len()).collect()
        });
        self.body.push_str(&table("this run", columns, rows));
    }

    /// The page as the text of a file.
    #[must_use]
    pub fn finish(self, version: &str) -> String {
        let Self { title, lead, body } = self;
        let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"referrer\" content=\"no-referrer\"/>\n\
             <title>{title}</title>\n<style>{}</style>\n</head>\n<body>\n\
             <header><h1>{title}</h1><p class=\"lead\">{lead}</p></header>\n<main>\n{body}</main>\n\
             <footer><p>halfopen {}. Percentiles are of all values, also of steps that never finished: from the first of \
             these on they are lower bounds (≥).</p></footer>\n</body>\n</html>\n",
            style::sheet(),
            xml(version)
        )
    }
}

fn flows(count: u64) -> String {
    format!("{} {}", grouped(count), if count == 1 { "flow" } else { "flows" })
}
