//! Record batches of magic 2, made byte by byte.

use bytes::{BufMut, Bytes, BytesMut};
use thalweg_record::{Batch, BatchHead, HEAD_LEN, Wall};
use thalweg_shards::runtime::seeded::Stream;

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
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_last_offset_delta(values.len() as i32 - 1);
    head.set_base_timestamp(at.0);
    head.set_max_timestamp(at.0);
    head.set_producer_id(producer);
    head.set_producer_epoch(0);
    head.set_base_sequence(sequence);
    head.set_record_count(values.len() as i32);
    head.set_crc(head.compute_crc(&body));
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
