"""kafka-python, 2.0 and 3."""

import sys
import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition, __version__
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import KafkaError, KafkaTimeoutError
from sample import CODECS, asked_times, headers, key, main, noise, seen, timestamp, until, value

OLD = __version__.startswith("2.0")


def producer(bootstrap, **more):
    if OLD:
        more.pop("enable_idempotence", None)
    else:
        more.setdefault("enable_idempotence", False)
    return KafkaProducer(bootstrap_servers=bootstrap, max_request_size=8_000_000, acks="all", **more)


def consumer(bootstrap, group=None, **more):
    return KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=10_000, heartbeat_interval_ms=200, **more,
    )


def code(error):
    """The protocol's number of an error."""
    assert isinstance(error, KafkaError) and not isinstance(error, KafkaTimeoutError), repr(error)
    return error.errno


def send(client, topic, records):
    """Sends (partition, key, value, headers, timestamp) and returns [partition, offset] or the error code of each, in order."""
    # A header's value must not be missing here.
    records = [(p, k, v, [(name, content or b"") for name, content in h], ts) for p, k, v, h, ts in records]
    futures = [client.send(topic, v, k, headers=h, partition=p, timestamp_ms=ts) for p, k, v, h, ts in records]
    answers = []
    for future in futures:
        try:
            sent = future.get(60)
            answers.append([sent.partition, sent.offset])
        except KafkaError as error:
            answers.append(code(error))
    return answers


def receive(client, count):
    records, deadline = [], time.monotonic() + 30
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} came"
        for some in client.poll(500, max_records=count - len(records)).values():
            records += some
    return records


def read_all(bootstrap, topic, partitions, **more):
    client = consumer(bootstrap, **more)
    tps = [TopicPartition(topic, p) for p in range(partitions)]
    client.assign(tps)
    client.seek_to_beginning()
    records = receive(client, sum(client.end_offsets(tps).values()))
    client.close()
    return sorted(seen(r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in records)


def samples(numbers, partitions, epoch_ms):
    return [(n % partitions, key(n), value(n), headers(n), timestamp(n, epoch_ms)) for n in numbers]


def refused(call):
    """The error code that a call of the administrator ends with; 0: none."""
    try:
        call()
    except KafkaError as error:
        return code(error)
    return 0


def admin(bootstrap, prefix, _epoch_ms):
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    topic = f"{prefix}-admin"

    def create(name, config=None):
        client.create_topics([NewTopic(name, 3, 1, topic_configs=config or {})])

    def retention():
        answer = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        if OLD:
            return {entry[0]: entry[1] for entry in answer[0].resources[0][4]}["retention.ms"]
        return answer["topic"][topic]["retention.ms"]["value"]

    def partitions():
        return len(client.describe_topics([topic])[0]["partitions"])

    def alter(content):
        answer = client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": content})])
        return answer.resources[0][0] if OLD else 0

    def listed():
        return topic in [t["name"] if isinstance(t, dict) else t for t in client.list_topics()]

    saw = {"created": refused(lambda: create(topic, {"retention.ms": "1234567"}))}
    saw["again"] = refused(lambda: create(topic))
    saw["bad name"] = refused(lambda: create("no spaces"))
    saw["bad config"] = refused(lambda: create(f"{topic}-bad", {"retention.ms": "soon"}))
    saw["partitions"] = until(3, partitions)
    saw["retention"] = retention()
    client.create_partitions({topic: NewPartitions(5)})
    saw["grown"] = until(5, partitions)
    saw["shrunk"] = refused(lambda: client.create_partitions({topic: NewPartitions(2)}))
    alter("7654321")
    saw["altered"] = until("7654321", retention)
    if OLD:
        saw["badly altered"] = alter("soon")
    else:
        answer = client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "soon"})])
        saw["badly altered"] = int(answer["topic"][topic].removeprefix("[Error ").split("]")[0])
    saw["listed"] = until(True, listed)
    cluster = client.describe_cluster()
    saw["brokers"] = len(cluster["brokers"])
    saw["cluster id"] = len(cluster["cluster_id"])
    client.delete_topics([topic])
    saw["listed after deletion"] = until(False, listed)
    saw["deleted again"] = refused(lambda: client.delete_topics([topic]))
    return saw


def codecs(bootstrap, prefix, epoch_ms):
    read = {}
    for codec in CODECS:
        topic = f"{prefix}-codecs-{codec}"
        client = producer(bootstrap, compression_type=None if codec == "none" else codec, linger_ms=5)
        send(client, topic, samples(range(300), 3, epoch_ms))
        client.close()
        read[codec] = read_all(bootstrap, topic, 3)
    return {"read": read}


def idempotence(bootstrap, prefix, _epoch_ms):
    client = producer(bootstrap, enable_idempotence=True, batch_size=200)
    placed = send(client, f"{prefix}-idempotence", [(n % 3, None, b"v%d" % n, [], None) for n in range(3_000)])
    return {"placed": [[offset for p, offset in placed if p == partition] for partition in range(3)]}


def lost_join(client):
    """Whether the client has a SyncGroup's answer without an error, and will never take it: lost_join.py says why.

    Nothing that the broker does or fails to do looks like it: the join succeeded, and the client sees no need to join.
    """
    coordinator = client._coordinator
    task = getattr(coordinator, "_join_task", None)
    return task is not None and task.is_done and task.succeeded() and not coordinator.need_rejoin()


class Member(threading.Thread):
    """A member of a group; its consumer blocks while the group joins, so each has a thread."""

    def __init__(self, bootstrap, topic, values):
        super().__init__(daemon=True)
        self.bootstrap, self.topic = bootstrap, topic
        self.values, self.leaving, self.owned = values, False, []
        self.client = self.subscribed()
        self.start()

    def subscribed(self):
        client = consumer(self.bootstrap, self.topic)
        client.subscribe([self.topic])
        return client

    def run(self):
        while not self.leaving:
            for records in self.client.poll(100).values():
                self.values.update(record.value for record in records)
            if lost_join(self.client):
                print("NOTE: kafka-python lost a join that was answered; the member begins again", file=sys.stderr)
                self.client.close()
                self.client = self.subscribed()
            self.owned = sorted(p.partition for p in self.client.assignment())
        self.client.commit()
        self.client.close()

    def leave(self):
        self.leaving = True
        self.join(30)
        assert not self.is_alive()


def rebalance(bootstrap, prefix, _epoch_ms):
    topic = f"{prefix}-rebalance"
    sender = producer(bootstrap)
    members, steps, values = [], [], set()

    def step():
        before = 120 * len(steps)
        deadline = time.monotonic() + 60
        while sorted(p for member in members for p in member.owned) != list(range(6)) or not all(m.owned for m in members):
            assert time.monotonic() < deadline, [member.owned for member in members]
            time.sleep(0.05)
        steps.append(sorted(len(member.owned) for member in members))
        send(sender, topic, [(n % 6, None, b"r%d" % n, [], None) for n in range(before, before + 120)])
        while len(values) < before + 120:
            assert time.monotonic() < deadline, f"{len(values)} of {before + 120} came"
            time.sleep(0.05)

    for _ in range(3):
        members.append(Member(bootstrap, topic, values))
        step()
    for _ in range(2):
        members.pop(0).leave()
        step()
    members.pop().leave()
    return {"steps": steps, "seen": len(values)}


def seek_by_time(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-seek-by-time"
    send(producer(bootstrap, linger_ms=5), topic, [(0, None, b"t%d" % n, [], epoch_ms + 10 * (n // 3)) for n in range(600)])
    tp = TopicPartition(topic, 0)
    client = consumer(bootstrap)
    found = [client.offsets_for_times({tp: t})[tp] for t in asked_times(epoch_ms)]
    client.assign([tp])
    client.seek(tp, found[4].offset)
    first = receive(client, 1)[0].value.decode()
    ends = [client.beginning_offsets([tp])[tp], client.end_offsets([tp])[tp]]
    client.close()
    return {"offsets": [None if at is None else at.offset for at in found], "first": first, "ends": ends}


def commit_resume(bootstrap, prefix, _epoch_ms):
    topic = group = f"{prefix}-commit-resume"
    send(producer(bootstrap, linger_ms=5), topic, [(0, None, b"c%d" % n, [], None) for n in range(300)])
    tp = TopicPartition(topic, 0)
    one = consumer(bootstrap, group)
    one.subscribe([topic])
    receive(one, 100)
    one.commit({tp: OffsetAndMetadata(100, "one hundred") if OLD else OffsetAndMetadata(100, "one hundred", -1)})
    one.close()
    two = consumer(bootstrap, group)
    committed = two.committed(tp, metadata=True)
    two.subscribe([topic])
    records = receive(two, 200)
    two.commit()
    end = two.committed(tp)
    two.close()
    return {
        "committed": committed.offset,
        "metadata": committed.metadata,
        "resumed at": records[0].offset,
        "read": len(records),
        "committed at the end": end,
    }


def large_messages(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-large-messages"
    for codec in (None, "gzip"):
        records = [(0, b"large", noise(n, 3_000_000), [], epoch_ms + n) for n in range(2)]
        send(producer(bootstrap, compression_type=codec), topic, records)
    records = read_all(bootstrap, topic, 1, max_partition_fetch_bytes=100_000)
    answer = send(producer(bootstrap), f"{prefix}-large-messages-small", [(0, None, noise(2, 200_000), [], None)])[0]
    return {"records": records, "refused": answer}


def all_headers(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-headers"
    send(producer(bootstrap, linger_ms=5), topic, samples(range(100), 1, epoch_ms))
    reference = {codec: read_all(bootstrap, f"reference-{codec}", 1) for codec in CODECS}
    return {"own": read_all(bootstrap, topic, 1), "reference": reference}


def tombstones(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-tombstones"
    client = producer(bootstrap, linger_ms=5)
    values = [None, b"", b"x"]
    send(client, topic, [(0, b"k%d" % n, values[n % 3], [], epoch_ms + n) for n in range(30)])
    answer = send(client, topic, [(0, None, b"x", [], epoch_ms)])[0]
    return {"records": read_all(bootstrap, topic, 1), "refused": answer}


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
