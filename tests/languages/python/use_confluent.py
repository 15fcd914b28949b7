"""librdkafka, through confluent-kafka."""

import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic
from sample import CODECS, asked_times, headers, key, main, noise, seen, timestamp, until, value


def administrator(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def producer(bootstrap, **more):
    more = {name.replace("_", "."): content for name, content in more.items()}
    return ck.Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 8_000_000, "linger.ms": 5, **more})


def consumer(bootstrap, group="unused", **more):
    more = {name.replace("_", "."): content for name, content in more.items()}
    config = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    return ck.Consumer({**config, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 200, "check.crcs": True, **more})


def send(client, topic, records):
    """Sends (partition, key, value, headers, timestamp) and returns [partition, offset] or the error code of each, in order."""
    answers = {}

    def report(at):
        def delivered(error, message):
            answers[at] = error.code() if error else [message.partition(), message.offset()]

        return delivered

    for at, (partition, k, v, h, ts) in enumerate(records):
        client.produce(topic, v, k, partition=partition, headers=h, timestamp=ts, on_delivery=report(at))
        client.poll(0)
    assert client.flush(60) == 0
    return [answers[at] for at in range(len(answers))]


def receive(client, count):
    messages = []
    while len(messages) < count:
        some = client.consume(count - len(messages), 30)
        assert some, f"{len(messages)} of {count} came"
        assert all(m.error() is None for m in some), [m.error() for m in some]
        messages += some
    return messages


def read_all(bootstrap, topic, partitions, **more):
    client = consumer(bootstrap, **more)
    ends = [client.get_watermark_offsets(ck.TopicPartition(topic, p), 30)[1] for p in range(partitions)]
    client.assign([ck.TopicPartition(topic, p, 0) for p in range(partitions)])
    messages = receive(client, sum(ends))
    client.close()
    return sorted(seen(m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers()) for m in messages)


def samples(numbers, partitions, epoch_ms):
    return [(n % partitions, key(n), value(n), headers(n), timestamp(n, epoch_ms)) for n in numbers]


def refused(call):
    """The error code that a call of the administrator ends with; 0: none."""
    try:
        call()
    except ck.KafkaException as error:
        return error.args[0].code()
    return 0


def admin(bootstrap, prefix, _epoch_ms):
    client = administrator(bootstrap)
    topic = f"{prefix}-admin"
    resource = ConfigResource(ck.admin.RESOURCE_TOPIC if hasattr(ck.admin, "RESOURCE_TOPIC") else "topic", topic)

    def create(name, partitions=3, **config):
        config = {key.replace("_", "."): content for key, content in config.items()}
        return client.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)

    def retention():
        return client.describe_configs([resource])[resource].result(30)["retention.ms"].value

    def partitions():
        return len(client.list_topics(topic, 30).topics[topic].partitions)

    def alter(content):
        changed = ConfigResource("topic", topic, set_config={"retention.ms": content})
        return client.alter_configs([changed])[changed].result(30)

    def listed():
        return topic in client.list_topics(timeout=30).topics

    saw = {"created": refused(lambda: create(topic, retention_ms="1234567"))}
    saw["again"] = refused(lambda: create(topic))
    saw["bad name"] = refused(lambda: create("no spaces"))
    saw["bad config"] = refused(lambda: create(f"{topic}-bad", retention_ms="soon"))
    saw["partitions"] = until(3, partitions)
    saw["retention"] = retention()
    client.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    saw["grown"] = until(5, partitions)
    saw["shrunk"] = refused(lambda: client.create_partitions([NewPartitions(topic, 2)])[topic].result(30))
    alter("7654321")
    saw["altered"] = until("7654321", retention)
    saw["badly altered"] = refused(lambda: alter("soon"))
    metadata = client.list_topics(timeout=30)
    saw["listed"] = until(True, listed)
    saw["brokers"] = len(metadata.brokers)
    saw["cluster id"] = len(metadata.cluster_id)
    client.delete_topics([topic])[topic].result(30)
    saw["listed after deletion"] = until(False, listed)
    saw["deleted again"] = refused(lambda: client.delete_topics([topic])[topic].result(30))
    return saw


def codecs(bootstrap, prefix, epoch_ms):
    read = {}
    for codec in CODECS:
        topic = f"{prefix}-codecs-{codec}"
        send(producer(bootstrap, compression_type=codec), topic, samples(range(300), 3, epoch_ms))
        read[codec] = read_all(bootstrap, topic, 3)
    return {"read": read}


def idempotence(bootstrap, prefix, _epoch_ms):
    client = producer(bootstrap, enable_idempotence=True, batch_num_messages=10, linger_ms=0)
    placed = send(client, f"{prefix}-idempotence", [(n % 3, None, b"v%d" % n, [], 0) for n in range(3_000)])
    return {"placed": [[offset for p, offset in placed if p == partition] for partition in range(3)]}


def rebalance(bootstrap, prefix, _epoch_ms):
    topic = group = f"{prefix}-rebalance"
    sender = producer(bootstrap)
    members, steps, values = [], [], set()

    def settle():
        deadline = time.monotonic() + 60
        while True:
            for member in members:
                message = member.poll(0.05)
                if message is not None and message.error() is None:
                    values.add(message.value())
            owned = [p.partition for member in members for p in member.assignment()]
            if sorted(owned) == list(range(6)) and all(member.assignment() for member in members):
                return sorted(len(member.assignment()) for member in members)
            assert time.monotonic() < deadline, f"not settled: {owned}"

    def step():
        sizes = settle()
        before = 120 * len(steps)
        send(sender, topic, [(n % 6, None, b"r%d" % n, [], 0) for n in range(before, before + 120)])
        deadline = time.monotonic() + 60
        while len(values) < before + 120:
            assert time.monotonic() < deadline, f"{len(values)} of {before + 120} came"
            settle()
        steps.append(sizes)

    for _ in range(3):
        members.append(consumer(bootstrap, group))
        members[-1].subscribe([topic])
        step()
    for _ in range(2):
        members.pop(0).close()
        step()
    members.pop().close()
    return {"steps": steps, "seen": len(values)}


def seek_by_time(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-seek-by-time"
    send(producer(bootstrap), topic, [(0, None, b"t%d" % n, [], epoch_ms + 10 * (n // 3)) for n in range(600)])
    client = consumer(bootstrap)
    offsets = [client.offsets_for_times([ck.TopicPartition(topic, 0, t)], 30)[0].offset for t in asked_times(epoch_ms)]
    client.assign([ck.TopicPartition(topic, 0, offsets[4])])
    first = receive(client, 1)[0].value().decode()
    ends = list(client.get_watermark_offsets(ck.TopicPartition(topic, 0), 30))
    client.close()
    return {"offsets": [None if offset < 0 else offset for offset in offsets], "first": first, "ends": ends}


def commit_resume(bootstrap, prefix, _epoch_ms):
    topic = group = f"{prefix}-commit-resume"
    send(producer(bootstrap), topic, [(0, None, b"c%d" % n, [], 0) for n in range(300)])
    one = consumer(bootstrap, group)
    one.subscribe([topic])
    receive(one, 100)
    one.commit(offsets=[ck.TopicPartition(topic, 0, 100, metadata="one hundred")], asynchronous=False)
    one.close()
    two = consumer(bootstrap, group)
    committed = two.committed([ck.TopicPartition(topic, 0)], 30)[0]
    two.subscribe([topic])
    messages = receive(two, 200)
    two.commit(asynchronous=False)
    end = two.committed([ck.TopicPartition(topic, 0)], 30)[0].offset
    two.close()
    return {
        "committed": committed.offset,
        "metadata": committed.metadata,
        "resumed at": messages[0].offset(),
        "read": len(messages),
        "committed at the end": end,
    }


def large_messages(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-large-messages"
    for codec in ("none", "gzip"):
        records = [(0, b"large", noise(n, 3_000_000), [], epoch_ms + n) for n in range(2)]
        send(producer(bootstrap, compression_type=codec), topic, records)
    records = read_all(bootstrap, topic, 1, max_partition_fetch_bytes=100_000)
    code = send(producer(bootstrap), f"{prefix}-large-messages-small", [(0, None, noise(2, 200_000), [], 0)])[0]
    return {"records": records, "refused": code}


def all_headers(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-headers"
    send(producer(bootstrap), topic, samples(range(100), 1, epoch_ms))
    reference = {codec: read_all(bootstrap, f"reference-{codec}", 1) for codec in CODECS}
    return {"own": read_all(bootstrap, topic, 1), "reference": reference}


def tombstones(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-tombstones"
    client = producer(bootstrap)
    values = [None, b"", b"x"]
    send(client, topic, [(0, b"k%d" % n, values[n % 3], [], epoch_ms + n) for n in range(30)])
    code = send(client, topic, [(0, None, b"x", [], epoch_ms)])[0]
    return {"records": read_all(bootstrap, topic, 1), "refused": code}


if __name__ == "__main__":
    main(
        {
            "admin": admin,
            "codecs": codecs,
            "idempotence": idempotence,
            "rebalance": rebalance,
            "seek-by-time": seek_by_time,
            "commit-resume": commit_resume,
            "large-messages": large_messages,
            "headers": all_headers,
            "tombstones": tombstones,
        }
    )
