//! Record batches of magic 2, made byte by byte.

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_record::{Batch, BatchHead, HEAD_LEN, Wall};
use thalweg_shards::{
    codec::{Compression, compress},
    runtime::seeded::Stream,
};

/// An idempotent producer's batch of `values` records, uncompressed.
pub(crate) fn batch(producer: i64, sequence: i32, values: &[Bytes], at: Wall) -> Batch {
    let mut body = BytesMut::new();
    for (delta, value) in values.iter().enumerate() {
        let mut record = BytesMut::new();
        record.put_u8(0);
        varint(&mut record, 0);
        varint(&mut record, delta as i64);
        varint(&mut record, -1);
        varint(&mut record, value.len() as i64);
        record.put_slice(value);
        varint(&mut record, 0);
        varint(&mut body, record.len() as i64);
        body.put_slice(&record);
    }
    let body = body.freeze();
    let head = head(producer, sequence, values.len(), Compression::Uncompressed, &body, at);
    Batch { head, body }
}

fn head(producer: i64, sequence: i32, records: usize, codec: Compression, body: &[u8], at: Wall) -> BatchHead {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_codec(codec.codec());
    head.set_last_offset_delta(records as i32 - 1);
    head.set_base_timestamp(at.0);
    head.set_max_timestamp(at.0);
    head.set_producer_id(producer);
    head.set_producer_epoch(0);
    head.set_base_sequence(sequence);
    head.set_record_count(records as i32);
    head.set_crc(head.compute_crc(body));
    head
}

/// An idempotent producer's batch of records with keys, compressed; a record without a value is a tombstone.
pub(crate) fn keyed(
    producer: i64,
    sequence: i32,
    records: &[(Bytes, Option<Bytes>)],
    codec: Compression,
    at: Wall,
) -> Batch {
    let mut section = BytesMut::new();
    for (delta, (key, value)) in records.iter().enumerate() {
        let mut record = BytesMut::new();
        record.put_u8(0);
        varint(&mut record, 0);
        varint(&mut record, delta as i64);
        varint(&mut record, key.len() as i64);
        record.put_slice(key);
        varint(&mut record, value.as_ref().map_or(-1, |value| value.len() as i64));
        record.put_slice(value.as_deref().unwrap_or_default());
        varint(&mut record, 0);
        varint(&mut section, record.len() as i64);
        section.put_slice(&record);
    }
    let body = compress(codec, &section.freeze());
    let head = head(producer, sequence, records.len(), codec, &body, at);
    Batch { head, body }
}

/// A value of `len` bytes that no other has.
pub(crate) fn value(random: &mut Stream, len: usize) -> Bytes {
    let mut value = BytesMut::with_capacity(len + 8);
    while value.len() < len.max(8) {
        value.put_u64(random.next());
    }
    value.truncate(len.max(8));
    value.freeze()
}

/// Zigzag, seven bits a byte.
fn varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}
