"""What the running binary asks an object store for: bytes and requests, counted on the way to the bucket, beside the model of docs/costs.md.

The bucket is s3s-fs behind a proxy that reads every request (`stores.Asked`).
"""

import contextlib
import itertools
import struct
import threading
import time

import brokers
import metrics
import pytest
from test_librdkafka import create
from waiting import until
from wire import PRODUCE, Connection, batch

MIB, GIB = 1 << 20, 1 << 30
NEVER_MS = 3_600_000
WRITES = ("PUT", "POST")
TOPIC = "orders-of-customers"

# One shard with 625 partitions, as the model has. Objects are as large as by default, and so are the parts in which they go up; but ten uploads
# are merged in place of fifty, at once and as fast as it goes, or each round of compaction would take 3 GiB.
PARTITIONS, MERGED, ROUNDS = 625, 10, 2
UPLOAD_BYTES = 64 * MIB
OUTPUTS = 3 * ROUNDS  # 256, 256 and 128 MiB
COUNTED = {
    "shards": 1,
    "object.compaction.objects": MERGED,
    "object.compaction.interval.ms": 100,
    "object.compaction.bytes.per.second": 0,
    # Uploads by size alone. No snapshots by the clock: at 1 GiB/s there is one for each 60 GiB. Without them nothing is deleted, so the
    # bucket's files have every byte that was put.
    "object.upload.interval.ms": NEVER_MS,
    "metadata.snapshot.interval.ms": NEVER_MS,
}
# For each GiB of records in uploads, of data alone: `cargo test -p thalweg-shards a_run_that_is_counted` asserts it of
# just this.
MODEL_WRITTEN, MODEL_WRITES, MODEL_READS = 2.003, 97.6, 432

# An idle shard of 100 partitions whose minute is a second, and which merges 25 uploads in place of 50.
INTERVAL_MS, IDLE_PARTITIONS, IDLE_MERGED = 1_000, 100, 25
IDLE = {
    "shards": 1,
    "object.upload.interval.ms": INTERVAL_MS,
    "metadata.snapshot.interval.ms": INTERVAL_MS,
    "object.compaction.interval.ms": INTERVAL_MS // 6,
    "object.compaction.objects": IDLE_MERGED,
}


def total(broker, name, **labels):
    return metrics.total(metrics.read(broker), name, **labels)


def of(counter, methods, folder=None):
    """The sum over requests of these methods, to this folder or to any."""
    return sum(n for (method, where, _), n in counter.items() if method in methods and folder in (None, where))


def full_batch():
    """A batch for each partition, which together are just enough for an upload."""
    size, stamp = -(-UPLOAD_BYTES // PARTITIONS), int(time.time() * 1000)
    values = [b"x" * 1024] * (size // 1034 - 1)
    one = batch([*values, b"x" * (size - len(batch([*values, b"x" * 256], stamp)) + 256)], stamp)
    assert 0 <= len(one) - size < 8, (len(one), size)
    return one


def produce_to_all(wire, one):
    """The batch to each partition, 25 of them with each request."""
    for first in range(0, PARTITIONS, 25):
        parts = b"".join(struct.pack(">ii", index, len(one)) + one for index in range(first, first + 25))
        body = struct.pack(">hhiih", -1, -1, 30_000, 1, len(TOPIC)) + TOPIC.encode() + struct.pack(">i", 25) + parts
        reader = wire.receive(wire.send(PRODUCE, 7, body, False), False)
        assert reader.number("i") == 1
        reader.take(reader.number("h"))
        for index in range(first, first + reader.number("i")):
            assert (reader.number("i"), reader.number("h")) == (index, 0)
            reader.take(8 + 8 + 8)


@pytest.mark.timeout(900)
def test_what_a_gibibyte_costs(s3):
    with brokers.Thalweg(s3.settings("costs") | COUNTED) as broker:
        create(broker, TOPIC, PARTITIONS, retention_ms=-1)
        one = full_batch()
        with Connection(broker.bootstrap, timeout=60) as wire:
            for n in range(1, MERGED * ROUNDS + 1):
                produce_to_all(wire, one)
                # Or two would go up side by side, and what comes meanwhile make the next one larger.
                until(lambda n=n: total(broker, "thalweg_upload_objects_total") >= n, f"upload {n} is committed", 120)
        until(lambda: total(broker, "thalweg_compaction_objects_total") >= OUTPUTS, f"{OUTPUTS} objects are made", 300)
        said = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_compaction_waiting_bytes") == 0, 60)
        requests, put = s3.faults.asked.now()
        check_bucket(s3, said, requests, put)
        check_model(said, requests, put)
        broker.stop()


def check_bucket(s3, said, requests, put):
    """What the broker says of itself is what the bucket saw, on the way to it and in its files."""

    def says(name, **labels):
        return metrics.total(said, f"thalweg_{name}", **labels)

    def stored(folder):
        return [path.stat().st_size for path in (s3.directory / "bucket" / "costs" / folder).rglob("*") if path.is_file()]

    objects = MERGED * ROUNDS + OUTPUTS
    assert (says("upload_objects_total"), says("compaction_objects_total")) == (MERGED * ROUNDS, OUTPUTS)
    assert (says("object_store_requests_total", operation="put"), len(stored("data"))) == (objects, objects)
    assert says("object_store_errors_total") == 0
    data = of(put, WRITES, "data")
    assert says("upload_bytes_total") + says("compaction_bytes_total") == data
    assert says("object_store_bytes_total", operation="put") == data == sum(stored("data"))
    assert says("metadata_snapshots_total") == of(requests, WRITES, "metadata") == len(stored("metadata"))
    assert of(put, WRITES, "metadata") == sum(stored("metadata"))


def check_model(said, requests, put):
    """What was counted is what the model says, and what the targets allow."""
    appended, waits = (metrics.total(said, f"thalweg_{name}_bytes{end}") for name, end in (("append", "_total"), ("wal_trim_lag", "")))
    # What waits, some MB, is counted with the log's heads and padding, so that this is a thousandth too low.
    gib = (appended - waits) / GIB
    written, writes = of(put, WRITES, "data") / GIB / gib, of(requests, WRITES, "data") / gib
    reads = of(requests, ("GET", "HEAD"), "data") / gib
    print(f"{gib:.3f} GiB in uploads; for each: {written:.4f} GiB, {writes:.1f} requests that write, {reads:.1f} that read")
    print({" ".join(key): (requests[key], put[key]) for key in sorted(requests)}, flush=True)
    assert written == pytest.approx(MODEL_WRITTEN, rel=0.01)
    assert writes == pytest.approx(MODEL_WRITES, rel=0.03)
    # Of each input its end, index and properties come with two reads here, where the model takes three; a large put begins with a look whether
    # the object is there (HEAD), and a read that is late is sent twice.
    assert reads == pytest.approx(MODEL_READS, rel=0.1)
    assert of(put, WRITES) / GIB / gib <= 2.05 and writes <= 100


def model_of_idling(merged):
    """Requests that write, an interval: for so many uploads one output, three snapshots after it, an interval from one to the next, and
    else one every second interval. Of the default it is what docs/costs.md says."""
    return (merged + 1 + 3 + (merged - 3) / 2) / merged


@contextlib.contextmanager
def trickle(broker):
    """A small batch fifty times a second, to one partition after the other."""
    ended = threading.Event()
    one = batch([b"x" * 100], int(time.time() * 1000))

    def run():
        with Connection(broker.bootstrap) as wire:
            for index in itertools.cycle(range(IDLE_PARTITIONS)):
                if ended.wait(0.02):
                    return
                wire.produce(TOPIC, index, one)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.timeout(300)
def test_what_an_idle_shard_costs(s3):
    assert round(model_of_idling(50), 2) == 1.55
    with brokers.Thalweg(s3.settings("costs") | IDLE) as broker:
        create(broker, TOPIC, IDLE_PARTITIONS, retention_ms=-1)

        def after_output(n):
            """What was asked for until then, and when that was."""
            until(lambda: total(broker, "thalweg_compaction_objects_total") >= n, f"{n} objects are made", 120)
            return s3.faults.asked.now()[0], time.monotonic()

        with trickle(broker):
            before, began = after_output(1)
            after, ended = after_output(2)
        intervals = (ended - began) * 1000 / INTERVAL_MS
        grown = after - before
        uploads = of(grown, WRITES, "data") - 1
        snapshots = of(grown, WRITES, "metadata")
        each = of(grown, WRITES) / intervals
        print(f"{intervals:.1f} intervals: {uploads} uploads, {snapshots} snapshots; {each:.3f} requests that write an interval", flush=True)
        assert uploads == pytest.approx(IDLE_MERGED, abs=2)
        assert each == pytest.approx(model_of_idling(IDLE_MERGED), rel=0.1) and each <= 2
        assert of(grown, WRITES) == uploads + 1 + snapshots, "nothing else is put"
        broker.stop()
