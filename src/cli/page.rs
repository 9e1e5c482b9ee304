//! What a report in HTML tells of a run besides its summary.

use std::path::Path;
use std::time::UNIX_EPOCH;

use super::report;
use crate::app::Ended;
use crate::config::{Layers, Place};
use crate::report::html::{self, Fact, Part};
use crate::report::{Matrix, Summary, matrix};

/// Our version, as a page tells it.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The page of a run of a matrix, in the directory of its output.
pub(super) const REPORT: &str = "report.html";

/// True for a file that is to be a page.
pub(super) fn is_page(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["html", "htm"].iter().any(|html| extension.eq_ignore_ascii_case(html)))
}

/// What was run, and with which config.
#[derive(Clone, Debug)]
pub(super) struct About {
    title: String,
    facts: Vec<Fact>,
}

impl About {
    /// `what` is the command of halfopen and what it was about, such as `exec: curl`. Of a command line the program alone:
    /// its arguments may hold secrets, and a page is passed on.
    pub(super) fn new(what: &str, layers: &Layers) -> Self {
        // Where halfopen stands is told by every page, also if nobody has said it.
        let values = layers.values().into_iter();
        let said = values.filter(|(key, _, place)| *place != Place::Default || key == "intercept.mode");
        let from = |place: Place| if place == Place::Default { String::new() } else { place.to_string() };
        let mut facts: Vec<Fact> =
            said.map(|(key, value, place)| Fact { from: from(place), ..Fact::new(key, value) }).collect();
        let options = layers.presets.iter().map(|text| ("preset", text, "--preset"));
        let options = options.chain(layers.rules.iter().map(|text| ("rule", text, "--fault")));
        facts.extend(
            options.map(|(name, text, from)| Fact { from: from.to_owned(), ..Fact::new(name, text) }),
        );
        Self { title: format!("halfopen {what}"), facts }
    }

    /// The page of a run.
    pub(super) fn page(&self, ended: &Ended, summary: &Summary<'_>) -> String {
        let started = UNIX_EPOCH + std::time::Duration::from_nanos(ended.epoch);
        let mut facts = vec![Fact::new("started", humantime::format_rfc3339_seconds(started).to_string())];
        facts.extend_from_slice(&self.facts);
        html::run(&self.title, &facts, summary, &ended.report.worst, VERSION)
    }

    /// The page of a matrix that is written to `at`; the output of its runs is in `output`.
    pub(super) fn matrix(&self, matrix: &Matrix, output: &Path, at: &Path) -> String {
        let beside = at.canonicalize().ok().and_then(|at| Some(at.parent()?.to_owned())).unwrap_or_default();
        let part = |run: &matrix::Run| {
            let Some(directory) = run.directory.as_ref().map(|directory| output.join(directory)) else {
                return Part::default();
            };
            let page = directory.join(REPORT);
            // A run that had to be killed has told nothing.
            let is_told = page.metadata().is_ok_and(|file| file.len() > 0);
            let link = || link(page.strip_prefix(&beside).unwrap_or(&page));
            Part {
                latencies: report::read(&[directory.join("latencies.hlog")]).unwrap_or_default(),
                report: is_told.then(link),
            }
        };
        let parts: Vec<Part> = matrix.runs.iter().map(part).collect();
        html::matrix(&self.title, &self.facts, matrix, &part(&matrix.clean), &parts, VERSION)
    }
}

/// A path as a link has it.
fn link(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_told_by_its_ending() {
        for (path, expected) in
            [("a.html", true), ("b/c.HTM", true), ("a.json", false), ("html", false), ("a.html.json", false)]
        {
            assert_eq!(is_page(path.as_ref()), expected, "{path}");
        }
    }

    #[test]
    fn a_link_has_no_marks_of_its_own() {
        assert_eq!(link("a b/%41#1?x:ü/report.html".as_ref()), "a%20b/%2541%231%3Fx%3A%C3%BC/report.html");
    }
}
