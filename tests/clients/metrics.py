"""Reads a broker's /metrics."""

import re
import time
import urllib.request

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def read(broker):
    """{(name, ((label, value), ...)): number}."""
    with urllib.request.urlopen(f"http://{broker.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    series = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = _LINE.fullmatch(line).groups()
            key = name, tuple(sorted(_LABEL.findall(labels or "")))
            assert key not in series, f"{key} stands twice"
            series[key] = float(value)
    return series


def total(series, name, **labels):
    """The sum of a metric over all series that bear these labels."""
    wanted = set(labels.items())
    return sum(value for (found, bears), value in series.items() if found == name and wanted <= set(bears))


def grown(before, after, name):
    """{labels: by how much} of the series that have grown."""
    changes = {bears: value - before.get((found, bears), 0) for (found, bears), value in after.items() if found == name}
    return {bears: change for bears, change in changes.items() if change > 0}


def wait_until(broker, holds, timeout=15):
    """Waits until `holds(series)`; returns the series."""
    deadline = time.monotonic() + timeout
    while True:
        series = read(broker)
        if holds(series):
            return series
        assert time.monotonic() < deadline, "the metrics did not come to say so"
        time.sleep(0.05)
