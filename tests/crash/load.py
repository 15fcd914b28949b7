"""An idempotent load that lives through kills, and the check of what came of it."""

import random
import threading
import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC = "crash"
PARTITIONS = 8
# Small, so that a few seconds of load lap the ring, leave the tail cache, and upload.
SETTINGS = {
    "wal.capacity.bytes": 128 << 20,
    "cache.tail.bytes": 1 << 20,
    "cache.read.bytes": 1 << 20,
    "object.upload.bytes": 4 << 20,
    "object.upload.interval.ms": 500,
}
# Everything stays in the ring.
NOTHING_UPLOADED = SETTINGS | {
    "object.upload.bytes": 1 << 30, "object.upload.interval.ms": 3_600_000, "wal.capacity.bytes": 2 << 30
}
LENGTHS = (0, 10, 100, 1_000, 1_000, 10_000)
POOL = random.Random(3).randbytes(1 << 20)


class Lost(AssertionError):
    """Acknowledged records are not there."""


def value(partition, sequence):
    """The bytes of record `sequence` of a partition; its offset must be `sequence` too."""
    # Mixed by hand: a generator for each record was most of what sending and checking cost.
    mixed = (partition * 1_000_003 + sequence) * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF
    mixed ^= mixed >> 29
    length = LENGTHS[mixed % len(LENGTHS)]
    at = (mixed >> 8) % (len(POOL) - length)
    return b"%d:%d:" % (partition, sequence) + POOL[at : at + length]


def create_topic(bootstrap):
    administrator = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    administrator.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)


class Load(threading.Thread):
    """One idempotent producer, on a thread of its own."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.client = ck.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "batch.num.messages": 200,
                "compression.type": "lz4",
                # Longer than any outage of these tests, with --minutes 10 too.
                "message.timeout.ms": 1_800_000,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 200,
                "log_level": 2,
            }
        )
        self.sent = [0] * PARTITIONS
        # The sequences below `acknowledged` are durable, whatever happens.
        self.acknowledged = [0] * PARTITIONS
        self.failure = None
        # Whether a few partitions are hot for a while, then others.
        self.shifts = False
        self.going = threading.Event()
        self.going.set()
        self.stopping = threading.Event()
        self.start()

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
        chance, hot = random.Random(4), range(PARTITIONS)
        while not self.stopping.is_set() and self.failure is None:
            if not self.going.is_set():
                self.client.poll(0.02)
                continue
            if self.shifts and chance.randrange(5_000) == 0:
                hot = chance.sample(range(PARTITIONS), 3)
            partition = chance.choice(hot)
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

    def pause(self):
        """Nothing new is sent until `resume`, so that whoever checks does not run after it."""
        self.going.clear()

    def resume(self):
        self.going.set()

    def finish(self):
        """Sends no more, waits until all is acknowledged, and says what that is."""
        self.stopping.set()
        self.join(180)
        self.check()
        return list(self.acknowledged)

    def total(self):
        return sum(self.acknowledged)

    def check(self):
        assert self.failure is None, self.failure

    def wait_for(self, more, seconds):
        """Waits until `more` records have been acknowledged from now on; returns how many seconds that took."""
        began, start = time.monotonic(), self.total()
        while self.total() < start + more:
            self.check()
            assert time.monotonic() - began < seconds, f"{self.total() - start} of {more} records acknowledged in {seconds} s"
            time.sleep(0.005)
        return time.monotonic() - began


def check_everything(bootstrap, acknowledged, seconds=120):
    """Reads every partition from the start and compares it with what was acknowledged before the call."""
    reader = ck.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "verifier", "auto.offset.reset": "error", "check.crcs": True, "log_level": 2}
    )
    try:
        for partition in range(PARTITIONS):
            low, high = reader.get_watermark_offsets(ck.TopicPartition(TOPIC, partition), 30)
            if low > 0 or high < acknowledged[partition]:
                raise Lost(f"partition {partition} holds {low}..{high}, acknowledged were 0..{acknowledged[partition]}")
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
    finally:
        reader.close()


def start(broker):
    """Starts a broker with the topic, under load."""
    broker.start()
    create_topic(broker.bootstrap)
    return Load(broker.bootstrap)


def check_everywhere(broker, acknowledged):
    """Everything acknowledged is there, and once more from objects alone."""
    check_everything(broker.bootstrap, acknowledged)
    broker.stop()
    broker.remove_wal()
    broker.start()
    check_everything(broker.bootstrap, acknowledged)


def kill_in_a_loop(broker, rounds, fault=lambda number: None):
    """Kills the broker `rounds` times, each time restarting it with another number of shards. `fault(number)` is called
    before the load of a round, and `fault(-1)` before everything is read."""
    chance = random.Random(5)
    with broker:
        create_topic(broker.bootstrap)
        load = Load(broker.bootstrap)
        for number in range(rounds):
            fault(number)
            load.wait_for(10_000 + chance.randrange(10_000), 60)
            broker.kill()
            acknowledged = list(load.acknowledged)
            broker.settings["shards"] = [1, 3, 2, 4][number % 4]
            broker.start()
            first = load.wait_for(1, 60)
            load.pause()
            print(
                f"round {number}: {sum(acknowledged)} records, shards {broker.settings['shards']}, ready after "
                f"{broker.start_ms:.0f} ms, next acknowledgement {first * 1000:.0f} ms later", flush=True
            )
            # It starts and acknowledges under the fault; what only the bucket still holds is read when the bucket answers.
            fault(-1)
            check_everything(broker.bootstrap, acknowledged)
            load.resume()
        check_everywhere(broker, load.finish())
        broker.stop()
