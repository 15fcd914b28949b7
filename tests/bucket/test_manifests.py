"""Manifests: most entries of a partition are listed in the bucket, every record is read as before, and what is deleted goes."""

import brokers
import metrics
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec
from scene import Scene, admin, elsewhere, in_an_object, log_start, lose, name, snapshot_of_everything, thalweg, uploaded
from test_bucket import SETTINGS, data_objects, directory, sound, store  # noqa: F401 (fixtures)
from test_compaction import COMPACTING, filled
from test_fetch import delete_records
from test_librdkafka import create
from waiting import until
from wire import Connection, batch

FOLDING = {"metadata.partition.entries.max": 2}


def written(broker):
    return metrics.total(metrics.read(broker), "thalweg_manifests_written_total")


@pytest.mark.timeout(600)
def test_what_manifests_list_is_read_survives_and_goes(store):  # noqa: F811
    scene = Scene()
    with brokers.Thalweg(SETTINGS | store | COMPACTING | FOLDING | {"object.compaction.objects": 3}) as broker:
        for n in range(4):
            scene.create(broker, name(n), 1 + n % 2, retention_ms=-1)
        filled(broker, scene, 30)
        until(lambda: written(broker) >= 6, "older entries go to manifests", 60)
        topic = name(1)
        bases = sorted(scene.records[topic, 0])
        delete_records(broker, topic, 0, bases[4])
        scene.starts[topic, 0] = bases[4]
        scene.records[topic, 0] = {b: r for b, r in scene.records[topic, 0].items() if b >= bases[4]}
        scene.check(broker)
        broker.kill()
        broker.start()
        filled(broker, scene, 6)
        scene.check(broker)
        broker.stop()
        broker.remove_wal()
        broker.start()
        scene.check(broker)
        told = sound(broker)
        assert told["manifests"] > 0, told
        snapshot_of_everything(broker)
        broker.stop()
        assert sound(broker)["orphans"] == []
        lose(broker, None)
        fresh = elsewhere(broker)
        try:
            thalweg(fresh, "metadata", "rebuild")
            assert sound(fresh)["manifests"] > 0
            fresh.start()
            scene.check(fresh)
            for n in range(4):
                scene.delete(fresh, name(n))
            until(lambda: data_objects(fresh) == 0, "nothing is left, manifests included", 90)
            fresh.stop()
        finally:
            fresh.remove()


@pytest.mark.timeout(300)
def test_objects_alone_are_enough_and_a_damaged_manifest_is_named(directory):  # noqa: F811
    bucket = directory / "objects"
    scene = Scene()
    settings = SETTINGS | FOLDING | {"object.store.url": f"file://{bucket}", "shards": 1, "object.compaction.enable": "false"}
    with brokers.Thalweg(settings) as broker:
        scene.create(broker, name(0), 1, retention_ms=-1)
        filled(broker, scene, 12)
        until(lambda: written(broker) >= 4, "older entries go to manifests", 60)
        scene.check(broker)
        uploaded(broker)
        broker.stop()
        assert sound(broker)["manifests"] > 0
        manifest = sorted(path for path in bucket.glob("manifests/*/*") if path.is_file())[0]
        whole = manifest.read_bytes()
        for damaged in (whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], None):
            manifest.unlink() if damaged is None else manifest.write_bytes(damaged)
            with pytest.raises(AssertionError) as why:
                sound(broker)
            assert manifest.name in str(why.value)
        manifest.write_bytes(whole)
        sound(broker)
        for snapshot in bucket.glob("metadata/*"):
            snapshot.unlink()
        lose(broker, None)
        fresh = elsewhere(broker)
        try:
            thalweg(fresh, "metadata", "rebuild", "--without-snapshot")
            fresh.start()
            scene.check(fresh)
            fresh.stop()
        finally:
            fresh.remove()


def test_the_greatest_time_is_of_what_is_left(directory):  # noqa: F811
    """The manifest that the log start cuts has a greater time below it."""
    settings = SETTINGS | FOLDING | {"object.store.url": f"file://{directory / 'objects'}", "object.compaction.enable": "false"}
    with brokers.Thalweg(settings | {"shards": 1, "cache.tail.bytes": 1 << 20}) as broker:
        create(broker, "t", 1, retention_ms=-1)
        with Connection(broker.bootstrap) as wire:
            for n in range(8):
                in_an_object(broker, wire, "t", 0, batch([b"x" * 100], 2_000_000 if n == 0 else 1_000_000 - n))

        def offset(spec):
            partition = TopicPartition("t", 0)
            return admin(broker).list_offsets({partition: spec})[partition].result(30).offset

        until(lambda: written(broker) >= 2, "older entries go to manifests", 30)
        assert offset(OffsetSpec.max_timestamp()) == 0
        assert offset(OffsetSpec.for_timestamp(1_000_000)) == 0
        delete_records(broker, "t", 0, 1)
        until(lambda: log_start(broker, "t", 0) == 1, "the log start moves")
        assert offset(OffsetSpec.max_timestamp()) == 1
        assert offset(OffsetSpec.for_timestamp(999_995)) == 1
        broker.stop()
