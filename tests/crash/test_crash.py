"""kill -9 in a loop under idempotent load: what was acknowledged is there, in order, once, at its offset."""

import random
import threading
import time

import brokers
import confluent_kafka as ck
import pytest
import stores
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC = "crash"
PARTITIONS = 8
# Small, so that a few seconds of load lap the ring, leave the tail cache, and upload.
SETTINGS = {
    "wal.capacity.bytes": 256 << 20,
    "cache.tail.bytes": 1 << 20,
    "cache.read.bytes": 1 << 20,
    "object.upload.bytes": 4 << 20,
    "object.upload.interval.ms": 500,
}
POOL = random.Random(3).randbytes(1 << 20)


def value(partition, sequence):
    """The bytes of record `sequence` of a partition; its offset must be `sequence` too."""
    chance = random.Random(partition * 1_000_003 + sequence)
    length = chance.choice([0, 10, 100, 1_000, 1_000, 10_000])
    at = chance.randrange(len(POOL) - length)
    return b"%d:%d:" % (partition, sequence) + POOL[at : at + length]


class Load(threading.Thread):
    """One idempotent producer that lives through all the kills, on a thread of its own."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.client = ck.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "batch.num.messages": 200,
                "compression.type": "lz4",
                "message.timeout.ms": 300_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 200,
                "log_level": 2,
            }
        )
        self.sent = [0] * PARTITIONS
        # The sequences below `acknowledged` are durable, whatever happens.
        self.acknowledged = [0] * PARTITIONS
        self.failure = None
        self.stopping = threading.Event()

    def delivered(self, partition, sequence):
        def report(error, message):
            if error is not None:
                self.failure = f"record {partition}/{sequence}: {error}"
            elif message.offset() != sequence:
                self.failure = f"record {partition}/{sequence} was given offset {message.offset()}"
            elif sequence != self.acknowledged[partition]:
                self.failure = f"record {partition}/{sequence} was acknowledged after {self.acknowledged[partition] - 1}"
            else:
                self.acknowledged[partition] = sequence + 1

        return report

    def run(self):
        chance = random.Random(4)
        while not self.stopping.is_set() and self.failure is None:
            partition = chance.randrange(PARTITIONS)
            sequence = self.sent[partition]
            try:
                self.client.produce(
                    TOPIC, value(partition, sequence), partition=partition, on_delivery=self.delivered(partition, sequence)
                )
                self.sent[partition] += 1
            except BufferError:
                self.client.poll(0.05)
            self.client.poll(0)
            if sum(self.sent) - sum(self.acknowledged) > 5_000:
                self.client.poll(0.02)
        left = self.client.flush(120)
        if left and self.failure is None:
            self.failure = f"{left} records were never acknowledged"

    def total(self):
        return sum(self.acknowledged)

    def check(self):
        assert self.failure is None, self.failure

    def wait_for(self, more, seconds):
        """Waits until `more` records have been acknowledged from now on; returns how long the first took."""
        began, start, first = time.monotonic(), self.total(), None
        while self.total() < start + more:
            self.check()
            if first is None and self.total() > start:
                first = time.monotonic() - began
            assert time.monotonic() - began < seconds, f"{self.total() - start} of {more} records acknowledged in {seconds} s"
            time.sleep(0.005)
        return first or 0


def check_everything(bootstrap, acknowledged, seconds=120):
    """Reads every partition from the start and compares it with what was acknowledged before the call."""
    reader = ck.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "verifier", "auto.offset.reset": "error", "check.crcs": True, "log_level": 2}
    )
    reader.assign([ck.TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
    next_offset = [0] * PARTITIONS
    deadline = time.monotonic() + seconds
    while any(have < want for have, want in zip(next_offset, acknowledged)):
        assert time.monotonic() < deadline, f"acknowledged {acknowledged}, read {next_offset}"
        for message in reader.consume(5_000, 0.5):
            assert message.error() is None, message.error()
            partition = message.partition()
            assert message.offset() == next_offset[partition], f"{partition}: {message.offset()} after {next_offset[partition] - 1}"
            assert message.value() == value(partition, message.offset()), f"{partition}/{message.offset()} holds another record"
            next_offset[partition] += 1
    for partition in range(PARTITIONS):
        low, high = reader.get_watermark_offsets(ck.TopicPartition(TOPIC, partition), 30)
        assert low == 0 and high >= acknowledged[partition], f"{partition}: {low}..{high}, acknowledged {acknowledged[partition]}"
    reader.close()


@pytest.fixture
def s3():
    server = stores.S3()
    yield server
    server.close()


def kill_in_a_loop(broker, rounds, fault):
    """Kills the broker `rounds` times, each time restarting it with another number of shards and another fault of the store."""
    chance = random.Random(5)
    with broker:
        administrator = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
        administrator.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)
        load = Load(broker.bootstrap)
        load.start()
        for number in range(rounds):
            fault(number)
            load.wait_for(2_000 + chance.randrange(4_000), 60)
            broker.kill()
            acknowledged = list(load.acknowledged)
            broker.settings["shards"] = [1, 3, 2, 4][number % 4]
            broker.start()
            first = load.wait_for(1, 60)
            print(
                f"round {number}: {sum(acknowledged)} records, shards {broker.settings['shards']}, ready after "
                f"{broker.start_ms:.0f} ms, next acknowledgement {first * 1000:.0f} ms later", flush=True
            )
            # It starts and acknowledges under the fault; what only the bucket still holds is read when the bucket answers.
            fault(-1)
            check_everything(broker.bootstrap, acknowledged)
        load.stopping.set()
        load.join(180)
        load.check()
        check_everything(broker.bootstrap, list(load.acknowledged))
        # Once more from objects alone.
        broker.stop()
        broker.remove_wal()
        broker.start()
        check_everything(broker.bootstrap, list(load.acknowledged))
        broker.stop()


@pytest.mark.timeout(1800)
def test_kill_with_a_directory_as_store(pytestconfig):
    kill_in_a_loop(brokers.Thalweg(SETTINGS), pytestconfig.getoption("--rounds"), lambda number: None)


@pytest.mark.timeout(1800)
def test_kill_with_nothing_uploaded(pytestconfig):
    """The object store stays empty until the end: everything comes from the ring."""
    settings = SETTINGS | {"object.upload.bytes": 1 << 30, "object.upload.interval.ms": 3_600_000, "wal.capacity.bytes": 2 << 30}
    kill_in_a_loop(brokers.Thalweg(settings), max(pytestconfig.getoption("--rounds") // 2, 1), lambda number: None)


@pytest.mark.timeout(1800)
def test_kill_while_the_store_is_slow_failing_hanging_or_gone(pytestconfig, s3, monkeypatch):
    for name, secret in stores.CREDENTIALS.items():
        monkeypatch.setenv(name, secret)
    modes = ["ok", "down", "slow", "error", "ok", "hang"]

    def fault(number):
        s3.faults.set(modes[number % len(modes)] if number >= 0 else "ok")

    settings = SETTINGS | {"wal.capacity.bytes": 1 << 30} | s3.settings("crash")
    kill_in_a_loop(brokers.Thalweg(settings), max(pytestconfig.getoption("--rounds"), 2), fault)
