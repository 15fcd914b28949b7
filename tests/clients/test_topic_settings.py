"""Settings on the wire (PROTOCOL: k32, k33, k44): what can be changed, what is refused, what acts. Runs against any broker."""

import time

import brokers
import messages
import metrics
import pytest
from test_fetch import create
from waiting import until
from wire import Connection, batch

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def resource(kind, name, *changes):
    configs = [{"Name": key, "ConfigOperation": operation, "Value": value} for key, operation, value in changes]
    return {"ResourceType": kind, "ResourceName": name, "Configs": configs}


def alter(wire, *resources, **more):
    """IncrementalAlterConfigs; {name: (code, message)}."""
    answer = messages.ask(wire, "IncrementalAlterConfigs", 1, Resources=list(resources), **more)
    return {told.ResourceName: (told.ErrorCode, told.ErrorMessage) for told in answer.Responses}


def code(wire, topic, *changes, **more):
    return alter(wire, resource(TOPIC, topic, *changes), **more)[topic][0]


def replace(wire, topic, values, **more):
    """AlterConfigs; its code."""
    wanted = {"ResourceType": TOPIC, "ResourceName": topic, "Configs": [{"Name": k, "Value": v} for k, v in values.items()]}
    return messages.ask(wire, "AlterConfigs", 2, Resources=[wanted], **more).Responses[0].ErrorCode


def described(wire, kind, name, keys=None, version=4, **more):
    """DescribeConfigs of one resource: its code, and {setting: what is told}."""
    wanted = {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}
    (told,) = messages.ask(wire, "DescribeConfigs", version, Resources=[wanted], **more).Results
    return told.ErrorCode, {setting.Name: setting for setting in told.Configs}


def overrides(wire, topic):
    return {name: setting.Value for name, setting in described(wire, TOPIC, topic)[1].items() if setting.ConfigSource == 1}


def test_single_settings_change(broker, wire, topic):
    create(broker, topic, 1)
    assert overrides(wire, topic) == {}
    assert code(wire, topic, ("retention.ms", SET, "1000"), ("max.message.bytes", SET, "5000")) == 0
    assert overrides(wire, topic) == {"retention.ms": "1000", "max.message.bytes": "5000"}
    assert code(wire, topic, ("retention.ms", DELETE, None)) == 0
    assert code(wire, topic, ("retention.ms", DELETE, None)) == 0, "it is the default already"
    assert overrides(wire, topic) == {"max.message.bytes": "5000"}
    assert code(wire, topic, ("cleanup.policy", APPEND, "compact")) == 0
    assert overrides(wire, topic)["cleanup.policy"] == "delete,compact"
    assert code(wire, topic, ("cleanup.policy", SUBTRACT, "delete")) == 0
    assert overrides(wire, topic)["cleanup.policy"] == "compact"


def test_what_is_refused_changes_nothing(broker, wire, topic):
    create(broker, topic, 1)
    for changes, error in [
        ([("no.such.setting", SET, "1")], 40),
        ([("retention.ms", SET, "soon")], 40),
        ([("retention.ms", SET, "-2")], 40),
        ([("segment.bytes", SET, "1048575")], 40),
        ([("cleanup.policy", SET, "shred")], 40),
        ([("compression.type", SET, "rar")], 40),
        ([("retention.ms", APPEND, "1")], 40),
        ([("compression.type", SUBTRACT, "zstd")], 40),
        ([("retention.ms", SET, None)], 42),
        # Kafka has no answer to that.
        ([("retention.ms", 9, "1")], 42 if broker.name == "thalweg" else -1),
        ([("retention.ms", SET, "1"), ("retention.ms", SET, "2")], 42),
        ([("min.compaction.lag.ms", SET, "10"), ("max.compaction.lag.ms", SET, "9")], 40),
        # One of two is bad: neither changes.
        ([("retention.bytes", SET, "77"), ("retention.ms", SET, "soon")], 40),
    ]:
        (told,) = alter(wire, resource(TOPIC, topic, *changes)).values()
        assert told[0] == error and (told[1] or error == -1), (changes, told)
        assert overrides(wire, topic) == {}, changes
    assert code(wire, topic, ("segment.bytes", SET, "1048576")) == 0


def test_each_resource_has_its_own_fate(broker, wire, topic):
    create(broker, topic, 1)
    change = ("retention.ms", SET, "5")
    told = alter(wire, resource(TOPIC, topic, change), resource(TOPIC, "no-such-topic", change), resource(TOPIC, "a b", change))
    assert {name: error for name, (error, _) in told.items()} == {topic: 0, "no-such-topic": 3, "a b": 17}
    answer = messages.ask(wire, "IncrementalAlterConfigs", 1, Resources=[resource(TOPIC, topic, change)] * 2)
    assert {told.ErrorCode for told in answer.Responses} == {42}
    assert overrides(wire, topic) == {"retention.ms": "5"}


def test_a_change_can_be_tried_out(broker, wire, topic):
    create(broker, topic, 1)
    assert code(wire, topic, ("retention.ms", SET, "5"), ValidateOnly=True) == 0
    assert code(wire, topic, ("retention.ms", SET, "soon"), ValidateOnly=True) == 40
    assert replace(wire, topic, {"retention.ms": "5"}, ValidateOnly=True) == 0
    assert overrides(wire, topic) == {}


def test_all_settings_are_replaced(broker, wire, topic):
    create(broker, topic, 1, retention_ms=5, max_message_bytes=5000)
    assert replace(wire, topic, {"retention.ms": "6", "cleanup.policy": "compact"}) == 0
    assert overrides(wire, topic) == {"retention.ms": "6", "cleanup.policy": "compact"}
    for values, error in [({"retention.ms": "soon"}, 40), ({"no.such.setting": "1"}, 40), ({"retention.ms": None}, 42)]:
        assert replace(wire, topic, values) == error
    assert overrides(wire, topic) == {"retention.ms": "6", "cleanup.policy": "compact"}
    assert replace(wire, topic, {}) == 0
    assert overrides(wire, topic) == {}
    assert replace(wire, "no-such-topic", {}) == 3


def test_settings_act_at_the_answer(broker, wire, topic):
    create(broker, topic, 1)
    data = batch([b"x" * 5000])
    assert wire.try_produce(topic, 0, data) == 0
    assert code(wire, topic, ("max.message.bytes", SET, "1000")) == 0
    assert told_in_time(broker, wire, topic, data, 10)
    assert code(wire, topic, ("max.message.bytes", DELETE, None), ("message.timestamp.before.max.ms", SET, "1000")) == 0
    assert told_in_time(broker, wire, topic, data, 32)
    assert replace(wire, topic, {"message.timestamp.type": "LogAppendTime"}) == 0
    assert told_in_time(broker, wire, topic, data, 0)


def told_in_time(broker, wire, topic, data, error):
    """Whether a produce is told this; Kafka may take a moment."""
    tries = 1 if broker.name == "thalweg" else 200
    return any(wire.try_produce(topic, 0, data) == error for _ in range(tries))


def test_what_is_told_of_a_topics_settings(broker, wire, topic):
    create(broker, topic, 1, retention_ms=5)
    for version in range(1, 5):
        error, settings = described(wire, TOPIC, topic, version=version, IncludeSynonyms=True)
        own = settings["retention.ms"]
        assert (error, own.Value, own.ConfigSource, own.ReadOnly, own.IsSensitive) == (0, "5", 1, False, False)
        assert [(one.Name, one.Value, one.Source) for one in own.Synonyms][0] == ("retention.ms", "5", 1)
        size = settings["max.message.bytes"]
        assert (size.Value, size.ConfigSource) == ("1048588", 5)
        assert [(one.Name, one.Value, one.Source) for one in size.Synonyms] == [("message.max.bytes", "1048588", 5)]
        if version >= 3:
            assert (own.ConfigType, size.ConfigType, settings["cleanup.policy"].ConfigType) == (5, 3, 7)
    error, settings = described(wire, TOPIC, topic, ["retention.ms", "no.such.setting"])
    assert (error, list(settings)) == (0, ["retention.ms"]) and settings["retention.ms"].Synonyms == []
    assert described(wire, TOPIC, "no-such-topic")[0] == 3
    assert described(wire, TOPIC, "a b")[0] == 17


def test_the_brokers_own_settings(broker, wire):
    """They are told; those that are read at the start cannot be changed, and the answer says so. See test_broker_settings.py."""
    node = messages.ask(wire, "Metadata", 12, Topics=[]).Brokers[0].NodeId
    error, settings = described(wire, BROKER, str(node), IncludeSynonyms=True)
    assert error == 0
    assert (settings["num.partitions"].Value, settings["num.partitions"].ConfigSource) == ("4", 4)
    assert [(one.Value, one.Source) for one in settings["num.partitions"].Synonyms] == [("4", 4), ("1", 5)]
    assert settings["message.max.bytes"].Value == "1048588"
    assert settings["num.partitions"].ReadOnly is True
    assert described(wire, BROKER, "")[0] == 0
    for other in (str(node + 5), "one"):
        assert described(wire, BROKER, other)[0] == 42
    error, why = alter(wire, resource(BROKER, str(node), ("num.partitions", SET, "5")))[str(node)]
    assert error == 42 and why
    assert alter(wire, resource(77, "x", ("y", SET, "1")))["x"][0] == 42
    assert described(wire, 77, "x")[0] == 42


@pytest.mark.only_thalweg
@pytest.mark.parametrize("how", ["IncrementalAlterConfigs", "AlterConfigs"])
def test_retention_acts_without_a_restart(how):
    """What begins to hold takes what is there already, of this topic alone; whole objects, from the oldest on."""
    settings = {"log.retention.check.interval.ms": 50, "object.upload.interval.ms": 50, "object.compaction.enable": "false"}
    hour_ms, now_ms, one = 3_600_000, int(time.time() * 1000), b"x" * 2_000
    size = len(batch([one]))

    def change(topic, name, value):
        if how == "AlterConfigs":
            assert replace(wire, topic, {"retention.ms": "-1", name: value}) == 0
        else:
            assert code(wire, topic, (name, SET, value)) == 0

    def start(topic):
        (told,) = messages.offsets(wire, topic, [(0, -2)])
        return told.Offset

    with brokers.Thalweg(settings) as broker, Connection(broker.bootstrap) as wire:
        for topic in ("aged", "large", "untouched"):
            create(broker, topic, 1, retention_ms=-1)
        for age_ms in (3 * hour_ms, 2 * hour_ms, hour_ms, 0):
            for topic in ("aged", "large", "untouched"):
                wire.produce(topic, 0, batch([one], now_ms - age_ms))
            # Each of its own objects.
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0)
        assert [start(topic) for topic in ("aged", "large", "untouched")] == [0, 0, 0]
        change("aged", "retention.ms", str(2 * hour_ms + hour_ms // 2))
        until(lambda: start("aged") == 1, "what is older goes")
        change("aged", "retention.ms", str(hour_ms // 2))
        until(lambda: start("aged") == 3, "and then what is older than less")
        change("large", "retention.bytes", str(3 * size))
        until(lambda: start("large") == 1, "the limit stays, and no object more")
        change("large", "retention.bytes", "0")
        until(lambda: start("large") == 4, "nothing stays")
        assert (start("aged"), start("untouched")) == (3, 0)
        # What nothing limits any more grows again.
        change("large", "retention.bytes", "-1")
        for _ in range(3):
            wire.produce("large", 0, batch([one], now_ms))
            metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0)
        change("aged", "retention.ms", "1")
        until(lambda: start("aged") == 4, "retention has looked at it all")
        assert start("large") == 4
        broker.stop()
