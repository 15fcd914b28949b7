"""Access rules (KIP-11, KIP-290, KIP-430, KIP-679) and SCRAM credentials (KIP-554) on the wire: who is told what. Runs against any
broker that this run starts.

There is no authentication, so everybody is `User:ANONYMOUS`; what tells clients apart here is the address they come from. The
administrator's, 127.0.0.1, may do everything; the stranger's may do what a test allows.
"""

import time

import brokers
import messages
import pytest
from test_fetch import create
from wire import Connection, batch

TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
ANY, MATCH, LITERAL, PREFIXED = 1, 2, 3, 4
ALL, READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, CLUSTER_ACTION = range(2, 10)
DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE = 10, 11, 12
DENY, ALLOW = 2, 3

ANYBODY, ADMINISTRATOR, STRANGER = "User:ANONYMOUS", "127.0.0.1", "127.0.0.9"
KAFKA_CLUSTER = "kafka-cluster"
NOT_AUTHORIZED = {29, 30, 31, 53}
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


def start(name, **settings):
    if name not in ("thalweg", "kafka"):
        pytest.skip("a broker with an authorizer is started by this test")
    return (brokers.Thalweg if name == "thalweg" else brokers.Kafka)({**AUTHORIZER, **settings})


def rule(kind, name, operation, permission=ALLOW, pattern=LITERAL, host=STRANGER, principal=ANYBODY):
    """(type, pattern type, name, principal, host, operation, permission), as `rules` has it."""
    return kind, pattern, name, principal, host, operation, permission


EVERYTHING = [(CLUSTER, KAFKA_CLUSTER), (TOPIC, "*"), (GROUP, "*"), (TRANSACTIONAL_ID, "*")]
ADMINISTRATORS = [rule(kind, name, ALL, host=ADMINISTRATOR) for kind, name in EVERYTHING]


def codes(answer):
    """Every error code in an answer, wherever it stands."""
    if isinstance(answer, list):
        return set().union(*map(codes, answer))
    if not hasattr(answer, "__dict__"):
        return set()
    here = {answer.ErrorCode} if hasattr(answer, "ErrorCode") else set()
    return here.union(*map(codes, vars(answer).values()))


def filter_of(kind=ANY, pattern=ANY, name=None, principal=None, host=None, operation=ANY, permission=ANY):
    return {
        "ResourceTypeFilter": kind, "PatternTypeFilter": pattern, "ResourceNameFilter": name, "PrincipalFilter": principal,
        "HostFilter": host, "Operation": operation, "PermissionType": permission,
    }  # fmt: skip


def rules(wire, version=3, **wanted):
    """The rules that a filter means."""
    answer = messages.ask(wire, "DescribeAcls", version, **filter_of(**wanted))
    assert answer.ErrorCode == 0, answer
    return sorted(
        (told.ResourceType, told.PatternType, told.ResourceName, acl.Principal, acl.Host, acl.Operation, acl.PermissionType)
        for told in answer.Resources
        for acl in told.Acls
    )


def creation(one):
    names = ("ResourceType", "ResourcePatternType", "ResourceName", "Principal", "Host", "Operation", "PermissionType")
    return dict(zip(names, one))


def deleted(wire, version=3, **wanted):
    """Deletes what a filter means, and returns it."""
    (told,) = messages.ask(wire, "DeleteAcls", version, Filters=[filter_of(**wanted)]).FilterResults
    assert (told.ErrorCode, {acl.ErrorCode for acl in told.MatchingAcls} - {0}) == (0, set())
    return sorted(
        (a.ResourceType, a.PatternType, a.ResourceName, a.Principal, a.Host, a.Operation, a.PermissionType) for a in told.MatchingAcls
    )


class Rules:
    """Makes rules and takes them away. Thalweg's are in force at the answer; Kafka's broker learns of them a moment later."""

    def __init__(self, broker, wire):
        self.broker, self.wire = broker, wire

    def look(self, wanted):
        deadline = time.monotonic() + 10
        while not (holds := wanted()) and self.broker.name == "kafka" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert holds, "not in force at the answer"

    def add(self, *new, version=3):
        answer = messages.ask(self.wire, "CreateAcls", version, Creations=[creation(one) for one in new])
        assert [(told.ErrorCode, told.ErrorMessage) for told in answer.Results] == [(0, "")] * len(new)
        self.look(lambda: set(new) <= set(rules(self.wire)))

    def clear(self):
        """Leaves the administrator's."""
        deleted(self.wire, host=STRANGER)
        deleted(self.wire, host="*")
        self.look(lambda: rules(self.wire) == sorted(ADMINISTRATORS))


@pytest.fixture(scope="module")
def broker(request):
    with start(request.config.getoption("--broker")) as chosen:
        with Connection(chosen.bootstrap) as wire:
            Rules(chosen, wire).add(*ADMINISTRATORS)
        create(chosen, "seen", 1)
        create(chosen, "hidden", 1)
        yield chosen
        chosen.stop()


@pytest.fixture
def acls(broker, wire):
    made = Rules(broker, wire)
    yield made
    made.clear()


@pytest.fixture
def stranger(broker):
    with Connection(broker.bootstrap, source=STRANGER) as connection:
        yield connection


@pytest.fixture
def node(wire):
    (one,) = messages.ask(wire, "DescribeCluster", 1).Brokers
    return one.BrokerId


T, G, NEW = "seen", "group", "new"
ONE_PART = [{"PartitionIndex": 0, "Timestamp": -1, "CurrentLeaderEpoch": -1}]
SETTING = {"Name": "retention.ms", "Value": "1000000"}
MEMBER = {"GroupId": G, "GenerationId": 1, "MemberId": "m"}


def configs(kind, name, **more):
    return {"Resources": [{"ResourceType": kind, "ResourceName": name, **more}]}


# Request, version, fields, and step by step: the code that refuses it, and the rule that helps.
REQUESTS = {
    "produce": (
        "Produce", 9,
        {"TransactionalId": None, "Acks": -1, "TimeoutMs": 30_000,
         "TopicData": [{"Name": T, "PartitionData": [{"Index": 0, "Records": batch([b"x"])}]}]},
        [(29, rule(TOPIC, T, WRITE))],
    ),
    "fetch": (
        "Fetch", 12,
        {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 1, "SessionEpoch": -1,
         "Topics": [{"Topic": T, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}]},
        [(29, rule(TOPIC, T, READ))],
    ),
    "offsets": ("ListOffsets", 9, {"ReplicaId": -1, "Topics": [{"Name": T, "Partitions": ONE_PART}]}, [(29, rule(TOPIC, T, DESCRIBE))]),
    "epochs": (
        "OffsetForLeaderEpoch", 4,
        {"ReplicaId": -1, "Topics": [{"Topic": T, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}]},
        [(29, rule(TOPIC, T, DESCRIBE))],
    ),
    "epochs-of-a-broker": (
        "OffsetForLeaderEpoch", 4,
        {"ReplicaId": -1, "Topics": [{"Topic": T, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}]},
        [(29, rule(CLUSTER, KAFKA_CLUSTER, CLUSTER_ACTION))],
    ),
    "producers": ("DescribeProducers", 0, {"Topics": [{"Name": T, "PartitionIndexes": [0]}]}, [(29, rule(TOPIC, T, READ))]),
    "metadata": ("Metadata", 12, {"Topics": [{"Name": T, "TopicId": bytes(16)}]}, [(29, rule(TOPIC, T, DESCRIBE))]),
    "describe-partitions": ("DescribeTopicPartitions", 0, {"Topics": [{"Name": T}]}, [(29, rule(TOPIC, T, DESCRIBE))]),
    "delete-records": (
        "DeleteRecords", 2, {"Topics": [{"Name": T, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}], "TimeoutMs": 30_000},
        [(29, rule(TOPIC, T, DELETE))],
    ),
    "extend": ("CreatePartitions", 3, {"Topics": [{"Name": T, "Count": 1, "Assignments": None}], "TimeoutMs": 30_000}, [(29, rule(TOPIC, T, ALTER))]),
    "create-topic": (
        "CreateTopics", 7, {"Topics": [{"Name": NEW, "NumPartitions": 1, "ReplicationFactor": 1}], "validateOnly": True},
        [(29, rule(TOPIC, NEW, CREATE))],
    ),
    "create-any-topic": (
        "CreateTopics", 7, {"Topics": [{"Name": NEW, "NumPartitions": 1, "ReplicationFactor": 1}], "validateOnly": True},
        [(29, rule(CLUSTER, KAFKA_CLUSTER, CREATE))],
    ),
    "delete-topic": ("DeleteTopics", 6, {"Topics": [{"Name": "no-such-topic", "TopicId": bytes(16)}], "TimeoutMs": 30_000}, [(29, rule(TOPIC, "no-such-topic", DELETE))]),
    "topic-configs": ("DescribeConfigs", 4, configs(2, T, ConfigurationKeys=None), [(29, rule(TOPIC, T, DESCRIBE_CONFIGS))]),
    "broker-configs": ("DescribeConfigs", 4, configs(4, "", ConfigurationKeys=None), [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE_CONFIGS))]),
    "alter-topic-configs": ("AlterConfigs", 2, {**configs(2, T, Configs=[SETTING]), "ValidateOnly": True}, [(29, rule(TOPIC, T, ALTER_CONFIGS))]),
    "alter-topic-config": (
        "IncrementalAlterConfigs", 1, {**configs(2, T, Configs=[{**SETTING, "ConfigOperation": 0}]), "ValidateOnly": True},
        [(29, rule(TOPIC, T, ALTER_CONFIGS))],
    ),
    "alter-broker-config": (
        "IncrementalAlterConfigs", 1,
        {**configs(4, "", Configs=[{"Name": "leader.replication.throttled.rate", "Value": None, "ConfigOperation": 1}]), "ValidateOnly": True},
        [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER_CONFIGS))],
    ),
    "list-configs": ("ListConfigResources", 1, {}, [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE_CONFIGS))]),
    "coordinator": ("FindCoordinator", 4, {"KeyType": 0, "CoordinatorKeys": [G]}, [(30, rule(GROUP, G, DESCRIBE))]),
    "join": (
        "JoinGroup", 5,
        {"GroupId": G, "SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000, "MemberId": "", "ProtocolType": "consumer",
         "Protocols": [{"Name": "range", "Metadata": b""}]},
        [(30, rule(GROUP, G, READ))],
    ),
    "sync": ("SyncGroup", 3, MEMBER, [(30, rule(GROUP, G, READ))]),
    "heartbeat": ("Heartbeat", 4, MEMBER, [(30, rule(GROUP, G, READ))]),
    "leave": ("LeaveGroup", 4, {"GroupId": G, "Members": [{"MemberId": "m"}]}, [(30, rule(GROUP, G, READ))]),
    "commit": (
        "OffsetCommit", 8,
        {"GroupId": G, "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": T, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 0}]}]},
        [(30, rule(GROUP, G, READ)), (29, rule(TOPIC, T, READ))],
    ),
    "committed": (
        "OffsetFetch", 8, {"Groups": [{"GroupId": G, "Topics": [{"Name": T, "PartitionIndexes": [0]}]}]},
        [(30, rule(GROUP, G, DESCRIBE)), (29, rule(TOPIC, T, DESCRIBE))],
    ),
    "delete-offsets": (
        "OffsetDelete", 0, {"GroupId": G, "Topics": [{"Name": T, "Partitions": [{"PartitionIndex": 0}]}]},
        [(30, rule(GROUP, G, DELETE)), (29, rule(TOPIC, T, READ))],
    ),
    "describe-group": ("DescribeGroups", 5, {"Groups": [G]}, [(30, rule(GROUP, G, DESCRIBE))]),
    "delete-group": ("DeleteGroups", 2, {"GroupsNames": ["no-such-group"]}, [(30, rule(GROUP, "no-such-group", DELETE))]),
    "producer-id": ("InitProducerId", 4, {"TransactionalId": None}, [(31, rule(CLUSTER, KAFKA_CLUSTER, IDEMPOTENT_WRITE))]),
    "producer-id-of-a-writer": ("InitProducerId", 4, {"TransactionalId": None}, [(31, rule(TOPIC, "any", WRITE, pattern=PREFIXED))]),
    "describe-acls": ("DescribeAcls", 3, filter_of(), [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE))]),
    "create-acls": ("CreateAcls", 3, {"Creations": [creation(rule(TOPIC, "x", READ))]}, [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))]),
    "delete-acls": ("DeleteAcls", 3, {"Filters": [filter_of(name="no-such-name")]}, [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))]),
    "alter-log-dirs": (
        "AlterReplicaLogDirs", 2, {"Dirs": [{"Path": "/no/such", "Topics": [{"Name": T, "Partitions": [0]}]}]},
        [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))],
    ),
    "log-dirs": ("DescribeLogDirs", 4, {"Topics": None}, [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE))]),
    "elect": (
        "ElectLeaders", 2, {"ElectionType": 0, "TopicPartitions": [{"Topic": T, "Partitions": [0]}], "TimeoutMs": 30_000},
        [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))],
    ),
    "elect-0": (
        "ElectLeaders", 0, {"TopicPartitions": [{"Topic": T, "Partitions": [0]}], "TimeoutMs": 30_000},
        [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))],
    ),
    "reassign": (
        "AlterPartitionReassignments", 0,
        {"Topics": [{"Name": T, "Partitions": [{"PartitionIndex": 0, "Replicas": None}]}], "TimeoutMs": 30_000},
        [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))],
    ),
    "reassigned": ("ListPartitionReassignments", 0, {"Topics": None, "TimeoutMs": 30_000}, [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE))]),
    "quotas": ("DescribeClientQuotas", 1, {"Components": []}, [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE_CONFIGS))]),
    "credentials": ("DescribeUserScramCredentials", 0, {"Users": [{"Name": "nobody"}]}, [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE))]),
    "alter-credentials": (
        "AlterUserScramCredentials", 0, {"Deletions": [{"Name": "nobody", "Mechanism": 1}]}, [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))],
    ),
    "quorum": (
        "DescribeQuorum", 2, {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]},
        [(31, rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE))],
    ),
    "unregister": ("UnregisterBroker", 0, {"BrokerId": 77}, [(31, rule(CLUSTER, KAFKA_CLUSTER, ALTER))]),
    "transaction": ("DescribeTransactions", 0, {"TransactionalIds": ["x"]}, [(53, rule(TRANSACTIONAL_ID, "x", DESCRIBE))]),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_wants_its_rules(acls, stranger, name):
    request, version, fields, steps = REQUESTS[name]
    for code, helps in steps:
        assert codes(messages.ask(stranger, request, version, **fields)) & NOT_AUTHORIZED == {code}
        acls.add(helps)
    answer = messages.ask(stranger, request, version, **fields)
    assert codes(answer) & NOT_AUTHORIZED == set(), answer


def test_the_administrator_may_do_it_all(wire):
    for request, version, fields, _ in REQUESTS.values():
        assert codes(messages.ask(wire, request, version, **fields)) & NOT_AUTHORIZED == set(), request


def metadata(wire, topics, **more):
    given = None if topics is None else [{"Name": t, "TopicId": bytes(16)} if isinstance(t, str) else {"Name": None, "TopicId": t} for t in topics]
    answer = messages.ask(wire, "Metadata", 12, Topics=given, **{"AllowAutoTopicCreation": False, **more})
    return {topic.Name or topic.TopicId: topic for topic in answer.Topics}


def test_what_is_hidden_might_as_well_not_exist(acls, wire, stranger):
    acls.add(rule(TOPIC, "seen", READ))
    assert set(metadata(stranger, None)) == {"seen"}
    assert {"seen", "hidden"} <= set(metadata(wire, None))
    told = metadata(stranger, ["seen", "hidden", "no-such-topic"])
    assert {name: topic.ErrorCode for name, topic in told.items()} == {"seen": 0, "hidden": 29, "no-such-topic": 29}
    for name in ("hidden", "no-such-topic"):
        assert (told[name].TopicId, told[name].Partitions, told[name].IsInternal) == (bytes(16), [], False)
    hidden, nobody = wire.topic_id("hidden")[0], b"\7" * 16
    told = metadata(stranger, [hidden, nobody])
    assert [(told[one].ErrorCode, told[one].Name) for one in (hidden, nobody)] == [(29, None), (100, None)]
    pages = messages.ask(stranger, "DescribeTopicPartitions", 0, Topics=[])
    assert [topic.Name for topic in pages.Topics] == ["seen"]
    pages = messages.ask(stranger, "DescribeTopicPartitions", 0, Topics=[{"Name": n} for n in ("hidden", "seen", "no-such-topic")])
    found = {topic.Name: (topic.ErrorCode, topic.TopicId == bytes(16), len(topic.Partitions)) for topic in pages.Topics}
    assert found == {"seen": (0, False, 1), "hidden": (29, True, 0), "no-such-topic": (29, True, 0)}
    for name in ("hidden", "no-such-topic"):
        assert stranger.try_produce(name, 0, batch([b"x"])) == 29
        fields = {**REQUESTS["fetch"][2], "Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "PartitionMaxBytes": 1000}]}]}
        assert codes(messages.ask(stranger, "Fetch", 12, **fields)) == {0, 29}
        assert codes(messages.ask(stranger, "ListOffsets", 9, ReplicaId=-1, Topics=[{"Name": name, "Partitions": ONE_PART}])) == {29}
        topics = {"Topics": [{"Name": name, "TopicId": bytes(16)}], "TimeoutMs": 30_000}
        assert codes(messages.ask(stranger, "DeleteTopics", 6, **topics)) == {29}


def test_ids_are_no_way_around_the_rules(acls, wire, stranger):
    hidden, nobody = wire.topic_id("hidden")[0], b"\7" * 16

    def asked(topic):
        parts = {"Topics": [{"TopicId": topic, "Partitions": [{"Partition": 0, "PartitionMaxBytes": 1000}]}]}
        fetched = messages.ask(stranger, "Fetch", 13, ReplicaId=-1, MinBytes=1, SessionEpoch=-1, **parts)
        produced = messages.produce(stranger, topic, {0: batch([b"x"])}, version=13)
        topics = [{"Name": None, "TopicId": topic}]
        gone = messages.ask(stranger, "DeleteTopics", 6, Topics=topics, TimeoutMs=30_000)
        return codes(fetched) - {0}, produced[0].ErrorCode, codes(gone)

    assert asked(hidden) == ({29}, 29, {29})
    assert asked(nobody) == ({100}, 100, {100})


def test_a_session_notices_what_is_taken_away(acls, wire, stranger):
    acls.add(rule(TOPIC, "seen", READ))
    part = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1000}
    fields = {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 1}
    first = messages.ask(stranger, "Fetch", 12, **fields, SessionEpoch=0, Topics=[{"Topic": "seen", "Partitions": [part]}])
    assert (codes(first), first.SessionId > 0) == ({0}, True)
    deleted(wire, host=STRANGER)
    acls.look(lambda: rules(wire, host=STRANGER) == [])
    # Another rule for the topic, or it is one of those that nobody has rules for.
    acls.add(rule(TOPIC, "seen", READ, host="127.0.0.77"))
    again = messages.ask(stranger, "Fetch", 12, **fields, SessionId=first.SessionId, SessionEpoch=1)
    assert codes(again) == {0, 29}
    deleted(wire, host="127.0.0.77")


def test_denials_prefixes_and_everybody(acls, stranger):
    def may_read(name):
        return metadata(stranger, [name])[name].ErrorCode != 29

    acls.add(rule(TOPIC, "se", DESCRIBE, pattern=PREFIXED, principal="User:*", host="*"))
    assert [may_read(name) for name in ("seen", "hidden", "s")] == [True, False, False]
    acls.add(rule(TOPIC, "*", DESCRIBE))
    assert [may_read(name) for name in ("seen", "hidden", "s")] == [True] * 3
    # To be denied reading is not to be denied describing; being denied that is.
    acls.add(rule(TOPIC, "hidden", READ, DENY))
    assert may_read("hidden")
    acls.add(rule(TOPIC, "hi", DESCRIBE, DENY, pattern=PREFIXED))
    assert [may_read(name) for name in ("seen", "hidden", "s")] == [True, False, True]
    acls.add(rule(TOPIC, "*", ALL, DENY, principal="User:*"))
    assert not may_read("seen")


def test_operations_that_are_allowed_are_told(acls, stranger, wire):
    def operations(wire):
        topic = metadata(wire, ["seen"], IncludeTopicAuthorizedOperations=True)["seen"].TopicAuthorizedOperations
        cluster = messages.ask(wire, "DescribeCluster", 0, IncludeClusterAuthorizedOperations=True).ClusterAuthorizedOperations
        group = messages.ask(wire, "DescribeGroups", 5, Groups=["nobody"], IncludeAuthorizedOperations=True).Groups[0]
        (page,) = messages.ask(wire, "DescribeTopicPartitions", 0, Topics=[{"Name": "seen"}]).Topics
        assert page.TopicAuthorizedOperations == topic
        return [topic, group.AuthorizedOperations, cluster]

    assert operations(wire) == [0b1101_1111_1000, 0b1101_0100_1000, 0b1_1111_1010_0000]
    acls.add(rule(TOPIC, "seen", WRITE), rule(GROUP, "n", READ, pattern=PREFIXED))
    assert operations(stranger) == [1 << WRITE | 1 << DESCRIBE, 1 << READ | 1 << DESCRIBE, 0]
    acls.add(rule(CLUSTER, KAFKA_CLUSTER, ALTER), rule(TOPIC, "seen", ALTER_CONFIGS))
    topic, _, cluster = operations(stranger)
    assert topic == 1 << WRITE | 1 << DESCRIBE | 1 << DESCRIBE_CONFIGS | 1 << ALTER_CONFIGS
    assert cluster == 1 << ALTER | 1 << DESCRIBE


def test_groups_and_offsets_are_filtered(acls, wire, stranger):
    commit = {**REQUESTS["commit"][2]}
    for group in ("mine", "theirs"):
        deadline = time.monotonic() + 30
        fields = {**commit, "GroupId": group}
        fields["Topics"] = [{"Name": t, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 0}]} for t in ("seen", "hidden")]
        # The internal topic may have to be created first.
        messages.ask(wire, "FindCoordinator", 4, KeyType=0, CoordinatorKeys=[group])
        while codes(messages.ask(wire, "OffsetCommit", 8, **fields)) != {0}:
            assert time.monotonic() < deadline, "no coordinator"
            time.sleep(0.05)

    def listed(wire):
        return {group.GroupId for group in messages.ask(wire, "ListGroups", 4).Groups}

    assert {"mine", "theirs"} <= listed(wire) and listed(stranger) == set()
    acls.add(rule(GROUP, "mine", DESCRIBE), rule(TOPIC, "seen", DESCRIBE))
    assert listed(stranger) == {"mine"}
    every = messages.ask(stranger, "OffsetFetch", 8, Groups=[{"GroupId": "mine", "Topics": None}])
    assert [topic.Name for topic in every.Groups[0].Topics] == ["seen"]
    some = [{"Name": name, "PartitionIndexes": [0]} for name in ("hidden", "seen")]
    for version in range(1, 8):
        answer = messages.ask(stranger, "OffsetFetch", version, GroupId="mine", Topics=some)
        found = {topic.Name: (topic.Partitions[0].ErrorCode, topic.Partitions[0].CommittedOffset) for topic in answer.Topics}
        assert found == {"hidden": (29, -1), "seen": (0, 0)}, version
    acls.add(rule(CLUSTER, KAFKA_CLUSTER, DESCRIBE))
    assert {"mine", "theirs"} <= listed(stranger)


def test_topics_are_created_by_those_who_may(acls, wire, stranger, topic):
    auto = {"AllowAutoTopicCreation": True}
    assert metadata(stranger, [topic], **auto)[topic].ErrorCode == 29
    acls.add(rule(TOPIC, topic, DESCRIBE))
    assert metadata(stranger, [topic], **auto)[topic].ErrorCode == 29
    assert metadata(wire, [topic])[topic].ErrorCode == 3, "nothing was created"
    acls.add(rule(TOPIC, topic, CREATE))
    assert metadata(stranger, [topic], **auto)[topic].ErrorCode in (0, 3, 5), "Kafka answers before it is there"
    fields = {"Topics": [{"Name": topic + "-2", "NumPartitions": 3, "ReplicationFactor": 1}], "timeoutMs": 30_000}
    acls.add(rule(TOPIC, topic + "-2", CREATE))
    (told,) = messages.ask(stranger, "CreateTopics", 7, **fields).Topics
    # Whose settings one may not see are not told.
    assert (told.ErrorCode, told.TopicConfigErrorCode, told.NumPartitions, told.Configs) == (0, 29, -1, [])


@pytest.mark.parametrize("version", range(1, 4))
def test_rules_are_made_found_and_deleted(acls, wire, version):
    made = [
        rule(TOPIC, "logs", READ), rule(TOPIC, "log", WRITE, pattern=PREFIXED), rule(TOPIC, "*", DESCRIBE, DENY),
        rule(GROUP, "logs", READ, principal="User:CN=a,O=b"), rule(TRANSACTIONAL_ID, "logs", ALL, host="*"),
    ]  # fmt: skip
    acls.add(*made, version=version)
    acls.add(*made, version=version)

    def found(**wanted):
        return [one for one in rules(wire, version, **wanted) if one not in ADMINISTRATORS]

    assert found() == sorted(made)
    assert found(kind=TOPIC) == sorted(made[:3])
    assert found(pattern=MATCH, kind=TOPIC, name="logs") == sorted(made[:3])
    assert found(pattern=MATCH, kind=TOPIC, name="log-2") == sorted(made[1:3])
    assert found(pattern=LITERAL, name="logs") == sorted([made[0], *made[3:]])
    assert found(pattern=PREFIXED) == [made[1]] == found(pattern=ANY, name="log")
    assert found(principal="User:CN=a,O=b") == [made[3]] and found(host="*") == [made[4]]
    assert found(operation=READ) == sorted([made[0], made[3]]) and found(permission=DENY) == [made[2]]
    assert found(principal="User:*") == found(name="nothing") == []
    assert deleted(wire, version, pattern=MATCH, kind=TOPIC, name="log-2", host=STRANGER) == sorted(made[1:3])
    acls.look(lambda: found() == sorted([made[0], *made[3:]]))
    assert deleted(wire, version, pattern=LITERAL, name="logs") == sorted([made[0], *made[3:]])
    acls.look(lambda: found() == [])


def test_rules_that_are_none_are_refused_alone(acls, wire):
    good = rule(TOPIC, "x", READ)
    bad = [rule(CLUSTER, "elsewhere", READ), rule(TOPIC, "", READ), rule(TOPIC, "x", READ, principal="alice")]
    answer = messages.ask(wire, "CreateAcls", 3, Creations=[creation(one) for one in [*bad, good]])
    assert [told.ErrorCode for told in answer.Results] == [42, 42, 42, 0]
    assert [bool(told.ErrorMessage) for told in answer.Results] == [True] * 3 + [False]
    acls.look(lambda: rules(wire, host=STRANGER) == [good])
    twice = [filter_of(host=STRANGER, name="x"), filter_of(host=STRANGER, operation=READ)]
    results = messages.ask(wire, "DeleteAcls", 3, Filters=twice).FilterResults
    assert [(told.ErrorCode, len(told.MatchingAcls)) for told in results] == [(0, 1)] * 2
    acls.look(lambda: rules(wire, host=STRANGER) == [])


@pytest.mark.only_thalweg  # Kafka's broker learns of a rule a moment after the answer
def test_rules_are_in_force_on_every_core_at_the_answer(acls, broker, wire):
    strangers = [Connection(broker.bootstrap, source=STRANGER) for _ in range(8)]
    one = rule(TOPIC, "seen", DESCRIBE)
    for _ in range(30):
        messages.ask(wire, "CreateAcls", 3, Creations=[creation(one)])
        assert [metadata(stranger, ["seen"])["seen"].ErrorCode for stranger in strangers] == [0] * 8
        assert deleted(wire, host=STRANGER) == [one]
        assert [metadata(stranger, ["seen"])["seen"].ErrorCode for stranger in strangers] == [29] * 8
    for stranger in strangers:
        stranger.close()


SECRET = b"a salted password that nobody may find"


def upsertion(user, mechanism=1, iterations=4096):
    return {"Name": user, "Mechanism": mechanism, "Iterations": iterations, "Salt": b"salt", "SaltedPassword": SECRET}


def altered(wire, deletions=(), upsertions=()):
    deletions = [{"Name": user, "Mechanism": mechanism} for user, mechanism in deletions]
    answer = messages.ask(wire, "AlterUserScramCredentials", 0, Deletions=deletions, Upsertions=list(upsertions))
    return {told.User: told.ErrorCode for told in answer.Results}


def credentials(wire, users=None):
    answer = messages.ask(wire, "DescribeUserScramCredentials", 0, Users=None if users is None else [{"Name": user} for user in users])
    assert answer.ErrorCode == 0
    return {r.User: (r.ErrorCode, sorted((c.Mechanism, c.Iterations) for c in r.CredentialInfos)) for r in answer.Results}


def test_credentials_are_set_described_and_deleted(acls, wire):
    assert altered(wire, upsertions=[upsertion("a"), upsertion("b", 2)]) == {"a": 0, "b": 0}
    assert altered(wire, upsertions=[upsertion("a", 2, 16384)]) == {"a": 0}
    acls.look(lambda: credentials(wire) == {"a": (0, [(1, 4096), (2, 16384)]), "b": (0, [(2, 4096)])})
    assert altered(wire, upsertions=[upsertion("b", 2, 8192)]) == {"b": 0}
    acls.look(lambda: credentials(wire, ["b", "c"]) == {"b": (0, [(2, 8192)]), "c": (91, [])})
    assert credentials(wire, ["a", "a"])["a"][0] == 92
    wrong = [upsertion("few", iterations=4095), upsertion("many", iterations=16385), upsertion("odd", 3), upsertion("")]
    wrong += [upsertion("twice"), upsertion("twice", iterations=5000)]
    wrong += [upsertion("both", 1), upsertion("both", 2)]
    told = altered(wire, [("a", 1), ("b", 1)], wrong)
    assert told == {"a": 0, "b": 91, "few": 93, "many": 93, "odd": 33, "": 93, "twice": 92, "both": 92}
    acls.look(lambda: credentials(wire) == {"a": (0, [(2, 16384)]), "b": (0, [(2, 8192)])})
    assert altered(wire, [("a", 2), ("b", 2)]) == {"a": 0, "b": 0}
    acls.look(lambda: credentials(wire) == {})


@pytest.mark.only_thalweg  # Kafka's own parts would be refused too
def test_without_rules_the_setting_decides():
    with start("thalweg", **{"allow.everyone.if.no.acl.found": "false"}) as broker:
        with Connection(broker.bootstrap) as wire:
            for request, version, fields, [(code, _), *_] in REQUESTS.values():
                assert codes(messages.ask(wire, request, version, **fields)) & NOT_AUTHORIZED == {code}, request
            assert metadata(wire, None) == {}
        broker.stop()


@pytest.mark.restarts
def test_rules_and_credentials_survive(request):
    with start(request.config.getoption("--broker"), **{"super.users": f"User:nobody; {ANYBODY}"}) as broker:
        with Connection(broker.bootstrap) as wire:
            acls = Rules(broker, wire)
            made = [rule(TOPIC, "seen", READ), rule(GROUP, "g", ALL, DENY, pattern=PREFIXED)]
            acls.add(*made)
            assert altered(wire, upsertions=[upsertion("a", 2, 5000)]) == {"a": 0}
            acls.look(lambda: credentials(wire) == {"a": (0, [(2, 5000)])})
        broker.kill()
        broker.start()
        with Connection(broker.bootstrap) as wire:
            acls = Rules(broker, wire)
            acls.look(lambda: rules(wire) == sorted(made))
            acls.look(lambda: credentials(wire) == {"a": (0, [(2, 5000)])})
            # Denied everything, and a super user all the same.
            assert codes(messages.ask(wire, "DescribeGroups", 5, Groups=["g1"])) & NOT_AUTHORIZED == set()
        broker.stop()
        if broker.name == "thalweg":
            files = [path for path in broker.directory.rglob("*") if path.is_file() and path.stat().st_size < 64 << 20]
            assert any(b"User:ANONYMOUS" in path.read_bytes() for path in files), "the metadata is not among them"
            assert not [path for path in files if SECRET in path.read_bytes()]
