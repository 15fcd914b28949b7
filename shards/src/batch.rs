//! The records of a client's batch, checked before they are staged. Pure; runs in a shard's turn.
//!
//! An uncompressed batch is walked to its end: lengths, dense offset deltas, count, timestamps, and the greatest timestamp
//! is what the records say, as in Kafka. The head of a compressed one is trusted, except where a rule needs the records
//! (null keys of compacted topics, a finite message.timestamp.before.max.ms): then it is decompressed, its output capped.

use bytes::Bytes;
use thalweg_record::{Batch, BatchHead, TimestampType, Wall};

use crate::{
    codec::{CodecError, decompress},
    msg::{PartitionError, PartitionSettings},
    records::RecordWalk,
};

/// Most bytes that records may have decompressed, where we must look at them.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// Checks a client's batch whose head and CRC are right, and sets `max_timestamp` (and with it the CRC) where the records
/// say otherwise.
///
/// # Errors
/// [`PartitionError::InvalidRecord`], [`PartitionError::InvalidTimestamp`], [`PartitionError::UnsupportedCompression`];
/// the batch is then as it was.
pub fn validate_records(batch: &mut Batch, settings: &PartitionSettings, now: Wall) -> Result<(), PartitionError> {
    let head = &batch.head;
    if head.timestamp_type() == TimestampType::LogAppendTime {
        return Err(PartitionError::InvalidTimestamp);
    }
    let limits = Limits::of(settings, now);
    let greatest = match head.codec() {
        0 => walk(head, &batch.body, settings.compact, &limits)?,
        codec @ 1..=4 if settings.compact || settings.timestamp_before_max_ms.is_some() => {
            walk(head, &open(codec, &batch.body)?, settings.compact, &limits)?
        }
        1..=4 => {
            limits.check(head.max_timestamp())?;
            head.max_timestamp()
        }
        _ => return Err(PartitionError::UnsupportedCompression),
    };
    if greatest != batch.head.max_timestamp() {
        batch.head.set_max_timestamp(greatest);
        let crc = batch.head.compute_crc(&batch.body);
        batch.head.set_crc(crc);
    }
    Ok(())
}

fn open(codec: u8, body: &Bytes) -> Result<Bytes, PartitionError> {
    decompress(codec, body, MAX_OUTPUT_BYTES).map_err(|error| match error {
        CodecError::Unknown => PartitionError::UnsupportedCompression,
        CodecError::Corrupt => PartitionError::InvalidRecord("the records cannot be decompressed"),
        CodecError::TooLarge => PartitionError::InvalidRecord("the records decompress to more than 64 MiB"),
    })
}

/// Checks all records of a batch, and says the greatest of their timestamps.
fn walk(head: &BatchHead, section: &[u8], keys_required: bool, limits: &Limits) -> Result<i64, PartitionError> {
    let (mut count, mut greatest) = (0, -1);
    for record in RecordWalk::new(section) {
        let record = record.map_err(|_| PartitionError::InvalidRecord("a record is cut or its lengths are wrong"))?;
        if record.offset_delta != count {
            return Err(PartitionError::InvalidRecord("offset deltas are not dense"));
        }
        if record.null_key && keys_required {
            return Err(PartitionError::InvalidRecord("a compacted topic needs a key in every record"));
        }
        let timestamp = head.base_timestamp().wrapping_add(record.timestamp_delta);
        limits.check(timestamp)?;
        greatest = greatest.max(timestamp);
        count += 1;
    }
    if count != i64::from(head.record_count()) {
        return Err(PartitionError::InvalidRecord("the head counts other records than there are"));
    }
    Ok(greatest)
}

/// The timestamps that a topic accepts now (KIP-937), both ends inclusive.
#[derive(Clone, Copy, Debug)]
struct Limits {
    earliest: i64,
    latest: i64,
}

impl Limits {
    fn of(settings: &PartitionSettings, now: Wall) -> Limits {
        let reach = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Limits {
            earliest: settings.timestamp_before_max_ms.map_or(i64::MIN, |ms| now.0.saturating_sub(reach(ms))),
            latest: settings.timestamp_after_max_ms.map_or(i64::MAX, |ms| now.0.saturating_add(reach(ms))),
        }
    }

    /// -1 means that the record has no timestamp, which is always accepted.
    fn check(&self, timestamp: i64) -> Result<(), PartitionError> {
        let fits = timestamp == -1 || (self.earliest..=self.latest).contains(&timestamp);
        if fits { Ok(()) } else { Err(PartitionError::InvalidTimestamp) }
    }
}

#[cfg(test)]
mod tests;
