"""Topics of all kinds, what was acknowledged in them, and whether a broker still serves it all."""

import json
import shutil
import subprocess
import time

import brokers
import confluent_kafka as ck
import metrics
from test_fetch import delete_records
from test_librdkafka import _admin, admin, consumer, create
from waiting import until
from wire import Connection, Part, Producer, batch, batches_in

TOPICS = 50
GROUPS = 6
DELETED, RECREATED, SHORTENED, EMPTIED = range(38, 41), range(41, 44), range(44, 47), range(47, 50)


def name(number):
    return f"topic-{number:02}"


class Scene:
    """Makes topics, and remembers what must be there afterwards."""

    def __init__(self):
        self.partitions = {}  # {topic: count}
        self.records = {}  # {(topic, index): {base offset: the batch from its attributes on}}
        self.starts = {}  # {(topic, index): log start}
        self.offsets = {}  # {(group, topic, index): offset}
        self.sequences = {}  # {(topic, index): next sequence of its producer}
        self.last = {}  # {(topic, index): (base, batch) of its producer's newest batch}
        self.producers = {}  # {(topic, index): id}
        self.number = 0

    def create(self, broker, topic, partitions, **config):
        create(broker, topic, partitions, **config)
        self.partitions[topic] = partitions
        for index in range(partitions):
            self.records[topic, index] = {}
            self.starts[topic, index] = 0
            self.sequences[topic, index] = 0
            self.number += 1
            self.producers[topic, index] = 1_000 + self.number

    def produce(self, wire, topic, index, count=1):
        """Idempotent batches, each partition's by a producer of its own."""
        place = topic, index
        for _ in range(count):
            self.number += 1
            values = [f"{topic} {index} {self.number} {n} ".encode() * 20 for n in range(1 + self.number % 3)]
            producer = Producer(self.producers[place], 0, self.sequences[place])
            one = batch(values, int(time.time() * 1000), producer)
            base = wire.produce(topic, index, one)
            self.records[place][base] = one[16:]
            self.last[place] = base, one
            self.sequences[place] += len(values)

    def everywhere(self, broker, count=1):
        with Connection(broker.bootstrap) as wire:
            for topic, index in sorted(self.records):
                if int(topic[-2:]) not in EMPTIED:
                    self.produce(wire, topic, index, count)

    def commit(self, broker, step):
        for n in range(GROUPS):
            client = consumer(broker, f"group-{n}")
            parts = []
            for topic in (name(n), name(n + 10)):
                for index in range(self.partitions[topic]):
                    offset = min(step, len(self.records[topic, index]))
                    parts.append(ck.TopicPartition(topic, index, offset))
                    self.offsets[f"group-{n}", topic, index] = offset
            client.commit(offsets=parts, asynchronous=False)
            client.close()

    def end(self, place):
        batches = self.records[place]
        if not batches:
            return self.starts[place]
        base = max(batches)
        return base + 1 + int.from_bytes(batches[base][7:11], "big")

    def begin(self, broker):
        """Everything that happens before the last snapshot."""
        for n in range(TOPICS - 1):
            config = {"retention_ms": -1} if n % 3 else {"max_message_bytes": 500_000 + n}
            if n in EMPTIED:
                config = {"retention_bytes": 0}
            self.create(broker, name(n), 1 + n % 4, **config)
        with Connection(broker.bootstrap) as wire:
            for topic, index in sorted(self.records):
                self.produce(wire, topic, index, 3)
        for n in [*DELETED, *RECREATED]:
            self.delete(broker, name(n))
        for n in RECREATED:
            self.create(broker, name(n), 2)
        self.everywhere(broker, 2)
        for n in SHORTENED:
            for index in range(self.partitions[name(n)]):
                bases = sorted(self.records[name(n), index])
                delete_records(broker, name(n), index, bases[2])
                self.starts[name(n), index] = bases[2]
                self.records[name(n), index] = {b: r for b, r in self.records[name(n), index].items() if b >= bases[2]}
        for place in [p for p in self.records if int(p[0][-2:]) in EMPTIED]:
            end = self.end(place)
            until(lambda place=place, end=end: log_start(broker, *place) == end, f"{place} is emptied")
            self.starts[place], self.records[place] = end, {}
        self.commit(broker, 2)

    def delete(self, broker, topic):
        admin(broker).delete_topics([topic])[topic].result(30)
        for index in range(self.partitions.pop(topic)):
            for known in (self.records, self.starts, self.sequences, self.last):
                known.pop((topic, index), None)

    def check(self, broker):
        """All of it is there, at its offset, and nothing else."""
        served = {t: len(m.partitions) for t, m in admin(broker).list_topics(timeout=30).topics.items() if t[0] != "_"}
        assert served == self.partitions
        with Connection(broker.bootstrap) as wire:
            for (topic, index), batches in sorted(self.records.items()):
                self.check_partition(wire, topic, index, batches)
            for (topic, index), (base, one) in sorted(self.last.items()):
                if (topic, index) in self.records and base in self.records[topic, index]:
                    assert wire.produce(topic, index, one) == base, f"{topic}-{index}: a repeated batch is known"
        for group in {group for group, _, _ in self.offsets}:
            client = consumer(broker, group)
            asked = [ck.TopicPartition(topic, index) for known, topic, index in self.offsets if known == group]
            told = {(group, p.topic, p.partition): p.offset for p in client.committed(asked, 60)}
            client.close()
            assert told == {key: offset for key, offset in self.offsets.items() if key[0] == group}

    def check_partition(self, wire, topic, index, batches):
        first = wire.fetch([Part(topic, index, self.end((topic, index)))]).parts[topic, index]
        where = f"{topic}-{index}"
        assert first.error == 0, f"{where}: error {first.error}"
        assert (first.log_start, first.high_watermark) == (self.starts[topic, index], self.end((topic, index))), where
        offset, found = first.log_start, {}
        while offset < first.high_watermark:
            part = wire.fetch([Part(topic, index, offset)], max_wait_ms=10_000).parts[topic, index]
            assert part.error == 0 and part.records, f"{where} at {offset}: {part.error}"
            at = 0
            for base, count, size in batches_in(part.records):
                one = part.records[at : at + size]
                at, offset = at + size, base + count
                # The head up to the leader epoch is the broker's.
                if base >= first.log_start:
                    found[base] = one[16:]
        assert found == batches, f"{where} has other records"


def log_start(broker, topic, index):
    client = consumer(broker)
    low, _ = client.get_watermark_offsets(ck.TopicPartition(topic, index), 30, cached=False)
    client.close()
    return low


def uploaded(broker):
    """Waits until the log holds nothing that no object has."""
    metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") == 0, 60)


def in_an_object(broker, wire, topic, index, one):
    """Appends a batch, and waits until an object of its own has it."""

    def objects(now):
        return metrics.total(now, "thalweg_upload_objects_total")

    before = objects(metrics.read(broker))
    wire.produce(topic, index, one)
    metrics.wait_until(broker, lambda now: objects(now) > before, 30)


def snapshot_of_everything(broker):
    """Waits until the newest snapshot shows the metadata as it is."""
    metrics.wait_until(
        broker,
        lambda now: metrics.total(now, "thalweg_metadata_snapshots_total") > 0
        and metrics.total(now, "thalweg_metadata_snapshot_age_seconds") == 0,
        60,
    )


def elsewhere(broker):
    """The broker on a machine that has nothing but the bucket's URL."""
    fresh = brokers.Thalweg({key: broker.settings[key] for key in broker.settings if key not in PLACES})
    return fresh


PLACES = ("listeners", "advertised.listeners", "http.listen", "data.dir")


def thalweg(broker, *command):
    """Runs a command with the broker's settings; what it prints as JSON."""
    sets = [word for key, value in broker.settings.items() for word in ("--set", f"{key}={value}")]
    run = subprocess.run(
        [broker.binary, *command, *sets, "--json"], capture_output=True, text=True, timeout=120, env=broker.environment()
    )
    assert run.returncode == 0, f"{command}: {run.returncode}\n{run.stdout}\n{run.stderr}"
    return json.loads(run.stdout.splitlines()[-1])


def lose(broker, keep_wal):
    """The machine is gone; what is kept of the log lies where `keep_wal` says."""
    assert not broker.alive()
    if keep_wal:
        shutil.move(broker.data / "wal", keep_wal)
    shutil.rmtree(broker.data)
    _admin.cache_clear()
