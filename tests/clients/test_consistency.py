"""What is answered holds everywhere (PROTOCOL: Consistency): topics that were created, deleted, extended, altered are so on
every shard, for every connection, at the answer."""

import contextlib
import itertools
import threading
import time

import messages
import pytest
from test_fetch import create, two_shards
from wire import Connection, Part, batch

ROUNDS = 1_000


def create_one(wire, name, partitions=1):
    answer = messages.ask(
        wire, "CreateTopics", 7, Topics=[{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1}], timeoutMs=30_000
    )
    assert answer.Topics[0].ErrorCode == 0, answer.Topics[0].ErrorMessage
    return answer.Topics[0].TopicId


def delete_one(wire, name):
    answer = messages.ask(wire, "DeleteTopics", 6, Topics=[{"Name": name, "TopicId": bytes(16)}], TimeoutMs=30_000)
    assert answer.Responses[0].ErrorCode == 0


@pytest.mark.only_thalweg
def test_a_created_topic_is_there_for_everybody(broker, wire, topic):
    """Metadata, Produce and Fetch come on other connections, of every shard; Kafka's brokers learn of it a little later."""
    with contextlib.ExitStack() as stack:
        others = itertools.cycle([stack.enter_context(Connection(broker.bootstrap)) for _ in range(5)])
        one = batch([b"x"])
        for number in range(ROUNDS):
            name = f"{topic}-{number}"
            topic_id = create_one(wire, name)
            by_id = number % 2
            question = [
                messages.begin(next(others), "Metadata", 12, Topics=[{"Name": name}], AllowAutoTopicCreation=False),
                messages.begin_produce(next(others), topic_id if by_id else name, {0: one}, version=13 if by_id else 9),
            ]
            reader = next(others)
            asked = reader.ask_fetch([Part(topic_id if by_id else name, 0, 0)], by_id=bool(by_id), max_wait_ms=10_000)
            (told,) = messages.end(question[0]).Topics
            assert (told.ErrorCode, told.TopicId, len(told.Partitions)) == (0, topic_id, 1), number
            part = messages.produced(question[1])[0]
            assert (part.ErrorCode, part.BaseOffset) == (0, 0), number
            (fetched,) = reader.fetched(*asked).parts.values()
            # Whoever asks before the record is there waits for it.
            assert (fetched.error, len(fetched.records)) == (0, len(one)), number


@pytest.mark.only_thalweg
def test_new_partitions_are_there_for_everybody(broker, wire, topic):
    create(broker, topic, 1)
    with contextlib.ExitStack() as stack:
        others = itertools.cycle([stack.enter_context(Connection(broker.bootstrap)) for _ in range(5)])
        for count in range(2, 22):
            wanted = {"Name": topic, "Count": count, "Assignments": None}
            answer = messages.ask(wire, "CreatePartitions", 3, Topics=[wanted], TimeoutMs=30_000)
            assert answer.Results[0].ErrorCode == 0
            assert len(next(others).topic_id(topic)[1]) == count
            assert next(others).produce(topic, count - 1, batch([b"x"])) == 0
            assert next(others).fetch([Part(topic, count - 1, 0)]).parts[topic, count - 1].high_watermark == 1


@pytest.mark.only_thalweg
def test_a_changed_setting_holds_for_everybody(broker, wire, topic):
    create(broker, topic, 4)
    with contextlib.ExitStack() as stack:
        others = itertools.cycle([stack.enter_context(Connection(broker.bootstrap)) for _ in range(5)])
        data = batch([b"x" * 500])
        for number in range(40):
            limit = 400 if number % 2 else 4_000
            change = {"Name": "max.message.bytes", "ConfigOperation": 0, "Value": str(limit)}
            resource = {"ResourceType": 2, "ResourceName": topic, "Configs": [change]}
            assert messages.ask(wire, "IncrementalAlterConfigs", 1, Resources=[resource]).Responses[0].ErrorCode == 0
            for index in range(4):
                assert next(others).try_produce(topic, index, data) == (10 if number % 2 else 0)


def test_a_topic_created_anew_is_another(broker, wire, topic):
    create(broker, topic, 2)
    old, _ = wire.topic_id(topic)
    wire.produce(topic, 0, batch([b"old"]))
    delete_one(wire, topic)
    create(broker, topic, 2)
    new, _ = wire.topic_id(topic)
    assert new != old
    one = batch([b"new"])
    assert messages.produce(wire, old, {0: one}, version=13)[0].ErrorCode == 100
    assert messages.produce(wire, new, {0: one}, version=13)[0].BaseOffset == 0
    assert wire.fetch([Part(old, 0, 0)], by_id=True).parts[old, 0].error == 100
    assert wire.fetch([Part(new, 0, 0)], by_id=True).parts[new, 0].high_watermark == 1
    answer = messages.ask(wire, "Metadata", 12, Topics=[{"TopicId": old, "Name": None}])
    assert answer.Topics[0].ErrorCode == 100


def test_a_deletion_wakes_who_waits(broker, wire, topic):
    """Fetches over partitions of every shard, by name and by id, are parked; the deletion ends them with its error."""
    chosen = two_shards(broker, wire, topic)
    topic_id, _ = wire.topic_id(topic)
    ends = {index: wire.fetch([Part(topic, index, 0)]).parts[topic, index].high_watermark for index in chosen}
    with contextlib.ExitStack() as stack:
        waiting = []
        for key, by_id in [(topic, False), (topic_id, True)] * 2:
            reader = stack.enter_context(Connection(broker.bootstrap, timeout=50))
            parts = [Part(key, index, ends[index]) for index in chosen]
            waiting.append((reader, reader.ask_fetch(parts, max_wait_ms=40_000, min_bytes=1 << 20, by_id=by_id), by_id))
        time.sleep(0.3)  # most are parked by now; what is not meets the deletion on its way, which is as well
        began = time.monotonic()
        delete_one(wire, topic)
        for reader, asked, by_id in waiting:
            answer = reader.fetched(*asked)
            told = {part.error for part in answer.parts.values()} - {0}
            # Kafka tells one that had begun by id that the name is unknown.
            assert told == {100 if by_id else 3} or (broker.name != "thalweg" and told == {3})
        took = time.monotonic() - began
    print(f"four parked fetches ended {1000 * took:.0f} ms after the deletion was asked for")
    assert took < 10


def test_delete_and_create_under_load(broker, topic):
    """Whoever produces meanwhile is told that a topic is unknown, or an offset of the topic there is; nothing else."""
    stop, told, problems = threading.Event(), set(), []

    def load(number):
        try:
            with Connection(broker.bootstrap) as connection:
                while not stop.is_set():
                    told.add(connection.try_produce(topic, number % 4, batch([b"x" * 100])))
        except Exception as problem:
            problems.append(problem)

    with Connection(broker.bootstrap) as wire:
        create(broker, topic, 4)
        threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            ids = {wire.topic_id(topic)[0]}
            for number in range(10):
                delete_one(wire, topic)
                create(broker, topic, 4)
                ids.add(wire.topic_id(topic)[0])
                assert len(ids) == number + 2
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not problems, problems
    # Kafka says 6 or 56 where it knows of the partition and has not opened it yet, or closes it.
    assert told <= {0, 3} if broker.name == "thalweg" else told <= {0, 3, 6, 56}, told
