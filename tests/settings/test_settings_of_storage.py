"""Settings of the log, the object store, the caches and retention, each seen to change what the real binary does (see test_settings.py)."""

import random
import re
import struct
import subprocess
import time

import brokers
import metrics
import pytest
from changed import bare, now_ms, stored
from test_librdkafka import create
from waiting import until
from wire import PRODUCE, Connection, Part, batch, batch_of, batches_in, crc32c, record

NEVER_MS = 3_600_000
WORDS = random.Random(9).choices([b"offset", b"leader", b"epoch", b"group", b"topic", b"batch", b"record", b"shard"], k=20_000)


def grows(broker, name, timeout=30):
    """Waits until a counter is above 0."""
    return metrics.wait_until(broker, lambda now: metrics.total(now, name) > 0, timeout)


# ---- Topics ---------------------------------------------------------------------------------------------------------


def test_retention():
    """Each of two topics leaves one limit to the broker; they are looked at every tenth of a second instead of every five minutes."""
    settings = {"log.retention.ms": 1_000, "log.retention.bytes": 50_000, "log.retention.check.interval.ms": 100}
    with bare(settings | {"shards": 1, "object.upload.interval.ms": 50}) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "aged", 1, retention_bytes=-1)
        create(broker, "sized", 1, retention_ms=-1)
        create(broker, "kept", 1, retention_ms=-1, retention_bytes=-1)
        for _ in range(10):
            one = batch([b"x" * 20_000], now_ms())
            for topic in ("aged", "sized", "kept"):
                wire.produce(topic, 0, one)
        ends = {"aged": 10, "sized": 10, "kept": 10}

        def start(topic):
            return wire.fetch([Part(topic, 0, ends[topic])]).parts[topic, 0].log_start

        deadline = time.monotonic() + 30
        while start("aged") < 10 or start("sized") == 0:
            assert time.monotonic() < deadline, "nothing was deleted"
            # What goes is what whole uploads hold: there have to be several.
            for topic in ("sized", "kept"):
                ends[topic] = wire.produce(topic, 0, one) + 1
            time.sleep(0.02)
        assert start("kept") == 0
        assert start("sized") < ends["sized"], "the limit leaves something"
        broker.stop()


def of_producer(one, producer, sequence):
    """The batch as an idempotent producer sends it."""
    covered = bytearray(one[21:])
    struct.pack_into(">qhi", covered, 22, producer, 0, sequence)
    return one[:17] + struct.pack(">I", crc32c(covered)) + bytes(covered)


@pytest.mark.parametrize("expires", [True, False])
def test_a_producer_is_forgotten(expires):
    """A repeated batch is found by what is remembered of its producer, and appended again after that."""
    expiration = {"producer.id.expiration.ms": 500} if expires else {}
    with bare({"log.retention.check.interval.ms": 100, "shards": 1} | expiration) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1)
        one = of_producer(batch([b"x"], now_ms()), 4711, 0)
        assert wire.produce("t", 0, one) == 0
        assert wire.produce("t", 0, one) == 0, "it is still known" if not expires else "half a second has not passed"
        deadline = time.monotonic() + (30 if expires else 2)
        again = 0
        while again == 0 and time.monotonic() < deadline:
            again = wire.produce("t", 0, one)
        assert (again > 0) == expires
        broker.stop()


LEVELS = {"gzip": (1, 9), "lz4": (1, 12), "zstd": (1, 19)}


def test_levels():
    """A higher level makes what the broker compresses smaller, for each codec."""
    one = batch([b" ".join(WORDS)[:100_000]])
    sizes = []
    for n in range(2):
        levels = {f"compression.{codec}.level": level[n] for codec, level in LEVELS.items()}
        assert set(levels) == {"compression.gzip.level", "compression.lz4.level", "compression.zstd.level"}
        with bare(levels) as broker:
            sizes.append({codec: len(stored(broker, codec, one, compression_type=codec)) for codec in LEVELS})
            broker.stop()
    low, high = sizes
    assert all(high[codec] < low[codec] < len(one) for codec in LEVELS), sizes


def test_cleanup_policy():
    """A topic of compaction takes no record without a key."""
    told = {}
    for policy in ("delete", "compact", "delete,compact"):
        with bare({"log.cleanup.policy": policy}) as broker, Connection(broker.bootstrap) as wire:
            create(broker, "plain", 1)
            told[policy] = wire.try_produce("plain", 0, batch([b"without a key"]))
            broker.stop()
    assert told == {"delete": 0, "compact": 87, "delete,compact": 87}


def rounds(broker):
    return metrics.total(metrics.read(broker), "thalweg_cleaner_rounds_total")


def keyed(pairs):
    """A batch of records with keys; without a value it is a tombstone."""
    when = now_ms()
    records = b"".join(record(delta, value, key) for delta, (key, value) in enumerate(pairs))
    return batch_of(records, len(pairs), when, when)


# A round does not wait until more is dirty.
CLEANED_AT_ONCE = {"segment.ms": "1"}
UNCLEANED = {"shards": 1, "object.upload.interval.ms": 50, "log.cleanup.policy": "compact", "log.cleaner.enable": "false"}


@pytest.mark.parametrize(
    "changed, least, most",
    [
        ({}, 2, 2),
        ({"log.cleaner.enable": "false"}, 0, 0),
        ({"log.cleaner.min.cleanable.ratio": 1}, 0, 0),
        ({"log.cleaner.min.compaction.lag.ms": 3_600_000}, 0, 0),
        ({"log.cleaner.min.cleanable.ratio": 1, "log.cleaner.max.compaction.lag.ms": 1}, 2, 2),
        ({"log.cleaner.dedupe.buffer.size": 2 << 20}, 1, 1),
        ({"log.cleaner.io.buffer.load.factor": 0.4}, 4, 4),
    ],
    ids=["as set", "off", "dirtier", "young", "overdue", "more memory", "less of it"],
)
def test_when_logs_are_cleaned(changed, least, most):
    """60,000 keys, all uploaded before the start that may clean them; nine tenths of 1 MiB take 39,321."""
    with bare(UNCLEANED) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1, **CLEANED_AT_ONCE)
        for first in range(0, 60_000, 6_000):
            wire.produce("t", 0, keyed([(b"%d" % n, b"value") for n in range(first, first + 6_000)]))
        in_objects(broker, 60_000 * 15)
        broker.stop()
        cleaning = {"log.cleaner.enable": "true", "log.cleaner.backoff.ms": 100, "log.cleaner.dedupe.buffer.size": 1 << 20}
        broker.settings |= cleaning | {"log.cleaner.min.cleanable.ratio": 0.01} | changed
        broker.start()
        if most:
            until(lambda: rounds(broker) >= least, f"{least} rounds are over")
        # What is not due by then will not be.
        time.sleep(1)
        assert least <= rounds(broker) <= most, rounds(broker)


@pytest.mark.parametrize("often", [100, 3_600_000])
def test_how_often_logs_are_cleaned(often):
    """A shard looks at its start, when there is nothing yet, and so much later."""
    settings = UNCLEANED | {"log.cleaner.enable": "true", "log.cleaner.backoff.ms": often}
    with bare(settings) as broker, Connection(broker.bootstrap) as wire:
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_cleaner_idle_seconds") > 0)
        create(broker, "t", 1, **CLEANED_AT_ONCE)
        wire.produce("t", 0, keyed([(b"k", b"1"), (b"k", b"2")]))
        in_objects(broker, 60)
        if often < 1_000:
            until(lambda: rounds(broker) >= 1, "it is cleaned")
        else:
            time.sleep(1)
            assert rounds(broker) == 0


@pytest.mark.parametrize("retention", [0, 86_400_000])
def test_how_long_tombstones_stay(retention):
    """The first round sets until when, the second would take it away."""
    cleaning = {"log.cleaner.enable": "true", "log.cleaner.backoff.ms": 50, "log.cleaner.min.cleanable.ratio": 0.001}
    settings = UNCLEANED | cleaning | {"log.cleaner.delete.retention.ms": retention}
    with bare(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1, **CLEANED_AT_ONCE)
        wire.produce("t", 0, keyed([(b"k", b"1"), (b"k", None)]))
        until(lambda: rounds(broker) >= 1, "it is cleaned once")
        wire.produce("t", 0, keyed([(b"l", b"1")]))
        until(lambda: rounds(broker) >= 2, "it is cleaned twice")
        left = wire.fetch([Part("t", 0, 0)], max_wait_ms=10_000).parts["t", 0].records
        kept = sum(count for _, count, _ in batches_in(left))
        assert kept == (1 if retention == 0 else 2), "the tombstone, and what came after it"


# ---- The write-ahead log --------------------------------------------------------------------------------------------


def produce_together(wire, topic, count, one):
    """One request with a batch for each partition."""
    body = struct.pack(">hhi", -1, -1, 30_000) + struct.pack(">ih", 1, len(topic)) + topic.encode() + struct.pack(">i", count)
    for index in range(count):
        body += struct.pack(">ii", index, len(one)) + one
    wire.receive(wire.send(PRODUCE, 7, body, False), False)


@pytest.mark.parametrize("limit", [{}, {"wal.max.group.bytes": 65_536}], ids=["default", "64 KiB"])
def test_the_size_of_groups(limit):
    settings = {"shards": 1, "message.max.bytes": 40_000} | limit
    with bare(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 16)

        def taken(now):
            if metrics.total(now, "thalweg_append_batches_total") >= 16:
                return True
            # On a busy disk some of it is refused.
            return produce_together(wire, "t", 16, batch([b"x" * 30_000]))

        def groups(now, up_to):
            return metrics.total(now, "thalweg_wal_group_bytes_bucket", le=up_to)

        metrics.wait_until(broker, taken)
        series = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_group_bytes_sum") > 16 * 30_000)
        larger = groups(series, "+Inf") - groups(series, "65536")
        assert (larger == 0) == bool(limit), "groups of more than 64 KiB"
        broker.stop()


PACES = {
    "default": ({}, 1_000, 0),
    # One after the other, each an operation; the log may spend 20 ms ahead.
    "iops": ({"wal.max.iops": 20}, 1_000, 1.4),
    "bytes": ({"wal.max.bytes.per.second": 1_000_000}, 50_000, 1.4),
}


def test_the_pace_of_the_log():
    """Thirty produces, one after the other, are faster without a limit, and with one take what it says."""
    took = {}
    for name, (limit, size, _) in PACES.items():
        with bare({"shards": 1} | limit) as broker, Connection(broker.bootstrap) as wire:
            create(broker, "t", 1)
            one = batch([b"x" * size])
            began = time.monotonic()
            for _ in range(30):
                wire.produce("t", 0, one)
            took[name] = time.monotonic() - began
            broker.kill()
    for name, (_, _, least) in PACES.items():
        assert took[name] >= least and (name == "default" or took[name] > took["default"]), took


# ---- Objects --------------------------------------------------------------------------------------------------------


def objects(broker):
    """The objects of data in the directory store."""
    return sorted(path for path in (broker.data / "objects").glob("data/*/*") if path.is_file())


@pytest.mark.parametrize("eager", [{}, {"object.upload.bytes": 1 << 20}, {"object.upload.interval.ms": 100}], ids=["default", "bytes", "interval"])
def test_when_uploads_begin(eager):
    """By default not for a minute, and not for 2 MB; either setting alone begins them."""
    with bare({"shards": 1} | eager) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1)
        one = batch([b"x" * 200_000])
        for _ in range(10 if "object.upload.bytes" in eager else 1):
            wire.produce("t", 0, one)
        if eager:
            grows(broker, "thalweg_upload_objects_total")
            assert objects(broker)
        else:
            for _ in range(9):
                wire.produce("t", 0, one)
            # It is longer than the short interval, and a hundredth of the default one.
            time.sleep(0.6)
            assert metrics.total(metrics.read(broker), "thalweg_upload_objects_total") == 0 and not objects(broker)
        broker.kill()


def cut(settings):
    """[(partitions, blocks)] of the objects that one stop uploads: 200 kB of one partition, 2 kB of another."""
    with bare({"shards": 1} | settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 2)
        for _ in range(10):
            wire.produce("t", 0, batch([b"x" * 20_000]))
        wire.produce("t", 1, batch([b"x" * 2_000]))
        broker.stop()
        told = [inspected(broker, path) for path in objects(broker)]
    return sorted(told)


def inspected(broker, path):
    store, key = str(broker.data / "objects"), path.relative_to(broker.data / "objects")
    command = [broker.binary, "object", "inspect", f"file://{store}/{key}"]
    shown = subprocess.run(command, check=True, text=True, capture_output=True).stdout
    return len(re.findall("^partition ", shown, re.MULTILINE)), len(re.findall("^  block at ", shown, re.MULTILINE))


def test_how_objects_are_cut():
    assert cut({}) == [(2, 2)]
    assert cut({"object.split.bytes": 65_536}) == [(1, 1), (1, 1)]
    ((partitions, blocks),) = cut({"object.block.bytes": 65_536})
    assert partitions == 2 and 3 <= blocks <= 6


COMPACTING = {"object.compaction.enable": "true", "object.compaction.interval.ms": 50, "object.compaction.objects": 5}


@pytest.mark.parametrize(
    "changed, made",
    [
        ({}, {"minor": 1}),
        ({"object.compaction.enable": "false"}, {}),
        ({"object.compaction.interval.ms": 3_600_000}, {}),
        ({"object.compaction.objects": 50}, {}),
        ({"object.compaction.objects": 50, "object.compaction.bytes": 65_536}, {"major": 1}),
        ({"object.compaction.split.bytes": 65_536}, {"minor": 2}),
    ],
    ids=["as set", "off", "seldom", "more uploads", "a smaller object", "split sooner"],
)
def test_when_objects_are_compacted(changed, made):
    """Five uploads of two partitions, of which one has 150 kB in all."""
    settings = {"shards": 1, "object.upload.interval.ms": 50} | COMPACTING | changed
    with bare(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 2)
        for count in range(1, 6):
            wire.produce("t", 0, batch([b"x" * 30_000]))
            wire.produce("t", 1, batch([b"x" * 2_000]))
            # Two batches may go in one upload or in two; what was made of them is what counts.
            in_objects(broker, 32_000 * count)
        if made:
            ((kind, count),) = made.items()
            metrics.wait_until(broker, lambda now: compacted(now, kind) >= count)
        now = metrics.read(broker)
        if not made:
            # Some uploads later; where it is on, it is done by then.
            for count in range(1, 11):
                wire.produce("t", 1, batch([b"x" * 2_000]))
                in_objects(broker, 160_000 + 2_000 * count)
            now = metrics.read(broker)
        assert {kind for kind in ("minor", "major", "split") if compacted(now, kind)} == set(made)


@pytest.mark.parametrize("pace, slow", [(1 << 20, True), (0, False)], ids=["1 MiB a second", "as fast as it goes"])
def test_how_fast_objects_are_compacted(pace, slow):
    """Five uploads of 900 kB each: at 1 MiB a second they are read for two seconds, and written for two."""
    settings = {"shards": 1, "object.upload.interval.ms": 50, "object.compaction.bytes.per.second": pace} | COMPACTING
    with bare(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1)
        for count in range(1, 6):
            wire.produce("t", 0, batch([b"x" * 900_000]))
            in_objects(broker, 900_000 * count)
        metrics.wait_until(broker, lambda now: compacted(now, "minor") >= 1)
        took = metrics.total(metrics.read(broker), "thalweg_compaction_seconds_sum")
        assert (took > 3) == slow, took


def in_objects(broker, payload):
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_upload_bytes_total") >= payload)


def compacted(now, kind):
    return metrics.total(now, "thalweg_compaction_objects_total", kind=kind)


@pytest.mark.parametrize("most, written", [({}, False), ({"metadata.partition.entries.max": 2}, True)], ids=["default", "2"])
def test_when_entries_go_to_manifests(most, written):
    """Ten uploads, which nobody compacts; by default twenty times as many stay as they are."""
    settings = {"shards": 1, "object.upload.interval.ms": 50, "object.compaction.enable": "false"} | most
    with bare(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1)
        for count in range(1, 11):
            wire.produce("t", 0, batch([b"x" * 2_000]))
            in_objects(broker, 2_000 * count)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_object_entries") >= (1 if written else 8))
        if written:
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_manifests_written_total") >= 3)
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_object_entries") <= 2)
        assert (metrics.total(metrics.read(broker), "thalweg_manifests_written_total") > 0) == written


@pytest.mark.parametrize("often", [{}, {"metadata.snapshot.interval.ms": 100}], ids=["default", "100 ms"])
def test_metadata_snapshots(often):
    """One soon after the start; then, while objects are committed, by default no other within a minute."""
    with bare({"shards": 1, "object.upload.interval.ms": 50} | often) as broker, Connection(broker.bootstrap) as wire:
        written = "thalweg_metadata_snapshots_total"
        grows(broker, written)
        create(broker, "t", 1)
        # The topic is in a snapshot within five seconds, whatever the interval.
        before = metrics.total(metrics.wait_until(broker, lambda now: metrics.total(now, written) > 1), written)
        for _ in range(5):
            uploaded = metrics.total(metrics.read(broker), "thalweg_upload_objects_total")
            wire.produce("t", 0, batch([b"x"]))
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_upload_objects_total") > uploaded)
        if often:
            metrics.wait_until(broker, lambda now: metrics.total(now, written) > before + 2)
        else:
            assert metrics.total(metrics.read(broker), written) == before
        broker.stop()
        kept = sorted(path.name for path in (broker.data / "objects" / "metadata").iterdir())
        assert len(kept) == 2, "the newest and the one before it"


@pytest.mark.parametrize("engine, library", [(None, b"object_store"), ("rusoto", b"rusoto_s3"), ("object_store", b"object_store")])
def test_the_library_that_speaks_to_s3(engine, library, s3):
    """Requests say who made them; what one library has stored the other reads."""
    chosen = {"object.store.s3.engine": engine} if engine else {}
    broker = brokers.Thalweg(s3.settings("library") | {"object.upload.interval.ms": 50} | chosen)
    with broker:
        stored(broker, "t", batch([b"x" * 1000]))
        broker.stop()
        asked = set(s3.faults.agents)
        assert len(asked) == 1 and b"(%s)" % library in asked.pop(), s3.faults.agents
        broker.remove_wal()
        broker.settings["object.store.s3.engine"] = "object_store" if library == b"rusoto_s3" else "rusoto"
        broker.start()
        with Connection(broker.bootstrap) as wire:
            until(lambda: b"x" * 1000 in (wire.fetch([Part("t", 0, 0)]).parts["t", 0].records or b""), "what the other library stored is read")
        assert len(s3.faults.agents) == 2, s3.faults.agents
        broker.stop()


@pytest.mark.parametrize("size", [{}, {"metadata.ballast.bytes": 5 << 20}, {"metadata.ballast.bytes": 0}], ids=["default", "5 MiB", "none"])
def test_the_ballast(size):
    """It takes the room that it is told to take."""
    with bare({"shards": 1} | size) as broker:
        wanted = size.get("metadata.ballast.bytes", 32 << 20)
        # The file system's own blocks may come on top.
        assert wanted <= metrics.total(metrics.read(broker), "thalweg_metadata_ballast_bytes") <= wanted * 1.01
        file = broker.data / "ballast"
        assert file.exists() == (wanted > 0)
        assert not wanted or file.stat().st_blocks * 512 >= wanted
        broker.stop()


# ---- Memory ---------------------------------------------------------------------------------------------------------

BIG = 4 << 20


def fill(broker, wire):
    """Four megabytes in one partition."""
    create(broker, "t", 1)
    one = batch([b"x" * (256 << 10)])
    for _ in range(16):
        wire.produce("t", 0, one)


def read_all(wire):
    """Fetches the partition from its start to its end."""
    offset = 0
    while offset < 16:
        part = wire.fetch([Part("t", 0, offset)], max_wait_ms=5_000).parts["t", 0]
        assert part.error == 0
        offset += part.records.count(b"x" * (256 << 10))


@pytest.mark.parametrize("cache", [{}, {"cache.tail.bytes": 65_536}], ids=["default", "64 KiB"])
def test_newest_records_are_in_memory(cache):
    with bare({"shards": 1, "object.upload.interval.ms": NEVER_MS} | cache) as broker, Connection(broker.bootstrap) as wire:
        fill(broker, wire)
        read_all(wire)
        series = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_read_bytes_total") > BIG)
        tail, ring = (metrics.total(series, "thalweg_read_bytes_total", tier=tier) for tier in ("tail", "ring"))
        assert (ring > BIG / 2) if cache else (ring == 0 and tail > BIG), (tail, ring)
        broker.kill()


@pytest.mark.parametrize("cache", [{}, {"cache.read.bytes": 65_536}], ids=["default", "64 KiB"])
def test_what_was_read_from_objects_is_in_memory(cache):
    with bare({"shards": 1} | cache) as broker:
        with Connection(broker.bootstrap) as wire:
            fill(broker, wire)
        broker.stop()
        broker.remove_wal()
        broker.start()
        misses = []
        with Connection(broker.bootstrap) as wire:
            for _ in range(2):
                read_all(wire)
                misses.append(metrics.total(metrics.read(broker), "thalweg_cold_cache_misses_total"))
        assert (misses[1] > misses[0]) == bool(cache), misses
        broker.kill()
