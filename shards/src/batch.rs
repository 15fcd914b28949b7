//! The records of a client's batch, checked before they are staged. Pure.
//!
//! [`validate_records`] runs in a shard's turn: it walks an uncompressed batch to its end (lengths, dense offset deltas,
//! count, timestamps; the greatest timestamp is what the records say, as in Kafka) and trusts the head of a compressed
//! one. Where a rule needs the records of a compressed batch (null keys of compacted topics, a finite
//! message.timestamp.before.max.ms, a head out of time), or the topic stores another codec, [`must_open`] says so, and [`open`] does it on a
//! thread of its own, before the shard sees the batch. Records are never re-encoded: the section behind the head is the
//! same bytes under every codec.

use thalweg_record::{Batch, BatchHead, HEAD_LEN, LENGTH_PREFIX, TimestampType, Wall};

use crate::{
    codec::{CodecError, compress, decompress},
    msg::{PartitionError, PartitionSettings},
    records::RecordWalk,
};

/// Most bytes that records may have decompressed, where we must look at them.
const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// The highest codec id there is, zstd's.
const LAST_CODEC: u8 = 4;

/// Most records of a batch that an error names: the answer must not outgrow the request.
const MOST_LISTED: usize = 128;

/// Why a record of a sound batch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A compacted topic needs a key in every record.
    NullKey,
    /// This timestamp is outside the topic's limits.
    Timestamp(i64),
}

/// The records of a batch that break their topic's rules. For their sake the whole batch is refused, and the client is told
/// which they are (KIP-467).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRecords {
    /// The first 128 of them in the order of the batch, each with its place there.
    pub listed: Vec<(i32, Fault)>,
    /// How many there are.
    pub count: usize,
    /// Whether a timestamp is among the faults, listed or not.
    pub untimely: bool,
    /// The timestamps that the topic accepted at the time, both ends included.
    pub accepted: (i64, i64),
}

/// Checks a client's batch whose CRC is right, sets `max_timestamp` where the records say otherwise, and stamps the time of
/// the append where the topic wants it.
///
/// # Errors
/// [`PartitionError::InvalidRecord`], [`PartitionError::BadRecords`], [`PartitionError::InvalidTimestamp`],
/// [`PartitionError::UnsupportedCompression`]; the batch is then as it was.
pub fn validate_records(batch: &mut Batch, settings: &PartitionSettings, now: Wall) -> Result<(), PartitionError> {
    let head = &batch.head;
    if settings.log_append_time && head.timestamp_type() == TimestampType::LogAppendTime {
        return Err(PartitionError::InvalidTimestamp);
    }
    let limits = Limits::of(settings, now);
    let mut greatest = match head.codec() {
        0 => walk(head, &batch.body, settings.compact, &limits)?,
        1..=LAST_CODEC if limits.accept(head.max_timestamp()) => head.max_timestamp(),
        1..=LAST_CODEC => return Err(PartitionError::InvalidTimestamp),
        _ => return Err(PartitionError::UnsupportedCompression),
    };
    let mut stamped = TimestampType::CreateTime;
    if settings.log_append_time {
        (greatest, stamped) = (now.0, TimestampType::LogAppendTime);
    }
    if (greatest, stamped) != (head.max_timestamp(), head.timestamp_type()) {
        batch.head.amend(&batch.body, |head| {
            head.set_max_timestamp(greatest);
            head.set_timestamp_type(stamped);
        });
    }
    Ok(())
}

/// Whether a client's batch must go through [`open`] before it goes to its shard.
pub fn must_open(head: &BatchHead, settings: &PartitionSettings, now: Wall) -> bool {
    let early = settings.timestamp_before_max_ms.is_some() && !settings.log_append_time;
    // A head that says that a record lies outside does not say which: the client is told.
    let untimely = || !Limits::of(settings, now).accept(head.max_timestamp());
    let records_matter = head.codec() != 0 && (settings.compact || early || untimely());
    records_matter || settings.compression.is_some_and(|to| to.codec() != head.codec())
}

/// Checks the records of a batch, compressed or not, and compresses them as the topic says. Slow.
///
/// # Errors
/// As [`validate_records`]; [`PartitionError::CorruptMessage`] when the CRC is wrong; [`PartitionError::MessageTooLarge`] when
/// the batch is above the topic's limit as it came or as it would be stored.
pub fn open(batch: Batch, settings: &PartitionSettings, now: Wall) -> Result<Batch, PartitionError> {
    let limit = settings.max_message_bytes as usize;
    if batch.size_bytes() > limit {
        return Err(PartitionError::MessageTooLarge);
    }
    batch.verify_crc().map_err(|_| PartitionError::CorruptMessage)?;
    let Batch { mut head, body } = batch;
    let section = decompress(head.codec(), &body, MAX_OUTPUT_BYTES).map_err(|error| match error {
        CodecError::Unknown => PartitionError::UnsupportedCompression,
        CodecError::Corrupt => PartitionError::InvalidRecord("the records cannot be decompressed"),
        CodecError::TooLarge => PartitionError::InvalidRecord("the records decompress to more than 64 MiB"),
    })?;
    let greatest = walk(&head, &section, settings.compact, &Limits::of(settings, now))?;
    let Some(to) = settings.compression.filter(|to| to.codec() != head.codec()) else {
        head.amend(&body, |head| head.set_max_timestamp(greatest));
        return Ok(Batch { head, body });
    };
    let body = compress(to, &section);
    if HEAD_LEN + body.len() > limit {
        return Err(PartitionError::MessageTooLarge);
    }
    head.set_batch_length((HEAD_LEN - LENGTH_PREFIX + body.len()) as i32);
    head.set_codec(to.codec());
    head.set_max_timestamp(greatest);
    head.set_crc(head.compute_crc(&body));
    Ok(Batch { head, body })
}

/// Checks all records of a batch, and says the greatest of their timestamps.
fn walk(head: &BatchHead, section: &[u8], keys_required: bool, limits: &Limits) -> Result<i64, PartitionError> {
    let (mut count, mut greatest) = (0, -1);
    let mut bad: Option<Box<BadRecords>> = None;
    for record in RecordWalk::new(section) {
        let record = record.map_err(|_| PartitionError::InvalidRecord("a record is cut or its lengths are wrong"))?;
        if record.offset_delta != i64::from(count) {
            return Err(PartitionError::InvalidRecord("offset deltas are not dense"));
        }
        let timestamp = head.base_timestamp().wrapping_add(record.timestamp_delta);
        if record.key.is_none() && keys_required {
            limits.note(&mut bad, count, Fault::NullKey);
        } else if !limits.accept(timestamp) {
            limits.note(&mut bad, count, Fault::Timestamp(timestamp));
        }
        greatest = greatest.max(timestamp);
        count += 1;
    }
    if count != head.record_count() {
        return Err(PartitionError::InvalidRecord("the head counts other records than there are"));
    }
    bad.map_or(Ok(greatest), |bad| Err(PartitionError::BadRecords(bad)))
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
        if settings.log_append_time {
            return Limits { earliest: i64::MIN, latest: i64::MAX };
        }
        Limits {
            earliest: settings.timestamp_before_max_ms.map_or(i64::MIN, |ms| now.0.saturating_sub(reach(ms))),
            latest: settings.timestamp_after_max_ms.map_or(i64::MAX, |ms| now.0.saturating_add(reach(ms))),
        }
    }

    /// -1 means that the record has no timestamp, which is always accepted.
    fn accept(&self, timestamp: i64) -> bool {
        timestamp == -1 || (self.earliest..=self.latest).contains(&timestamp)
    }

    /// Adds the fault of the record at this place of its batch.
    fn note(&self, bad: &mut Option<Box<BadRecords>>, place: i32, fault: Fault) {
        let accepted = (self.earliest, self.latest);
        let bad =
            bad.get_or_insert_with(|| Box::new(BadRecords { listed: Vec::new(), count: 0, untimely: false, accepted }));
        bad.count += 1;
        bad.untimely |= matches!(fault, Fault::Timestamp(_));
        if bad.listed.len() < MOST_LISTED {
            bad.listed.push((place, fault));
        }
    }
}

#[cfg(test)]
mod tests;
