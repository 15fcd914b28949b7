"""Offsets of a group that are deleted (PROTOCOL: OffsetDelete k47). Runs against any broker."""

import time

import confluent_kafka as ck
import messages
from test_fetch import create
from test_librdkafka import consumer


def delete(wire, group, topic, indexes):
    """The code of all, and {partition: its code}."""
    parts = [{"PartitionIndex": index} for index in indexes]
    answer = messages.ask(wire, "OffsetDelete", 0, GroupId=group, Topics=[{"Name": topic, "Partitions": parts}])
    return answer.ErrorCode, {part.PartitionIndex: part.ErrorCode for told in answer.Topics for part in told.Partitions}


def committed(client, topic, count):
    return [part.offset for part in client.committed([ck.TopicPartition(topic, n) for n in range(count)], 30)]


def test_offsets_of_a_group_are_deleted(broker, wire, topic):
    create(broker, topic, 3)
    client = consumer(broker, topic)
    client.commit(offsets=[ck.TopicPartition(topic, n, n + 5) for n in range(3)], asynchronous=False)
    assert committed(client, topic, 3) == [5, 6, 7]
    assert delete(wire, topic, topic, [0, 2, 9]) == (0, {0: 0, 2: 0, 9: 3})
    assert committed(client, topic, 3) == [ck.OFFSET_INVALID, 6, ck.OFFSET_INVALID]
    assert delete(wire, topic, topic, [0]) == (0, {0: 0}), "there is none any more"
    assert delete(wire, topic, "no-such-topic", [0])[1] == {0: 3}
    assert delete(wire, "no-such-group", topic, [0])[0] == 69
    client.close()


def test_what_a_member_subscribes_to_is_kept(broker, wire, topic):
    other = topic + "-other"
    create(broker, topic, 1)
    create(broker, other, 1)
    client = consumer(broker, topic)
    client.subscribe([topic])
    deadline = time.monotonic() + 60
    while not client.assignment():
        assert time.monotonic() < deadline, "nothing was assigned"
        client.poll(0.1)
    client.commit(offsets=[ck.TopicPartition(topic, 0, 5), ck.TopicPartition(other, 0, 6)], asynchronous=False)
    assert delete(wire, topic, topic, [0]) == (0, {0: 86})
    assert delete(wire, topic, other, [0]) == (0, {0: 0})
    assert committed(client, topic, 1) == [5] and committed(client, other, 1) == [ck.OFFSET_INVALID]
    client.close()
    assert delete(wire, topic, topic, [0]) == (0, {0: 0})
