//! Snapshots and deletions of running actors, on stores in memory; the alarm is the test's.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use flume::Receiver;
use futures_lite::future::block_on;
use thalweg_objectstore::{
    Call, Fate, FaultHook, ObjectStore, Operation, PutCondition, StoreError,
    format::{ManifestEntry, WINDOW_BATCHES},
};
use thalweg_record::{LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId, Wall};
use thalweg_shards::{
    meta::{CommitRange, Fold, FoldOutcome, ManifestRef, MetaRequest, ObjectCommit, ObjectId},
    msg::{ProducerBatch, ProducerEntry},
};

use super::*;
use crate::cluster::{
    ClusterError, ControlRequest, keys,
    partition::Manifest,
    schema::{self, BlockRecord, FoldedRecord, ManifestRecord, ObjectRecord},
    store::{MetadataStore, SledStore, Write},
    tests::{Running, World, commit, run_with, topic},
};

fn partition(topic: TopicId, index: i32) -> PartitionId {
    PartitionId { topic, index }
}

/// An alarm that rings when the test says so.
pub(in crate::cluster) struct Alarm {
    ring: flume::Sender<()>,
    asked: Arc<AtomicU64>,
}

impl Alarm {
    /// The ports of a keeper that looks at every ring, each an interval.
    pub(in crate::cluster) fn ports(world: &World) -> (Alarm, BucketPorts) {
        let (ring, rings): (_, Receiver<()>) = flume::bounded(0);
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let sleep = move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let rings = rings.clone();
            Box::pin(async move {
                if rings.recv_async().await.is_err() {
                    futures_lite::future::pending().await
                }
            }) as Pin<Box<dyn Future<Output = ()> + Send>>
        };
        let objects = Arc::new(world.objects.clone());
        let ports = BucketPorts { objects, interval: Duration::from_millis(1), sleep: Box::new(sleep) };
        (Alarm { ring, asked }, ports)
    }

    /// Lets an interval pass; returns when the keeper has done what was due.
    pub(in crate::cluster) fn interval(&self) {
        // The keeper is asleep when it has asked; a ring is taken by it alone.
        let asked = self.asked.load(Ordering::SeqCst);
        self.ring.send(()).expect("the keeper runs");
        while self.asked.load(Ordering::SeqCst) == asked {
            std::thread::yield_now();
        }
    }
}

fn start(world: &mut World) -> (Running, Alarm) {
    let (alarm, ports) = Alarm::ports(world);
    let running = run_with(world.open(), Some(ports));
    // Asleep for the first time.
    while alarm.asked.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    (running, alarm)
}

fn sequences(world: &World) -> Vec<u64> {
    block_on(stored::list(&world.objects)).expect("memory")
}

fn newest(world: &World) -> format::MetadataSnapshot {
    let sequence = *sequences(world).last().expect("there is one");
    let bytes = world.objects.objects()[&stored::key(sequence)].clone();
    format::MetadataSnapshot::decode(&bytes).expect("valid")
}

fn put_object(world: &World, object: &ObjectCommit) {
    let content = vec![Bytes::from_static(b"records")];
    block_on(world.objects.put(&object.key, content, PutCondition::IfAbsent)).expect("memory");
}

fn has(world: &World, object: &ObjectCommit) -> bool {
    world.objects.objects().contains_key(&object.key)
}

#[test]
fn a_snapshot_is_written_when_something_has_changed_and_two_are_kept() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    alarm.interval();
    assert_eq!(sequences(&world), [1], "a new epoch");
    alarm.interval();
    assert_eq!(sequences(&world), [1], "nothing has changed");
    for n in 0..4 {
        running.create_one(&format!("t{n}"), 1);
        alarm.interval();
    }
    assert_eq!(sequences(&world), [4, 5]);
    let snapshot = newest(&world);
    let entries = world.store.range(b"", None, usize::MAX).expect("memory");
    assert_eq!((snapshot.entries, snapshot.head.revision), (entries, world.store.revision()));
    running.stop();
}

#[test]
fn what_uploads_change_alone_waits_for_two_intervals() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    let topic = running.create_one("t", 1);
    alarm.interval();
    let mut next = 0;
    let mut upload = || {
        let object = commit(running.reserve(1), &[(partition(topic, 0), next, next + 9)]);
        next += 10;
        put_object(&world, &object);
        running.commit(object);
    };
    let mut newest = || {
        upload();
        alarm.interval();
        sequences(&world).pop().expect("one at least")
    };
    assert_eq!([newest(), newest(), newest(), newest(), newest()], [1, 2, 2, 3, 3]);
    running.raise(partition(topic, 0), 5);
    assert_eq!([newest(), newest(), newest()], [4, 4, 5], "no object tells of it yet");
    running.stop();
}

/// Bytes of records in a snapshot, with numbers as after weeks, and one producer with a full window in each range. docs/costs.md, and the
/// model that it is counted by (`shards/src/compaction/plan/tests/cost.rs`), reckon with these.
#[test]
fn what_records_weigh_in_a_snapshot() {
    let (id, epoch, offset, sequence) = (ObjectId(20_000_000), 30, 5_000_000_000, 2_000_000_000);
    let of = partition(TopicId([200; 16]), 99);
    let window = vec![
        ProducerBatch {
            first_sequence: sequence,
            last_sequence: sequence,
            base_offset: Offset(offset),
            last_offset: Offset(offset),
        };
        WINDOW_BATCHES
    ];
    let time = Wall(1_790_000_000_000);
    let range = CommitRange {
        partition: of,
        base: Offset(offset),
        last: Offset(offset),
        size_bytes: 5 << 20,
        max_timestamp: time,
        epochs: vec![(LeaderEpoch(epoch), Offset(offset))],
        producers: vec![ProducerEntry { producer_id: 1_000_000, epoch: 0, window, last_timestamp: time }],
    };
    let key = thalweg_objectstore::data_key(id.0, NodeId(1), 30);
    let object = |ranges: usize| {
        let ranges = vec![range.clone(); ranges];
        let commit = ObjectCommit { object: id, key: key.clone(), object_bytes: 260 << 20, ranges };
        schema::encode(&ObjectRecord::new(&commit, 15, epoch).at_level(1))
    };
    let (base, last, key) = (Offset(offset), Offset(offset), thalweg_objectstore::manifest_key(id.0, NodeId(1), 30));
    let manifest = Manifest {
        of: ManifestRef { id, key, bytes: 9_000, base, last, entries: 100, size_bytes: 500 << 20, max_timestamp: time },
        shard: 15,
        epoch,
    };
    let folded = FoldedRecord {
        key: thalweg_objectstore::data_key(id.0, NodeId(1), 30).as_str().into(),
        bytes: 260 << 20,
        shard: 15,
        epoch,
        level: 1,
        range_bytes: 260 << 20,
        ranges: 50,
        listed_bytes: 260 << 20,
    };
    let block = BlockRecord { node: 1, epoch, shard: 15, count: 1 };
    // Length of the key, revision, length of the value.
    let entry = |key: Vec<u8>, value: Vec<u8>| 2 + key.len() + 8 + 4 + value.len();
    let weights = [
        ("object", entry(keys::object(id), object(0))),
        ("range", object(2).len() - object(1).len()),
        ("what manifests list of an object", entry(keys::folded(id), schema::encode(&folded))),
        ("manifest", entry(keys::manifest(of, base), schema::encode(&ManifestRecord::new(of, &manifest)))),
        ("reservation", entry(keys::block(id), schema::encode(&block))),
    ];
    println!("{weights:?}");
    let reckoned =
        [144, 362, 193, 319, 82].into_iter().zip(weights).all(|(reckoned, (_, weight))| weight.abs_diff(reckoned) <= 4);
    assert!(reckoned, "{weights:?}");
}

#[test]
fn a_change_of_rules_or_credentials_does_not_wait_for_its_snapshot() {
    let mut world = World::new();
    let (alarm, ports) = Alarm::ports(&world);
    let ports = BucketPorts { interval: Duration::from_secs(3600), ..ports };
    let running = run_with(world.open(), Some(ports));
    while alarm.asked.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // A second each.
    alarm.interval();
    running.create_one("t", 1);
    alarm.interval();
    assert_eq!(sequences(&world), [1], "a topic has time");
    let rules = vec![crate::auth::tests::rule("topic literal a User:x * read deny")];
    let created = running.control(|reply| ControlRequest::CreateAcls { rules, reply });
    assert_eq!(created, [Ok(())]);
    alarm.interval();
    assert_eq!(sequences(&world), [1, 2], "a rule has none");
    alarm.interval();
    assert_eq!(sequences(&world), [1, 2], "once");
    running.stop();
}

#[test]
fn a_stop_writes_what_changed_since() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    alarm.interval();
    running.create_one("late", 1);
    let objects = Arc::new(world.objects.clone());
    running.stop().write_last_snapshot(objects.clone(), Duration::from_secs(10)).expect("written");
    assert_eq!(sequences(&world), [1, 2]);
    assert_eq!(newest(&world).head.revision, world.store.revision());
    let again = run_with(world.open(), None).stop();
    again.write_last_snapshot(objects.clone(), Duration::from_secs(10)).expect("written");
    assert_eq!(sequences(&world), [2, 3], "a new epoch, and no more than two");
}

/// Fails calls of one kind while told so.
struct Failing {
    operation: Operation,
    fate: Mutex<Option<Fate>>,
}

impl FaultHook for Failing {
    fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
        let own = self.operation == Operation::Put || !call.key.starts_with("metadata/");
        let ours = call.operation == self.operation && own && !call.key.contains("cluster");
        let fate = self.fate.lock().unwrap().clone().filter(|_| ours).unwrap_or(Fate::Pass);
        Box::pin(async move { fate })
    }
}

fn failing(world: &World, operation: Operation, fate: Fate) -> Arc<Failing> {
    let hook = Arc::new(Failing { operation, fate: Mutex::new(Some(fate)) });
    world.objects.set_hook(Some(hook.clone()));
    hook
}

/// Lets intervals pass until it holds: after a failure the keeper waits.
fn until(alarm: &Alarm, holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        alarm.interval();
    }
    panic!("it does not come to hold");
}

#[test]
fn a_failed_write_is_tried_again_and_one_whose_answer_was_lost_is_not_taken_for_a_strangers() {
    let mut world = World::new();
    let lost = || StoreError::Retry("lost".into());
    let hook = failing(&world, Operation::Put, Fate::FailBefore(lost()));
    let (running, alarm) = start(&mut world);
    (0..10).for_each(|_| alarm.interval());
    assert!(sequences(&world).is_empty());
    *hook.fate.lock().unwrap() = Some(Fate::FailAfter(lost()));
    until(&alarm, || sequences(&world) == [1]);
    *hook.fate.lock().unwrap() = None;
    until(&alarm, || sequences(&world) == [1, 2]);
    running.stop();
}

#[test]
fn a_broker_that_was_replaced_ends() {
    let mut world = World::new();
    run_with(world.open(), None).stop();
    let mut elsewhere = World { objects: world.objects.clone(), ..World::new() };
    for (key, found) in world.store.range(b"", None, usize::MAX).expect("memory") {
        elsewhere.store.transact(&[], &[Write::Put(key, found.value)]).expect("memory");
    }
    let newer = (0..3).map(|_| run_with(elsewhere.open(), None).stop()).last().expect("three");
    let cluster = world.open();
    newer.write_last_snapshot(Arc::new(world.objects.clone()), Duration::from_secs(10)).expect("written");
    let ended = cluster.write_last_snapshot(Arc::new(world.objects.clone()), Duration::from_secs(10));
    assert!(ended.expect_err("replaced").contains("rebuilt elsewhere"));
}

#[test]
fn dead_objects_go_when_no_snapshot_names_them_and_not_before() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    let (kept, gone) = (running.create_one("kept", 1), running.create_one("gone", 1));
    let first = running.reserve(3);
    let id = |n| ObjectId(first.0 + n);
    let shared = commit(id(0), &[(partition(kept, 0), 0, 9), (partition(gone, 0), 0, 9)]);
    let own = commit(id(1), &[(partition(gone, 0), 10, 19)]);
    for object in [&shared, &own] {
        put_object(&world, object);
        running.commit(object.clone());
    }
    alarm.interval();
    running.delete(gone).expect("deleted");
    assert!(has(&world, &own));
    alarm.interval();
    // The newest snapshot lists it as garbage, the one before names it.
    assert!(has(&world, &own));
    alarm.interval();
    alarm.interval();
    assert!(!has(&world, &own), "no snapshot names it, though nothing else has changed");
    assert!(has(&world, &shared), "another topic needs it");
    running.raise(partition(kept, 0), 10);
    (0..4).for_each(|_| alarm.interval());
    assert!(!has(&world, &shared));
    until(&alarm, || !newest(&world).entries.iter().any(|(key, _)| key.starts_with(b"garbage/")));
    running.stop();
}

#[test]
fn a_deletion_is_repeated_after_failures_and_after_a_crash_at_any_step() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    let topic = running.create_one("t", 1);
    let object = commit(running.reserve(1), &[(partition(topic, 0), 0, 9)]);
    put_object(&world, &object);
    running.commit(object.clone());
    running.delete(topic).expect("deleted");
    let hook = failing(&world, Operation::Delete, Fate::FailBefore(StoreError::Retry("no".into())));
    (0..10).for_each(|_| alarm.interval());
    assert!(has(&world, &object));
    // The process dies; what its successor knows of the bucket's snapshots it finds by itself.
    running.stop();
    world.store.crash();
    *hook.fate.lock().unwrap() = Some(Fate::FailAfter(StoreError::Retry("lost".into())));
    let (running, alarm) = start(&mut world);
    until(&alarm, || !has(&world, &object));
    assert!(newest(&world).entries.iter().any(|(key, _)| key.starts_with(b"garbage/")), "it does not know yet");
    running.stop();
    world.store.crash();
    *hook.fate.lock().unwrap() = None;
    let (running, alarm) = start(&mut world);
    until(&alarm, || !newest(&world).entries.iter().any(|(key, _)| key.starts_with(b"garbage/")));
    running.stop();
}

/// Refuses to delete objects whose ids are below a bound, and counts how often.
struct Stubborn {
    below: u64,
    refused: AtomicU64,
}

impl FaultHook for Stubborn {
    fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
        let id = thalweg_objectstore::ObjectKey::new(call.key.to_owned()).ok();
        let id = id.and_then(|key| thalweg_objectstore::parse_data_key(&key)).map(|(id, ..)| id);
        let refuses = call.operation == Operation::Delete && id.is_some_and(|id| id < self.below);
        if refuses {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        let no = Fate::FailBefore(StoreError::Refused("no".into()));
        Box::pin(async move { if refuses { no } else { Fate::Pass } })
    }
}

#[test]
fn a_batch_of_objects_that_do_not_go_leaves_the_others_their_turn() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    let topic = running.create_one("t", 1);
    let first = running.reserve(20);
    let object = |n: u64| {
        let mut object = commit(ObjectId(first.0 + n), &[(partition(topic, 0), 10 * n as i64, 10 * n as i64 + 9)]);
        object.key = thalweg_objectstore::data_key(first.0 + n, NodeId(1), 0);
        object
    };
    (0..20).for_each(|n| drop(running.commit(object(n))));
    put_object(&world, &object(15));
    running.delete(topic).expect("deleted");
    let hook = Arc::new(Stubborn { below: first.0 + 12, refused: AtomicU64::new(0) });
    world.objects.set_hook(Some(hook.clone()));
    until(&alarm, || !has(&world, &object(15)));
    let (before, intervals) = (hook.refused.load(Ordering::SeqCst), 200);
    (0..intervals).for_each(|_| alarm.interval());
    let tries = hook.refused.load(Ordering::SeqCst) - before;
    assert!(tries < 12 * intervals / 10, "{tries} tries in {intervals} intervals: each waits longer and longer");
    running.stop();
}

/// While it is told so, manifests cannot be read; counts who tries.
struct Unreadable {
    fails: AtomicBool,
    tries: AtomicU64,
}

impl FaultHook for Unreadable {
    fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
        let of_manifest = call.operation == Operation::GetRange && call.key.starts_with("manifests/");
        let fails = of_manifest && self.fails.load(Ordering::SeqCst);
        self.tries.fetch_add(of_manifest.into(), Ordering::SeqCst);
        let no = Fate::FailBefore(StoreError::Retry("no".into()));
        Box::pin(async move { if fails { no } else { Fate::Pass } })
    }
}

/// Commits an object of a partition, and has a manifest list it.
fn folded(world: &World, running: &Running, partition: PartitionId) {
    let id = running.reserve(2);
    let manifest = ObjectId(id.0 + 1);
    let object = commit(id, &[(partition, 0, 9)]);
    put_object(world, &object);
    running.commit(object.clone());
    let range = &object.ranges[0];
    let entry = ManifestEntry {
        object: id.0,
        key: object.key.clone(),
        object_bytes: object.object_bytes,
        base: range.base,
        last: range.last,
        size_bytes: range.size_bytes,
        max_timestamp: range.max_timestamp,
        epoch: LeaderEpoch(0),
        level: 0,
    };
    let content = thalweg_objectstore::format::Manifest { id: manifest.0, partition, entries: vec![entry] }.encode();
    let (key, bytes) = (thalweg_objectstore::manifest_key(manifest.0, NodeId(1), 0), content.len() as u64);
    block_on(world.objects.put(&key, vec![content.into()], PutCondition::IfAbsent)).expect("memory");
    let parts = vec![(id, range.base, range.last)];
    let fold = Box::new(Fold { manifest, key, bytes, partition, parts });
    let outcome = running.meta(|reply| MetaRequest::Fold { shard: ShardId(0), fold, reply });
    assert!(matches!(outcome, FoldOutcome::Folded(_)), "{outcome:?}");
}

#[test]
fn one_manifest_is_tried_at_a_time_while_none_can_be_read_and_all_are_released_later() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    let topic = running.create_one("t", 6);
    (0..6).for_each(|index| folded(&world, &running, partition(topic, index)));
    let hook = Arc::new(Unreadable { fails: AtomicBool::new(true), tries: AtomicU64::new(0) });
    world.objects.set_hook(Some(hook.clone()));
    running.delete(topic).expect("deleted");
    (0..200).for_each(|_| alarm.interval());
    assert_eq!(hook.tries.load(Ordering::SeqCst), 1, "the keeper does not hammer a store that fails, nor wait for it");
    assert!(newest(&world).entries.iter().any(|(key, _)| key.starts_with(b"dead-manifest/")), "snapshots go on");
    hook.fails.store(false, Ordering::SeqCst);
    let left = || world.objects.objects().keys().filter(|key| !key.as_str().starts_with("metadata/")).count();
    let others = 1;
    until(&alarm, || left() == others);
    running.stop();
}

#[test]
fn an_object_whose_topics_went_before_its_commit_is_deleted() {
    let mut world = World::new();
    let (running, alarm) = start(&mut world);
    let topic = running.create_one("t", 1);
    let id = running.reserve(1);
    let mut object = commit(id, &[(partition(topic, 0), 0, 9)]);
    object.key = thalweg_objectstore::data_key(id.0, NodeId(1), 0);
    put_object(&world, &object);
    running.delete(topic).expect("deleted");
    running.commit(object.clone());
    until(&alarm, || !has(&world, &object));
    running.stop();
}

/// With `--nocapture` it tells how long a copy of 10,000 topics takes, and its longest page.
#[test]
fn a_copy_of_ten_thousand_topics_holds_nothing_up() -> Result<(), ClusterError> {
    let dir = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn MetadataStore> = Arc::new(SledStore::open(&dir.path().join("metadata"))?);
    let mut world = World::new();
    let running = run_with(world.open_on(store.clone()), None);
    for n in 0..100 {
        let topics = (0..100).map(|m| topic(&format!("topic-{n}-{m}"), 1)).collect();
        assert!(running.create(topics).iter().all(Result::is_ok));
    }
    running.stop();
    let (mut pages, mut entries, mut longest, began) = (0, 0, Duration::ZERO, Instant::now());
    let mut copy = Copy::begin(&*store);
    loop {
        let page = Instant::now();
        let Some(found) = copy.page(&*store)? else { break };
        (pages, entries, longest) = (pages + 1, entries + found.len(), longest.max(page.elapsed()));
    }
    println!("{entries} entries in {pages} pages: {:?}, the longest page {longest:?}", began.elapsed());
    assert!(entries > 20_000 && longest < Duration::from_millis(100));
    Ok(())
}
