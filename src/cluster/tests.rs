//! The metadata as a whole: opening, actors, crashes; shards and edges are played by threads.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flume::{Receiver, Sender};
use thalweg_objectstore::{MemoryStore as Objects, ObjectKey};
use thalweg_record::{LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId, Wall};
use thalweg_shards::{
    mailbox::{ShardInbox, shard_lanes},
    meta::{CommitOutcome, CommitRange, MetaRequest, ObjectCommit, ObjectId},
    msg::{CleanerTuning, Control, Millionths, PartitionChange, PartitionSpec, ProducerEntry},
};

use super::{
    store::{MemoryStore, MetadataStore, open_sled},
    *,
};

const SHARDS: u16 = 2;

pub(super) fn settings_of(node: i32, data_dir: &Path, seed: u64) -> ClusterSettings {
    let mut state = seed;
    ClusterSettings {
        data_dir: data_dir.to_owned(),
        object_store_url: "memory:".into(),
        broker: BrokerView { node: NodeId(node), host: "localhost".into(), port: 9092, rack: None },
        shards: SHARDS,
        defaults: topic_config::test_defaults(),
        producer_expiration_ms: 1000,
        cleaner: CleanerTuning {
            backoff: Duration::from_secs(15),
            dedupe_bytes: 1 << 20,
            load_factor: Millionths(900_000),
        },
        wall: Box::new(|| Wall(10_000)),
        random: Box::new(move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ (state >> 29)
        }),
        no_growth: Box::new(|| None),
    }
}

/// A store, a bucket, and how often they were opened.
pub(super) struct World {
    pub(super) store: MemoryStore,
    pub(super) objects: Objects,
    pub(super) opened: u64,
}

impl World {
    pub(super) fn new() -> World {
        World { store: MemoryStore::new(), objects: Objects::new(), opened: 0 }
    }

    pub(super) fn open(&mut self) -> Cluster {
        self.open_on(Arc::new(self.store.clone()))
    }

    /// As [`World::open`], after the crash of a broker that ran.
    pub(super) fn opened_after(mut self, running: Running) -> (World, Cluster) {
        drop(running.stop());
        self.store.crash();
        let cluster = self.open();
        (self, cluster)
    }

    /// As [`World::open`], on a disk that is nearly full while `full` says so.
    pub(super) fn open_beside(&mut self, full: &Arc<AtomicBool>) -> Cluster {
        self.opened += 1;
        let full = full.clone();
        let no_growth = move || full.load(Ordering::SeqCst).then(|| "nearly full".to_owned());
        let settings = settings_of(1, Path::new("data"), self.opened);
        let settings = ClusterSettings { no_growth: Box::new(no_growth), ..settings };
        Cluster::open_on(Arc::new(self.store.clone()), settings, &self.objects).expect("opens")
    }

    pub(super) fn open_on(&mut self, store: Arc<dyn MetadataStore>) -> Cluster {
        self.opened += 1;
        let settings = settings_of(1, Path::new("data"), self.opened);
        Cluster::open_on(store, settings, &self.objects).expect("opens")
    }
}

/// Running actors; shards and edges acknowledge everything.
pub(super) struct Running {
    lanes: ClusterLanes,
    thread: ClusterThread,
    changes: Arc<Mutex<Vec<(ShardId, PartitionChange)>>>,
    snapshot: Arc<Mutex<Arc<ClusterSnapshot>>>,
}

fn inboxes() -> (Vec<thalweg_shards::mailbox::ShardLane>, Vec<ShardInbox>) {
    (0..SHARDS).map(|id| shard_lanes(ShardId(id))).unzip()
}

fn fatal(why: &str) {
    panic!("fatal: {why}");
}

pub(super) fn run(cluster: Cluster) -> Running {
    run_with(cluster, None)
}

pub(super) fn run_with(cluster: Cluster, bucket: Option<BucketPorts>) -> Running {
    let (shards, ends) = inboxes();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let snapshot = Arc::new(Mutex::new(cluster.snapshot()));
    for inbox in ends {
        let log = changes.clone();
        std::thread::spawn(move || {
            while let Ok(control) = inbox.control.recv() {
                let Control::Apply { changes, done, .. } = control else { continue };
                log.lock().unwrap().extend(changes.into_iter().map(|change| (inbox.id, change)));
                done.send(inbox.id).unwrap();
            }
        });
    }
    let (edge, updates): (Sender<SnapshotUpdate>, Receiver<SnapshotUpdate>) = flume::unbounded();
    let newest = snapshot.clone();
    std::thread::spawn(move || {
        while let Ok(update) = updates.recv() {
            assert!(update.snapshot.revision > newest.lock().unwrap().revision);
            *newest.lock().unwrap() = update.snapshot;
            update.taken.send(()).unwrap();
        }
    });
    let (mut actors, lanes) = cluster.actors();
    if let Some(ports) = bucket {
        actors = actors.with_bucket(ports);
    }
    let thread = actors.start(shards, vec![edge], Box::new(fatal)).expect("a thread");
    Running { lanes, thread, changes, snapshot }
}

impl Running {
    pub(super) fn control<T>(&self, request: impl FnOnce(Sender<T>) -> ControlRequest) -> T {
        let (reply, answer) = flume::bounded(1);
        self.lanes.control.send(request(reply)).expect("control runs");
        answer.recv().expect("answered")
    }

    pub(super) fn meta<T>(&self, request: impl FnOnce(Sender<T>) -> MetaRequest) -> T {
        let (reply, answer) = flume::bounded(1);
        self.lanes.meta.send(request(reply)).expect("meta runs");
        answer.recv().expect("answered")
    }

    pub(super) fn create(&self, topics: Vec<CreateTopic>) -> Vec<Result<CreatedTopic, ControlError>> {
        self.control(|reply| ControlRequest::CreateTopics { topics, validate_only: false, reply })
    }

    pub(super) fn create_one(&self, name: &str, partitions: i32) -> TopicId {
        self.create(vec![topic(name, partitions)]).remove(0).expect("created").id
    }

    pub(super) fn delete(&self, id: TopicId) -> Result<(), ControlError> {
        self.control(|reply| ControlRequest::DeleteTopics { ids: vec![id], reply }).remove(0)
    }

    fn alter(&self, topic: &str, ops: Vec<ConfigOp>) -> Result<(), ControlError> {
        self.alter_of(ConfigTarget::Topic(topic.to_owned()), ops, false)
    }

    pub(super) fn alter_of(
        &self,
        target: ConfigTarget,
        ops: Vec<ConfigOp>,
        validate_only: bool,
    ) -> Result<(), ControlError> {
        self.control(|reply| ControlRequest::AlterConfigs { target, ops, validate_only, reply })
    }

    pub(super) fn reserve(&self, count: u32) -> ObjectId {
        self.meta(|reply| MetaRequest::ReserveObjects { shard: ShardId(0), count, reply })
    }

    pub(super) fn commit(&self, commit: ObjectCommit) -> CommitOutcome {
        self.meta(|reply| MetaRequest::Commit { shard: ShardId(0), commits: vec![commit], reply }).remove(0)
    }

    pub(super) fn raise(&self, partition: PartitionId, to: i64) {
        self.meta(|reply| MetaRequest::RaiseLogStart { starts: vec![(partition, Offset(to))], reply });
    }

    fn stale(&self, shard: u16, limit: u32) -> Vec<(ObjectId, u64)> {
        self.meta(|reply| MetaRequest::TakeStaleReservations { shard: ShardId(shard), limit, reply })
    }

    pub(super) fn forget_changes(&self) -> Vec<PartitionChange> {
        self.changes.lock().unwrap().drain(..).map(|(_, change)| change).collect()
    }

    pub(super) fn snapshot(&self) -> Arc<ClusterSnapshot> {
        self.snapshot.lock().unwrap().clone()
    }

    pub(super) fn stop(self) -> Cluster {
        self.thread.stop(self.lanes.stop)
    }
}

pub(super) fn topic(name: &str, partitions: i32) -> CreateTopic {
    CreateTopic { name: name.into(), partitions: Some(partitions), configs: BTreeMap::new(), internal: false }
}

pub(super) fn commit(object: ObjectId, ranges: &[(PartitionId, i64, i64)]) -> ObjectCommit {
    let range = |&(partition, base, last): &(PartitionId, i64, i64)| CommitRange {
        partition,
        base: Offset(base),
        last: Offset(last),
        size_bytes: 100,
        max_timestamp: Wall(5),
        epochs: vec![(LeaderEpoch(0), Offset(base))],
        producers: vec![ProducerEntry { producer_id: 7, epoch: 0, window: vec![], last_timestamp: Wall(9_900) }],
    };
    let key = ObjectKey::new(format!("objects/{}", object.0)).expect("a key");
    ObjectCommit { object, key, object_bytes: 4096, ranges: ranges.iter().map(range).collect() }
}

pub(super) fn spec(cluster: &Cluster, partition: PartitionId) -> Option<PartitionSpec> {
    cluster.partitions().into_iter().flatten().find(|s| s.partition == partition)
}

#[test]
fn control_answers_when_durable_in_force_and_seen() {
    let mut world = World::new();
    let (shards, ends) = inboxes();
    let (edge, updates) = flume::unbounded();
    let (actors, lanes) = world.open().actors();
    let thread = actors.start(shards, vec![edge], Box::new(fatal)).expect("a thread");
    let (reply, answer) = flume::bounded(1);
    let request = ControlRequest::CreateTopics { topics: vec![topic("t", 4)], validate_only: false, reply };
    lanes.control.send(request).expect("control runs");
    let mut opened = Vec::new();
    let mut owed = Vec::new();
    for inbox in &ends {
        let Ok(Control::Apply { revision, changes, done }) = inbox.control.recv() else { panic!("an apply") };
        assert!(revision > 0);
        opened.push(changes.len());
        owed.push((done, inbox.id));
    }
    assert_eq!(opened, [2, 2]);
    world.store.crash();
    assert!(world.store.revision() > store::Revision(0), "durable before shards are told");
    for (done, id) in owed {
        assert!(answer.try_recv().is_err() && updates.try_recv().is_err(), "not before every shard");
        done.send(id).expect("awaited");
    }
    let update = updates.recv().expect("published");
    assert!(update.snapshot.topics.contains_key("t"));
    assert!(answer.try_recv().is_err(), "not before every edge");
    update.taken.send(()).expect("awaited");
    assert!(answer.recv().expect("answered")[0].is_ok());
    thread.stop(lanes.stop);
}

#[test]
fn a_thousand_topics_survive_a_restart() {
    let mut world = World::new();
    let running = run(world.open());
    for n in 0..1000 {
        running.create_one(&format!("topic-{n}"), 1 + n % 3);
        assert!(running.snapshot().topics.contains_key(&*format!("topic-{n}")), "seen when answered");
    }
    let before = running.snapshot();
    drop(running.stop());
    world.store.crash();
    let after = world.open();
    let snapshot = after.snapshot();
    assert_eq!(snapshot.topics.len(), 1000);
    for (name, topic) in &snapshot.topics {
        let old = &before.topics[name];
        assert_eq!((topic.id, topic.partitions, topic.leader_epoch.0), (old.id, old.partitions, 1));
        assert_eq!(old.leader_epoch.0, 0);
    }
    let specs = after.partitions();
    assert_eq!(specs.iter().map(Vec::len).sum::<usize>(), 1999);
    for (shard, specs) in specs.iter().enumerate() {
        assert!(specs.iter().all(|s| usize::from(snapshot.owner(s.partition).0) == shard));
    }
}

#[test]
fn a_recreated_topic_is_another_one() {
    let mut world = World::new();
    let running = run(world.open());
    let old = running.create_one("t", 2);
    let id = running.reserve(1);
    let partition = PartitionId { topic: old, index: 0 };
    assert_eq!(running.commit(commit(id, &[(partition, 0, 9)])), CommitOutcome::Committed);
    assert_eq!(running.delete(old), Ok(()));
    assert!(matches!(running.delete(old), Err(ControlError::UnknownTopicId(_))));
    let new = running.create_one("t", 1);
    assert_ne!(old, new);
    let next = commit(running.reserve(1), &[(partition, 10, 19)]);
    assert_eq!(running.commit(next), CommitOutcome::Mismatch(vec![(partition, None)]));
    let deletes = running.changes.lock().unwrap().iter().filter(|c| matches!(c.1, PartitionChange::Delete(_))).count();
    assert_eq!(deletes, 2);
    drop(running.stop());
    let cluster = world.open();
    assert_eq!(spec(&cluster, PartitionId { topic: new, index: 0 }).expect("there").committed_end, Offset(0));
    assert!(spec(&cluster, partition).is_none(), "gone");
    assert!(cluster.ledger.catalog.objects.is_empty());
    assert_eq!(cluster.ledger.catalog.garbage.len(), 2, "marked: the old one's object, and the one that came too late");
}

#[test]
fn requests_are_checked() {
    let running = run(World::new().open());
    let with = |name: &str, key: &str, value: &str| CreateTopic {
        configs: [(key.to_owned(), value.to_owned())].into(),
        ..topic(name, 1)
    };
    let codes: Vec<_> = running
        .create(vec![
            topic("a.b", 1),
            topic("a.b!", 1),
            topic("zero", 0),
            topic("many", 10_001),
            with("cfg", "no.such", "1"),
            with("big", "max.message.bytes", "999999999"),
            topic("twice", 1),
            topic("twice", 1),
            CreateTopic { partitions: None, ..topic("default", 1) },
        ])
        .into_iter()
        .map(|r| r.map(|t| t.partitions))
        .collect();
    assert_eq!(codes[0], Ok(1));
    assert!(matches!(codes[1], Err(ControlError::InvalidTopicName(_))));
    assert!(matches!(codes[2], Err(ControlError::InvalidPartitions(_))));
    assert!(matches!(codes[3], Err(ControlError::InvalidPartitions(_))));
    assert!(matches!(codes[4], Err(ControlError::InvalidConfig(_))));
    assert!(matches!(codes[5], Err(ControlError::InvalidConfig(_))));
    assert!(matches!(codes[6], Err(ControlError::InvalidRequest(_))));
    assert!(matches!(codes[7], Err(ControlError::InvalidRequest(_))));
    assert_eq!(codes[8], Ok(1));
    let again = running.create(vec![topic("a.b", 1), topic("a_b", 1)]);
    assert!(matches!(again[0], Err(ControlError::TopicExists(_))));
    assert!(matches!(again[1], Err(ControlError::InvalidTopicName(_))));
    let only = vec![topic("only", 3)];
    let checked = running.control(|reply| ControlRequest::CreateTopics { topics: only, validate_only: true, reply });
    assert_eq!(checked[0].as_ref().map(|t| (t.id, t.partitions)), Ok((TopicId::ZERO, 3)));
    assert!(!running.snapshot().topics.contains_key("only"));
}

#[test]
fn partitions_and_settings_change_on_every_shard() {
    let mut world = World::new();
    let running = run(world.open());
    running.create_one("t", 2);
    let extend = |topics: Vec<(String, i32)>| {
        running.control(|reply| ControlRequest::CreatePartitions { topics, validate_only: false, reply })
    };
    let results = extend(vec![("t".into(), 5), ("missing".into(), 3)]);
    assert!(results[0].is_ok() && matches!(results[1], Err(ControlError::UnknownTopic(_))));
    assert!(matches!(extend(vec![("t".into(), 5)])[0], Err(ControlError::InvalidPartitions(_))));
    running.changes.lock().unwrap().clear();
    assert_eq!(running.alter("t", vec![ConfigOp::Set("retention.ms".into(), "77".into())]), Ok(()));
    let refused = running.alter("t", vec![ConfigOp::Set("remote.storage.enable".into(), "true".into())]);
    assert!(matches!(refused, Err(ControlError::InvalidConfig(_))));
    let changes = std::mem::take(&mut *running.changes.lock().unwrap());
    assert_eq!(changes.len(), 5);
    for (shard, change) in changes {
        let PartitionChange::Configure(partition, settings) = change else { panic!("{change:?}") };
        assert_eq!((owner_shard(partition, SHARDS), settings.retention_ms), (shard, Some(77)));
    }
    assert_eq!(running.snapshot().topics["t"].settings.effective.retention_ms, Some(77));
    drop(running.stop());
    let topic = world.open().snapshot().topics["t"].clone();
    assert_eq!((topic.partitions, topic.settings.overrides["retention.ms"].as_str()), (5, "77"));
}

#[test]
fn commits_fit_and_are_idempotent() {
    let mut world = World::new();
    let running = run(world.open());
    let topic = running.create_one("t", 2);
    let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
    let first = running.reserve(4);
    let id = |n| ObjectId(first.0 + n);
    let one = commit(id(0), &[(a, 0, 9), (b, 0, 4)]);
    assert_eq!(running.commit(one.clone()), CommitOutcome::Committed);
    assert_eq!(running.commit(one), CommitOutcome::Committed, "again");
    let other = commit(id(0), &[(a, 10, 19)]);
    assert_eq!(running.commit(other), CommitOutcome::Unreserved, "an id is used once");
    let gap = commit(id(1), &[(a, 11, 19), (b, 5, 6)]);
    assert_eq!(running.commit(gap), CommitOutcome::Mismatch(vec![(a, Some(Offset(10)))]));
    assert_eq!(running.commit(commit(id(1), &[(a, 10, 19)])), CommitOutcome::Committed);
    assert_eq!(running.commit(commit(ObjectId(999), &[(a, 20, 29)])), CommitOutcome::Unreserved);
    drop(running.stop());
    let spec = spec(&world.open(), a).expect("there");
    assert_eq!(spec.committed_end, Offset(20));
    assert_eq!(
        spec.committed.iter().map(|c| (c.object, c.base.0, c.last.0)).collect::<Vec<_>>(),
        [(id(0), 0, 9), (id(1), 10, 19)]
    );
    assert_eq!((spec.producers.len(), spec.epochs), (1, vec![(LeaderEpoch(0), Offset(0))]));
}

#[test]
fn commits_are_durable_after_a_sync_and_not_before() {
    let mut world = World::new();
    let running = run(world.open());
    let topic = running.create_one("t", 1);
    let partition = PartitionId { topic, index: 0 };
    let first = running.reserve(2);
    running.commit(commit(first, &[(partition, 0, 9)]));
    running.meta(|reply| MetaRequest::Sync { reply });
    running.commit(commit(ObjectId(first.0 + 1), &[(partition, 10, 19)]));
    world.store.crash();
    let cluster = world.open();
    assert_eq!(spec(&cluster, partition).expect("there").committed_end, Offset(10));
}

#[test]
fn an_earlier_run_is_fenced() {
    let mut world = World::new();
    let old = run(world.open());
    let topic = old.create_one("t", 1);
    let id = old.reserve(1);
    let new = world.open();
    assert_eq!(new.node_epoch(), LeaderEpoch(1));
    let late = commit(id, &[(PartitionId { topic, index: 0 }, 0, 9)]);
    assert_eq!(old.commit(late), CommitOutcome::Fenced);
}

#[test]
fn an_emptied_partition_keeps_its_end() {
    let mut world = World::new();
    let running = run(world.open());
    let topic = running.create_one("t", 2);
    let [a, b] = [0, 1].map(|index| PartitionId { topic, index });
    let first = running.reserve(3);
    running.commit(commit(first, &[(a, 0, 9), (b, 0, 9)]));
    running.raise(a, 15);
    running.raise(a, 3);
    let dead = commit(ObjectId(first.0 + 1), &[(a, 10, 14)]);
    assert_eq!(running.commit(dead.clone()), CommitOutcome::Committed);
    assert_eq!(running.commit(dead), CommitOutcome::Committed, "again");
    drop(running.stop());
    world.store.crash();
    let cluster = world.open();
    let (a, b) = (spec(&cluster, a).expect("there"), spec(&cluster, b).expect("there"));
    assert_eq!((a.log_start, a.committed_end, a.committed.len(), a.producers.len()), (Offset(15), Offset(15), 0, 1));
    assert_eq!((b.log_start, b.committed.len()), (Offset(0), 1));
    assert_eq!(cluster.ledger.catalog.garbage.keys().copied().collect::<Vec<_>>(), [ObjectId(first.0 + 1)]);
}

#[test]
fn stale_reservations_are_taken_once_and_listed_until_gone() {
    let mut world = World::new();
    let running = run(world.open());
    let topic = running.create_one("t", 1);
    let first = running.reserve(3);
    let used = commit(ObjectId(first.0 + 1), &[(PartitionId { topic, index: 0 }, 0, 9)]);
    running.commit(used);
    assert!(running.stale(0, 10).is_empty(), "these are of this run");
    drop(running.stop());

    let running = run(world.open());
    assert!(running.stale(1, 10).is_empty(), "another shard's");
    assert_eq!(running.stale(0, 1), [(first, 0)]);
    let late = commit(first, &[(PartitionId { topic, index: 0 }, 10, 19)]);
    assert_eq!(running.commit(late), CommitOutcome::Unreserved);
    assert_eq!(running.stale(0, 10), [(ObjectId(first.0 + 2), 0)]);
    assert!(running.stale(0, 10).is_empty());
    running.lanes.meta.send(MetaRequest::GarbageGone { objects: vec![first, first] }).expect("meta runs");
    drop(running.stop());

    let running = run(world.open());
    assert_eq!(running.stale(0, 10), [(ObjectId(first.0 + 2), 0)], "not known to be gone");
    assert!(running.reserve(1) > ObjectId(first.0 + 2), "ids are never used again");
}

#[test]
fn producer_ids_are_never_handed_out_twice() {
    let mut world = World::new();
    let mut next = 0;
    for _ in 0..3 {
        let running = run(world.open());
        for _ in 0..2 {
            let first = running.control(|reply| ControlRequest::ReserveProducerIds { count: 1000, reply });
            assert!(first >= next);
            next = first + 1000;
        }
        world.store.crash();
    }
}

#[test]
fn slices_are_remembered() {
    let mut world = World::new();
    let cluster = world.open();
    let record = |n: u8, closed_empty| SliceRecord {
        id: [n; 16],
        shard: ShardId(n.into()),
        path: format!("wal/shard-{n}").into(),
        closed_empty,
    };
    cluster.record_slice(&record(0, false)).expect("records");
    cluster.record_slice(&record(1, false)).expect("records");
    cluster.record_slice(&record(1, true)).expect("records");
    cluster.record_slice(&record(2, false)).expect("records");
    cluster.replace_slices(&[record(2, false)], &[], &[]).expect("forgets");
    world.store.crash();
    assert_eq!(world.open().slices().expect("listed"), [record(0, false), record(1, true)]);
}

#[test]
fn wrong_directories_and_prefixes_are_refused() {
    let mut world = World::new();
    let own = world.open();
    let open = |store: &MemoryStore, node, objects: &Objects| {
        Cluster::open_on(Arc::new(store.clone()), settings_of(node, Path::new("data"), 99), objects).map(|_| ())
    };
    let error = open(&world.store, 2, &world.objects).expect_err("another node");
    assert!(matches!(error, ClusterError::OtherNode { found: 1, configured: 2, .. }), "{error}");
    let error = open(&MemoryStore::new(), 1, &world.objects).expect_err("prefix in use");
    assert!(matches!(&error, ClusterError::PrefixInUse { found, .. } if **found == **own.cluster_id()), "{error}");
    let mut other = World::new();
    other.opened = 50;
    other.open();
    let error = open(&world.store, 1, &other.objects).expect_err("another cluster's prefix");
    assert!(matches!(error, ClusterError::OtherCluster { .. }), "{error}");
    open(&world.store, 1, &Objects::new()).expect("nothing was committed yet, so an empty prefix is fine");

    let running = run(world.open());
    let topic = running.create_one("t", 1);
    running.commit(commit(running.reserve(1), &[(PartitionId { topic, index: 0 }, 0, 9)]));
    drop(running.stop());
    let error = open(&world.store, 1, &Objects::new()).expect_err("objects are missing");
    assert!(matches!(error, ClusterError::PrefixEmpty { objects: 1, .. }), "{error}");
}

#[test]
fn a_refused_fresh_start_leaves_nothing_behind() {
    let mut world = World::new();
    world.open();
    let dir = tempfile::tempdir().expect("temporary directory");
    assert!(Cluster::open(settings_of(1, dir.path(), 5), &open_sled, &world.objects).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).expect("listing").count(), 0);
}

#[test]
fn the_embedded_store_carries_a_cluster_over_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let objects = Objects::new();
    let open = || Cluster::open(settings_of(1, dir.path(), 3), &open_sled, &objects).expect("opens");
    let running = run(open());
    let topic = running.create_one("t", 3);
    let partition = PartitionId { topic, index: 2 };
    running.commit(commit(running.reserve(1), &[(partition, 0, 99)]));
    running.raise(partition, 50);
    let id = running.snapshot().cluster_id.clone();
    drop(running.stop());
    let again = open();
    assert_eq!((again.cluster_id(), again.node_epoch()), (&id, LeaderEpoch(1)));
    let spec = spec(&again, partition).expect("there");
    assert_eq!((spec.log_start, spec.committed_end, spec.committed.len()), (Offset(50), Offset(100), 1));
}

#[test]
fn what_a_dead_range_of_a_shared_object_says_outlives_the_object() {
    let mut world = World::new();
    let running = run(world.open());
    let (cut, gone) = (running.create_one("cut", 1), running.create_one("gone", 1));
    let [cut, gone_0] = [cut, gone].map(|topic| PartitionId { topic, index: 0 });
    running.raise(cut, 17);
    let first = running.reserve(2);
    let committed =
        |n, ranges: &[_]| assert_eq!(running.commit(commit(ObjectId(first.0 + n), ranges)), CommitOutcome::Committed);
    committed(0, &[(cut, 0, 12), (gone_0, 0, 9)]);
    // In one transaction, so that no death can come in between.
    let written_at = |key: &[u8]| world.store.get(key).expect("read").expect("written").revision;
    assert_eq!(written_at(&keys::head(cut)), written_at(&keys::object(first)));
    committed(1, &[(cut, 13, 20)]);
    running.delete(gone).expect("deleted");
    running.stop();
    let specs: Vec<_> = world.open().partitions().into_iter().flatten().collect();
    assert_eq!((specs.len(), specs[0].log_start, specs[0].committed_end), (1, Offset(17), Offset(21)));
}
