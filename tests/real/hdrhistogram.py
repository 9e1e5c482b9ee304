#!/usr/bin/env python3
"""What the Python implementation of HdrHistogram reads in an interval log of halfopen.

    python3 -m venv venv && venv/bin/pip install hdrhistogram==0.10.8
    cd tests/golden/hlog
    venv/bin/python ../../real/hdrhistogram.py recorded.hlog recorded.hgrm > expected.json

tells the percentiles of every tag, and those of connect at the levels of the percentile file that halfopen wrote at the same
time. tests/report.rs compares them with what halfopen reads in the log. (The Python package writes percentile files, too, but with
levels of its own; ours are those of the Java implementation.) Not part of the tests: neither Debian nor a fresh machine has the package.
"""

import fractions
import json
import math
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

# The value of a percentile that falls between two ranks is that of the upper one, as the Java and the Rust implementation have it;
# get_value_at_percentile() rounds, so it is asked for whole ranks.
def value_at(histogram, percentile):
    total = histogram.get_total_count()
    rank = max(1, math.ceil(fractions.Fraction(percentile) * total / 100))
    return histogram.get_value_at_percentile(100 * rank / total)


PERCENTILES = ["1", "10", "50", "75", "90", "95", "99", "99.9", "99.99", "100"]


def main(log, percentile_file):
    fine = HdrHistogram(1, 150_000_000, 3)
    reader = HistogramLogReader(log, fine)
    tags = {}
    while interval := reader.get_next_interval_histogram():
        tag = interval.get_tag()
        if tag in tags:
            tags[tag].add(interval)
        else:
            tags[tag] = interval
    told = {
        tag: {
            "count": histogram.get_total_count(),
            "percentiles": {p: value_at(histogram, p) for p in PERCENTILES},
        }
        for tag, histogram in sorted(tags.items())
    }
    rows = [line.split() for line in open(percentile_file) if line.strip() and line.strip()[0].isdigit()]
    connect = tags["connect"]
    levels = [[row[1], value_at(connect, 100 * fractions.Fraction(row[1]))] for row in rows]
    by = "hdrhistogram 0.10.8 (Python, PyPI)"
    expected = {
        "by": by,
        "mean": connect.get_mean_value(),
        "deviation": connect.get_stddev(),
        "levels": levels,
        "tags": told,
    }
    print(json.dumps(expected, indent=1))


main(*sys.argv[1:])
