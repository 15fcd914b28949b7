"""librdkafka, through confluent-kafka: produce, consume, groups, times, topics."""

import functools
import time
import uuid
from collections import Counter

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec
from records import CODECS, EPOCH_MS, record

PARTITIONS = 4


@functools.cache
def _admin(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})


def admin(broker):
    """The administrator's client; kept, for its futures fail when it goes out of scope."""
    return _admin(broker.bootstrap)


def create(broker, topic, partitions=PARTITIONS, **config):
    config = {name.replace("_", "."): str(value) for name, value in config.items()}
    admin(broker).create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)


def producer(broker, **config):
    config = {name.replace("_", "."): value for name, value in config.items()}
    return ck.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "message.timeout.ms": 60_000, "log_level": 2, **config})


def consumer(broker, group=None, **config):
    config = {name.replace("_", "."): value for name, value in config.items()}
    return ck.Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": group or f"unused-{uuid.uuid4()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "check.crcs": True,
            "log_level": 2,
            **config,
        }
    )


def send(client, topic, numbers, make=record, partition=None):
    """Produces the records and returns where each came to lie: {(partition, offset): number}."""
    placed = {}

    def delivered(number):
        def report(error, message):
            assert error is None, f"record {number}: {error}"
            place = message.partition(), message.offset()
            assert place not in placed, f"{place} was given to records {placed[place]} and {number}"
            placed[place] = number

        return report

    to = {} if partition is None else {"partition": partition}
    for number in numbers:
        r = make(number)
        while True:
            try:
                client.produce(
                    topic, r.value, r.key, headers=r.headers, timestamp=r.timestamp_ms, on_delivery=delivered(number), **to
                )
                break
            except BufferError:
                client.poll(0.1)
        client.poll(0)
    assert client.flush(60) == 0, "records were not acknowledged in time"
    return placed


def check_dense(placed):
    """Offsets of each partition start at 0, have no gap, and follow the order of production."""
    by_partition = {}
    for (partition, offset), number in sorted(placed.items()):
        by_partition.setdefault(partition, []).append((offset, number))
    for partition, entries in by_partition.items():
        assert [offset for offset, _ in entries] == list(range(len(entries))), f"partition {partition} has gaps"
        numbers = [number for _, number in entries]
        assert numbers == sorted(numbers), f"partition {partition} is out of order"


def check_equal(message, number, make=record):
    expected = make(number)
    where = f"record {number} at {message.partition()}/{message.offset()}"
    assert message.key() == expected.key, where
    assert message.value() == expected.value, where
    assert (message.headers() or []) == expected.headers, where
    assert message.timestamp() == (ck.TIMESTAMP_CREATE_TIME, expected.timestamp_ms), where


def receive(client, count, timeout=60):
    """The next `count` messages; fails when nothing comes for `timeout` seconds."""
    messages = []
    while len(messages) < count:
        some = client.consume(min(count - len(messages), 5_000), timeout)
        assert some, f"{len(messages)} of {count} came"
        for message in some:
            assert message.error() is None, message.error()
        messages += some
    return messages


@pytest.fixture(scope="module")
def produced(broker, pytestconfig):
    """The records of the module, a fifth with each codec: {topic: {(partition, offset): number}}."""
    each = pytestconfig.getoption("--records") // len(CODECS)
    topics = {}
    for n, codec in enumerate(CODECS):
        topic = f"librdkafka-{codec}"
        create(broker, topic)
        client = producer(broker, compression_type=codec, enable_idempotence=True)
        topics[topic] = send(client, topic, range(n * each, (n + 1) * each))
    return topics


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_without_a_group(broker, produced, codec):
    topic = f"librdkafka-{codec}"
    placed = dict(produced[topic])
    check_dense(placed)
    client = consumer(broker)
    client.assign([ck.TopicPartition(topic, p, ck.OFFSET_BEGINNING) for p in range(PARTITIONS)])
    last = Counter()
    for message in receive(client, len(placed)):
        check_equal(message, placed.pop((message.partition(), message.offset())))
        assert message.offset() == last[message.partition()], "out of order"
        last[message.partition()] += 1
    assert not placed
    client.close()


def test_round_trip_in_a_group(broker, produced):
    """Two members share all topics; each record reaches one of them, once."""
    expected = {(topic, *place): number for topic, placed in produced.items() for place, number in placed.items()}
    members = [consumer(broker, "round-trip") for _ in range(2)]
    read = Counter()
    for client in members:
        client.subscribe(list(produced))
    # Nobody reads before both hold partitions, or the first would take everything.
    deadline = time.monotonic() + 60
    early = []
    while not all(client.assignment() for client in members):
        assert time.monotonic() < deadline, "the group did not settle"
        for n, client in enumerate(members):
            early += [(n, m) for m in client.consume(100, 0.2) if m.error() is None]
    owners = [{(p.topic, p.partition) for p in client.assignment()} for client in members]
    assert not owners[0] & owners[1], "a partition has two owners"
    assert len(owners[0] | owners[1]) == len(produced) * PARTITIONS
    read.update(n for n, _ in early)
    # What came before the last rebalance was not committed, so it may come once more; nothing else may.
    early = {(m.topic(), m.partition(), m.offset()): m for _, m in early}
    for place, message in early.items():
        check_equal(message, expected[place])
    seen = set(early)
    deadline = time.monotonic() + 120
    while len(seen) < len(expected):
        assert time.monotonic() < deadline, f"{len(expected) - len(seen)} records did not come"
        for n, client in enumerate(members):
            for message in client.consume(5_000, 0.2):
                assert message.error() is None, message.error()
                place = message.topic(), message.partition(), message.offset()
                check_equal(message, expected[place])
                assert place not in seen or early.pop(place, None) is not None, f"{place} came twice"
                assert place[:2] in owners[n], f"{place} came to a member that does not own it"
                seen.add(place)
                read[n] += 1
    assert all(read[n] for n in range(2)), read
    for client in members:
        client.commit(asynchronous=False)
        client.close()


def wait_for_end(broker, topic, end):
    """Waits until partition 0 holds `end` records: nothing answers an acks=0 produce."""
    reader = consumer(broker)
    deadline = time.monotonic() + 30
    while reader.get_watermark_offsets(ck.TopicPartition(topic, 0), 30) != (0, end):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    reader.close()


def test_acks_of_all_kinds_keep_the_order(broker, topic):
    create(broker, topic)
    sent = 0
    # acks=0 promises nothing on a partition that is just being opened, so it does not come first.
    for acks in ("1", "0", "all"):
        client = producer(broker, acks=acks, max_in_flight=1)
        if acks == "0":
            for number in range(sent, sent + 100):
                client.produce(topic, str(number), partition=0)
            assert client.flush(30) == 0
            wait_for_end(broker, topic, sent + 100)
        else:
            placed = send(client, topic, range(sent, sent + 100), lambda n: record(n)._replace(value=str(n).encode()), partition=0)
            assert sorted(placed) == [(0, n) for n in range(sent, sent + 100)]
        sent += 100
    client = consumer(broker)
    client.assign([ck.TopicPartition(topic, 0, 0)])
    assert [int(m.value()) for m in receive(client, sent)] == list(range(sent))
    client.close()


def test_idempotent_producer_with_many_small_batches(broker, topic):
    """Five requests in flight, tiny batches over partitions of all shards: dense offsets in the order sent."""
    create(broker, topic, 16)
    client = producer(broker, enable_idempotence=True, linger_ms=0, batch_num_messages=10, max_in_flight=5)
    placed = send(client, topic, range(20_000), lambda n: record(n)._replace(key=None, value=b"v%d" % n))
    assert len(placed) == 20_000
    check_dense(placed)


def test_long_poll_wakes_on_a_new_record(broker, topic):
    create(broker, topic, 1)
    client = consumer(broker, fetch_wait_max_ms=10_000, fetch_min_bytes=1)
    client.assign([ck.TopicPartition(topic, 0, 0)])
    assert client.poll(1.5) is None
    sender = producer(broker, linger_ms=0)
    slow = 0
    for n in range(20):
        sent = time.monotonic()
        sender.produce(topic, b"%d" % n)
        sender.flush(10)
        message = client.poll(5)
        assert message is not None and message.value() == b"%d" % n
        slow = max(slow, time.monotonic() - sent)
    assert slow < 1, f"a record took {slow:.3f} s to a waiting consumer"
    client.close()


def test_reading_from_the_middle_of_a_batch(broker, topic):
    create(broker, topic, 1)
    client = producer(broker, linger_ms=500, compression_type="lz4")
    placed = send(client, topic, range(1_000), lambda n: record(n)._replace(value=b"%d" % n))
    assert len(placed) == 1_000
    for start in (1, 499, 500, 998, 999):
        reader = consumer(broker)
        reader.assign([ck.TopicPartition(topic, 0, start)])
        message = receive(reader, 1)[0]
        assert (message.offset(), message.value()) == (start, b"%d" % start)
        reader.close()


def test_seek_by_time(broker, topic):
    """The first record at or after a time, for times before, between, on and after the records; equal times too."""
    create(broker, topic, 1)
    times = [EPOCH_MS + 10 * (n // 3) for n in range(3_000)]
    client = producer(broker, linger_ms=20, batch_num_messages=100)
    send(client, topic, range(3_000), lambda n: record(n)._replace(timestamp_ms=times[n], value=b"%d" % n))
    reader = consumer(broker)
    for asked in (0, times[0], times[0] + 1, times[100] - 5, times[1_500], times[1_501], times[2_999] - 1, times[2_999]):
        found = reader.offsets_for_times([ck.TopicPartition(topic, 0, asked)], 30)[0]
        assert found.error is None
        assert found.offset == next(n for n, t in enumerate(times) if t >= asked), f"asked for {asked}"
    # librdkafka says OFFSET_END where the broker says that there is none.
    assert reader.offsets_for_times([ck.TopicPartition(topic, 0, times[-1] + 1)], 30)[0].offset == ck.OFFSET_END
    reader.assign([ck.TopicPartition(topic, 0, 1_500)])
    assert receive(reader, 1)[0].value() == b"1500"
    reader.seek(ck.TopicPartition(topic, 0, 42))
    assert receive(reader, 1)[0].value() == b"42"
    assert reader.get_watermark_offsets(ck.TopicPartition(topic, 0), 30) == (0, 3_000)
    reader.close()


def test_commit_and_resume(broker, topic):
    create(broker, topic, 1)
    send(producer(broker), topic, range(1_000), lambda n: record(n)._replace(value=b"%d" % n))
    first = consumer(broker, topic)
    first.subscribe([topic])
    assert len(receive(first, 300)) == 300
    committed = first.commit(offsets=[ck.TopicPartition(topic, 0, 300, metadata="half way")], asynchronous=False)
    assert committed[0].error is None
    first.close()
    second = consumer(broker, topic)
    found = second.committed([ck.TopicPartition(topic, 0)], 30)[0]
    assert (found.offset, found.metadata) == (300, "half way")
    second.subscribe([topic])
    assert [int(m.value()) for m in receive(second, 700)] == list(range(300, 1_000))
    second.commit(asynchronous=False)
    second.close()
    # Without a member, a plain client may still move the offsets.
    plain = consumer(broker, topic)
    plain.commit(offsets=[ck.TopicPartition(topic, 0, 10)], asynchronous=False)
    assert plain.committed([ck.TopicPartition(topic, 0)], 30)[0].offset == 10
    plain.close()
    unknown = consumer(broker, f"{topic}-unknown")
    assert unknown.committed([ck.TopicPartition(topic, 0)], 30)[0].offset == ck.OFFSET_INVALID
    unknown.close()


def settle(members, partitions, seconds=60):
    """Polls all members until they own `partitions` partitions together, none twice, and each has one at least."""
    deadline = time.monotonic() + seconds
    while True:
        for client in members:
            message = client.poll(0.05)
            assert message is None or message.error() is None, message.error()
        owned = [(p.topic, p.partition) for client in members for p in client.assignment()]
        if len(owned) == len(set(owned)) == partitions and all(client.assignment() for client in members):
            return
        assert time.monotonic() < deadline, f"the group did not settle: {[len(c.assignment()) for c in members]}"


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_members_come_and_go(broker, topic, strategy):
    create(broker, topic, 6)
    config = {"partition_assignment_strategy": strategy, "session_timeout_ms": 6_000, "heartbeat_interval_ms": 200}
    members = [consumer(broker, topic, **config) for _ in range(3)]
    for n, client in enumerate(members):
        client.subscribe([topic])
        settle(members[: n + 1], 6)
    members.pop(0).close()
    settle(members, 6)
    members.pop(0).close()
    settle(members, 6)
    send(producer(broker), topic, range(60))
    assert len(receive(members[0], 60)) == 60
    members[0].close()


def test_static_member_returns_without_a_rebalance(broker, topic):
    create(broker, topic, 2)
    config = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 200}
    revoked = []
    first = consumer(broker, topic, group_instance_id="one", **config)
    second = consumer(broker, topic, group_instance_id="two", **config)
    first.subscribe([topic], on_revoke=lambda _c, partitions: revoked.append(partitions))
    second.subscribe([topic])
    settle([first, second], 2)
    before = {p.partition for p in second.assignment()}
    revoked.clear()
    second.close()
    again = consumer(broker, topic, group_instance_id="two", **config)
    again.subscribe([topic])
    settle([first, again], 2)
    assert {p.partition for p in again.assignment()} == before
    assert not revoked, "the other member lost its partitions for a moment"
    first.close()
    again.close()


def test_groups_as_the_administrator_sees_them(broker, topic):
    create(broker, topic, 2)
    client = consumer(broker, topic)
    client.subscribe([topic])
    settle([client], 2)
    client.commit(offsets=[ck.TopicPartition(topic, 0, 5)], asynchronous=False)
    administrator = admin(broker)
    listed = {g.group_id: g for g in administrator.list_consumer_groups().result(30).valid}
    assert listed[topic].state == ck.ConsumerGroupState.STABLE
    described = administrator.describe_consumer_groups([topic])[topic].result(30)
    assert described.state == ck.ConsumerGroupState.STABLE
    assert [len(m.assignment.topic_partitions) for m in described.members] == [2]
    with pytest.raises(ck.KafkaException) as refused:
        administrator.delete_consumer_groups([topic])[topic].result(30)
    assert refused.value.args[0].code() == ck.KafkaError.NON_EMPTY_GROUP
    client.close()
    administrator.delete_consumer_groups([topic])[topic].result(30)
    assert topic not in {g.group_id for g in administrator.list_consumer_groups().result(30).valid}
    with pytest.raises(ck.KafkaException) as refused:
        administrator.delete_consumer_groups([topic])[topic].result(30)
    assert refused.value.args[0].code() == ck.KafkaError.GROUP_ID_NOT_FOUND


def test_topics(broker, topic):
    administrator = admin(broker)
    create(broker, topic, 3, retention_ms=1234567)
    metadata = administrator.list_topics(timeout=30)
    assert sorted(metadata.topics[topic].partitions) == [0, 1, 2]
    assert all(p.error is None and p.leader in metadata.brokers for p in metadata.topics[topic].partitions.values())
    config = administrator.describe_configs([ConfigResource(ck.admin.RESOURCE_TOPIC, topic)])
    entries = next(iter(config.values())).result(30)
    assert entries["retention.ms"].value == "1234567"
    assert entries["max.message.bytes"].value == "1048588"

    def refused(code, new):
        with pytest.raises(ck.KafkaException) as error:
            administrator.create_topics([new])[new.topic].result(30)
        assert error.value.args[0].code() == code, error.value

    refused(ck.KafkaError.TOPIC_ALREADY_EXISTS, NewTopic(topic, 3, 1))
    refused(ck.KafkaError.TOPIC_EXCEPTION, NewTopic("no spaces", 1, 1))
    refused(ck.KafkaError.TOPIC_EXCEPTION, NewTopic("x" * 250, 1, 1))
    refused(ck.KafkaError.INVALID_CONFIG, NewTopic(f"{topic}-c", 1, 1, config={"retention.ms": "soon"}))
    refused(ck.KafkaError.INVALID_CONFIG, NewTopic(f"{topic}-c", 1, 1, config={"no.such.key": "1"}))

    administrator.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    assert len(administrator.list_topics(topic, 30).topics[topic].partitions) == 5
    with pytest.raises(ck.KafkaException) as error:
        administrator.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    assert error.value.args[0].code() == ck.KafkaError.INVALID_PARTITIONS

    described = administrator.describe_topics(ck.TopicCollection([topic]))[topic].result(30)
    assert len(described.partitions) == 5 and not described.is_internal
    cluster = administrator.describe_cluster().result(30)
    assert len(cluster.cluster_id) == 22 and cluster.controller is not None and len(cluster.nodes) == 1


def test_a_topic_created_anew_is_empty(broker, topic):
    create(broker, topic, 1)
    send(producer(broker), topic, range(100))
    administrator = admin(broker)
    administrator.delete_topics([topic])[topic].result(30)
    deadline = time.monotonic() + 30
    while topic in administrator.list_topics(timeout=30).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    create(broker, topic, 1)
    placed = send(producer(broker), topic, range(5))
    assert sorted(placed) == [(0, n) for n in range(5)]
    reader = consumer(broker, enable_partition_eof=True)
    reader.assign([ck.TopicPartition(topic, 0, 0)])
    numbers = []
    while (message := reader.poll(30)).error() is None:
        numbers.append(message.offset())
    assert message.error().code() == ck.KafkaError._PARTITION_EOF and numbers == list(range(5))
    reader.close()


def test_a_new_topic_serves_at_once(broker, topic):
    """Created on one connection, used on another without an error in between."""
    administrator = admin(broker)
    sender = producer(broker, linger_ms=0, retries=0)
    for n in range(50):
        name = f"{topic}-{n}"
        administrator.create_topics([NewTopic(name, 2, 1)])[name].result(30)
        assert send(sender, name, [n], partition=n % 2) == {(n % 2, 0): n}


def test_unknown_topics_are_created_on_demand(broker, topic):
    assert send(producer(broker), topic, [1], partition=0) == {(0, 0): 1}
    reader = consumer(broker)
    with pytest.raises(ck.KafkaException):
        reader.get_watermark_offsets(ck.TopicPartition(f"{topic}-never", 0), 10)
    reader.close()


def test_a_batch_larger_than_the_topic_allows_is_refused(broker, topic):
    create(broker, topic, 1, max_message_bytes=100_000)
    errors = []
    client = producer(broker)
    client.produce(topic, bytes(200_000), on_delivery=lambda error, _m: errors.append(error))
    assert client.flush(30) == 0
    assert errors[0].code() == ck.KafkaError.MSG_SIZE_TOO_LARGE
    assert send(client, topic, [1]) == {(0, 0): 1}


def test_offsets_listed_by_the_administrator(broker, topic):
    create(broker, topic, 1)
    send(producer(broker), topic, range(30), lambda n: record(n)._replace(timestamp_ms=EPOCH_MS + (n * 7) % 30))
    partition = ck.TopicPartition(topic, 0)

    def offset(spec):
        return admin(broker).list_offsets({partition: spec})[partition].result(30).offset

    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 30
    times = [(n * 7) % 30 for n in range(30)]
    assert offset(OffsetSpec.max_timestamp()) == times.index(29)
    assert offset(OffsetSpec.for_timestamp(EPOCH_MS + 20)) == next(n for n, t in enumerate(times) if t >= 20)


def test_many_partitions_in_one_fetch(broker, topic):
    create(broker, topic, 100)
    placed = send(producer(broker), topic, range(10_000), lambda n: record(n)._replace(value=b"%d" % n, key=b"%d" % n))
    client = consumer(broker)
    client.assign([ck.TopicPartition(topic, p, 0) for p in range(100)])
    for message in receive(client, 10_000):
        assert message.value() == b"%d" % placed.pop((message.partition(), message.offset()))
    assert not placed
    client.close()


def committed(client, partitions):
    """The committed offsets by partition, asked again while the coordinator is still loading."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return {p.partition: p.offset for p in client.committed(partitions, 30)}
        except ck.KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() != ck.KafkaError.NOT_COORDINATOR:
                raise
            assert time.monotonic() < deadline, error
            time.sleep(0.1)


@pytest.mark.only_thalweg
def test_transactions_fail_at_once(broker):
    client = producer(broker, transactional_id="t")
    began = time.monotonic()
    with pytest.raises(ck.KafkaException):
        client.init_transactions(20)
    assert time.monotonic() - began < 10


@pytest.mark.restarts
def test_group_and_records_survive_kill(broker, topic):
    create(broker, topic, 2)
    placed = send(producer(broker, enable_idempotence=True), topic, range(2_000))
    client = consumer(broker, topic)
    client.subscribe([topic])
    receive(client, 500)
    client.commit(asynchronous=False)
    position = committed(client, client.assignment())
    assert sum(max(offset, 0) for offset in position.values()) == 500
    broker.kill()
    broker.start()
    for message in receive(client, 1_500):
        check_equal(message, placed[message.partition(), message.offset()])
        assert message.offset() >= position.get(message.partition(), 0)
    client.close()
    again = consumer(broker, topic)
    assert committed(again, [ck.TopicPartition(topic, p) for p in range(2)]) == position
    again.close()
