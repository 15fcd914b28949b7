"""Brokers with one setting changed, and what is asked of them."""

import time

import brokers
import confluent_kafka as ck
from test_librdkafka import create
from wire import Connection, Part


def bare(settings=None, **more):
    """A broker with the defaults but for its places and these settings."""
    broker = brokers.Thalweg({"wal.capacity.bytes": 256 << 20} | (settings or {}) | more)
    for key in ("num.partitions", "group.initial.rebalance.delay.ms"):
        if key not in (settings or {}):
            del broker.settings[key]
    return broker


def now_ms():
    return int(time.time() * 1000)


def create_once(broker, topic, partitions=1, **config):
    """Creates the topic unless it is there."""
    try:
        create(broker, topic, partitions, **config)
    except ck.KafkaException as error:
        assert error.args[0].code() == ck.KafkaError.TOPIC_ALREADY_EXISTS, error


def stored(broker, topic, one, **config):
    """The batch as the broker gives it back."""
    create_once(broker, topic, **config)
    with Connection(broker.bootstrap) as wire:
        wire.produce(topic, 0, one)
        return wire.fetch([Part(topic, 0, 0)]).parts[topic, 0].records
