//! `thalweg wal drain`: brings what an orphaned slice of the log holds into the object store, without a broker.
//!
//! In this order: the metadata is opened, which raises this broker's epoch (the fence); the slice is taken exclusively; it is
//! scanned; what no object holds is uploaded and committed by the shard that a broker would run, told to stop. The slice's
//! bytes are not changed: draining it once more finds everything committed.
#![expect(clippy::disallowed_methods, reason = "a command: its main thread waits for an executor")]

use std::{
    collections::{BTreeMap, BTreeSet},
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
use thalweg_record::{BatchHead, LeaderEpoch, NodeId, Offset, PartitionId, ShardId};
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
use thalweg_wal::{Device, IoBuf, SliceIdentity};

use super::{
    Host, Ports, SliceFiles, StartError, core, look, slices, start::cluster_settings, stores, threads::Threads,
};
use crate::{
    cluster::{Cluster, OpenStore, Progress},
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
    let drained = |id| waiting.iter().any(|(_, of)| of.slice == id);
    if let Some(own) = cluster.slices()?.into_iter().find(|slice| !slice.closed_empty && !drained(slice.id)) {
        // Its partitions may have gone on in there, under the offsets that are drained here.
        return Err(StartError::Wal(format!(
            "this broker has a log that may hold newer records, {}: start and stop the broker, so that they are in the object store, \
             or drain both",
            own.path.display()
        )));
    }
    let work = Work { config: config.clone(), ports: ports.clone(), objects, uploaded };
    let (mut cluster, mut total) = (cluster, Drained::default());
    // A partition that moved between slices goes on in another one: that may have to come first.
    loop {
        let (before, mut left, mut gap) = (waiting.len(), Vec::new(), None);
        for (slice, identity) in waiting {
            let (back, outcome) = work.one(cluster, &slice, identity, &mut total, progress)?;
            cluster = back;
            match outcome {
                Ok(()) => total.slices += 1,
                Err(why) => {
                    gap = Some(format!("{}: {why}", slice.display()));
                    left.push((slice, identity));
                }
            }
        }
        match gap {
            Some(why) if left.len() == before => return Err(StartError::Wal(why)),
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
fn found(
    files: &dyn SliceFiles,
    path: &Path,
    cluster: [u8; 16],
    node: NodeId,
) -> Result<Vec<(PathBuf, SliceIdentity)>, StartError> {
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
            Some(identity) => slices.push((path, identity)),
        }
    }
    Ok(slices)
}

/// A slice's name, short enough to leave room for a bar.
fn short(slice: &Path) -> String {
    slice.file_name().map_or_else(String::new, |name| name.to_string_lossy().chars().take(16).collect())
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
}

impl Work {
    /// Drains one slice; the inner error is a gap that another slice may fill.
    fn one(
        &self,
        cluster: Cluster,
        slice: &Path,
        identity: SliceIdentity,
        total: &mut Drained,
        progress: &dyn Progress,
    ) -> Result<(Cluster, Result<(), String>), StartError> {
        let specs: Vec<PartitionSpec> = cluster.partitions().into_iter().flatten().collect();
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
            slice: slice.to_owned(),
            identity,
            writer,
            revision,
            specs,
            meta: lanes.meta.clone(),
        };
        let executor = start_executor(ShardId(0), watchdog.hearts()[0].clone(), move |runtime| async move {
            let outcome = task.run(&tell, runtime).await;
            let _gone = tell.try_send(Told::Ended(outcome));
        });
        let executor = executor.map_err(StartError::Executor)?;
        let outcome = self.watch(&told, slice, progress);
        executor.join().map_err(StartError::Executor)?;
        let cluster = thread.stop(lanes.stop);
        let outcome = outcome.map(|found| {
            total.batches += found.batches;
            total.bytes += found.bytes;
            total.known_batches += found.known_batches;
            found.superseded.into_iter().for_each(|(id, n)| *total.superseded.entry(id).or_default() += n);
            found.unknown_topics.into_iter().for_each(|(id, n)| *total.unknown_topics.entry(id).or_default() += n);
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
        let specs: BTreeMap<PartitionId, &PartitionSpec> = self.specs.iter().map(|s| (s.partition, s)).collect();
        let (mut found, mut seen) = (Found::default(), BTreeSet::new());
        for batch in &recovered.batches {
            match specs.get(&batch.partition) {
                None => *found.unknown_topics.entry(batch.partition.topic.to_string()).or_default() += 1,
                Some(spec) if is_superseded(&spec.epochs, spec.log_start..spec.committed_end, &batch.head) => {
                    let partition = format!("{}-{}", spec.topic_name, batch.partition.index);
                    *found.superseded.entry(partition).or_default() += 1;
                }
                Some(spec) if batch.head.last_offset() < spec.committed_end => found.known_batches += 1,
                Some(_) if !seen.insert((batch.partition, batch.head.base_offset())) => {}
                Some(_) => {
                    found.batches += 1;
                    found.bytes += batch.head.size_bytes() as u64;
                }
            }
        }
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
        shard.adopt(self.revision, self.specs, &recovered.batches)?;
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

/// Whether objects, which hold the offsets `held`, have records of another leader epoch where a batch lies. Below the log start nothing
/// counts.
fn is_superseded(epochs: &[(LeaderEpoch, Offset)], held: Range<Offset>, head: &BatchHead) -> bool {
    let base = head.base_offset();
    let committed = epochs.iter().rev().find(|(_, first)| *first <= base).map(|(epoch, _)| *epoch);
    held.contains(&base) && committed.is_some_and(|epoch| epoch != head.leader_epoch())
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
    use thalweg_record::HEAD_LEN;

    use super::*;

    #[test]
    fn a_batch_is_superseded_where_objects_hold_another_epoch() {
        let epochs = [(2, 0), (4, 10)].map(|(epoch, first)| (LeaderEpoch(epoch), Offset(first)));
        let superseded = |base, epoch| {
            let mut head = BatchHead([0; HEAD_LEN]);
            head.stamp(Offset(base), LeaderEpoch(epoch));
            is_superseded(&epochs, Offset(5)..Offset(20), &head)
        };
        assert!(!superseded(9, 2) && !superseded(10, 4), "the same records");
        assert!(superseded(10, 2), "the partition went on at 10 without it");
        assert!(superseded(9, 3), "nobody knows this epoch");
        assert!(!superseded(4, 1) && !superseded(20, 2), "below the log start, and beyond what objects hold");
    }
}
