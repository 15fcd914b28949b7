//! Rebuilds from buckets that running actors have filled, on stores in memory.

use bytes::Bytes;
use futures_lite::future::block_on;
use thalweg_objectstore::{
    MemoryStore as Objects, PutCondition, data_key,
    format::{ObjectEncoder, PartitionProperties, Properties},
};
use thalweg_record::{Batch, BatchHead, HEAD_LEN, LeaderEpoch, Offset, ShardId};
use thalweg_shards::meta::{CommitOutcome, CommitRange, CompactedRange, Compaction, CompactionOutcome};

use super::{known::REVISION_JUMP, *};
use crate::cluster::{
    Cluster, ConfigOp, ConfigTarget,
    bucket::{LogNotes, restore, verify::verify, verify_bucket},
    store::{MemoryStore, open_sled},
    tests::{Running, World, run_with, settings_of},
};

pub(in crate::cluster) fn settings() -> RebuildSettings {
    RebuildSettings {
        node: NodeId(1),
        object_store_url: "memory:".into(),
        without_snapshot: false,
        slices: Vec::new(),
        slices_hold: BTreeSet::new(),
        random: 7,
        accept_loss: false,
        keep_missing_slices: false,
        offsets_partitions: 50,
    }
}

fn batch(base: i64, records: i32, epoch: i32) -> Batch {
    let body = b"records";
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_last_offset_delta(records - 1);
    head.set_record_count(records);
    head.set_crc(head.compute_crc(body));
    head.stamp(Offset(base), LeaderEpoch(epoch));
    Batch { head, body: Bytes::from_static(body) }
}

/// What a shard uploads: ten records of each partition from its first offset on.
struct Upload<'a> {
    cluster_id: &'a str,
    name: &'a str,
    epoch: i32,
    version: u64,
    sequence: u64,
    log_start: i64,
}

impl Upload<'_> {
    /// Puts the object, and says how it is committed.
    fn put(&self, objects: &Objects, id: ObjectId, parts: &[(TopicId, i64)]) -> ObjectCommit {
        let parts: Vec<_> =
            parts.iter().map(|(topic, base)| (PartitionId { topic: *topic, index: 0 }, *base)).collect();
        self.put_parts(objects, id, &parts)
    }

    fn put_parts(&self, objects: &Objects, id: ObjectId, parts: &[(PartitionId, i64)]) -> ObjectCommit {
        let mut encoder = ObjectEncoder::new(id.0, 4096);
        let mut properties = Properties {
            cluster_id: self.cluster_id.into(),
            node: NodeId(1),
            node_epoch: self.epoch as u64,
            shard: ShardId(0),
            upload_sequence: self.sequence,
            partitions: Vec::new(),
        };
        let mut parts = parts.to_vec();
        parts.sort();
        for (partition, base) in parts {
            encoder.push(partition, &batch(base, 10, self.epoch));
            if properties.partitions.last().is_some_and(|last| last.partition == partition) {
                continue;
            }
            properties.partitions.push(PartitionProperties {
                partition,
                topic_name: self.name.into(),
                settings_version: self.version,
                leader_epoch: LeaderEpoch(self.epoch),
                log_start: Offset(self.log_start),
                epochs: vec![(LeaderEpoch(self.epoch), Offset(base))],
                ..PartitionProperties::default()
            });
        }
        let encoded = encoder.finish(&properties);
        let key = data_key(id.0, NodeId(1), self.epoch as u64);
        block_on(objects.put(&key, encoded.parts, PutCondition::IfAbsent)).expect("memory");
        let range = |r: &thalweg_objectstore::format::PartitionRange| CommitRange {
            partition: r.partition,
            base: r.base,
            last: r.last,
            size_bytes: r.size_bytes,
            max_timestamp: r.max_timestamp,
            epochs: vec![(LeaderEpoch(self.epoch), r.base)],
            producers: Vec::new(),
        };
        let ranges = encoded.ranges.iter().map(range).collect();
        ObjectCommit { object: id, key, object_bytes: encoded.size_bytes, ranges }
    }
}

/// A broker whose bucket is looked at.
struct Scene {
    world: World,
    running: Running,
    cluster_id: String,
}

impl Scene {
    fn new() -> Scene {
        let mut world = World::new();
        let cluster = world.open();
        let cluster_id = cluster.cluster_id().to_string();
        Scene { running: run_with(cluster, None), world, cluster_id }
    }

    fn upload<'a>(&'a self, name: &'a str) -> Upload<'a> {
        let version = self.world.store.revision().0;
        Upload { cluster_id: &self.cluster_id, name, epoch: 0, version, sequence: 1, log_start: 0 }
    }

    fn committed(&self, name: &str, topic: TopicId, base: i64) -> ObjectCommit {
        let commit = self.upload(name).put(&self.world.objects, self.running.reserve(1), &[(topic, base)]);
        self.running.commit(commit.clone());
        commit
    }

    /// Ends the run with a snapshot, and begins the next one.
    fn snapshot(mut self) -> Scene {
        let ended = self.running.stop();
        ended
            .write_last_snapshot(Arc::new(self.world.objects.clone()), std::time::Duration::from_secs(10))
            .expect("ok");
        self.running = run_with(self.world.open(), None);
        self
    }

    fn rebuilt(&self) -> (Rebuilt, Cluster) {
        self.rebuilt_by(&settings()).expect("rebuilt")
    }

    fn rebuilt_by(&self, settings: &RebuildSettings) -> Result<(Rebuilt, Cluster), RebuildError> {
        let store = Arc::new(MemoryStore::new());
        let rebuilt = block_on(rebuild(&self.world.objects, store.clone(), settings, &LogNotes))?;
        store.crash();
        let found = block_on(verify(&self.world.objects, &*store, None, &LogNotes))?;
        assert_eq!(found.problems, Vec::<String>::new());
        let mut elsewhere = World { objects: self.world.objects.clone(), ..World::new() };
        Ok((rebuilt, elsewhere.open_on(store)))
    }
}

/// Log start, committed end and first offsets of a topic's partition 0.
fn extent(cluster: &Cluster, topic: TopicId) -> Option<(i64, i64, Vec<i64>)> {
    extent_of(cluster, PartitionId { topic, index: 0 })
}

fn extent_of(cluster: &Cluster, id: PartitionId) -> Option<(i64, i64, Vec<i64>)> {
    let spec = cluster.partitions().into_iter().flatten().find(|spec| spec.partition == id)?;
    Some((spec.log_start.0, spec.committed_end.0, spec.committed.iter().map(|c| c.base.0).collect()))
}

#[test]
fn the_snapshot_and_what_came_after_it_are_there() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 2);
    scene.committed("t", topic, 0);
    let scene = scene.snapshot();
    scene.committed("t", topic, 10);
    scene.committed("t", topic, 20);
    let (rebuilt, cluster) = scene.rebuilt();
    assert_eq!((rebuilt.topics, rebuilt.partitions, rebuilt.objects, rebuilt.tail_objects), (1, 2, 3, 2));
    assert_eq!(extent(&cluster, topic), Some((0, 30, vec![0, 10, 20])));
    assert!(rebuilt.unused_objects.is_empty() && rebuilt.snapshot == Some(1));
}

#[test]
fn ids_and_epochs_jump_ahead_of_all_that_was_used() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    let last = scene.committed("t", topic, 0);
    let (before, epoch) = (scene.world.store.revision().0, 1);
    let (_, cluster) = scene.rebuilt();
    assert!(cluster.node_epoch().0 > epoch + EPOCH_JUMP / 2, "{}", cluster.node_epoch());
    assert!(cluster.snapshot().revision > before + REVISION_JUMP / 2);
    let running = run_with(cluster, None);
    assert!(running.reserve(1).0 > last.object.0 + ID_JUMP / 2);
    running.stop();
}

#[test]
fn a_topic_created_after_the_snapshot_is_there_and_one_deleted_before_it_is_not() {
    let scene = Scene::new();
    let old = scene.running.create_one("old", 1);
    // Uploaded, and never committed: its topic is deleted before the snapshot.
    scene.upload("old").put(&scene.world.objects, scene.running.reserve(1), &[(old, 0)]);
    scene.running.delete(old).expect("deleted");
    let scene = scene.snapshot();
    let new = scene.running.create_one("new", 1);
    scene.committed("new", new, 0);
    let (rebuilt, cluster) = scene.rebuilt();
    assert_eq!((extent(&cluster, old), extent(&cluster, new)), (None, Some((0, 10, vec![0]))));
    assert!(rebuilt.notes.iter().any(|note| note.contains("topic new was created after")), "{:?}", rebuilt.notes);
    assert_eq!(rebuilt.unused_objects.len(), 1, "it is not deleted either");
}

#[test]
fn a_name_that_was_given_anew_belongs_to_the_later_topic() {
    let scene = Scene::new();
    let first = scene.running.create_one("t", 1);
    scene.committed("t", first, 0);
    let scene = scene.snapshot();
    scene.running.delete(first).expect("deleted");
    let second = scene.running.create_one("t", 1);
    scene.committed("t", second, 0);
    let (_, cluster) = scene.rebuilt();
    assert_eq!((extent(&cluster, first), extent(&cluster, second)), (None, Some((0, 10, vec![0]))));
}

#[test]
fn what_compaction_wrote_counts_only_when_a_snapshot_names_it() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    let id = scene.running.reserve(1);
    Upload { sequence: tail::NOT_A_TAIL, ..scene.upload("t") }.put(&scene.world.objects, id, &[(topic, 0)]);
    let (rebuilt, cluster) = scene.rebuilt();
    assert_eq!((rebuilt.tail_objects, extent(&cluster, topic)), (0, Some((0, 0, vec![]))));
}

/// A topic of two partitions in three uploads; compaction has put the first partition into one object.
fn compacted() -> (Scene, TopicId, [ObjectCommit; 3], ObjectCommit) {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 2);
    let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
    let uploads = [0, 10, 20].map(|base| {
        let id = scene.running.reserve(1);
        let commit = scene.upload("t").put_parts(&scene.world.objects, id, &[(a, base), (b, base)]);
        assert_eq!(scene.running.commit(commit.clone()), CommitOutcome::Committed);
        commit
    });
    let made = scene.compacted(a, &uploads);
    (scene, topic, uploads, made)
}

impl Scene {
    /// Puts what `uploads` hold of a partition into one object, and has it take their place.
    fn compacted(&self, partition: PartitionId, uploads: &[ObjectCommit]) -> ObjectCommit {
        let bases: Vec<_> = (0..uploads.len() as i64).map(|n| (partition, n * 10)).collect();
        let upload = Upload { sequence: tail::NOT_A_TAIL, ..self.upload("t") };
        let made = upload.put_parts(&self.world.objects, self.running.reserve(1), &bases);
        let part = |upload: &ObjectCommit| {
            let range = upload.ranges.iter().find(|range| range.partition == partition).expect("it holds it");
            (upload.object, range.base, range.last)
        };
        let ranges = vec![CompactedRange { range: made.ranges[0].clone(), parts: uploads.iter().map(part).collect() }];
        let (object, key, object_bytes) = (made.object, made.key.clone(), made.object_bytes);
        let outcome = self.running.compact(Compaction { object, key, object_bytes, ranges });
        assert_eq!(outcome, CompactionOutcome::Committed(1));
        made
    }
}

#[test]
fn what_was_compacted_is_there_once_whether_or_not_the_snapshot_knows_of_it() {
    let (scene, topic, _, _) = compacted();
    let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
    let scene = scene.snapshot();
    // The snapshot names the object beside the uploads, which the other partition keeps; `verify` finds no overlap.
    let (rebuilt, cluster) = scene.rebuilt();
    assert_eq!(extent_of(&cluster, a), Some((0, 30, vec![0])));
    assert_eq!(extent_of(&cluster, b), Some((0, 30, vec![0, 10, 20])));
    assert_eq!((rebuilt.tail_objects, rebuilt.unused_objects.len()), (0, 0));

    // A compaction after the snapshot is undone, of uploads before it and after it.
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let first = scene.committed("t", topic, 0);
    let scene = scene.snapshot();
    let second = scene.committed("t", topic, 10);
    scene.compacted(PartitionId { topic, index: 0 }, &[first, second]);
    scene.committed("t", topic, 20);
    let (rebuilt, cluster) = scene.rebuilt();
    assert_eq!(extent(&cluster, topic), Some((0, 30, vec![0, 10, 20])));
    assert_eq!((rebuilt.tail_objects, rebuilt.unused_objects.len()), (2, 1), "its object is left over");
}

#[test]
fn without_a_snapshot_compacted_objects_stand_in_for_uploads_that_are_gone() {
    let (scene, topic, uploads, _) = compacted();
    let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
    let asked = RebuildSettings { without_snapshot: true, ..settings() };
    let (_, cluster) = scene.rebuilt_by(&asked).expect("beside each other");
    assert_eq!(extent_of(&cluster, a).map(|(start, end, _)| (start, end)), Some((0, 30)));
    assert_eq!(extent_of(&cluster, b), Some((0, 30, vec![0, 10, 20])));
    scene.compacted(b, &uploads);
    for upload in &uploads {
        block_on(scene.world.objects.delete(&upload.key)).expect("memory");
    }
    let (rebuilt, cluster) = scene.rebuilt_by(&asked).expect("rebuilt");
    assert_eq!(extent_of(&cluster, a), Some((0, 30, vec![0])), "{:?}", rebuilt.notes);
    assert_eq!(extent_of(&cluster, b), Some((0, 30, vec![0])), "{:?}", rebuilt.notes);
}

#[test]
fn a_log_start_that_a_later_object_tells_stays_raised() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    scene.committed("t", topic, 0);
    let scene = scene.snapshot();
    let id = scene.running.reserve(1);
    let later = Upload { log_start: 10, ..scene.upload("t") }.put(&scene.world.objects, id, &[(topic, 10)]);
    scene.running.commit(later);
    assert_eq!(extent(&scene.rebuilt().1, topic), Some((10, 20, vec![10])));
}

#[test]
fn objects_below_the_log_start_are_taken_in_by_their_offsets() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    scene.committed("t", topic, 0);
    scene.running.raise(PartitionId { topic, index: 0 }, 25);
    let scene = scene.snapshot();
    // Two uploads of a shard have taken their ids the other way round.
    let ids = [scene.running.reserve(1), scene.running.reserve(1)];
    for (id, base) in [(ids[1], 10), (ids[0], 20)] {
        let upload = Upload { log_start: 25, ..scene.upload("t") };
        let commit = upload.put(&scene.world.objects, id, &[(topic, base)]);
        assert_eq!(scene.running.commit(commit), CommitOutcome::Committed);
    }
    assert_eq!(extent(&scene.rebuilt().1, topic), Some((25, 30, vec![20])));
}

#[test]
fn a_log_that_went_on_behind_a_loss_below_its_start_is_rebuilt() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    scene.committed("t", topic, 0);
    let scene = scene.snapshot();
    // From 10 to 19 is lost, and the log start lies inside of what came next.
    scene.running.raise(PartitionId { topic, index: 0 }, 25);
    for base in [20, 30] {
        let upload = Upload { log_start: 25, ..scene.upload("t") };
        let commit = upload.put(&scene.world.objects, scene.running.reserve(1), &[(topic, base)]);
        assert_eq!(scene.running.commit(commit), CommitOutcome::Committed);
    }
    assert_eq!(extent(&scene.rebuilt().1, topic), Some((25, 40, vec![20, 30])));
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_a_newer_version_is_refused() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    scene.committed("t", topic, 0);
    let scene = scene.snapshot();
    let key = stored::key(2);
    let whole = scene.world.objects.objects()[&key].to_vec();
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    scene.world.objects.overwrite(&key, damaged.into());
    let (rebuilt, cluster) = scene.rebuilt();
    assert_eq!((rebuilt.snapshot, extent(&cluster, topic)), (Some(1), Some((0, 10, vec![0]))));
    let mut newer = whole;
    newer[8] = 2;
    scene.world.objects.overwrite(&key, newer.into());
    let refused = scene.rebuilt_by(&settings()).err().expect("refused").to_string();
    assert!(refused.contains("version 2"), "{refused}");
}

#[test]
fn without_a_snapshot_objects_alone_are_enough_when_asked_for() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    scene.committed("t", topic, 0);
    let refused = scene.rebuilt_by(&settings()).err().expect("refused").to_string();
    assert!(refused.contains("--without-snapshot"), "{refused}");
    let asked = RebuildSettings { without_snapshot: true, ..settings() };
    let (rebuilt, cluster) = scene.rebuilt_by(&asked).expect("rebuilt");
    assert_eq!((rebuilt.snapshot, extent(&cluster, topic)), (None, Some((0, 10, vec![0]))));
}

#[test]
fn without_a_snapshot_a_partition_goes_on_behind_what_retention_took() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let first = scene.committed("t", topic, 0);
    scene.committed("t", topic, 10);
    scene.committed("t", topic, 20);
    block_on(scene.world.objects.delete(&first.key)).expect("memory");
    let asked = RebuildSettings { without_snapshot: true, ..settings() };
    let (rebuilt, cluster) = scene.rebuilt_by(&asked).expect("rebuilt");
    assert_eq!(extent(&cluster, topic), Some((10, 30, vec![10, 20])), "{:?}", rebuilt.notes);
    assert!(rebuilt.notes.iter().any(|note| note.starts_with("t-0 begins at offset 10")), "{:?}", rebuilt.notes);
}

#[test]
fn without_a_snapshot_a_log_start_inside_an_object_loses_none_of_it() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 2);
    let [short, whole] = [0, 1].map(|index| PartitionId { topic, index });
    let objects = &scene.world.objects;
    scene.upload("t").put_parts(objects, scene.running.reserve(1), &[(short, 30), (whole, 0)]);
    Upload { log_start: 35, ..scene.upload("t") }.put_parts(objects, scene.running.reserve(1), &[(short, 40)]);
    let asked = RebuildSettings { without_snapshot: true, ..settings() };
    let (rebuilt, cluster) = scene.rebuilt_by(&asked).expect("rebuilt");
    assert_eq!(extent_of(&cluster, short), Some((35, 50, vec![30, 40])), "{:?}", rebuilt.notes);
    assert_eq!(extent_of(&cluster, whole), Some((0, 10, vec![0])), "{:?}", rebuilt.notes);
    assert_eq!((rebuilt.tail_objects, rebuilt.unused_objects.len()), (2, 0));
}

#[test]
fn of_an_object_that_contradicts_others_only_what_does_not_fit_is_left_out() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 2);
    let scene = scene.snapshot();
    let [one, other] = [0, 1].map(|index| PartitionId { topic, index });
    let objects = &scene.world.objects;
    // By one partition the first object is the earlier one, by the other the second.
    let first = scene.upload("t").put_parts(objects, scene.running.reserve(1), &[(one, 0), (other, 10)]);
    scene.upload("t").put_parts(objects, scene.running.reserve(1), &[(one, 10), (other, 0)]);
    let refused = scene.rebuilt_by(&settings()).err().expect("refused").to_string();
    assert!(refused.contains(first.key.as_str()) && refused.contains("t-1 contradicts"), "{refused}");
    let accepted = RebuildSettings { accept_loss: true, ..settings() };
    let (rebuilt, cluster) = scene.rebuilt_by(&accepted).expect("accepted");
    assert_eq!(extent_of(&cluster, one), Some((0, 20, vec![0, 10])), "{:?}", rebuilt.notes);
    assert_eq!(extent_of(&cluster, other), Some((0, 10, vec![0])), "{:?}", rebuilt.notes);
    assert!(rebuilt.notes.iter().any(|note| note.contains("t-1 contradicts")), "{:?}", rebuilt.notes);
}

#[test]
fn another_node_is_refused_and_missing_slices_are_told_or_kept() {
    let mut world = World::new();
    let cluster = world.open();
    let slice = SliceRecord { id: [7; 16], shard: ShardId(0), path: "/lost/slice-0.wal".into(), closed_empty: false };
    cluster.record_slice(&slice).expect("recorded");
    let cluster_id = cluster.cluster_id().to_string();
    let scene = Scene { running: run_with(cluster, None), world, cluster_id }.snapshot();
    let other = RebuildSettings { node: NodeId(2), ..settings() };
    assert!(scene.rebuilt_by(&other).err().expect("refused").to_string().contains("\"node.id\" = 1"));
    let (rebuilt, cluster) = scene.rebuilt();
    assert!(cluster.slices().expect("readable").is_empty());
    assert!(rebuilt.notes.iter().any(|note| note.contains("/lost/slice-0.wal")), "{:?}", rebuilt.notes);
    let asked = RebuildSettings { keep_missing_slices: true, ..settings() };
    assert_eq!(scene.rebuilt_by(&asked).expect("rebuilt").1.slices().expect("readable"), [slice]);
    // A start with another number of shards has moved what it held, and no snapshot was written since.
    let newer = SliceRecord { id: [8; 16], shard: ShardId(0), path: "/here/slice-0.wal".into(), closed_empty: false };
    let moved = RebuildSettings { slices: vec![newer.clone()], ..asked };
    assert_eq!(scene.rebuilt_by(&moved).expect("rebuilt").1.slices().expect("readable"), [newer]);
}

#[test]
fn slices_count_as_moved_only_to_a_whole_set_of_new_ones() {
    let slice = |n: u8, shard: u16| SliceRecord {
        id: [n; 16],
        shard: ShardId(shard),
        path: format!("/wal/slice-{n}.wal").into(),
        closed_empty: false,
    };
    let mut world = World::new();
    let cluster = world.open();
    let old = [slice(1, 0), slice(2, 1)];
    old.iter().for_each(|slice| cluster.record_slice(slice).expect("recorded"));
    let cluster_id = cluster.cluster_id().to_string();
    let scene = Scene { running: run_with(cluster, None), world, cluster_id }.snapshot();
    let asked_for = |here: &[SliceRecord]| {
        let settings = RebuildSettings { slices: here.to_vec(), keep_missing_slices: true, ..settings() };
        let recorded = scene.rebuilt_by(&settings).expect("rebuilt").1.slices().expect("readable");
        recorded.iter().map(|slice| slice.id[0]).collect::<Vec<_>>()
    };
    assert_eq!(asked_for(&[slice(3, 0), slice(4, 1)]), [3, 4]);
    assert_eq!(asked_for(&[slice(4, 1)]), [1, 2, 4], "where is the new one of shard 0?");
    assert_eq!(asked_for(&[slice(2, 1), slice(3, 0)]), [1, 2, 3], "an old one is here still");
    // Lost, and made anew under another id where the old one lay.
    let anew = |n, of: u8| SliceRecord { path: slice(of, 0).path, ..slice(n, u16::from(of) - 1) };
    assert_eq!(asked_for(&[anew(3, 1), slice(2, 1)]), [2, 3], "nobody can find the old one any more");
    assert_eq!(asked_for(&[anew(3, 1)]), [2, 3], "the other one is missing");
    assert_eq!(asked_for(&[anew(3, 1), slice(4, 0), slice(5, 1)]), [2, 3, 4, 5], "some were not moved yet");
    assert_eq!(asked_for(&[anew(3, 1), anew(4, 2)]), [3, 4]);
}

#[test]
fn a_slice_that_was_given_up_and_is_found_again_is_none_of_the_log() {
    let slice =
        |n: u8, path: &str| SliceRecord { id: [n; 16], shard: ShardId(0), path: path.into(), closed_empty: false };
    let (lost, new) = (slice(1, "/wal/slice-1.wal"), slice(2, "/wal/slice-2.wal"));
    let mut world = World::new();
    let cluster = world.open();
    cluster.record_slice(&lost).expect("recorded");
    let (old, of_today, given_up) = ([lost.clone()], [new.clone()], [lost.clone()]);
    cluster.replace_slices(&old, &of_today, &given_up).expect("replaced");
    assert_eq!(cluster.lost_slices().expect("readable"), given_up);
    let cluster_id = cluster.cluster_id().to_string();
    let scene = Scene { running: run_with(cluster, None), world, cluster_id }.snapshot();
    let here = RebuildSettings { slices: vec![lost.clone(), new.clone()], keep_missing_slices: true, ..settings() };
    let (rebuilt, cluster) = scene.rebuilt_by(&here).expect("rebuilt");
    assert_eq!(
        cluster.slices().expect("readable"),
        [new],
        "the other may hold what was acknowledged before the loss only"
    );
    assert_eq!(cluster.lost_slices().expect("readable"), [lost], "and the next start leaves its file alone");
    assert!(rebuilt.notes.iter().any(|note| note.contains("given up as lost")), "{:?}", rebuilt.notes);
}

#[test]
fn a_later_epoch_inside_of_what_is_taken_is_not_passed_over_in_silence() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    scene.committed("t", topic, 0);
    let id = scene.running.reserve(1);
    let stray = Upload { epoch: 3, ..scene.upload("t") }.put(&scene.world.objects, id, &[(topic, 5)]);
    let refused = scene.rebuilt_by(&settings()).err().expect("refused").to_string();
    assert!(refused.contains(stray.key.as_str()) && refused.contains("--accept-loss"), "{refused}");
    let accepted = RebuildSettings { accept_loss: true, ..settings() };
    let (rebuilt, cluster) = scene.rebuilt_by(&accepted).expect("accepted");
    assert_eq!(extent(&cluster, topic), Some((0, 10, vec![0])));
    assert!(rebuilt.notes.iter().any(|note| note.contains("leader epoch 3 of t-0")), "{:?}", rebuilt.notes);
}

/// Does something when objects begin to be verified.
struct Meanwhile<F: Fn()>(F);

impl<F: Fn()> Progress for Meanwhile<F> {
    fn begin(&self, what: &str, _bytes: u64) {
        if what == "verifying objects" {
            (self.0)();
        }
    }

    fn advance(&self, _bytes: u64) {}

    fn end(&self) {}

    fn note(&self, _text: &str) {}
}

#[test]
fn verify_tells_what_is_wrong_and_not_what_a_running_broker_changes_meanwhile() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let first = scene.committed("t", topic, 0);
    scene.committed("t", topic, 10);
    let scene = scene.snapshot();
    let left_over = scene.upload("t").put(&scene.world.objects, ObjectId(1 << 40), &[(topic, 500)]);
    let objects = scene.world.objects.clone();
    let content = objects.objects()[&first.key].clone();
    let lost = Meanwhile(|| block_on(objects.delete(&first.key)).expect("memory"));
    let (_, found) = verify_bucket(&objects, &settings(), &lost).expect("verified");
    assert!(found.problems.len() == 1 && found.problems[0].ends_with("it is missing"), "{found:?}");
    assert_eq!(found.orphans, [left_over.key.to_string()]);

    block_on(objects.put(&first.key, vec![content], PutCondition::IfAbsent)).expect("memory");
    let running = std::cell::RefCell::new(Some(scene));
    let lives = Meanwhile(|| {
        let Some(scene) = running.borrow_mut().take() else { return };
        scene.running.raise(PartitionId { topic, index: 0 }, 10);
        scene.committed("t", topic, 20);
        let scene = scene.snapshot();
        block_on(objects.delete(&first.key)).expect("memory");
        scene.running.stop();
    });
    let (_, found) = verify_bucket(&objects, &settings(), &lives).expect("verified");
    assert_eq!((found.problems, found.orphans), (vec![], vec![left_over.key.to_string()]));
}

#[test]
fn records_in_the_log_of_a_topic_that_the_bucket_does_not_know_are_not_dropped_in_silence() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    let unknown = TopicId([9; 16]);
    let held = [topic, unknown].map(|topic| PartitionId { topic, index: 0 });
    let held = RebuildSettings { slices_hold: BTreeSet::from(held), ..settings() };
    let refused = scene.rebuilt_by(&held).err().expect("refused").to_string();
    assert!(refused.contains(&unknown.to_string()) && refused.contains("--accept-loss"), "{refused}");
    let (rebuilt, _) = scene.rebuilt_by(&RebuildSettings { accept_loss: true, ..held }).expect("accepted");
    assert!(rebuilt.notes.iter().any(|note| note.contains("drops them")), "{:?}", rebuilt.notes);
}

#[test]
fn partitions_that_only_the_log_knows_are_there() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    let held = BTreeSet::from([PartitionId { topic, index: 3 }]);
    let (rebuilt, _) = scene.rebuilt_by(&RebuildSettings { slices_hold: held, ..settings() }).expect("rebuilt");
    assert_eq!((rebuilt.topics, rebuilt.partitions), (1, 4));
}

#[test]
fn an_object_that_cannot_be_read_is_not_passed_over_in_silence() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    let scene = scene.snapshot();
    let key = scene.committed("t", topic, 0).key;
    block_on(scene.world.objects.put(&key, vec!["garbage".into()], PutCondition::Always)).expect("memory");
    let refused = scene.rebuilt_by(&settings()).err().expect("refused").to_string();
    assert!(refused.contains(key.as_str()) && refused.contains("--accept-loss"), "{refused}");
    let (rebuilt, _) = scene.rebuilt_by(&RebuildSettings { accept_loss: true, ..settings() }).expect("accepted");
    assert!(rebuilt.notes.iter().any(|note| note.contains("passed over")), "{:?}", rebuilt.notes);
}

#[test]
fn two_rebuilds_of_one_bucket_give_out_other_ids() {
    let scene = Scene::new().snapshot();
    let next = |random| {
        let store = Arc::new(MemoryStore::new());
        let settings = RebuildSettings { random, ..settings() };
        block_on(rebuild(&scene.world.objects, store.clone(), &settings, &LogNotes)).expect("rebuilt");
        [keys::NEXT_OBJECT.to_vec(), keys::node(NodeId(1))].map(|key| store.get(&key).expect("memory").map(|v| v.value))
    };
    let (one, other) = (next(0x1234_5678_9abc_def0), next(0xfedc_ba98_7654_3210));
    assert!(one[0] != other[0] && one[1] != other[1], "{one:?}");
}

#[test]
fn metadata_rebuilt_while_its_broker_went_on_is_out_of_date() {
    let scene = Scene::new().snapshot();
    let store = Arc::new(MemoryStore::new());
    block_on(rebuild(&scene.world.objects, store.clone(), &settings(), &LogNotes)).expect("rebuilt");
    scene.running.create_one("later", 1);
    let scene = scene.snapshot();
    let mine = settings_of(1, std::path::Path::new("elsewhere"), 9);
    let refused = Cluster::open_on(store, mine, &scene.world.objects).err().expect("refused");
    assert!(matches!(refused, ClusterError::OutOfDate { found: 2, .. }), "{refused}");
}

#[test]
fn metadata_comes_to_its_place_whole_and_what_lay_there_is_moved_aside() {
    let scene = Scene::new();
    let topic = scene.running.create_one("t", 1);
    scene.committed("t", topic, 0);
    let scene = scene.snapshot();
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    std::fs::create_dir_all(data.join("metadata")).expect("made");
    std::fs::write(data.join("metadata/db"), "damaged").expect("written");
    let restored = |settings: &RebuildSettings| {
        restore(&data, &open_sled, &scene.world.objects, settings, &LogNotes).map(|(_, aside)| aside)
    };
    // One that fails, and leaves its draft, changes nothing.
    restored(&RebuildSettings { node: NodeId(2), ..settings() }).expect_err("another's");
    assert_eq!(std::fs::read(data.join("metadata/db")).expect("there"), b"damaged");
    for n in 1..3 {
        assert_eq!(restored(&settings()).expect("rebuilt"), Some(data.join(format!("metadata.aside-{n}"))));
    }
    assert_eq!(std::fs::read(data.join("metadata.aside-1/db")).expect("kept"), b"damaged");
    let left: Vec<_> =
        std::fs::read_dir(&data).expect("a directory").map(|e| e.expect("readable").file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    let mut elsewhere = World { objects: scene.world.objects.clone(), ..World::new() };
    let cluster = elsewhere.open_on(open_sled(&data.join("metadata")).expect("opens"));
    assert_eq!(extent(&cluster, topic), Some((0, 10, vec![0])));
}

#[test]
fn settings_that_were_altered_come_back() {
    let scene = Scene::new();
    let set = |name: &str, value: &str| vec![ConfigOp::Set(name.into(), value.into())];
    for (target, ops) in [
        (ConfigTarget::Broker, set("log.retention.ms", "5")),
        (ConfigTarget::Brokers, set("message.max.bytes", "6")),
        (ConfigTarget::Group("g".into()), set("consumer.session.timeout.ms", "50000")),
    ] {
        assert_eq!(scene.running.alter_of(target, ops, false), Ok(()));
    }
    let altered = scene.running.snapshot().altered.clone();
    let (_, cluster) = scene.snapshot().rebuilt();
    assert_eq!(cluster.snapshot().altered, altered);
    assert_eq!(altered.of_broker("message.max.bytes"), Some("6"));
}
