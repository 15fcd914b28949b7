//! The object that a plan makes, out of what its inputs hold: what is copied is compared with what the metadata says of it, to the last
//! batch, before anything is written.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use bytes::Bytes;
use thalweg_objectstore::format::{
    BlockEntry, BlockIndex, EncodedObject, Footer, ObjectEncoder, PartitionProperties, ProducerState, Properties,
};
use thalweg_record::{Batch, LeaderEpoch, Offset, PartitionId, ShardId};

use super::plan::{Kind, Plan, Stretch};
use crate::{
    meta::{CommitRange, CommittedObject, CompactedRange, ObjectId},
    msg::ProducerEntry,
    runtime::Runtime,
    upload::WriterIdentity,
};

/// Why no output was made.
#[derive(Debug)]
pub(super) struct Unfit {
    /// The input that does not hold what was committed of it; `None` when it is the output itself that is not to be.
    pub input: Option<ObjectId>,
    pub why: String,
}

impl From<String> for Unfit {
    fn from(why: String) -> Unfit {
        Unfit { input: None, why }
    }
}

/// The upload sequence of objects that no shard uploaded.
const NO_UPLOAD: u64 = u64::MAX;

/// What the shard says of a partition, for the properties.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub topic_name: Arc<str>,
    pub settings_version: u64,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// What was read of one input.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Of the partitions that are wanted.
    pub properties: BTreeMap<PartitionId, PartitionProperties>,
    /// Wanted blocks by partition and first offset.
    pub blocks: BTreeMap<(PartitionId, Offset), (BlockEntry, Bytes)>,
}

/// The blocks of a part, which must be exactly what was committed of it.
pub(super) fn blocks_of(
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

/// Who writes what.
pub(super) struct Head<'a> {
    pub object: ObjectId,
    pub shard: ShardId,
    pub identity: &'a WriterIdentity,
    pub block_bytes: u32,
}

/// Copies what `plan` takes into one object; answers it with what is committed of it.
pub(super) async fn encode(
    head: &Head<'_>,
    plan: &Plan,
    described: &BTreeMap<PartitionId, Described>,
    mut inputs: BTreeMap<ObjectId, Input>,
    runtime: &Rc<dyn Runtime>,
) -> Result<(EncodedObject, Vec<CompactedRange>), Unfit> {
    let mut encoder = ObjectEncoder::new(head.object.0, head.block_bytes);
    let mut properties = Properties {
        cluster_id: head.identity.cluster_id.to_string(),
        node: head.identity.node,
        node_epoch: head.identity.node_epoch,
        shard: head.shard,
        upload_sequence: NO_UPLOAD,
        partitions: Vec::with_capacity(plan.stretches.len()),
    };
    for stretch in &plan.stretches {
        let described = described.get(&stretch.partition).ok_or_else(|| "a partition is gone".to_owned())?;
        copy(&mut encoder, plan.kind, stretch, &mut inputs, runtime).await?;
        properties.partitions.push(about(stretch, described, &inputs));
    }
    let encoded = encoder.finish(&properties);
    // What no reader would take, for an index too large above all, must not replace what is read now.
    let tail = encoded.parts.last().map_or(&[][..], |part| &part[..]);
    Footer::parse(tail, encoded.size_bytes).map_err(|e| format!("the object could not be read: {e}"))?;
    let ranges = ranges(plan, &encoded, &properties)?;
    Ok((encoded, ranges))
}

/// Copies the batches of a stretch, which follow one another without a hole.
async fn copy(
    encoder: &mut ObjectEncoder,
    kind: Kind,
    stretch: &Stretch,
    inputs: &mut BTreeMap<ObjectId, Input>,
    runtime: &Rc<dyn Runtime>,
) -> Result<(), Unfit> {
    let mut next = stretch.base();
    for part in &stretch.parts {
        let unfit = |why: String| Unfit { input: Some(part.object), why: format!("object {}: {why}", part.key) };
        let missing = |offset: Offset| unfit(format!("offset {offset} of {} is missing", stretch.partition));
        let input = inputs.get_mut(&part.object).ok_or_else(|| unfit("it was not read".to_owned()))?;
        while next <= part.last {
            let block = input.blocks.remove(&(stretch.partition, next));
            let (entry, mut rest) = block.ok_or_else(|| missing(next))?;
            #[cfg(feature = "planted-bugs")]
            if loses_block(kind, stretch, &entry) {
                next = entry.last.next();
                continue;
            }
            while !rest.is_empty() {
                let whole = rest.clone();
                let batch = Batch::split_from(&mut rest).map_err(|e| unfit(e.to_string()))?;
                if batch.head.base_offset() != next {
                    return Err(missing(next));
                }
                next = batch.head.last_offset().next();
                let whole = whole.slice(..batch.size_bytes());
                encoder.push_whole(stretch.partition, whole).map_err(|e| unfit(e.to_string()))?;
            }
            if next != entry.last.next() {
                return Err(unfit(format!("a block ends before offset {next}")));
            }
            runtime.breathe().await;
        }
    }
    let _only_a_bug_asks = kind;
    Ok(())
}

/// A bug to be found: the last block stays behind.
#[cfg(feature = "planted-bugs")]
fn loses_block(kind: Kind, stretch: &Stretch, block: &BlockEntry) -> bool {
    let planted = kind == Kind::Split && thalweg_wal::planted(thalweg_wal::Bug::SplitLostBlock);
    planted && block.last == stretch.last()
}

/// What the inputs say of a partition's part, summed up.
fn about(stretch: &Stretch, described: &Described, inputs: &BTreeMap<ObjectId, Input>) -> PartitionProperties {
    let mut producers: BTreeMap<i64, ProducerState> = BTreeMap::new();
    let mut aborted = Vec::new();
    for part in &stretch.parts {
        let Some(known) = inputs.get(&part.object).and_then(|input| input.properties.get(&stretch.partition)) else {
            continue;
        };
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
    PartitionProperties {
        partition: stretch.partition,
        topic_name: described.topic_name.to_string(),
        settings_version: described.settings_version,
        leader_epoch: described.leader_epoch,
        log_start: described.log_start,
        epochs: described.epochs.clone(),
        producers: producers.into_values().collect(),
        aborted,
    }
}

/// What is committed: exactly the stretches, or it is not.
fn ranges(plan: &Plan, encoded: &EncodedObject, properties: &Properties) -> Result<Vec<CompactedRange>, String> {
    let mut ranges = Vec::with_capacity(plan.stretches.len());
    let made: BTreeMap<PartitionId, _> = encoded.ranges.iter().map(|range| (range.partition, range)).collect();
    for (stretch, about) in plan.stretches.iter().zip(&properties.partitions) {
        let whole = made.get(&stretch.partition).map(|range| (range.base, range.last, range.size_bytes));
        let exact = whole == Some((stretch.base(), stretch.last(), stretch.bytes()));
        #[cfg(feature = "planted-bugs")]
        let exact = exact || thalweg_wal::planted(thalweg_wal::Bug::SplitLostBlock);
        if !exact {
            return Err(format!("what was copied of {} is not what was to be", stretch.partition));
        }
        let range = CommitRange {
            partition: stretch.partition,
            base: stretch.base(),
            last: stretch.last(),
            size_bytes: stretch.bytes(),
            max_timestamp: stretch.max_timestamp(),
            epochs: Vec::new(),
            producers: about.producers.iter().map(ProducerEntry::from).collect(),
        };
        let parts = stretch.parts.iter().map(|part| (part.object, part.base, part.last)).collect();
        ranges.push(CompactedRange { range, parts });
    }
    Ok(ranges)
}
