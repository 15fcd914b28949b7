"""Log cleaning: what is left of a compacted topic is what Apache Kafka 4.3.1 leaves of the same records, one by one."""

import contextlib
import random
import struct
import time
from typing import NamedTuple, Optional

import brokers
import confluent_kafka as ck
import messages
import metrics
import pytest
from records import CODECS
from test_librdkafka import admin
from waiting import until
from wire import Connection, Part, Producer, batch_of, batches_in, record

pytestmark = pytest.mark.only_thalweg

# Kafka cleans no segment that is written to: a record this much later than the first of a segment begins the next.
SEGMENT_MS = 1_000
CLEANING = {"log.cleaner.backoff.ms": 100, "log.retention.check.interval.ms": 100, "offsets.topic.num.partitions": 1}
THALWEG = CLEANING | {"shards": 2, "object.upload.interval.ms": 100}
KEPT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.ms": str(SEGMENT_MS)}
# What the object in work, its parts and the map of keys may take, with what the allocator keeps of it.
CLEANING_RESIDENT_BYTES = 192 << 20
HOUR_MS = 3_600_000
EPOCH_MS = int(time.time() * 1000) - HOUR_MS


class Row(NamedTuple):
    """A record as a client gives it, or gets it back."""

    offset: int
    key: bytes
    value: Optional[bytes]
    headers: tuple
    timestamp_ms: int


def rows(seed, count, keys):
    """Few keys, each with many records; tombstones, empty values, headers of one name, some batches without anything new."""
    chance = random.Random(seed)
    made = []
    for offset in range(count):
        key = b"key-%d" % (chance.randrange(keys) if chance.random() < 0.9 else 1_000_000 + chance.randrange(5))
        value = chance.choice([None, b"", b"v" * chance.randrange(300), chance.randbytes(20), b"%d" % offset])
        headers = tuple(("name", chance.choice([None, b"", b"%d" % n])) for n in range(chance.randrange(3)))
        # Not in order.
        made.append(Row(offset, key, value, headers, EPOCH_MS + offset * 7 + chance.randrange(50)))
    return made


def write(broker, topic, some, codec="none"):
    failed = []
    producer = ck.Producer({
        "bootstrap.servers": broker.bootstrap, "compression.type": codec, "linger.ms": 5, "batch.num.messages": 40,
        "enable.idempotence": True,
    })
    for row in some:
        producer.produce(
            topic, row.value, row.key, 0, timestamp=row.timestamp_ms, headers=list(row.headers),
            on_delivery=lambda error, _message: failed.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0 and not failed, failed[:3]


def read(broker, topic):
    """All that is left, from the log's start to its end."""
    consumer = ck.Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "reads", "enable.auto.commit": False, "enable.partition.eof": True,
    })
    consumer.assign([ck.TopicPartition(topic, 0, ck.OFFSET_BEGINNING)])
    found, last = [], time.monotonic() + 60
    while time.monotonic() < last:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == ck.KafkaError._PARTITION_EOF, message.error()
            consumer.close()
            return found
        headers = tuple(message.headers() or ())
        found.append(Row(message.offset(), message.key(), message.value(), headers, message.timestamp()[1]))
    raise AssertionError(f"{topic} has no end")


def newest(some, tombstones=True):
    last = {row.key: row for row in some if row.key is not None}
    return sorted(row for row in last.values() if tombstones or row.value is not None)


def alter(broker, topic, **settings):
    set_to = ck.admin.AlterConfigOpType.SET
    entries = [ck.admin.ConfigEntry(name, value, incremental_operation=set_to) for name, value in settings.items()]
    resource = ck.admin.ConfigResource(ck.admin.ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin(broker).incremental_alter_configs([resource])[resource].result(30)


def later(some, by_ms):
    """The same records, of a later time (or, below 0, an earlier one)."""
    return [row._replace(timestamp_ms=row.timestamp_ms + by_ms) for row in some]


def behind(some, offset):
    """The same records, where the log has come to this offset."""
    return [row._replace(offset=offset + n) for n, row in enumerate(some)]


def log_start(broker, topic):
    with Connection(broker.bootstrap) as wire:
        (part,) = messages.offsets(wire, topic, [(0, -2)])
        return part.Offset


def uploaded(broker):
    """Waits until the log holds nothing that no object has."""
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0, 60)


def create(broker, topic, **settings):
    config = KEPT | settings
    for future in admin(broker).create_topics([ck.admin.NewTopic(topic, 1, 1, config=config)]).values():
        future.result(30)


class Both:
    """The same records for both brokers."""

    def __init__(self, thalweg, kafka):
        self.brokers = [thalweg, kafka]
        self.sent = {}

    def create(self, topic, **settings):
        for broker in self.brokers:
            create(broker, topic, **settings)
        self.sent[topic] = []

    def write(self, topic, some, codec="none"):
        self.sent[topic] += some
        for broker in self.brokers:
            write(broker, topic, some, codec)

    def roll(self, topic):
        """One more record, so late that Kafka begins another segment with it."""
        offset = len(self.sent[topic])
        later = max(row.timestamp_ms for row in self.sent[topic]) + 10 * SEGMENT_MS
        self.write(topic, [Row(offset, b"roll-%d" % offset, b"", (), later)])

    def alter(self, topic, **settings):
        for broker in self.brokers:
            alter(broker, topic, **settings)

    def are(self, topic, wanted):
        """Both come to this."""

        def same():
            return all(read(broker, topic) == wanted for broker in self.brokers)

        until(same, f"{topic} is cleaned", 60)

    def left(self, topic, **expected):
        """Both come to the same; what that is."""
        wanted = newest(self.sent[topic], **expected)
        self.are(topic, wanted)
        return wanted

    def cleaned_elsewhere(self):
        """Waits until both have looked for work, twice at least: a topic that needs cleaning got it."""
        topic = f"other-{len(self.sent)}"
        self.create(topic)
        for _ in range(2):
            self.write(topic, behind(rows(9, 50, 3), len(self.sent[topic])))
            self.roll(topic)
            self.left(topic)

    def starts(self, topic):
        """Where the logs start."""
        return [log_start(broker, topic) for broker in self.brokers]


@pytest.fixture(scope="module")
def both():
    with brokers.Thalweg(THALWEG) as thalweg, brokers.Kafka(CLEANING) as kafka:
        yield Both(thalweg, kafka)
        thalweg.stop()
        kafka.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("codec", CODECS)
def test_of_each_key_the_newest_stays(both, codec):
    topic = f"newest-{codec}"
    both.create(topic)
    some = rows(1, 1_500, 60)
    both.write(topic, some[:900], codec)
    both.roll(topic)
    both.left(topic)
    # Again, with records of some of the same keys.
    both.write(topic, behind(later(some[900:], 20 * SEGMENT_MS), 901), codec)
    both.roll(topic)
    left = both.left(topic)
    assert len(left) < 100 and any(row.value is None for row in left) and any(row.headers for row in left)


@pytest.mark.timeout(300)
def test_tombstones_go_when_they_were_there_for_long_enough(both):
    topic = "deleted"
    both.create(topic, **{"delete.retention.ms": "500"})
    both.write(topic, rows(2, 800, 40), "lz4")
    both.roll(topic)
    tombstones = {row.offset for row in newest(both.sent[topic]) if row.value is None}
    assert len(tombstones) > 3

    def gone():
        # The first round sets their horizon, one after it takes them away; each wants something new.
        both.roll(topic)
        time.sleep(0.5)
        return all(not tombstones & {row.offset for row in read(broker, topic)} for broker in both.brokers)

    until(gone, "tombstones are gone", 90)
    both.roll(topic)
    both.left(topic, tombstones=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name, held, freed", [
    ("min.cleanable.dirty.ratio", {"min.cleanable.dirty.ratio": "1"}, "0.01"),
    ("min.compaction.lag.ms", {"min.compaction.lag.ms": str(24 * HOUR_MS)}, "0"),
    # Never dirty enough, but old.
    ("max.compaction.lag.ms", {"min.cleanable.dirty.ratio": "1"}, str(HOUR_MS // 2)),
])
def test_a_setting_that_holds_cleaning_back_is_altered(both, name, held, freed):
    """It acts without a restart, on what was there before."""
    topic = f"altered-{name}"
    both.create(topic, **held)
    both.write(topic, rows(11, 600, 30))
    both.roll(topic)
    uploaded(both.brokers[0])
    both.cleaned_elsewhere()
    assert all(read(broker, topic) == both.sent[topic] for broker in both.brokers), "it is held back"
    both.alter(topic, **{name: freed})
    both.left(topic)


@pytest.mark.timeout(300)
def test_how_long_tombstones_stay_is_altered(both):
    """For those that no cleaning has seen; the others stay as long as was said when one saw them."""
    topic = "altered-delete.retention.ms"
    both.create(topic, **{"delete.retention.ms": str(24 * HOUR_MS)})
    both.write(topic, [row._replace(key=b"first-" + row.key) for row in rows(12, 400, 40)])
    both.roll(topic)
    first = [row for row in both.left(topic) if row.value is None]
    both.alter(topic, **{"delete.retention.ms": "500"})
    second = rows(13, 400, 40)
    both.write(topic, behind(later(second, 30 * SEGMENT_MS), len(both.sent[topic])))
    gone = {row.offset for row in newest(both.sent[topic]) if row.value is None} - {row.offset for row in first}
    assert len(first) > 3 and len(gone) > 3

    def are_gone():
        both.roll(topic)
        return all(not gone & {row.offset for row in read(broker, topic)} for broker in both.brokers)

    until(are_gone, "the later tombstones are gone", 90)
    both.roll(topic)
    both.are(topic, [row for row in newest(both.sent[topic]) if row.offset not in gone])


def old_and_young(both, topic, seeds, age_hours, codec):
    """Records of so long ago, which are cleaned, and behind them some of now, which are too young for it; answers what was sent of both."""
    both.write(topic, later(rows(seeds[0], 600, 30), -age_hours * HOUR_MS), codec)
    both.roll(topic)
    uploaded(both.brokers[0])
    old = list(both.sent[topic])
    both.write(topic, behind(rows(seeds[1], 600, 30), len(old)), codec)
    both.roll(topic)
    young = both.sent[topic][len(old):]
    both.are(topic, newest(old) + young)
    return old, young


@pytest.mark.timeout(300)
def test_what_is_too_young_is_not_cleaned(both):
    """`min.compaction.lag.ms`: what is older is cleaned by itself, as if nothing came behind it."""
    topic = "young"
    both.create(topic, **{"min.compaction.lag.ms": str(2 * HOUR_MS)})
    old, young = old_and_young(both, topic, (14, 15), 2, "zstd")
    both.cleaned_elsewhere()
    both.are(topic, newest(old) + young)


@pytest.mark.timeout(300)
def test_compact_and_delete_in_one_topic(both):
    """It is cleaned, and what is too old goes by retention, whether it was cleaned or not."""
    topic = "compact-and-delete"
    both.create(topic, **{"cleanup.policy": "compact,delete", "retention.ms": "-1", "min.compaction.lag.ms": str(2 * HOUR_MS)})
    old, young = old_and_young(both, topic, (16, 17), 3, "lz4")
    assert both.starts(topic) == [0, 0]
    both.alter(topic, **{"retention.ms": str(3 * HOUR_MS)})
    both.are(topic, young)
    assert both.starts(topic) == [len(old)] * 2
    both.alter(topic, **{"min.compaction.lag.ms": "0"})
    both.are(topic, newest(young))
    # What was cleaned goes, and the topic goes on.
    both.alter(topic, **{"retention.ms": str(HOUR_MS // 2)})
    both.are(topic, [])
    end = len(both.sent[topic])
    assert both.starts(topic) == [end, end]
    both.alter(topic, **{"retention.ms": str(3 * HOUR_MS)})
    both.write(topic, behind(later(rows(18, 300, 30), 20 * SEGMENT_MS), end), "lz4")
    both.roll(topic)
    both.are(topic, newest(both.sent[topic][end:]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_records_without_a_key_go_when_their_topic_becomes_compacted(both, codec):
    topic = f"keyless-{codec}"
    both.create(topic, **{"cleanup.policy": "delete"})
    chance = random.Random(19)
    both.write(topic, [row._replace(key=None) if chance.random() < 0.4 else row for row in rows(19, 600, 30)], codec)
    # A batch of nothing else, and the end of what is there.
    both.write(topic, behind([Row(0, None, b"keyless", (), EPOCH_MS + 5 * SEGMENT_MS)] * 40, 600), codec)
    both.alter(topic, **{"cleanup.policy": "compact"})
    both.roll(topic)
    left = both.left(topic)
    assert all(row.key for row in left) and len(left) > 20


@pytest.mark.timeout(300)
def test_a_producer_whose_last_batch_was_emptied_goes_on_after_a_restart(both):
    topic = "emptied"
    both.create(topic)

    def batch(key, sequence, at_ms):
        return batch_of(record(0, b"value", key), 1, at_ms, at_ms, Producer(77_000, 0, sequence))

    def told(sequence):
        """The batch again, or the next, on both: error and offset."""
        answers = []
        for broker in both.brokers:
            with Connection(broker.bootstrap) as wire:
                (part,) = messages.produce(wire, topic, {0: batch(b"k", sequence, EPOCH_MS + sequence)}).values()
                answers.append((part.ErrorCode, part.BaseOffset))
        return answers

    for sequence in range(3):
        assert told(sequence) == [(0, sequence)] * 2
    both.sent[topic] = [Row(n, b"k", b"value", (), EPOCH_MS + n) for n in range(3)]
    # Of the producer's records none stays.
    both.write(topic, [Row(3, b"k", b"of another", (), EPOCH_MS + 500)])
    both.roll(topic)
    both.left(topic)
    for broker in both.brokers:
        broker.stop()
    # Objects are enough.
    both.brokers[0].remove_wal()
    for broker in both.brokers:
        broker.start()
    both.left(topic)
    first, last = told(2), told(4)
    assert first == [(0, 2)] * 2, f"its last batch is known, though nothing is left of it: {first}"
    assert last == [(45, -1)] * 2, f"a gap in its sequence: {last}"
    both.are(topic, newest(both.sent[topic]))
    assert told(3) == [(0, 5)] * 2
    both.sent[topic].append(Row(5, b"k", b"value", (), EPOCH_MS + 3))
    both.roll(topic)
    both.left(topic)


@pytest.mark.timeout(300)
def test_offsets_of_a_deleted_group_go_from_the_log(both):
    """Of the group nothing is left in `__consumer_offsets` but that it is gone; another has its newest."""
    log = "__consumer_offsets"
    both.create("committed")

    def group(broker, name):
        return ck.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": name, "enable.auto.commit": False})

    def commit(client, offset):
        client.commit(offsets=[ck.TopicPartition("committed", 0, offset)], asynchronous=False)

    def known(broker):
        """The offsets of both groups; nothing while Kafka still reads its log."""
        told = []
        for name in ("gone", "kept"):
            client = group(broker, name)
            with contextlib.suppress(ck.KafkaException):
                told += client.committed([ck.TopicPartition("committed", 0)], 30)
            client.close()
        return [part.offset for part in told]

    def offsets_key(name):
        """OffsetCommitKey, version 1."""
        return b"".join([b"\0\1", *(struct.pack(">h", len(text)) + text for text in (name, b"committed")), bytes(4)])

    def left(broker, name):
        """Of each record of the group's offset whether it is a tombstone."""
        return [row.value is None for row in read(broker, log) if row.key == offsets_key(name)]

    for broker in both.brokers:
        gone, kept = group(broker, "gone"), group(broker, "kept")
        for offset in range(1, 6):
            commit(gone, offset)
            commit(kept, offset)
        gone.close()
        admin(broker).delete_consumer_groups(["gone"])["gone"].result(30)
        alter(broker, log, **{"min.cleanable.dirty.ratio": "0.001", "segment.ms": str(SEGMENT_MS)})

        def is_cleaned(broker=broker, kept=kept):
            # With a commit that comes later Kafka begins another segment, which is not cleaned.
            commit(kept, 7)
            return left(broker, b"gone") == [True]

        until(is_cleaned, f"{broker.name}: {log} is cleaned", 60)
        kept.close()
        assert known(broker) == [ck.OFFSET_INVALID, 7]
        broker.stop()
        broker.start()
        until(lambda broker=broker: known(broker) == [ck.OFFSET_INVALID, 7], "the groups are as they were")


@pytest.mark.timeout(300)
def test_rounds_that_have_room_for_some_keys_come_to_the_same():
    some = rows(3, 1_500, 200)
    settings = THALWEG | {"log.cleaner.dedupe.buffer.size": 1 << 20, "log.cleaner.io.buffer.load.factor": 0.001}
    with brokers.Thalweg(settings) as broker:
        create(broker, "narrow")
        write(broker, "narrow", some, "zstd")
        until(lambda: read(broker, "narrow") == newest(some), "it is cleaned", 60)
        # A thousandth of the 43,690 keys that 1 MiB has room for.
        rounds = metrics.total(metrics.read(broker), "thalweg_cleaner_rounds_total")
        assert rounds > 5, rounds
        for stop in (broker.stop, broker.kill):
            stop()
            if stop == broker.stop:
                # Objects are enough.
                broker.remove_wal()
            broker.start()
            assert read(broker, "narrow") == newest(some)
        broker.stop()


@pytest.mark.timeout(3000)
def test_a_log_larger_than_the_memory_of_its_cleaning(request):
    """Of records, keys and objects, memory holds a part; what it takes is bounded, and the newest of each key stays."""
    count = request.config.getoption("--megabytes") * 1000
    settings = {
        "shards": 2, "log.cleaner.backoff.ms": 1_000, "log.cleaner.dedupe.buffer.size": 1 << 20, "cache.tail.bytes": 16 << 20,
        "object.compaction.bytes": 32 << 20, "object.compaction.bytes.per.second": 0, "object.upload.bytes": 4 << 20,
    }
    chance, filler, newest_at = random.Random(5), random.Random(6).randbytes(1 << 20), {}
    with brokers.Thalweg(settings) as broker:
        create(broker, "large", **{"min.cleanable.dirty.ratio": "0.2"})
        producer = ck.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "enable.idempotence": True})
        for offset in range(count):
            key, at = chance.randrange(count // 2), chance.randrange(len(filler) - 1000)
            newest_at[key] = offset
            while True:
                try:
                    producer.produce("large", filler[at:at + 1000], str(key), 0)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(120) == 0
        before = most = broker.resident_bytes()

        def done():
            nonlocal most
            most = max(most, broker.resident_bytes())
            now = metrics.read(broker)
            waits = metrics.total(now, "thalweg_wal_trim_lag_bytes") > 8 << 20
            return not waits and max(metrics.grown({}, now, "thalweg_cleaner_dirty_ratio").values(), default=1) < 0.2

        until(done, "all is cleaned but what may stay", 60 + count / 1000)
        now = metrics.read(broker)
        left, dirty = {}, 0
        consumer = ck.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reads", "enable.partition.eof": True})
        consumer.assign([ck.TopicPartition("large", 0, ck.OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(30)
            if message.error():
                assert message.error().code() == ck.KafkaError._PARTITION_EOF, message.error()
                break
            left[int(message.key())] = message.offset()
            dirty += 1
        consumer.close()
        print(
            f"{count} records of 1 kB, {len(newest_at)} keys: {metrics.total(now, 'thalweg_cleaner_rounds_total'):.0f} rounds read "
            f"{metrics.total(now, 'thalweg_cleaner_read_bytes_total') / 2**20:.0f} MiB and wrote "
            f"{metrics.total(now, 'thalweg_cleaner_written_bytes_total') / 2**20:.0f}; {dirty} records are left; resident before "
            f"{before / 2**20:.0f} MiB, at most {most / 2**20:.0f}"
        )
        assert left == newest_at
        assert dirty < count
        assert metrics.total(now, "thalweg_cleaner_rounds_total") > 1
        assert most < before + CLEANING_RESIDENT_BYTES
        broker.stop()


@pytest.mark.timeout(300)
def test_offsets_of_groups_are_cleaned_and_not_lost():
    with brokers.Thalweg(THALWEG) as broker:
        create(broker, "t")
        consumer = ck.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "g", "enable.auto.commit": False})

        def commit(offset):
            consumer.commit(offsets=[ck.TopicPartition("t", 0, offset)], asynchronous=False)

        def rounds():
            return metrics.total(metrics.read(broker), "thalweg_cleaner_rounds_total")

        offset = 0
        while rounds() < 3:
            offset += 1
            commit(offset)
        broker.kill()
        broker.start()
        known = consumer.committed([ck.TopicPartition("t", 0)], timeout=30)[0].offset
        assert known == offset
        consumer.close()
        kept = len(read(broker, "__consumer_offsets"))
        assert kept < offset, (kept, offset)
        broker.stop()


@pytest.mark.timeout(300)
def test_a_batch_that_cannot_be_unpacked_leaves_its_partition_as_it_is():
    """It says gzip and is none: the broker looks into compressed batches of compacted topics only, and the topic became one later."""
    with brokers.Thalweg(THALWEG) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "odd", **{"cleanup.policy": "delete"})
        create(broker, "sound")
        wire.produce("odd", 0, batch_of(b"no gzip", 1, EPOCH_MS, EPOCH_MS, attributes=1))
        alter(broker, "odd", **{"cleanup.policy": "compact"})
        some = rows(4, 300, 10)
        for topic in ("odd", "sound"):
            write(broker, topic, some)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_cleaner_uncleanable_partitions") == 1)
        until(lambda: read(broker, "sound") == newest(some), "the other topic is cleaned")
        offset = kept = 0
        while offset < 301:
            fetched = wire.fetch([Part("odd", 0, offset)], max_wait_ms=10_000).parts["odd", 0]
            for base, count, _ in batches_in(fetched.records):
                kept, offset = kept + count, base + count
        assert kept == 301
        assert broker.fresh_log().count("the log of this partition cannot be cleaned") == 1
        broker.stop()
