//! Record batches as Produce carries them, encoded once. The bytes of their values do not compress.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// One batch of `records` records with values of `record_bytes` bytes each.
///
/// # Errors
/// Says in words why it cannot be encoded, as every function of the client says what went wrong.
pub fn batch(records: u32, record_bytes: u32) -> Result<Bytes, String> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
    let records: Vec<Record> = (0..i64::from(records))
        .map(|offset| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            // The encoder puts records into one batch while this grows with the offset; the batch's own is then -1, none.
            sequence: offset as i32 - 1,
            timestamp: now.as_millis() as i64,
            key: None,
            value: Some(value(&mut state, record_bytes)),
            headers: Default::default(),
        })
        .collect();
    let mut encoded = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut encoded, &records, &options).map_err(|e| e.to_string())?;
    Ok(encoded.freeze())
}

fn value(state: &mut u64, bytes: u32) -> Bytes {
    (0..bytes)
        .map(|_| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 56) as u8
        })
        .collect()
}

/// Batches of every count of records up to a largest one.
#[derive(Debug)]
pub struct Batches {
    of_count: Vec<Bytes>,
}

impl Batches {
    /// Encodes batches of 1 to `most` records (at least 1).
    ///
    /// # Errors
    /// As [`batch`].
    pub fn up_to(most: u32, record_bytes: u32) -> Result<Batches, String> {
        let of_count: Result<Vec<Bytes>, String> =
            (1..=most.max(1)).map(|records| batch(records, record_bytes)).collect();
        Ok(Batches { of_count: of_count? })
    }

    /// The batch of so many records, which must be between 1 and the most.
    pub fn of(&self, records: u32) -> &Bytes {
        &self.of_count[records as usize - 1]
    }
}

/// How many records of `record_bytes` make a batch of about `batch_bytes`; at least one.
pub fn records_in(batch_bytes: u32, record_bytes: u32) -> u32 {
    (batch_bytes / record_bytes.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use thalweg_record::BatchHead;

    use super::*;

    #[test]
    fn a_batch_is_one_whole_batch_that_a_broker_accepts() {
        for records in [1, 2, 64] {
            let encoded = batch(records, 100).expect("encodes");
            let head = BatchHead::parse(&encoded).expect("a head");
            assert_eq!(head.size_bytes(), encoded.len());
            assert_eq!(head.record_count(), records as i32);
            assert_eq!(head.last_offset_delta(), records as i32 - 1);
            assert_eq!((head.producer_id(), head.base_sequence()), (-1, -1));
            assert_eq!(head.crc(), head.compute_crc(&encoded[thalweg_record::HEAD_LEN..]));
        }
    }

    #[test]
    fn batches_are_found_by_their_count() {
        let batches = Batches::up_to(3, 10).expect("encodes");
        assert_eq!(BatchHead::parse(batches.of(3)).expect("a head").record_count(), 3);
    }

    #[test]
    fn a_record_larger_than_a_batch_is_alone() {
        assert_eq!(records_in(65_536, 1024), 64);
        assert_eq!(records_in(65_536, 1_000_000), 1);
    }
}
