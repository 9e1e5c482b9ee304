"""Reads metrics from standard input with the parsers of Prometheus's own client, strictly, and prints what a test asks for."""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

parse = {"openmetrics": open_metrics, "prometheus": prometheus}[sys.argv[1]]
for family in parse(sys.stdin.read()):
    assert family.documentation, f"{family.name} has no help"
    for sample in family.samples:
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        print(f"{sample.name}{{{labels}}} {sample.value:g} {family.type}")
