//! Record batches of the coordinator: written whole, uncompressed, read record by record.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use thalweg_record::{Batch, Offset, Wall};

use super::records::KeyValue;

/// One batch of these records, stamped with the time of the wall; offsets and epoch are the shard's to stamp.
///
/// # Panics
/// When there are no records.
pub fn encode(records: Vec<KeyValue>, wall: Wall) -> Batch {
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let records: Vec<Record> = records.into_iter().zip(0i32..).map(|(kv, at)| record(kv, at, wall)).collect();
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("plain records of bounded size encode");
    Batch::split_from(&mut bytes.freeze()).expect("the encoder makes one whole batch")
}

fn record((key, value): KeyValue, at: i32, wall: Wall) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(at),
        // The encoder keeps records in one batch while offset minus sequence stays the same; the first one's is "none".
        sequence: at - 1,
        timestamp: wall.0,
        key: Some(key),
        value,
        headers: Default::default(),
    }
}

/// Bytes that are not what the coordinator wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a batch of the coordinator cannot be read: {0}")]
pub struct Unreadable(&'static str);

/// Calls `each` with key and value of every record in `bytes`, which are whole batches; records without a key and control
/// batches are passed over. Answers the offset after the last batch, or `None` when there is none.
///
/// # Errors
/// [`Unreadable`] for damage; what came before it was handed out.
pub fn walk(mut bytes: Bytes, mut each: impl FnMut(&[u8], Option<&[u8]>)) -> Result<Option<Offset>, Unreadable> {
    let mut end = None;
    while !bytes.is_empty() {
        let batch = Batch::split_from(&mut bytes).map_err(|_| Unreadable("framing"))?;
        batch.verify_crc().map_err(|_| Unreadable("CRC"))?;
        end = Some(batch.head.last_offset().next());
        if batch.head.is_control() {
            continue;
        }
        if batch.head.codec() != 0 {
            return Err(Unreadable("compressed"));
        }
        let mut rest = &batch.body[..];
        while !rest.is_empty() {
            let (key, value) = next_record(&mut rest).ok_or(Unreadable("record"))?;
            if let Some(key) = key {
                each(key, value);
            }
        }
    }
    Ok(end)
}

type RawRecord<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Length, attributes, timestamp delta, offset delta, key, value; headers follow and are not looked at.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<RawRecord<'a>> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (mut record, after) = rest.split_at_checked(length)?;
    *rest = after;
    let (_attributes, fields) = record.split_first()?;
    record = fields;
    varint(&mut record)?;
    varint(&mut record)?;
    Some((blob(&mut record)?, blob(&mut record)?))
}

/// A blob with its length in front; -1 is null.
fn blob<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(rest)? {
        -1 => Some(None),
        length => {
            let (blob, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            *rest = after;
            Some(Some(blob))
        }
    }
}

/// A zigzag varint of up to 64 bits.
fn varint(rest: &mut &[u8]) -> Option<i64> {
    let mut raw = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use thalweg_record::{HEAD_LEN, LeaderEpoch};

    use super::*;

    fn sample() -> Vec<KeyValue> {
        let long = Bytes::from(vec![7; 300]);
        vec![
            (Bytes::from_static(b"k1"), Some(Bytes::from_static(b"v1"))),
            (Bytes::from_static(b"k2"), None),
            (long.clone(), Some(long)),
        ]
    }

    fn whole(batch: &Batch) -> Bytes {
        Bytes::from([&batch.head.0[..], &batch.body[..]].concat())
    }

    #[test]
    fn a_batch_is_what_the_shard_accepts() {
        let batch = encode(sample(), Wall(1_700_000_000_000));
        assert_eq!(batch.verify_crc(), Ok(()));
        assert_eq!(
            (batch.head.base_offset_raw(), batch.head.last_offset_delta(), batch.head.record_count()),
            (0, 2, 3)
        );
        assert_eq!((batch.head.producer_id(), batch.head.producer_epoch(), batch.head.base_sequence()), (-1, -1, -1));
        assert_eq!((batch.head.attributes(), batch.head.max_timestamp()), (0, 1_700_000_000_000));
        assert_eq!(batch.head.size_bytes(), HEAD_LEN + batch.body.len());
    }

    #[test]
    fn what_was_written_is_walked() {
        let mut first = encode(sample(), Wall(5));
        first.head.stamp(Offset(40), LeaderEpoch(2));
        let mut second = encode(sample(), Wall(6));
        second.head.stamp(Offset(43), LeaderEpoch(2));
        let mut seen = Vec::new();
        let both = Bytes::from([whole(&first), whole(&second)].concat());
        let end = walk(both, |k, v| seen.push((Bytes::copy_from_slice(k), v.map(Bytes::copy_from_slice))));
        assert_eq!(end, Ok(Some(Offset(46))));
        assert_eq!(seen, [sample(), sample()].concat());
        assert_eq!(walk(Bytes::new(), |_, _| ()), Ok(None));
    }

    #[test]
    fn damage_is_told() {
        let good = whole(&encode(sample(), Wall(5)));
        for at in [0, 8, 16, 20, 30, 62, good.len() - 1] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x55;
            // Offset and epoch lie outside the CRC.
            let result = walk(Bytes::from(bad), |_, _| ());
            assert_eq!(result.is_ok(), at == 0, "byte {at}");
        }
        // A valid CRC over a record that claims more than there is.
        let mut batch = encode(sample(), Wall(5));
        let mut body = batch.body.to_vec();
        body[0] = 0x7e;
        batch.body = Bytes::from(body).slice(..20);
        batch.head.set_batch_length((HEAD_LEN - 12 + 20) as i32);
        batch.head.set_crc(batch.head.compute_crc(&batch.body));
        assert_eq!(walk(whole(&batch), |_, _| ()), Err(Unreadable("record")));
    }
}
