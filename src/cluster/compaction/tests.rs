//! Compactions of running actors: what is compared, what becomes garbage, and what a start makes of records that overlap.

use thalweg_objectstore::ObjectKey;
use thalweg_record::{LeaderEpoch, Offset, TopicId, Wall};
use thalweg_shards::{
    meta::{CommitOutcome, MetaRequest},
    msg::{PartitionSpec, ProducerBatch, ProducerEntry},
};

use super::*;
use crate::cluster::{
    Cluster,
    tests::{Running, World, run, spec},
};

/// Object, first and last offset.
type Place = (ObjectId, i64, i64);

fn producer(id: i64, last: i64) -> ProducerEntry {
    let batch =
        ProducerBatch { first_sequence: 0, last_sequence: 0, base_offset: Offset(last), last_offset: Offset(last) };
    ProducerEntry { producer_id: id, epoch: 0, window: vec![batch], last_timestamp: Wall(9_900) }
}

/// A range whose first offset names a producer of its own; producer 1 is in all of them.
fn range(partition: PartitionId, base: i64, last: i64) -> CommitRange {
    CommitRange {
        partition,
        base: Offset(base),
        last: Offset(last),
        size_bytes: (last - base + 1) as u64,
        max_timestamp: Wall(5),
        epochs: vec![(LeaderEpoch(base as i32 / 10), Offset(base))],
        producers: vec![producer(1, last), producer(1_000 + base, base)],
    }
}

fn key(object: ObjectId) -> ObjectKey {
    ObjectKey::new(format!("objects/{}", object.0)).expect("a key")
}

pub(in crate::cluster) fn compaction(object: ObjectId, ranges: &[(PartitionId, &[Place])]) -> Compaction {
    let compacted = |(partition, parts): &(PartitionId, &[Place])| {
        let (base, last) = (parts[0].1, parts[parts.len() - 1].2);
        let ends = parts.iter().map(|(_, base, _)| producer(1_000 + base, *base));
        let mut whole = range(*partition, base, last);
        whole.producers = std::iter::once(producer(1, last)).chain(ends).collect();
        whole.epochs = Vec::new();
        CompactedRange { range: whole, parts: parts.iter().map(|(o, b, l)| (*o, Offset(*b), Offset(*l))).collect() }
    };
    Compaction { object, key: key(object), object_bytes: 9_999, ranges: ranges.iter().map(compacted).collect() }
}

impl Running {
    pub(in crate::cluster) fn compact(&self, what: Compaction) -> CompactionOutcome {
        self.meta(|reply| MetaRequest::Compact { shard: ShardId(0), compaction: Box::new(what), reply })
    }

    fn put(&self, ranges: &[(PartitionId, i64, i64)]) -> ObjectId {
        let object = self.reserve(1);
        let ranges = ranges.iter().map(|(partition, base, last)| range(*partition, *base, *last)).collect();
        let commit = ObjectCommit { object, key: key(object), object_bytes: 4096, ranges };
        assert_eq!(self.commit(commit), CommitOutcome::Committed);
        object
    }

    fn mostly_dead(&self) -> Vec<ObjectId> {
        self.meta(|reply| MetaRequest::MostlyDead { reply })
    }
}

fn places(spec: &PartitionSpec) -> Vec<(ObjectId, i64, i64, u32)> {
    spec.committed.iter().map(|c| (c.object, c.base.0, c.last.0, c.level)).collect()
}

/// Two partitions, and three uploads that both are in.
struct Scene {
    world: World,
    running: Running,
    topic: TopicId,
    a: PartitionId,
    b: PartitionId,
    uploads: [ObjectId; 3],
}

impl Scene {
    fn new() -> Scene {
        let mut world = World::new();
        let running = run(world.open());
        let topic = running.create_one("t", 2);
        let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
        let uploads = [0, 10, 20].map(|base| running.put(&[(a, base, base + 9), (b, base, base + 9)]));
        Scene { world, running, topic, a, b, uploads }
    }

    fn all_of(&self) -> [Place; 3] {
        [0, 1, 2].map(|n| (self.uploads[n], n as i64 * 10, n as i64 * 10 + 9))
    }

    /// Another start, after a crash.
    fn opened(self) -> (World, Cluster) {
        self.world.opened_after(self.running)
    }
}

#[test]
fn one_object_takes_the_place_of_others_and_they_become_garbage_when_nothing_in_them_is_live() {
    let scene = Scene::new();
    let (a, b, uploads, all) = (scene.a, scene.b, scene.uploads, scene.all_of());
    let first = scene.running.reserve(2);
    let second = ObjectId(first.0 + 1);
    let of_a = compaction(first, &[(a, &all[..])]);
    assert_eq!(scene.running.compact(of_a.clone()), CompactionOutcome::Committed(1));
    assert_eq!(scene.running.compact(of_a), CompactionOutcome::Committed(1), "again");
    let later = scene.running.put(&[(a, 30, 39)]);
    let (mut world, cluster) = scene.opened();
    let found = spec(&cluster, a).expect("there");
    assert_eq!(places(&found), [(first, 0, 29, 1), (later, 30, 39, 0)], "the uploads still name what they gave away");
    assert_eq!(spec(&cluster, b).expect("there").committed.len(), 3);
    assert!(cluster.ledger.catalog.garbage.is_empty());
    assert_eq!(found.epochs, (0..4).map(|n| (LeaderEpoch(n), Offset(i64::from(n) * 10))).collect::<Vec<_>>());
    let mut producers: Vec<i64> = found.producers.iter().map(|p| p.producer_id).collect();
    producers.sort_unstable();
    assert_eq!(producers, [1, 1_000, 1_010, 1_020, 1_030]);

    let running = run(cluster);
    assert_eq!(running.compact(compaction(second, &[(b, &all[..])])), CompactionOutcome::Committed(1));
    drop(running.stop());
    world.store.crash();
    let cluster = world.open();
    assert_eq!(places(&spec(&cluster, b).expect("there")), [(second, 0, 29, 1)]);
    assert_eq!(cluster.ledger.catalog.garbage.keys().copied().collect::<Vec<_>>(), uploads);
}

#[test]
fn what_has_changed_meanwhile_is_not_replaced() {
    let scene = Scene::new();
    let (a, b, all) = (scene.a, scene.b, scene.all_of());
    let first = scene.running.reserve(7);
    let id = |n| ObjectId(first.0 + n);
    scene.running.raise(a, 12);
    let changed = [
        compaction(id(0), &[(a, &all[..])]),
        compaction(id(1), &[(b, &[all[0], all[2]])]),
        compaction(id(2), &[(b, &[(all[1].0, 0, 9)])]),
        compaction(id(3), &[(b, &[(all[1].0, 10, 18)])]),
        compaction(id(4), &[(PartitionId { topic: TopicId([9; 16]), index: 0 }, &all[..])]),
        compaction(id(5), &[(b, &all[..2]), (b, &all[2..])]),
    ];
    for what in changed {
        let changed = CompactionOutcome::Changed(vec![what.ranges[0].range.partition]);
        assert_eq!(scene.running.compact(what.clone()), changed, "{what:?}");
        assert_eq!(scene.running.compact(what), CompactionOutcome::Unreserved, "its reservation is gone");
    }
    // The part that holds the log start is live as a whole.
    assert_eq!(scene.running.compact(compaction(id(6), &[(a, &all[1..])])), CompactionOutcome::Committed(1));
    assert_eq!(scene.running.compact(compaction(ObjectId(9_999), &[(b, &all[..])])), CompactionOutcome::Unreserved);
    let (_, cluster) = scene.opened();
    assert_eq!(places(&spec(&cluster, a).expect("there")), [(id(6), 10, 29, 1)]);
    assert_eq!(spec(&cluster, b).expect("there").committed.len(), 3, "nothing happened to it");
    let orphans: Vec<ObjectId> = cluster.ledger.catalog.garbage.keys().copied().collect();
    assert_eq!(orphans, (0..6).map(id).collect::<Vec<_>>(), "what was put for nothing is deleted");
}

#[test]
fn a_topic_that_is_deleted_and_made_anew_gets_nothing_of_the_old_one() {
    let scene = Scene::new();
    let all = scene.all_of();
    let object = scene.running.reserve(1);
    scene.running.delete(scene.topic).expect("deleted");
    scene.running.create_one("t", 2);
    let outcome = scene.running.compact(compaction(object, &[(scene.a, &all[..])]));
    assert_eq!(outcome, CompactionOutcome::Changed(vec![scene.a]));
}

#[test]
fn what_has_not_changed_is_compacted_without_what_has() {
    let scene = Scene::new();
    let (a, b, all) = (scene.a, scene.b, scene.all_of());
    let object = scene.running.reserve(1);
    scene.running.raise(a, 12);
    let both = compaction(object, &[(a, &all[..]), (b, &all[..])]);
    assert_eq!(scene.running.compact(both.clone()), CompactionOutcome::Changed(vec![a]));
    let left = Compaction { ranges: both.ranges[1..].to_vec(), ..both };
    assert_eq!(scene.running.compact(left), CompactionOutcome::Committed(1), "its reservation was kept");
    let (_, cluster) = scene.opened();
    let of_a: Vec<(i64, i64, u32)> = places(&spec(&cluster, a).expect("there"))
        .into_iter()
        .map(|(_, base, last, level)| (base, last, level))
        .collect();
    assert_eq!(of_a, [(10, 19, 0), (20, 29, 0)]);
    assert_eq!(places(&spec(&cluster, b).expect("there")), [(object, 0, 29, 1)]);
}

#[test]
fn a_head_in_the_midst_of_what_was_compacted_counts_no_producer_twice_and_loses_no_offset() {
    let scene = Scene::new();
    let (a, all) = (scene.a, scene.all_of());
    // Writes the head: it sums up 0 to 29.
    scene.running.raise(a, 5);
    let later = scene.running.put(&[(a, 30, 39)]);
    let object = scene.running.reserve(1);
    let parts = [all[0], all[1], all[2], (later, 30, 39)];
    assert_eq!(scene.running.compact(compaction(object, &[(a, &parts[..])])), CompactionOutcome::Committed(1));
    let (_, cluster) = scene.opened();
    let found = spec(&cluster, a).expect("there");
    assert_eq!((found.log_start, found.committed_end), (Offset(5), Offset(40)));
    assert_eq!(places(&found), [(object, 0, 39, 1)]);
    assert_eq!(found.epochs.last(), Some(&(LeaderEpoch(3), Offset(30))));
    let newest = found.producers.iter().find(|p| p.producer_id == 1).expect("there");
    assert_eq!(newest.window[0].last_offset, Offset(39));
    assert_eq!(found.producers.len(), 5);
}

#[test]
fn an_object_that_is_mostly_dead_is_named_and_may_be_left() {
    let scene = Scene::new();
    let (a, b, all) = (scene.a, scene.b, scene.all_of());
    let first = scene.running.reserve(2);
    let second = ObjectId(first.0 + 1);
    assert_eq!(scene.running.mostly_dead(), []);
    let both = compaction(first, &[(a, &all[..]), (b, &all[..2])]);
    assert_eq!(scene.running.compact(both), CompactionOutcome::Committed(1));
    assert_eq!(scene.running.mostly_dead(), [], "all of it lives; uploads are never named");
    scene.running.raise(a, 30);
    assert_eq!(scene.running.mostly_dead(), [first], "20 of 50 bytes");
    let left = compaction(second, &[(b, &[(first, 0, 19)])]);
    assert_eq!(scene.running.compact(left), CompactionOutcome::Committed(2), "a level above what it left");
    let (_, cluster) = scene.opened();
    assert_eq!(places(&spec(&cluster, b).expect("there")), [(second, 0, 19, 2), (scene_upload(&all), 20, 29, 0)]);
    assert!(cluster.ledger.catalog.garbage.contains_key(&first));
}

fn scene_upload(all: &[Place; 3]) -> ObjectId {
    all[2].0
}

#[test]
fn the_dirty_point_is_durable_and_compared() {
    let scene = Scene::new();
    let move_point = |partition, from, to| {
        let (from, to) = (Offset(from), Offset(to));
        scene.running.meta(|reply| MetaRequest::MoveDirtyPoint { partition, from, to, reply })
    };
    assert!(move_point(scene.a, 0, 25));
    assert!(move_point(scene.a, 0, 25), "the same again");
    assert!(!move_point(scene.a, 0, 30), "it is not there any more");
    assert!(!move_point(scene.a, 25, 31), "behind what is committed");
    assert!(!move_point(scene.a, 25, 20), "it does not go back");
    assert!(!move_point(PartitionId { index: 9, ..scene.a }, 0, 5), "there is no such partition");
    assert!(move_point(scene.a, 25, 28));
    let (a, b, expected) = (scene.a, scene.b, scene.all_of().map(|(object, base, last)| (object, base, last, 0)));
    let (_world, cluster) = scene.opened();
    let (of_a, of_b) = (spec(&cluster, a).expect("there"), spec(&cluster, b).expect("there"));
    assert_eq!((of_a.cleaned, of_b.cleaned), (Offset(28), Offset(0)));
    assert_eq!(
        (places(&of_a), of_a.committed_end),
        (expected.to_vec(), Offset(30)),
        "the head that bears it changes nothing else"
    );
}
