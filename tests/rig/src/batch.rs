//! Record batches of magic 2, made byte by byte: true ones, and ones that lie under a right CRC.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use thalweg_record::{BatchHead, HEAD_LEN, NO_PRODUCER};

/// Milliseconds since the epoch, now.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("a time in this era")
}

/// A head of `count` records made now, without producer; length and CRC come with [`sealed`].
pub fn head(count: i32) -> BatchHead {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_record_count(count);
    head.set_last_offset_delta(count - 1);
    head.set_base_timestamp(now_ms());
    head.set_max_timestamp(head.base_timestamp());
    head.set_producer_id(NO_PRODUCER);
    head.set_producer_epoch(-1);
    head.set_base_sequence(-1);
    head
}

/// Puts length and CRC right, and head and body together.
pub fn sealed(mut head: BatchHead, body: &[u8]) -> Bytes {
    head.set_batch_length(i32::try_from(HEAD_LEN - 12 + body.len()).expect("batches of tests are small"));
    let crc = head.compute_crc(body);
    head.set_crc(crc);
    [&head.0[..], body].concat().into()
}

/// A batch of the given values, without keys.
pub fn plain(values: &[&[u8]]) -> Bytes {
    compressed(0, values)
}

/// A batch of the given values, without keys, under a codec (0 to 4).
pub fn compressed(codec: u8, values: &[&[u8]]) -> Bytes {
    let mut head = head(i32::try_from(values.len()).expect("few"));
    head.set_attributes(i16::from(codec));
    let records: Vec<u8> = (0..).zip(values).flat_map(|(at, value)| record(at, None, Some(value))).collect();
    sealed(head, &squeezed(codec, &records))
}

/// One record of the time of its batch.
pub fn record(offset_delta: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut inner = vec![0];
    varint(&mut inner, 0);
    varint(&mut inner, offset_delta);
    for field in [key, value] {
        varint(&mut inner, field.map_or(-1, |bytes| bytes.len() as i64));
        inner.extend_from_slice(field.unwrap_or_default());
    }
    varint(&mut inner, 0);
    let mut out = Vec::new();
    varint(&mut out, inner.len() as i64);
    out.extend(inner);
    out
}

/// A zigzag varint.
pub fn varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// `bytes` under a codec (0 to 4), framed as Kafka's clients do.
pub fn squeezed(codec: u8, bytes: &[u8]) -> Vec<u8> {
    match codec {
        0 => bytes.to_vec(),
        1 => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).expect("memory");
            writer.finish().expect("memory")
        }
        2 => snap::raw::Encoder::new().compress_vec(bytes).expect("memory"),
        3 => {
            let mut writer = lz4::EncoderBuilder::new().build(Vec::new()).expect("memory");
            writer.write_all(bytes).expect("memory");
            let (out, end) = writer.finish();
            end.expect("memory");
            out
        }
        4 => zstd::stream::encode_all(bytes, 3).expect("memory"),
        other => panic!("{other} is no codec"),
    }
}

#[cfg(test)]
mod tests {
    use thalweg_record::Batch;

    use super::*;

    #[test]
    fn batches_are_whole_and_true() {
        for codec in 0..=4 {
            let mut bytes = compressed(codec, &[b"one", b"two"]);
            let batch = Batch::split_from(&mut bytes).expect("whole");
            batch.verify_crc().expect("right");
            assert_eq!((batch.head.record_count(), batch.head.codec(), bytes.len()), (2, codec, 0));
        }
    }
}
