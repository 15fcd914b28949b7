"""Fetch sessions (KIP-227) on the wire. Runs against any broker: Apache Kafka answers alike."""

import contextlib

import brokers
import metrics
import pytest
from test_fetch import create, delete_records
from test_librdkafka import admin
from wire import Connection, Part, batch

NOT_FOUND, WRONG_EPOCH, WRONG_KIND = 70, 71, 106


def opened(wire, parts, **fields):
    """Opens a session; its id."""
    answer = wire.fetch(parts, epoch=0, **fields)
    assert answer.error == 0 and answer.session > 0
    assert set(answer.parts) == {(part.topic, part.index) for part in parts}, "the first answer is full"
    return answer.session


@pytest.mark.parametrize("by_id", [False, True], ids=["by-name", "by-id"])
def test_an_incremental_fetch_names_what_has_changed_only(broker, wire, topic, by_id):
    create(broker, topic, 3)
    key = wire.topic_id(topic)[0] if by_id else topic
    one = batch([b"x"])
    wire.produce(topic, 0, one)
    session = opened(wire, [Part(key, index, 0) for index in range(3)], by_id=by_id)

    def poll(epoch, parts=(), **fields):
        answer = wire.fetch(parts, session=session, epoch=epoch, by_id=by_id, **fields)
        assert (answer.error, answer.session) == (0, session)
        return answer.parts

    # The offset of partition 0 did not move, so its records come again.
    assert set(poll(1)) == {(key, 0)}
    assert poll(2, [Part(key, 0, 1)]) == {}, "read to the end: nothing to tell"
    assert poll(3) == {}
    wire.produce(topic, 2, one)
    told = poll(4)
    assert set(told) == {(key, 2)} and len(told[key, 2].records) == len(one)
    # The log start moves without a record.
    wire.produce(topic, 0, one)
    assert set(poll(5, [Part(key, 2, 1)])) == {(key, 0)}
    delete_records(broker, topic, 0, 2)
    told = poll(6, [Part(key, 0, 2)])
    assert set(told) == {(key, 0)} and told[key, 0] == (0, 2, 2, 2, b"")
    assert poll(7) == {}
    # A partition that is forgotten is not told any more; one that comes back is.
    wire.produce(topic, 2, one)
    assert poll(8, forgotten=[(key, 2)]) == {}
    assert poll(9) == {}
    assert set(poll(10, [Part(key, 2, 1)])) == {(key, 2)}


def test_errors_are_told_each_time_and_their_end_too(broker, wire, topic):
    create(broker, topic, 1)
    session = opened(wire, [Part(topic, 0, 7), Part("comes-later-" + topic, 0, 0)])
    later = "comes-later-" + topic
    for epoch in (1, 2):
        told = wire.fetch([], session=session, epoch=epoch).parts
        assert {place: part.error for place, part in told.items()} == {(topic, 0): 1, (later, 0): 3}
    create(broker, later, 1)
    told = wire.fetch([Part(topic, 0, 0)], session=session, epoch=3).parts
    assert {place: part.error for place, part in told.items()} == {(topic, 0): 0, (later, 0): 0}
    assert wire.fetch([], session=session, epoch=4).parts == {}
    admin(broker).delete_topics([later])[later].result(30)
    assert wire.fetch([], session=session, epoch=5).parts[later, 0].error == 3


def test_a_session_has_an_order(broker, wire, topic):
    create(broker, topic, 1)
    session = opened(wire, [Part(topic, 0, 0)])

    def refused(session, epoch, **fields):
        answer = wire.fetch([], session=session, epoch=epoch, **fields)
        assert (answer.session, answer.parts) == (0, {})
        return answer.error

    assert refused(0, 1) == NOT_FOUND
    assert refused(session ^ 1, 1) == NOT_FOUND
    assert refused(session, 2) == WRONG_EPOCH
    assert refused(session, 1, by_id=True) == WRONG_KIND
    assert wire.fetch([], session=session, epoch=1).error == 0
    assert refused(session, 1) == WRONG_EPOCH
    # Epoch -1 ends it and fetches without one, 0 ends it and opens another.
    assert wire.fetch([Part(topic, 0, 0)], session=session, epoch=-1)[:2] == (0, 0)
    assert refused(session, 2) == NOT_FOUND
    first = opened(wire, [Part(topic, 0, 0)])
    second = opened(wire, [Part(topic, 0, 0)], session=first)
    assert second != first and refused(first, 1) == NOT_FOUND
    # Without partitions it is closed.
    answer = wire.fetch([], session=second, epoch=1, forgotten=[(topic, 0)])
    assert answer == (0, 0, {})
    assert refused(second, 2) == NOT_FOUND


def test_clients_that_ask_for_no_session_get_none(broker, wire, topic):
    create(broker, topic, 1)
    wire.produce(topic, 0, batch([b"x"]))
    for _ in range(2):
        answer = wire.fetch([Part(topic, 0, 0)])
        assert answer.session == 0 and answer.parts[topic, 0].records


def test_no_partition_of_a_session_starves(broker, wire, topic):
    create(broker, topic, 3)
    one = batch([b"x" * 1000])
    for index in range(3):
        for _ in range(2):
            wire.produce(topic, index, one)
    session = opened(wire, [Part(topic, index, 0) for index in range(3)], max_bytes=1)
    served = []
    for epoch in range(1, 7):
        told = wire.fetch([], session=session, epoch=epoch, max_bytes=1).parts
        served += [index for (_, index), part in told.items() if part.records]
    assert len(served) == 6 and sorted(served[:3]) == sorted(served[3:]) == [0, 1, 2], served


@pytest.mark.only_thalweg
def test_a_session_lives_with_the_shard_of_its_connection():
    """On a connection of another shard it is not found, and a new one opened there has another id; slots are shared out."""
    with brokers.Thalweg({"max.incremental.fetch.session.cache.slots": 3}) as broker, contextlib.ExitStack() as stack:
        create(broker, "t", 1)
        # Connections go to the shard with the fewest.
        by_shard = {}
        while len(by_shard) < 2 or min(map(len, by_shard.values())) < 3:
            before = metrics.read(broker)
            connection = stack.enter_context(Connection(broker.bootstrap))
            connection.topic_id("t")
            grown = metrics.grown(before, metrics.read(broker), "thalweg_connections_accepted_total")
            by_shard.setdefault(dict(next(iter(grown)))["shard"], []).append(connection)
        parts = [Part("t", 0, 0)]
        sessions = {}
        for shard, connections in by_shard.items():
            answers = [connection.fetch(parts, epoch=0) for connection in connections[:3]]
            sessions[shard] = [answer.session for answer in answers if answer.session]
            assert {answer.error for answer in answers} == {0}
        assert sorted(map(len, sessions.values())) == [1, 2], "three slots for two shards"
        series = metrics.read(broker)
        for shard, ids in sessions.items():
            assert metrics.total(series, "thalweg_fetch_sessions", shard=shard) == len(ids)
            assert metrics.total(series, "thalweg_fetch_session_partitions", shard=shard) == len(ids)
        (here, here_connections), (there, there_connections) = by_shard.items()
        for session in sessions[here]:
            assert there_connections[0].fetch([], session=session, epoch=1).error == NOT_FOUND
            assert here_connections[2].fetch([], session=session, epoch=1).error == 0, "another connection of its shard"
        broker.stop()
