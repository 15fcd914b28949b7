"""Every setting changes behaviour: a table says for each key by which test that is seen, on the real binary.

Most are seen by a probe: it asks a broker with the defaults and one with the value changed, and the two must answer differently.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import time

import brokers
import confluent_kafka as ck
import metrics
import pytest
from changed import bare, create_once, now_ms, stored
from confluent_kafka.admin import NewTopic
from test_librdkafka import admin, create
from wire import Connection, Part, batch, batches_in

API_VERSIONS, JOIN_GROUP, OFFSET_COMMIT = 18, 11, 8
# key: the tests that fail when its value changes nothing, `path::name`, Python's or Rust's
HERE = "tests/settings/test_settings.py::"
AUTHORIZER = "tests/clients/test_authorizer.py::"
MOVES = "tests/clients/test_moves.py::"
STORAGE = "tests/settings/test_settings_of_storage.py::"
ELSEWHERE = {
    "listeners": HERE + "test_every_listener_is_served_and_advertised",
    "max.connections": HERE + "test_connections_beyond_the_limits_are_closed",
    "max.connections.per.ip": HERE + "test_connections_beyond_the_limits_are_closed",
    "connections.max.idle.ms": HERE + "test_idle_connections_are_closed",
    "queued.max.request.bytes": HERE + "test_room_for_requests_and_answers",
    "queued.max.response.bytes": HERE + "test_room_for_requests_and_answers",
    "data.dir": HERE + "test_places",
    "shards": HERE + "test_places",
    "shards.balance.interval.ms": MOVES + "test_a_broker_is_evened_when_all_that_is_hot_lies_on_one_shard",
    "shards.balance.threshold.percent": MOVES + "test_a_broker_is_evened_when_all_that_is_hot_lies_on_one_shard",
    "shards.balance.cooldown.ms": MOVES + "test_what_moved_rests",
    "wal.path": HERE + "test_places",
    "wal.capacity.bytes": HERE + "test_places",
    "wal.sync": HERE + "test_places",
    "object.store.url": HERE + "test_places",
    "object.store.s3.engine": STORAGE + "test_the_library_that_speaks_to_s3",
    "default.replication.factor": HERE + "test_one_replica_is_the_only_default",
    "shutdown.timeout.ms": "tests/settings/test_signals.py::test_a_stop_waits_for_the_store_as_long_as_it_is_told",
    "wal.allow.tmpfs": "tests/settings/test_refusals.py::test_a_log_in_memory",
    "log.retention.ms": STORAGE + "test_retention",
    "log.retention.bytes": STORAGE + "test_retention",
    "log.retention.check.interval.ms": STORAGE + "test_retention",
    "log.cleanup.policy": STORAGE + "test_cleanup_policy",
    "log.cleaner.enable": STORAGE + "test_when_logs_are_cleaned",
    "log.cleaner.backoff.ms": STORAGE + "test_how_often_logs_are_cleaned",
    "log.cleaner.dedupe.buffer.size": STORAGE + "test_when_logs_are_cleaned",
    "log.cleaner.io.buffer.load.factor": STORAGE + "test_when_logs_are_cleaned",
    "log.cleaner.min.cleanable.ratio": STORAGE + "test_when_logs_are_cleaned",
    "log.cleaner.min.compaction.lag.ms": STORAGE + "test_when_logs_are_cleaned",
    "log.cleaner.max.compaction.lag.ms": STORAGE + "test_when_logs_are_cleaned",
    "log.cleaner.delete.retention.ms": STORAGE + "test_how_long_tombstones_stay",
    "producer.id.expiration.ms": STORAGE + "test_a_producer_is_forgotten",
    "compression.gzip.level": STORAGE + "test_levels",
    "compression.lz4.level": STORAGE + "test_levels",
    "compression.zstd.level": STORAGE + "test_levels",
    # A real broker looks for expired offsets every ten minutes.
    "offsets.retention.minutes": "src/coordinator/group/tests/keeping.rs::offsets_are_kept_as_long_as_the_setting_says",
    "wal.max.group.bytes": STORAGE + "test_the_size_of_groups",
    "wal.max.iops": STORAGE + "test_the_pace_of_the_log",
    "wal.max.bytes.per.second": STORAGE + "test_the_pace_of_the_log",
    "object.upload.bytes": STORAGE + "test_when_uploads_begin",
    "object.upload.interval.ms": STORAGE + "test_when_uploads_begin",
    "object.split.bytes": STORAGE + "test_how_objects_are_cut",
    "object.block.bytes": STORAGE + "test_how_objects_are_cut",
    "object.compaction.enable": STORAGE + "test_when_objects_are_compacted",
    "object.compaction.interval.ms": STORAGE + "test_when_objects_are_compacted",
    "object.compaction.objects": STORAGE + "test_when_objects_are_compacted",
    "object.compaction.bytes.per.second": STORAGE + "test_how_fast_objects_are_compacted",
    "object.compaction.bytes": STORAGE + "test_when_objects_are_compacted",
    "object.compaction.split.bytes": STORAGE + "test_when_objects_are_compacted",
    "metadata.partition.entries.max": STORAGE + "test_when_entries_go_to_manifests",
    "metadata.snapshot.interval.ms": STORAGE + "test_metadata_snapshots",
    "metadata.ballast.bytes": STORAGE + "test_the_ballast",
    "auto.metadata.rebuild.enable": "tests/bucket/test_bucket.py::test_damaged_metadata_is_rebuilt_by_the_start",
    "authorizer.class.name": AUTHORIZER + "test_each_request_wants_its_rules",
    "super.users": AUTHORIZER + "test_rules_and_credentials_survive",
    "allow.everyone.if.no.acl.found": AUTHORIZER + "test_without_rules_the_setting_decides",
    "cache.tail.bytes": STORAGE + "test_newest_records_are_in_memory",
    "cache.read.bytes": STORAGE + "test_what_was_read_from_objects_is_in_memory",
}


# ---- Asking by hand -------------------------------------------------------------------------------------------------


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def served(connection):
    """Whether a request on it is answered; `False` when the broker has closed it."""
    try:
        connection.receive(connection.send(API_VERSIONS, 0, b"", False), False)
    except (ConnectionError, BrokenPipeError):
        return False
    return True


def ask_join(wire, group, session_timeout_ms=30_000, member=""):
    body = text(group) + struct.pack(">ii", session_timeout_ms, 60_000) + text(member) + text("consumer")
    return wire.send(JOIN_GROUP, 2, body + struct.pack(">i", 1) + text("range") + struct.pack(">i", 0), False)


def joined(wire, number):
    """The error and the member id of an answered join."""
    reader = wire.receive(number, False)
    reader.number("i")
    error, _ = reader.number("h"), reader.number("i")
    _protocol, _leader, member = (reader.take(reader.number("h")).decode() for _ in range(3))
    return error, member


def join(broker, group, session_timeout_ms):
    """The error of a join; the coordinator may have to be loaded first."""
    with Connection(broker.bootstrap) as wire:
        deadline = time.monotonic() + 30
        while True:
            error, member = joined(wire, ask_join(wire, group, session_timeout_ms))
            if error not in (14, 15, 16):
                return error, member
            assert time.monotonic() < deadline, f"no coordinator: {error}"


def commit(broker, metadata):
    """The error of a commit without a group's members."""
    create_once(broker, "committed")
    body = text("committer") + struct.pack(">i", -1) + text("") + struct.pack(">q", -1)
    body += struct.pack(">i", 1) + text("committed") + struct.pack(">iiq", 1, 0, 0) + text(metadata)
    deadline = time.monotonic() + 30
    while True:
        with Connection(broker.bootstrap) as wire:
            reader = wire.receive(wire.send(OFFSET_COMMIT, 2, body, False), False)
        error = struct.unpack(">h", reader.data[-2:])[0]
        if error not in (14, 15, 16):
            return error
        assert time.monotonic() < deadline, f"no coordinator: {error}"


def code_of(future):
    """The error code that an administrator's request ends with; 0 when it is done."""
    try:
        future.result(30)
        return 0
    except ck.KafkaException as error:
        return error.args[0].code()


def metadata(broker, topic=None):
    return admin(broker).list_topics(topic, timeout=30)


def log_lines(broker):
    return [line for line in broker.fresh_log().splitlines() if line and not line.startswith("ready: ")]


# ---- Probes: what one broker answers --------------------------------------------------------------------------------


def two_members(broker):
    """The error of a group's second member."""
    with Connection(broker.bootstrap) as one, Connection(broker.bootstrap) as two:
        error, member = join(broker, "pair", 30_000)
        assert error == 0
        second = ask_join(two, "pair")
        # The first comes again, for the second waits for it.
        ask_join(one, "pair", member=member)
        return joined(two, second)[0]


def long_request(broker, length=70_000):
    """Whether a request of that length is answered."""
    with Connection(broker.bootstrap) as wire:
        create_once(broker, "long")
        # The last field, records, may have any length: they are refused, not the request.
        try:
            wire.try_produce("long", 0, bytes(length))
        except ConnectionError:
            return False
        return True


def timed_batch(broker, offset_ms):
    create_once(broker, "timed")
    with Connection(broker.bootstrap) as wire:
        return wire.try_produce("timed", 0, batch([b"x"], now_ms() + offset_ms))


def large_batch(broker):
    create_once(broker, "large")
    with Connection(broker.bootstrap) as wire:
        return wire.try_produce("large", 0, batch([b"x" * 30_000]))


def fetched_batches(broker):
    """How many of ten batches come in one fetch."""
    create_once(broker, "many")
    with Connection(broker.bootstrap) as wire:
        if wire.fetch([Part("many", 0, 0)]).parts["many", 0].high_watermark <= 0:
            for _ in range(10):
                wire.produce("many", 0, batch([os.urandom(500)]))
        return len(batches_in(wire.fetch([Part("many", 0, 0)]).parts["many", 0].records))


def session_opened(broker):
    create_once(broker, "session")
    with Connection(broker.bootstrap) as wire:
        return wire.fetch([Part("session", 0, 0)], epoch=0).session > 0


def partitions_of_offsets(broker):
    commit(broker, "")
    return len(metadata(broker, "__consumer_offsets").topics["__consumer_offsets"].partitions)


def first_join_waits(broker):
    """Whether the first member of an empty group waits for others for two seconds."""
    join(broker, "warm", 30_000)
    began = time.monotonic()
    assert join(broker, "alone", 30_000)[0] == 0
    return time.monotonic() - began >= 2


def partitions_by_default(broker):
    admin(broker).create_topics([NewTopic("counted", -1, -1)])["counted"].result(30)
    return len(metadata(broker, "counted").topics["counted"].partitions)


def unknown_topic(broker):
    """Whether a topic that a producer asks for comes to be."""
    # librdkafka asks again until then.
    patience = {"topic.metadata.propagation.max.ms": 3_000}
    client = ck.Producer({"bootstrap.servers": broker.bootstrap, "log_level": 2} | patience)
    outcomes = []
    client.produce("on-demand", b"x", on_delivery=lambda error, _message: outcomes.append(error))
    client.flush(40)
    return outcomes[0] is None


def deleted(broker):
    create_once(broker, "doomed")
    return code_of(admin(broker).delete_topics(["doomed"])["doomed"])


def only_broker(broker):
    return next(iter(metadata(broker).brokers.values()))


def all_json(broker):
    lines = log_lines(broker)
    assert lines, "nothing was logged"
    with contextlib.suppress(ValueError):
        return all(json.loads(line)["level"] for line in lines)
    return False


# Where a key has the same broker as others, they do not disturb each other.
NARROW = {
    "node.id": 7,
    "broker.rack": "r1",
    "max.incremental.fetch.session.cache.slots": 0,
    "socket.request.max.bytes": 65_536,
    "message.max.bytes": 20_000,
    "log.message.timestamp.before.max.ms": 60_000,
    "log.message.timestamp.after.max.ms": 10_800_000,
    "num.partitions": 3,
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "false",
    "replication.factor.check": "strict",
    "group.min.session.timeout.ms": 10_000,
    "group.max.session.timeout.ms": 30_000,
    "group.max.size": 1,
    "offsets.topic.num.partitions": 3,
    "offset.metadata.max.bytes": 12,
    "log.format": "json",
}
OTHER = {
    "http.listen": "",
    "log.message.timestamp.type": "LogAppendTime",
    "compression.type": "gzip",
    "fetch.max.bytes": 1_024,
    "group.initial.rebalance.delay.ms": 2_000,
    "log.level": "warn",
}
HOUR_MS = 3_600_000
# key: (what is asked, the answer by default, the answer with the value of NARROW or OTHER)
PROBES = {
    "node.id": (lambda b: only_broker(b).id, 1, 7),
    "broker.rack": (lambda b: admin(b).describe_cluster().result(30).nodes[0].rack, None, "r1"),
    "advertised.listeners": (lambda b: only_broker(b).host, "127.0.0.1", "localhost"),
    "max.incremental.fetch.session.cache.slots": (session_opened, True, False),
    "socket.request.max.bytes": (long_request, True, False),
    "message.max.bytes": (large_batch, 0, 10),
    "log.message.timestamp.before.max.ms": (lambda b: timed_batch(b, -HOUR_MS), 0, 32),
    "log.message.timestamp.after.max.ms": (lambda b: timed_batch(b, 2 * HOUR_MS), 32, 0),
    "num.partitions": (partitions_by_default, 1, 3),
    "auto.create.topics.enable": (unknown_topic, True, False),
    "delete.topic.enable": (deleted, 0, ck.KafkaError.TOPIC_DELETION_DISABLED),
    "replication.factor.check": (
        lambda b: code_of(admin(b).create_topics([NewTopic("threefold", 1, 3)])["threefold"]), 0, ck.KafkaError.INVALID_REPLICATION_FACTOR
    ),
    "group.min.session.timeout.ms": (lambda b: join(b, "brief", 8_000)[0], 0, 26),
    "group.max.session.timeout.ms": (lambda b: join(b, "long", 40_000)[0], 0, 26),
    "group.max.size": (two_members, 0, 81),
    "offsets.topic.num.partitions": (partitions_of_offsets, 50, 3),
    "offset.metadata.max.bytes": (lambda b: commit(b, "x" * 13), 0, 12),
    "log.format": (all_json, False, True),
    "http.listen": (lambda b: "http=off" in b.ready_line, False, True),
    # Bits 0 to 2 of a batch's attributes are its codec, bit 3 says whose timestamps it has.
    "log.message.timestamp.type": (lambda b: stored(b, "whose", batch([b"x"]))[22] & 8, 0, 8),
    "compression.type": (lambda b: stored(b, "codec", batch([b"x" * 1000]))[22] & 7, 0, 1),
    "fetch.max.bytes": (fetched_batches, 10, 1),
    "group.initial.rebalance.delay.ms": (first_join_waits, False, True),
    "log.level": (lambda b: any(" INFO " in line for line in log_lines(b)), True, False),
}


@pytest.fixture(scope="module")
def by_default():
    with bare() as broker:
        yield broker


@pytest.fixture(scope="module")
def narrow():
    broker = bare(NARROW)
    broker.settings["advertised.listeners"] = f"localhost:{broker.kafka_port}"
    with broker:
        yield broker


@pytest.fixture(scope="module")
def other():
    with bare(OTHER) as broker:
        yield broker


@pytest.mark.parametrize("key", PROBES)
def test_one_answer_changes(key, by_default, narrow, other):
    probe, default, changed = PROBES[key]
    assert probe(by_default) == default, f"{key} by default"
    assert probe(other if key in OTHER else narrow) == changed, f"{key} changed"


# ---- Places ---------------------------------------------------------------------------------------------------------


def test_places():
    """Data, log and objects lie where they are told to, and nowhere else; the log has the size, the files and the way of syncing."""
    plain = bare()
    # Where no setting says anything, it is below the working directory.
    del plain.settings["data.dir"]
    del plain.settings["shards"]
    del plain.settings["wal.capacity.bytes"]
    told = bare({"shards": 3, "wal.sync": "fdatasync", "wal.capacity.bytes": 96 << 20})
    told.settings |= {"wal.path": told.directory / "log", "object.store.url": f"file://{told.directory}/bucket"}
    with plain, told:
        found = {
            name: {str(path.relative_to(broker.directory)) for path in broker.directory.glob("*/*")} | set(os.listdir(broker.directory))
            for name, broker in (("plain", plain), ("told", told))
        }
        assert {"thalweg-data", "thalweg-data/wal", "thalweg-data/objects", "thalweg-data/metadata"} <= found["plain"], found
        assert {"data", "log", "bucket", "data/metadata"} <= found["told"], found
        assert not {"data", "log", "bucket"} & found["plain"] and not {"thalweg-data", "data/wal", "data/objects"} & found["told"], found

        cores = len(os.sched_getaffinity(0))
        for broker, directory, shards, capacity, dsync in [
            (plain, "thalweg-data/wal", cores, 4 << 30, True), (told, "log", 3, 96 << 20, False)
        ]:
            assert f" shards={shards} " in broker.ready_line
            slices = list((broker.directory / directory).glob("*.wal"))
            # Each has two superblocks, and its share is in whole blocks.
            size = sum(path.stat().st_size for path in slices) - len(slices) * 8192
            assert len(slices) == shards and capacity - shards * 4096 < size <= capacity
            metrics.wait_until(broker, lambda now, size=size: metrics.total(now, "thalweg_wal_capacity_bytes") == size)
            assert synced_by_open(broker, slices) == dsync
        plain.stop()
        told.stop()


def synced_by_open(broker, slices):
    """Whether the process has its slices open with O_DSYNC."""
    descriptors = pathlib.Path(f"/proc/{broker.process.pid}/fd")
    flags = set()
    for descriptor in descriptors.iterdir():
        with contextlib.suppress(OSError):
            if pathlib.Path(os.readlink(descriptor)) in slices:
                info = pathlib.Path(f"/proc/{broker.process.pid}/fdinfo/{descriptor.name}").read_text()
                flags.add(bool(int(re.search(r"flags:\s+(\d+)", info).group(1), 8) & os.O_DSYNC))
    assert len(flags) == 1, "no slice is open, or they differ"
    return flags.pop()


def test_every_listener_is_served_and_advertised():
    broker = bare()
    (second,) = brokers.free_ports(1)
    broker.settings["listeners"] = f"{broker.bootstrap},PLAINTEXT://127.0.0.1:{second}"
    broker.settings["advertised.listeners"] = f"localhost:{broker.kafka_port},127.0.0.1:{second}"
    with broker:
        for port, host in ((broker.kafka_port, "localhost"), (second, "127.0.0.1")):
            told = ck.Producer({"bootstrap.servers": f"127.0.0.1:{port}"}).list_topics(timeout=30).brokers[1]
            assert (told.host, told.port) == (host, port)
        broker.stop()


def test_one_replica_is_the_only_default():
    broker = bare({"default.replication.factor": 2})
    with pytest.raises(brokers.BrokerFailed, match="ended with 2 (.|\n)*default.replication.factor .*: 2 is out of range: 1 to 1"):
        broker.start()
    broker.settings["default.replication.factor"] = 1
    with broker:
        broker.stop()


# ---- Connections ----------------------------------------------------------------------------------------------------


def test_connections_beyond_the_limits_are_closed():
    """max.connections and max.connections.per.ip: loopback has many addresses."""
    with bare({"max.connections": 3, "max.connections.per.ip": 2}) as broker, contextlib.ExitStack() as stack:
        def outcomes(addresses):
            return [served(stack.enter_context(Connection(broker.bootstrap, source=address))) for address in addresses]

        assert outcomes(["127.0.0.1"] * 3) == [True, True, False], "max.connections.per.ip"
        assert outcomes(["127.0.0.2", "127.0.0.3"]) == [True, False], "max.connections"
        stack.close()
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_connections") == 0)
        assert outcomes(["127.0.0.1"]) == [True], "a connection that has ended counts no more"
        broker.stop()


def test_idle_connections_are_closed():
    with bare({"connections.max.idle.ms": 1_000}) as broker, Connection(broker.bootstrap) as wire:
        assert served(wire)
        began = time.monotonic()
        assert wire.socket.recv(1) == b"", "connections.max.idle.ms: it is closed"
        assert 0.5 < time.monotonic() - began < 20
        broker.stop()


EDGE = {"shards": 1, "socket.request.max.bytes": 1 << 20, "fetch.max.bytes": 1 << 20, "message.max.bytes": 900_000}
LITTLE = {"queued.max.request.bytes": 1 << 20, "queued.max.response.bytes": 1 << 20}


@pytest.mark.parametrize("limits", [{}, LITTLE], ids=["default", "little"])
def test_room_for_requests_and_answers(limits):
    """queued.max.request.bytes: who holds room for half a request has to go when others want it. queued.max.response.bytes: likewise who
    holds it with answers that nobody takes."""
    one = batch([b"x" * 800_000])
    with bare(EDGE | limits) as broker, contextlib.ExitStack() as stack:
        create(broker, "t", 1)
        half = stack.enter_context(Connection(broker.bootstrap))
        half.socket.sendall(struct.pack(">i", 900_000) + bytes(450_000))
        with Connection(broker.bootstrap) as wire:
            for _ in range(10):
                wire.produce("t", 0, one)
        assert gone(half, wait=15 if limits else 0) == bool(limits), "queued.max.request.bytes"

        greedy = stack.enter_context(Connection(broker.bootstrap))
        greedy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        for _ in range(60):
            greedy.ask_fetch([Part("t", 0, 0)])
        with Connection(broker.bootstrap) as wire:
            # Until the other's answers have filled its socket; then who takes none of them has to go.
            dropped = False
            deadline = time.monotonic() + (30 if limits else 2)
            while not dropped and time.monotonic() < deadline:
                wire.fetch([Part("t", 0, 0)])
                dropped = metrics.total(metrics.read(broker), "thalweg_connections_dropped_total") > bool(limits)
        assert dropped == bool(limits), "queued.max.response.bytes"
        broker.kill()


def gone(connection, wait=15):
    """Whether the broker has closed the connection, or does within `wait` seconds when it has nothing to say on it."""
    connection.socket.settimeout(wait or 0.001)
    try:
        return connection.socket.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


# ---- The table ------------------------------------------------------------------------------------------------------


def keys_of_the_binary():
    shown = subprocess.run([brokers.Thalweg.binary_path(), "print-config"], check=True, text=True, capture_output=True, cwd="/").stdout
    return set(re.findall(r'^"([a-z0-9.]+)" = ', shown, re.MULTILINE))


def keys_explained():
    explained = (brokers.REPOSITORY / "conf" / "thalweg.toml").read_text()
    return set(re.findall(r'^# "([a-z0-9.]+)" = ', explained, re.MULTILINE))


def test_every_setting_has_a_test_and_every_row_a_setting():
    rows = set(PROBES) | set(ELSEWHERE)
    assert not set(PROBES) & set(ELSEWHERE), "a key stands twice"
    assert set(PROBES) - {"advertised.listeners"} == set(NARROW) | set(OTHER)
    for where, keys in (("print-config", keys_of_the_binary()), ("conf/thalweg.toml", keys_explained())):
        assert not keys - rows, f"settings of {where} without a test: {sorted(keys - rows)}"
        assert not rows - keys, f"rows that are no settings of {where}: {sorted(rows - keys)}"


@pytest.mark.parametrize("key", ELSEWHERE)
def test_the_row_is_a_test_that_names_the_key(key):
    path, name = ELSEWHERE[key].split("::")
    source = (brokers.REPOSITORY / path).read_text()
    declared = rf"^def {name}\(" if path.endswith(".py") else rf"#\[test\]\n *fn {name}\("
    assert re.search(declared, source, re.MULTILINE), f"{path} has no test {name}"
    assert f'"{key}"' in source, f"{path} does not set {key}"
