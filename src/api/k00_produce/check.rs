//! What the wire alone says of a batch.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use thalweg_record::{Batch, BatchError};

use super::refused::Refused;

/// Codec id of zstd (KIP-110), which clients may send from Produce 7 on.
const ZSTD: u8 = 4;
const ZSTD_SINCE: i16 = 7;

fn invalid(why: &'static str) -> Refused {
    Refused::because(ResponseError::InvalidRecord, why)
}

/// Takes the one batch out of a partition's records. It stays a slice of the frame.
pub(super) fn one_batch(records: Option<Bytes>, version: i16) -> Result<Batch, Refused> {
    let mut records = records.unwrap_or_default();
    let batch = Batch::split_from(&mut records).map_err(|error| match error {
        BatchError::Magic(_) => invalid("only record batches of magic 2 are taken"),
        BatchError::Truncated => invalid("exactly one record batch is taken, whole"),
        BatchError::Crc => ResponseError::CorruptMessage.into(),
    })?;
    if !records.is_empty() {
        return Err(invalid("exactly one record batch is taken"));
    }
    let head = &batch.head;
    if head.base_offset_raw() != 0 {
        return Err(invalid("the base offset of a produced batch is 0"));
    }
    if head.is_control() {
        return Err(invalid("clients write no control batches"));
    }
    if head.record_count() <= 0 || i64::from(head.last_offset_delta()) != i64::from(head.record_count()) - 1 {
        return Err(invalid("record count and last offset delta differ"));
    }
    if head.producer_id() >= 0 && (head.base_sequence() < 0 || head.producer_epoch() < 0) {
        return Err(invalid("a producer id comes with an epoch and a sequence"));
    }
    if head.codec() > ZSTD || (head.codec() == ZSTD && version < ZSTD_SINCE) {
        return Err(ResponseError::UnsupportedCompressionType.into());
    }
    if head.is_transactional() {
        return Err(transactional());
    }
    Ok(batch)
}

/// See the module `k00_produce`.
pub(super) fn transactional() -> Refused {
    Refused::because(ResponseError::TransactionalIdAuthorizationFailed, "transactions are not served by this broker")
}
