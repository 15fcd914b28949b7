//! One upload: reads what memory no longer holds, writes the objects, commits them in order.
//!
//! A task of the upload queue on the shard's core. It never touches the shard's state; all it needs was handed to it when it
//! was planned, and what came of it goes back as events.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use bytes::Bytes;
use flume::{Receiver, Sender};
use thalweg_objectstore::{
    ObjectKey, PutCondition, StoreError, data_key,
    format::{AbortedTransaction, EncodedObject, ObjectEncoder, PartitionProperties, ProducerState, Properties},
};
use thalweg_record::{LeaderEpoch, Offset, PartitionId, ShardId, failpoint};
use thalweg_wal::{Device, Ring};

use super::{WriterIdentity, pipeline::SharedRuntime};
use crate::{
    event::{Event, UploadFailure},
    meta::{CommitOutcome, CommitRange, CommittedObject, MetaRequest, ObjectCommit, ObjectId},
    meters::ShardMeters,
    partition::RingEntry,
    ring_read::{read_spans, spans},
    store::StoreLane,
    tail_cache::TailCache,
};

/// Batches encoded between two breaths.
const BATCHES_PER_BREATH: usize = 256;
/// And bytes of them: each is in a block's CRC.
const BYTES_PER_BREATH: u64 = 512 << 10;

/// All that an upload needs.
pub(super) struct Job {
    pub id: u64,
    pub shard: ShardId,
    pub identity: WriterIdentity,
    pub block_bytes: u32,
    pub objects: Vec<JobObject>,
    /// What of them was in memory; the rest is read from the ring.
    pub memory: TailCache,
    /// The upload before this one: its commits go first.
    pub before: Option<Receiver<bool>>,
    /// Told when this one's commits are in, or are not.
    pub committed: Sender<bool>,
    pub device: Rc<dyn Device>,
    pub ring: Ring,
    pub meta: Sender<MetaRequest>,
    pub store: StoreLane,
    pub events: Sender<Event>,
    pub meters: Rc<ShardMeters>,
    pub runtime: SharedRuntime,
}

/// One object to write.
pub(super) struct JobObject {
    pub sequence: u64,
    pub parts: Vec<JobPart>,
}

/// One partition's part of it.
pub(super) struct JobPart {
    pub range: CommitRange,
    pub topic_name: Arc<str>,
    pub settings_version: u64,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The batches in order.
    pub batches: Vec<RingEntry>,
}

/// Runs an upload to its end.
pub(super) async fn run(mut job: Job) {
    let began = job.runtime.mono();
    let objects = std::mem::take(&mut job.objects);
    let result = upload(&job, objects).await;
    if result.is_ok() {
        job.meters.upload_seconds.record(job.runtime.mono().since(began).as_secs_f64());
    }
    let _gone = job.committed.try_send(result.is_ok());
    let _gone = job.events.try_send(Event::UploadEnded { job: job.id, result });
}

async fn upload(job: &Job, objects: Vec<JobObject>) -> Result<(), UploadFailure> {
    let first = reserve(job, objects.len()).await?;
    failpoint::pass("upload-reserved");
    let mut commits = Vec::with_capacity(objects.len());
    for (n, object) in objects.into_iter().enumerate() {
        commits.push(write(job, ObjectId(first.0 + n as u64), object).await?);
    }
    let before = job.before.as_ref();
    #[cfg(feature = "planted-bugs")]
    let before = before.filter(|_| !thalweg_wal::planted(thalweg_wal::Bug::CommitsOutOfOrder));
    if let Some(before) = before {
        if !before.recv_async().await.unwrap_or(false) {
            return Err(UploadFailure::Retry("the upload before this one failed".into()));
        }
    }
    failpoint::pass("upload-before-commit");
    commit(job, commits).await
}

fn stopping<T>(_: T) -> UploadFailure {
    UploadFailure::Retry("the metadata actor is stopping".into())
}

async fn reserve(job: &Job, count: usize) -> Result<ObjectId, UploadFailure> {
    let (reply, first) = flume::bounded(1);
    let count = u32::try_from(count).map_err(stopping)?;
    job.meta.try_send(MetaRequest::ReserveObjects { shard: job.shard, count, reply }).map_err(stopping)?;
    first.recv_async().await.map_err(stopping)
}

async fn write(job: &Job, id: ObjectId, object: JobObject) -> Result<ObjectCommit, UploadFailure> {
    let key = data_key(id.0, job.identity.node, job.identity.node_epoch);
    let properties = properties(job, &object);
    let mut encoder = ObjectEncoder::new(id.0, job.block_bytes);
    let mut ranges = Vec::with_capacity(object.parts.len());
    let mut stroke = Stroke::default();
    for part in object.parts {
        encode(job, &mut encoder, &mut stroke, part.range.partition, &part.batches).await?;
        ranges.push(part.range);
    }
    let EncodedObject { parts, size_bytes, .. } = encoder.finish(&properties);
    put(job, &key, parts).await?;
    failpoint::pass("upload-put");
    Ok(ObjectCommit { object: id, key, object_bytes: size_bytes, ranges })
}

/// What was encoded since the others on this core could have their turn, of however many partitions.
#[derive(Default)]
struct Stroke {
    batches: usize,
    bytes: u64,
}

async fn encode(
    job: &Job,
    encoder: &mut ObjectEncoder,
    stroke: &mut Stroke,
    partition: PartitionId,
    batches: &[RingEntry],
) -> Result<(), UploadFailure> {
    // Not fatal: the ring may have moved on over a topic that was deleted meanwhile; planned anew, it is left out.
    let damaged = |e: &dyn std::fmt::Display| UploadFailure::Retry(format!("reading the WAL ring for an upload: {e}"));
    let mut missing = Vec::new();
    for some in batches.chunks(BATCHES_PER_BREATH) {
        missing.extend(some.iter().filter(|e| !job.memory.holds(e.lsn, e.size as usize)));
        if batches.len() > BATCHES_PER_BREATH {
            job.runtime.breathe().await;
        }
    }
    let read = read_spans(&*job.runtime, job.device.clone(), job.ring, spans(job.ring, &missing))
        .await
        .map_err(|e| damaged(&e))?;
    let mut read: BTreeMap<Offset, Bytes> = read.into_iter().map(|(entry, bytes)| (entry.base, bytes)).collect();
    for entry in batches {
        let bytes = job.memory.get(entry.lsn, entry.size as usize).or_else(|| read.remove(&entry.base));
        encoder.push_whole(partition, bytes.ok_or_else(|| damaged(&"a batch is missing"))?).map_err(|e| damaged(&e))?;
        *stroke = Stroke { batches: stroke.batches + 1, bytes: stroke.bytes + u64::from(entry.size) };
        if stroke.batches >= BATCHES_PER_BREATH || stroke.bytes >= BYTES_PER_BREATH {
            *stroke = Stroke::default();
            job.runtime.breathe().await;
        }
    }
    Ok(())
}

async fn put(job: &Job, key: &ObjectKey, parts: Vec<Bytes>) -> Result<(), UploadFailure> {
    match job.store.put(key.clone(), parts, PutCondition::IfAbsent).await {
        Ok(()) => Ok(()),
        // The id is reserved for this one put, and no engine repeats one that is to create: the bytes there may be another's.
        Err(error @ StoreError::Exists(_)) => Err(UploadFailure::Retry(format!("another writer has this id: {error}"))),
        Err(error) => Err(UploadFailure::Retry(error.to_string())),
    }
}

fn properties(job: &Job, object: &JobObject) -> Properties {
    let partitions = object.parts.iter().map(|part| PartitionProperties {
        partition: part.range.partition,
        topic_name: part.topic_name.to_string(),
        settings_version: part.settings_version,
        leader_epoch: part.leader_epoch,
        log_start: part.log_start,
        epochs: part.epochs.clone(),
        producers: part.range.producers.iter().map(ProducerState::from).collect(),
        aborted: aborted(&part.range),
    });
    Properties {
        cluster_id: job.identity.cluster_id.to_string(),
        node: job.identity.node,
        node_epoch: job.identity.node_epoch,
        shard: job.shard,
        upload_sequence: object.sequence,
        partitions: partitions.collect(),
    }
}

/// The transactions whose abort marker lies in a range: none, for there are no transactions yet.
fn aborted(range: &CommitRange) -> Vec<AbortedTransaction> {
    #[cfg(feature = "planted-bugs")]
    return super::pretend::aborted(range.partition, range.base, range.last);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _nothing_to_tell = range;
        Vec::new()
    }
}

/// Commits in order. A deleted partition's range is dropped and the rest tried again.
async fn commit(job: &Job, mut commits: Vec<ObjectCommit>) -> Result<(), UploadFailure> {
    while !commits.is_empty() {
        let (reply, outcomes) = flume::bounded(1);
        let ask = MetaRequest::Commit { shard: job.shard, commits: commits.clone(), reply };
        job.meta.try_send(ask).map_err(stopping)?;
        let outcomes = outcomes.recv_async().await.map_err(stopping)?;
        if outcomes.is_empty() {
            return Err(UploadFailure::Retry("the metadata answered no commit".into()));
        }
        let done = outcomes.iter().take_while(|o| **o == CommitOutcome::Committed).count();
        if done > 0 {
            failpoint::pass("upload-committed");
            sync(job).await?;
            failpoint::pass("upload-synced");
            let rest = commits.split_off(done);
            let durable = std::mem::replace(&mut commits, rest);
            job.meters.uploaded_objects.increment(durable.len() as u64);
            job.meters.uploaded_bytes.increment(durable.iter().map(|object| object.object_bytes).sum());
            let objects = durable.iter().flat_map(committed).collect();
            let _gone = job.events.try_send(Event::Committed { objects });
        }
        match outcomes.into_iter().nth(done) {
            None | Some(CommitOutcome::Committed) => {}
            Some(CommitOutcome::Mismatch(parts)) => {
                let Some(open) = commits.first_mut() else { continue };
                drop_deleted(open, &parts)?;
                if open.ranges.is_empty() {
                    // The metadata has taken its reservation away, and has the object deleted.
                    commits.remove(0);
                }
            }
            Some(CommitOutcome::Unreserved) => {
                return Err(UploadFailure::Retry("the object's reservation was taken away".into()));
            }
            Some(CommitOutcome::Fenced) => {
                return Err(UploadFailure::Fatal("another broker has fenced this one's epoch".into()));
            }
        }
    }
    Ok(())
}

fn drop_deleted(commit: &mut ObjectCommit, parts: &[(PartitionId, Option<Offset>)]) -> Result<(), UploadFailure> {
    for (partition, end) in parts {
        let range = commit.ranges.iter().position(|r| r.partition == *partition);
        match (range, end) {
            (Some(at), None) => drop(commit.ranges.remove(at)),
            (_, end) => {
                let end = end.map_or(-1, |o| o.0);
                let text = format!("the metadata has partition {partition} committed up to {end}, the shard disagrees");
                return Err(UploadFailure::Fatal(text));
            }
        }
    }
    Ok(())
}

async fn sync(job: &Job) -> Result<(), UploadFailure> {
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::TrimBeforeFsync) {
        return Ok(());
    }
    let (reply, durable) = flume::bounded(1);
    job.meta.try_send(MetaRequest::Sync { reply }).map_err(stopping)?;
    durable.recv_async().await.map_err(stopping)
}

fn committed(commit: &ObjectCommit) -> impl Iterator<Item = (PartitionId, CommittedObject)> {
    commit.ranges.iter().map(|range| {
        let object = CommittedObject {
            object: commit.object,
            key: commit.key.clone(),
            object_bytes: commit.object_bytes,
            base: range.base,
            last: range.last,
            size_bytes: range.size_bytes,
            max_timestamp: range.max_timestamp,
            epoch: range.epochs.first().map_or(LeaderEpoch(-1), |(epoch, _)| *epoch),
            level: 0,
        };
        (range.partition, object)
    })
}
