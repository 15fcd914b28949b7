//! What a shard checks of a client's batch: its CRC, and every record of an uncompressed one.

use divan::{Bencher, black_box, counter::BytesCount};
use thalweg_record::{Batch, Wall};
use thalweg_shards::{batch::validate_records, msg::PartitionSettings};

use crate::sample::{SHAPES, Shape};

fn now(batch: &Batch) -> Wall {
    Wall(batch.head.max_timestamp())
}

#[divan::bench(args = SHAPES)]
fn crc(bencher: Bencher<'_, '_>, shape: Shape) {
    let batch = shape.batch();
    bencher
        .counter(BytesCount::new(batch.size_bytes()))
        .bench_local(|| black_box(&batch).verify_crc().expect("its CRC is right"));
}

#[divan::bench(args = SHAPES)]
fn records(bencher: Bencher<'_, '_>, shape: Shape) {
    let mut batch = shape.batch();
    let now = now(&batch);
    bencher.counter(BytesCount::new(batch.size_bytes())).bench_local(|| {
        validate_records(black_box(&mut batch), &PartitionSettings::KAFKA_DEFAULTS, now).expect("its records are right")
    });
}
