"""Requests of administrators (PROTOCOL: Operations, Security) as they are answered by a cluster of one broker without an authorizer,
in every version. Runs against any broker: what is compared with literals here is what Apache Kafka says."""

import time

import messages
import pytest
from test_fetch import create
from wire import batch

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32


@pytest.fixture
def node(wire):
    """The id of the only broker."""
    (broker,) = messages.ask(wire, "DescribeCluster", 1).Brokers
    return broker.BrokerId


def asked_until(wanted, look):
    """What `look` gives as soon as it is `wanted`: Kafka's broker learns of a change a moment after the answer."""
    deadline = time.monotonic() + 10
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def directories(wire, version, topics):
    """DescribeLogDirs; the one directory, and {(topic, partition): size}."""
    answer = messages.ask(wire, "DescribeLogDirs", version, Topics=topics)
    assert version < 3 or answer.ErrorCode == 0
    (directory,) = answer.Results
    assert directory.ErrorCode == 0 and directory.LogDir.startswith("/")
    sizes = {(topic.Name, part.PartitionIndex): part.PartitionSize for topic in directory.Topics for part in topic.Partitions}
    assert {(p.OffsetLag, p.IsFutureKey) for t in directory.Topics for p in t.Partitions} <= {(0, False)}
    return directory, sizes


@pytest.mark.parametrize("version", range(1, 5))
def test_sizes_of_partitions(broker, wire, topic, version):
    create(broker, topic, 3)
    batches = [batch([b"x" * 1000]), batch([b"y" * 50] * 7)]
    for one in batches:
        wire.produce(topic, 1, one)
    size = sum(map(len, batches))
    _, all_sizes = directories(wire, version, None)
    assert {key[1]: value for key, value in all_sizes.items() if key[0] == topic} == {0: 0, 1: size, 2: 0}
    wanted = [{"Topic": topic, "Partitions": [1, 9, 1]}, {"Topic": "no-such-topic", "Partitions": [0]}]
    directory, sizes = directories(wire, version, wanted)
    assert sizes == {(topic, 1): size}
    assert directories(wire, version, [])[1] == {}
    if version >= 4:
        assert 0 < directory.UsableBytes <= directory.TotalBytes


@pytest.mark.parametrize("version", range(1, 3))
def test_partitions_have_one_directory(broker, wire, topic, version):
    create(broker, topic, 1)
    own = directories(wire, 4, [])[0].LogDir
    topics = [{"Name": topic, "Partitions": [0]}]

    def codes(path, topics):
        answer = messages.ask(wire, "AlterReplicaLogDirs", version, Dirs=[{"Path": path, "Topics": topics}])
        return [part.ErrorCode for told in answer.Results for part in told.Partitions]

    assert codes(own, topics) == [0]
    assert codes("/no/such/directory", topics) == [57]
    assert codes(own, [{"Name": "no-such-topic", "Partitions": [0]}]) == [3]


@pytest.mark.parametrize("version", range(3))
def test_no_partition_needs_an_election(broker, wire, topic, version):
    create(broker, topic, 2)
    wanted = [{"Topic": topic, "Partitions": [0, 1, 5]}, {"Topic": "no-such-topic", "Partitions": [0]}]
    for kind in [{}] if version == 0 else [{"ElectionType": 0}, {"ElectionType": 1}]:
        answer = messages.ask(wire, "ElectLeaders", version, TopicPartitions=wanted, TimeoutMs=30_000, **kind)
        told = {t.Topic: [(p.PartitionId, p.ErrorCode) for p in t.PartitionResult] for t in answer.ReplicaElectionResults}
        assert told == {topic: [(0, 84), (1, 84), (5, 3)], "no-such-topic": [(0, 3)]}
        answer = messages.ask(wire, "ElectLeaders", version, TopicPartitions=None, TimeoutMs=30_000, **kind)
        assert {t.Topic for t in answer.ReplicaElectionResults} >= {topic}
        assert {len(t.PartitionResult) for t in answer.ReplicaElectionResults} == {0}
        assert version == 0 or answer.ErrorCode == 0


@pytest.mark.parametrize("version", range(2))
def test_partitions_stay_on_their_broker(broker, wire, topic, node, version):
    create(broker, topic, 2)

    def code(name, index, replicas):
        wanted = [{"Name": name, "Partitions": [{"PartitionIndex": index, "Replicas": replicas}]}]
        answer = messages.ask(wire, "AlterPartitionReassignments", version, TimeoutMs=30_000, Topics=wanted)
        assert (answer.ErrorCode, answer.ErrorMessage) == (0, None)
        ((part,),) = [told.Partitions for told in answer.Responses]
        assert (part.ErrorCode in (0, 85)) == (part.ErrorMessage is None)
        return part.ErrorCode

    assert code(topic, 0, [node]) == 0, "it is there already"
    assert [code(topic, 0, replicas) for replicas in ([node + 1], [node, node], [node, node + 1], [])] == [39] * 4
    assert code(topic, 1, None) == 85
    assert [code(topic, 7, [node]), code("no-such-topic", 0, [node])] == [3, 3]
    for topics in (None, [], [{"Name": topic, "PartitionIndexes": [0, 1]}]):
        answer = messages.ask(wire, "ListPartitionReassignments", 0, TimeoutMs=30_000, Topics=topics)
        assert (answer.ErrorCode, answer.Topics) == (0, [])


@pytest.mark.parametrize("version", range(3))
def test_the_quorum_has_one_voter(broker, wire, topic, node, version):
    create(broker, topic, 1)

    def described(name, index):
        wanted = [{"TopicName": name, "Partitions": [{"PartitionIndex": index}]}]
        answer = messages.ask(wire, "DescribeQuorum", version, Topics=wanted)
        assert answer.ErrorCode == 0
        return answer, answer.Topics[0].Partitions[0]

    answer, partition = described("__cluster_metadata", 0)
    assert (partition.ErrorCode, partition.LeaderId) == (0, node)
    assert [voter.ReplicaId for voter in partition.CurrentVoters] == [node] and partition.Observers == []
    assert partition.HighWatermark > 0 and partition.LeaderEpoch >= 0
    if version >= 2:
        assert [told.NodeId for told in answer.Nodes] == [node] and answer.Nodes[0].Listeners
    assert [described(topic, 0)[1].ErrorCode, described("__cluster_metadata", 1)[1].ErrorCode] == [3, 3]


def test_throttles_that_nobody_set_can_be_cleared(wire, node):
    """So does the tool that reassigns partitions when it is done."""
    names = ["leader.replication.throttled.rate", "follower.replication.throttled.rate", "replica.alter.log.dirs.io.max.bytes.per.second"]
    clear = [{"Name": name, "ConfigOperation": 1, "Value": None} for name in names]
    for name in (str(node), ""):
        resource = {"ResourceType": BROKER, "ResourceName": name, "Configs": clear}
        (told,) = messages.ask(wire, "IncrementalAlterConfigs", 1, Resources=[resource]).Responses
        assert (told.ErrorCode, told.ErrorMessage) == (0, None)


def test_other_brokers_cannot_be_unregistered(wire, node):
    answer = messages.ask(wire, "UnregisterBroker", 0, BrokerId=node + 8)
    assert (answer.ErrorCode, answer.ErrorMessage) == (102, f"Broker ID {node + 8} is not currently registered")


@pytest.mark.parametrize("version", range(2))
def test_there_are_no_transactions(broker, wire, version):
    answer = messages.ask(wire, "ListTransactions", version, StateFilters=["Ongoing", "Sleeping"])
    assert (answer.ErrorCode, answer.TransactionStates, answer.UnknownStateFilters) == (0, [], ["Sleeping"])


@pytest.mark.only_thalweg  # Kafka answers 16 before its internal topic is there
def test_no_transactional_id_is_found(wire):
    answer = messages.ask(wire, "DescribeTransactions", 0, TransactionalIds=["a", "b"])
    assert [(told.TransactionalId, told.ErrorCode) for told in answer.TransactionStates] == [("a", 105), ("b", 105)]


def test_what_has_settings(broker, wire, topic, node):
    create(broker, topic, 1)

    def listed(version, **more):
        answer = messages.ask(wire, "ListConfigResources", version, **more)
        assert answer.ErrorCode == 0
        return {(getattr(told, "ResourceType", CLIENT_METRICS), told.ResourceName) for told in answer.ConfigResources}

    own = (TOPIC, topic)
    assert asked_until(True, lambda: own in listed(1, ResourceTypes=[TOPIC]))
    assert {kind for kind, _ in listed(1, ResourceTypes=[TOPIC])} == {TOPIC}
    assert listed(1, ResourceTypes=[BROKER]) == {(BROKER, str(node))}
    assert listed(1, ResourceTypes=[BROKER_LOGGER]) == {(BROKER_LOGGER, str(node))}
    assert listed(1, ResourceTypes=[CLIENT_METRICS, GROUP]) == set()
    assert {own, (BROKER, str(node)), (BROKER_LOGGER, str(node))} <= listed(1)
    assert listed(0) == set()
    assert messages.ask(wire, "ListConfigResources", 1, ResourceTypes=[TOPIC, 3]).ErrorCode == 35


@pytest.mark.parametrize("version", range(1, 4))
def test_no_rules_without_an_authorizer(wire, version):
    why = "No Authorizer is configured."
    found = {"PatternTypeFilter": 1, "ResourceTypeFilter": 1, "Operation": 1, "PermissionType": 1}
    answer = messages.ask(wire, "DescribeAcls", version, **found)
    assert (answer.ErrorCode, answer.ErrorMessage, answer.Resources) == (54, "No Authorizer is configured on the broker", [])
    rule = {"ResourceType": TOPIC, "ResourceName": "t", "ResourcePatternType": 3}
    rule |= {"Principal": "User:a", "Host": "*", "Operation": 3, "PermissionType": 3}
    answer = messages.ask(wire, "CreateAcls", version, Creations=[rule, rule])
    assert [(told.ErrorCode, told.ErrorMessage) for told in answer.Results] == [(54, why)] * 2
    answer = messages.ask(wire, "DeleteAcls", version, Filters=[found])
    assert [(told.ErrorCode, told.ErrorMessage, told.MatchingAcls) for told in answer.FilterResults] == [(54, why, [])]


@pytest.mark.parametrize("version", range(2))
def test_there_are_no_quotas(wire, version):
    def told(*components):
        components = [dict(zip(("EntityType", "MatchType", "Match"), component)) for component in components]
        answer = messages.ask(wire, "DescribeClientQuotas", version, Components=components, Strict=True)
        return answer.ErrorCode, answer.Entries

    exact, default, anything = range(3)
    assert told() == told(("user", exact, "a"), ("client-id", default, None)) == told(("ip", anything, None)) == (0, [])
    refused = [
        [("ip", anything, None), ("user", anything, None)], [("user", exact, None)], [("user", default, "a")], [("user", 3, None)],
        [("user", default, None), ("user", anything, None)], [("", anything, None)],
    ]  # fmt: skip
    assert [told(*components) for components in refused] == [(42, None)] * len(refused)
    assert told(("group", anything, None)) == (35, None)


def test_nobody_has_credentials(wire):
    def told(users):
        answer = messages.ask(wire, "DescribeUserScramCredentials", 0, Users=users)
        assert answer.ErrorCode == 0
        return sorted((result.User, result.ErrorCode, result.ErrorMessage) for result in answer.Results)

    assert told(None) == told([]) == []
    missing = "Attempt to describe a user credential that does not exist: a"
    twice = "Cannot describe SCRAM credentials for the same user twice in a single request: b"
    assert told([{"Name": "b"}, {"Name": "a"}, {"Name": "b"}]) == [("a", 91, missing), ("b", 92, twice)]
