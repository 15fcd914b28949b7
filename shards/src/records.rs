//! Walks the records of a batch at byte level (magic 2), and finds one by time.
//!
//! Pure. Every length is checked against what is left; records are never decoded and encoded again, because a decoder that keeps
//! headers in a map loses duplicates: who writes a record anew copies its bytes.

use bytes::Bytes;
use thalweg_record::{Batch, LeaderEpoch, Offset, TimestampType, Wall};

use crate::codec::decompress;

/// A look-up by time unfolds at most this much of one batch.
const LOOKUP_CAP_BYTES: usize = 64 << 20;

/// What the walk tells of one record. Offsets and times are relative to the batch's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordView<'a> {
    /// Attributes, of which none has a meaning.
    pub attributes: u8,
    /// Offset, relative to the base offset.
    pub offset_delta: i64,
    /// Timestamp, relative to the base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// The key, unless it is null.
    pub key: Option<&'a [u8]>,
    /// Whether the value is null: with a key, that is a tombstone.
    pub null_value: bool,
    /// Key, value and headers as they are written, from the key's length on.
    pub content: &'a [u8],
}

/// The records section does not hold what its lengths say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Iterates over an uncompressed records section; ends after the last byte, or after the first error.
pub struct RecordWalk<'a>(&'a [u8]);

impl<'a> RecordWalk<'a> {
    /// `section` is what follows the batch's head, uncompressed.
    pub fn new(section: &'a [u8]) -> RecordWalk<'a> {
        RecordWalk(section)
    }
}

impl<'a> Iterator for RecordWalk<'a> {
    type Item = Result<RecordView<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = one(&mut self.0);
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

/// A zigzag varint of at most 10 bytes (Protocol Buffers' sint64).
fn varint(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).ok_or(Malformed)?;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Malformed)
}

/// Writes a number as [`varint`] reads it.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn take<'a>(bytes: &mut &'a [u8], len: i64) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(len).map_err(|_| Malformed)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

/// A field whose length -1 means null.
fn nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    match varint(bytes)? {
        -1 => Ok(None),
        len => take(bytes, len).map(Some),
    }
}

fn one<'a>(section: &mut &'a [u8]) -> Result<RecordView<'a>, Malformed> {
    let len = varint(section)?;
    let mut record = take(section, len)?;
    let bytes = &mut record;
    let attributes = take(bytes, 1)?[0];
    let (timestamp_delta, offset_delta) = (varint(bytes)?, varint(bytes)?);
    let content = *bytes;
    let key = nullable(bytes)?;
    let null_value = nullable(bytes)?.is_none();
    let headers = varint(bytes)?;
    if headers < 0 {
        return Err(Malformed);
    }
    for _ in 0..headers {
        let key = varint(bytes)?;
        take(bytes, key)?;
        nullable(bytes)?;
    }
    if !bytes.is_empty() {
        return Err(Malformed);
    }
    Ok(RecordView { attributes, offset_delta, timestamp_delta, key, null_value, content })
}

/// A record found by time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundTime {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Wall,
    /// Leader epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// The first record at or after `from` in `batch` (whole, head included) whose timestamp is `time` or later. Under
/// LogAppendTime all records bear the same. A body that cannot be read holds none, nor does one that cleaning has emptied.
pub fn first_record_at(batch: &Bytes, time: Wall, from: Offset) -> Option<FoundTime> {
    let Batch { head, body } = Batch::split_from(&mut batch.clone()).ok()?;
    let leader_epoch = head.leader_epoch();
    if Wall(head.max_timestamp()) < time {
        return None;
    }
    let stamped = (head.timestamp_type() == TimestampType::LogAppendTime).then(|| head.max_timestamp());
    // Cleaning leaves batches that begin or end with offsets of no record.
    let whole = i64::from(head.record_count()) == i64::from(head.last_offset_delta()) + 1;
    if let Some(timestamp) = stamped.filter(|_| whole) {
        let offset = head.base_offset().max(from);
        return Some(FoundTime { offset, timestamp: Wall(timestamp), leader_epoch });
    }
    let section = decompress(head.codec(), &body, LOOKUP_CAP_BYTES).ok()?;
    RecordWalk::new(&section).map_while(Result::ok).find_map(|record| {
        let offset = Offset(head.base_offset().0.checked_add(record.offset_delta)?);
        let timestamp = match stamped {
            Some(stamped) => Wall(stamped),
            None => Wall(head.base_timestamp().checked_add(record.timestamp_delta)?),
        };
        (timestamp >= time && offset >= from).then_some(FoundTime { offset, timestamp, leader_epoch })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_record::BatchHead;

    fn record(time: i64, offset: i64, key: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![0];
        put_varint(&mut body, time);
        put_varint(&mut body, offset);
        put_varint(&mut body, key.map_or(-1, |k| k.len() as i64));
        body.extend_from_slice(key.unwrap_or_default());
        put_varint(&mut body, 2);
        body.extend_from_slice(b"vv");
        put_varint(&mut body, 2);
        for _ in 0..2 {
            put_varint(&mut body, 1);
            body.push(b'h');
            put_varint(&mut body, -1);
        }
        let mut out = Vec::new();
        put_varint(&mut out, body.len() as i64);
        out.extend(body);
        out
    }

    fn section() -> Vec<u8> {
        [record(0, 0, Some(b"k")), record(50, 1, None), record(-7, 2, Some(b""))].concat()
    }

    #[test]
    fn records_are_walked_to_the_last_byte() {
        let section = section();
        let all: Vec<_> = RecordWalk::new(&section).map(|r| r.expect("sound")).collect();
        let seen: Vec<_> = all.iter().map(|r| (r.offset_delta, r.timestamp_delta, r.key)).collect();
        assert_eq!(seen, vec![(0, 0, Some(&b"k"[..])), (1, 50, None), (2, -7, Some(&b""[..]))]);
    }

    #[test]
    fn no_cut_and_no_flip_reads_past_the_end() {
        let good = section();
        for len in 0..good.len() {
            let _ = RecordWalk::new(&good[..len]).count();
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(RecordWalk::new(&bad).count() <= good.len());
            }
        }
        assert_eq!(RecordWalk::new(&good[..good.len() - 1]).last(), Some(Err(Malformed)));
    }

    #[test]
    fn a_record_is_found_by_its_own_timestamp() {
        let body = section();
        let mut head = BatchHead([0; 61]);
        head.0[16] = 2;
        head.set_batch_length((49 + body.len()) as i32);
        head.set_last_offset_delta(2);
        head.set_record_count(3);
        head.set_base_timestamp(1_000);
        head.set_max_timestamp(1_050);
        head.stamp(Offset(70), LeaderEpoch(3));
        let batch: Bytes = [&head.0[..], &body].concat().into();
        let at = |time, from| first_record_at(&batch, Wall(time), Offset(from)).map(|f| (f.offset.0, f.timestamp.0));
        assert_eq!(at(1_000, 0), Some((70, 1_000)));
        assert_eq!(at(1_001, 0), Some((71, 1_050)));
        assert_eq!(at(990, 72), Some((72, 993)));
        assert_eq!(at(1_051, 0), None);
    }

    #[test]
    fn what_cleaning_left_of_a_batch_is_found_where_it_is() {
        let at = |body: &[u8], count, from| {
            let mut head = BatchHead([0; 61]);
            head.0[16] = 2;
            head.set_batch_length((49 + body.len()) as i32);
            head.set_last_offset_delta(2);
            head.set_record_count(count);
            head.set_timestamp_type(TimestampType::LogAppendTime);
            head.set_max_timestamp(500);
            head.stamp(Offset(70), LeaderEpoch(3));
            let batch: Bytes = [&head.0[..], body].concat().into();
            first_record_at(&batch, Wall(400), Offset(from)).map(|f| (f.offset.0, f.timestamp.0))
        };
        let whole = section();
        assert_eq!((at(&whole, 3, 0), at(&whole, 3, 71)), (Some((70, 500)), Some((71, 500))));
        let second = record(50, 1, None);
        assert_eq!((at(&second, 1, 0), at(&second, 1, 72)), (Some((71, 500)), None));
        assert_eq!(at(&[], 0, 0), None);
    }
}
