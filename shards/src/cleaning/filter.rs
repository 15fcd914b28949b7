//! Which records of a batch stay, and the batch without the others.
//!
//! Pure. The bytes of a record that stays are copied as they are, but for its timestamp, which is relative to the batch's; it is never
//! decoded, so that headers of one name and odd attributes survive. What a batch unfolds to is bounded.
//!
//! As in Kafka: a record goes when the map knows a later one of its key, or when it has no key; a tombstone also when the delete
//! horizon of its batch has passed, which the first cleaning that leaves a tombstone there sets. A batch keeps its first and last
//! offset, and with them its producer's sequences. What lies behind the map's end stays. Transactions: their markers stay, a record of
//! theirs goes only when a later one outside of any transaction replaces it, for nobody here knows which were aborted.

use std::collections::BTreeMap;

use bytes::Bytes;
use thalweg_record::{Batch, BatchHead, HEAD_LEN, LENGTH_PREFIX, Offset, TimestampType, Wall};

use super::keys::KeyMap;
use crate::{
    codec::{CodecError, Compression, compress, decompress},
    records::{RecordView, RecordWalk, put_varint},
};

/// Most bytes that the records of one batch may unfold to.
const MOST_BYTES: usize = 64 << 20;

/// A batch that cannot be cleaned, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unfit(pub String);

/// What decides.
#[derive(Debug)]
pub(super) struct Rules {
    pub keys: KeyMap,
    pub now: Wall,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// The last offset of each producer that the partition remembers.
    pub producers: BTreeMap<i64, Offset>,
}

/// What becomes of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It stays as it is.
    Whole,
    /// This stays of it.
    Rest(Bytes),
    /// Nothing stays.
    Gone,
}

/// Takes the keys of a batch into the map; false when that is full.
pub(super) fn index(keys: &mut KeyMap, batch: &Batch) -> Result<bool, Unfit> {
    let head = &batch.head;
    if head.last_offset() < keys.start() {
        return Ok(true);
    }
    // Before anything is decided by its keys: what older records give way to must be readable.
    whole(batch)?;
    if !head.is_control() && !head.is_transactional() {
        let section = unfold(batch)?;
        if usize::try_from(head.record_count()) != Ok(RecordWalk::new(&section).count()) {
            return Err(malformed(head));
        }
        for record in RecordWalk::new(&section) {
            let record = record.map_err(|_| malformed(head))?;
            let offset = offset_of(head, &record)?;
            let Some(key) = record.key.filter(|_| offset >= keys.start()) else { continue };
            if !keys.put(key, offset) {
                return Ok(false);
            }
        }
    }
    keys.reached(head.last_offset().next());
    Ok(true)
}

fn whole(batch: &Batch) -> Result<(), Unfit> {
    batch.verify_crc().map_err(|e| Unfit(format!("the batch at offset {}: {e}", batch.head.base_offset())))
}

fn malformed(head: &BatchHead) -> Unfit {
    Unfit(format!("the records of the batch at offset {} are cut, or other than its head says", head.base_offset()))
}

fn unfold(batch: &Batch) -> Result<Bytes, Unfit> {
    let at = batch.head.base_offset();
    decompress(batch.head.codec(), &batch.body, MOST_BYTES).map_err(|error| {
        Unfit(match error {
            CodecError::Unknown => format!("the batch at offset {at} has an unknown codec"),
            CodecError::Corrupt => format!("the batch at offset {at} cannot be decompressed"),
            CodecError::TooLarge => format!("the batch at offset {at} unfolds to more than {MOST_BYTES} bytes"),
        })
    })
}

fn offset_of(head: &BatchHead, record: &RecordView<'_>) -> Result<Offset, Unfit> {
    let inside = (0..=i64::from(head.last_offset_delta())).contains(&record.offset_delta);
    if inside { Ok(Offset(head.base_offset().0.saturating_add(record.offset_delta))) } else { Err(malformed(head)) }
}

/// A record's own timestamp.
fn time_of(head: &BatchHead, record: &RecordView<'_>) -> i64 {
    match head.timestamp_type() {
        TimestampType::LogAppendTime => head.max_timestamp(),
        TimestampType::CreateTime => head.base_timestamp().wrapping_add(record.timestamp_delta),
    }
}

/// What was found in a batch.
#[derive(Default)]
struct Sifted {
    /// Of each record whether it stays.
    stays: Vec<bool>,
    kept: usize,
    tombstones: bool,
    first_time: Option<i64>,
    greatest_time: i64,
}

impl Rules {
    /// What stays of a batch. One that `must_stay`, and the last one of a producer, stays at least as an empty one.
    pub(super) fn filter(&self, batch: &Batch, must_stay: bool) -> Result<Outcome, Unfit> {
        let head = &batch.head;
        whole(batch)?;
        if head.is_control() {
            return Ok(Outcome::Whole);
        }
        let section = unfold(batch)?;
        let sifted = self.sift(head, &section)?;
        if sifted.kept == 0 {
            let newest = self.producers.get(&head.producer_id()) == Some(&head.last_offset());
            return Ok(match must_stay || newest {
                true if head.record_count() == 0 => Outcome::Whole,
                true => Outcome::Rest(emptied(head)),
                false => Outcome::Gone,
            });
        }
        let horizon = head.delete_horizon().or_else(|| {
            let due = sifted.tombstones && !head.is_transactional();
            due.then(|| self.now.0.saturating_add(self.delete_retention_ms))
        });
        if sifted.kept == sifted.stays.len() && horizon == head.delete_horizon() {
            return Ok(Outcome::Whole);
        }
        Ok(Outcome::Rest(rewritten(head, &section, &sifted, horizon)))
    }

    fn sift(&self, head: &BatchHead, section: &[u8]) -> Result<Sifted, Unfit> {
        let mut sifted = Sifted { greatest_time: -1, ..Sifted::default() };
        for record in RecordWalk::new(section) {
            let record = record.map_err(|_| malformed(head))?;
            let offset = offset_of(head, &record)?;
            let stays = self.stays(head, &record, offset);
            sifted.stays.push(stays);
            if stays {
                let time = time_of(head, &record);
                sifted.kept += 1;
                // Behind the map's end nobody has looked for what is older of its key.
                sifted.tombstones |= record.null_value && offset < self.keys.end();
                sifted.first_time.get_or_insert(time);
                sifted.greatest_time = sifted.greatest_time.max(time);
            }
        }
        if usize::try_from(head.record_count()) == Ok(sifted.stays.len()) { Ok(sifted) } else { Err(malformed(head)) }
    }

    fn stays(&self, head: &BatchHead, record: &RecordView<'_>, offset: Offset) -> bool {
        if offset >= self.keys.end() {
            return true;
        }
        let Some(key) = record.key else { return false };
        let newest = self.keys.get(key).is_none_or(|newest| offset >= newest);
        newest && (!record.null_value || !self.may_forget(head))
    }

    /// Whether tombstones of a batch were there for long enough.
    fn may_forget(&self, head: &BatchHead) -> bool {
        #[cfg(feature = "planted-bugs")]
        if thalweg_wal::planted(thalweg_wal::Bug::TombstoneEarly) {
            return true;
        }
        head.delete_horizon().is_some_and(|horizon| self.now.0 >= horizon) && !head.is_transactional()
    }
}

/// The batch with the records that stay.
fn rewritten(head: &BatchHead, section: &[u8], sifted: &Sifted, horizon: Option<i64>) -> Bytes {
    let base = horizon.or(sifted.first_time).unwrap_or(-1);
    let mut kept = Vec::with_capacity(section.len());
    let mut start = Vec::with_capacity(24);
    for (record, _) in RecordWalk::new(section).map_while(Result::ok).zip(&sifted.stays).filter(|(_, stays)| **stays) {
        start.clear();
        start.push(record.attributes);
        put_varint(&mut start, time_of(head, &record).wrapping_sub(base));
        put_varint(&mut start, record.offset_delta);
        put_varint(&mut kept, (start.len() + record.content.len()) as i64);
        kept.extend_from_slice(&start);
        kept.extend_from_slice(record.content);
    }
    // At the codec's own default: what level the producer chose is not known.
    let codec = match head.codec() {
        1 => Compression::Gzip(-1),
        2 => Compression::Snappy,
        3 => Compression::Lz4(9),
        4 => Compression::Zstd(3),
        _ => Compression::Uncompressed,
    };
    let body = compress(codec, &Bytes::from(kept));
    let mut head = *head;
    head.set_base(base, horizon.is_some());
    if head.timestamp_type() == TimestampType::CreateTime {
        head.set_max_timestamp(sifted.greatest_time);
    }
    head.set_record_count(sifted.kept as i32);
    sealed(head, &body)
}

/// The batch without any records: it tells its producer's last sequence, and where it ends.
fn emptied(head: &BatchHead) -> Bytes {
    let mut head = *head;
    head.set_base(-1, false);
    head.set_codec(0);
    head.set_record_count(0);
    sealed(head, &[])
}

fn sealed(mut head: BatchHead, body: &[u8]) -> Bytes {
    head.set_batch_length((HEAD_LEN - LENGTH_PREFIX + body.len()) as i32);
    head.set_crc(head.compute_crc(body));
    Bytes::from([&head.0[..], body].concat())
}

#[cfg(test)]
mod tests;
