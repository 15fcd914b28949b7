//! What compaction and cleaning have in common: an object of the shard's own takes the place of parts of others.
//!
//! Both are tasks of the queue `Janitor` that never touch the shard's state: they ask it and the metadata by messages, and what came of
//! them goes back as events. `pace` says how fast they go.

mod pace;

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use flume::Sender;
use thalweg_objectstore::{
    ObjectKey, PutCondition, data_key,
    format::{BlockEntry, BlockIndex, EncodedObject, Footer, PartitionProperties, ProducerState, Properties},
};
use thalweg_record::{LeaderEpoch, Offset, PartitionId, ShardId};

use crate::{
    cold::fetch::{Fetcher, fetch_run},
    event::Event,
    meta::{CommittedObject, CompactedRange, Compaction, MetaRequest, ObjectId},
    partition::Partition,
    runtime::Runtime,
    shard::Shard,
    store::StoreLane,
    upload::WriterIdentity,
    work_room::{Taken, WorkRoom},
};

pub(crate) use pace::Pace;

/// One request reads at most this much, unless a single block is larger.
const RUN_BYTES: u64 = 4 << 20;
/// How long a read is tried again.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// Who waits for room looks again after this long.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(100);
/// The upload sequence of objects that no shard uploaded.
const NO_UPLOAD: u64 = u64::MAX;

/// Why the work did not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RewriteFailure {
    /// What it copied has changed meanwhile, so that nothing was committed.
    Dropped,
    /// These objects did not read right; go on without them for a while.
    Unreadable(Vec<ObjectId>, String),
    /// Something did not answer; try again after a pause.
    Retry(String),
    /// This node's epoch is fenced: stop the broker.
    Fatal(String),
}

/// What such work talks to.
pub(crate) struct Rewriter {
    pub shard: ShardId,
    pub identity: WriterIdentity,
    pub store: StoreLane,
    pub meta: Sender<MetaRequest>,
    pub events: Sender<Event>,
    pub runtime: Rc<dyn Runtime>,
}

/// What the shard says of a partition, for the properties.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub topic_name: Arc<str>,
    pub settings_version: u64,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

pub(crate) fn describe(partition: &Partition) -> Described {
    Described {
        topic_name: partition.topic_name.clone(),
        settings_version: partition.settings.version,
        leader_epoch: partition.epoch,
        log_start: partition.log_start,
        epochs: partition.epochs.entries().to_vec(),
    }
}

/// Nobody is there to answer.
pub(crate) fn stopping<T>(_: T) -> RewriteFailure {
    RewriteFailure::Retry("the broker is stopping".into())
}

pub(crate) fn retry(why: String) -> RewriteFailure {
    RewriteFailure::Retry(why)
}

impl Shard {
    pub(crate) fn rewriter(&self, store: StoreLane) -> Rewriter {
        Rewriter {
            shard: self.config.id,
            identity: self.config.identity.clone(),
            store,
            meta: self.ports.meta.clone(),
            events: self.events.clone(),
            runtime: self.ports.runtime.clone(),
        }
    }
}

impl Rewriter {
    /// Asks the metadata.
    pub(crate) async fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> MetaRequest) -> Result<T, RewriteFailure> {
        let (reply, answer) = flume::bounded(1);
        self.meta.try_send(request(reply)).map_err(stopping)?;
        answer.recv_async().await.map_err(stopping)
    }

    /// Asks the shard.
    pub(crate) async fn inquire<T>(&self, inquiry: impl FnOnce(Sender<T>) -> Event) -> Result<T, RewriteFailure> {
        let (reply, answer) = flume::bounded(1);
        self.events.try_send(inquiry(reply)).map_err(stopping)?;
        answer.recv_async().await.map_err(stopping)
    }

    /// Room for `bytes` of work, when all that came before has had its turn.
    pub(crate) async fn room(&self, room: &Arc<WorkRoom>, bytes: u64) -> Result<Taken, RewriteFailure> {
        let place = room.wait();
        loop {
            if let Some(taken) = place.take(bytes) {
                return Ok(taken);
            }
            if self.events.is_disconnected() {
                return Err(stopping(()));
            }
            self.runtime.sleep_until(self.runtime.mono().plus(LOOK_FOR_ROOM)).await;
        }
    }

    /// An id for one object.
    pub(crate) async fn reserve(&self) -> Result<ObjectId, RewriteFailure> {
        let shard = self.shard;
        self.ask(|reply| MetaRequest::ReserveObjects { shard, count: 1, reply }).await
    }

    /// Puts the object of a reserved id; answers its key in any case.
    pub(crate) async fn put(
        &self,
        object: ObjectId,
        parts: Vec<Bytes>,
        pace: &Pace,
    ) -> (ObjectKey, Result<(), RewriteFailure>) {
        let key = data_key(object.0, self.identity.node, self.identity.node_epoch);
        let put = self.store.put_paced(key.clone(), parts, PutCondition::IfAbsent, pace.rate()).await;
        (key, put.map_err(|error| retry(error.to_string())))
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        Fetcher { runtime: self.runtime.clone(), store: self.store.clone(), retry_for: RETRY_FOR }
    }

    /// The properties of an object that is made here, without its partitions.
    pub(crate) fn properties(&self) -> Properties {
        Properties {
            cluster_id: self.identity.cluster_id.to_string(),
            node: self.identity.node,
            node_epoch: self.identity.node_epoch,
            shard: self.shard,
            upload_sequence: NO_UPLOAD,
            partitions: Vec::new(),
        }
    }
}

/// The blocks of a part, which must be exactly what was committed of it.
pub(crate) fn blocks_of(
    index: &BlockIndex,
    partition: PartitionId,
    part: &CommittedObject,
) -> Result<Vec<BlockEntry>, String> {
    let inside = |block: &&BlockEntry| block.base >= part.base && block.last <= part.last;
    let blocks: Vec<BlockEntry> = index.partition(partition).iter().filter(inside).copied().collect();
    let side_by_side = blocks.windows(2).all(|pair| pair[0].last.next() == pair[1].base);
    let ends = (blocks.first().map(|block| block.base), blocks.last().map(|block| block.last));
    let bytes: u64 = blocks.iter().map(|block| u64::from(block.size_bytes)).sum();
    if side_by_side && ends == (Some(part.base), Some(part.last)) && bytes == part.size_bytes {
        return Ok(blocks);
    }
    let (base, last) = (part.base, part.last);
    Err(format!("object {} does not hold offsets {base} to {last} of {partition} as they were committed", part.key))
}

/// Cuts blocks that ascend into runs that lie side by side.
pub(crate) fn runs(blocks: &[BlockEntry]) -> Vec<&[BlockEntry]> {
    let mut runs = Vec::new();
    let mut from = 0;
    for at in 1..=blocks.len() {
        let goes_on = blocks.get(at).is_some_and(|block| {
            let before = &blocks[at - 1];
            let end = block.position + u64::from(block.size_bytes);
            before.position + u64::from(before.size_bytes) == block.position && end - blocks[from].position <= RUN_BYTES
        });
        if !goes_on {
            runs.push(&blocks[from..at]);
            from = at;
        }
    }
    runs
}

/// Reads blocks that lie side by side in the object of `part`, when their turn has come.
pub(crate) async fn read_run(
    fetcher: &Fetcher,
    pace: &Pace,
    part: &CommittedObject,
    blocks: &[BlockEntry],
) -> Result<Bytes, String> {
    let size = blocks.iter().map(|block| u64::from(block.size_bytes)).sum();
    fetcher.runtime.sleep_until(pace.begin(fetcher.runtime.mono(), size)).await;
    fetch_run(fetcher, part, blocks).await.map_err(|e| e.to_string())
}

/// What objects say of a partition's contiguous parts in them, summed up.
pub(crate) fn about<'a>(
    partition: PartitionId,
    parts: &[Rc<CommittedObject>],
    described: &Described,
    told: impl Fn(ObjectId) -> Option<&'a PartitionProperties>,
) -> PartitionProperties {
    let mut producers: BTreeMap<i64, ProducerState> = BTreeMap::new();
    let mut aborted = Vec::new();
    for part in parts {
        let Some(known) = told(part.object) else { continue };
        // A rebuild may have taken less of an object than it holds.
        for producer in &known.producers {
            let mut producer = producer.clone();
            producer.window.retain(|batch| batch.last_offset <= part.last);
            if !producer.window.is_empty() {
                producers.insert(producer.producer_id, producer);
            }
        }
        let here = known.aborted.iter().filter(|t| (part.base..=part.last).contains(&t.last_offset));
        aborted.extend(here.copied());
    }
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::AbortedDropped) {
        aborted.clear();
    }
    PartitionProperties {
        partition,
        topic_name: described.topic_name.to_string(),
        settings_version: described.settings_version,
        leader_epoch: described.leader_epoch,
        log_start: described.log_start,
        epochs: described.epochs.clone(),
        producers: producers.into_values().collect(),
        aborted,
    }
}

/// The object, if it can be read: what no reader would take, for an index too large above all, must not replace what is read now.
pub(crate) fn sealed(encoded: EncodedObject) -> Result<EncodedObject, String> {
    let tail = encoded.parts.last().map_or(&[][..], |part| &part[..]);
    Footer::parse(tail, encoded.size_bytes).map_err(|e| format!("the object could not be read: {e}"))?;
    Ok(encoded)
}

/// What readers need of a new object. `epoch` is that of its first part.
pub(crate) fn committed(made: &Compaction, range: &CompactedRange, epoch: LeaderEpoch, level: u32) -> CommittedObject {
    let range = &range.range;
    CommittedObject {
        object: made.object,
        key: made.key.clone(),
        object_bytes: made.object_bytes,
        base: range.base,
        last: range.last,
        size_bytes: range.size_bytes,
        max_timestamp: range.max_timestamp,
        epoch,
        level,
    }
}
