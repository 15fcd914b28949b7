"""Settings of brokers and groups that are altered while the broker runs (KIP-226, KIP-848): which, where they come from, what acts, and
that they outlive a restart. Runs against any broker: what is compared with literals here is what Apache Kafka says."""

import contextlib
import time

import messages
import pytest
from brokers import Thalweg
from test_administration import asked_until, node  # noqa: F401 (a fixture)
from test_fetch import create
from test_topic_settings import APPEND, BROKER, DELETE, SET, SUBTRACT, TOPIC, alter, described, resource, told_in_time
from wire import Connection, Producer, batch

GROUP = 32
DYNAMIC_BROKER, DYNAMIC_DEFAULT, STATIC, DEFAULT, OF_GROUP = 2, 3, 4, 5, 8


def change(wire, name, *changes, kind=BROKER, **more):
    """The code and the message of one resource's changes."""
    return alter(wire, resource(kind, name, *changes), **more)[name]


def chain(wire, kind, name, setting):
    """Where a setting's value comes from, the one in force first."""
    _, settings = described(wire, kind, name, [setting], IncludeSynonyms=True)
    return [(one.Name, one.Value, one.Source) for one in settings[setting].Synonyms]


def altered(wire, name):
    """{setting: value} of what was altered of a broker."""
    source = DYNAMIC_BROKER if name else DYNAMIC_DEFAULT
    settings = described(wire, BROKER, name)[1]
    # Kafka writes this one by itself.
    return {key: told.Value for key, told in settings.items() if told.ConfigSource == source and key != "min.insync.replicas"}


@pytest.fixture
def me(wire, node):  # noqa: F811
    """The broker's id as a resource; what was altered is taken back."""
    own = str(node)
    yield own
    for name in (own, ""):
        change(wire, name, *[(key, DELETE, None) for key in altered(wire, name)])
        asked_until({}, lambda name=name: altered(wire, name))


def test_this_brokers_value_goes_before_that_of_all_brokers(wire, me, topic, broker):
    create(broker, topic, 1)
    size = ("message.max.bytes", SET)
    assert change(wire, "", (*size, "2000")) == (0, None)
    assert asked_until({"message.max.bytes": "2000"}, lambda: altered(wire, "")) == {"message.max.bytes": "2000"}
    assert change(wire, me, (*size, "3000")) == (0, None)
    both = [("message.max.bytes", "3000", 2), ("message.max.bytes", "2000", 3), ("message.max.bytes", "1048588", 5)]
    assert asked_until(both, lambda: chain(wire, BROKER, me, "message.max.bytes")) == both
    assert chain(wire, BROKER, "", "message.max.bytes") == both[1:2]
    assert chain(wire, TOPIC, topic, "max.message.bytes") == both, "a topic without a value of its own"
    told = described(wire, TOPIC, topic)[1]["max.message.bytes"]
    assert (told.Value, told.ConfigSource, told.ReadOnly) == ("3000", DYNAMIC_BROKER, False)
    assert change(wire, topic, ("max.message.bytes", SET, "4000"), kind=TOPIC)[0] == 0
    own = [("max.message.bytes", "4000", 1), *both]
    assert asked_until(own, lambda: chain(wire, TOPIC, topic, "max.message.bytes")) == own
    assert change(wire, me, ("message.max.bytes", DELETE, None)) == (0, None)
    assert asked_until(both[1:], lambda: chain(wire, BROKER, me, "message.max.bytes")) == both[1:]


def test_which_can_be_altered(wire, me):
    settings = described(wire, BROKER, me)[1]
    dynamic = [
        "log.retention.ms", "log.retention.bytes", "log.cleanup.policy", "message.max.bytes", "compression.type", "compression.gzip.level",
        "compression.lz4.level", "compression.zstd.level", "log.message.timestamp.type", "log.message.timestamp.before.max.ms",
        "log.message.timestamp.after.max.ms", "max.connections", "max.connections.per.ip", "producer.id.expiration.ms",
    ]  # fmt: skip
    static = ["num.partitions", "node.id", "fetch.max.bytes", "auto.create.topics.enable", "group.max.size", "socket.request.max.bytes"]
    assert {name: settings[name].ReadOnly for name in dynamic + static} == {name: name in static for name in dynamic + static}
    for name in static + ["log.retention.hours", "num.partitions"]:
        for who in (me, ""):
            assert change(wire, who, (name, SET, "5")) == (42, f"Cannot update these configs dynamically: [{name}]")
    assert change(wire, me, ("num.partitions", DELETE, None)) == (0, None), "there is nothing to take away"


@pytest.mark.only_thalweg
def test_settings_of_thalwegs_own_are_read_at_the_start(wire, me):
    """All that DescribeConfigs calls writable can be written, and nothing else."""
    settings = described(wire, BROKER, me)[1]
    for name, told in settings.items():
        code, why = change(wire, me, (name, SET, told.Value), ValidateOnly=True)
        assert (code == 0) == (not told.ReadOnly), (name, why)
    assert change(wire, me, ("max.connection.creation.rate", SET, "5"))[0] == 42, "a limit that would not be kept"
    for name in ("max.connections", "max.connections.per.ip"):
        why = f"Invalid value 9 for configuration {name}: Value must be at least 10"
        assert change(wire, me, (name, SET, "9")) == (42, why), "who set it could be shut out"


def test_what_is_refused_changes_nothing(wire, me):
    for changes, wanted in [
        ([("log.retention.ms", SET, "soon")], (42, "Invalid value soon for configuration log.retention.ms: Not a number of type LONG")),
        (
            [("log.retention.ms", SET, "0")],
            (42, "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1"),
        ),
        ([("log.retention.ms", SET, None)], (42, "Null value not supported for : log.retention.ms")),
        ([("log.retention.ms", APPEND, "5")], (40, "Config value append is not allowed for config key: log.retention.ms")),
        ([("message.max.bytes", SET, "-1")], (42, "Invalid value -1 for configuration message.max.bytes: Value must be at least 0")),
        ([("log.cleanup.policy", SET, "shred")], (42, None)),
        ([("compression.type", SET, "rar")], (42, None)),
        ([("max.connections", SET, "many")], (42, "Invalid value many for configuration max.connections: Not a number of type INT")),
        ([("message.max.bytes", SET, "5000"), ("message.max.bytes", SET, "6000")], (42, None)),
        ([("message.max.bytes", SET, "5000"), ("num.partitions", SET, "3")], (42, "Cannot update these configs dynamically: [num.partitions]")),
        (
            [("ssl.keystore.password", SET, "secret")],
            (
                42,
                "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.password]",
            ),
        ),
    ]:
        code, why = change(wire, me, *changes)
        assert code == wanted[0] and why and wanted[1] in (None, why), (changes, code, why)
        assert altered(wire, me) == {}, changes
    assert change(wire, "2", ("message.max.bytes", SET, "5000")) == (42, f"Unexpected broker id, expected {me}, but received 2")
    assert change(wire, "one", ("message.max.bytes", SET, "5000")) == (42, "Node id must be an integer, but it is: one")
    assert change(wire, me, ("message.max.bytes", SET, "5000"), ValidateOnly=True) == (0, None)
    assert altered(wire, me) == {}


def test_altered_defaults_act_on_topics_that_have_no_own_value(broker, wire, me, topic):
    create(broker, topic, 1)
    own = topic + "-own"
    create(broker, own, 1, max_message_bytes=100_000)
    data = batch([b"x" * 5000])
    assert wire.try_produce(topic, 0, data) == 0
    assert change(wire, me, ("message.max.bytes", SET, "1000")) == (0, None)
    assert told_in_time(broker, wire, topic, data, 10)
    assert wire.try_produce(own, 0, data) == 0, "a topic's own value goes before"
    assert change(wire, me, ("message.max.bytes", DELETE, None), ("log.message.timestamp.before.max.ms", SET, "1000")) == (0, None)
    assert told_in_time(broker, wire, topic, data, 32)
    assert change(wire, me, ("log.message.timestamp.before.max.ms", DELETE, None), ("log.message.timestamp.type", SET, "LogAppendTime"))[0] == 0
    assert told_in_time(broker, wire, topic, data, 0)


def test_cleanup_policy_is_a_list(broker, wire, me, topic):
    create(broker, topic, 1)
    assert change(wire, me, ("log.cleanup.policy", APPEND, "compact")) == (0, None)
    wanted = [("log.cleanup.policy", "delete,compact", 2), ("log.cleanup.policy", "delete", 5)]
    assert asked_until(wanted, lambda: chain(wire, TOPIC, topic, "cleanup.policy")) == wanted
    assert told_in_time(broker, wire, topic, batch([b"without a key"]), 87)
    assert change(wire, me, ("log.cleanup.policy", SUBTRACT, "compact")) == (0, None)
    assert told_in_time(broker, wire, topic, batch([b"without a key"]), 0)


def test_all_of_a_brokers_settings_are_replaced(wire, me):
    def replace(values):
        wanted = {"ResourceType": BROKER, "ResourceName": me, "Configs": [{"Name": k, "Value": v} for k, v in values.items()]}
        told = messages.ask(wire, "AlterConfigs", 2, Resources=[wanted]).Responses[0]
        return told.ErrorCode

    assert replace({"message.max.bytes": "5000", "background.threads": "9"}) == 0
    both = {"message.max.bytes": "5000", "background.threads": "9"}
    assert asked_until(both, lambda: altered(wire, me)) == both
    assert replace({"background.threads": "8"}) == 0
    assert asked_until({"background.threads": "8"}, lambda: altered(wire, me)) == {"background.threads": "8"}
    assert replace({"background.threads": "7", "num.partitions": "3"}) == 42
    assert replace({}) == 0
    assert asked_until({}, lambda: altered(wire, me)) == {}


def test_what_nobody_knows_is_stored_and_never_shown(wire, me):
    assert change(wire, me, ("a.plugin.password", SET, "s3cret")) == (0, None)
    assert asked_until({"a.plugin.password": None}, lambda: altered(wire, me)) == {"a.plugin.password": None}
    told = described(wire, BROKER, me, IncludeSynonyms=True)[1]["a.plugin.password"]
    assert (told.Value, told.IsSensitive, told.ReadOnly, told.ConfigType) == (None, True, True, 0)
    assert [one.Value for one in told.Synonyms] == [None]


def test_connections_are_limited_anew(broker, wire, me):
    def served():
        try:
            with Connection(broker.bootstrap) as another:
                messages.ask(another, "ApiVersions", 0)
            return True
        except OSError:
            return False

    assert served()
    assert change(wire, me, ("max.connections.per.ip", SET, "10")) == (0, None)
    with contextlib.ExitStack() as stack:
        # Beside the one that asks there may be others.
        with contextlib.suppress(OSError):
            for _ in range(9):
                messages.ask(stack.enter_context(Connection(broker.bootstrap)), "ApiVersions", 0)
        assert asked_until(False, served) is False
        assert change(wire, me, ("max.connections.per.ip", DELETE, None)) == (0, None)
    assert asked_until(True, served) is True


def test_settings_of_groups(wire):
    group = {"kind": GROUP}
    session = "consumer.session.timeout.ms"
    default = [("group." + session, "45000", DEFAULT)]
    assert chain(wire, GROUP, "g1", session) == default, "it need not exist"
    assert change(wire, "g1", (session, SET, "50000"), **group) == (0, None)
    own = [(session, "50000", OF_GROUP), *default]
    assert asked_until(own, lambda: chain(wire, GROUP, "g1", session)) == own
    assert chain(wire, GROUP, "g2", session) == default
    names = messages.ask(wire, "ListConfigResources", 1, ResourceTypes=[GROUP]).ConfigResources
    assert [told.ResourceName for told in names] == ["g1"]
    for name, value, why in [
        (session, "50", f"{session} must be greater than or equal to group.consumer.min.session.timeout.ms"),
        ("consumer.heartbeat.interval.ms", "60000", None),
        (session, "x", f"Invalid value x for configuration {session}: Not a number of type INT"),
        ("nope", "1", "Unknown group config name: nope"),
    ]:
        code, told = change(wire, "g1", (name, SET, value), **group)
        assert code == 40 and why in (None, told), (name, told)
    assert change(wire, "", (session, SET, "50000"), **group) == (42, "Default group resources are not allowed.")
    assert described(wire, GROUP, "")[0] == 42
    assert len(described(wire, GROUP, "g1")[1]) == 17
    assert change(wire, "g1", (session, DELETE, None), **group) == (0, None)
    assert asked_until(default, lambda: chain(wire, GROUP, "g1", session)) == default
    assert messages.ask(wire, "ListConfigResources", 1, ResourceTypes=[GROUP]).ConfigResources == []


@pytest.mark.only_thalweg
def test_what_was_altered_outlives_a_kill(topic):
    with Thalweg() as broker:
        create(broker, topic, 3)
        with Connection(broker.bootstrap) as wire:
            assert change(wire, "1", ("message.max.bytes", SET, "1000"), ("producer.id.expiration.ms", SET, "5000"))[0] == 0
            assert change(wire, "", ("log.retention.ms", SET, "77000"))[0] == 0
            assert change(wire, "g", ("consumer.session.timeout.ms", SET, "50000"), kind=GROUP)[0] == 0
            before = [described(wire, *what)[1] for what in ((BROKER, "1"), (BROKER, ""), (GROUP, "g"), (TOPIC, topic))]
        broker.kill()
        broker.start()
        with Connection(broker.bootstrap) as wire:
            after = [described(wire, *what)[1] for what in ((BROKER, "1"), (BROKER, ""), (GROUP, "g"), (TOPIC, topic))]
            assert after == before
            assert after[3]["max.message.bytes"].Value == "1000" and after[3]["retention.ms"].Value == "77000"
            assert wire.try_produce(topic, 0, batch([b"x" * 5000])) == 10
        broker.stop()


# ---- Beside it: what else administrators ask ---------------------------------------------------------------------------


def test_no_delegation_tokens_on_a_plain_connection(wire):
    for version in range(1, 4):
        answer = messages.ask(wire, "CreateDelegationToken", version, Renewers=[], MaxLifetimeMs=-1)
        assert (answer.ErrorCode, answer.PrincipalType, answer.PrincipalName) == (64, "User", "ANONYMOUS")
        assert (answer.IssueTimestampMs, answer.ExpiryTimestampMs, answer.MaxTimestampMs) == (-1, -1, -1)
        assert (answer.TokenId, answer.Hmac) == ("", b"")
        for owners in (None, []):
            answer = messages.ask(wire, "DescribeDelegationToken", version, Owners=owners)
            assert (answer.ErrorCode, answer.Tokens) == (64, [])
    for version in range(1, 3):
        answer = messages.ask(wire, "RenewDelegationToken", version, Hmac=b"abc", RenewPeriodMs=1)
        assert (answer.ErrorCode, answer.ExpiryTimestampMs) == (64, -1)
        answer = messages.ask(wire, "ExpireDelegationToken", version, Hmac=b"abc", ExpiryTimePeriodMs=1)
        assert (answer.ErrorCode, answer.ExpiryTimestampMs) == (64, -1)


def test_producers_of_a_partition(broker, wire, topic):
    create(broker, topic, 2)

    def told(*wanted):
        topics = [{"Name": name, "PartitionIndexes": indexes} for name, indexes in wanted]
        answer = messages.ask(wire, "DescribeProducers", 0, Topics=topics)
        return {(of.Name, part.PartitionIndex): part for of in answer.Topics for part in of.Partitions}

    producer = messages.producer_id(wire)
    now = int(time.time() * 1000)
    for sequence in (0, 2):
        data = batch([b"a", b"b"], timestamp=now + sequence, producer=Producer(producer, 0, sequence))
        assert wire.try_produce(topic, 0, data) == 0
    assert wire.try_produce(topic, 0, batch([b"of nobody"])) == 0
    parts = told((topic, [0, 1, 9]), ("no-such-topic", [0]))
    assert {key: part.ErrorCode for key, part in parts.items()} == {
        (topic, 0): 0, (topic, 1): 0, (topic, 9): 3, ("no-such-topic", 0): 3,
    }  # fmt: skip
    (active,) = parts[topic, 0].ActiveProducers
    assert (active.ProducerId, active.ProducerEpoch, active.LastSequence) == (producer, 0, 3)
    assert now <= active.LastTimestamp <= now + 3
    assert (active.CoordinatorEpoch, active.CurrentTxnStartOffset) == (-1, -1)
    assert parts[topic, 1].ActiveProducers == [] and told() == {}
