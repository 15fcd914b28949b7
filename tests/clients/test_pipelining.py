"""Many requests on their way on one connection (PROTOCOL: Connection): each sees what those before it did, and answers keep
their order."""

import contextlib
import socket
import struct

import brokers
import messages
import pytest
from test_fetch import create
from wire import Connection, Part, Producer, batch, batches_in

PARTITIONS = 8


def test_what_follows_a_produce_sees_it(broker, wire, topic):
    """Produce, ListOffsets and Fetch are sent in one go, over partitions of all shards; `Connection` compares the order."""
    create(broker, topic, PARTITIONS)
    small, large = batch([b"x"]), batch([b"y" * 100_000, b"z"])
    asked, ends = [], dict.fromkeys(range(PARTITIONS), 0)
    for round_number in range(12):
        index = round_number % PARTITIONS
        # To every second one in front, large and small, so that shards that finish early must wait with their answers.
        appended = {(index + step) % PARTITIONS: large if step == 2 else small for step in (0, 2, 5)}
        asked.append(("produce", messages.begin_produce(wire, topic, appended), {i: ends[i] for i in appended}))
        for place, data in appended.items():
            ends[place] += 2 if data is large else 1
        asked.append(("offsets", messages.begin_offsets(wire, topic, [(i, -1) for i in range(PARTITIONS)]), dict(ends)))
        from_here = [Part(topic, i, ends[i] - 1) for i in appended]
        asked.append(("fetch", wire.ask_fetch(from_here, max_wait_ms=10_000, min_bytes=1), {i: ends[i] for i in appended}))
    for kind, question, expected in asked:
        if kind == "produce":
            told = messages.produced(question)
            assert {i: (part.ErrorCode, part.BaseOffset) for i, part in told.items()} == {i: (0, at) for i, at in expected.items()}
        elif kind == "offsets":
            (of_topic,) = messages.end(question).Topics
            assert {part.PartitionIndex: part.Offset for part in of_topic.Partitions} == expected
        else:
            for (_, index), part in wire.fetched(*question).parts.items():
                last = batches_in(part.records)[-1]
                assert (part.error, part.high_watermark, last[0] + last[1]) == (0, expected[index], expected[index])


def test_a_create_is_seen_by_what_follows_it(broker, wire, topic):
    """Sent in one go, CreateTopics, Produce and DeleteTopics run one after the other."""
    wanted = {"Name": topic, "NumPartitions": 2, "ReplicationFactor": 1}
    asked = [
        messages.begin(wire, "CreateTopics", 5, Topics=[wanted], timeoutMs=30_000),
        messages.begin(wire, "CreateTopics", 5, Topics=[wanted], timeoutMs=30_000),
        messages.begin(wire, "DeleteTopics", 5, TopicNames=[topic], TimeoutMs=30_000),
        messages.begin(wire, "DeleteTopics", 5, TopicNames=[topic], TimeoutMs=30_000),
    ]
    answers = [messages.end(question) for question in asked]
    assert [a.Topics[0].ErrorCode if hasattr(a, "Topics") else a.Responses[0].ErrorCode for a in answers] == [0, 36, 0, 3]


def send_in_flight(connections, topic, batches, most=5, size=1_000):
    """Each connection is an idempotent producer of its own partition with up to `most` batches on their way; none is ever told
    anything but the offset that follows the last."""
    ids = [messages.producer_id(connection) for connection in connections]
    flying = [[] for _ in connections]
    told = [0 for _ in connections]
    value = b"x" * size

    def take(index):
        part = messages.produced(flying[index].pop(0))[index]
        assert (part.ErrorCode, part.BaseOffset) == (0, 2 * told[index]), f"partition {index}, batch {told[index]}"
        told[index] += 1

    for sequence in range(batches):
        for index, connection in enumerate(connections):
            if len(flying[index]) == most:
                take(index)
            data = batch([value, b"%d" % sequence], producer=Producer(ids[index], 0, 2 * sequence))
            flying[index].append(messages.begin_produce(connection, topic, {index: data}))
    for index in range(len(connections)):
        while flying[index]:
            take(index)
    for index, connection in enumerate(connections):
        # What was stored is in the order sent, too.
        part = connection.fetch([Part(topic, index, 0, max_bytes=64 << 20)], max_wait_ms=30_000).parts[topic, index]
        assert part.high_watermark == 2 * batches


def test_idempotent_batches_in_flight_keep_their_order(broker, topic):
    create(broker, topic, 4)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(broker.bootstrap)) for _ in range(4)]
        send_in_flight(connections, topic, 150)


@pytest.mark.only_thalweg
@pytest.mark.parametrize(
    "limits",
    [
        # A log so slow that what is sealed waits, and its shard takes nothing new.
        {"wal.max.iops": 60},
        # Hardly room for a request: connections are not read.
        {"message.max.bytes": 64 << 10, "socket.request.max.bytes": 128 << 10, "queued.max.request.bytes": 1 << 20},
    ],
    ids=["slow-log", "small-queues"],
)
def test_idempotent_batches_keep_their_order_under_back_pressure(limits):
    with brokers.Thalweg(limits) as broker, contextlib.ExitStack() as stack:
        create(broker, "t", 4)
        connections = [stack.enter_context(Connection(broker.bootstrap)) for _ in range(4)]
        send_in_flight(connections, "t", 60, size=50_000)
        broker.stop()


def closed(wire, timeout=10):
    """Whether the broker closes the connection without a word."""
    wire.socket.settimeout(timeout)
    try:
        return wire.socket.recv(1) == b""
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False


def test_acks_0_says_nothing_and_an_error_closes(broker, wire, topic):
    create(broker, topic, 2)
    for _ in range(3):
        messages.begin_produce(wire, topic, {0: batch([b"x"]), 1: batch([b"y"])}, acks=0)
    # The answer to what is asked next is the first that comes.
    assert [part.Offset for part in messages.offsets(wire, topic, [(0, -1), (1, -1)])] == [3, 3]
    messages.begin_produce(wire, topic, {0: batch([b"x"]), 7: batch([b"y"])}, acks=0)
    assert closed(wire)
    with Connection(broker.bootstrap) as other:
        assert messages.offsets(other, topic, [(0, -1)])[0].Offset == 4, "one bad partition does not fail the others"


@pytest.mark.parametrize(
    "key, version",
    [(0, 2), (0, 14), (1, 3), (1, 30), (2, 0), (3, 14), (4, 0), (19, 1), (22, 9), (999, 0), (-1, 0)],
    ids=lambda value: str(value),
)
def test_a_key_or_version_that_is_not_offered_closes(broker, wire, key, version):
    wire.send(key, version, bytes(64), False)
    assert closed(wire)


@pytest.mark.parametrize("body", [b"", b"\xff" * 4, b"\0" * 3 + b"\x01" + b"\x7f\xff"], ids=["none", "negative", "cut"])
def test_a_body_that_does_not_decode_closes(broker, wire, body):
    wire.send(2, 1, body, False)
    assert closed(wire)


def test_api_versions_is_answered_whatever_its_version(broker, wire):
    """A version that nobody offers is answered in version 0 with 35 and the versions of ApiVersions itself (KIP-511)."""
    reader = wire.receive(wire.send(18, 99, b"", True), False)
    assert reader.number("h") == 35
    offered = {reader.number("h"): (reader.number("h"), reader.number("h")) for _ in range(reader.number("i"))}
    reader.ended()
    assert offered[18][0] == 0 and offered[18][1] >= 4


# Of part A of the protocol. Apache Kafka is newer, and offers more.
OFFERED = {
    0: (0, 13), 1: (4, 18), 2: (1, 10), 3: (0, 13), 10: (0, 6), 18: (0, 4), 19: (2, 7), 20: (1, 6), 21: (0, 2), 22: (0, 5),
    23: (2, 4), 29: (1, 3), 30: (1, 3), 31: (1, 3), 32: (1, 4), 34: (1, 2), 35: (1, 4), 37: (0, 3), 43: (0, 2), 44: (0, 1),
    45: (0, 1), 46: (0, 0), 48: (0, 1), 50: (0, 0), 55: (0, 2), 60: (0, 2), 64: (0, 0), 65: (0, 0), 66: (0, 1), 74: (0, 1), 75: (0, 0),
}  # fmt: skip


@pytest.mark.parametrize("version", [0, 2, 3, 4])
def test_the_versions_on_offer(broker, wire, version):
    software = {"ClientSoftwareName": "a-test", "ClientSoftwareVersion": "1.0"} if version >= 3 else {}
    answer = messages.ask(wire, "ApiVersions", version, **software)
    assert answer.ErrorCode == 0
    offered = {item.ApiKey: (item.MinVersion, item.MaxVersion) for item in answer.ApiKeys}
    for key, (low, high) in OFFERED.items():
        if broker.name == "thalweg":
            assert offered[key] == (low, high), key
        else:
            assert offered[key][0] <= low and offered[key][1] >= high, key


@pytest.mark.parametrize(
    "name, version, error",
    [
        ("a", "1", 0), ("a.b-c9", "1.0-rc.1", 0), ("", "1", 42), ("-a", "1", 42), ("a.", "1", 42), ("a b", "1", 42), ("a", "", 42),
        ("a", "v_1", 42),
    ],  # fmt: skip
)
def test_names_of_client_software(broker, wire, name, version, error):
    assert messages.ask(wire, "ApiVersions", 3, ClientSoftwareName=name, ClientSoftwareVersion=version).ErrorCode == error


def test_a_closed_connection_takes_its_parked_fetch_along(broker, topic):
    """Those that come later are served as ever; what is left behind in the broker is counted in test_fetch.py."""
    create(broker, topic, 1)
    for _ in range(50):
        with Connection(broker.bootstrap) as wire:
            wire.ask_fetch([Part(topic, 0, 0)], max_wait_ms=60_000)
            # A second request behind the parked one: its connection is gone before its turn comes.
            wire.send(3, 0, struct.pack(">i", 0), False)
    with Connection(broker.bootstrap) as wire:
        wire.produce(topic, 0, batch([b"x"]))
        assert wire.fetch([Part(topic, 0, 0)]).parts[topic, 0].high_watermark == 1
