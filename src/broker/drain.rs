//! `thalweg wal drain`: brings what an orphaned slice of the log holds into the object store, without a broker.
//!
//! In this order: the metadata is opened, which raises this broker's epoch (the fence); the slice is taken exclusively; it is
//! scanned; what no object holds is uploaded and committed by the shard that a broker would run, told to stop. The slice's
//! bytes are not changed: draining it once more finds everything committed.
#![expect(clippy::disallowed_methods, reason = "a command: its main thread waits for an executor")]

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flume::{Receiver, RecvTimeoutError, Sender};
use thalweg_objectstore::{Access, ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreFuture};
use thalweg_record::{NodeId, Offset, PartitionId, ShardId};
use thalweg_shards::{
    mailbox::shard_lanes,
    meta::MetaRequest,
    meters::{ShardMeters, StoreMeters},
    msg::{Control, PartitionSpec},
    pace::DevicePace,
    runtime::{LocalBoxFuture, Queue, Runtime, Watchdog, mono_now, start_executor},
    shard::{Shard, ShardPorts},
    store,
    upload::WriterIdentity,
};
use thalweg_wal::{Device, IoBuf, RecoveredBatch, SliceIdentity};

use super::{
    Host, Ports, SliceFiles, StartError, core,
    held::{self, Begins, Tail, Tails},
    look, slices,
    start::cluster_settings,
    stores,
    threads::Threads,
};
use crate::{
    cluster::{Cluster, OpenStore, Progress, SliceRecord},
    config::Config,
    telemetry::Health,
};

/// Uploads and commits that go on for longer are given up; what was committed stays.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// How often progress is shown.
const LOOK: Duration = Duration::from_millis(200);
/// Store requests in flight.
const STORE_REQUESTS: usize = 8;

/// What a drain did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Drained {
    /// Slices that were drained.
    pub slices: usize,
    /// Batches that were brought into objects.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Batches that objects held already.
    pub known_batches: u64,
    /// Batches that stay in the slice because objects hold other records at their offsets, of another leader epoch, by partition: the
    /// partition went on without them.
    pub superseded: BTreeMap<String, u64>,
    /// Batches of topics that the metadata does not know, by topic id: deleted, or created after the last snapshot. They stay
    /// in the slice.
    pub unknown_topics: BTreeMap<String, u64>,
}

/// Drains the slice at `path`, or all slices in that directory.
///
/// # Errors
/// A sentence that says what is in the way.
pub fn drain(
    config: Config,
    ports: &Ports,
    open_store: &OpenStore,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Drained, StartError> {
    let config = Arc::new(config);
    if !Cluster::present(&config.data_dir) {
        return Err(StartError::Wal(format!(
            "\"data.dir\" {} has no metadata to commit to: `thalweg metadata rebuild` makes it from the object store",
            config.data_dir.display()
        )));
    }
    let (tokio, plain) = stores::open_for_command(&config, Access::ReadWrite)?;
    let uploaded = Arc::new(AtomicU64::new(0));
    let objects: Arc<dyn ObjectStore> = Arc::new(Counting { store: plain.clone(), bytes: uploaded.clone() });
    let host: Arc<dyn Host> = Arc::new(Threads::new(tokio.handle().clone(), Health::new()));
    let cluster = Cluster::open(cluster_settings(&config, None, &host), open_store, &*plain)?;
    let mut waiting = found(&*ports.files, path, cluster.cluster_uuid(), NodeId(config.node_id))?;
    let own = cluster.slices()?;
    // What the broker's own log holds is in force over what was lost before, and found again.
    let is_own = |waiting: &Waiting| own.iter().any(|own| waiting.is(own, &*ports.files));
    waiting.sort_by_key(|waiting| !is_own(waiting));
    let drained = |own: &SliceRecord| waiting.iter().any(|waiting| waiting.is(own, &*ports.files));
    if let Some(own) = own.iter().find(|own| !own.closed_empty && !drained(own)) {
        // Its partitions may have gone on in there, under the offsets that are drained here.
        return Err(StartError::Wal(format!(
            "this broker has a log that may hold newer records, {}: start and stop the broker, so that they are in the object store, \
             or drain both",
            own.path.display()
        )));
    }
    let work = Work { config: config.clone(), ports: ports.clone(), objects, uploaded };
    let (mut cluster, mut total) = (cluster, Drained::default());
    // A partition that moved between slices goes on in another one: that may have to come first, and more of this one after it.
    loop {
        let (before, mut left, mut stuck) = (total.batches, Vec::new(), None);
        let slices = waiting.len();
        for mut slice in waiting {
            if !is_own(&slice) && total.batches > before && left.iter().any(is_own) {
                // The broker's own log goes on first as long as it does: what was lost may be of the same offsets.
                left.push(slice);
                continue;
            }
            let (back, outcome) = work.one(cluster, &mut slice, &mut total, progress)?;
            cluster = back;
            match outcome {
                Ok(()) => total.slices += 1,
                Err(why) => {
                    stuck = Some(format!("{}: {why}", slice.path.display()));
                    left.push(slice);
                }
            }
        }
        match stuck {
            Some(why) if left.len() == slices && total.batches == before => return Err(StartError::Wal(why)),
            _ => waiting = left,
        }
        if waiting.is_empty() {
            break;
        }
    }
    cluster.write_last_snapshot(plain, Duration::from_secs(30)).map_err(StartError::Store)?;
    tokio.shutdown_timeout(Duration::from_secs(1));
    Ok(total)
}

/// The slices to drain, each with what its superblocks say of it.
fn found(files: &dyn SliceFiles, path: &Path, cluster: [u8; 16], node: NodeId) -> Result<Vec<Waiting>, StartError> {
    let failed = |path: &Path, why: &dyn std::fmt::Display| StartError::Wal(format!("{}: {why}", path.display()));
    let paths = look::slice_paths(path).map_err(|e| failed(path, &e))?;
    if paths.is_empty() {
        return Err(failed(path, &"no slice of a write-ahead log (*.wal) is in it"));
    }
    let mut slices = Vec::new();
    for path in paths {
        match slices::owner(files, &path).map_err(|e| failed(&path, &e))? {
            None => {
                return Err(failed(&path, &"it is no slice, or its superblocks are damaged: `thalweg wal inspect`"));
            }
            Some(of) if of.cluster != cluster || of.node != node => {
                let why = format!("it is broker {}'s of another cluster, or another broker's of this one", of.node.0);
                return Err(failed(&path, &why));
            }
            Some(identity) => slices.push(Waiting { path, identity, brought: 0 }),
        }
    }
    Ok(slices)
}

/// A slice's name, short enough to leave room for a bar.
fn short(slice: &Path) -> String {
    slice.file_name().map_or_else(String::new, |name| name.to_string_lossy().chars().take(16).collect())
}

/// A slice that is not drained.
struct Waiting {
    path: PathBuf,
    /// What its superblocks say.
    identity: SliceIdentity,
    /// Batches of it that were brought into objects, while others had to wait for another slice.
    brought: u64,
}

impl Waiting {
    /// Whether it is the broker's own slice `own`. Where that lies in its place, another file of its id is a copy, or one that was lost: there
    /// were starts that gave its id to the one they made anew.
    fn is(&self, own: &SliceRecord, files: &dyn SliceFiles) -> bool {
        let in_place = || {
            let there = slices::owner(files, &own.path).ok().flatten();
            there.is_some_and(|identity| identity.slice == own.id)
        };
        self.identity.slice == own.id && (files.same(&self.path, &own.path) || !in_place())
    }
}

struct Work {
    config: Arc<Config>,
    ports: Ports,
    objects: Arc<dyn ObjectStore>,
    uploaded: Arc<AtomicU64>,
}

/// What an executor tells: how many bytes it will upload, then how it ended.
enum Told {
    Begins(u64),
    Ended(Result<Found, String>),
}

#[derive(Default)]
struct Found {
    batches: u64,
    bytes: u64,
    known_batches: u64,
    superseded: BTreeMap<String, u64>,
    unknown_topics: BTreeMap<String, u64>,
    /// What has to wait, for no object holds what comes before.
    gap: Option<String>,
}

impl Work {
    /// Drains of one slice what leads on from what is committed; the inner error says why something stays.
    fn one(
        &self,
        cluster: Cluster,
        slice: &mut Waiting,
        total: &mut Drained,
        progress: &dyn Progress,
    ) -> Result<(Cluster, Result<(), String>), StartError> {
        let specs = cluster.partitions();
        let tails = held::tails(&specs, &cluster.cuts());
        let writer = WriterIdentity {
            cluster_id: cluster.cluster_id().clone(),
            node: NodeId(self.config.node_id),
            node_epoch: cluster.node_epoch().0 as u64,
        };
        let revision = cluster.snapshot().revision;
        let (actors, lanes) = cluster.actors();
        let fatal = Box::new(|why: &str| {
            tracing::error!(why, "the metadata cannot be written");
            std::process::abort()
        });
        let thread = actors.start(Vec::new(), Vec::new(), fatal)?;
        let (tell, told) = flume::unbounded();
        let watchdog = Watchdog::start(1)?;
        let task = Task {
            config: self.config.clone(),
            ports: self.ports.clone(),
            objects: self.objects.clone(),
            slice: slice.path.clone(),
            identity: slice.identity,
            writer,
            revision,
            specs: specs.into_iter().flatten().collect(),
            tails,
            meta: lanes.meta.clone(),
        };
        let executor = start_executor(ShardId(0), watchdog.hearts()[0].clone(), move |runtime| async move {
            let outcome = task.run(&tell, runtime).await;
            let _gone = tell.try_send(Told::Ended(outcome));
        });
        let executor = executor.map_err(StartError::Executor)?;
        let outcome = self.watch(&told, &slice.path, progress);
        executor.join().map_err(StartError::Executor)?;
        let cluster = thread.stop(lanes.stop);
        let outcome = outcome.and_then(|found| {
            total.batches += found.batches;
            total.bytes += found.bytes;
            if let Some(why) = found.gap {
                slice.brought += found.batches;
                return Err(why);
            }
            total.known_batches += found.known_batches.saturating_sub(slice.brought);
            found.superseded.into_iter().for_each(|(id, n)| *total.superseded.entry(id).or_default() += n);
            found.unknown_topics.into_iter().for_each(|(id, n)| *total.unknown_topics.entry(id).or_default() += n);
            Ok(())
        });
        Ok((cluster, outcome))
    }

    /// Shows progress until the executor has ended.
    fn watch(&self, told: &Receiver<Told>, slice: &Path, progress: &dyn Progress) -> Result<Found, String> {
        let mut shown = self.uploaded.load(Ordering::Relaxed);
        loop {
            match told.recv_timeout(LOOK) {
                Ok(Told::Begins(bytes)) => progress.begin(&format!("draining {}", short(slice)), bytes),
                Ok(Told::Ended(outcome)) => {
                    progress.end();
                    return outcome;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.uploaded.load(Ordering::Relaxed);
                    progress.advance(now - shown);
                    shown = now;
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the executor ended early".into()),
            }
        }
    }
}

/// What crosses to the executor.
struct Task {
    config: Arc<Config>,
    ports: Ports,
    objects: Arc<dyn ObjectStore>,
    slice: PathBuf,
    identity: SliceIdentity,
    writer: WriterIdentity,
    revision: u64,
    specs: Vec<PartitionSpec>,
    tails: Tails,
    meta: Sender<MetaRequest>,
}

impl Task {
    async fn run(self, tell: &Sender<Told>, runtime: Rc<dyn Runtime>) -> Result<Found, String> {
        let options = slices::options(&self.config);
        let device = self.ports.slices.open(&self.slice, options, &runtime).await.map_err(|e| e.to_string())?;
        let device: Rc<dyn Device> = Rc::new(Unchanged(device));
        let config = slices::log_config(&self.config);
        let opened = thalweg_wal::open(device.clone(), self.identity, config, runtime.random(), false).await;
        let recovered = opened.map_err(|e| e.to_string())?;
        let (batches, found) = sort_out(&self.tails, &recovered.batches);
        let _gone = tell.try_send(Told::Begins(found.bytes));
        let lane = store::serve(&runtime, Queue::Upload, self.objects, STORE_REQUESTS, Rc::new(StoreMeters::new()));
        let (shard_lane, inbox) = shard_lanes(ShardId(0));
        let (failed, failures) = flume::unbounded();
        let ports = ShardPorts {
            runtime: runtime.clone(),
            device,
            inbox,
            meta: self.meta,
            store: lane,
            compaction: None,
            cleaning: None,
            // Nobody reads, and no coordinator is here.
            cold: flume::unbounded().0,
            ownership: flume::unbounded().0,
            peers: Vec::new(),
            pace: Arc::new(DevicePace::new(0, 0)),
            failed,
            meters: Rc::new(ShardMeters::new(ShardId(0))),
        };
        let mut shard = Shard::new(core::shard_config(&self.config, ShardId(0), self.writer, 1), ports, recovered.log);
        shard.adopt(self.revision, self.specs, &batches)?;
        let (done, left) = flume::bounded(1);
        shard_lane.control(Control::Stop { deadline: mono_now().plus(DEADLINE), done });
        runtime.spawn(Queue::Hot, "shard", Box::pin(shard.run()));
        let failure = async { Err(failures.recv_async().await.unwrap_or_else(|_| "the shard ended early".into())) };
        let ended = async { Ok(left.recv_async().await.unwrap_or(u64::MAX)) };
        match futures_lite::future::or(ended, failure).await? {
            0 => Ok(found),
            bytes => Err(format!("{bytes} bytes could not be uploaded")),
        }
    }
}

/// The batches of a slice that lead on from what is committed, and what is to be said of all of them.
fn sort_out(tails: &Tails, batches: &[RecoveredBatch]) -> (Vec<RecoveredBatch>, Found) {
    let open = |batch: &RecoveredBatch, tail: &Tail| batch.head.last_offset() >= tail.committed_end;
    let mut begins: BTreeMap<PartitionId, Begins> = BTreeMap::new();
    for batch in batches {
        if tails.get(&batch.partition).is_some_and(|tail| open(batch, tail) && !tail.supersedes(&batch.head)) {
            begins.entry(batch.partition).or_default().note(&batch.head);
        }
    }
    let (mut taken, mut found) = (Vec::new(), Found::default());
    let mut ends: BTreeMap<PartitionId, Offset> = BTreeMap::new();
    for batch in batches {
        let Some(tail) = tails.get(&batch.partition) else {
            *found.unknown_topics.entry(batch.partition.topic.to_string()).or_default() += 1;
            continue;
        };
        let (head, base) = (&batch.head, batch.head.base_offset());
        let counts = || begins.get(&batch.partition).is_none_or(|begins| begins.in_force(head));
        if tail.supersedes(head) || (open(batch, tail) && !counts()) {
            *found.superseded.entry(tail.name()).or_default() += 1;
        } else if !open(batch, tail) {
            found.known_batches += 1;
        } else {
            let end = ends.entry(batch.partition).or_insert(tail.committed_end);
            if tail.misses(*end, base) {
                found.gap.get_or_insert_with(|| tail.gap(base, *end));
            } else if base >= *end {
                if base > *end && *end > tail.committed_end {
                    // All that is missing is deleted, and so is what lies before it.
                    taken.retain(|taken: &RecoveredBatch| taken.partition != batch.partition);
                }
                *end = head.last_offset().next();
                taken.push(*batch);
            }
        }
    }
    // Of what is all deleted nothing is uploaded.
    taken.retain(|taken| !tails[&taken.partition].begins_anew(ends[&taken.partition]));
    found.batches = taken.len() as u64;
    found.bytes = taken.iter().map(|batch| batch.head.size_bytes() as u64).sum();
    (taken, found)
}

/// A slice that is read and never changed: what is written to it is thrown away.
struct Unchanged(Rc<dyn Device>);

impl Device for Unchanged {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        self.0.alloc(blocks)
    }

    fn write(&self, _at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        Box::pin(std::future::ready((Ok(()), b)))
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        self.0.read(at, len)
    }
}

/// Counts the bytes that are put.
struct Counting {
    store: Arc<dyn ObjectStore>,
    bytes: Arc<AtomicU64>,
}

impl ObjectStore for Counting {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        Box::pin(async move {
            self.store.put(key, parts, condition).await?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        })
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        self.store.get_range(key, range)
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        self.store.head(key)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        self.store.delete(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        self.store.list(prefix, after, limit)
    }
}

#[cfg(test)]
mod tests {
    use thalweg_record::{BatchHead, HEAD_LEN, LeaderEpoch, TopicId};
    use thalweg_shards::msg::PartitionSettings;
    use thalweg_wal::Lsn;

    use super::*;
    use crate::cluster::Cuts;

    fn partition(index: i32) -> PartitionId {
        PartitionId { topic: TopicId([1; 16]), index }
    }

    /// Index, committed end, and each epoch with the offset where it begins.
    type Goes<'a> = (i32, i64, &'a [(i32, i64)]);

    /// Where partitions go on.
    fn tails(of: &[Goes]) -> Tails {
        let spec = |(index, committed_end, epochs): &Goes| PartitionSpec {
            partition: partition(*index),
            topic_name: "t".into(),
            leader_epoch: LeaderEpoch(9),
            settings: PartitionSettings::KAFKA_DEFAULTS,
            log_start: Offset(5),
            manifests: vec![],
            committed: vec![],
            epochs: epochs.iter().map(|(epoch, first)| (LeaderEpoch(*epoch), Offset(*first))).collect(),
            producers: vec![],
            committed_end: Offset(*committed_end),
            cleaned: Offset(0),
            internal: false,
            loan: None,
        };
        held::tails(&[of.iter().map(spec).collect()], &Cuts::new())
    }

    fn batch(index: i32, base: i64, count: i32, epoch: i32) -> RecoveredBatch {
        let mut head = BatchHead([0; HEAD_LEN]);
        head.set_batch_length(88);
        head.set_last_offset_delta(count - 1);
        head.stamp(Offset(base), LeaderEpoch(epoch));
        RecoveredBatch { partition: partition(index), lsn: Lsn(0), head }
    }

    fn superseded(tails: &Tails, batch: RecoveredBatch) -> bool {
        !sort_out(tails, &[batch]).1.superseded.is_empty()
    }

    #[test]
    fn a_batch_is_superseded_where_objects_hold_another_epoch() {
        let tails = tails(&[(0, 20, &[(2, 0), (4, 10)])]);
        let superseded = |base, epoch| superseded(&tails, batch(0, base, 1, epoch));
        assert!(!superseded(9, 2) && !superseded(10, 4), "the same records");
        assert!(superseded(10, 2), "the partition went on at 10 without it");
        assert!(superseded(9, 3), "nobody knows this epoch");
        assert!(!superseded(4, 1) && !superseded(20, 4), "below the log start, and beyond what objects hold");
        assert!(superseded(20, 2), "what comes after has a later epoch already");
    }

    #[test]
    fn what_is_deleted_may_be_missing() {
        let mut committed = tails(&[(0, 2, &[(1, 0)])]);
        let (taken, found) = sort_out(&committed, &[batch(0, 3, 1, 1), batch(0, 4, 4, 1), batch(0, 8, 2, 1)]);
        assert_eq!(taken.iter().map(|b| b.head.base_offset().0).collect::<Vec<_>>(), [3, 4, 8]);
        assert_eq!((found.batches, found.bytes, found.gap), (3, 300, None));
        let (taken, _) = sort_out(&committed, &[batch(0, 2, 1, 1), batch(0, 5, 4, 1)]);
        assert_eq!(taken.iter().map(|b| b.head.base_offset().0).collect::<Vec<_>>(), [5]);
        assert!(sort_out(&committed, &[batch(0, 6, 4, 1)]).1.gap.is_some(), "5 is not deleted");
        // Counted as brought, it would lead to another round over the slices each time.
        let (taken, found) = sort_out(&committed, &[batch(0, 2, 1, 1)]);
        assert_eq!((taken.len(), found.batches), (0, 0), "it ends below the log start");
        // Another slice, when what comes after it was drained first.
        committed.extend(tails(&[(0, 10, &[(1, 0)])]));
        let (_, found) = sort_out(&committed, &[batch(0, 2, 2, 1)]);
        assert_eq!((found.known_batches, found.superseded.len()), (1, 0));
    }

    #[test]
    fn what_waits_for_another_slice_keeps_nothing_else_back() {
        // Partition 0 went from this slice to another and came back; partition 1 came from there.
        let mut committed = tails(&[(0, 10, &[(1, 0)]), (1, 10, &[(1, 0)])]);
        let here = [batch(0, 5, 5, 1), batch(0, 10, 5, 1), batch(1, 15, 5, 1), batch(0, 30, 5, 1)];
        let (taken, found) = sort_out(&committed, &here);
        assert_eq!(taken.iter().map(|b| (b.partition.index, b.head.base_offset().0)).collect::<Vec<_>>(), [(0, 10)]);
        assert_eq!((found.batches, found.known_batches), (1, 1));
        assert!(found.gap.expect("some wait").contains("partition 1 of topic t: the WAL goes on at offset 15"));
        // When the other slice was drained.
        committed.extend(tails(&[(0, 30, &[(1, 0)]), (1, 15, &[(1, 0)])]));
        let (taken, found) = sort_out(&committed, &here);
        assert_eq!(taken.len(), 2);
        assert_eq!((found.batches, found.known_batches, found.gap), (2, 2, None));
    }
}
