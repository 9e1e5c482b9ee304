//! A run as metrics, in the text of OpenMetrics 1.0 or in that of Prometheus (version 0.0.4).
//!
//! All names begin with `halfopen_`, those about the process with `process_`. Labels are bounded: rules and limits by the config,
//! targets by [`crate::measure::MOST_GROUPS`]; a client's address or port is in none. The buckets of the histograms stand around
//! the steps of SYN retransmission, so that a handshake of 1.0 s shares its bucket with none of 0.6 s.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::process::Process;
use crate::measure::{Latency, Measure, NameCount, RuleCount};

/// Upper bounds of the buckets, in seconds.
pub const BUCKETS: [f64; 25] = [
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    0.9,
    1.1,
    1.9,
    2.2,
    2.9,
    3.3,
    4.5,
    5.5,
    7.5,
    12.0,
    20.0,
    37.0,
    72.0,
    140.0,
    f64::INFINITY,
];

/// A run at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Totals and latencies: [`Measure::so_far`].
    pub measure: Measure,
    /// Payload bytes that wait in all flows.
    pub waiting_bytes: usize,
    /// Packets from the device and to it; a super-segment is one.
    pub packets: Packets,
}

/// Packets that passed the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Read from it.
    pub received: u64,
    /// Written to it.
    pub sent: u64,
}

/// The text of OpenMetrics, with its end mark.
#[must_use]
pub fn open_metrics(snapshot: Snapshot) -> String {
    let mut registry = Registry::with_prefix("halfopen");
    registry.register_collector(Box::new(snapshot));
    let mut of_process = Registry::with_prefix("process");
    of_process.register_collector(Box::new(Process::now()));
    let mut out = String::new();
    text::encode_registry(&mut out, &registry)
        .and_then(|()| text::encode_registry(&mut out, &of_process))
        .and_then(|()| text::encode_eof(&mut out))
        .expect("a String takes all text");
    out
}

/// The same in the older text of Prometheus: there a counter is declared by its whole name, an info is a gauge, and there are
/// neither units nor an end mark.
#[must_use]
pub fn prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(declared) = line.strip_prefix("# HELP ") {
            help = declared.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let (name, kind) = match kind {
                "counter" => (format!("{name}_total"), kind),
                "info" => (format!("{name}_info"), "gauge"),
                _ => (name.to_owned(), kind),
            };
            if let Some((_, text)) = help.take() {
                out += &format!("# HELP {name} {text}\n");
            }
            out += &format!("# TYPE {name} {kind}\n");
        } else if !line.starts_with('#') {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// Label names and values of one time series.
type Labels = Vec<(&'static str, String)>;

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let info = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        out.0.encode_descriptor("build", "The program", None, MetricType::Info)?.encode_info(&info)?;
        self.flows(&mut out)?;
        self.names(&mut out)?;
        self.latencies(&mut out)
    }
}

impl Snapshot {
    fn flows(&self, out: &mut Families<'_>) -> fmt::Result {
        let c = self.measure.counters();
        out.counter("flows_opened", "Flows that have been opened", c.flows)?;
        out.gauge("flows_open", "Flows that are open", c.open)?;
        out.gauge("flows_opening", "Open flows whose client has not completed its handshake", c.opening)?;
        let outcomes = c.outcomes.all().map(|(name, count)| (vec![("outcome", name.to_owned())], count));
        out.counters("flows_closed", "Flows that have ended, by how", None, outcomes)?;
        let owners = c.time_wait.all().map(|(leg, owner, count)| {
            (vec![("leg", leg.name().to_owned()), ("owner", owner.to_owned())], count)
        });
        let help = "Legs that were closed in order, by who closed first and keeps them in TIME-WAIT";
        out.counters("time_wait", help, None, owners)?;
        let bytes = [("upstream", c.upstream_bytes), ("downstream", c.downstream_bytes)];
        let bytes = bytes.map(|(way, count)| (vec![("direction", way.to_owned())], count));
        let help = "Payload bytes delivered by the flows that have ended";
        out.counters("delivered", help, Some(&Unit::Bytes), bytes)?;
        out.gauge("waiting_bytes", "Payload bytes that wait in all flows", self.waiting_bytes as u64)?;
        let packets = [("received", self.packets.received), ("sent", self.packets.sent)];
        let packets = packets.map(|(way, count)| (vec![("way", way.to_owned())], count));
        out.counters("packets", "Packets read from the device and written to it", None, packets)?;
        out.counter("retransmissions", "Retransmissions of our own TCP, both legs", c.retransmissions)
    }

    fn names(&self, out: &mut Families<'_>) -> fmt::Result {
        let rule = |rule: &RuleCount| vec![("rule", rule.rule.to_string()), ("fault", rule.fault.to_owned())];
        let matched = self.measure.rules().iter().map(|r| (rule(r), r.matched));
        out.counters("rule_matched", "Flows that a rule has matched", None, matched)?;
        let fired = self.measure.rules().iter().map(|r| (rule(r), r.fired));
        out.counters("rule_fired", "How often the fault of a rule has acted", None, fired)?;
        let named = |label, counts: &[NameCount]| -> Vec<(Labels, u64)> {
            counts.iter().map(|n| (vec![(label, n.name.to_owned())], n.count)).collect()
        };
        out.counters("limit_hits", "How often a limit was hit", None, named("limit", self.measure.limits()))?;
        let discarded = named("reason", self.measure.discarded());
        out.counters("discarded", "Packets that were discarded", None, discarded)
    }

    fn latencies(&self, out: &mut Families<'_>) -> fmt::Result {
        for (kind, latency) in self.measure.latencies().iter() {
            let help =
                format!("The latency {}; unfinished steps count with the time they had lasted", kind.name());
            let metric =
                out.0.encode_descriptor(kind.name(), &help, Some(&Unit::Seconds), MetricType::Histogram)?;
            histogram(metric, latency)?;
        }
        let by = crate::measure::By::ALL;
        for by in by {
            let (name, help) = (format!("by_{}", by.name()), format!("Latencies by {}", by.name()));
            let mut metric =
                out.0.encode_descriptor(&name, &help, Some(&Unit::Seconds), MetricType::Histogram)?;
            for group in self.measure.latencies().groups().filter(|group| group.by == by) {
                let labels: Labels =
                    vec![("latency", group.kind.name().to_owned()), (by.name(), group.name.to_string())];
                histogram(metric.encode_family(&labels)?, &group.values)?;
            }
        }
        Ok(())
    }
}

fn histogram(mut metric: MetricEncoder<'_>, latency: &Latency) -> fmt::Result {
    let mut buckets = BUCKETS.map(|bound| (bound, 0));
    let (mut sum, mut count) = (0.0, 0);
    if let Some(values) = latency.histogram() {
        for value in values.iter_recorded() {
            // A value stands for all that look the same; the least of them is never beyond a bound that the value was not.
            let seconds = values.lowest_equivalent(value.value_iterated_to()) as f64 / 1e6;
            let times = value.count_since_last_iteration();
            let at = buckets.iter().position(|(bound, _)| seconds <= *bound).unwrap_or(BUCKETS.len() - 1);
            buckets[at].1 += times;
            sum += seconds * times as f64;
            count += times;
        }
    }
    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

/// Writes families of metrics.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in series {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::time::Instant;
    use crate::trace::{Did, Direction, Event, FlowId, Leg, Outcome, Record, Sink as _};

    /// Two flows whose connects take these times, in milliseconds.
    fn snapshot(connects: [u64; 2]) -> Snapshot {
        let mut measure = Measure::new([(Arc::from("my \"rule\""), "fin-drop")]);
        for (flow, millis) in (1..).zip(connects) {
            let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
            let fired = Event::Fired {
                rule: Arc::from("my \"rule\""),
                fault: "fin-drop",
                did: Did::Drop,
                direction: Direction::Downstream,
                segment: None,
            };
            for (at, leg, event) in [
                (0, None, Event::FlowOpened { client, server, rules: vec![Arc::from("my \"rule\"")] }),
                (millis, Some(Leg::Client), Event::Established),
                (millis, Some(Leg::Server), fired),
                (2000, None, Event::LimitHit { limit: "limits.flows" }),
                (
                    2000,
                    None,
                    Event::FlowClosed { outcome: Outcome::Ok, upstream_bytes: 3, downstream_bytes: 4 },
                ),
            ] {
                measure.record(Record { at: Instant::from_millis(at), flow: FlowId(flow), leg, event });
            }
        }
        Snapshot { measure, waiting_bytes: 7, packets: Packets { received: 20, sent: 21 } }
    }

    #[test]
    fn a_run_is_told_in_both_texts() {
        let open_metrics = open_metrics(snapshot([600, 1020]));
        for line in [
            "# TYPE halfopen_flows_opened counter",
            "halfopen_flows_opened_total 2",
            "halfopen_flows_open 0",
            "halfopen_flows_closed_total{outcome=\"ok\"} 2",
            "halfopen_flows_closed_total{outcome=\"reset\"} 0",
            "halfopen_delivered_bytes_total{direction=\"downstream\"} 8",
            "halfopen_waiting_bytes 7",
            "halfopen_packets_total{way=\"sent\"} 21",
            "halfopen_rule_matched_total{rule=\"my \\\"rule\\\"\",fault=\"fin-drop\"} 2",
            "halfopen_rule_fired_total{rule=\"my \\\"rule\\\"\",fault=\"fin-drop\"} 2",
            "halfopen_limit_hits_total{limit=\"limits.flows\"} 2",
            "halfopen_connect_seconds_count 2",
            "# EOF",
        ] {
            assert!(open_metrics.lines().any(|told| told == line), "{line}\n{open_metrics}");
        }
        let prometheus = prometheus(&open_metrics);
        for line in ["# TYPE halfopen_flows_opened_total counter", "# TYPE halfopen_build_info gauge"] {
            assert!(prometheus.lines().any(|told| told == line), "{line}\n{prometheus}");
        }
        let samples =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let [ours, theirs]: [Vec<String>; 2] = [samples(&open_metrics), samples(&prometheus)];
        assert_eq!(ours, theirs);
        assert!(!prometheus.contains("# EOF") && !prometheus.contains("# UNIT"));
    }

    #[test]
    fn a_lost_syn_has_a_bucket_of_its_own() {
        let count = |text: &str, bound: &str| -> u64 {
            let sample = format!("halfopen_connect_seconds_bucket{{le=\"{bound}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().parse().unwrap()
        };
        let text = open_metrics(snapshot([600, 1020]));
        assert_eq!(["0.5", "0.9", "1.1", "+Inf"].map(|bound| count(&text, bound)), [0, 1, 2, 2]);
        // On a bound, as it was measured.
        let text = open_metrics(snapshot([1100, 1101]));
        assert_eq!(["0.9", "1.1", "1.9"].map(|bound| count(&text, bound)), [0, 1, 2]);
    }
}
