"""aiokafka."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from sample import CODECS, asked_times, headers, key, main, noise, seen, timestamp, value

try:
    from aiokafka.admin import NewPartitions, NewTopic
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
    from aiokafka.errors import KafkaError
except ImportError:
    # Until 0.9 these came from kafka-python.
    from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
    from kafka.errors import KafkaError


async def until(wanted, look):
    """As in `sample`."""
    deadline = time.monotonic() + 10
    while (found := await look()) != wanted and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return found


async def producer(bootstrap, **more):
    client = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=8_000_000, acks="all", **more)
    await client.start()
    return client


async def consumer(bootstrap, *topics, group=None, **more):
    client = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=10_000, heartbeat_interval_ms=200, **more,
    )
    await client.start()
    return client


async def send(client, topic, records):
    """Sends (partition, key, value, headers, timestamp) and returns [partition, offset] or the error code of each, in order."""
    sent = [await client.send(topic, v, k, partition=p, timestamp_ms=ts, headers=h) for p, k, v, h, ts in records]
    answers = []
    for future in sent:
        try:
            at = await asyncio.wait_for(future, 60)
            answers.append([at.partition, at.offset])
        except KafkaError as error:
            answers.append(error.errno)
    return answers


async def send_all(bootstrap, topic, records, **more):
    client = await producer(bootstrap, linger_ms=5, **more)
    answers = await send(client, topic, records)
    await client.stop()
    return answers


async def receive(client, count):
    records, deadline = [], time.monotonic() + 30
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} came"
        for some in (await client.getmany(timeout_ms=500, max_records=count - len(records))).values():
            records += some
    return records


async def read_all(bootstrap, topic, partitions, **more):
    client = await consumer(bootstrap, **more)
    tps = [TopicPartition(topic, p) for p in range(partitions)]
    client.assign(tps)
    await client.seek_to_beginning()
    records = await receive(client, sum((await client.end_offsets(tps)).values()))
    await client.stop()
    return sorted(seen(r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in records)


def samples(numbers, partitions, epoch_ms):
    return [(n % partitions, key(n), value(n), headers(n), timestamp(n, epoch_ms)) for n in numbers]


async def admin(bootstrap, prefix, _epoch_ms):
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    topic = f"{prefix}-admin"

    async def create(name, config=None):
        answer = await client.create_topics([NewTopic(name, 3, 1, topic_configs=config or {})])
        return answer.topic_errors[0][1]

    async def retention():
        answer = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer[0].resources[0][4]}["retention.ms"]

    async def partitions():
        return len((await client.describe_topics([topic]))[0]["partitions"])

    async def alter(content):
        answer = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": content})])
        return answer[0].resources[0][0]

    async def grow(count):
        try:
            answer = await client.create_partitions({topic: NewPartitions(count)})
            return answer.topic_errors[0][1]
        except KafkaError as error:
            return error.errno

    async def listed():
        return topic in await client.list_topics()

    saw = {"created": await create(topic, {"retention.ms": "1234567"})}
    saw["again"] = await create(topic)
    saw["bad name"] = await create("no spaces")
    saw["bad config"] = await create(f"{topic}-bad", {"retention.ms": "soon"})
    saw["partitions"] = await until(3, partitions)
    saw["retention"] = await retention()
    await grow(5)
    saw["grown"] = await until(5, partitions)
    saw["shrunk"] = await grow(2)
    await alter("7654321")
    saw["altered"] = await until("7654321", retention)
    saw["badly altered"] = await alter("soon")
    saw["listed"] = await until(True, listed)
    cluster = await client.describe_cluster()
    saw["brokers"] = len(cluster["brokers"])
    saw["cluster id"] = len(cluster["cluster_id"])
    await client.delete_topics([topic])
    saw["listed after deletion"] = await until(False, listed)
    saw["deleted again"] = (await client.delete_topics([topic])).topic_error_codes[0][1]
    await client.close()
    return saw


async def codecs(bootstrap, prefix, epoch_ms):
    read = {}
    for codec in CODECS:
        topic = f"{prefix}-codecs-{codec}"
        await send_all(bootstrap, topic, samples(range(300), 3, epoch_ms), compression_type=None if codec == "none" else codec)
        read[codec] = await read_all(bootstrap, topic, 3)
    return {"read": read}


async def idempotence(bootstrap, prefix, _epoch_ms):
    client = await producer(bootstrap, enable_idempotence=True, max_batch_size=200)
    placed = await send(client, f"{prefix}-idempotence", [(n % 3, None, b"v%d" % n, [], None) for n in range(3_000)])
    await client.stop()
    return {"placed": [[offset for p, offset in placed if p == partition] for partition in range(3)]}


async def rebalance(bootstrap, prefix, _epoch_ms):
    topic = f"{prefix}-rebalance"
    sender = await producer(bootstrap)
    members, steps, values = [], [], set()

    async def settle():
        deadline = time.monotonic() + 60
        while True:
            for member in members:
                for records in (await member.getmany(timeout_ms=50)).values():
                    values.update(record.value for record in records)
            owned = sorted(p.partition for member in members for p in member.assignment())
            if owned == list(range(6)) and all(member.assignment() for member in members):
                return sorted(len(member.assignment()) for member in members)
            assert time.monotonic() < deadline, f"not settled: {owned}"

    async def step():
        before = 120 * len(steps)
        steps.append(await settle())
        await send(sender, topic, [(n % 6, None, b"r%d" % n, [], None) for n in range(before, before + 120)])
        deadline = time.monotonic() + 60
        while len(values) < before + 120:
            assert time.monotonic() < deadline, f"{len(values)} of {before + 120} came"
            await settle()

    for _ in range(3):
        members.append(await consumer(bootstrap, topic, group=topic))
        await step()
    for _ in range(2):
        await members.pop(0).stop()
        await step()
    await members.pop().stop()
    await sender.stop()
    return {"steps": steps, "seen": len(values)}


async def seek_by_time(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-seek-by-time"
    await send_all(bootstrap, topic, [(0, None, b"t%d" % n, [], epoch_ms + 10 * (n // 3)) for n in range(600)])
    tp = TopicPartition(topic, 0)
    client = await consumer(bootstrap)
    found = [(await client.offsets_for_times({tp: t}))[tp] for t in asked_times(epoch_ms)]
    client.assign([tp])
    client.seek(tp, found[4].offset)
    first = (await receive(client, 1))[0].value.decode()
    ends = [(await client.beginning_offsets([tp]))[tp], (await client.end_offsets([tp]))[tp]]
    await client.stop()
    return {"offsets": [None if at is None else at.offset for at in found], "first": first, "ends": ends}


async def commit_resume(bootstrap, prefix, _epoch_ms):
    topic = group = f"{prefix}-commit-resume"
    await send_all(bootstrap, topic, [(0, None, b"c%d" % n, [], None) for n in range(300)])
    tp = TopicPartition(topic, 0)
    one = await consumer(bootstrap, topic, group=group)
    await receive(one, 100)
    await one.commit({tp: OffsetAndMetadata(100, "one hundred")})
    await one.stop()
    # The client hands out no metadata of a commit; the administrator does.
    administrator = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await administrator.start()
    committed = (await administrator.list_consumer_group_offsets(group))[tp]
    await administrator.close()
    two = await consumer(bootstrap, topic, group=group)
    records = await receive(two, 200)
    await two.commit()
    end = await two.committed(tp)
    await two.stop()
    return {
        "committed": committed.offset,
        "metadata": committed.metadata,
        "resumed at": records[0].offset,
        "read": len(records),
        "committed at the end": end,
    }


async def large_messages(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-large-messages"
    for codec in (None, "gzip"):
        records = [(0, b"large", noise(n, 3_000_000), [], epoch_ms + n) for n in range(2)]
        await send_all(bootstrap, topic, records, compression_type=codec)
    records = await read_all(bootstrap, topic, 1, max_partition_fetch_bytes=100_000)
    answer = await send_all(bootstrap, f"{prefix}-large-messages-small", [(0, None, noise(2, 200_000), [], None)])
    return {"records": records, "refused": answer[0]}


async def all_headers(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-headers"
    await send_all(bootstrap, topic, samples(range(100), 1, epoch_ms))
    reference = {codec: await read_all(bootstrap, f"reference-{codec}", 1) for codec in CODECS}
    return {"own": await read_all(bootstrap, topic, 1), "reference": reference}


async def tombstones(bootstrap, prefix, epoch_ms):
    topic = f"{prefix}-tombstones"
    values = [None, b"", b"x"]
    await send_all(bootstrap, topic, [(0, b"k%d" % n, values[n % 3], [], epoch_ms + n) for n in range(30)])
    answer = await send_all(bootstrap, topic, [(0, None, b"x", [], epoch_ms)])
    return {"records": await read_all(bootstrap, topic, 1), "refused": answer[0]}


def synchronous(scenario):
    return lambda *arguments: asyncio.run(scenario(*arguments))


if __name__ == "__main__":
    scenarios = {
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
    main({name: synchronous(scenario) for name, scenario in scenarios.items()})
