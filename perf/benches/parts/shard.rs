//! A shard with some partitions, on the seeded runtime and a device in memory: requests in, answers out.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use futures_lite::future::block_on;
use thalweg_record::{Batch, LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo, ShardLane, shard_lanes},
    meters::ShardMeters,
    msg::{AppendRequest, Control, Origin, PartitionChange, PartitionSettings, PartitionSpec, Reply, Request},
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

const SHARD: ShardId = ShardId(0);
const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: SHARD, slice: [2; 16] };
const RING_BYTES: u64 = 64 << 20;
/// Partitions of the one topic.
pub const PARTITIONS: i32 = 16;
/// Many more polls than any measurement needs.
const BUDGET: u64 = 10_000_000;
const NEVER: Duration = Duration::from_secs(1 << 31);

/// Before the ring fills up there is a new one: nobody uploads here.
pub struct Fixture {
    world: Rc<World>,
    lane: ShardLane,
    /// Bytes appended.
    appended: u64,
    /// The ends of channels that the shard must not find closed.
    _kept: Box<dyn std::any::Any>,
}

impl Fixture {
    /// Empty partitions.
    pub fn new() -> Fixture {
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
            compaction: None,
            cleaning: None,
            cold: cold.0,
            ownership: ownership.0,
            peers: Vec::new(),
            pace: Arc::new(DevicePace::new(0, 0)),
            failed: failed.0,
            meters: Rc::new(ShardMeters::new(SHARD)),
        };
        let shard = Shard::new(shard_config(), ports, log);
        runtime.spawn(Queue::Hot, "shard", Box::pin(shard.run()));
        let kept = Box::new((meta.1, store.1, cold.1, ownership.1, failed.1));
        let fixture = Fixture { world, lane, appended: 0, _kept: kept };
        fixture.open_partitions();
        fixture
    }

    /// A partition of the one topic.
    pub fn partition(&self, index: i32) -> PartitionId {
        PartitionId { topic: TopicId([7; 16]), index }
    }

    fn open_partitions(&self) {
        let opened = (0..PARTITIONS).map(|index| PartitionChange::Open(Box::new(spec(self.partition(index)))));
        let (done, in_force) = flume::bounded(1);
        self.lane.control(Control::Apply { revision: 1, changes: opened.collect(), done });
        self.run_until(|| !in_force.is_empty());
    }

    fn run_until(&self, done: impl FnMut() -> bool) {
        assert_eq!(self.world.run_until(BUDGET, done), Ended::Done);
    }

    /// Requests that append the batch to one partition each.
    pub fn appends(&mut self, batch: &Batch, count: usize) -> (Vec<Request>, flume::Receiver<Answer>) {
        let bytes = (batch.size_bytes() * count) as u64;
        // An upload starts at a quarter of the ring.
        if self.appended + bytes > RING_BYTES / 8 {
            *self = Fixture::new();
        }
        self.appended += bytes;
        let (lane, answers) = flume::unbounded();
        let deadline = self.world.mono().plus(NEVER);
        let request = |n: usize| {
            Request::Append(Box::new(AppendRequest {
                origin: Origin::Client,
                deadline,
                generation: Default::default(),
                batches: vec![(self.partition(n as i32 % PARTITIONS), batch.clone())],
                reply: ReplyTo::new(lane.clone(), n as u64),
            }))
        };
        ((0..count).map(request).collect(), answers)
    }

    /// Sends them and runs until all are answered.
    pub fn answered(&self, requests: Vec<Request>, answers: &flume::Receiver<Answer>) -> Vec<Answer> {
        let count = requests.len();
        requests.into_iter().for_each(|request| self.lane.send(request));
        let seen = Cell::new(0);
        self.run_until(|| {
            seen.set(answers.len());
            seen.get() == count
        });
        answers.drain().collect()
    }

    /// Appends the batch to so many partitions, one after the other.
    pub fn append(&mut self, batch: &Batch, count: usize) {
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
        overlap_bytes: 64 << 10,
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
        entries_max: usize::MAX,
    }
}

fn spec(partition: PartitionId) -> PartitionSpec {
    PartitionSpec {
        partition,
        topic_name: Arc::from("bench"),
        leader_epoch: LeaderEpoch(1),
        // The batches are of today, the seeded clock is not.
        settings: PartitionSettings { timestamp_after_max_ms: None, ..PartitionSettings::KAFKA_DEFAULTS },
        log_start: Offset(0),
        manifests: Vec::new(),
        committed: Vec::new(),
        epochs: Vec::new(),
        producers: Vec::new(),
        committed_end: Offset(0),
        cleaned: Offset(0),
        internal: false,
        loan: None,
    }
}

fn check_appended(answers: Vec<Answer>) {
    for answer in answers {
        let Reply::Append { results, .. } = answer.reply else { panic!("another answer: {:?}", answer.reply) };
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}
