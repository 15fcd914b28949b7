//! The answer to a Fetch, read by hand and only as far as needed: which partitions, and the heads of their batches.

use thalweg_record::BatchHead;

/// One partition's part of an answer.
#[derive(Debug)]
pub struct Part<'a> {
    /// The partition.
    pub partition: i32,
    /// The error code, 0 for none.
    pub error: i16,
    /// Offset after the last record that may be read.
    pub high_watermark: i64,
    /// Record batches, the last one perhaps cut.
    pub records: &'a [u8],
}

/// Hands each partition of a Fetch answer (version 11, its correlation id in front) to `visit`.
///
/// # Errors
/// When the answer ends too early or the whole fetch was refused.
pub fn parts<'a>(answer: &'a [u8], mut visit: impl FnMut(Part<'a>) -> Result<(), String>) -> Result<(), String> {
    let mut rest = Rest(answer);
    rest.take(4 + 4)?;
    match rest.i16()? {
        0 => {}
        code => return Err(format!("the fetch was refused with error {code}")),
    }
    rest.i32()?;
    for _ in 0..rest.i32()? {
        let name_bytes = rest.i16()?;
        rest.take(usize::try_from(name_bytes).unwrap_or(0))?;
        for _ in 0..rest.i32()? {
            let (partition, error, high_watermark) = (rest.i32()?, rest.i16()?, rest.i64()?);
            rest.take(8 + 8)?;
            let aborted = usize::try_from(rest.i32()?).unwrap_or(0);
            rest.take(aborted * 16 + 4)?;
            let bytes = usize::try_from(rest.i32()?).unwrap_or(0);
            visit(Part { partition, error, high_watermark, records: rest.take(bytes)? })?;
        }
    }
    Ok(())
}

/// The heads of the whole batches in `records`.
pub fn heads(mut records: &[u8]) -> impl Iterator<Item = BatchHead> {
    std::iter::from_fn(move || {
        let head = BatchHead::parse(records).ok()?;
        records = records.get(head.size_bytes()..)?;
        Some(head)
    })
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or("a fetch answer that ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "a fetch answer that ends too early".to_owned())
    }

    fn i16(&mut self) -> Result<i16, String> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, String> {
        self.array().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::{
        messages::{
            FetchResponse, ResponseHeader,
            fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
        },
        protocol::Encodable,
    };

    use super::*;
    use crate::client::{batch::batch, wire::topic_name};

    fn answer(records: &[u8]) -> Vec<u8> {
        let part = |index, records: &[u8]| {
            PartitionData::default()
                .with_partition_index(index)
                .with_high_watermark(7)
                .with_records(Some(Bytes::copy_from_slice(records)))
        };
        let aborted = vec![AbortedTransaction::default(), AbortedTransaction::default()];
        let topic = FetchableTopicResponse::default()
            .with_topic(topic_name("a topic"))
            .with_partitions(vec![part(3, &[]).with_aborted_transactions(Some(aborted)), part(4, records)]);
        let mut encoded = BytesMut::new();
        ResponseHeader::default().encode(&mut encoded, 0).expect("encodes");
        FetchResponse::default().with_responses(vec![topic]).encode(&mut encoded, 11).expect("encodes");
        encoded.to_vec()
    }

    #[test]
    fn reads_what_the_protocol_crate_writes() {
        let two = [batch(1, 10).expect("encodes"), batch(5, 10).expect("encodes")].concat();
        let mut seen = Vec::new();
        parts(&answer(&two), |part| {
            let counts: Vec<i32> = heads(part.records).map(|head| head.record_count()).collect();
            seen.push((part.partition, part.error, part.high_watermark, counts));
            Ok(())
        })
        .expect("parses");
        assert_eq!(seen, [(3, 0, 7, vec![]), (4, 0, 7, vec![1, 5])]);
    }

    #[test]
    fn the_last_batch_may_be_cut() {
        let one = batch(5, 10).expect("encodes");
        let cut = [&one[..], &one[..one.len() - 1]].concat();
        assert_eq!(heads(&cut).count(), 1);
    }

    #[test]
    fn an_answer_that_ends_too_early_is_an_error() {
        let whole = answer(&batch(1, 10).expect("encodes"));
        for length in 0..whole.len() - 1 {
            assert!(parts(&whole[..length], |_| Ok(())).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
