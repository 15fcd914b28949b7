//! What outlives a broker, and one life of it: the start of the product on simulated ports, its stop, its crash.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use flume::Receiver;
use thalweg::{
    broker::{Broker, BrokerParts, Ports, StartError},
    config::Config,
    net::Advertised,
};
use thalweg_objectstore::ObjectStore;
use thalweg_shards::runtime::{Queue, seeded::World};

use super::{
    disks::Disks,
    host::SimulatedHost,
    metadata::Metadata,
    network::{HOST, PORT, SimulatedNetwork},
    scene::Scene,
};
use crate::fuse::Fuse;

/// Lengths of a slice's ring: small, so that a run laps it. The smallest holds four of the largest group.
pub(crate) const RINGS_BYTES: [u64; 3] = [64 << 10, 128 << 10, 256 << 10];
/// The largest group of the log.
const GROUP_BYTES: u32 = 16 << 10;
/// The most shards that a broker has.
pub(crate) const MOST_SHARDS: u16 = 4;

/// How many shards, and how long the ring of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) shards: u16,
    pub(crate) ring_bytes: u64,
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
    pub(crate) fuse: Rc<Fuse>,
    pub(crate) config: Config,
    pub(crate) starts: u32,
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

/// The settings that all lives share.
pub(crate) fn config() -> Config {
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
    assert_eq!(config.wal_max_group_bytes, GROUP_BYTES);
    config
}

impl Site {
    /// Starts a broker on what the disks, the metadata and the bucket hold.
    pub(crate) fn start(&mut self, shape: Shape) -> Life {
        self.starts += 1;
        let host = Arc::new(SimulatedHost::new(&self.world, self.starts, self.fuse.clone()));
        let shards = u64::from(shape.shards);
        let mut config = self.config.clone();
        config.shards = shape.shards;
        config.wal_capacity_bytes = shards * shape.ring_bytes;
        config.cache_tail_bytes = shards * (24 << 10);
        config.cache_read_bytes = shards * (32 << 10);
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
            bucket: None,
            store: self.store.clone(),
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
        true => Start::Failed(text),
        false if text.contains("does not fit into the new slices") => Start::TooSmall,
        false => Start::Broken(text),
    }
}
