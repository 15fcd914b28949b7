"""Compaction: many small objects become few, every record is read back as it was, and the small objects go."""

import brokers
import metrics
import pytest
from scene import Scene, elsewhere, lose, name, snapshot_of_everything, thalweg, uploaded
from test_bucket import SETTINGS, data_objects, sound, store  # noqa: F401 (a fixture)
from waiting import until

ROUNDS = 24
COMPACTING = {
    "object.compaction.enable": "true",
    "shards": 2,
    "metadata.snapshot.interval.ms": 200,
    "object.compaction.interval.ms": 100,
    "object.compaction.objects": 6,
    "object.compaction.bytes": 65_536,
    "object.compaction.split.bytes": 65_536,
}


def made(broker, kind):
    return metrics.total(metrics.read(broker), "thalweg_compaction_objects_total", kind=kind)


def filled(broker, scene, rounds):
    for _ in range(rounds):
        scene.everywhere(broker, 1)
        uploaded(broker)


@pytest.mark.timeout(600)
def test_many_small_objects_become_few(store):  # noqa: F811
    scene = Scene()
    with brokers.Thalweg(SETTINGS | store | COMPACTING | {"object.compaction.enable": "false"}) as broker:
        for n in range(8):
            scene.create(broker, name(n), 1 + n % 4, retention_ms=-1)
        filled(broker, scene, ROUNDS)
        before = data_objects(broker)
        assert before > 30, before
        broker.stop()
        broker.settings["object.compaction.enable"] = "true"
        broker.start()
        until(lambda: made(broker, "minor") + made(broker, "major") > 0, "something is compacted", 60)
        # What waits is less than six uploads of each shard, and what was deleted leaves two snapshots later.
        until(lambda: data_objects(broker) < 24, f"{before} objects become few", 90)
        scene.check(broker)
        # While it goes on, and topics go.
        scene.delete(broker, name(7))
        filled(broker, scene, ROUNDS // 2)
        scene.check(broker)
        # A dozen more uploads of each shard are four more objects, beside what waits.
        until(lambda: data_objects(broker) < 36, "few they stay", 90)
        told = sound(broker)
        print(f"{before} objects, then {told['objects']}; {made(broker, 'minor')} minor, {made(broker, 'major')} major")
        broker.kill()
        broker.start()
        scene.check(broker)
        broker.stop()
        broker.remove_wal()
        broker.start()
        scene.check(broker)
        broker.stop()
        assert sound(broker)["orphans"] == []


@pytest.mark.timeout(600)
def test_what_was_compacted_survives_the_loss_of_the_machine(store):  # noqa: F811
    """From the newest snapshot; and from the objects alone when there is none, though most uploads are gone."""
    scene = Scene()
    with brokers.Thalweg(SETTINGS | store | COMPACTING) as broker:
        for n in range(6):
            scene.create(broker, name(n), 1 + n % 3, retention_ms=-1)
        filled(broker, scene, ROUNDS)
        until(lambda: made(broker, "minor") + made(broker, "major") > 0, "something is compacted", 60)
        filled(broker, scene, 3)
        snapshot_of_everything(broker)
        until(lambda: data_objects(broker) < 24, "uploads are gone", 90)
        broker.stop()
        lose(broker, None)
        fresh = elsewhere(broker)
        try:
            thalweg(fresh, "metadata", "rebuild")
            sound(fresh)
            fresh.start()
            scene.check(fresh)
            filled(fresh, scene, 8)
            scene.check(fresh)
            fresh.stop()
            sound(fresh)
        finally:
            fresh.remove()
