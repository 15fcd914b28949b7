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
fn bill(config: CompactionConfig, uploads: u64) -> (Bill, Model) {
    let (mut model, mut bill) = (Model::new(config), Bill::default());
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

/// What is in the metadata, and so in each of its snapshots.
struct Kept {
    partitions: u64,
    /// Entries of a partition that no manifest lists, at most.
    entries: u64,
    /// Manifests of a partition.
    manifests: u64,
    objects: u64,
    /// Reservations since the start: of uploads, outputs and manifests. They stay until the next one.
    reservations: u64,
}

/// Bytes of records in a snapshot, as `what_records_weigh_in_a_snapshot` counts them (`src/cluster/bucket/tests.rs`).
const RANGE_RECORD: u64 = 362;
const OBJECT_RECORD: u64 = 144;
const FOLDED_RECORD: u64 = 193;
const MANIFEST_RECORD: u64 = 319;
const RESERVATION_RECORD: u64 = 82;
/// Uploads that wait (`a_minute_keeps_up`), and what compaction made as long as it is not worth a manifest.
const MOST_ENTRIES: u64 = 177 + 50;
const ENTRIES_OF_MANIFEST: u64 = 100;
/// A manifest, and its entries.
const MANIFEST_BYTES: u64 = 100 + 90 * ENTRIES_OF_MANIFEST;

impl Kept {
    /// Of a broker that takes 1 GiB/s, keeps seven days of it, and has run for `running` days; `bill` is what one shard did of `produced` bytes.
    fn a_week(running: u64, bill: &Bill, produced: u64) -> Kept {
        let in_days = |days: u64, count: u64| (count as f64 * (days * 86_400 * GIB) as f64 / produced as f64) as u64;
        let share = |count: u64| in_days(7, count);
        let partitions = SHARDS * u64::from(PARTITIONS_OF_SHARD.unsigned_abs());
        // Of each partition one for each fifty uploads of its shard.
        let manifests = share(bill.uploads) / SHARDS / 50 / ENTRIES_OF_MANIFEST;
        let reservations =
            in_days(running, bill.uploads + bill.compacted_objects) + partitions * manifests * running / 7;
        let objects = share(bill.compacted_objects);
        Kept { partitions, entries: MOST_ENTRIES, manifests, objects, reservations }
    }

    fn snapshot_bytes(&self) -> u64 {
        let ranges = self.partitions * self.entries * RANGE_RECORD;
        let manifests = self.partitions * self.manifests * MANIFEST_RECORD;
        ranges + manifests + self.objects * (OBJECT_RECORD + FOLDED_RECORD) + self.reservations * RESERVATION_RECORD
    }
}

#[test]
fn a_minute_of_ten_thousand_partitions_at_a_gib_per_second() {
    // 60 uploads of 64 MiB are a minute of one shard of sixteen; after a hundred, two times fifty were merged and nothing waits.
    let (data, model) = bill(config(), 100);
    let entries = model.partitions.values().map(Vec::len).max().unwrap_or(0);
    assert_eq!((data.uploads, data.compacted_objects, entries), (100, 26, 2));
    let kept = Kept::a_week(1, &data, model.produced);
    let after_a_week = Kept::a_week(7, &data, model.produced).snapshot_bytes();
    // A minute of all shards: what was counted, as often as it takes, and what the metadata puts.
    let minutes = 60.0 * GIB as f64 / model.produced as f64;
    let (mut metadata, mut manifests) = (Bill::default(), Bill::default());
    metadata.put(kept.snapshot_bytes());
    manifests.put(MANIFEST_BYTES);
    let manifests_of_minute = minutes * (data.uploads * u64::from(PARTITIONS_OF_SHARD.unsigned_abs())) as f64
        / (50 * ENTRIES_OF_MANIFEST) as f64;
    let total = |of: fn(&Bill) -> u64| {
        (minutes * of(&data) as f64 + of(&metadata) as f64 + manifests_of_minute * of(&manifests) as f64) / 60.0
    };
    let (written, puts) = (total(|bill| bill.written_bytes) / GIB as f64, total(|bill| bill.put_requests));
    let gets = data.get_requests as f64 * minutes / 60.0;
    println!("uploads and compaction of one shard: {data:?}");
    println!(
        "of all, which keep seven days: a snapshot of {} MB after one ({} MB after seven), {} objects, {} reservations, {} manifests of a partition",
        kept.snapshot_bytes() / 1_000_000,
        after_a_week / 1_000_000,
        kept.objects,
        kept.reservations,
        kept.manifests
    );
    println!("for each GiB: {written:.4} GiB written, {puts:.2} requests that write, {gets:.1} that read");
    println!(
        "of these, data: {:.4} GiB, {:.2} requests; snapshots: {:.4}, {:.2}; manifests: {:.4}, {:.2}",
        minutes * data.written_bytes as f64 / 60.0 / GIB as f64,
        minutes * data.put_requests as f64 / 60.0,
        metadata.written_bytes as f64 / 60.0 / GIB as f64,
        metadata.put_requests as f64 / 60.0,
        manifests_of_minute * manifests.written_bytes as f64 / 60.0 / GIB as f64,
        manifests_of_minute / 60.0
    );
    println!("in a minute, 60 GiB: {:.0} and {:.0} requests", 60.0 * puts, 60.0 * gets);
    println!("in a year: {:.1} million GiB written", written * 365.0 * 86_400.0 / 1e6);
    assert!(written <= 2.05, "{written}");
    assert!(puts <= 100.0, "{puts}");
}

#[test]
fn a_run_that_is_counted_on_the_binary() {
    // Where ten uploads are merged in place of fifty, as tests/bucket/test_costs.py has it, which knows these figures by heart.
    let (data, model) = bill(CompactionConfig { objects: 10, ..config() }, 20);
    let each = |count: u64| count as f64 * GIB as f64 / model.produced as f64;
    let (written, puts, gets) =
        (each(data.written_bytes) / GIB as f64, each(data.put_requests), each(data.get_requests));
    println!("{data:?}: for each GiB {written:.4} GiB written, {puts:.1} requests that write, {gets:.1} that read");
    assert_eq!((data.uploads, data.compacted_objects), (20, 6));
    assert_eq!(
        (format!("{written:.3}"), format!("{puts:.1}"), format!("{gets:.0}")),
        ("2.003".into(), "97.6".into(), "432".into())
    );
}

#[test]
fn an_idle_shard_of_a_thousand_partitions_puts_less_than_twice_a_minute() {
    // 10 KB/s. An upload a minute, and one output for fifty of them. Snapshots: each second minute; and after each output two within a
    // minute each, of what it left as garbage, and one of that having gone.
    let (uploads, outputs) = (50.0, 1.0);
    let (after_output, of_uploads) = (3.0, (50.0 - 3.0) / 2.0);
    let puts = (uploads + outputs + after_output + of_uploads) / 50.0;
    println!("{puts:.2} PUTs a minute");
    assert!(puts <= 2.0);
}

/// What an object store does for one output at a time, of one shard.
#[derive(Clone, Copy)]
struct Speed {
    /// Bytes per second of reads, four side by side.
    read: f64,
    /// Bytes per second of one put.
    write: f64,
    /// Seconds until a read begins to answer.
    first_byte: f64,
}

/// A part of 48 MiB goes up at some 90 MB/s, as over one connection to S3, and four of them side by side.
const S3: Speed = Speed { read: 300e6, write: 4.0 * 90e6, first_byte: 0.02 };
const READS_AT_ONCE: f64 = 4.0;

/// One of sixteen shards that are alike, by the clock: an upload each second, beside which one output after the other is made.
struct Clocked {
    model: Model,
    store: Speed,
    /// How many of the process are made at once; those who find no room go one after the other.
    outputs_at_once: u64,
    /// What is being made, and when that ends, in seconds.
    made: Option<Plan>,
    free_at: f64,
}

impl Clocked {
    fn new(store: Speed, outputs_at_once: u64) -> Clocked {
        let model = Model::new(CompactionConfig { bytes_per_second: 16 * MIB, ..config() });
        Clocked { model, store, outputs_at_once, made: None, free_at: 0.0 }
    }

    /// Goes on to `now`.
    fn run_to(&mut self, now: f64) {
        while self.free_at <= now {
            if let Some(plan) = self.made.take() {
                self.model.apply(&plan);
            }
            let (field, config) = (self.model.uploads(), &self.model.config);
            let waiting = field.waiting_bytes;
            match plan(config, field) {
                None => self.free_at += config.interval.as_secs_f64(),
                Some(plan) => {
                    let turns = SHARDS.div_ceil(self.outputs_at_once) as f64;
                    self.free_at += turns * self.seconds(&plan, waiting);
                    self.made = Some(plan);
                }
            }
        }
    }

    /// How long an output takes while so much waits.
    fn seconds(&self, plan: &Plan, waiting: u64) -> f64 {
        let config = &self.model.config;
        let rate = crate::rewrite::Pace::new(config.bytes_per_second, config.usual_backlog(), waiting).rate();
        let rate = rate.map_or(f64::MAX, |rate| rate.get() as f64);
        let (mut bill, bytes) = (Bill::default(), plan.bytes() as f64);
        bill.read(plan);
        let answers = bill.get_requests as f64 * self.store.first_byte / READS_AT_ONCE;
        answers + bytes / self.store.read.min(rate) + bytes / self.store.write.min(rate)
    }

    /// The most uploads that wait of a partition in each of so many minutes.
    fn minutes(&mut self, minutes: u64) -> Vec<usize> {
        let share = 64 * MIB / u64::from(PARTITIONS_OF_SHARD.unsigned_abs());
        let shares: Vec<_> = (0..PARTITIONS_OF_SHARD).map(|index| (partition(index), share)).collect();
        let waiting = |parts: &Vec<Rc<CommittedObject>>| parts.iter().rev().take_while(|part| part.level == 0).count();
        let minute = |minute: u64| {
            let second = |second: u64| {
                self.model.upload(&shares);
                self.run_to((60 * minute + second) as f64);
                self.model.partitions.values().map(waiting).max().unwrap_or(0)
            };
            (0..60).map(second).max().unwrap_or(0)
        };
        (0..minutes).map(minute).collect()
    }
}

/// The most uploads that wait of a partition in each of `minutes`, of 10,000 partitions at 1 GiB/s: 64 MiB in each of sixteen shards each second.
fn backlog(minutes: u64, store: Speed, outputs_at_once: u64) -> Vec<usize> {
    let backlog = Clocked::new(store, outputs_at_once).minutes(minutes);
    println!("{outputs_at_once} outputs at once, each put at {:.0} MB/s: {backlog:?}", store.write / 1e6);
    backlog
}

#[test]
fn a_minute_keeps_up() {
    let kept_up = backlog(16, S3, SHARDS);
    let (before, after) = (kept_up[6..11].iter().max(), kept_up[11..].iter().max());
    assert!(after <= before, "it goes on growing");
    assert!(after <= Some(&200), "entries of a partition");
    let grows = |backlog: Vec<usize>| backlog[backlog.len() - 1] > backlog[backlog.len() / 2] + 20;
    assert!(grows(backlog(8, S3, 1)), "one output at a time in the process is too little");
    let in_line = Speed { write: S3.write / 4.0, ..S3 };
    assert!(grows(backlog(12, in_line, SHARDS)), "and so are parts that go up one after the other");
}
