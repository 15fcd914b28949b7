"""Real clients under faults, and no anomaly in what they were told.

Idempotent producers, two consumer groups whose members come and go, topics that are created and deleted; meanwhile the broker is killed
(on devices that make it a loss of power), stopped and continued, started with other shard counts, and its bucket is slow, failing, hanging or
gone. `--minutes` is how long; history.py is what is looked for.
"""

import contextlib
import random
import signal
import threading
import time

import brokers
import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from history import History, Value, anomalies
from load import SETTINGS

TOPICS, PARTITIONS = ("steady-0#0", "steady-1#0"), 3
CLIENT = {"log_level": 0, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 200, "socket.timeout.ms": 30_000}
PRODUCER = CLIENT | {"enable.idempotence": True, "message.timeout.ms": 600_000, "linger.ms": 2, "compression.type": "lz4"}
RECORDS_PER_SECOND = 400
UNREADABLE = (ck.KafkaError._BAD_MSG, ck.KafkaError._BAD_COMPRESSION)
GONE = (ck.KafkaError.UNKNOWN_TOPIC_OR_PART, ck.KafkaError._UNKNOWN_TOPIC)


def name_of(generation):
    return generation.split("#")[0]


class Client(threading.Thread):
    """A client on a thread of its own, until `stop`; `failure` is what it may not see."""

    def __init__(self, bootstrap, history):
        super().__init__(daemon=True)
        self.bootstrap, self.history = bootstrap, history
        self.stopping, self.failure = threading.Event(), None
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001: the test's thread tells of it
            self.failure = f"{type(self).__name__}: {error!r}"

    def stop(self, seconds=180):
        self.stopping.set()
        self.join(seconds)
        assert not self.is_alive(), f"{type(self).__name__} does not end"
        assert self.failure is None, self.failure


class Writer(Client):
    """One idempotent producer over all steady partitions."""

    def __init__(self, bootstrap, history, number):
        self.number = number
        super().__init__(bootstrap, history)

    def work(self):
        producer, chance = ck.Producer(PRODUCER | {"bootstrap.servers": self.bootstrap}), random.Random(self.number)
        sequences = dict.fromkeys([(t, p) for t in TOPICS for p in range(PARTITIONS)], 0)
        while not self.stopping.is_set() and self.failure is None:
            partition = chance.choice(list(sequences))
            one = Value(partition[0], f"w{self.number}", partition[1], sequences[partition])
            self.history.send(one)
            with contextlib.suppress(BufferError):
                content = one.encode(chance.randbytes(chance.choice([0, 50, 500, 4_000])))
                producer.produce(name_of(one.generation), content, partition=one.partition, on_delivery=self.delivered(one))
                sequences[partition] += 1
            producer.poll(1 / RECORDS_PER_SECOND)
        left = producer.flush(150)
        assert left == 0, f"{left} records were never acknowledged"

    def delivered(self, one):
        def report(error, message):
            if error is None:
                self.history.acknowledge((one.generation, one.partition), message.offset(), one)
            else:
                self.failure = f"{one}: {error}"

        return report


class Member(Client):
    """A member of a group that commits what it has seen, after it has seen it."""

    def __init__(self, bootstrap, history, group):
        self.group, self.sessions = group, {}
        super().__init__(bootstrap, history)

    def work(self):
        consumer = ck.Consumer(
            CLIENT | {
                "bootstrap.servers": self.bootstrap, "group.id": self.group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                "session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_000, "check.crcs": True,
            }
        )
        consumer.subscribe([name_of(t) for t in TOPICS], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.revoked)
        while not self.stopping.is_set():
            seen = {}
            for message in consumer.consume(500, 0.2):
                # Connections come and go here; what is asked is what the records say. But the client passes over what it cannot read.
                if message.error() is not None:
                    assert message.error().code() not in UNREADABLE, message.error()
                    continue
                one = Value.decode(message.value())
                partition = (f"{message.topic()}#0", message.partition())
                self.history.poll(self.sessions[partition], message.offset(), one)
                seen[partition] = message.offset() + 1
            if seen:
                self.commit(consumer, seen)
        consumer.close()

    def commit(self, consumer, seen):
        offsets = [ck.TopicPartition(name_of(generation), number, offset) for (generation, number), offset in seen.items()]
        # Refused or unanswered, it is nothing that anybody may rely on.
        with contextlib.suppress(ck.KafkaException):
            for done in consumer.commit(offsets=offsets, asynchronous=False):
                partition = (f"{done.topic}#0", done.partition)
                if done.error is None and partition in self.sessions:
                    self.history.commit(self.group, partition, done.offset)

    def assigned(self, consumer, partitions):
        started = {}
        # What the group committed, as it is told: where this member begins.
        with contextlib.suppress(ck.KafkaException):
            started = {(t.topic, t.partition): t.offset for t in consumer.committed(partitions, 30) if t.error is None}
        for one in partitions:
            partition, offset = (f"{one.topic}#0", one.partition), started.get((one.topic, one.partition))
            if offset is not None:
                offset = max(offset, 0)
                self.history.commit(self.group, partition, offset, "fetch")
            self.sessions[partition] = self.history.begin(self.group, partition, offset)

    def revoked(self, _consumer, partitions):
        for one in partitions:
            self.sessions.pop((f"{one.topic}#0", one.partition), None)


class Churn(Client):
    """Creates a topic, fills it, reads it, deletes it, and begins anew under the same name."""

    def work(self):
        life = 0
        while not self.stopping.is_set():
            generation = f"churn#{life}"
            self.until({None, ck.KafkaError.TOPIC_ALREADY_EXISTS}, lambda admin: admin.create_topics([NewTopic("churn", 2, 1)], request_timeout=60))
            self.fill(generation)
            for number in range(2):
                self.history.finish((generation, number), read_all(self.bootstrap, generation, number))
            self.until({None, *GONE}, lambda admin: admin.delete_topics(["churn"], request_timeout=60))
            life += 1
        self.lives = life

    def until(self, wanted, ask):
        """A broker may die with a change half done or its answer unsent, so it is asked again."""
        deadline = time.monotonic() + 120
        while True:
            admin, told = AdminClient(CLIENT | {"bootstrap.servers": self.bootstrap}), None
            try:
                ask(admin)["churn"].result()
            except ck.KafkaException as error:
                told = error.args[0].code()
            if told in wanted:
                return
            assert time.monotonic() < deadline, f"churn: {told}"
            time.sleep(0.1)

    def fill(self, generation):
        producer = ck.Producer(PRODUCER | {"bootstrap.servers": self.bootstrap, "topic.metadata.refresh.interval.ms": 200})
        writer = f"c{generation}".replace("#", "-")

        def delivered(one):
            def report(error, message):
                if error is None:
                    self.history.acknowledge((generation, one.partition), message.offset(), one)

            return report

        for sequence in range(200):
            one = Value(generation, writer, sequence % 2, sequence)
            self.history.send(one)
            producer.produce("churn", one.encode(), partition=one.partition, on_delivery=delivered(one))
        assert producer.flush(150) == 0, "churn: records were never acknowledged"


def read_all(bootstrap, generation, number, seconds=120):
    """Every record of a partition from its beginning to the high watermark, as a plain reader is told."""
    reader = ck.Consumer(CLIENT | {"bootstrap.servers": bootstrap, "group.id": "reader", "auto.offset.reset": "error", "check.crcs": True})
    deadline, found, high = time.monotonic() + seconds, [], None
    at = ck.TopicPartition(name_of(generation), number, 0)
    try:
        while high is None:
            assert time.monotonic() < deadline, f"{generation}-{number} does not answer"
            with contextlib.suppress(ck.KafkaException):
                low, high = reader.get_watermark_offsets(at, 5)
                assert low == 0, f"{generation}-{number} begins at {low}"
        reader.assign([at])
        while (found[-1][0] + 1 if found else 0) < high:
            assert time.monotonic() < deadline, f"{generation}-{number}: {len(found)} of {high} records read"
            for message in reader.consume(2_000, 0.2):
                if message.error() is None:
                    found.append((message.offset(), Value.decode(message.value())))
                    # How long it takes is the machine's; that it goes on is the broker's.
                    deadline = time.monotonic() + seconds
    finally:
        reader.close()
    return found


class Trouble:
    """What happens to the broker and its bucket, one thing after the other, by chance."""

    def __init__(self, broker, s3, seed):
        self.broker, self.s3, self.chance, self.done = broker, s3, random.Random(seed), []

    def next(self):
        act = self.chance.choice([self.kill, self.kill, self.stop_and_continue, self.outage, self.members, self.members])
        self.done.append(act.__name__)
        act()

    def kill(self):
        self.broker.kill()
        self.broker.settings["shards"] = self.chance.randrange(1, 5)
        self.broker.settings["wal.sync"] = self.chance.choice(["fdatasync", "dsync"])
        self.broker.start()

    def stop_and_continue(self):
        self.broker.process.send_signal(signal.SIGSTOP)
        # Beyond the sessions of the groups, or not.
        time.sleep(self.chance.choice([1, 3, 9]))
        self.broker.process.send_signal(signal.SIGCONT)

    def outage(self):
        self.s3.faults.set(self.chance.choice(["down", "slow", "error", "hang"]))
        time.sleep(self.chance.choice([1, 4]))
        if self.chance.random() < 0.5:
            self.kill()
        self.s3.faults.set("ok")

    def members(self):
        """One goes, another comes; `replace` is set by whoever has them."""
        self.replace(self.chance)


class Scene:
    """Everybody at work on a started broker, until `stop`."""

    def __init__(self, broker):
        self.broker, self.history = broker, History()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        for created in admin.create_topics([NewTopic(name_of(t), PARTITIONS, 1) for t in TOPICS]).values():
            created.result(30)
        self.writers = [Writer(broker.bootstrap, self.history, n) for n in range(3)]
        self.groups = [Member(broker.bootstrap, self.history, group) for group in ("g0", "g0", "g1", "g1")]
        self.churn = Churn(broker.bootstrap, self.history)

    def replace(self, chance):
        """A member of a group goes, another comes."""
        at = chance.randrange(len(self.groups))
        self.groups[at].stop()
        self.groups[at] = Member(self.broker.bootstrap, self.history, self.groups[at].group)

    def check(self):
        assert not [c.failure for c in (*self.writers, *self.groups, self.churn) if c.failure]

    def stop(self):
        """The producers end; then the groups see everything, and everything is read."""
        for client in (self.churn, *self.writers):
            client.stop()
        finish(self.broker, self.history, self.groups)

    def __str__(self):
        history = self.history
        return (
            f"{len(history.acknowledged)} records acknowledged, {sum(map(len, history.polls.values()))} polled in "
            f"{len(history.sessions)} sessions, {sum(map(len, history.commits.values()))} commits, {getattr(self.churn, 'lives', 0)} lives of a topic"
        )


HISTORY = SETTINGS | {"wal.capacity.bytes": 512 << 20, "offsets.topic.num.partitions": 8}


@pytest.mark.timeout(3_600)
def test_no_anomaly_under_faults(pytestconfig, s3):
    # Two where nothing is asked for: the crash part waits beside others anyway.
    minutes, seed = max(2, pytestconfig.getoption("--minutes")), random.randrange(1 << 32)
    with brokers.Faulty(HISTORY | s3.settings("history")) as broker:
        scene, trouble = Scene(broker), Trouble(broker, s3, seed)
        trouble.replace = scene.replace
        end = time.monotonic() + minutes * 60
        try:
            while time.monotonic() < end:
                time.sleep(trouble.chance.uniform(1, 4))
                trouble.next()
                scene.check()
            scene.stop()
        finally:
            print(f"seed {seed}: {scene}, {[(n, trouble.done.count(n)) for n in sorted(set(trouble.done))]}", flush=True)


@pytest.mark.parametrize("lie, found", {"append-answered=100:lie": "reused offset: ", "offset-fetched=1:lie": "commit lost: "}.items())
def test_a_broker_that_lies_is_found_out(faulty, lie, found):
    """Once, among thousands of answers, it tells one client what is not so; what the clients remember shows it."""
    broker = faulty(HISTORY, "--failpoint", lie)
    scene, chance = Scene(broker.start()), random.Random(1)
    deadline = time.monotonic() + 60
    while ": Lie" not in broker.fresh_log():
        assert time.monotonic() < deadline, "it does not lie"
        # Whoever comes asks for what was committed.
        scene.replace(chance)
    with pytest.raises(AssertionError, match=found) as told:
        scene.stop()
    print(f"{scene}; {str(told.value)[:300]}", flush=True)


def finish(broker, history, groups):
    """The groups see everything; then everything is read, from ring and objects, and again from objects alone."""
    for topic in TOPICS:
        for number in range(PARTITIONS):
            history.finish((topic, number), read_all(broker.bootstrap, topic, number))
    deadline = time.monotonic() + 90
    while [a for a in anomalies(history) if a.startswith("unseen")] and time.monotonic() < deadline:
        time.sleep(1)
    for member in groups:
        member.stop()
    found = anomalies(history)
    assert not found, f"{len(found)} anomalies:\n" + "\n".join(found[:50])
    broker.stop()
    broker.remove_wal()
    broker.start()
    for topic in TOPICS:
        for number in range(PARTITIONS):
            assert read_all(broker.bootstrap, topic, number) == history.final[topic, number], f"{topic}-{number} differs without the log"
    broker.stop()
