//! A shard's turns: requests in, answers out, on the seeded runtime and a device in memory.
//!
//! The time includes the seeded scheduler, which is no part of the broker, and the copy into the device's memory. Before the
//! ring fills up the partitions are deleted and opened anew, between two measurements.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use divan::{Bencher, counter::BytesCount};
use futures_lite::future::block_on;
use thalweg_record::{Batch, LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo, ShardLane, shard_lanes},
    meters::ShardMeters,
    msg::{
        AppendRequest, ConnId, Control, FetchFrom, Isolation, Origin, PartitionChange, PartitionSpec, Records, Reply,
        Request, TakeRequest,
    },
    pace::DevicePace,
    runtime::{
        Queue,
        seeded::{Ended, Node, World},
    },
    shard::{Shard, ShardConfig, ShardPorts},
    store::StoreLane,
    upload::{UploadConfig, WriterIdentity},
};
use thalweg_wal::{LogConfig, SliceIdentity, create, device::MemoryDevice, open};

use crate::{
    sample::{SHAPES, Shape},
    validate::SETTINGS,
};

const SHARD: ShardId = ShardId(0);
const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: SHARD, slice: [2; 16] };
const RING_BYTES: u64 = 64 << 20;
const PARTITIONS: i32 = 16;
/// Requests that lie in the mailbox when the shard wakes; with more it takes several turns.
const REQUESTS: usize = 16;
/// Many more polls than any measurement needs.
const BUDGET: u64 = 10_000_000;
const NEVER: Duration = Duration::from_secs(1 << 31);

struct Fixture {
    world: Rc<World>,
    lane: ShardLane,
    lifetime: u8,
    revision: u64,
    /// Bytes appended since the partitions were opened.
    appended: u64,
    /// The ends of channels that the shard must not find closed.
    _kept: Box<dyn std::any::Any>,
}

impl Fixture {
    fn new() -> Fixture {
        let world = World::new(1);
        let runtime = world.runtime(Node(1));
        let device = Rc::new(MemoryDevice::new(RING_BYTES + 8192));
        let config = LogConfig { max_group_bytes: 4 << 20, max_in_flight_bytes: 16 << 20, ..LogConfig::default() };
        let log = block_on(async {
            create(device.clone(), IDENTITY, config, 1).await.expect("created");
            open(device.clone(), IDENTITY, config, 2, false).await.expect("opened").log
        });
        let (lane, inbox) = shard_lanes(SHARD);
        let (meta, store, cold) = (flume::unbounded(), StoreLane::new(), flume::unbounded());
        let (ownership, failed) = (flume::unbounded(), flume::unbounded());
        let ports = ShardPorts {
            runtime: runtime.clone(),
            device,
            inbox,
            meta: meta.0,
            store: store.0,
            cold: cold.0,
            ownership: ownership.0,
            pace: Arc::new(DevicePace::new(0, 0)),
            failed: failed.0,
            meters: Rc::new(ShardMeters::new(SHARD)),
        };
        let shard = Shard::new(shard_config(), ports, log);
        runtime.spawn(Queue::Hot, "shard", Box::pin(shard.run()));
        let kept = Box::new((meta.1, store.1, cold.1, ownership.1, failed.1));
        let mut fixture = Fixture { world, lane, lifetime: 0, revision: 0, appended: 0, _kept: kept };
        fixture.open_partitions();
        fixture
    }

    fn partition(&self, index: i32) -> PartitionId {
        PartitionId { topic: TopicId([self.lifetime; 16]), index }
    }

    fn open_partitions(&mut self) {
        let gone = self.lifetime;
        let deleted =
            (0..PARTITIONS).map(|index| PartitionChange::Delete(PartitionId { topic: TopicId([gone; 16]), index }));
        let mut changes: Vec<PartitionChange> = if gone > 0 { deleted.collect() } else { Vec::new() };
        self.lifetime = self.lifetime % 200 + 1;
        changes.extend((0..PARTITIONS).map(|index| PartitionChange::Open(Box::new(spec(self.partition(index))))));
        self.revision += 1;
        self.appended = 0;
        let (done, in_force) = flume::bounded(1);
        self.lane.control(Control::Apply { revision: self.revision, changes, done });
        self.run_until(|| !in_force.is_empty());
        // The shard trims what nobody wants any more in its next turns.
        let later = self.world.mono().plus(Duration::from_secs(1));
        let world = self.world.clone();
        self.run_until(move || world.mono() >= later);
    }

    fn run_until(&self, done: impl FnMut() -> bool) {
        assert_eq!(self.world.run_until(BUDGET, done), Ended::Done);
    }

    /// Requests that append the batch to one partition each.
    fn appends(&mut self, batch: &Batch, count: usize) -> (Vec<Request>, flume::Receiver<Answer>) {
        self.appended += (batch.size_bytes() * count) as u64;
        if self.appended > RING_BYTES / 4 {
            self.open_partitions();
        }
        let (lane, answers) = flume::unbounded();
        let deadline = self.world.mono().plus(NEVER);
        let request = |n: usize| {
            Request::Append(Box::new(AppendRequest {
                origin: Origin::Client,
                deadline,
                batches: vec![(self.partition(n as i32 % PARTITIONS), batch.clone())],
                reply: ReplyTo::new(lane.clone(), n as u64),
            }))
        };
        ((0..count).map(request).collect(), answers)
    }

    /// Sends them and runs until all are answered.
    fn answered(&self, requests: Vec<Request>, answers: &flume::Receiver<Answer>) -> Vec<Answer> {
        let count = requests.len();
        requests.into_iter().for_each(|request| self.lane.send(request));
        let seen = Cell::new(0);
        self.run_until(|| {
            seen.set(answers.len());
            seen.get() == count
        });
        answers.drain().collect()
    }

    fn append(&mut self, batch: &Batch, count: usize) {
        let (requests, answers) = self.appends(batch, count);
        check_appended(self.answered(requests, &answers));
    }
}

fn shard_config() -> ShardConfig {
    ShardConfig {
        id: SHARD,
        identity: WriterIdentity { cluster_id: Arc::from("bench"), node: NodeId(1), node_epoch: 1 },
        tail_cache_bytes: RING_BYTES,
        groups_in_flight: 2,
        wal_bytes_in_flight: 8 << 20,
        ring_read_bytes: 8 << 20,
        upload: UploadConfig {
            object_bytes: RING_BYTES,
            interval: NEVER,
            split_bytes: 16 << 20,
            block_bytes: 512 << 10,
            jobs: 2,
            batches: usize::MAX,
        },
        retention_check_interval: NEVER,
        producer_expiration: NEVER,
    }
}

fn spec(partition: PartitionId) -> PartitionSpec {
    PartitionSpec {
        partition,
        topic_name: Arc::from("bench"),
        leader_epoch: LeaderEpoch(1),
        settings: SETTINGS,
        log_start: Offset(0),
        committed: Vec::new(),
        epochs: Vec::new(),
        producers: Vec::new(),
        committed_end: Offset(0),
        internal: false,
    }
}

fn check_appended(answers: Vec<Answer>) {
    for answer in answers {
        let Reply::Append { results, .. } = answer.reply else { panic!("another answer: {:?}", answer.reply) };
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

fn bench_appends(bencher: Bencher<'_, '_>, shape: Shape, count: usize) {
    let batch = shape.batch();
    let fixture = std::cell::RefCell::new(Fixture::new());
    bencher
        .counter(BytesCount::new(batch.size_bytes() * count))
        .with_inputs(|| fixture.borrow_mut().appends(&batch, count))
        .bench_local_values(|(requests, answers)| fixture.borrow().answered(requests, &answers));
}

#[divan::bench(args = SHAPES)]
fn append_one(bencher: Bencher<'_, '_>, shape: Shape) {
    bench_appends(bencher, shape, 1);
}

#[divan::bench(args = SHAPES)]
fn append_sixteen(bencher: Bencher<'_, '_>, shape: Shape) {
    bench_appends(bencher, shape, REQUESTS);
}

#[divan::bench(args = SHAPES)]
fn take_from_memory(bencher: Bencher<'_, '_>, shape: Shape) {
    let batch = shape.batch();
    let mut fixture = Fixture::new();
    fixture.append(&batch, REQUESTS);
    let take = || {
        let (lane, answers) = flume::unbounded();
        let from = |index| FetchFrom {
            partition: fixture.partition(index),
            offset: Offset(0),
            max_bytes: 1 << 20,
            current_leader_epoch: None,
        };
        let request = TakeRequest {
            conn: ConnId(1),
            parts: (0..PARTITIONS).map(from).collect(),
            isolation: Isolation::Uncommitted,
            at_least_one: true,
            reply: ReplyTo::new(lane, 0),
        };
        (vec![Request::Take(Box::new(request))], answers)
    };
    bencher.counter(BytesCount::new(batch.size_bytes() * REQUESTS)).with_inputs(take).bench_local_values(
        |(requests, answers)| {
            for answer in fixture.answered(requests, &answers) {
                let Reply::Take(parts) = answer.reply else { panic!("another answer: {:?}", answer.reply) };
                let ready = |records: &Records| matches!(records, Records::Ready(pieces) if !pieces.is_empty());
                assert!(parts.iter().flatten().filter(|taken| ready(&taken.records)).count() == PARTITIONS as usize);
            }
        },
    );
}
