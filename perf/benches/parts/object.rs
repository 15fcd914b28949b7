//! Encoding an object as an upload does: 16 partitions, 16 MiB.

use divan::{Bencher, counter::BytesCount};
use thalweg_objectstore::format::{EncodedObject, ObjectEncoder, Properties};
use thalweg_record::Batch;

use crate::sample::{SHAPES, Shape, partition, stamped};

const PARTITIONS: i32 = 16;
const OBJECT_BYTES: usize = 16 << 20;
/// `object.block.bytes`.
const BLOCK_BYTES: u32 = 512 << 10;

/// Batches of one partition that together with the others' make the object.
pub fn batches(shape: Shape) -> Vec<Batch> {
    let batch = shape.batch();
    let count = OBJECT_BYTES / PARTITIONS as usize / batch.size_bytes();
    (0..count as i64).map(|n| stamped(&batch, n * i64::from(shape.0))).collect()
}

/// The object.
pub fn encoded(batches: &[Batch]) -> EncodedObject {
    let mut encoder = ObjectEncoder::new(1, BLOCK_BYTES);
    for index in 0..PARTITIONS {
        batches.iter().for_each(|batch| encoder.push(partition(index), batch));
    }
    encoder.finish(&Properties::default())
}

#[divan::bench(args = SHAPES)]
fn encode(bencher: Bencher<'_, '_>, shape: Shape) {
    let batches = batches(shape);
    bencher.counter(BytesCount::new(OBJECT_BYTES)).bench_local(|| encoded(&batches));
}
