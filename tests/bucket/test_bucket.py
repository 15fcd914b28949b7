"""The bucket is enough: a broker that lost its data directory serves what was committed, at its offsets, and no more."""

import random
import shutil
import subprocess

import brokers
import metrics
import pytest
from scene import (
    Scene,
    admin,
    delete_records,
    elsewhere,
    in_an_object,
    lose,
    name,
    snapshot_of_everything,
    thalweg,
    uploaded,
)
from test_librdkafka import create
from waiting import until
from wire import Connection, Part, batch, batches_in

NEVER_MS = 3_600_000


@pytest.fixture(params=["directory", "s3"])
def store(request, tmp_path_factory):
    """Settings of a bucket that outlives the broker's directory."""
    if request.param == "s3":
        yield request.getfixturevalue("s3").settings("rebuilt")
        return
    path = brokers.work_directory("bucket")
    yield {"object.store.url": f"file://{path}"}
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def directory():
    path = brokers.work_directory("orphaned")
    yield path
    shutil.rmtree(path, ignore_errors=True)


SETTINGS = {
    "wal.capacity.bytes": 64 << 20,
    "object.upload.interval.ms": 200,
    "log.retention.check.interval.ms": 200,
    "offsets.topic.num.partitions": 7,
}


def refused(broker, text):
    """A start that ends with code 2 and says so."""
    with pytest.raises(brokers.BrokerFailed) as why:
        broker.start()
    assert "ended with 2" in str(why.value) and text in str(why.value), why.value


def sound(broker):
    told = thalweg(broker, "metadata", "verify")["verified"]
    assert told["problems"] == [] and told["objects"] > 0 and told["blocks"] > 0, told
    return told


@pytest.mark.timeout(600)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_lost_data_directory(store, end, directory):
    """After a clean stop the bucket has everything; after kill -9, with the log's slices drained."""
    scene = Scene()
    # No snapshot by the clock: what comes after the last change of topics has to be found in the objects themselves.
    with brokers.Thalweg(SETTINGS | store | {"metadata.snapshot.interval.ms": NEVER_MS}) as broker:
        scene.begin(broker)
        scene.create(broker, name(49), 3)
        uploaded(broker)
        # The last change of topics is in a snapshot after some seconds.
        before = metrics.total(metrics.read(broker), "thalweg_metadata_snapshots_total")
        create(broker, "short-lived", 1)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_metadata_snapshots_total") > before, 30)
        admin(broker).delete_topics(["short-lived"])["short-lived"].result(30)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_metadata_snapshots_total") > before + 1, 30)
        for step in range(3, 6):
            scene.everywhere(broker, 1)
            scene.commit(broker, step)
            uploaded(broker)
        scene.everywhere(broker, 1)
        if end == "stop":
            broker.stop()
        else:
            broker.kill()
        lose(broker, directory / "wal" if end == "kill" else None)
        fresh = elsewhere(broker)
        try:
            refused(fresh, "thalweg metadata rebuild")
            rebuilt = thalweg(fresh, "metadata", "rebuild")["rebuilt"]
            print(rebuilt, flush=True)
            if end == "kill":
                assert rebuilt["tail_objects"] > 0, "objects after the snapshot are found"
                drained = thalweg(fresh, "wal", "drain", str(directory / "wal"))["drained"]
                print(drained, flush=True)
                assert drained["slices"] == 2 and not drained["unknown_topics"]
                again = thalweg(fresh, "wal", "drain", str(directory / "wal"))["drained"]
                assert again["batches"] == 0, "it is in objects now"
            assert not sound(fresh)["orphans"] or end == "kill"
            fresh.start()
            scene.check(fresh)
            # And it goes on.
            scene.everywhere(fresh, 1)
            uploaded(fresh)
            fresh.stop()
            fresh.remove_wal()
            fresh.start()
            scene.check(fresh)
            fresh.stop()
            sound(fresh)
        finally:
            fresh.remove()


def damaged(metadata, how):
    db = metadata / "db"
    content = bytearray(db.read_bytes())
    if how == "flipped":
        for at in random.Random(3).sample(range(len(content)), len(content) // 20):
            content[at] ^= 0x5A
        db.write_bytes(content)
    elif how == "truncated":
        db.write_bytes(content[:4096])
    elif how == "empty":
        db.write_bytes(b"")
    elif how == "no file":
        db.unlink()
    else:
        shutil.rmtree(metadata)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "no file", "no directory"])
def test_damaged_metadata_is_rebuilt_by_the_start(store, how):
    """After kill -9, with records in the log that no object has; what was there is moved aside. A setting forbids it."""
    scene = Scene()
    with brokers.Thalweg(SETTINGS | store | {"metadata.snapshot.interval.ms": 1000}) as broker:
        for n in range(6):
            scene.create(broker, name(n), 1 + n % 3)
        for n in range(10, 16):
            scene.create(broker, name(n), 1)
        scene.everywhere(broker, 2)
        scene.commit(broker, 1)
        uploaded(broker)
        snapshot_of_everything(broker)
        scene.everywhere(broker, 2)
        uploaded(broker)
        broker.settings["object.upload.interval.ms"] = NEVER_MS
        broker.stop()
        broker.start()
        snapshot_of_everything(broker)
        scene.everywhere(broker, 1)
        broker.kill()
        damaged(broker.data / "metadata", how)
        broker.settings["auto.metadata.rebuild.enable"] = "false"
        refused(broker, "not of this broker" if how == "no directory" else "is damaged")
        del broker.settings["auto.metadata.rebuild.enable"]
        broker.start()
        assert "THE METADATA IS DAMAGED OR LOST" in broker.fresh_log()
        assert (broker.data / "metadata.aside-1").exists() == (how != "no directory")
        scene.check(broker)
        scene.everywhere(broker, 1)
        broker.stop()
        broker.start()
        assert "REBUILT" not in broker.fresh_log().upper()
        scene.check(broker)
        broker.stop()
        sound(broker)


def data_objects(broker):
    told = thalweg(broker, "metadata", "verify")["verified"]
    return told["objects"] + told["garbage"] + len(told["orphans"])


def test_a_deleted_topic_leaves_nothing_in_the_bucket(store):
    settings = SETTINGS | store | {"metadata.snapshot.interval.ms": 100, "object.split.bytes": 65_536}
    with brokers.Thalweg(settings) as broker:
        # The batches' time is long ago.
        create(broker, "gone", 4, retention_ms=-1)
        create(broker, "shared", 4, retention_ms=-1)
        with Connection(broker.bootstrap) as wire:
            for index in range(4):
                wire.produce("gone", index, batch([b"x" * 100_000]))
                wire.produce("gone", index, batch([b"y"]))
                wire.produce("shared", index, batch([b"z"]))
        # Without a snapshot there is nothing to verify.
        snapshot_of_everything(broker)
        until(lambda: data_objects(broker) > 0, "something is uploaded")
        admin(broker).delete_topics(["gone"])["gone"].result(30)
        admin(broker).delete_topics(["shared"])["shared"].result(30)
        # Records that were under way to the bucket go as well.
        until(lambda: data_objects(broker) == 0, "the bucket is empty", 60)
        broker.stop()


def test_what_retention_dropped_leaves_the_bucket(store):
    settings = SETTINGS | store | {"metadata.snapshot.interval.ms": 100, "shards": 1}
    with brokers.Thalweg(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1, retention_bytes=1_000, retention_ms=-1)
        for _ in range(3):
            in_an_object(broker, wire, "t", 0, batch([b"x" * 2_000]))
        snapshot_of_everything(broker)
        until(lambda: data_objects(broker) <= 1, "one object is left at most")
        part = wire.fetch([Part("t", 0, 3)]).parts["t", 0]
        assert (part.error, part.high_watermark) == (0, 3)
        broker.stop()


def test_what_delete_records_dropped_leaves_the_bucket(store):
    """Nothing else drops anything. Where the log start lies within an object, that stays, and serves what is left of it."""
    settings = SETTINGS | store | {"metadata.snapshot.interval.ms": 100, "shards": 1, "object.compaction.enable": "false"}
    with brokers.Thalweg(settings) as broker, Connection(broker.bootstrap) as wire:
        create(broker, "t", 1, retention_ms=-1)
        for _ in range(3):
            in_an_object(broker, wire, "t", 0, batch([b"x" * 2_000, b"y"]))
        snapshot_of_everything(broker)
        assert data_objects(broker) == 3
        for before, left in [(3, 2), (4, 1), (6, 0)]:
            delete_records(broker, "t", 0, before)
            until(lambda left=left: data_objects(broker) == left, f"{left} objects are left")
            part = wire.fetch([Part("t", 0, before)], max_wait_ms=10_000).parts["t", 0]
            assert (part.error, part.log_start, part.high_watermark) == (0, before, 6)
            assert [base for base, _, _ in batches_in(part.records)] == [base for base in (2, 4) if base + 1 >= before]
        now = metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_garbage_deleted_total") == 3)
        assert metrics.total(now, "thalweg_garbage_objects") == 0
        # The bucket alone knows as much.
        broker.stop()
        shutil.rmtree(broker.data)
        assert thalweg(broker, "metadata", "rebuild")["rebuilt"]
        broker.start()
        with Connection(broker.bootstrap) as again:
            part = again.fetch([Part("t", 0, 6)]).parts["t", 0]
            assert (part.error, part.log_start, part.high_watermark) == (0, 6, 6)
        broker.stop()


def test_verify_finds_damage_and_orphans(directory):
    bucket = directory / "objects"
    with brokers.Thalweg(SETTINGS | {"object.store.url": f"file://{bucket}", "shards": 1}) as broker:
        create(broker, "t", 2, retention_ms=-1)
        with Connection(broker.bootstrap) as wire:
            for n in range(3):
                in_an_object(broker, wire, "t", n % 2, batch([b"%d" % n * 5_000]))
        broker.stop()
        objects = sorted(path for path in bucket.glob("data/*/*") if path.is_file())
        assert len(objects) == 3 and not sound(broker)["orphans"]
        whole = [path.read_bytes() for path in objects]

        def problems(*more):
            command = [broker.binary, "metadata", "verify", "--json", *more]
            sets = [word for key, value in broker.settings.items() for word in ("--set", f"{key}={value}")]
            run = subprocess.run([*command, *sets], capture_output=True, text=True, timeout=60, env=broker.environment())
            return run.returncode, run.stdout

        objects[0].write_bytes(whole[0][:100] + bytes([whole[0][100] ^ 1]) + whole[0][101:])
        for more in ([], ["--local"]):
            code, told = problems(*more)
            assert code == 1 and str(objects[0].name) in told and "CRC" in told, told
        objects[0].write_bytes(whole[0] + b"more")
        assert problems()[0] == 1
        objects[0].unlink()
        code, told = problems()
        assert code == 1 and "missing" in told
        objects[0].write_bytes(whole[0])
        stray = objects[0].with_name("00000000000000ff-n1-e0")
        stray.write_bytes(b"stray")
        code, told = problems()
        assert code == 0 and stray.name in told
        stray.unlink()
        assert problems()[0] == 0
