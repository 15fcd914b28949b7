"""The scenarios that every client runs: what they need, and what must be seen, field by field.

A client's program is called as `PROGRAM SCENARIO BOOTSTRAP PREFIX EPOCH_MS CODECS`. It uses the topics that stand in `TOPICS` (the
harness made them, each with the prefix before its name), and its last line of output is what it saw, as JSON.
`Client` says what a client cannot do; nothing else may be missing.
"""

from dataclasses import dataclass, field

import sample
import batches

CODECS = batches.CODECS

TOPICS = {
    "admin": {},
    "codecs": {f"codecs-{codec}": (3, {}) for codec in CODECS},
    "idempotence": {"idempotence": (3, {})},
    "rebalance": {"rebalance": (6, {})},
    "seek-by-time": {"seek-by-time": (1, {})},
    "commit-resume": {"commit-resume": (1, {})},
    "large-messages": {
        "large-messages": (1, {"max.message.bytes": "4000000"}),
        "large-messages-small": (1, {"max.message.bytes": "100000"}),
    },
    "headers": {"headers": (1, {})},
    "tombstones": {"tombstones": (1, {"cleanup.policy": "compact"})},
}
"""Scenario to its topics: (partitions, settings) by name without the prefix."""

REFERENCE_RECORDS = 50
"""Records of each topic `reference-CODEC`, which the harness fills, with every field that there is."""


@dataclass
class Client:
    """A client as the scenarios take it."""

    name: str
    version: str
    command: list
    codecs: list = field(default_factory=lambda: list(CODECS))
    # exact: as they were; grouped: by name, the order among equal names kept; last: one for each name; none.
    headers: str = "exact"
    # Whether a header that the client sends may be without a value; if not, its program sends an empty one.
    null_headers: bool = True
    # (scenario, key of what is seen; "": all of it) -> why it is not there.
    lacks: dict = field(default_factory=dict)
    # (scenario, key) -> (what is seen instead, why): the client's own doing, with any broker.
    differs: dict = field(default_factory=dict)

    @property
    def label(self):
        return f"{self.name}-{self.version}"


def as_client(client, records):
    """Records as `sample.seen` gives them, as far as the client can tell headers apart."""

    def reduced(headers):
        if client.headers == "grouped":
            return sorted(headers, key=lambda header: header[0])
        if client.headers == "last":
            return sorted([name, content] for name, content in dict(headers).items())
        return [] if client.headers == "none" else headers

    return [[*record[:5], reduced(record[5])] for record in records]


def samples(count, partitions, epoch_ms, null_headers=True):
    """The first samples as they must come back: number n in partition n mod `partitions`, offsets dense."""

    def headers(number):
        return [(name, content if null_headers else content or b"") for name, content in sample.headers(number)]

    return sorted(
        sample.seen(n % partitions, n // partitions, sample.timestamp(n, epoch_ms), sample.key(n), sample.value(n), headers(n))
        for n in range(count)
    )


def admin(_client, _epoch_ms):
    return {
        "created": 0,
        "again": 36,
        "bad name": 17,
        "bad config": 40,
        "partitions": 3,
        "retention": "1234567",
        "grown": 5,
        "shrunk": 37,
        "altered": "7654321",
        "badly altered": 40,
        "listed": True,
        "brokers": 1,
        "cluster id": 22,
        "listed after deletion": False,
        "deleted again": 3,
    }


def codecs(client, epoch_ms):
    return {"read": {codec: samples(300, 3, epoch_ms, client.null_headers) for codec in client.codecs}}


def idempotence(_client, _epoch_ms):
    return {"placed": [list(range(1_000))] * 3}


def rebalance(_client, _epoch_ms):
    return {"steps": [[6], [3, 3], [2, 2, 2], [3, 3], [6]], "seen": 600}


def seek_by_time(_client, _epoch_ms):
    return {"offsets": [0, 3, 6, 153, 300, 597, None], "first": "t300", "ends": [0, 600]}


def commit_resume(_client, _epoch_ms):
    return {"committed": 100, "metadata": "one hundred", "resumed at": 100, "read": 200, "committed at the end": 300}


def large_messages(client, epoch_ms):
    codecs = [codec for codec in ("none", "gzip") if codec in client.codecs]
    large = [
        sample.seen(0, 2 * at + n, epoch_ms + n, b"large", sample.noise(n, 3_000_000), []) for at in range(len(codecs)) for n in range(2)
    ]
    return {"records": large, "refused": 10}


def headers(client, epoch_ms):
    return {"own": samples(100, 1, epoch_ms, client.null_headers), "reference": {codec: samples(REFERENCE_RECORDS, 1, epoch_ms) for codec in client.codecs}}


def tombstones(_client, epoch_ms):
    values = [None, b"", b"x"]
    records = [sample.seen(0, n, epoch_ms + n, b"k%d" % n, values[n % 3], []) for n in range(30)]
    return {"records": records, "refused": 87}


SCENARIOS = {
    "admin": admin,
    "codecs": codecs,
    "idempotence": idempotence,
    "rebalance": rebalance,
    "seek-by-time": seek_by_time,
    "commit-resume": commit_resume,
    "large-messages": large_messages,
    "headers": headers,
    "tombstones": tombstones,
}


def _comparable(client, content):
    if isinstance(content, dict):
        return {key: _comparable(client, part) for key, part in content.items()}
    if isinstance(content, list) and content and isinstance(content[0], list) and len(content[0]) == 6:
        return as_client(client, content)
    return content


def expected(client, scenario, epoch_ms):
    """What the client's program must print; None when the client cannot do the scenario at all."""
    if (scenario, "") in client.lacks:
        return None
    saw = {}
    for key, content in SCENARIOS[scenario](client, epoch_ms).items():
        if (scenario, key) in client.lacks:
            continue
        content, _why = client.differs.get((scenario, key), (content, None))
        saw[key] = _comparable(client, content)
    return saw


def normal(client, saw):
    """What a program printed, its headers brought into the order in which they are compared."""
    return {key: _comparable(client, content) for key, content in saw.items()}
