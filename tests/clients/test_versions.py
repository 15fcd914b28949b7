"""Each version of each request on offer (PROTOCOL: Versions offered), asked for something sound: the answer fits Kafka's own
definition of that version to its last byte, and tells no error."""

import functools

import messages
import pytest
from test_fetch import create
from test_pipelining import OFFERED
from wire import Connection, batch

NAMES = {
    0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 10: "FindCoordinator", 18: "ApiVersions", 19: "CreateTopics",
    20: "DeleteTopics", 21: "DeleteRecords", 22: "InitProducerId", 23: "OffsetForLeaderEpoch", 32: "DescribeConfigs",
    37: "CreatePartitions", 44: "IncrementalAlterConfigs", 60: "DescribeCluster", 75: "DescribeTopicPartitions",
}  # fmt: skip


@functools.cache
def shared(broker):
    """A topic that all requests ask about; its name and id. Nothing is produced to it but by the test of Produce."""
    create(broker, "asked-about", 1)
    with Connection(broker.bootstrap) as wire:
        wire.produce("asked-about", 0, batch([b"x"]))
        return "asked-about", wire.topic_id("asked-about")[0]


def request(key, version, topic, topic_id, fresh):
    """The fields of a sound request."""
    by_id = {"TopicId": topic_id}
    if key == 0:
        data = {"PartitionData": [{"Index": 0, "Records": batch([b"x"])}], **(by_id if version >= 13 else {"Name": topic})}
        return {"Acks": -1, "TimeoutMs": 30_000, "TopicData": [data]}
    if key == 1:
        part = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}
        replica = {} if version >= 15 else {"ReplicaId": -1}
        return {"MinBytes": 1, **replica, "Topics": [{"Partitions": [part], **(by_id if version >= 13 else {"Topic": topic})}]}
    if key == 2:
        return {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]}
    if key == 3:
        return {"Topics": [{"Name": topic}]}
    if key == 10:
        return {"CoordinatorKeys": ["g", "h"]} if version >= 4 else {"Key": "g"}
    if key == 18:
        return {"ClientSoftwareName": "a-test", "ClientSoftwareVersion": "1"} if version >= 3 else {}
    if key == 19:
        configs = [{"Name": "retention.ms", "Value": "5"}]
        return {"Topics": [{"Name": fresh, "NumPartitions": 1, "ReplicationFactor": 1, "Configs": configs}]}
    if key == 20:
        return {"TimeoutMs": 30_000, **({"Topics": [{"Name": fresh}]} if version >= 6 else {"TopicNames": [fresh]})}
    if key == 21:
        return {"Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}], "TimeoutMs": 30_000}
    if key == 22:
        return {"TransactionalId": None, "TransactionTimeoutMs": 1000}
    if key == 23:
        return {"Topics": [{"Topic": topic, "Partitions": [{"Partition": 0, "LeaderEpoch": 0}]}]}
    if key == 32:
        return {"Resources": [{"ResourceType": 2, "ResourceName": topic, "ConfigurationKeys": ["retention.ms"]}]}
    if key == 37:
        return {"Topics": [{"Name": fresh, "Count": 2, "Assignments": None}], "TimeoutMs": 30_000}
    if key == 44:
        change = {"Name": "retention.ms", "ConfigOperation": 1, "Value": None}
        return {"Resources": [{"ResourceType": 2, "ResourceName": topic, "Configs": [change]}]}
    return {60: {}, 75: {"Topics": [{"Name": topic}]}}[key]


def codes(told):
    """Every error code in an answer."""
    if isinstance(told, list):
        return [code for one in told for code in codes(one)]
    if not hasattr(told, "__dict__"):
        return []
    own = [value for name, value in vars(told).items() if name == "ErrorCode"]
    return own + [code for value in vars(told).values() for code in codes(value)]


@pytest.mark.parametrize("key", NAMES, ids=NAMES.get)
def test_every_version_is_answered(broker, key):
    topic, topic_id = shared(broker)
    with Connection(broker.bootstrap) as wire:
        if key in (10, 22):
            messages.producer_id(wire)  # so that a Kafka that has just begun has its internal topics and ids
        low, high = OFFERED[key]
        for version in range(max(low, 3) if key == 0 else low, high + 1):
            fresh = f"fresh-{key}-{version}"
            if key in (20, 37):
                create(broker, fresh, 1)
            answer = messages.ask(wire, NAMES[key], version, **request(key, version, topic, topic_id, fresh))
            if key == 10 and broker.name != "thalweg":
                continue  # Kafka creates the topic of the coordinator first
            # OffsetForLeaderEpoch tells of an epoch that nobody knows without an error; all others of success.
            found = codes(answer)
            assert set(found) <= {0}, f"version {version}: {answer}"
            assert found or key in (60,), f"version {version} tells nothing"
