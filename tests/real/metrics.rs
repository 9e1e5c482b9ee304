//! Prometheus's own client library reads our metrics, in both texts.

use std::io::Write as _;
use std::net::Shutdown;
use std::process::{Command, Stdio};

use halfopen::setup::netlink::Family;

use super::lab::process::program;
use super::lab::{Lab, Way};
use super::succeeded;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/metrics.py");

/// One connection, whose first SYN is lost.
pub(crate) fn prometheus_reads_the_metrics() {
    let lab = Lab::with(Way::Proxied, &["--grace", "0", "--fault", "syn-drop first=1"]);
    let (client, _server) = lab.pair(Family::V4);
    client.shutdown(Shutdown::Write).expect("a live socket");
    for (text, accept) in [("prometheus", "text/plain"), ("openmetrics", "application/openmetrics-text")] {
        let mut curl = program(&lab.gateway, "curl");
        curl.args(["-sS", "--fail", "-H", &format!("Accept: {accept}"), "http://127.0.0.1:8474/metrics"]);
        let told = succeeded("curl", &curl.output().expect("curl is needed"));
        let read = parsed(text, &told);
        for sample in [
            "halfopen_flows_opened_total{} 1 counter",
            "halfopen_flows_open{} 1 gauge",
            "halfopen_rule_fired_total{fault=syn-drop,rule=syn-drop} 1 counter",
            "halfopen_connect_seconds_bucket{le=0.9} 0 histogram",
            "halfopen_connect_seconds_bucket{le=+Inf} 1 histogram",
        ] {
            assert!(read.lines().any(|line| line == sample), "{text}: {sample}\n{read}");
        }
    }
    let mut curl = program(&lab.gateway, "curl");
    curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8474/readyz"]);
    assert_eq!(succeeded("curl", &curl.output().expect("curl is needed")), "200");
}

/// What the strict parser understands: a line for each sample.
fn parsed(text: &str, told: &str) -> String {
    // Debian's: another one in the PATH does not have Debian's packages.
    let mut python = Command::new("/usr/bin/python3");
    let python =
        python.args([SCRIPT, text]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut python = python.spawn().expect("python3 is needed");
    python.stdin.take().expect("it is piped").write_all(told.as_bytes()).expect("it reads");
    succeeded("python3 with prometheus_client", &python.wait_with_output().expect("it ends"))
}
