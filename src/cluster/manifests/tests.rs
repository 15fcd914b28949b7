//! Folds of running actors: what is compared, what a start makes of manifests, and what becomes of what they list.

use thalweg_objectstore::{format, manifest_key};
use thalweg_record::{LeaderEpoch, NodeId, Offset, TopicId};
use thalweg_shards::{
    meta::{CommitOutcome, CompactionOutcome, MetaRequest},
    msg::PartitionSpec,
};

use super::*;
use crate::cluster::{
    Cluster,
    compaction::tests::compaction,
    store::{MemoryStore, MetadataStore},
    tests::{Running, World, commit, run, spec},
};

/// Object, first and last offset.
type Place = (ObjectId, i64, i64);

/// Two partitions and five uploads; `b` is in the first and the last of them, `a` in all.
struct Scene {
    world: World,
    running: Running,
    topic: TopicId,
    a: PartitionId,
    b: PartitionId,
    uploads: [ObjectId; 5],
}

impl Running {
    fn fold(&self, what: &Fold) -> FoldOutcome {
        self.meta(|reply| MetaRequest::Fold { shard: ShardId(0), fold: Box::new(what.clone()), reply })
    }

    fn unfold(&self, partition: PartitionId, manifest: ObjectId, entries: &[CommittedObject]) -> bool {
        let entries = entries.to_vec();
        self.meta(|reply| MetaRequest::Unfold { partition, manifest, entries, reply })
    }

    fn upload(&self, ranges: &[(PartitionId, i64, i64)]) -> ObjectId {
        let object = self.reserve(1);
        assert_eq!(self.commit(commit(object, ranges)), CommitOutcome::Committed);
        object
    }
}

fn fold(manifest: ObjectId, partition: PartitionId, parts: &[Place]) -> Fold {
    let key = manifest_key(manifest.0, NodeId(1), 0);
    let parts = parts.iter().map(|(object, base, last)| (*object, Offset(*base), Offset(*last))).collect();
    Fold { manifest, key, bytes: 99, partition, parts }
}

fn listed(outcome: &FoldOutcome) -> &ManifestRef {
    match outcome {
        FoldOutcome::Folded(of) => of,
        other => panic!("{other:?}"),
    }
}

fn places(spec: &PartitionSpec) -> Vec<Place> {
    spec.committed.iter().map(|c| (c.object, c.base.0, c.last.0)).collect()
}

fn manifests(spec: &PartitionSpec) -> Vec<(ObjectId, i64, i64)> {
    spec.manifests.iter().map(|m| (m.id, m.base.0, m.last.0)).collect()
}

impl Scene {
    fn new() -> Scene {
        let mut world = World::new();
        let running = run(world.open());
        let topic = running.create_one("t", 2);
        let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
        let upload = |n: i64| {
            let (base, last) = (n * 10, n * 10 + 9);
            match n {
                0 => running.upload(&[(a, base, last), (b, 0, 9)]),
                4 => running.upload(&[(a, base, last), (b, 10, 19)]),
                _ => running.upload(&[(a, base, last)]),
            }
        };
        let uploads = [0, 1, 2, 3, 4].map(upload);
        Scene { world, running, topic, a, b, uploads }
    }

    /// What the uploads hold of `a`.
    fn of_a(&self) -> [Place; 5] {
        [0, 1, 2, 3, 4].map(|n| (self.uploads[n], n as i64 * 10, n as i64 * 10 + 9))
    }

    /// Folds the first `count` of `a`.
    fn folded(&self, count: usize) -> ManifestRef {
        let what = fold(self.running.reserve(1), self.a, &self.of_a()[..count]);
        listed(&self.running.fold(&what)).clone()
    }

    /// What a fold of the first `count` of `a` lists.
    fn entries(&self, count: usize) -> Vec<CommittedObject> {
        let entry = |(object, base, last): &Place| CommittedObject {
            object: *object,
            key: commit(*object, &[]).key,
            object_bytes: 4096,
            base: Offset(*base),
            last: Offset(*last),
            size_bytes: 100,
            max_timestamp: thalweg_record::Wall(5),
            epoch: LeaderEpoch(0),
            level: 0,
        };
        self.of_a()[..count].iter().map(entry).collect()
    }

    /// Another start, after a crash.
    fn opened(self) -> (World, Cluster) {
        self.world.opened_after(self.running)
    }
}

fn has(store: &MemoryStore, key: Vec<u8>) -> bool {
    store.get(&key).expect("memory").is_some()
}

#[test]
fn a_manifest_takes_the_place_of_entries_and_a_start_knows_it() {
    let scene = Scene::new();
    let (a, b, uploads, all) = (scene.a, scene.b, scene.uploads, scene.of_a());
    let before = spec(&Scene::new().opened().1, a).expect("there");
    let first = scene.running.reserve(2);
    let what = fold(first, a, &all[..2]);
    let outcome = scene.running.fold(&what);
    let of = listed(&outcome);
    assert_eq!((of.base, of.last, of.entries, of.size_bytes, of.max_timestamp.0), (Offset(0), Offset(19), 2, 200, 5));
    assert_eq!(scene.running.fold(&what), outcome, "again");
    listed(&scene.running.fold(&fold(ObjectId(first.0 + 1), a, &all[2..4])));
    let later = scene.running.upload(&[(a, 50, 59)]);
    let (mut world, cluster) = scene.opened();
    let found = spec(&cluster, a).expect("there");
    assert_eq!(manifests(&found), [(first, 0, 19), (ObjectId(first.0 + 1), 20, 39)]);
    assert_eq!(places(&found), [all[4], (later, 50, 59)]);
    assert_eq!((found.committed_end, found.log_start), (Offset(60), Offset(0)));
    assert_eq!(found.epochs[..before.epochs.len()], before.epochs, "records that are gone told them");
    assert_eq!(found.producers.len(), before.producers.len());
    assert_eq!(places(&spec(&cluster, b).expect("there")), [(uploads[0], 0, 9), (uploads[4], 10, 19)]);
    let recorded = uploads.map(|id| has(&world.store, keys::object(id)));
    assert_eq!(recorded, [true, false, false, false, true], "manifests list all of the others");
    assert!(cluster.ledger.catalog.garbage.is_empty());
    // The reservations of that run are gone; its manifests are no orphans.
    let running = run(cluster);
    let stale: Vec<u64> = running
        .meta(|reply| MetaRequest::TakeStaleReservations { shard: ShardId(0), limit: 1_000, reply })
        .into_iter()
        .map(|(id, _)| id.0)
        .collect();
    assert!(!stale.contains(&first.0) && !stale.contains(&(first.0 + 1)), "{stale:?}");
    drop(running.stop());
    assert_eq!(manifests(&spec(&world.open(), a).expect("there")).len(), 2);
}

#[test]
fn what_is_not_as_it_was_is_not_folded() {
    let scene = Scene::new();
    let (a, b, all) = (scene.a, scene.b, scene.of_a());
    let first = scene.running.reserve(7);
    let id = |n| ObjectId(first.0 + n);
    let gone = PartitionId { topic: TopicId([9; 16]), index: 0 };
    let changed = [
        fold(id(0), a, &all[1..3]),
        fold(id(1), a, &[all[0], all[2]]),
        fold(id(2), a, &[(all[1].0, 0, 9)]),
        fold(id(3), a, &[(all[0].0, 0, 8)]),
        fold(id(4), gone, &all[..2]),
        fold(id(5), a, &[]),
    ];
    for what in changed {
        assert_eq!(scene.running.fold(&what), FoldOutcome::Changed, "{what:?}");
        assert_eq!(scene.running.fold(&what), FoldOutcome::Unreserved, "its reservation is gone");
    }
    assert_eq!(scene.running.fold(&fold(ObjectId(9_999), a, &all[..2])), FoldOutcome::Unreserved);
    // What a manifest lists is no input of a compaction.
    scene.folded(2);
    let object = scene.running.reserve(1);
    let outcome = scene.running.compact(compaction(object, &[(a, &all[..2])]));
    assert_eq!(outcome, CompactionOutcome::Changed(vec![a]));
    let (_, cluster) = scene.opened();
    assert_eq!(spec(&cluster, b).expect("there").committed.len(), 2);
    assert_eq!(places(&spec(&cluster, a).expect("there")), all[2..]);
}

#[test]
fn what_lies_below_the_log_start_goes_when_the_manifest_was_read_and_not_before() {
    let scene = Scene::new();
    let (a, uploads) = (scene.a, scene.uploads);
    let of = scene.folded(2);
    let entries = scene.entries(2);
    scene.running.raise(a, 15);
    let (mut world, mut cluster) = scene.opened();
    let found = spec(&cluster, a).expect("there");
    assert_eq!((manifests(&found).len(), found.log_start), (1, Offset(15)), "its last entry is above the log start");
    assert!(cluster.ledger.catalog.dead_manifests.is_empty());
    cluster.ledger.raise_log_start(&[(a, Offset(20))]).expect("memory");
    drop(cluster);
    let mut cluster = world.open();
    assert_eq!(manifests(&spec(&cluster, a).expect("there")), []);
    let ledger = &mut cluster.ledger;
    assert!(ledger.catalog.dead_manifests.contains_key(&of.id) && ledger.catalog.garbage.is_empty());
    assert!(ledger.release_manifest(of.id, &entries[..1]).expect("memory").is_err(), "that is not what it lists");
    assert_eq!(ledger.release_manifest(of.id, &entries).expect("memory"), Ok(()));
    assert_eq!(ledger.release_manifest(of.id, &entries).expect("memory"), Ok(()), "again");
    let garbage = |cluster: &Cluster| cluster.ledger.catalog.garbage.keys().copied().collect::<Vec<_>>();
    assert_eq!(garbage(&cluster), [uploads[1], of.id], "the first upload still holds something of another partition");
    let again = world.open();
    assert_eq!(garbage(&again), [uploads[1], of.id]);
    assert!(again.ledger.catalog.dead_manifests.is_empty());
    assert!(!has(&world.store, keys::folded(uploads[0])) && has(&world.store, keys::object(uploads[0])));
}

#[test]
fn a_deleted_topic_leaves_nothing_but_manifests_to_be_read() {
    let scene = Scene::new();
    let (topic, uploads) = (scene.topic, scene.uploads);
    let of = scene.folded(3);
    let entries = scene.entries(3);
    scene.running.delete(topic).expect("deleted");
    let (world, mut cluster) = scene.opened();
    let ledger = &mut cluster.ledger;
    let mut left: Vec<ObjectId> = ledger.catalog.objects.keys().copied().collect();
    assert_eq!(left, uploads[..3]);
    assert_eq!(ledger.release_manifest(of.id, &entries).expect("memory"), Ok(()));
    left = ledger.catalog.garbage.keys().copied().collect();
    assert_eq!(left, [&uploads[..], &[of.id]].concat());
    assert!(ledger.catalog.objects.is_empty());
    for prefix in [keys::OBJECTS, keys::FOLDED, keys::MANIFESTS, keys::DEAD_MANIFESTS, keys::HEADS] {
        assert_eq!(world.store.range(prefix, None, 9).expect("memory"), [], "{}", prefix.escape_ascii());
    }
}

#[test]
fn a_manifest_gives_its_place_back_and_what_is_listed_twice_counts_once() {
    let scene = Scene::new();
    let (a, all) = (scene.a, scene.of_a());
    let (first, entries) = (scene.folded(2), scene.entries(4));
    let second = fold(scene.running.reserve(1), a, &all[2..4]);
    let second = listed(&scene.running.fold(&second)).clone();
    assert!(!scene.running.unfold(a, first.id, &entries[..2]), "it is not the newest");
    assert!(!scene.running.unfold(a, second.id, &entries[..2]), "it lists others");
    assert!(scene.running.unfold(a, second.id, &entries[2..]));
    assert!(!scene.running.unfold(a, second.id, &entries[2..]), "once");
    scene.running.raise(a, 12);
    assert!(scene.running.unfold(a, first.id, &entries[..2]));
    // Readers, compaction and deletion go on as if they had never been listed.
    let object = scene.running.reserve(1);
    let joined = compaction(object, &[(a, &all[1..4])]);
    assert_eq!(scene.running.compact(joined), CompactionOutcome::Committed(1));
    let (uploads, b) = (scene.uploads, scene.b);
    let (world, cluster) = scene.opened();
    let found = spec(&cluster, a).expect("there");
    assert_eq!((manifests(&found), places(&found)), (vec![], vec![(object, 10, 39), all[4]]));
    assert_eq!(spec(&cluster, b).expect("there").committed.len(), 2);
    let garbage: Vec<ObjectId> = cluster.ledger.catalog.garbage.keys().copied().collect();
    let expected: BTreeSet<ObjectId> = [uploads[1], uploads[2], uploads[3], first.id, second.id].into();
    assert_eq!(garbage, expected.into_iter().collect::<Vec<_>>());
    assert_eq!(world.store.range(keys::FOLDED, None, 9).expect("memory"), []);
}

#[test]
fn metadata_that_contradicts_itself_does_not_open() {
    let scene = Scene::new();
    let (a, of) = (scene.a, scene.folded(2));
    let (world, cluster) = scene.opened();
    drop(cluster);
    let gone = [Write::Delete(keys::manifest(a, of.base))];
    world.store.transact(&[], &gone).expect("memory");
    let found = load::load(&world.store).expect_err("the head says that there is a manifest");
    assert!(found.to_string().contains("the head says"), "{found}");
}

#[test]
fn only_a_manifest_that_says_what_the_metadata_does_is_believed() {
    let scene = Scene::new();
    let (a, b, of, entries) = (scene.a, scene.b, scene.folded(2), scene.entries(2));
    let bytes = |id: ObjectId, partition, entries: &[CommittedObject]| {
        format::Manifest { id: id.0, partition, entries: entries.iter().map(Into::into).collect() }.encode()
    };
    assert_eq!(of.entries(a, &bytes(of.id, a, &entries)), Ok(entries.clone()));
    for wrong in [bytes(ObjectId(1), a, &entries), bytes(of.id, b, &entries), bytes(of.id, a, &entries[..1]), vec![]] {
        assert!(of.entries(a, &wrong).is_err());
    }
}
