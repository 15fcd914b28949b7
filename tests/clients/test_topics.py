"""Topics as administrators see them on the wire (PROTOCOL: Metadata k3, CreateTopics k19, k20, k37, k75). Runs against any
broker."""

import re
import time

import brokers
import messages
import pytest
from test_fetch import create
from wire import Connection

NOBODY = b"\7" * 16


def metadata(wire, topics, version=12, **more):
    """Metadata of these topics: names, ids, or {"Name": .., "TopicId": ..}; `None` is all."""

    def asked(topic):
        if isinstance(topic, dict):
            return topic
        return {"Name": topic} if isinstance(topic, str) else {"Name": None, "TopicId": topic}

    given = None if topics is None else [asked(topic) for topic in topics]
    if version >= 4:
        more.setdefault("AllowAutoTopicCreation", False)
    return messages.ask(wire, "Metadata", version, Topics=given, **more)


def codes(answer):
    return [topic.ErrorCode for topic in answer.Topics]


@pytest.mark.parametrize("version", range(14))
def test_all_topics_some_and_none(broker, wire, topic, version):
    create(broker, topic, 2)
    every = metadata(wire, [] if version == 0 else None, version)
    assert topic in [told.Name for told in every.Topics]
    if version >= 1:
        assert metadata(wire, [], version).Topics == []
    (told,) = metadata(wire, [topic], version).Topics
    assert (told.ErrorCode, told.Name, sorted(part.PartitionIndex for part in told.Partitions)) == (0, topic, [0, 1])
    (node,) = every.Brokers
    assert f"{node.Host}:{node.Port}" == broker.bootstrap
    for part in told.Partitions:
        assert (part.ErrorCode, part.LeaderId, part.ReplicaNodes, part.IsrNodes) == (0, node.NodeId, [node.NodeId], [node.NodeId])
    if version >= 1:
        assert every.ControllerId == node.NodeId and told.IsInternal is False
    if version >= 2:
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", every.ClusterId)
    if version >= 8:
        assert told.TopicAuthorizedOperations == -2147483648
        assert metadata(wire, [topic], version, IncludeTopicAuthorizedOperations=True).Topics[0].TopicAuthorizedOperations > 0
    if version >= 10:
        assert told.TopicId == wire.topic_id(topic)[0] != bytes(16)


def test_strangers_have_their_codes(broker, wire, topic):
    create(broker, topic, 1)
    topic_id, _ = wire.topic_id(topic)
    assert codes(metadata(wire, [topic, topic_id])) in ([0, 0], [0])
    answer = metadata(wire, ["no-such-topic", "a b", "x" * 250])
    assert {told.Name: told.ErrorCode for told in answer.Topics} == {"no-such-topic": 3, "a b": 17, "x" * 250: 17}
    (told,) = metadata(wire, [NOBODY]).Topics
    assert (told.ErrorCode, told.Name, told.TopicId) == (100, None, NOBODY)
    assert metadata(wire, [topic_id]).Topics[0].Name == topic


@pytest.mark.parametrize("version", [10, 11])
def test_ids_are_known_from_version_12_on(broker, wire, topic, version):
    """Before, neither an id nor a missing name makes sense."""
    create(broker, topic, 1)
    for asked in ({"Name": None, "TopicId": wire.topic_id(topic)[0]}, {"Name": None}):
        try:
            answer = metadata(wire, [asked], version)
        except ConnectionError:
            assert broker.name == "kafka"
            wire.socket = Connection(broker.bootstrap).socket
            continue
        assert codes(answer) in ([42], []), codes(answer)
        if broker.name == "thalweg":
            assert codes(answer) == [42]


def test_a_question_creates_only_where_it_may(broker, wire, topic):
    assert codes(metadata(wire, [topic])) == [3]
    assert codes(metadata(wire, [topic])) == [3], "it was not created"
    deadline = time.monotonic() + 30
    first = codes(metadata(wire, [topic], AllowAutoTopicCreation=True))
    # Kafka tells the first who asks to come again.
    assert first == [0] or broker.name != "thalweg"
    while codes(metadata(wire, [topic])) != [0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for name in ("a b", "..", "x" * 250):
        assert codes(metadata(wire, [name], AllowAutoTopicCreation=True)) == [17]


def creation(wire, *topics, version=7, **more):
    """CreateTopics; its topics."""

    def asked(topic):
        return {"NumPartitions": 1, "ReplicationFactor": 1, **(topic if isinstance(topic, dict) else {"Name": topic})}

    return messages.ask(wire, "CreateTopics", version, Topics=[asked(topic) for topic in topics], timeoutMs=30_000, **more).Topics


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "x" * 250])
def test_names_that_no_topic_can_have(broker, wire, name):
    (told,) = creation(wire, name)
    assert told.ErrorCode == 17 and told.ErrorMessage


def test_names_that_a_topic_can_have(broker, wire):
    longest = "y" * 249
    assert [told.ErrorCode for told in creation(wire, "A.z-0", "...", longest)] == [0, 0, 0]
    assert [told.ErrorCode for told in creation(wire, "A_z-0", longest)] == [17, 36], "`.` and `_` are one in names of metrics"


def assigned(*replicas):
    return [{"PartitionIndex": index, "BrokerIds": list(nodes)} for index, nodes in enumerate(replicas)]


def test_what_cannot_be_created(broker, wire, topic):
    create(broker, topic, 1)
    node = metadata(wire, []).Brokers[0].NodeId
    cases = {
        36: [{"Name": topic}],
        37: [{"NumPartitions": 0}, {"NumPartitions": -2}],
        38: [{"ReplicationFactor": 0}, {"ReplicationFactor": -2}],
        39: [
            {"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": assigned([node + 5])},
            {"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [{"PartitionIndex": 3, "BrokerIds": [node]}]},
        ],
        42: [
            {"NumPartitions": 1, "ReplicationFactor": -1, "Assignments": assigned([node])},
            {"NumPartitions": -1, "ReplicationFactor": 1, "Assignments": assigned([node])},
        ],
        40: [
            {"Configs": [{"Name": "no.such.setting", "Value": "1"}]},
            {"Configs": [{"Name": "retention.ms", "Value": "soon"}]},
            {"Configs": [{"Name": "retention.ms", "Value": None}]},
            {"Configs": [{"Name": "segment.bytes", "Value": "1048575"}]},
        ],
    }
    for code, wanted in cases.items():
        for n, case in enumerate(wanted):
            (told,) = creation(wire, {"Name": f"{topic}-{code}-{n}", **case})
            assert told.ErrorCode == code, (case, told.ErrorMessage)
            assert told.ErrorMessage
    names = [told.Name for told in metadata(wire, None).Topics]
    assert [name for name in names if name.startswith(topic)] == [topic]


def test_a_topic_asked_for_twice_is_not_created(broker, wire, topic):
    told = creation(wire, topic, topic + "-b", topic)
    assert {one.Name: one.ErrorCode for one in told} == {topic: 42, topic + "-b": 0}
    assert codes(metadata(wire, [topic])) == [3]


def test_what_is_told_of_a_new_topic(broker, wire, topic):
    node = metadata(wire, []).Brokers[0].NodeId
    defaults, own, placed = topic + "-defaults", topic + "-own", topic + "-placed"
    told = creation(
        wire,
        {"Name": defaults, "NumPartitions": -1, "ReplicationFactor": -1},
        {"Name": own, "NumPartitions": 3, "Configs": [{"Name": "retention.ms", "Value": "1234567"}]},
        {"Name": placed, "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": assigned([node], [node])},
    )
    told = {one.Name: one for one in told}
    assert [one.ErrorCode for one in told.values()] == [0] * 3
    assert (told[defaults].NumPartitions, told[own].NumPartitions, told[placed].NumPartitions) == (4, 3, 2)
    for name, one in told.items():
        assert one.ReplicationFactor == 1 and one.TopicId == wire.topic_id(name)[0]
        settings = {setting.Name: setting for setting in one.Configs}
        assert all(setting.ConfigSource in range(1, 9) and setting.Value is not None for setting in one.Configs)
        assert settings["retention.ms"].Value == ("1234567" if name == own else "604800000")
        assert settings["retention.ms"].ConfigSource == (1 if name == own else 5)


def test_a_creation_can_be_tried_out(broker, wire, topic):
    (told,) = creation(wire, {"Name": topic, "NumPartitions": 5}, validateOnly=True)
    assert (told.ErrorCode, told.NumPartitions, told.ReplicationFactor) == (0, 5, 1)
    assert codes(metadata(wire, [topic])) == [3]
    assert creation(wire, topic, validateOnly=True)[0].ErrorCode == 0
    assert creation(wire, topic)[0].ErrorCode == 0
    assert creation(wire, topic, validateOnly=True)[0].ErrorCode == 36


@pytest.mark.only_thalweg
def test_factors_of_clusters_are_taken(broker, wire, topic):
    """Connect and MirrorMaker ask for 2 and 3; Kafka needs that many brokers."""
    for factor in (2, 3, 32767):
        (told,) = creation(wire, {"Name": f"{topic}-{factor}", "ReplicationFactor": factor})
        assert (told.ErrorCode, told.ReplicationFactor) == (0, 1)
        assert [part.ReplicaNodes for part in metadata(wire, [told.Name]).Topics[0].Partitions] == [[1]]


@pytest.mark.only_thalweg
def test_factors_can_be_taken_at_their_word():
    with brokers.Thalweg({"replication.factor.check": "strict"}) as broker, Connection(broker.bootstrap) as wire:
        told = creation(wire, *({"Name": f"t{factor}", "ReplicationFactor": factor} for factor in (-1, 1, 2, 3)))
        assert [one.ErrorCode for one in told] == [0, 0, 38, 38]


@pytest.mark.restarts
def test_who_the_cluster_is_outlives_the_broker(request):
    kind = brokers.Kafka if request.config.getoption("--broker") == "kafka" else brokers.Thalweg
    with kind() as broker:
        told = []
        for life in range(2):
            with Connection(broker.bootstrap) as wire:
                create(broker, f"t{life}", 1)
                told.append((metadata(wire, []).ClusterId, wire.topic_id("t0")))
            if life == 0:
                broker.kill()
                broker.start()
        (before, (topic_before, _)), (after, (topic_after, _)) = told
        assert (before, topic_before) == (after, topic_after)


@pytest.mark.only_thalweg
def test_each_listener_has_its_own_address():
    """Brokers are told as they are advertised on the listener that is asked."""
    second, third = brokers.free_ports(2)
    with brokers.Thalweg() as broker:
        broker.stop()
        first = broker.bootstrap
        broker.settings["listeners"] = f"{first},127.0.0.1:{second}"
        broker.settings["advertised.listeners"] = f"{first},elsewhere.example:{third}"
        broker.start()
        for address, host, port in [(first, "127.0.0.1", broker.kafka_port), (f"127.0.0.1:{second}", "elsewhere.example", third)]:
            with Connection(address) as wire:
                (node,) = metadata(wire, []).Brokers
                assert (node.Host, node.Port) == (host, port)
                found = messages.ask(wire, "FindCoordinator", 2, Key="g")
                assert (found.ErrorCode, found.Host, found.Port) == (0, host, port)
        broker.stop()


def test_topics_are_deleted_by_name_and_id(broker, wire, topic):
    for n in range(2):
        create(broker, f"{topic}-{n}", 1)
    topic_id, _ = wire.topic_id(f"{topic}-1")
    by_name = [{"Name": f"{topic}-0"}, {"Name": "no-such-topic"}]
    wanted = by_name + [{"Name": None, "TopicId": topic_id}, {"Name": None, "TopicId": NOBODY}]
    answer = messages.ask(wire, "DeleteTopics", 6, Topics=wanted, TimeoutMs=30_000)
    told = {(one.Name, one.TopicId): one.ErrorCode for one in answer.Responses}
    assert sorted(told.values()) == [0, 0, 3, 100]
    assert told[f"{topic}-1", topic_id] == 0 and told[None, NOBODY] == 100
    assert codes(metadata(wire, [f"{topic}-0", f"{topic}-1"])) == [3, 3]


def test_partitions_are_added(broker, wire, topic):
    create(broker, topic, 2)
    node = metadata(wire, []).Brokers[0].NodeId

    def add(count, name=topic, **more):
        wanted = {"Name": name, "Count": count, "Assignments": None, **more}
        return messages.ask(wire, "CreatePartitions", 3, Topics=[wanted], TimeoutMs=30_000).Results[0].ErrorCode

    assert [add(count) for count in (1, 2, 0, -1)] == [37] * 4
    assert add(5, "no-such-topic") == 3
    assert add(3, Assignments=[{"BrokerIds": [node]}, {"BrokerIds": [node]}]) == 39
    assert add(3, Assignments=[{"BrokerIds": [node + 5]}]) == 39
    assert add(3, Assignments=[{"BrokerIds": [node]}]) == 0
    assert add(5) == 0
    assert len(metadata(wire, [topic]).Topics[0].Partitions) == 5


def describe(wire, names, **more):
    return messages.ask(wire, "DescribeTopicPartitions", 0, Topics=[{"Name": name} for name in names], **more)


def pages(answer):
    return [(told.Name, [part.PartitionIndex for part in told.Partitions]) for told in answer.Topics]


def test_partitions_come_in_pages(broker, wire, topic):
    names = [f"{topic}-{letter}" for letter in "cab"]
    for name in names:
        create(broker, name, 3)
    answer = describe(wire, names)
    a, b, c = sorted(names)
    assert pages(answer) == [(name, [0, 1, 2]) for name in (a, b, c)] and answer.NextCursor is None
    for part in answer.Topics[0].Partitions:
        assert part.LeaderId in part.ReplicaNodes == part.IsrNodes
        assert part.EligibleLeaderReplicas is not None and part.LastKnownElr is not None and part.OfflineReplicas == []
    seen, cursor = [], None
    for _ in range(20):
        answer = describe(wire, names, ResponsePartitionLimit=2, Cursor=cursor)
        told = [(name, index) for name, indexes in pages(answer) for index in indexes]
        assert len(told) <= 2
        seen += told
        if answer.NextCursor is None:
            break
        cursor = {"TopicName": answer.NextCursor.TopicName, "PartitionIndex": answer.NextCursor.PartitionIndex}
    assert seen == [(name, index) for name in (a, b, c) for index in range(3)], "every one, once, in order"
    # All topics are asked for by naming none; a cursor begins there as well.
    answer = describe(wire, [], Cursor={"TopicName": b, "PartitionIndex": 1})
    assert [page for page in pages(answer) if page[0] in names] == [(b, [1, 2]), (c, [0, 1, 2])]
    answer = describe(wire, [a, "no-such-topic"])
    assert {told.Name: told.ErrorCode for told in answer.Topics} == {a: 0, "no-such-topic": 3}
