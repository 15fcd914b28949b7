"""Leader epochs (PROTOCOL: OffsetForLeaderEpoch k23): history over stops and kills; consumers go on where they were."""

import subprocess
import time

import brokers
import confluent_kafka as ck
import messages
import pytest
from test_fetch import create
from test_librdkafka import consumer
from wire import Connection, Part, batch

FENCED, UNKNOWN = 74, 75


def end_of(wire, topic, epoch, current=-1, index=0, version=4):
    """(error, epoch, end offset) that is told of an epoch."""
    part = {"Partition": index, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch}
    replica = {"ReplicaId": -1} if version >= 3 else {}
    answer = messages.ask(wire, "OffsetForLeaderEpoch", version, Topics=[{"Topic": topic, "Partitions": [part]}], **replica)
    (told,) = answer.Topics[0].Partitions
    return told.ErrorCode, told.LeaderEpoch, told.EndOffset


def test_the_current_epoch_ends_at_the_end_of_the_log(broker, topic):
    create(broker, topic, 1)
    with Connection(broker.bootstrap) as wire:
        current = wire.topic_id(topic)[1][0]
        for version in (2, 3, 4):
            assert end_of(wire, topic, current, version=version)[2] == 0
        wire.produce(topic, 0, batch([b"0", b"1"]))
        wire.produce(topic, 0, batch([b"2"]))
        for version in (2, 3, 4):
            assert end_of(wire, topic, current, version=version) == (0, current, 3)
            assert end_of(wire, topic, current, current, version=version) == (0, current, 3)
        assert end_of(wire, topic, current + 1) == (0, -1, -1), "nobody has heard of it"
        assert end_of(wire, topic, current, current + 1) == (UNKNOWN, -1, -1)
        if current > 0:
            assert end_of(wire, topic, current, current - 1) == (FENCED, -1, -1)
        assert end_of(wire, topic, 0, index=7)[0] == 3
        assert end_of(wire, "no-such-topic", 0)[0] == 3


@pytest.mark.restarts
def test_history_outlives_the_broker(request):
    """Each life of the broker has an epoch of its own that is never lower; what is told of the earlier ones does not change, even
    when only objects are left of them. Kafka ends with SIGTERM only: its log start may follow its flush after kill -9."""
    thalweg = request.config.getoption("--broker") == "thalweg"
    with brokers.Thalweg({"object.upload.interval.ms": 100}) if thalweg else brokers.Kafka() as broker:
        create(broker, "t", 1)
        history, end, before = {}, 0, -1
        for life, ends in enumerate(["kill", "stop", "kill", "wal", None] if thalweg else ["stop", None]):
            with Connection(broker.bootstrap) as wire:
                current = wire.topic_id("t")[1][0]
                assert current > before if thalweg else current >= before, "an epoch fell"
                for count in (1, 2):
                    assert wire.produce("t", 0, batch([b"x"] * count)) == end
                    end += count
                history[current], before = end, current
                for epoch, its_end in history.items():
                    assert end_of(wire, "t", epoch) == (0, epoch, its_end), f"life {life}"
                if thalweg:
                    for epoch in range(min(history), current):
                        lower = max(known for known in history if known <= epoch)
                        assert end_of(wire, "t", epoch) == (0, lower, history[lower]), f"life {life}, epoch {epoch}"
                # What is read bears the epochs it was written under.
                told = {}
                at = 0
                while at < end:
                    data = wire.fetch([Part("t", 0, at)], max_wait_ms=5_000).parts["t", 0].records
                    while data:
                        at = int.from_bytes(data[:8], "big") + int.from_bytes(data[57:61], "big")
                        told[int.from_bytes(data[12:16], "big")] = at
                        data = data[12 + int.from_bytes(data[8:12], "big") :]
                assert told == history
                assert [part.LeaderEpoch for part in messages.offsets(wire, "t", [(0, -2)])] == [min(history)]
            if ends:
                broker.stop() if ends == "wal" else getattr(broker, ends)()
                if ends == "wal":
                    broker.remove_wal()
                broker.start()


@pytest.mark.restarts
def test_a_consumer_goes_on_over_restarts_and_kills(request):
    """It has no policy for a lost offset: had it to reset, it would fail."""
    thalweg = request.config.getoption("--broker") == "thalweg"
    with brokers.Thalweg() if thalweg else brokers.Kafka() as broker:
        create(broker, "t", 1)
        often = {"reconnect.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 500}
        reader = consumer(broker, "g", auto_offset_reset="error", **often)
        reader.assign([ck.TopicPartition("t", 0, 0)])
        end = 0
        for ends in ("kill", "stop", "kill", None) if thalweg else ("stop", None):
            with Connection(broker.bootstrap) as wire:
                for _ in range(20):
                    assert wire.produce("t", 0, batch([b"%d" % end, b"%d" % (end + 1)])) == end
                    end += 2
            read_to(reader, end)
            if ends:
                getattr(broker, ends)()
                broker.start()
        reader.close()


@pytest.mark.restarts
def test_kafkas_own_consumer_goes_on_over_restarts_and_kills(request, classes):
    """The Java client compares epochs each time the metadata changes, and resets in silence where it is told of no end."""
    thalweg = request.config.getoption("--broker") == "thalweg"
    ends = ["kill", "stop", "kill", None] if thalweg else ["stop", None]
    with brokers.Thalweg() if thalweg else brokers.Kafka() as broker:
        create(broker, "t", 1)
        command = brokers.java_command("Checks", broker.bootstrap, "survive", "0")
        command[command.index("-cp") + 1] += f":{classes}"
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
            try:
                end = 0
                for how in ends:
                    with Connection(broker.bootstrap) as wire:
                        for left in reversed(range(20)):
                            last = b"" if how or left else b" last"
                            assert wire.produce("t", 0, batch([b"%d" % end, b"%d%s" % (end + 1, last)])) == end
                            end += 2
                    # It ends by itself when something is wrong.
                    while (line := reader.stdout.readline()) != f"at 0 {end}\n":
                        assert line, f"it did not get to {end}"
                    if how:
                        getattr(broker, how)()
                        broker.start()
                assert (reader.stdout.readline(), reader.wait(30)) == ("ok\n", 0)
            finally:
                reader.kill()


def read_to(reader, end, timeout=60):
    """Reads up to an offset; each record says which it is."""
    deadline = time.monotonic() + timeout
    at = reader.position([ck.TopicPartition("t", 0)])[0].offset
    at = max(at, 0)
    while at < end:
        assert time.monotonic() < deadline, f"at {at} of {end}"
        message = reader.poll(0.2)
        if message is None:
            continue
        if message.error() is not None:
            # Connections may break; offsets may not be lost.
            assert message.error().code() in (ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN), message.error()
            continue
        assert (message.offset(), message.value()) == (at, b"%d" % at)
        at += 1
