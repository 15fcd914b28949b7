//! The planner against a model of a shard's objects: nothing is lost or doubled, every plan is bounded, and bytes are counted exactly.

use proptest::prelude::*;
use thalweg_objectstore::{
    ObjectKey,
    format::{ENTRY_BYTES, ObjectEncoder, PartitionProperties, ProducerBatch, ProducerState, Properties},
};
use thalweg_record::{LeaderEpoch, TopicId};

use super::*;

mod cost;

const MIB: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 512 << 10;

fn config() -> CompactionConfig {
    CompactionConfig {
        interval: std::time::Duration::from_secs(10),
        objects: 50,
        output_bytes: 256 * MIB,
        split_bytes: 64 * MIB,
        block_bytes: BLOCK_BYTES as u32,
        bytes_per_second: 0,
        upload_bytes: 64 * MIB,
    }
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([3; 16]), index }
}

/// What an object needs beside its records: with one leader epoch and one producer in each partition, as long a window as it keeps.
#[derive(Clone, Copy)]
struct Overhead {
    empty: u64,
    partition: u64,
}

impl Overhead {
    fn measured() -> Overhead {
        let size = |partitions: usize| {
            let window = vec![ProducerBatch::default(); thalweg_objectstore::format::WINDOW_BATCHES];
            let one = PartitionProperties {
                topic_name: "orders-of-customers".into(),
                epochs: vec![(LeaderEpoch(1), Offset(0))],
                producers: vec![ProducerState { window, ..ProducerState::default() }],
                ..PartitionProperties::default()
            };
            let properties = Properties { partitions: vec![one; partitions], ..Properties::default() };
            ObjectEncoder::new(1, BLOCK_BYTES as u32).finish(&properties).size_bytes
        };
        Overhead { empty: size(0), partition: size(1) - size(0) }
    }

    fn of(&self, ranges: impl Iterator<Item = u64>) -> u64 {
        let of_range = |bytes: u64| self.partition + bytes.div_ceil(BLOCK_BYTES) * ENTRY_BYTES as u64;
        self.empty + ranges.map(of_range).sum::<u64>()
    }
}

/// One shard's objects, as its metadata has them.
struct Model {
    config: CompactionConfig,
    overhead: Overhead,
    partitions: BTreeMap<PartitionId, Vec<Rc<CommittedObject>>>,
    /// Bytes of records in each object when it was made.
    made: BTreeMap<ObjectId, u64>,
    avoid: Rc<BTreeSet<ObjectId>>,
    next_object: u64,
    puts: u64,
    written: u64,
    moved: u64,
    produced: u64,
}

impl Model {
    fn new(config: CompactionConfig) -> Model {
        let overhead = Overhead::measured();
        let (partitions, made) = (BTreeMap::new(), BTreeMap::new());
        let avoid = Rc::default();
        Model { config, overhead, partitions, made, avoid, next_object: 1, puts: 0, written: 0, moved: 0, produced: 0 }
    }

    fn put(
        &mut self,
        ranges: &[(PartitionId, Offset, Offset, u64)],
        level: u32,
    ) -> Vec<(PartitionId, Rc<CommittedObject>)> {
        let id = self.next_object;
        self.next_object += 1;
        self.puts += 1;
        let bytes: u64 = ranges.iter().map(|(.., bytes)| bytes).sum();
        self.made.insert(ObjectId(id), bytes);
        let object_bytes = bytes + self.overhead.of(ranges.iter().map(|(.., bytes)| *bytes));
        self.written += object_bytes;
        let part = |(partition, base, last, size_bytes): &(PartitionId, Offset, Offset, u64)| {
            let object = CommittedObject {
                object: ObjectId(id),
                key: ObjectKey::new(format!("k{id}")).expect("a key"),
                object_bytes,
                base: *base,
                last: *last,
                size_bytes: *size_bytes,
                max_timestamp: Wall(0),
                epoch: LeaderEpoch(0),
                level,
            };
            (*partition, Rc::new(object))
        };
        ranges.iter().map(part).collect()
    }

    /// An upload: `shares` by partition; those above `object.split.bytes` get objects of their own.
    fn upload(&mut self, shares: &[(PartitionId, u64)]) {
        const OWN: u64 = 16 * MIB;
        let ranges: Vec<_> = shares
            .iter()
            .map(|(partition, bytes)| {
                let parts = self.partitions.get(partition);
                let base = parts.and_then(|parts| parts.last()).map_or(Offset(0), |part| part.last.next());
                (*partition, base, Offset(base.0 + 9), *bytes)
            })
            .collect();
        self.produced += shares.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let (own, shared): (Vec<_>, Vec<_>) = ranges.into_iter().partition(|(.., bytes)| *bytes > OWN);
        let objects = own.chunks(1).chain((!shared.is_empty()).then_some(&shared[..]));
        for ranges in objects {
            for (partition, part) in self.put(ranges, 0) {
                self.partitions.entry(partition).or_default().push(part);
            }
        }
    }

    fn field(&self) -> Field {
        let mut data: BTreeMap<ObjectId, u64> = BTreeMap::new();
        let all = || self.partitions.iter().flat_map(|(id, parts)| parts.iter().map(|part| (*id, part.clone())));
        all().for_each(|(_, part)| *data.entry(part.object).or_default() += part.size_bytes);
        let dying = |part: &CommittedObject| part.level > 0 && data[&part.object] < self.made[&part.object] / 2;
        let alone = |(partition, part): (PartitionId, Rc<CommittedObject>)| Stretch { partition, parts: vec![part] };
        let dying = all().filter(|(_, part)| dying(part)).map(alone);
        Field { dying: dying.collect(), ..self.uploads() }
    }

    /// Of the same, uploads alone.
    fn uploads(&self) -> Field {
        let mut field = Field { avoid: self.avoid.clone(), ..Field::default() };
        for (id, parts) in &self.partitions {
            let from = parts.iter().rposition(|part| part.level > 0).map_or(0, |at| at + 1);
            let bytes = parts[from..].iter().map(|part| part.size_bytes).sum();
            field.add_uploads(&self.config, *id, bytes, parts[from..].iter());
        }
        field
    }

    /// Does what a plan says, and checks that it says nothing wrong.
    fn apply(&mut self, plan: &Plan) {
        assert!(plan.stretches.windows(2).all(|pair| pair[0].partition < pair[1].partition), "by partition, each once");
        assert!(plan.inputs().len() <= CompactionConfig::MAX_INPUTS, "{} inputs", plan.inputs().len());
        let largest = plan.stretches.iter().map(Stretch::bytes).max().unwrap_or(0);
        assert!(plan.bytes() < self.config.output_bytes + largest.max(1), "{} bytes", plan.bytes());
        let fresh = plan.stretches.iter().flat_map(|stretch| &stretch.parts).all(|part| part.level == 0);
        assert_eq!(fresh, plan.kind != Kind::Split, "what compaction made moves by a split alone");
        if plan.stretches.len() > 1 && plan.kind != Kind::Split {
            let alone = plan.stretches.iter().find(|stretch| stretch.bytes() >= self.config.split_bytes);
            assert_eq!(alone, None, "so much goes into an object of its own");
        }
        let ranges: Vec<_> = plan.stretches.iter().map(|s| (s.partition, s.base(), s.last(), s.bytes())).collect();
        let level = 1 + plan.inputs().values().map(|part| part.level).max().unwrap_or(0);
        self.moved += plan.bytes();
        for ((partition, made), stretch) in self.put(&ranges, level).into_iter().zip(&plan.stretches) {
            let parts = self.partitions.get_mut(&partition).expect("known");
            let at = parts.iter().position(|part| *part == stretch.parts[0]).expect("it is there");
            let replaced: Vec<_> = parts.splice(at..at + stretch.parts.len(), [made]).collect();
            assert_eq!(replaced, stretch.parts, "parts as they are, side by side");
        }
    }

    /// Compacts until nothing is left to do; answers what was done.
    fn compact(&mut self) -> Vec<Kind> {
        let mut done = Vec::new();
        while let Some(plan) = plan(&self.config, self.field()) {
            done.push(plan.kind);
            self.apply(&plan);
            assert!(done.len() < 10_000, "it never ends");
        }
        done
    }

    fn check_whole(&self, ends: &BTreeMap<PartitionId, Offset>) {
        for (id, parts) in &self.partitions {
            let mut next = parts.first().map_or(Offset(0), |part| part.base);
            for part in parts {
                assert_eq!(part.base, next, "{id}: contiguous");
                next = part.last.next();
            }
            assert_eq!(ends.get(id), Some(&next), "{id}: nothing is lost at the end");
        }
    }

    fn ends(&self) -> BTreeMap<PartitionId, Offset> {
        self.partitions.iter().filter_map(|(id, parts)| Some((*id, parts.last()?.last.next()))).collect()
    }
}

#[test]
fn a_few_uploads_wait() {
    let mut model = Model::new(config());
    for _ in 0..49 {
        model.upload(&[(partition(0), 1000), (partition(1), 10)]);
    }
    assert_eq!(model.compact(), []);
    model.upload(&[(partition(1), 10)]);
    assert_eq!(model.compact(), [Kind::Minor]);
    let one = |index| model.partitions[&partition(index)].len();
    assert_eq!((one(0), one(1), model.puts), (1, 1, 51), "fifty small objects became one");
    assert_eq!(model.compact(), [], "what compaction made is left alone");
}

#[test]
fn a_partition_that_fills_an_object_does_not_wait() {
    let mut model = Model::new(config());
    for _ in 0..3 {
        model.upload(&[(partition(0), 64 * MIB)]);
        assert_eq!(model.compact(), []);
    }
    model.upload(&[(partition(0), 64 * MIB)]);
    assert_eq!(model.compact(), [Kind::Major]);
    model.upload(&[(partition(0), 300 * MIB)]);
    assert_eq!(model.compact(), [], "one that large is left as it is");
    model.upload(&[(partition(0), 200 * MIB)]);
    model.upload(&[(partition(0), 200 * MIB)]);
    assert_eq!(model.compact(), [Kind::Major], "and does not stop what comes after it");
    assert_eq!(model.partitions[&partition(0)].len(), 3);
}

#[test]
fn much_of_one_partition_gets_an_object_of_its_own() {
    let mut model = Model::new(config());
    for _ in 0..50 {
        model.upload(&[(partition(0), 3 * MIB / 2), (partition(1), 1000), (partition(2), 1000)]);
    }
    assert_eq!(model.compact(), [Kind::Minor, Kind::Minor]);
    let object = |index| model.partitions[&partition(index)][0].object;
    assert_eq!((object(1), object(0) == object(1)), (object(2), false));
}

#[test]
fn all_that_waits_is_counted_and_the_oldest_is_shown() {
    let mut model = Model::new(config());
    model.upload(&[(partition(0), 300 * MIB), (partition(1), MIB)]);
    for _ in 0..499 {
        model.upload(&[(partition(1), MIB)]);
    }
    model.upload(&[(partition(0), MIB)]);
    model.upload(&[(partition(0), 300 * MIB)]);
    model.upload(&[(partition(0), MIB)]);
    let field = model.uploads();
    let shown: Vec<_> = field.fresh.iter().map(|stretch| (stretch.partition.index, stretch.parts.len())).collect();
    assert_eq!(shown, [(0, 3), (1, PARTS_SHOWN)]);
    assert_eq!(field.waiting_bytes, 502 * MIB, "without what stays as it is");
}

#[test]
fn ids_taken_the_other_way_round_keep_a_partition_whole() {
    let mut model = Model::new(CompactionConfig { objects: 2, ..config() });
    model.next_object = 9;
    model.upload(&[(partition(0), 10)]);
    model.next_object = 3;
    model.upload(&[(partition(0), 10)]);
    model.next_object = 5;
    model.upload(&[(partition(0), 10)]);
    assert_eq!(model.compact(), [Kind::Minor]);
    assert_eq!(model.partitions[&partition(0)].len(), 1, "what lies between went along");
}

#[test]
fn what_is_live_leaves_an_object_that_is_mostly_dead() {
    let mut model = Model::new(CompactionConfig { objects: 2, ..config() });
    for _ in 0..2 {
        model.upload(&[(partition(0), 10 * MIB), (partition(1), 9 * MIB), (partition(2), 2 * MIB)]);
    }
    assert_eq!(model.compact(), [Kind::Minor]);
    model.partitions.insert(partition(0), Vec::new());
    assert_eq!(model.compact(), [], "half of it lives");
    model.partitions.insert(partition(1), Vec::new());
    assert_eq!(model.compact(), [Kind::Split]);
    let kept = &model.partitions[&partition(2)][0];
    assert_eq!((kept.level, kept.size_bytes), (2, 4 * MIB));
}

#[test]
fn objects_that_do_not_read_right_are_left_alone_and_hold_up_nothing() {
    let mut model = Model::new(CompactionConfig { objects: 4, ..config() });
    let upload = |model: &mut Model| model.upload(&[(partition(0), 1000), (partition(1), 10)]);
    (0..3).for_each(|_| upload(&mut model));
    model.avoid = Rc::new(BTreeSet::from([ObjectId(1), ObjectId(4)]));
    assert_eq!(model.compact(), [], "too few wait");
    (0..3).for_each(|_| upload(&mut model));
    assert_eq!(model.compact(), [Kind::Minor]);
    let objects = |model: &Model| model.partitions[&partition(0)].iter().map(|part| part.object.0).collect::<Vec<_>>();
    assert_eq!(objects(&model), [1, 7, 4, 5, 6], "2 and 3 became one");
    model.avoid = Rc::default();
    model.next_object = 8;
    upload(&mut model);
    assert_eq!(model.compact(), [Kind::Minor]);
    assert_eq!(objects(&model), [1, 7, 9], "what lies before what was compacted stays");
}

/// Bytes written to the store for each byte produced, and puts for each GiB, when all of `uploads` came together.
fn figures(partitions: i32, uploads: u64) -> (f64, f64, Model) {
    let mut model = Model::new(config());
    let share = 64 * MIB / u64::from(partitions.unsigned_abs());
    let shares: Vec<_> = (0..partitions).map(|index| (partition(index), share)).collect();
    for _ in 0..uploads {
        model.upload(&shares);
        // Between two looks nothing changes in vain: only a look that can find something costs time here.
        if model.next_object % 10 == 0 {
            model.compact();
        }
    }
    model.compact();
    assert!(model.moved <= model.produced, "no byte is copied twice");
    let amplification = model.written as f64 / model.produced as f64;
    let puts = model.puts as f64 * (1u64 << 30) as f64 / model.produced as f64;
    model.check_whole(&model.ends());
    (amplification, puts, model)
}

#[test]
fn each_byte_is_written_twice_and_hardly_more() {
    // Partitions, uploads of 64 MiB, the bound on puts for each GiB, live entries of a partition in the end.
    for (partitions, uploads, most_puts, entries) in // Of ten, 41 parts fill an object.
        [(10, 410, 21.0, 10), (1_000, 100, 21.0, 2), (10_000, 50, 21.0, 1)]
    {
        let (amplification, puts, model) = figures(partitions, uploads);
        println!("{partitions} partitions: {amplification:.4} bytes, {puts:.2} puts a GiB");
        assert!(amplification <= 2.05, "{partitions} partitions: {amplification}");
        assert!(model.moved * 100 >= model.produced * 99, "{partitions} partitions: all of it was copied once");
        assert!(puts <= most_puts, "{partitions} partitions: {puts} puts a GiB");
        let most = model.partitions.values().map(Vec::len).max();
        assert!(most <= Some(entries), "{partitions} partitions: {most:?} entries");
    }
}

#[test]
fn an_idle_shard_hardly_puts_more() {
    let mut model = Model::new(config());
    // 10 KB/s over 1,000 partitions, an upload each minute for a day.
    let shares: Vec<_> = (0..1000).map(|index| (partition(index), 600)).collect();
    for _ in 0..24 * 60 {
        model.upload(&shares);
        if (model.next_object - 1) % 51 == 50 {
            model.compact();
        }
    }
    assert_eq!(model.puts, 24 * 60 + 28, "a put a minute, and one for each fifty");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled(
        steps in prop::collection::vec((0u8..8, prop::collection::btree_map(0i32..6, 1u64..200, 1..6)), 1..60),
        objects in 2usize..9,
        output in 100u64..2000,
        split in 50u64..1500,
    ) {
        let config = CompactionConfig { objects, output_bytes: output, split_bytes: split, ..config() };
        let mut model = Model::new(config);
        let mut splits = 0;
        for (what, shares) in steps {
            let shares: Vec<_> = shares.into_iter().map(|(index, bytes)| (partition(index), bytes)).collect();
            match what {
                // Retention, or the deletion of a topic.
                0 => if let Some(parts) = model.partitions.get_mut(&shares[0].0) {
                    parts.drain(..parts.len() / 2);
                },
                1 => { model.partitions.remove(&shares[0].0); }
                _ => model.upload(&shares),
            }
            let ends = model.ends();
            splits += model.compact().iter().filter(|kind| **kind == Kind::Split).count();
            model.check_whole(&{
                let mut ends = ends;
                for (id, parts) in &model.partitions {
                    if parts.is_empty() { ends.insert(*id, Offset(0)); }
                }
                ends
            });
            let waiting: BTreeSet<ObjectId> = model.field().fresh.iter().flat_map(|s| &s.parts).map(|p| p.object).collect();
            let large = model.field().fresh.iter().flat_map(|s| s.parts.clone()).filter(|p| p.size_bytes >= output).count();
            prop_assert!(waiting.len() < objects + large + 1, "what waits is bounded");
        }
        // What died pays for what is copied again.
        prop_assert!(splits == 0 || model.moved <= 2 * model.produced);
    }
}
