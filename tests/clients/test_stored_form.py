"""What topic settings change of a batch: its codec, its timestamps; checked against unmodified readers."""

import time

import confluent_kafka as ck
import pytest
from records import CODECS, record
from test_librdkafka import check_dense, check_equal, consumer, create, producer, receive, send

COUNT = 2_000
STORED = ["uncompressed", "gzip", "snappy", "lz4", "zstd"]


def all_of(broker, topic, count):
    client = consumer(broker)
    client.assign([ck.TopicPartition(topic, 0, ck.OFFSET_BEGINNING)])
    messages = receive(client, count)
    client.close()
    return messages


@pytest.mark.parametrize("stored", STORED)
def test_records_are_the_same_under_the_topics_codec(broker, stored):
    """Each producer's codec, idempotent and pipelined, is stored as the topic says; nothing in the records changes, nor the order."""
    topic = f"stored-{stored}"
    create(broker, topic, partitions=1, compression_type=stored)
    placed = {}
    for n, codec in enumerate(CODECS):
        client = producer(broker, compression_type=codec, enable_idempotence=True)
        placed.update(send(client, topic, range(n * COUNT, (n + 1) * COUNT)))
    check_dense(placed)
    messages = all_of(broker, topic, len(placed))
    for message in messages:
        check_equal(message, placed.pop((message.partition(), message.offset())))
    assert not placed


def test_a_batch_that_grows_past_the_limit_is_refused(broker):
    """max.message.bytes counts what is stored, as in Kafka."""
    create(broker, "grows", partitions=1, compression_type="uncompressed", max_message_bytes=100_000)
    client = producer(broker, compression_type="zstd")
    errors = []
    client.produce("grows", b"x" * 200_000, on_delivery=lambda error, _message: errors.append(error))
    assert client.flush(30) == 0
    assert errors[0].code() == ck.KafkaError.MSG_SIZE_TOO_LARGE


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_log_append_time_is_the_brokers(broker, codec):
    topic = f"stamped-{codec}"
    create(broker, topic, partitions=1, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    told = []
    client = producer(broker, compression_type=codec)
    for number in range(500):
        r = record(number)
        # Far outside any limit, which does not count here.
        client.produce(topic, r.value, r.key, timestamp=1, on_delivery=lambda error, message: told.append((error, message.timestamp())))
    assert client.flush(60) == 0 and all(error is None for error, _ in told)
    after = int(time.time() * 1000)
    stamps = [message.timestamp() for message in all_of(broker, topic, 500)]
    assert all(kind == ck.TIMESTAMP_LOG_APPEND_TIME and before <= ms <= after for kind, ms in stamps), stamps[:3]
    assert [ms for _, ms in stamps] == sorted(ms for _, ms in stamps)
    assert [stamp for _, stamp in told] == stamps, "the producer is told the same"
    reader = consumer(broker)
    found = reader.offsets_for_times([ck.TopicPartition(topic, 0, stamps[-1][1])], timeout=30)[0].offset
    assert stamps[found][1] == stamps[-1][1] and (found == 0 or stamps[found - 1][1] < stamps[-1][1])
    reader.close()


def test_null_keys_are_refused_where_they_cannot_be_compacted(broker):
    create(broker, "compacted", partitions=1, cleanup_policy="compact")
    for codec in CODECS:
        client = producer(broker, compression_type=codec)
        outcomes = []
        client.produce("compacted", b"value", on_delivery=lambda error, _message: outcomes.append(error))
        client.flush(30)
        assert outcomes[0] is not None and outcomes[0].code() == ck.KafkaError.INVALID_RECORD, (codec, outcomes)
        client.produce("compacted", b"value", b"key", on_delivery=lambda error, _message: outcomes.append(error))
        client.flush(30)
        assert outcomes[1] is None, codec
