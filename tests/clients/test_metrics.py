"""Every metric of docs/metrics.md, on the real binary: it is in /metrics, it moves when its matter does, and where the
test knows the number, it is that number."""

import contextlib
import pathlib
import re
import socket
import threading
import time

import brokers
import confluent_kafka as ck
import metrics
import pytest
from test_fetch import delete_records
from test_librdkafka import admin, consumer, create
from wire import Connection, Part, batch, batch_of, record

pytestmark = pytest.mark.only_thalweg

# What no workload of a test's length moves, and why.
UNMOVED = {
    "thalweg_group_lag_left_out": "more than 10,000 partitions with a committed offset (unit test in telemetry::lag)",
    "thalweg_fetch_session_evictions_total": "a session may be evicted after two minutes (unit test in k01_fetch::session)",
    "thalweg_garbage_delete_errors_total": "a store that fails deletions alone (unit tests of cluster::bucket)",
    "thalweg_cleaner_errors_total": "a store that fails while a log is cleaned (simulation)",
    "thalweg_cleaner_uncleanable_partitions": "a batch that cannot be unpacked (unit tests of cleaning::filter)",
    # Compaction is off here (tests/bucket/test_compaction.py switches it on).
    **dict.fromkeys(
        (f"thalweg_compaction_{what}" for what in (
            "objects_total", "bytes_total", "seconds", "waiting_bytes", "errors_total", "dropped_total"
        )),
        "compaction is off",
    ),
    # No partition has so many objects here (tests/bucket/test_manifests.py lets them come).
    **dict.fromkeys(
        (f"thalweg_manifests_{what}_total" for what in ("written", "unfolded", "released")), "no partition has more than 200 objects"
    ),
    # No partition is to move here (tests/clients/test_moves.py moves them).
    **dict.fromkeys(
        (
            "thalweg_balancer_moves_total", "thalweg_balancer_move_seconds", "thalweg_balancer_refused_total",
            "thalweg_shard_partitions_taken_total",
        ),
        "no threshold is passed",
    ),
}
MAX_CONNECTIONS = 40


def listed():
    """{name: type} of docs/metrics.md."""
    text = (brokers.REPOSITORY / "docs" / "metrics.md").read_text()
    return dict(re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", text, re.MULTILINE))


class Watched:
    """Looks at /metrics again and again while the workload runs, and keeps what was ever seen."""

    def __init__(self, broker):
        self.broker = broker
        self.first = metrics.read(broker)
        self.seen = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def note(self, series):
        for (name, _), value in series.items():
            name = re.sub("_(bucket|sum|count)$", "", name) if name not in self.kinds else name
            self.seen.setdefault(name, set()).add(value)
        return series

    def _look(self):
        while not self.stop.wait(0.05):
            with contextlib.suppress(OSError):
                self.note(metrics.read(self.broker))

    def __enter__(self):
        self.kinds = listed()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def has_moved(self, name):
        """It was seen with a value that is not 0: none of them starts with another."""
        return any(self.seen.get(name, ()))


class Load:
    """Producers on connections of their own, until stopped."""

    def __init__(self, broker, topic, partitions):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(broker, topic, n % partitions)) for n in range(8)]

    def _run(self, broker, topic, index):
        one = batch([b"x" * 20_000])
        with Connection(broker.bootstrap) as wire:
            while not self.stop.is_set():
                wire.try_produce(topic, index, one)

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_counts_are_exact():
    """Requests, bytes, records, batches, reads and errors of one connection, to the last byte."""
    with brokers.Thalweg({"object.upload.interval.ms": 600_000}) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 4)
        before = metrics.read(broker)
        sent = {"requests": 0, "request_bytes": wire.sent_bytes, "response_bytes": wire.received_bytes}
        batches = [batch([bytes([n]) * (97 * n)] * (n % 7 + 1)) for n in range(50)]
        for n, one in enumerate(batches):
            wire.produce("t", n % 4, one)
        assert wire.try_produce("t", 4, batches[0]) == 3
        assert wire.try_produce("nowhere", 0, batches[0]) == 3
        after = metrics.wait_until(
            broker, lambda now: metrics.total(now, "thalweg_append_batches_total") - metrics.total(before, "thalweg_append_batches_total") == 50
        )

        def by(name, **labels):
            return metrics.total(after, name, **labels) - metrics.total(before, name, **labels)

        assert by("thalweg_append_records_total") == sum(n % 7 + 1 for n in range(50))
        assert by("thalweg_append_bytes_total") == sum(map(len, batches))
        assert by("thalweg_requests_total", api="Produce") == 52
        assert by("thalweg_request_seconds_count", api="Produce") == 52
        assert by("thalweg_request_bytes_total", api="Produce") == wire.sent_bytes - sent["request_bytes"]
        assert by("thalweg_response_bytes_total", api="Produce") == wire.received_bytes - sent["response_bytes"]
        assert metrics.grown(before, after, "thalweg_request_errors_total") == {(("api", "Produce"), ("code", "3")): 2}
        assert by("thalweg_wal_group_bytes_count") >= 1 and by("thalweg_wal_commit_seconds_count") >= 1

        before = after
        parts = [Part("t", index, 0) for index in range(4)]
        fetched = wire.fetch(parts)
        assert sum(len(part.records) for part in fetched.parts.values()) == sum(map(len, batches))
        assert wire.fetch([Part("t", 0, 99)]).parts["t", 0].error == 1
        after = metrics.wait_until(
            broker, lambda now: metrics.total(now, "thalweg_requests_total", api="Fetch") - metrics.total(before, "thalweg_requests_total", api="Fetch") == 2
        )
        assert by("thalweg_read_bytes_total", tier="tail") == by("thalweg_read_bytes_total") == sum(map(len, batches))
        assert by("thalweg_reads_total", tier="tail") == by("thalweg_reads_total") == 4
        assert metrics.grown(before, after, "thalweg_request_errors_total") == {(("api", "Fetch"), ("code", "1")): 1}
        broker.stop()


def lag(series, group):
    """{(topic, partition): records} of a group."""
    found = {}
    for (name, bears), value in series.items():
        bears = dict(bears)
        if name == "thalweg_group_lag_records" and bears["group"] == group:
            found[bears["topic"], int(bears["partition"])] = value
    return found


def test_groups_are_counted_and_their_lag_goes_with_them():
    with brokers.Thalweg({"group.min.session.timeout.ms": 100}) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 2)
        create(broker, "u", 1)
        for topic, index, count in [("t", 0, 10), ("t", 1, 20), ("u", 0, 5)]:
            wire.produce(topic, index, batch([b"x"] * count))
        committed = [ck.TopicPartition("t", 0, 4), ck.TopicPartition("t", 1, 20), ck.TopicPartition("u", 0, 1)]
        member = consumer(broker, "g")
        member.subscribe(["t", "u"])
        deadline = time.monotonic() + 30
        while len(member.assignment()) < 3:
            assert time.monotonic() < deadline, "nothing was assigned"
            member.poll(0.1)
        member.commit(offsets=committed, asynchronous=False)
        expected = {("t", 0): 6, ("t", 1): 0, ("u", 0): 4}
        series = metrics.wait_until(broker, lambda now: lag(now, "g") == expected)
        assert metrics.total(series, "thalweg_group_lag_left_out") == 0
        assert metrics.total(series, "thalweg_groups", state="stable") == metrics.total(series, "thalweg_groups") == 1
        assert metrics.total(series, "thalweg_group_members") == 1
        assert metrics.total(series, "thalweg_group_rebalances_total") >= 1
        assert metrics.total(series, "thalweg_group_offset_commits_total") == 3
        wire.produce("t", 1, batch([b"x"] * 7))
        metrics.wait_until(broker, lambda now: lag(now, "g") == {**expected, ("t", 1): 7})

        admin(broker).delete_topics(["u"])["u"].result(30)
        metrics.wait_until(broker, lambda now: set(lag(now, "g")) == {("t", 0), ("t", 1)})
        member.close()
        series = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_groups", state="empty") == 1)
        assert metrics.total(series, "thalweg_group_members") == 0
        assert set(lag(series, "g")) == {("t", 0), ("t", 1)}, "it committed a moment ago"
        # After a crash the figures come back with the groups.
        broker.kill()
        broker.start()
        metrics.wait_until(broker, lambda now: set(lag(now, "g")) == {("t", 0), ("t", 1)})
        admin(broker).delete_consumer_groups(["g"])["g"].result(30)
        series = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_groups") == 0)
        metrics.wait_until(broker, lambda now: lag(now, "g") == {})
        broker.stop()


def test_what_goes_from_the_start_of_logs_is_counted():
    """Log starts that moved, and bytes that went, by why; an object of which something is left has not gone."""
    settings = {
        "shards": 1, "log.retention.check.interval.ms": 50, "object.upload.interval.ms": 50, "object.compaction.enable": "false",
    }
    now_ms, names = int(time.time() * 1000), ("retention_log_starts_moved", "retention_bytes")
    one = batch([b"x" * 1_000, b"y"], now_ms)

    def told(series):
        return [{why: metrics.total(series, f"thalweg_{name}_total", reason=why) for why in ("time", "size", "delete_records")} for name in names]

    def come_to(moved, dropped):
        wanted = [moved, {why: count * len(one) for why, count in dropped.items()}]
        metrics.wait_until(broker, lambda now: told(now) == wanted)

    with brokers.Thalweg(settings) as broker, Connection(broker.bootstrap) as wire:
        limits = {"old": {"retention_ms": 1}, "large": {"retention_bytes": len(one), "retention_ms": -1}, "kept": {"retention_ms": -1}}
        for topic, limit in limits.items():
            create(broker, topic, 1, **limit)
        for _ in range(3):
            wire.produce("kept", 0, one)
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0)
        assert told(metrics.read(broker)) == [dict.fromkeys(("time", "size", "delete_records"), 0)] * 2
        delete_records(broker, "kept", 0, 3)
        come_to({"time": 0, "size": 0, "delete_records": 1}, {"time": 0, "size": 0, "delete_records": 1})
        delete_records(broker, "kept", 0, 3)
        delete_records(broker, "kept", 0, 4)
        come_to({"time": 0, "size": 0, "delete_records": 2}, {"time": 0, "size": 0, "delete_records": 2})
        wire.produce("old", 0, one)
        come_to({"time": 1, "size": 0, "delete_records": 2}, {"time": 1, "size": 0, "delete_records": 2})
        for _ in range(2):
            wire.produce("large", 0, one)
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0)
        come_to({"time": 1, "size": 1, "delete_records": 2}, {"time": 1, "size": 1, "delete_records": 2})
        # A deleted topic has no start.
        admin(broker).delete_topics(["large"])["large"].result(30)
        # No object holds these when they are dropped: their bytes are counted when one does.
        broker.settings |= {"object.upload.interval.ms": 3_600_000, "object.upload.bytes": 1 << 20}
        broker.stop()
        broker.start()
        create(broker, "other", 1, retention_ms=-1)
        with Connection(broker.bootstrap) as again:
            again.produce("kept", 0, one)
            delete_records(broker, "kept", 0, 8)
            come_to({"time": 0, "size": 0, "delete_records": 1}, {"time": 0, "size": 0, "delete_records": 1})
            for _ in range(2):
                again.produce("other", 0, batch([b"z" * 600_000]))
            come_to({"time": 0, "size": 0, "delete_records": 1}, {"time": 0, "size": 0, "delete_records": 2})
        broker.stop()


def fill(broker, wire, topic, partitions):
    """Produces until the log is full, which is the store's fault."""
    one, sent = batch([b"x" * 900_000]), 0
    while sent < 500:
        error = wire.try_produce(topic, sent % partitions, one)
        if error == 19:
            return
        assert error == 0
        sent += 1
    raise AssertionError("the log is never full")


def test_every_metric_is_there_and_moves(s3):
    settings = {
        **s3.settings("m"),
        "wal.capacity.bytes": 48 << 20,
        "cache.tail.bytes": 1 << 20,
        "object.upload.bytes": 1 << 20,
        "object.upload.interval.ms": 500,
        "metadata.snapshot.interval.ms": 200,
        "max.connections": MAX_CONNECTIONS,
        "shards.balance.interval.ms": 200,
        "shards.balance.threshold.percent": 100_000,
        # What is cleaned is in the bucket, and no upload.
        "log.cleaner.backoff.ms": 3_600_000,
        "object.compaction.enable": "false",
    }
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(brokers.Thalweg(settings))
        watched = stack.enter_context(Watched(broker))
        assert metrics.total(watched.first, "thalweg_build_info") == 1
        wire = stack.enter_context(Connection(broker.bootstrap))
        workload(broker, wire, s3)
        exact_uploads(broker, s3)
        clean(broker)
        delete_records(broker, "t", 1, ck.OFFSET_END)
        # With the topic goes the lag of its readers.
        with_topic = watched.note(metrics.read(broker))
        admin(broker).delete_topics(["t"])["t"].result(30)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_garbage_deleted_total") > 0)
        with contextlib.suppress(ConnectionError):
            # Not Kafka at all: the broker closes the connection.
            with socket.create_connection(("127.0.0.1", broker.kafka_port)) as bad:
                bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
                bad.recv(1)
        crowd = [socket.create_connection(("127.0.0.1", broker.kafka_port)) for _ in range(MAX_CONNECTIONS + 5)]
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_connections_refused_total") > 0)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_connections_dropped_total") > 0)
        for connection in crowd:
            connection.close()
        last = watched.note(metrics.read(broker))
        shown = {re.sub("_(bucket|sum|count)$", "", name) if name not in listed() else name for name, _ in [*with_topic, *last]}
        missing = set(listed()) - shown
        assert not missing, f"not in /metrics: {missing}"
        assert not shown - set(listed()), "shown but not listed"
        still = {name for name in listed() if not watched.has_moved(name)}
        assert still == set(UNMOVED), f"did not move: {still - set(UNMOVED)}; moved after all: {set(UNMOVED) - still}"
        broker.stop()


def workload(broker, wire, store):
    """A load; appends while the store fails, until the log is full; reads from every tier, with a group and a session."""
    create(broker, "t", 4)
    with Load(broker, "t", 4):
        for name in ("thalweg_append_staged_bytes", "thalweg_shard_mailbox_depth", "thalweg_shard_busy_ratio"):
            metrics.wait_until(broker, lambda now, name=name: metrics.total(now, name) > 0, 60)
    before = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0, 60)
    store.faults.set("error")
    # Something that a snapshot must tell.
    create(broker, "meanwhile", 1)
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_metadata_snapshot_errors_total") > 0, 60)
    start = wire.fetch([Part("t", 0, 0)]).parts["t", 0].high_watermark
    fill(broker, wire, "t", 4)
    series = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_upload_errors_total") > 0, 60)
    assert metrics.total(series, "thalweg_object_store_errors_total", operation="put") > 0
    assert metrics.total(series, "thalweg_append_refused_total") > 0
    assert metrics.total(series, "thalweg_wal_trim_lag_bytes") > 20 << 20
    for name in ("thalweg_upload_objects_total", "thalweg_upload_bytes_total"):
        assert metrics.total(series, name) == metrics.total(before, name), "what is not committed is not counted"
    # The tail cache holds a megabyte, the store nothing of it: it is in the ring alone.
    assert wire.fetch([Part("t", 0, start)], max_wait_ms=10_000).parts["t", 0].records
    store.faults.set("ok")
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") < 1 << 20, 60)
    for _ in range(2):
        assert wire.fetch([Part("t", 0, 0)], max_wait_ms=10_000).parts["t", 0].records
    wire.produce("t", 0, batch([b"new"]))
    opened = wire.fetch([Part("t", 0, wire.fetch([Part("t", 0, 0)]).parts["t", 0].high_watermark - 1)], epoch=0)
    assert opened.session > 0 and opened.parts["t", 0].records
    wire.ask_fetch([Part("t", 1, 0)], max_wait_ms=1)
    consume(broker)
    series = metrics.read(broker)
    for tier in ("tail", "ring", "object"):
        assert metrics.total(series, "thalweg_reads_total", tier=tier) > 0, tier
    assert metrics.total(series, "thalweg_cold_cache_hits_total") > 0


def clean(broker):
    """One log is cleaned, from when on a shard looks for some often; another is never dirty enough."""
    for topic, ratio in (("cleaned", 0.1), ("dirty", 1)):
        create(broker, topic, 1, cleanup_policy="compact", min_cleanable_dirty_ratio=ratio)
        records = b"".join(record(delta, b"value", b"key") for delta in range(5))
        with Connection(broker.bootstrap) as wire:
            wire.produce(topic, 0, batch_of(records, 5, 1_700_000_000_000, 1_700_000_000_000))
    often = ck.admin.ConfigEntry("log.cleaner.backoff.ms", "100", incremental_operation=ck.admin.AlterConfigOpType.SET)
    resource = ck.admin.ConfigResource(ck.admin.ConfigResource.Type.BROKER, "1", incremental_configs=[often])
    admin(broker).incremental_alter_configs([resource])[resource].result(30)
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_cleaner_rounds_total") > 0)
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_cleaner_dirty_ratio") > 0)


def consume(broker):
    """A group with a member that commits behind the end."""
    member = consumer(broker, "g")
    member.subscribe(["t"])
    deadline = time.monotonic() + 30
    while not member.assignment():
        assert time.monotonic() < deadline, "nothing was assigned"
        member.poll(0.1)
    member.commit(offsets=[ck.TopicPartition("t", 0, 1)], asynchronous=False)
    metrics.wait_until(broker, lambda now: any(lag(now, "g").values()))
    with Connection(broker.bootstrap) as wire:
        wire.fetch([Part("t", 3, wire.fetch([Part("t", 3, 0)]).parts["t", 3].high_watermark)], max_wait_ms=500)
    member.close()


def exact_uploads(broker, store):
    """What is counted as uploaded is what lies in the bucket."""

    def objects():
        files = [path for path in (pathlib.Path(store.directory) / "bucket" / "m").rglob("*") if path.is_file()]
        data = [path for path in files if "data" in path.parts]
        return len(data), sum(path.stat().st_size for path in data)

    def told(series):
        count = metrics.total(series, "thalweg_upload_objects_total")
        assert count == metrics.total(series, "thalweg_object_store_requests_total", operation="put") - metrics.total(
            series, "thalweg_object_store_errors_total", operation="put"
        )
        return count, metrics.total(series, "thalweg_upload_bytes_total")

    series = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0, 30)
    assert told(series) == objects()
    assert metrics.total(series, "thalweg_object_store_bytes_total", operation="put") == objects()[1]
