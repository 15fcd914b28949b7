//! What outlives a broker, and one life of it: the start of the product on simulated ports, its stop, its crash.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use flume::{Receiver, Sender};
use thalweg::{
    broker::{Broker, BrokerParts, Ports, StartError},
    cluster::{ControlRequest, RebuildSettings},
    config::Config,
    net::{Advertised, EdgeLimits},
};
use thalweg_objectstore::ObjectStore;
use thalweg_record::NodeId;
use thalweg_shards::runtime::{Queue, seeded::World};

use super::{
    disks::Disks,
    host::SimulatedHost,
    metadata::Metadata,
    network::{HOST, PORT, SimulatedNetwork},
    scene::Scene,
};
use crate::{
    bucket::{Door, Doorstep},
    fuse::Fuse,
    rot::Harm,
};

/// Lengths of a slice's ring: small, so that a run laps it. The smallest holds four of the largest group.
pub(crate) const RINGS_BYTES: [u64; 3] = [64 << 10, 128 << 10, 256 << 10];
/// The largest group of the log.
const GROUP_BYTES: u32 = 16 << 10;
/// Memory of one shard for the newest records, and for what it read from objects; three of eight histories have less of the former than
/// their largest groups.
pub(crate) const TAIL_CACHE_BYTES: u64 = 24 << 10;
pub(crate) const SMALL_TAIL_CACHE_BYTES: u64 = 8 << 10;
pub(crate) const READ_CACHE_BYTES: u64 = 32 << 10;
/// The most shards that a broker has.
pub(crate) const MOST_SHARDS: u16 = 4;

/// How often the metadata goes to the bucket.
pub(crate) const SNAPSHOTS: Duration = Duration::from_millis(1_500);

/// How many shards, and how long the ring of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) shards: u16,
    pub(crate) ring_bytes: u64,
    /// A core has one request at a time in a shard's mailbox.
    pub(crate) narrow: bool,
}

/// Whether a start came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// On its way.
    Opening,
    /// Serving.
    Serving,
    /// A fault came in between; try again.
    Failed(String),
    /// What the log holds does not fit into the shape that was asked for; try the old one.
    TooSmall,
    /// It says that acknowledged data is damaged.
    Damaged(String),
    /// It refuses to start although nothing is wrong.
    Broken(String),
}

/// What outlives a broker.
pub(crate) struct Site {
    pub(crate) world: Rc<World>,
    pub(crate) scene: Rc<Scene>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) metadata: Metadata,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) doorstep: Doorstep,
    pub(crate) fuse: Rc<Fuse>,
    pub(crate) config: Config,
    pub(crate) tail_cache_bytes: u64,
    pub(crate) starts: u32,
    /// What a start may find on the disks.
    pub(crate) harm: Harm,
    /// Starts that were refused for it.
    pub(crate) refusals: u64,
}

/// One life of the broker.
pub(crate) struct Life {
    pub(crate) host: Arc<SimulatedHost>,
    pub(crate) shape: Shape,
    pub(crate) start: Rc<RefCell<Start>>,
    /// What makes the broker stop with an error.
    pub(crate) failed: Receiver<String>,
    network: Arc<SimulatedNetwork>,
    broker: Rc<RefCell<Option<Broker>>>,
}

/// The settings that all lives of a history share.
pub(crate) fn config(seed: u64) -> Config {
    let settings = [
        ("data.dir", "/simulated"),
        ("object.store.url", "file:///simulated/objects"),
        ("auto.create.topics.enable", "false"),
        ("offsets.topic.num.partitions", "3"),
        ("group.min.session.timeout.ms", "1000"),
        ("log.retention.ms", "-1"),
        ("log.retention.check.interval.ms", "1000"),
        ("log.message.timestamp.after.max.ms", "9223372036854775807"),
        ("message.max.bytes", "12288"),
        ("wal.max.group.bytes", "16384"),
        ("wal.capacity.bytes", "1048576"),
        ("shards", "1"),
        ("object.upload.interval.ms", "700"),
    ];
    let mut config = Config::with(&settings).expect("the simulation's settings are valid");
    // Below what operators may set: a run is short.
    config.object_upload_bytes = 24 << 10;
    config.object_split_bytes = 8 << 10;
    config.object_block_bytes = 2 << 10;
    config.object_compaction_enable = true;
    config.object_compaction_interval_ms = 300;
    config.object_compaction_objects = 4;
    // In every eighth history a partition fills an object of its own.
    config.object_compaction_bytes = if seed % 8 == 5 { 8 << 10 } else { 64 << 10 };
    config.object_compaction_split_bytes = 16 << 10;
    // In every other one it is slow enough for much to change meanwhile.
    config.object_compaction_bytes_per_second = if seed % 2 == 1 { 128 << 10 } else { 0 };
    // In seven of eight histories a partition keeps but some entries out of manifests.
    config.metadata_partition_entries_max = if seed % 8 == 0 { 200 } else { 2 + (seed % 3) as u32 };
    config.log_cleaner_backoff_ms = 50;
    // In every fourth history a round has room for some keys only.
    config.log_cleaner_dedupe_buffer_size = if seed % 4 == 1 { 20 * 24 } else { 1 << 20 };
    assert_eq!(config.wal_max_group_bytes, GROUP_BYTES);
    config
}

impl Site {
    /// Starts a broker on what the disks, the metadata and the bucket hold.
    pub(crate) fn start(&mut self, shape: Shape) -> Life {
        self.starts += 1;
        let door = Door::new(self.store.clone(), self.doorstep.clone());
        let host = Arc::new(SimulatedHost::new(&self.world, self.starts, self.fuse.clone(), door));
        let shards = u64::from(shape.shards);
        let mut config = self.config.clone();
        config.shards = shape.shards;
        config.wal_capacity_bytes = shards * shape.ring_bytes;
        config.cache_tail_bytes = shards * self.tail_cache_bytes;
        config.cache_read_bytes = shards * READ_CACHE_BYTES;
        let network = SimulatedNetwork::new();
        let (failures, failed) = flume::unbounded();
        let parts = BrokerParts {
            config: Arc::new(config),
            ports: Ports {
                slices: self.disks.clone(),
                files: self.disks.clone(),
                metadata: Arc::new(self.metadata.clone()),
            },
            accept_loss: false,
            advertised: Some(Advertised { host: HOST.into(), port: PORT }),
            bucket: Some(host.bucket_ports(SNAPSHOTS)),
            store: self.store.clone(),
            mailbox_messages: if shape.narrow { 1 } else { EdgeLimits::default().shard_messages },
            host: host.clone(),
            network: network.clone(),
            failed: failures,
        };
        let (start, broker) = (Rc::new(RefCell::new(Start::Opening)), Rc::new(RefCell::new(None)));
        let (outcome, slot, scene, address) = (start.clone(), broker.clone(), self.scene.clone(), network.clone());
        let main = async move {
            match Broker::start(parts).await {
                Ok(started) => {
                    *slot.borrow_mut() = Some(started);
                    *outcome.borrow_mut() = Start::Serving;
                    scene.address.replace(Some(address));
                }
                Err(error) => *outcome.borrow_mut() = refused(&error),
            }
        };
        self.scene.trace(|| format!("start {}: {shape:?}", self.starts));
        host.main().spawn(Queue::Hot, "main", Box::pin(main));
        Life { host, shape, start, failed, network, broker }
    }

    /// The metadata is lost wholly, and made anew from the bucket and what lies in the log's directory.
    pub(crate) fn rebuild(&mut self, random: u64) -> Result<(), String> {
        self.metadata = self.metadata.lost();
        let (slices, slices_hold) = self.disks.slices();
        let rebuilt = self.metadata.rebuild(&RebuildSettings {
            node: NodeId(self.config.node_id),
            object_store_url: self.config.object_store_url.to_string(),
            without_snapshot: false,
            slices,
            slices_hold,
            accept_loss: false,
            random,
            keep_missing_slices: true,
            offsets_partitions: self.config.offsets_topic_num_partitions,
        })?;
        self.scene.trace(|| format!("rebuilt: {rebuilt:?}"));
        Ok(())
    }

    /// The power goes, or only the process.
    pub(crate) fn crash(&mut self, life: Life, power: bool) {
        self.scene.trace(|| format!("crash, power lost: {power}"));
        self.scene.address.replace(None);
        self.disks.crash(power);
        life.host.crash();
        life.network.crash();
        drop(life.broker.take());
        self.metadata.crash();
        self.world.note(self.disks.digest());
    }
}

impl Life {
    /// Begins to stop in order; the outcome comes on the lane. `None` when nothing was started.
    pub(crate) fn stop(&self, timeout: Duration) -> Option<Receiver<Result<(), String>>> {
        let broker = self.broker.take()?;
        let (done, stopped) = flume::bounded(1);
        let task = async move {
            let _gone = done.try_send(broker.stop(timeout).await.map_err(|e| e.to_string()));
        };
        self.host.main().spawn(Queue::Hot, "stop", Box::pin(task));
        Some(stopped)
    }

    /// The lane to control, when it serves.
    pub(crate) fn control(&self) -> Option<Sender<ControlRequest>> {
        self.broker.borrow().as_ref().map(|broker| broker.control().clone())
    }

    /// Requests that wait in the mailboxes of the shards, the longest queue.
    pub(crate) fn waiting(&self) -> usize {
        let broker = self.broker.borrow();
        let lanes = broker.as_ref().map_or(&[][..], |broker| broker.shards());
        lanes.iter().map(|lane| lane.waiting()).max().unwrap_or(0)
    }
}

/// Injected faults say so; everything else must not happen.
fn refused(error: &StartError) -> Start {
    let text = error.to_string();
    let injected = ["injected", "the power was lost", "simulated:"].iter().any(|word| text.contains(word));
    match injected {
        _ if text.contains("acknowledged data is damaged") => Start::Damaged(text),
        true => Start::Failed(text),
        false if text.contains("does not fit into the new slices") => Start::TooSmall,
        false => Start::Broken(text),
    }
}
