"""ListOffsets and DeleteRecords (PROTOCOL: k2, k21): offsets by time and by special value, and where a log begins. Runs against
any broker."""

import contextlib
import gzip
import time

import brokers
import messages
import pytest
from test_fetch import create
from wire import Connection, Part, batch, batch_of, batches_in, record

LATEST, EARLIEST, GREATEST, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -3, -4, -5
T = 1_700_000_000_000


def timed(*times, value=b"v"):
    """A batch of records of these times, the first with this value."""
    records = b"".join(record(n, b"v" if n else value, time_delta=t - times[0]) for n, t in enumerate(times))
    return batch_of(records, len(times), times[0], max(times))


def found(wire, topic, time_ms, **more):
    """(error, offset, timestamp)."""
    (part,) = messages.offsets(wire, topic, [(0, time_ms)], **more)
    return part.ErrorCode, part.Offset, part.Timestamp


def test_special_values(broker, wire, topic):
    create(broker, topic, 1)
    assert found(wire, topic, GREATEST) == (0, -1, -1), "of an empty log"
    assert found(wire, topic, LATEST) == found(wire, topic, EARLIEST) == (0, 0, -1)
    for batch_times in [(T, T + 5), (T + 9, T + 2, T + 9), (T + 9,), (T + 1,)]:
        wire.produce(topic, 0, timed(*batch_times))
    assert found(wire, topic, LATEST) == (0, 7, -1)
    assert found(wire, topic, LATEST, isolation=1) == (0, 7, -1), "there are no transactions: all is stable"
    assert found(wire, topic, EARLIEST) == (0, 0, -1)
    assert found(wire, topic, GREATEST) == (0, 2, T + 9), "the first of those with the greatest time"
    assert found(wire, topic, EARLIEST_LOCAL) == (0, 0, -1)
    assert found(wire, topic, LATEST_TIERED) == (0, -1, -1)
    epoch = wire.topic_id(topic)[1][0]
    for special in (LATEST, EARLIEST, GREATEST, EARLIEST_LOCAL):
        assert messages.offsets(wire, topic, [(0, special)])[0].LeaderEpoch == epoch, special


def test_each_version_has_its_special_values(broker, wire, topic):
    create(broker, topic, 1)
    wire.produce(topic, 0, timed(T))
    for special, since in [(LATEST, 1), (EARLIEST, 1), (GREATEST, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9)]:
        for version in range(1, 11):
            error = found(wire, topic, special, version=version)[0]
            assert error == (0 if version >= since else 35), f"{special} in version {version}"
    assert found(wire, topic, -9)[0] == 35


def test_the_first_record_that_is_as_young(broker, wire, topic):
    create(broker, topic, 1)
    for batch_times in [(T + 10, T + 5, T + 20), (T + 15, T + 30), (T + 7,)]:
        wire.produce(topic, 0, timed(*batch_times))
    for asked, offset, stamp in [
        (0, 0, T + 10), (T + 10, 0, T + 10), (T + 11, 2, T + 20), (T + 20, 2, T + 20), (T + 21, 4, T + 30), (T + 30, 4, T + 30),
    ]:  # fmt: skip
        for version in range(1, 11):
            assert found(wire, topic, asked, version=version) == (0, offset, stamp), f"{asked - T} in version {version}"
    assert found(wire, topic, T + 31) == (0, -1, -1), "nothing is as young, and that is no error"


def test_a_look_up_begins_at_the_start_of_the_log(broker, wire, topic):
    create(broker, topic, 1)
    wire.produce(topic, 0, timed(T + 9, T + 8, T + 7, T + 6))
    wire.produce(topic, 0, timed(T + 5))
    assert delete_records(wire, topic, 2) == (0, 2)
    assert found(wire, topic, EARLIEST) == found(wire, topic, EARLIEST_LOCAL) == (0, 2, -1)
    if broker.name == "thalweg":
        # Kafka finds what lies below the start, in the batch that the log begins within.
        assert found(wire, topic, T) == (0, 2, T + 7)
    assert delete_records(wire, topic, -1) == (0, 5)
    assert found(wire, topic, LATEST) == found(wire, topic, EARLIEST) == (0, 5, -1)
    if broker.name == "thalweg":
        assert found(wire, topic, GREATEST) == found(wire, topic, T) == (0, -1, -1)


def test_the_brokers_times_are_found_at_the_start_of_their_batch(broker, wire, topic):
    create(broker, topic, 1, message_timestamp_type="LogAppendTime")
    stamps = []
    for _ in range(3):
        part = messages.produce(wire, topic, {0: timed(T, T + 7)})[0]
        stamps.append(part.LogAppendTimeMs)
        while int(time.time() * 1000) <= stamps[-1]:
            time.sleep(0.001)
    assert stamps == sorted(set(stamps))
    for n, stamp in enumerate(stamps):
        assert found(wire, topic, stamp) == (0, 2 * n, stamp)
    assert found(wire, topic, stamps[1] + 1)[:2] == (0, 4)
    assert found(wire, topic, GREATEST) == (0, 4, stamps[2])
    assert found(wire, topic, stamps[2] + 1) == (0, -1, -1)


def test_what_cannot_be_looked_up(broker, wire, topic):
    create(broker, topic, 3)
    wire.produce(topic, 0, timed(T))
    epoch = wire.topic_id(topic)[1][0]
    assert found(wire, topic, LATEST, epoch=epoch)[0] == 0
    assert found(wire, topic, LATEST, epoch=epoch + 1) == (75, -1, -1)
    if epoch > 0:
        assert found(wire, topic, LATEST, epoch=epoch - 1) == (74, -1, -1)
    assert found(wire, "no-such-topic", LATEST) == (3, -1, -1)
    parts = messages.offsets(wire, topic, [(0, LATEST), (1, LATEST), (1, EARLIEST), (9, LATEST)])
    # Kafka tells of a partition that was named twice once.
    assert {(part.PartitionIndex, part.ErrorCode) for part in parts} == {(0, 0), (1, 42), (9, 3)}


@pytest.mark.only_thalweg
def test_heads_that_lie_are_passed_over(broker, wire, topic):
    """The greatest time of a compressed batch is believed, so it may promise what no record of it has. Kafka opens each batch."""
    create(broker, topic, 1)
    for first in range(3):
        wire.produce(topic, 0, batch_of(gzip.compress(record(0, b"v")), 1, T + first, T + 1_000, attributes=1))
    wire.produce(topic, 0, timed(T + 500))
    assert found(wire, topic, T + 400) == (0, 3, T + 500)
    assert found(wire, topic, T + 600) == (0, -1, -1)


@pytest.mark.only_thalweg
def test_times_are_found_while_records_move_to_objects():
    """Wherever the records lie, and while they leave the log under the look-up: the same answers, and never an error."""
    uploads = {"object.upload.interval.ms": 20, "object.upload.bytes": 1 << 20}
    settings = {**uploads, "cache.tail.bytes": 1 << 20, "wal.capacity.bytes": 96 << 20}
    with brokers.Thalweg(settings) as broker, contextlib.ExitStack() as stack:
        create(broker, "t", 1)
        wire = stack.enter_context(Connection(broker.bootstrap))
        askers = [stack.enter_context(Connection(broker.bootstrap)) for _ in range(32)]
        # Large records, so that look-ups read much of the log, and stand in line for it. They are made before: that takes long.
        sent = [timed(T + 10 * n, T + 10 * n + 5, value=b"x" * 300_000) for n in range(80)]
        for n, data in enumerate(sent):
            appended = messages.begin_produce(wire, "t", {0: data})
            questions = []
            for step, asker in enumerate(askers if n else []):
                wanted = max(0, n - 1 - step % 10)
                questions.append((wanted, messages.begin_offsets(asker, "t", [(0, T + 10 * wanted + 1)])))
            assert messages.produced(appended)[0].ErrorCode == 0
            for wanted, question in questions:
                (part,) = messages.end(question).Topics[0].Partitions
                assert (part.ErrorCode, part.Offset, part.Timestamp) == (0, 2 * wanted + 1, T + 10 * wanted + 5), (n, wanted)
        broker.stop()


def delete_records(wire, topic, before, index=0):
    """(error, the new start)."""
    parts = [{"PartitionIndex": index, "Offset": before}]
    answer = messages.ask(wire, "DeleteRecords", 2, Topics=[{"Name": topic, "Partitions": parts}], TimeoutMs=30_000)
    (part,) = answer.Topics[0].Partitions
    return part.ErrorCode, part.LowWatermark


def test_records_are_deleted_up_to_an_offset(broker, wire, topic):
    create(broker, topic, 1)
    wire.produce(topic, 0, batch([b"0", b"1", b"2", b"3"]))
    assert delete_records(wire, topic, 0) == (0, 0)
    assert delete_records(wire, topic, 3) == (0, 3)
    assert delete_records(wire, topic, 1) == (0, 3), "it never goes back"
    assert delete_records(wire, topic, 5) == (1, -1)
    assert delete_records(wire, topic, -2) == (1, -1)
    assert delete_records(wire, topic, 0, index=7) == (3, -1)
    assert delete_records(wire, "no-such-topic", 0) == (3, -1)
    assert delete_records(wire, topic, -1) == (0, 4)
    assert wire.produce(topic, 0, batch([b"4"])) == 4


def test_what_is_only_compacted_is_not_deleted(broker, wire, topic):
    create(broker, topic, 1, cleanup_policy="compact")
    assert messages.produce(wire, topic, {0: batch_of(record(0, b"v", b"k"), 1, T, T)})[0].ErrorCode == 0
    assert delete_records(wire, topic, -1) == (44, -1)
    both = topic + "-both"
    create(broker, both, 1, cleanup_policy="compact,delete")
    assert messages.produce(wire, both, {0: batch_of(record(0, b"v", b"k"), 1, T, T)})[0].ErrorCode == 0
    assert delete_records(wire, both, -1) == (0, 1)


@pytest.mark.restarts
def test_a_start_in_the_middle_of_a_batch_outlives_the_broker(request):
    thalweg = request.config.getoption("--broker") == "thalweg"
    with brokers.Thalweg() if thalweg else brokers.Kafka() as broker:
        create(broker, "t", 1)
        with Connection(broker.bootstrap) as wire:
            wire.produce("t", 0, batch([b"0", b"1", b"2", b"3"]))
            wire.produce("t", 0, batch([b"4"]))
            assert delete_records(wire, "t", 2) == (0, 2)
        # Kafka writes log starts down once a minute, and when it stops.
        for ends in ("kill", "stop", "objects") if thalweg else ("stop",):
            broker.stop() if ends == "objects" else getattr(broker, ends)()
            if ends == "objects":
                broker.remove_wal()
            broker.start()
            with Connection(broker.bootstrap) as wire:
                deadline = time.monotonic() + 30
                while found(wire, "t", EARLIEST)[0] in (3, 5, 6) and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert found(wire, "t", EARLIEST) == (0, 2, -1), ends
                fetched = wire.fetch([Part("t", 0, 2)], max_wait_ms=10_000).parts["t", 0]
                assert (fetched.log_start, [base for base, _, _ in batches_in(fetched.records)][:2]) == (2, [0, 4])
                assert wire.fetch([Part("t", 0, 1)]).parts["t", 0].error == 1
                assert wire.produce("t", 0, batch([b"x"])) >= 5
                assert delete_records(wire, "t", 2) == (0, 2)
        broker.stop()
