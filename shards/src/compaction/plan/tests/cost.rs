//! What a minute of a large broker costs at an object store, counted exactly; docs/costs.md tells what it comes to in a year.

use super::*;

const GIB: u64 = 1 << 30;
const SHARDS: u64 = 16;
const PARTITIONS_OF_SHARD: i32 = 625;
/// As the S3 engines cut: above the first in parts of the second, and two requests more.
const SINGLE_BYTES: u64 = 32 * MIB;
const PART_BYTES: u64 = 48 * MIB;
/// What one read takes, and reads of an object's end, index and properties.
const RUN_BYTES: u64 = 4 * MIB;
const READS_ABOUT: u64 = 3;

#[derive(Default, Debug)]
struct Bill {
    uploads: u64,
    put_requests: u64,
    get_requests: u64,
    written_bytes: u64,
    compacted_objects: u64,
}

impl Bill {
    fn put(&mut self, object_bytes: u64) {
        self.put_requests += if object_bytes > SINGLE_BYTES { 2 + object_bytes.div_ceil(PART_BYTES) } else { 1 };
        self.written_bytes += object_bytes;
    }

    /// Reads of one piece of work: of each input what is about it, and its parts, which lie side by side.
    fn read(&mut self, plan: &Plan) {
        let mut bytes: BTreeMap<ObjectId, u64> = BTreeMap::new();
        let parts = plan.stretches.iter().flat_map(|stretch| &stretch.parts);
        parts.for_each(|part| *bytes.entry(part.object).or_default() += part.size_bytes);
        self.get_requests += bytes.values().map(|bytes| READS_ABOUT + bytes.div_ceil(RUN_BYTES)).sum::<u64>();
    }
}

/// Uploads and compacts `uploads` times 64 MiB of one shard.
fn bill(uploads: u64) -> (Bill, Model) {
    let (mut model, mut bill) = (Model::new(config()), Bill::default());
    let share = 64 * MIB / u64::from(PARTITIONS_OF_SHARD.unsigned_abs());
    let shares: Vec<_> = (0..PARTITIONS_OF_SHARD).map(|index| (partition(index), share)).collect();
    for _ in 0..uploads {
        let before = model.written;
        model.upload(&shares);
        bill.uploads += 1;
        bill.put(model.written - before);
        while let Some(plan) = plan(&model.config, model.field()) {
            bill.read(&plan);
            let before = model.written;
            model.apply(&plan);
            bill.compacted_objects += 1;
            bill.put(model.written - before);
        }
    }
    (bill, model)
}

#[test]
fn a_minute_of_ten_thousand_partitions_at_a_gib_per_second() {
    // 60 uploads of 64 MiB are a minute of one shard of sixteen; after a hundred, two times fifty were merged and nothing waits.
    let (bill, model) = bill(100);
    let gib = model.produced as f64 / GIB as f64;
    let written = bill.written_bytes as f64 / model.produced as f64;
    let (puts, gets) = (bill.put_requests as f64 / gib, bill.get_requests as f64 / gib);
    let entries = model.partitions.values().map(Vec::len).max().unwrap_or(0);
    println!("{bill:?}, {gib:.2} GiB, {entries} entries of a partition");
    println!("for each GiB: {written:.4} GiB written, {puts:.1} requests that write, {gets:.1} that read");
    println!("in a minute of all {SHARDS} shards, 60 GiB: {:.0} and {:.0} requests", 60.0 * puts, 60.0 * gets);
    assert_eq!((bill.uploads, bill.compacted_objects, entries), (100, 26, 2));
    assert!(written <= 2.05, "{written}");
    assert!(puts <= 100.0, "{puts}");
}
