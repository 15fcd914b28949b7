//! The whole cold reader in the seeded world, over real objects in the memory store.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use flume::Sender;
use thalweg_objectstore::{
    Call, Fate, FaultHook, MemoryStore, ObjectStore, Operation, PutCondition, StoreError, data_key,
    format::{BlockIndex, FOOTER_BYTES, Footer, ObjectEncoder, Properties},
};
use thalweg_record::{Batch, BatchHead, HEAD_LEN, LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId, Wall};

use super::*;
use crate::{
    meta::{CommittedObject, ObjectId},
    meters::ShardMeters,
    msg::ConnId,
    runtime::{
        Queue,
        seeded::{Ended, Node, Stream, World},
    },
    store::serve,
};

const A: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 0 };
const B: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 1 };
const BLOCK_BYTES: u32 = 4096;

/// Counts, delays and fails the calls of the store.
#[derive(Default)]
struct Weather {
    gets: AtomicU64,
    fail_next: AtomicU64,
    fail_with: Mutex<Option<StoreError>>,
    /// While it is set, no call goes on.
    hold: Arc<AtomicBool>,
}

impl FaultHook for Weather {
    fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
        let mut fate = Fate::Pass;
        if call.operation == Operation::GetRange {
            self.gets.fetch_add(1, Ordering::Relaxed);
            if self.fail_next.load(Ordering::Relaxed) > 0 {
                self.fail_next.fetch_sub(1, Ordering::Relaxed);
                let error = self.fail_with.lock().expect("a lock").clone();
                fate = Fate::FailBefore(error.unwrap_or(StoreError::Retry("storm".to_owned())));
            }
        }
        let (polls, hold) = (call.number % 5, self.hold.clone());
        Box::pin(async move {
            while hold.load(Ordering::Relaxed) {
                futures_lite::future::yield_now().await;
            }
            for _ in 0..polls {
                futures_lite::future::yield_now().await;
            }
            fate
        })
    }
}

/// A bucket, its objects per partition, and all batches as they were appended.
struct Scene {
    world: Rc<World>,
    store: MemoryStore,
    weather: Arc<Weather>,
    requests: Sender<ColdRequest>,
    objects: Vec<(PartitionId, Rc<CommittedObject>)>,
    appended: Vec<(PartitionId, Batch)>,
    end: i64,
}

fn batch(base: i64, records: i32, timestamp: i64, body: usize) -> Batch {
    let body = Bytes::from(vec![base as u8; body]);
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_attributes(0x08);
    head.set_last_offset_delta(records - 1);
    head.set_record_count(records);
    head.set_max_timestamp(timestamp);
    head.set_crc(head.compute_crc(&body));
    head.stamp(Offset(base), LeaderEpoch(1));
    Batch { head, body }
}

fn scene(seed: u64, objects: u64, config: ColdConfig) -> Scene {
    let world = World::new(seed);
    let runtime = world.runtime(Node(0));
    let (store, weather) = (MemoryStore::new(), Arc::new(Weather::default()));
    let mut random = Stream::new(seed, 99);
    let (mut committed, mut appended, mut next) = (Vec::new(), Vec::new(), 0);
    for id in 0..objects {
        let mut encoder = ObjectEncoder::new(id, BLOCK_BYTES);
        let mut end = next;
        for partition in [A, B] {
            end = next;
            for _ in 0..40 {
                let records = 1 + random.below(5) as i32;
                let body = if random.one_in(20) { 9000 } else { random.below(700) as usize };
                let one = batch(end, records, 1000 + end, body);
                encoder.push(partition, &one);
                appended.push((partition, one));
                end += i64::from(records);
            }
        }
        // The next object starts behind both: offsets have gaps, as after compaction.
        next = end.max(appended.iter().map(|(_, b)| b.head.last_offset().0 + 1).max().unwrap_or(0));
        let object = encoder.finish(&Properties::default());
        let key = data_key(id, NodeId(1), 1);
        for range in &object.ranges {
            committed.push((
                range.partition,
                Rc::new(CommittedObject {
                    object: ObjectId(id),
                    key: key.clone(),
                    object_bytes: object.size_bytes,
                    base: range.base,
                    last: range.last,
                    size_bytes: range.size_bytes,
                    max_timestamp: range.max_timestamp,
                    epoch: range.leader_epoch,
                    level: 0,
                }),
            ));
        }
        futures_lite::future::block_on(store.put(&key, object.parts, PutCondition::IfAbsent)).expect("put");
    }
    store.set_hook(Some(weather.clone()));
    let lane = serve(&runtime, Queue::Cold, Arc::new(store.clone()), 8, Rc::default());
    let requests = start(runtime, lane, config, ShardMeters::new(ShardId(0)));
    Scene { world, store, weather, requests, objects: committed, appended, end: next }
}

type Answers<T> = Rc<RefCell<Vec<Result<T, ColdError>>>>;

impl Scene {
    fn objects_from(&self, partition: PartitionId, offset: i64) -> Vec<Rc<CommittedObject>> {
        self.objects
            .iter()
            .filter(|(p, o)| *p == partition && o.last >= Offset(offset))
            .map(|(_, o)| o.clone())
            .collect()
    }

    fn ask(&self, conn: u64, partition: PartitionId, offset: i64, up_to: i64, max_bytes: u32) -> Answers<Vec<Bytes>> {
        let answers = Answers::default();
        let done = answers.clone();
        self.requests
            .try_send(ColdRequest::Read(ColdRead {
                conn: ConnId(conn),
                partition,
                objects: self.objects_from(partition, offset),
                offset: Offset(offset),
                up_to: Offset(up_to),
                max_bytes,
                at_least_one: true,
                done: Box::new(move |answer| done.borrow_mut().push(answer)),
            }))
            .expect("the reader runs");
        answers
    }

    fn wait<T>(&self, answers: &Answers<T>, count: usize) {
        assert_eq!(self.world.run_until(10_000_000, || answers.borrow().len() == count), Ended::Done);
    }

    fn read(&self, conn: u64, partition: PartitionId, offset: i64, max_bytes: u32) -> Result<Vec<Bytes>, ColdError> {
        let answers = self.ask(conn, partition, offset, self.end, max_bytes);
        self.wait(&answers, 1);
        answers.borrow_mut().pop().expect("one answer")
    }

    /// Lets what was read ahead arrive.
    fn settle(&self) {
        self.world.run_until(1_000_000, || false);
    }

    fn gets(&self) -> u64 {
        self.weather.gets.load(Ordering::Relaxed)
    }

    /// Blocks that hold records of the partition.
    fn blocks(&self, partition: PartitionId) -> u64 {
        let count = |object: &CommittedObject| {
            let whole = self.store.objects()[&object.key].clone();
            let footer = Footer::parse(&whole[whole.len() - FOOTER_BYTES..], object.object_bytes).expect("a footer");
            let (from, to) = (footer.index_range().start as usize, footer.index_range().end as usize);
            BlockIndex::parse(&footer, &whole.slice(from..to))
                .expect("an index")
                .from_offset(partition, Offset(0))
                .len()
        };
        self.objects_from(partition, 0).iter().map(|object| count(object) as u64).sum()
    }

    fn fail(&self, times: u64, with: StoreError) {
        *self.weather.fail_with.lock().expect("a lock") = Some(with);
        self.weather.fail_next.store(times, Ordering::Relaxed);
    }
}

fn batches(pieces: &[Bytes]) -> Vec<Batch> {
    let mut all = Vec::new();
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            all.push(Batch::split_from(&mut rest).expect("whole batches"));
        }
    }
    all
}

fn roomy() -> ColdConfig {
    ColdConfig::with_cache(64 << 20)
}

/// Reads a partition from its start to its end, and compares it with what was appended.
fn replay(scene: &Scene, conn: u64, partition: PartitionId, max_bytes: u32) {
    let (mut offset, mut all) = (0, Vec::new());
    let last = scene.objects_from(partition, 0).last().map_or(-1, |o| o.last.0);
    while offset <= last {
        let found = batches(&scene.read(conn, partition, offset, max_bytes).expect("an answer"));
        let size: usize = found.iter().map(Batch::size_bytes).sum();
        assert!(found.len() == 1 || size <= max_bytes as usize, "{size} bytes in {} batches", found.len());
        offset = found.last().expect("never empty before the end").head.last_offset().0 + 1;
        all.extend(found);
    }
    let appended: Vec<&Batch> = scene.appended.iter().filter(|(p, _)| *p == partition).map(|(_, b)| b).collect();
    assert_eq!(all.len(), appended.len());
    for (read, was) in all.iter().zip(appended) {
        assert_eq!((read.head, &read.body), (was.head, &was.body));
        assert_eq!(read.verify_crc(), Ok(()));
    }
}

#[test]
fn a_read_from_a_gap_begins_with_the_next_batch() {
    let mut gaps = 0;
    for seed in 0..20 {
        let scene = scene(seed, 4, roomy());
        for partition in [A, B] {
            for pair in scene.objects_from(partition, 0).windows(2) {
                let (after, next) = (pair[0].last.0 + 1, pair[1].base.0);
                for offset in [after, (after + next) / 2, next - 1].into_iter().filter(|at| (after..next).contains(at))
                {
                    let found = batches(&scene.read(1, partition, offset, 1).expect("an answer"));
                    let bases: Vec<i64> = found.iter().map(|batch| batch.head.base_offset().0).collect();
                    assert_eq!(bases, [next], "from {offset}");
                    gaps += 1;
                }
            }
        }
    }
    assert!(gaps > 20, "{gaps} gaps");
}

#[test]
fn a_replay_returns_what_was_appended() {
    for seed in 0..20 {
        for (cache, max_bytes) in [(64 << 20, 1 << 20), (64 << 20, 3000), (10_000, 20_000), (0, 5000)] {
            let scene = scene(seed, 4, ColdConfig { in_flight_bytes: 16 * 1024, ..ColdConfig::with_cache(cache) });
            replay(&scene, 1, A, max_bytes);
            replay(&scene, 1, B, max_bytes);
        }
    }
}

#[test]
fn a_read_begins_in_the_middle_and_ends_at_its_bound() {
    let scene = scene(3, 3, roomy());
    let middle =
        scene.appended.iter().filter(|(p, b)| *p == A && b.head.record_count() > 2).nth(9).expect("one").1.clone();
    let inside = middle.head.base_offset().0 + 1;
    let found = batches(&scene.read(1, A, inside, 2000).expect("an answer"));
    assert_eq!(found[0].head, middle.head, "the batch that holds the offset comes whole");

    let bound = middle.head.last_offset().0 + 1;
    let answers = scene.ask(1, A, 0, bound, 1 << 20);
    scene.wait(&answers, 1);
    let found = batches(&answers.borrow_mut().pop().expect("one").expect("an answer"));
    assert_eq!(found.last().expect("batches").head, middle.head);
    let none = scene.ask(1, A, bound, bound, 1 << 20);
    scene.wait(&none, 1);
    assert_eq!(*none.borrow(), [Ok(Vec::new())]);
}

#[test]
fn one_fetch_serves_all_who_wait() {
    let scene = scene(5, 1, roomy());
    let answers: Vec<_> = (0..50).map(|conn| scene.ask(conn, A, 0, scene.end, 3000)).collect();
    answers.iter().for_each(|a| scene.wait(a, 1));
    assert_eq!(scene.gets(), 2, "one for the index, one for the block");
    let first = answers[0].borrow()[0].clone().expect("an answer");
    assert!(answers.iter().all(|a| a.borrow()[0] == Ok(first.clone())));
    assert!(answers.iter().all(|a| a.borrow()[0].as_ref().expect("one")[0].as_ptr() == first[0].as_ptr()), "no copy");
}

#[test]
fn a_block_that_a_hundred_wait_for_does_not_keep_the_core() {
    let scene = scene(13, 1, roomy());
    let answers: Vec<_> = (0..100).map(|conn| scene.ask(conn, A, 0, scene.end, 3000)).collect();
    let (before, most) = (Cell::new(0), Cell::new(0));
    let all = || {
        let now = answers.iter().filter(|answer| !answer.borrow().is_empty()).count();
        most.set(most.get().max(now - before.replace(now)));
        now == answers.len()
    };
    assert_eq!(scene.world.run_until(10_000_000, all), Ended::Done);
    assert!(most.get() <= 4, "{} were answered in one turn", most.get());
}

#[test]
fn a_hundred_replays_cost_one_read_a_block() {
    let scene = scene(12, 4, roomy());
    let last = scene.objects_from(A, 0).last().map_or(-1, |o| o.last.0);
    let mut offset = 0;
    while offset <= last {
        let answers: Vec<_> = (0..100).map(|conn| scene.ask(conn, A, offset, scene.end, 10_000)).collect();
        answers.iter().for_each(|answer| scene.wait(answer, 1));
        let first = answers[0].borrow()[0].clone().expect("an answer");
        assert!(answers.iter().all(|answer| answer.borrow()[0] == Ok(first.clone())));
        offset = batches(&first).last().expect("never empty before the end").head.last_offset().0 + 1;
    }
    scene.settle();
    let (blocks, indexes) = (scene.blocks(A), 4);
    assert!(blocks > 20, "{blocks} blocks prove little");
    assert!(scene.gets() <= blocks + indexes, "{} reads of {blocks} blocks", scene.gets());
    let before = scene.gets();
    replay(&scene, 100, A, 3000);
    assert_eq!(scene.gets(), before, "who comes later finds everything in memory");
}

#[test]
fn neighbours_come_in_one_request_and_readahead_spares_the_next() {
    let scene = scene(6, 2, roomy());
    scene.read(1, A, 0, 30_000).expect("an answer");
    assert_eq!(scene.gets(), 2, "several blocks side by side are one request");
    let next = batches(&scene.read(1, A, 0, 30_000).expect("cached")).last().expect("batches").head.last_offset().0 + 1;
    assert_eq!(scene.gets(), 2, "the same again comes from the cache");
    scene.read(1, A, next, 1000).expect("an answer");
    scene.settle();
    let before = scene.gets();
    let mut offset = next;
    for _ in 0..10 {
        offset =
            batches(&scene.read(1, A, offset, 1000).expect("an answer")).last().expect("one").head.last_offset().0 + 1;
    }
    assert!(scene.gets() <= before + 1, "readahead had fetched them: {} then {}", before, scene.gets());
}

#[test]
fn a_reader_over_many_small_objects_finds_them_read_ahead() {
    let config = ColdConfig { in_flight_requests: 64, ..ColdConfig::with_cache(256 << 20) };
    let scene = scene(14, 40, config);
    let objects = scene.objects_from(A, 0);
    scene.read(1, A, 0, 1).expect("an answer");
    let second = scene.read(1, A, 0, 1).map(|found| batches(&found)).expect("an answer");
    let next = second.last().expect("a batch").head.last_offset().0 + 1;
    scene.read(1, A, next, 1).expect("the second in sequence");
    scene.settle();
    let before = scene.gets();
    // The reads of another connection are no sequence: what they find was read ahead for the first.
    for object in &objects[1..5] {
        let answers = scene.ask(2, A, object.base.0, object.last.0 + 1, 1 << 20);
        scene.wait(&answers, 1);
        assert!(answers.borrow()[0].is_ok());
    }
    assert_eq!(scene.gets(), before, "their indexes were not there either when the reader came");
}

#[test]
fn a_read_over_many_small_objects_asks_for_their_indexes_at_once() {
    let config = ColdConfig { in_flight_requests: 64, ..ColdConfig::with_cache(256 << 20) };
    let scene = scene(15, 12, config);
    scene.weather.hold.store(true, Ordering::Relaxed);
    let all: u64 = scene.objects_from(A, 0).iter().map(|o| o.size_bytes).sum();
    let answers = scene.ask(1, A, 0, scene.end, all as u32);
    scene.settle();
    assert_eq!(scene.gets(), 8, "as many as the lane runs, before any is answered");
    scene.weather.hold.store(false, Ordering::Relaxed);
    scene.wait(&answers, 1);
    let last = scene.objects_from(A, 0).last().expect("objects").last;
    let found = batches(&answers.borrow_mut().pop().expect("one").expect("an answer"));
    assert_eq!(found.last().expect("batches").head.last_offset(), last);
}

#[test]
fn passing_faults_and_damage_are_tried_again() {
    let scene = scene(7, 2, roomy());
    scene.fail(4, StoreError::Retry("storm".to_owned()));
    replay(&scene, 1, A, 10_000);

    let key = scene.objects[0].1.key.clone();
    let good = scene.store.objects()[&key].clone();
    let mut bad = good.to_vec();
    bad[100] ^= 1;
    let fresh = ColdConfig { retry_for: Duration::from_secs(3600), ..ColdConfig::with_cache(0) };
    let lane = serve(&scene.world.runtime(Node(0)), Queue::Cold, Arc::new(scene.store.clone()), 8, Rc::default());
    let scene =
        Scene { requests: start(scene.world.runtime(Node(0)), lane, fresh, ShardMeters::new(ShardId(0))), ..scene };
    scene.store.overwrite(&key, Bytes::from(bad));
    let answers = scene.ask(1, A, 0, scene.end, 1000);
    assert_ne!(
        scene.world.run_until(20_000, || !answers.borrow().is_empty()),
        Ended::Done,
        "damage is never handed out"
    );
    scene.store.overwrite(&key, good);
    scene.wait(&answers, 1);
    assert!(answers.borrow()[0].is_ok());
}

#[test]
fn lasting_faults_are_told_apart() {
    let scene = scene(8, 2, ColdConfig { retry_for: Duration::from_secs(5), ..roomy() });
    scene.fail(u64::MAX, StoreError::Retry("down".to_owned()));
    let began = scene.world.mono();
    assert_eq!(scene.read(1, A, 0, 1000), Err(ColdError::Storage("down".to_owned())));
    let took = scene.world.mono().since(began);
    assert!((5..8).contains(&took.as_secs()), "gave up after {took:?}");
    let key = scene.objects[0].1.key.clone();
    scene.fail(u64::MAX, StoreError::NotFound(key));
    assert_eq!(scene.read(1, A, 0, 1000), Err(ColdError::Gone(ObjectId(0))));
    scene.fail(u64::MAX, StoreError::Refused("no permission".to_owned()));
    assert!(matches!(scene.read(1, A, 0, 1000), Err(ColdError::Storage(why)) if why.contains("no permission")));
    scene.fail(0, StoreError::Retry(String::new()));
    replay(&scene, 1, A, 10_000);
}

#[test]
fn what_was_read_before_a_fault_is_handed_out() {
    let scene = scene(9, 2, ColdConfig { retry_for: Duration::ZERO, ..roomy() });
    let first = scene.objects[0].1.clone();
    scene.read(1, A, 0, 1000).expect("an answer");
    scene.read(1, A, first.last.0, 1).expect("the last batch of object 0");
    scene.fail(u64::MAX, StoreError::Retry("down".to_owned()));
    let last = batches(&scene.read(2, A, first.last.0, 1 << 20).expect("what is cached"));
    assert_eq!(last.last().expect("batches").head.last_offset(), first.last);
}

#[test]
fn times_are_found_across_blocks_and_objects() {
    let scene = scene(10, 3, roomy());
    for (n, (partition, one)) in scene.appended.iter().enumerate().filter(|(n, _)| n % 7 == 0) {
        let answers = Answers::default();
        let done = answers.clone();
        scene
            .requests
            .try_send(ColdRequest::FindTime(ColdFindTime {
                conn: ConnId(1),
                partition: *partition,
                objects: scene.objects_from(*partition, 0),
                time: Wall(one.head.max_timestamp()),
                from: Offset(if n % 2 == 0 { 0 } else { one.head.last_offset().0 }),
                up_to: Offset(scene.end),
                done: Box::new(move |answer| done.borrow_mut().push(answer)),
            }))
            .expect("the reader runs");
        scene.wait(&answers, 1);
        let found = answers.borrow()[0].clone().expect("an answer").expect("a record");
        let offset = if n % 2 == 0 { one.head.base_offset() } else { one.head.last_offset() };
        assert_eq!((found.offset, found.timestamp.0), (offset, one.head.max_timestamp()));
    }
    for (time, up_to) in [(i64::MAX, scene.end), (1000, 0)] {
        let answers = Answers::default();
        let done = answers.clone();
        let ask = ColdFindTime {
            conn: ConnId(1),
            partition: A,
            objects: scene.objects_from(A, 0),
            time: Wall(time),
            from: Offset(0),
            up_to: Offset(up_to),
            done: Box::new(move |answer| done.borrow_mut().push(answer)),
        };
        scene.requests.try_send(ColdRequest::FindTime(ask)).expect("the reader runs");
        scene.wait(&answers, 1);
        assert_eq!(*answers.borrow(), [Ok(None)]);
    }
}

#[test]
fn a_flood_of_one_connection_does_not_starve_another() {
    let config = ColdConfig { in_flight_bytes: 16 * 1024, in_flight_requests: 1, ..ColdConfig::with_cache(0) };
    let scene = scene(11, 6, config);
    let flood: Vec<_> = (0..200).map(|n| scene.ask(1, A, (n * 7) % (scene.end / 2), scene.end, 60_000)).collect();
    let meek = scene.ask(2, B, 0, scene.end, 4000);
    scene.wait(&meek, 1);
    let answered = flood.iter().filter(|a| !a.borrow().is_empty()).count();
    assert!(answered < 100, "{answered} of the flood came first");
    flood.iter().for_each(|a| scene.wait(a, 1));
    scene.requests.try_send(ColdRequest::ConnGone(ConnId(1))).expect("the reader runs");
    scene.settle();
}
