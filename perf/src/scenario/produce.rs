//! Produce alone, as fast as it is acknowledged: three sizes of records, four counts of partitions.

use super::bench::{BATCH_BYTES, Bench, PARTITIONS, RECORD_BYTES, of_sent};
use crate::{
    client::closed::{self, Closed},
    figures::Figures,
};

/// Java's batch.size, for topics of so many partitions that larger batches would not fill.
const SMALL_BATCH_BYTES: u32 = 16 << 10;
/// Such small batches travel together, as Java's producer sends them.
const SMALL_BATCHES_PER_REQUEST: u32 = 16;

/// Name, bytes of a record, partitions.
const CELLS: [(&str, u32, i32); 6] = [
    ("1 KiB, 16 partitions", RECORD_BYTES, PARTITIONS),
    ("100 B, 16 partitions", 100, PARTITIONS),
    ("64 KiB, 16 partitions", 64 << 10, PARTITIONS),
    ("1 KiB, 1 partition", RECORD_BYTES, 1),
    ("1 KiB, 256 partitions", RECORD_BYTES, 256),
    ("1 KiB, 1000 partitions", RECORD_BYTES, 1000),
];

pub(super) fn run(bench: &mut Bench<'_>) {
    for (name, record_bytes, partitions) in CELLS {
        bench.cell("produce", name, |bench| measure(bench, record_bytes, partitions));
    }
}

fn measure(bench: &mut Bench<'_>, record_bytes: u32, partitions: i32) -> Result<Figures, String> {
    let topic = bench.topic(partitions)?;
    let many = partitions > PARTITIONS;
    let load = Closed {
        record_bytes,
        batch_bytes: if many { SMALL_BATCH_BYTES } else { BATCH_BYTES },
        batches_per_request: if many { SMALL_BATCHES_PER_REQUEST } else { 1 },
        ..bench.closed()
    };
    let (sent, cost) = bench.measured(|| closed::produce(&topic, load))?;
    Ok(of_sent(&sent, cost))
}
