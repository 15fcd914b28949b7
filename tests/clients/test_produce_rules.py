"""What Produce takes and what it refuses (PROTOCOL: Produce k0, Stored verbatim), byte by byte. Runs against any broker."""

import gzip
import time
import zlib

import messages
import pytest
from test_fetch import create
from wire import Part, batch, batch_of, batches_in, record

HOUR_MS = 3_600_000
GZIP, SNAPPY, ZSTD, STAMPED, TRANSACTIONAL, CONTROL = 1, 2, 4, 8, 16, 32


def now_ms():
    return int(time.time() * 1000)


def told(wire, topic, records, index=0, **more):
    """What is told of one partition."""
    return messages.produce(wire, topic, {index: records}, **more)[index]


ONE = record(0, b"value", b"key")
TWO = ONE + record(1, b"value", b"key")
WRONG = {
    "none": (b"", 87),
    "null": (None, 87),
    "two": (batch_of(ONE, 1, 5, 5) * 2, 87),
    "magic-1": (batch_of(ONE, 1, 5, 5, magic=1), 87),
    "base-offset": (batch_of(ONE, 1, 5, 5, base=7), 87),
    "control": (batch_of(ONE, 1, 5, 5, attributes=CONTROL), 87),
    "no-records": (batch_of(b"", 0, 5, 5), 87),
    "fewer-than-said": (batch_of(ONE, 2, 5, 5), 87),
    "more-than-said": (batch_of(TWO, 1, 5, 5), 87),
    "last-delta": (batch_of(TWO, 2, 5, 5, last_delta=2), 87),
    "gap-in-deltas": (batch_of(ONE + record(2, b"x"), 2, 5, 5), 87),
    "no-sequence": (batch_of(ONE, 1, 5, 5, producer=(5, 0, -1)), 87),
    "crc": (batch_of(ONE, 1, 5, 5, crc=1), 2),
}
# Thalweg looks into uncompressed batches and trusts the heads of compressed ones; Kafka numbers the records of the former anew.
KAFKA_DIFFERS = {"null": "Kafka does not answer at all", "gap-in-deltas": "Kafka takes it when it is not compressed"}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_batch_is_refused(broker, wire, topic, fault):
    """And another partition of the same request is none the worse."""
    create(broker, topic, 2)
    if broker.name == "kafka" and fault in KAFKA_DIFFERS:
        pytest.skip(KAFKA_DIFFERS[fault])
    records, error = WRONG[fault]
    answer = messages.produce(wire, topic, {0: records, 1: batch([b"sound"])})
    assert (answer[0].ErrorCode, answer[1].ErrorCode) == (error, 0)
    assert (answer[0].BaseOffset, answer[0].LogAppendTimeMs) == (-1, -1)
    assert [part.Offset for part in messages.offsets(wire, topic, [(0, -1), (1, -1)])] == [0, 1]


@pytest.mark.parametrize("acks", [2, -2, 7])
def test_other_acks_are_refused(broker, wire, topic, acks):
    create(broker, topic, 2)
    answer = messages.produce(wire, topic, {0: batch([b"x"]), 1: batch([b"x"])}, acks=acks)
    assert [part.ErrorCode for part in answer.values()] == [21, 21]
    assert [part.Offset for part in messages.offsets(wire, topic, [(0, -1), (1, -1)])] == [0, 0]


def test_strangers_have_their_codes(broker, wire, topic):
    create(broker, topic, 1)
    topic_id, _ = wire.topic_id(topic)
    one = batch([b"x"])
    assert told(wire, topic, one, index=1).ErrorCode == 3
    assert told(wire, "no-such-topic", one).ErrorCode == 3
    assert told(wire, topic_id, one, version=13).ErrorCode == 0
    assert told(wire, b"\7" * 16, one, version=13).ErrorCode == 100
    assert told(wire, topic_id, one, index=1, version=13).ErrorCode == 3


def test_the_limit_of_a_batch_counts_all_of_it(broker, wire, topic):
    overhead = len(batch([b"x" * 900]))
    create(broker, topic, 1, max_message_bytes=overhead)
    assert told(wire, topic, batch([b"x" * 900])).ErrorCode == 0
    assert told(wire, topic, batch([b"x" * 901])).ErrorCode == 10


def test_zstd_has_its_version(broker, wire, topic):
    create(broker, topic, 1, compression_type="zstd")
    # A zstd frame without compression: magic, a head that tells the content's size, one raw block.
    assert len(ONE) < 256
    frame = b"\x28\xb5\x2f\xfd\x20" + bytes([len(ONE)]) + (len(ONE) << 3 | 1).to_bytes(3, "little") + ONE
    sent = batch_of(frame, 1, 5, 5, attributes=ZSTD)
    assert told(wire, topic, sent, version=6).ErrorCode == 76
    assert told(wire, topic, sent, version=7).ErrorCode == 0
    # Read below version 10, it is refused as well.
    part = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}
    # Kafka refused this up to its version 3.
    for version, error in [(9, 76 if broker.name == "thalweg" else 0), (10, 0)]:
        answer = messages.ask(
            wire, "Fetch", version, ReplicaId=-1, MaxWaitMs=0, MinBytes=1, Topics=[{"Topic": topic, "Partitions": [part]}]
        )
        assert answer.Responses[0].Partitions[0].ErrorCode == error, f"version {version}"


def compressed(codec, records):
    return {0: lambda data: data, GZIP: gzip.compress}[codec](records)


@pytest.mark.parametrize("codec", [0, GZIP], ids=["plain", "gzip"])
def test_timestamps_out_of_range_are_told_record_by_record(broker, wire, topic, codec):
    create(broker, topic, 1, message_timestamp_before_max_ms=HOUR_MS)
    now = now_ms()

    def of(*deltas):
        records = b"".join(record(n, b"v", time_delta=delta) for n, delta in enumerate(deltas))
        return batch_of(compressed(codec, records), len(deltas), now, now + max(deltas), attributes=codec)

    assert told(wire, topic, of(0, 60_000 - HOUR_MS, HOUR_MS - 60_000)).ErrorCode == 0
    for deltas, wrong in [((0, 2 * HOUR_MS), [1]), ((-2 * HOUR_MS, 0, 2 * HOUR_MS), [0, 2])]:
        answer = told(wire, topic, of(*deltas))
        assert (answer.ErrorCode, [error.BatchIndex for error in answer.RecordErrors]) == (32, wrong)
        assert answer.ErrorMessage == "One or more records have been rejected due to invalid timestamp"
        assert all("is out of range" in error.BatchIndexErrorMessage for error in answer.RecordErrors)
    # No timestamp is always taken.
    assert told(wire, topic, batch_of(compressed(codec, ONE), 1, -1, -1, attributes=codec)).ErrorCode == 0
    assert messages.offsets(wire, topic, [(0, -1)])[0].Offset == 4


@pytest.mark.parametrize("codec", [0, GZIP], ids=["plain", "gzip"])
def test_the_future_is_limited_by_default_and_the_past_is_not(broker, wire, topic, codec):
    create(broker, topic, 1)
    for time_ms, error in [(1, 0), (now_ms() + HOUR_MS - 60_000, 0), (now_ms() + HOUR_MS + 60_000, 32)]:
        answer = told(wire, topic, batch_of(compressed(codec, ONE), 1, time_ms, time_ms, attributes=codec))
        assert (answer.ErrorCode, [e.BatchIndex for e in answer.RecordErrors]) == (error, [0] if error else [])
    # What a head says of a greatest time is not what counts: the record's own is.
    sent = batch_of(compressed(codec, ONE), 1, 1_000, now_ms() + 2 * HOUR_MS, attributes=codec)
    assert told(wire, topic, sent).ErrorCode == 0
    assert messages.offsets(wire, topic, [(0, -3)])[0].Offset == 1
    assert messages.offsets(wire, topic, [(0, now_ms() + HOUR_MS)])[0].Offset == -1


def test_the_bit_of_log_append_time_is_the_topics(broker, wire, topic):
    """A producer that sets it is not believed where the topic keeps the times of producers, and refused where it does not."""
    create(broker, topic, 1)
    assert told(wire, topic, batch_of(ONE, 1, 5, 5, attributes=STAMPED)).ErrorCode == 0
    stored = wire.fetch([Part(topic, 0, 0)]).parts[topic, 0].records
    assert stored[22] & STAMPED == 0
    other = topic + "-stamps"
    create(broker, other, 1, message_timestamp_type="LogAppendTime")
    assert told(wire, other, batch_of(ONE, 1, 5, 5, attributes=STAMPED)).ErrorCode == 32


def test_log_append_time_is_told_and_exempt(broker, wire, topic):
    create(broker, topic, 1, message_timestamp_type="LogAppendTime", message_timestamp_before_max_ms=1000)
    before = now_ms()
    for codec in (0, GZIP):
        answer = told(wire, topic, batch_of(compressed(codec, TWO), 2, 1, now_ms() + 5 * HOUR_MS, attributes=codec))
        assert answer.ErrorCode == 0 and before <= answer.LogAppendTimeMs <= now_ms() + 1000
    stored = wire.fetch([Part(topic, 0, 0)]).parts[topic, 0].records
    for _ in range(2):
        length = int.from_bytes(stored[8:12], "big")
        attributes, greatest = int.from_bytes(stored[21:23], "big"), int.from_bytes(stored[35:43], "big")
        assert attributes & STAMPED and before <= greatest <= now_ms() + 1000
        stored = stored[12 + length :]


def test_what_a_batch_is_told_to_be_stored_as_is_what_its_records_are(broker, wire, topic):
    """Headers of one name twice, empty and null ones, survive another codec byte by byte; nothing is encoded anew."""
    create(broker, topic, 1, compression_type="gzip")
    headers = [(b"a", b"1"), (b"b", None), (b"a", b"2"), (b"", b""), (b"a", b"1")]
    records = record(0, b"v", b"k", headers) + record(1, None, None, headers[::-1], time_delta=7)
    for attributes, body in [(0, records), (GZIP, gzip.compress(records, 1))]:
        assert told(wire, topic, batch_of(body, 2, 5, 12, attributes=attributes)).ErrorCode == 0
    stored = wire.fetch([Part(topic, 0, 0)]).parts[topic, 0].records
    assert len(batches_in(stored)) == 2
    while stored:
        end = 12 + int.from_bytes(stored[8:12], "big")
        assert int.from_bytes(stored[21:23], "big") & 7 == GZIP
        assert zlib.decompress(stored[61:end], 31) == records
        stored = stored[end:]


@pytest.mark.parametrize("codec", [0, GZIP], ids=["plain", "gzip"])
def test_null_keys_of_compacted_topics_are_told_record_by_record(broker, wire, topic, codec):
    create(broker, topic, 1, cleanup_policy="compact")
    records = record(0, b"v", b"k") + record(1, b"v") + record(2, b"v", b"") + record(3, b"v")
    answer = told(wire, topic, batch_of(compressed(codec, records), 4, 5, 5, attributes=codec))
    assert (answer.ErrorCode, [error.BatchIndex for error in answer.RecordErrors]) == (87, [1, 3])
    assert told(wire, topic, batch_of(compressed(codec, TWO), 2, 5, 5, attributes=codec)).ErrorCode == 0


def test_what_is_answered_of_a_produce(broker, wire, topic):
    create(broker, topic, 1)
    for base in (0, 2):
        answer = told(wire, topic, batch_of(TWO, 2, 5, 5))
        assert (answer.ErrorCode, answer.BaseOffset, answer.LogStartOffset, answer.LogAppendTimeMs) == (0, base, 0, -1)
        assert (answer.RecordErrors, answer.ErrorMessage) == ([], None)
    for version in range(3, 13):
        answer = told(wire, topic, batch_of(ONE, 1, 5, 5), version=version)
        assert (answer.ErrorCode, answer.BaseOffset) == (0, 4 + version - 3)
