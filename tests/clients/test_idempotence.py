"""Idempotent producers on the wire (PROTOCOL: Idempotence, k22): what is a repetition, what is out of order, what survives
kill -9. Runs against any broker."""

import contextlib
import time

import brokers
import messages
import pytest
from test_fetch import create
from wire import Connection, Producer, batch

OUT_OF_ORDER, WRONG_EPOCH = 45, 47


class Writer:
    """One producer id on partition 0 of a topic."""

    def __init__(self, wire, topic, producer_id=None):
        self.wire, self.topic = wire, topic
        self.id = messages.producer_id(wire) if producer_id is None else producer_id

    def send(self, sequence, count=1, epoch=0):
        """The base offset of a batch that was taken, or ("error", code)."""
        # Kafka forgets a producer at its next start whose records are older than a day.
        now = int(time.time() * 1000)
        data = batch([b"%d" % n for n in range(count)], now, Producer(self.id, epoch, sequence))
        part = messages.produce(self.wire, self.topic, {0: data})[0]
        return part.BaseOffset if part.ErrorCode == 0 else ("error", part.ErrorCode)


def test_repetitions_of_the_last_five_have_their_offsets(broker, wire, topic):
    create(broker, topic, 1)
    writer = Writer(wire, topic)
    assert [writer.send(2 * n, 2) for n in range(8)] == [0, 2, 4, 6, 8, 10, 12, 14]
    for n in range(3, 8):
        assert writer.send(2 * n, 2) == 2 * n
    # Further back, or of another length: nobody remembers such a batch.
    for sequence, count in [(4, 2), (14, 1), (13, 3), (15, 1)]:
        outcome = writer.send(sequence, count)
        # Kafka calls what lies before the last sequence a duplicate without an offset (46) when it is further back.
        assert outcome in [("error", OUT_OF_ORDER), ("error", 46)], (sequence, count, outcome)
        assert outcome == ("error", OUT_OF_ORDER) or broker.name != "thalweg"
    assert writer.send(17) == ("error", OUT_OF_ORDER), "one is missing"
    assert writer.send(16) == 16


def test_epochs(broker, wire, topic):
    create(broker, topic, 1)
    writer = Writer(wire, topic)
    assert writer.send(0) == 0
    assert writer.send(1) == 1
    assert writer.send(2, epoch=1) == ("error", OUT_OF_ORDER), "a new epoch begins at 0"
    assert writer.send(0, epoch=3) == 2
    assert writer.send(2, epoch=1) == ("error", WRONG_EPOCH)
    assert writer.send(2) == ("error", WRONG_EPOCH)
    assert writer.send(1, epoch=3) == 3


def test_a_producer_that_is_not_known_begins_anywhere(broker, wire, topic):
    """KIP-360; and the sequence wraps to 0."""
    create(broker, topic, 1)
    writer = Writer(wire, topic)
    greatest = 2**31 - 1
    assert writer.send(greatest - 3, 2) == 0
    assert writer.send(greatest - 1, 4) == 2, "over the end"
    assert writer.send(greatest - 1, 4) == 2
    assert writer.send(2) == 6
    assert writer.send(1) == ("error", OUT_OF_ORDER) or broker.name != "thalweg"
    assert Writer(wire, topic).send(0) == 7


def test_partitions_and_producers_are_apart(broker, wire, topic):
    create(broker, topic, 2)
    first, second = messages.producer_id(wire), messages.producer_id(wire)
    for sequence in (0, 1):
        data = {index: batch([b"x"], producer=Producer(first, 0, sequence)) for index in range(2)}
        assert {i: (p.ErrorCode, p.BaseOffset) for i, p in messages.produce(wire, topic, data).items()} == {
            0: (0, 2 * sequence), 1: (0, 2 * sequence)
        }  # fmt: skip
        data = {index: batch([b"y"], producer=Producer(second, 0, sequence)) for index in range(2)}
        assert [p.BaseOffset for p in messages.produce(wire, topic, data).values()] == [2 * sequence + 1] * 2
    # One that fails takes no other along.
    data = {0: batch([b"x"], producer=Producer(first, 0, 9)), 1: batch([b"x"], producer=Producer(first, 0, 2))}
    assert {i: p.ErrorCode for i, p in messages.produce(wire, topic, data).items()} == {0: OUT_OF_ORDER, 1: 0}


def test_a_batch_sent_twice_at_once_is_stored_once(broker, wire, topic):
    """The repetition is on its way while the original is; both are told the same, when that is durable."""
    create(broker, topic, 1)
    with Connection(broker.bootstrap) as other:
        writer = messages.producer_id(wire)
        for sequence in range(50):
            data = {0: batch([b"x"], producer=Producer(writer, 0, sequence))}
            asked = [messages.begin_produce(connection, topic, data) for connection in (wire, other, wire, other)]
            told = [messages.produced(question)[0] for question in asked]
            assert [(part.ErrorCode, part.BaseOffset) for part in told] == [(0, sequence)] * 4


@pytest.mark.restarts
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_window_survives(request, topic, end):
    kind = brokers.Kafka if request.config.getoption("--broker") == "kafka" else brokers.Thalweg
    with kind() as broker:
        create(broker, topic, 1)
        with Connection(broker.bootstrap) as wire:
            writer = Writer(wire, topic)
            assert [writer.send(3 * n, 3) for n in range(7)] == [0, 3, 6, 9, 12, 15, 18]
        getattr(broker, end)()
        broker.start()
        create(broker, topic + "-2", 1)
        with Connection(broker.bootstrap) as wire:
            again = Writer(wire, topic, writer.id)
            assert again.send(18, 3) == 18
            assert again.send(22) == ("error", OUT_OF_ORDER)
            assert again.send(21) == 21
            if broker.name == "thalweg":
                # Kafka, too, remembers five; after kill -9 of the log's last segment.
                assert [again.send(3 * n, 3) for n in range(3, 7)] == [9, 12, 15, 18]


@pytest.mark.only_thalweg
def test_what_a_full_log_refuses_leaves_no_trace(s3):
    """19 means that nothing was appended: the same batch comes again later, and neither sequence nor offsets have a gap."""
    with contextlib.ExitStack() as stack:
        settings = {**s3.settings("full"), "wal.capacity.bytes": 48 << 20, "shards": 1, "object.upload.interval.ms": 100}
        broker = stack.enter_context(brokers.Thalweg(settings))
        create(broker, "t", 2)
        writer = Writer(stack.enter_context(Connection(broker.bootstrap)), "t")
        assert [writer.send(n) for n in range(3)] == [0, 1, 2]
        s3.faults.set("error")

        def send(index, data):
            """Each on a connection of its own: one that produces into a log that is nearly full is made to pause."""
            with Connection(broker.bootstrap) as wire:
                return messages.produce(wire, "t", {index: data})[index]

        filler = batch([b"x" * 500_000])
        while send(1, filler).ErrorCode == 0:
            pass
        # What is left of the log is less than the filler; it takes some more that are small.
        sequence, told = 3, None
        while told is None or told.ErrorCode == 0:
            assert told is None or told.BaseOffset == sequence
            sequence += told is not None
            small = batch([b"y" * 50_000], producer=Producer(writer.id, 0, sequence))
            told = send(0, small)
        assert [told.ErrorCode, send(0, small).ErrorCode] == [19, 19], "and again, not out of order"
        s3.faults.set("ok")
        deadline = time.monotonic() + 60
        while (told := send(0, small)).ErrorCode == 19:
            assert time.monotonic() < deadline, "the log stays full"
            time.sleep(0.05)
        assert (told.ErrorCode, told.BaseOffset) == (0, sequence)
        assert send(0, small).BaseOffset == sequence, "a repetition"
        assert writer.send(sequence + 1) == sequence + 1
        broker.stop()


@pytest.mark.restarts
def test_a_producer_that_is_silent_is_forgotten(request):
    kind = brokers.Kafka if request.config.getoption("--broker") == "kafka" else brokers.Thalweg
    looks = "log.retention.check.interval.ms" if kind is brokers.Thalweg else "producer.id.expiration.check.interval.ms"
    settings = {"producer.id.expiration.ms": 1_000, looks: 100}
    with kind(settings) as broker:
        create(broker, "t", 1)
        with Connection(broker.bootstrap) as wire:
            writer = Writer(wire, "t")
            assert writer.send(0) == 0
            # What is out of order is refused until nobody knows of an order.
            assert writer.send(100) == ("error", OUT_OF_ORDER)
            deadline = time.monotonic() + 60
            while (outcome := writer.send(100)) == ("error", OUT_OF_ORDER):
                assert time.monotonic() < deadline, "it is still known"
                time.sleep(0.05)
            assert outcome == 1


@pytest.mark.restarts
def test_producer_ids_are_never_given_twice(request):
    kind = brokers.Kafka if request.config.getoption("--broker") == "kafka" else brokers.Thalweg
    given = []
    with kind() as broker:
        for _ in range(3):
            # More connections than shards: each takes of its shard's block.
            for _ in range(4):
                with Connection(broker.bootstrap) as wire:
                    given += [messages.producer_id(wire) for _ in range(5)]
            broker.kill()
            broker.start()
    assert len(set(given)) == len(given) == 60
