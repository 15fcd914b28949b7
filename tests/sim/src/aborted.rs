//! Aborted transactions before there are any: uploads tell of some that follow from partition and offset alone, so that whatever takes
//! the place of uploads must tell of exactly those whose marker lies in its offsets.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_objectstore::{
    ObjectKey,
    format::{AbortedTransaction, BlockIndex, Footer, FormatError, Properties},
    parse_data_key,
};
use thalweg_record::{Offset, PartitionId};

use crate::violation::Violation;

/// One of so many offsets is taken for an abort marker.
const ONE_IN: u32 = 3;
/// No transaction is longer, in offsets; most are longer than a batch, and many than an upload.
const LONGEST: u32 = 90;
const PRODUCERS: u32 = 4;

/// What is told of a partition's offsets from `base` to `last`.
pub(crate) fn within(partition: PartitionId, base: Offset, last: Offset) -> Vec<AbortedTransaction> {
    (base.0..=last.0).filter_map(|marker| ended_by(partition, marker)).collect()
}

fn ended_by(partition: PartitionId, marker: i64) -> Option<AbortedTransaction> {
    let place = [&partition.topic.0[..], &partition.index.to_be_bytes(), &marker.to_be_bytes()].concat();
    let drawn = crc32c::crc32c(&place);
    let (length, producer) = (drawn / ONE_IN % LONGEST, drawn / ONE_IN / LONGEST % PRODUCERS);
    (drawn % ONE_IN == 0).then(|| AbortedTransaction {
        producer_id: 9_000_000 + i64::from(producer),
        first_offset: Offset((marker - i64::from(length)).max(0)),
        last_offset: Offset(marker),
    })
}

/// Each object tells of what lies in its offsets, whoever made it. That the objects which the metadata names hold all offsets is compared
/// elsewhere.
pub(crate) fn check(objects: &BTreeMap<ObjectKey, Bytes>) -> Result<(), Violation> {
    for (key, content) in objects.iter().filter(|(key, _)| parse_data_key(key).is_some()) {
        let told = tell(content).map_err(|e| Violation(format!("{key} cannot be read: {e}")))?;
        for (partition, base, last, aborted) in told {
            let expected = within(partition, base, last);
            if aborted != expected {
                let (found, wanted) = (aborted.len(), expected.len());
                let why = format!(
                    "{key} holds offsets {base} to {last} of {partition}, and tells of {found} aborted transactions, not of {wanted}"
                );
                return Err(Violation(why));
            }
        }
    }
    Ok(())
}

type Told = (PartitionId, Offset, Offset, Vec<AbortedTransaction>);

/// Of each partition in an object, its offsets there and what is told of them.
fn tell(content: &Bytes) -> Result<Vec<Told>, FormatError> {
    let footer = Footer::parse(content, content.len() as u64)?;
    let section = |range: std::ops::Range<u64>| &content[range.start as usize..range.end as usize];
    let index = BlockIndex::parse(&footer, section(footer.index_range()))?;
    let properties = Properties::parse(&footer, section(footer.properties_range()))?;
    let of = |about: thalweg_objectstore::format::PartitionProperties| {
        let blocks = index.partition(about.partition);
        Some((about.partition, blocks.first()?.base, blocks.last()?.last, about.aborted))
    };
    Ok(properties.partitions.into_iter().filter_map(of).collect())
}
