//! The object that a plan makes, out of what its inputs hold: what is copied is compared with what the metadata says of it, to the last
//! batch, before anything is written.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, EncodedObject, ObjectEncoder, PartitionProperties, Properties};
use thalweg_record::{Batch, Offset, PartitionId};

use super::plan::{Kind, Plan, Stretch};
use crate::{
    meta::{CommitRange, CompactedRange, ObjectId},
    msg::ProducerEntry,
    rewrite::{Described, Rewriter, about, sealed},
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

/// What was read of one input.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Of the partitions that are wanted.
    pub properties: BTreeMap<PartitionId, PartitionProperties>,
    /// Wanted blocks by partition and first offset.
    pub blocks: BTreeMap<(PartitionId, Offset), (BlockEntry, Bytes)>,
}

/// Who writes what.
pub(super) struct Head<'a> {
    pub object: ObjectId,
    pub rewriter: &'a Rewriter,
    pub block_bytes: u32,
}

/// Copies what `plan` takes into one object; answers it with what is committed of it.
pub(super) async fn encode(
    head: &Head<'_>,
    plan: &Plan,
    described: &BTreeMap<PartitionId, Described>,
    mut inputs: BTreeMap<ObjectId, Input>,
) -> Result<(EncodedObject, Vec<CompactedRange>), Unfit> {
    let mut encoder = ObjectEncoder::new(head.object.0, head.block_bytes);
    let mut properties = head.rewriter.properties();
    for stretch in &plan.stretches {
        let described = described.get(&stretch.partition).ok_or_else(|| "a partition is gone".to_owned())?;
        copy(&mut encoder, plan.kind, stretch, &mut inputs, head.rewriter).await?;
        let told = |object| inputs.get(&object).and_then(|input| input.properties.get(&stretch.partition));
        properties.partitions.push(about(stretch.partition, &stretch.parts, described, told));
    }
    let encoded = sealed(encoder.finish(&properties))?;
    let ranges = ranges(plan, &encoded, &properties)?;
    Ok((encoded, ranges))
}

/// Copies the batches of a stretch, which follow one another without a hole but for those that cleaning made.
async fn copy(
    encoder: &mut ObjectEncoder,
    kind: Kind,
    stretch: &Stretch,
    inputs: &mut BTreeMap<ObjectId, Input>,
    rewriter: &Rewriter,
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
                let (base, last) = (batch.head.base_offset(), batch.head.last_offset());
                // Uploads hold every offset; cleaning has left some out of what it made.
                if base < next || (base > next && part.level == 0) {
                    return Err(missing(next));
                }
                let whole = whole.slice(..batch.size_bytes());
                encoder.push_behind(stretch.partition, next, whole).map_err(|e| unfit(e.to_string()))?;
                next = last.next();
            }
            if next != entry.last.next() {
                return Err(unfit(format!("a block ends before offset {next}")));
            }
            rewriter.runtime.breathe().await;
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
