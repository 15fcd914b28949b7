//! The broker under test: one production shard with its WAL slice, uploader and cold reader, wired as the binary wires them.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use flume::{Receiver, Sender};
use thalweg_objectstore::ObjectStore;
use thalweg_record::{NodeId, ShardId};
use thalweg_shards::{
    cold::{self, ColdConfig},
    mailbox::{ShardInbox, shard_lanes},
    meters::{ShardMeters, StoreMeters},
    runtime::{
        Queue, Runtime,
        seeded::{Node, Stream, World},
    },
    shard::{Shard, ShardConfig, ShardPorts},
    store,
    upload::{UploadConfig, WriterIdentity},
};
use thalweg_wal::{Device, LogConfig, OpenError, Recovered, SliceIdentity, device::SimulatedDevice};

use super::{metadata::Metadata, scene::Scene};
use crate::plant::Plant;

/// Lengths of slices: small, so that a run laps them. The smallest holds four of the largest group.
pub(crate) const SLICES_BYTES: [u64; 3] = [72 << 10, 128 << 10, 256 << 10];
/// The broker's shard.
const SHARD: ShardId = ShardId(0);

/// Whether a start came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// On its way.
    Opening,
    /// Serving.
    Serving,
    /// The disk failed; try again.
    Failed(String),
    /// Acknowledged data is missing or damaged.
    Broken(String),
}

/// One life of the broker.
pub(crate) struct Broker {
    pub(crate) node: Node,
    pub(crate) start: Rc<RefCell<Start>>,
    /// What makes the broker stop with an error.
    pub(crate) failed: Receiver<String>,
}

/// What outlives a broker.
pub(crate) struct Machine {
    pub(crate) world: Rc<World>,
    pub(crate) scene: Rc<Scene>,
    pub(crate) device: SimulatedDevice,
    pub(crate) metadata: Metadata,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) plant: Plant,
    pub(crate) seed: u64,
    pub(crate) starts: u32,
}

/// The WAL's limits.
pub(crate) fn log_config(plant: Plant) -> LogConfig {
    plant.into_log_config(LogConfig { max_group_bytes: 16 << 10, max_in_flight_bytes: 1 << 30, ..LogConfig::default() })
}

/// Who owns the slice.
pub(crate) fn identity() -> SliceIdentity {
    SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: SHARD, slice: [2; 16] }
}

impl Machine {
    /// Starts a broker on what the disk, the metadata and the bucket hold.
    pub(crate) fn start(&mut self) -> Broker {
        self.starts += 1;
        let node = Node(100 + self.starts);
        let runtime = self.world.runtime(node);
        let (failures, failed) = flume::unbounded();
        let start = Rc::new(RefCell::new(Start::Opening));
        let work = serve(Parts {
            runtime: runtime.clone(),
            scene: self.scene.clone(),
            device: Rc::new(self.device.clone()),
            metadata: self.metadata.clone(),
            store: self.store.clone(),
            failures,
            config: log_config(self.plant),
            seed: self.seed,
            random: Stream::new(self.seed, 0x4000 + u64::from(self.starts)),
            start: start.clone(),
        });
        runtime.spawn(Queue::Hot, "broker", Box::pin(work));
        Broker { node, start, failed }
    }
}

struct Parts {
    runtime: Rc<dyn Runtime>,
    scene: Rc<Scene>,
    device: Rc<dyn Device>,
    metadata: Metadata,
    store: Arc<dyn ObjectStore>,
    failures: Sender<String>,
    config: LogConfig,
    seed: u64,
    random: Stream,
    start: Rc<RefCell<Start>>,
}

async fn serve(parts: Parts) {
    let random = parts.runtime.random();
    let opened = thalweg_wal::open(parts.device.clone(), identity(), parts.config, random, false).await;
    let Recovered { log, batches, report } = match opened {
        Ok(recovered) => recovered,
        Err(why) => {
            let text = why.to_string();
            let start = if matches!(why, OpenError::Io { .. }) { Start::Failed(text) } else { Start::Broken(text) };
            *parts.start.borrow_mut() = start;
            return;
        }
    };
    let (epoch, specs) = parts.metadata.begin();
    parts.scene.trace(|| format!("start {epoch}: {} batches, {report:?}", batches.len()));
    let (lane, inbox) = shard_lanes(SHARD);
    let meta = parts.metadata.serve(&parts.runtime, parts.random.clone());
    let (address, start, seed) = (parts.scene.clone(), parts.start.clone(), parts.seed);
    let mut shard = Shard::new(config(epoch, seed), ports(parts, meta, inbox), log);
    if let Err(why) = shard.adopt(epoch, specs, &batches) {
        *start.borrow_mut() = Start::Broken(why);
        return;
    }
    drop(batches);
    *start.borrow_mut() = Start::Serving;
    address.address.replace(Some(lane));
    shard.run().await;
}

fn config(epoch: u64, seed: u64) -> ShardConfig {
    ShardConfig {
        id: SHARD,
        identity: WriterIdentity { cluster_id: "simulated".into(), node: NodeId(1), node_epoch: epoch },
        tail_cache_bytes: 24 << 10,
        groups_in_flight: 2,
        // Every fourth history has two groups in flight most of the time, however small.
        overlap_bytes: if seed % 4 == 0 { 0 } else { 64 << 10 },
        wal_bytes_in_flight: 8 << 20,
        ring_read_bytes: 8 << 10,
        upload: UploadConfig {
            object_bytes: 24 << 10,
            interval: Duration::from_millis(700),
            split_bytes: 8 << 10,
            block_bytes: 2 << 10,
            jobs: 2,
            batches: 100,
        },
        retention_check_interval: Duration::from_secs(1),
        producer_expiration: Duration::from_secs(86_400),
        entries_max: usize::MAX,
    }
}

fn ports(parts: Parts, meta: Sender<thalweg_shards::meta::MetaRequest>, inbox: ShardInbox) -> ShardPorts {
    let meters = Rc::new(StoreMeters::new());
    let uploads = store::serve(&parts.runtime, Queue::Upload, parts.store.clone(), 4, meters.clone());
    let reads = store::serve(&parts.runtime, Queue::Cold, parts.store, 4, meters);
    let bounds = ColdConfig {
        cache_bytes: 16 << 10,
        in_flight_bytes: 32 << 10,
        in_flight_requests: 4,
        retry_for: Duration::from_secs(3),
    };
    ShardPorts {
        pace: std::sync::Arc::new(thalweg_shards::pace::DevicePace::new(0, 0)),
        runtime: parts.runtime.clone(),
        device: parts.device,
        inbox,
        meta,
        store: uploads,
        compaction: None,
        cleaning: None,
        cold: cold::start(parts.runtime, reads, bounds, ShardMeters::new(SHARD)),
        // No internal topics: nobody listens.
        ownership: flume::unbounded().0,
        peers: Vec::new(),
        failed: parts.failures,
        meters: Rc::new(ShardMeters::new(SHARD)),
    }
}
