//! Chromium shows our reports: nothing is complained of, nothing is asked for, and the curves are there.

use std::net::Shutdown;
use std::path::Path;
use std::process::Command;

use halfopen::setup::netlink::Family;
use nix::sys::signal::Signal;

use super::lab::process::program;
use super::lab::{Lab, Way};
use super::succeeded;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/colours.py");
/// Connections, some of whose SYN-ACKs are late.
const FLOWS: usize = 12;
/// Of the first and the second curve, on white and on a dark ground.
const CURVES: [[&str; 2]; 2] = [["0b6bcb", "c2570c"], ["4ea1ff", "ffa657"]];

/// The page of a run with slow handshakes, light and dark.
pub(crate) fn chromium_shows_a_report() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("report.html");
    let path = file.to_str().expect("temporary directories have plain names");
    let fault = "syn-ack-delay delay=300ms match.flows=5..";
    let mut lab = Lab::with(Way::Proxied, &["--grace", "0", "--report", path, "--fault", fault]);
    let listener = lab.listen(Family::V4);
    for _ in 0..FLOWS {
        let (client, server) = lab.pair_by(&listener);
        client.shutdown(Shutdown::Write).expect("a live socket");
        server.shutdown(Shutdown::Write).expect("a live socket");
    }
    let mut halfopen = lab.halfopen.take().expect("it runs until now");
    let status = halfopen.end_by(Signal::SIGTERM);
    assert!(status.success(), "halfopen ended with {status}; it said:\n{}", halfopen.said());

    // The client's host: whatever a browser would like to call is not there.
    let dom = chromium(&lab, directory.path(), &["--dump-dom"], &file);
    let flows = format!("<b>{FLOWS}</b><span>flows</span>");
    for part in [
        &*flows,
        "connect_without_fault: 12 values",
        "syn-ack-delay holds it for 0.300 s",
        "class=\"curve c2\"",
        "intercept.mode",
    ] {
        assert!(dom.contains(part), "{part} is missing:\n{dom}");
    }
    for (scheme, colours) in [("", CURVES[0]), ("--force-dark-mode", CURVES[1])] {
        let picture = directory.path().join("page.png");
        let screenshot = format!("--screenshot={}", picture.display());
        chromium(&lab, directory.path(), &[scheme, "--window-size=1000,1200", &screenshot], &file);
        let mut python = Command::new("python3");
        let seen = python.arg(SCRIPT).arg(&picture).args(colours).output().expect("python3 is needed");
        let seen = succeeded("python3", &seen);
        let pixels: Vec<u32> =
            seen.split_whitespace().map(|count| count.parse().expect("a number")).collect();
        assert!(
            pixels.len() == 2 && pixels.iter().all(|pixels| *pixels > 100),
            "{scheme} {colours:?}: {seen}"
        );
    }
}

/// Opens a page, without anything that a browser does by itself, and tells what it has written. It must not complain.
fn chromium(lab: &Lab, home: &Path, options: &[&str], page: &Path) -> String {
    let profile = tempfile::tempdir_in(home).expect("a temporary directory");
    let mut chromium = program(&lab.client, "chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(options.iter().filter(|option| !option.is_empty()))
        .arg(format!("file://{}", page.display()))
        .env("HOME", profile.path());
    let done = chromium.output().expect("chromium is needed");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    succeeded("chromium", &done)
}
