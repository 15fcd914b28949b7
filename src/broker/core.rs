//! One core of the broker: its WAL slice, shard, cold reader, coordinators, edge and listeners on one executor.
//!
//! Runs on the shard's executor. It goes in two steps, because the metadata must know that a slice is in use before
//! anything is appended: it opens its slice and reports, then waits for the word to serve.

use std::{collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};

use flume::{Receiver, Sender};
use thalweg_objectstore::ObjectStore;
use thalweg_record::ShardId;
use thalweg_shards::{
    cleaning::{CleaningConfig, CleaningPorts, Errand},
    cold,
    compaction::{CompactionConfig, CompactionPorts},
    mailbox::{ShardInbox, ShardLane},
    meta::MetaRequest,
    meters::{ShardMeters, StoreMeters},
    msg::{CleanerTuning, Ownership, PartitionSpec},
    pace::DevicePace,
    runtime::{Queue, Runtime},
    shard::{Shard, ShardConfig, ShardPorts},
    store::{self, StoreLane},
    upload::{UploadConfig, WriterIdentity},
    work_room::WorkRoom,
};
use thalweg_wal::{Device, Lsn, Recovered, RecoveredBatch};

use super::{
    Network,
    held::{Held, Tails},
    slices::SliceSet,
};
use crate::{
    api::{Edge, EdgeParts, Opening},
    cluster::{
        BalancerPorts, BalancerSettings, ClusterSnapshot, ControlRequest, SliceRecord, SnapshotUpdate, balance,
        broker_config::{self, PRODUCER_ID_EXPIRATION_MS},
    },
    config::Config,
    coordinator::group::{GroupActor, GroupConfig, GroupPorts, GroupRequest},
    net::EdgeLimits,
    telemetry::GroupMeters,
};

/// Uploads of one shard under way at once; each may hold an object's worth of memory.
const UPLOAD_JOBS: usize = 2;
/// More batches than this wait for no upload: their index would grow past tens of megabytes.
const BATCHES_PER_UPLOAD: usize = 400_000;
/// A group of this size, or half of the largest, is written beside another.
const OVERLAP_BYTES: u32 = 64 << 10;
/// Store requests in flight per shard and use.
const STORE_REQUESTS: usize = 8;

/// What a core is made of; everything is `Send`, for it crosses to the executor's thread.
pub(super) struct CoreParts {
    pub id: ShardId,
    pub config: Arc<Config>,
    pub shards: u16,
    pub identity: WriterIdentity,
    pub slices: SliceSet,
    pub slice: SliceRecord,
    pub store: Arc<dyn ObjectStore>,
    pub mailbox_messages: u32,
    pub inbox: ShardInbox,
    pub lanes: Vec<ShardLane>,
    pub groups: Vec<Sender<GroupRequest>>,
    pub group_inbox: Receiver<GroupRequest>,
    pub openings: Sender<Opening>,
    pub snapshots: Receiver<SnapshotUpdate>,
    /// Who owns what, as the metadata says before the slices were opened.
    pub snapshot: Arc<ClusterSnapshot>,
    /// Where the log of each partition should go on.
    pub tails: Arc<Tails>,
    pub network: Arc<dyn Network>,
    pub pace: Arc<DevicePace>,
    pub room: Arc<WorkRoom>,
    pub maps: Arc<WorkRoom>,
    pub errands: Sender<Errand>,
    pub failed: Sender<String>,
    /// Told when the slice is open, then when the core serves; or why not.
    pub report: Sender<Result<Milestone, String>>,
    /// The word to serve.
    pub go: Receiver<Go>,
    /// Its end tells the edge to finish what is in flight and close its connections.
    pub closing: Receiver<()>,
    /// Its end is the core's end.
    pub end: Receiver<()>,
}

/// How far a core has come.
#[derive(Debug)]
pub(super) enum Milestone {
    SliceOpen(Held),
    Serving,
}

/// What a core serves.
pub(super) struct Go {
    pub snapshot: Arc<ClusterSnapshot>,
    pub specs: Vec<PartitionSpec>,
    /// Batches of the slice that count no more.
    pub given_up: BTreeSet<Lsn>,
    pub meta: Sender<MetaRequest>,
    pub control: Sender<ControlRequest>,
}

/// Runs one core to its end.
pub(super) async fn run(parts: CoreParts, runtime: Rc<dyn Runtime>) {
    let (report, end, go) = (parts.report.clone(), parts.end.clone(), parts.go.clone());
    let (device, mut recovered) = match parts.slices.open(&parts.slice, &runtime).await {
        Ok(opened) => opened,
        Err(why) => {
            let _gone = report.try_send(Err(why));
            return;
        }
    };
    let batches = Arc::new(std::mem::take(&mut recovered.batches));
    let held = Held::new(parts.id, batches.clone(), &parts.snapshot, &parts.tails);
    let _gone = report.try_send(Ok(Milestone::SliceOpen(held)));
    let Ok(go) = go.recv_async().await else { return };
    let served = serve(parts, go, (device, recovered, batches), &runtime);
    let failed = served.is_err();
    let _gone = report.try_send(served.map(|()| Milestone::Serving));
    if !failed {
        // Nothing is sent: the lane closes when the broker has stopped.
        let _closed = end.recv_async().await;
    }
}

fn serve(
    parts: CoreParts,
    go: Go,
    (device, recovered, batches): (Rc<dyn Device>, Recovered, Arc<Vec<RecoveredBatch>>),
    runtime: &Rc<dyn Runtime>,
) -> Result<(), String> {
    let Recovered { log, report, .. } = recovered;
    tracing::info!(shard = parts.id.0, ?report, batches = batches.len(), "WAL slice recovered");
    let (ownership, owned) = flume::unbounded();
    let mut config = shard_config(&parts.config, parts.id, parts.identity.clone(), parts.shards);
    if let Some(after_ms) = go.snapshot.altered.number(PRODUCER_ID_EXPIRATION_MS) {
        config.producer_expiration = Duration::from_millis(after_ms);
    }
    let tuning = cleaner_tuning(&parts.config);
    let tuning = broker_config::cleaner_tuning(&go.snapshot.altered, tuning);
    let ports = shard_ports(&parts, tuning, go.meta, device, ownership, runtime);
    let mut shard = Shard::new(config, ports, log);
    let revision = go.snapshot.revision;
    let adopted = if go.given_up.is_empty() {
        shard.adopt(revision, go.specs, &batches)
    } else {
        tracing::warn!(
            shard = parts.id.0,
            batches = go.given_up.len(),
            "batches count no more: the log of their partitions goes on without them"
        );
        shard.gave_up();
        let count: Vec<RecoveredBatch> =
            batches.iter().filter(|batch| !go.given_up.contains(&batch.lsn)).copied().collect();
        shard.adopt(revision, go.specs, &count)
    };
    adopted.map_err(|why| format!("shard {}: {why}", parts.id))?;
    drop(batches);
    runtime.spawn(Queue::Hot, "shard", Box::pin(shard.run()));
    GroupActor::spawn(GroupPorts {
        runtime: runtime.clone(),
        shard: parts.lanes[usize::from(parts.id.0)].clone(),
        ownership: owned,
        inbox: parts.group_inbox.clone(),
        snapshot: go.snapshot.clone(),
        config: GroupConfig::of(&parts.config),
        meters: GroupMeters::new(parts.id),
    });
    start_balancer(&parts, &go.control, runtime);
    open_edge(parts, go.control, go.snapshot, runtime)
}

/// The first core evens what all have to do.
fn start_balancer(parts: &CoreParts, control: &Sender<ControlRequest>, runtime: &Rc<dyn Runtime>) {
    let interval = Duration::from_millis(parts.config.shards_balance_interval_ms);
    if parts.id != ShardId(0) || parts.shards < 2 || interval.is_zero() {
        return;
    }
    let ports = BalancerPorts {
        runtime: runtime.clone(),
        shards: parts.lanes.clone(),
        control: control.clone(),
        interval,
        settings: BalancerSettings {
            threshold: f64::from(parts.config.shards_balance_threshold_percent) / 100.0,
            cooldown: Duration::from_millis(parts.config.shards_balance_cooldown_ms),
        },
    };
    runtime.spawn(Queue::Janitor, "balancer", Box::pin(balance(ports)));
}

pub(super) fn shard_config(config: &Config, id: ShardId, identity: WriterIdentity, shards: u16) -> ShardConfig {
    let shards = u64::from(shards);
    ShardConfig {
        id,
        identity,
        tail_cache_bytes: config.cache_tail_bytes / shards,
        groups_in_flight: 2,
        overlap_bytes: OVERLAP_BYTES.min(config.wal_max_group_bytes / 2),
        wal_bytes_in_flight: 8 << 20,
        ring_read_bytes: (config.cache_read_bytes / shards / 2).clamp(1 << 20, 64 << 20),
        upload: UploadConfig {
            object_bytes: config.object_upload_bytes,
            interval: Duration::from_millis(config.object_upload_interval_ms),
            split_bytes: config.object_split_bytes,
            block_bytes: config.object_block_bytes,
            jobs: UPLOAD_JOBS,
            batches: BATCHES_PER_UPLOAD,
        },
        retention_check_interval: Duration::from_millis(config.log_retention_check_interval_ms),
        producer_expiration: Duration::from_millis(config.producer_id_expiration_ms),
        entries_max: config.metadata_partition_entries_max as usize,
    }
}

/// How the settings say that objects are compacted.
pub(super) fn compaction_config(config: &Config) -> CompactionConfig {
    CompactionConfig {
        interval: Duration::from_millis(config.object_compaction_interval_ms),
        objects: config.object_compaction_objects as usize,
        output_bytes: config.object_compaction_bytes,
        split_bytes: config.object_compaction_split_bytes,
        block_bytes: config.object_block_bytes,
        bytes_per_second: config.object_compaction_bytes_per_second,
        upload_bytes: config.object_upload_bytes,
    }
}

/// How the settings say that logs are cleaned.
pub(super) fn cleaner_tuning(config: &Config) -> CleanerTuning {
    CleanerTuning {
        backoff: Duration::from_millis(config.log_cleaner_backoff_ms),
        dedupe_bytes: config.log_cleaner_dedupe_buffer_size,
        load_factor: config.log_cleaner_io_buffer_load_factor,
    }
}

fn cleaning_ports(parts: &CoreParts, tuning: CleanerTuning, store: StoreLane) -> CleaningPorts {
    let config = CleaningConfig {
        backoff: tuning.backoff,
        dedupe_bytes: tuning.dedupe_bytes,
        load_factor: tuning.load_factor.share(),
        output_bytes: parts.config.object_compaction_bytes,
        block_bytes: parts.config.object_block_bytes,
        bytes_per_second: parts.config.object_compaction_bytes_per_second,
        usual_backlog: compaction_config(&parts.config).usual_backlog(),
    };
    parts.maps.resize(tuning.dedupe_bytes);
    CleaningPorts { config, store, room: parts.room.clone(), maps: parts.maps.clone(), errands: parts.errands.clone() }
}

fn shard_ports(
    parts: &CoreParts,
    tuning: CleanerTuning,
    meta: Sender<MetaRequest>,
    device: Rc<dyn Device>,
    ownership: Sender<Ownership>,
    runtime: &Rc<dyn Runtime>,
) -> ShardPorts {
    let meters = Rc::new(StoreMeters::new());
    let uploads = store::serve(runtime, Queue::Upload, parts.store.clone(), STORE_REQUESTS, meters.clone());
    let cache = parts.config.cache_read_bytes / u64::from(parts.shards);
    // Of compaction and of cleaning.
    let rewrites = store::serve(runtime, Queue::Janitor, parts.store.clone(), STORE_REQUESTS / 2, meters.clone());
    let compaction = parts.config.object_compaction_enable.then(|| CompactionPorts {
        config: compaction_config(&parts.config),
        store: rewrites.clone(),
        room: parts.room.clone(),
    });
    let cleaning = parts.config.log_cleaner_enable.then(|| cleaning_ports(parts, tuning, rewrites));
    let reads = store::serve(runtime, Queue::Cold, parts.store.clone(), 2 * STORE_REQUESTS, meters);
    let cold = cold::start(runtime.clone(), reads, cold::ColdConfig::with_cache(cache), ShardMeters::new(parts.id));
    ShardPorts {
        runtime: runtime.clone(),
        device,
        inbox: ShardInbox { id: parts.id, data: parts.inbox.data.clone(), control: parts.inbox.control.clone() },
        meta,
        store: uploads,
        compaction,
        cleaning,
        cold,
        ownership,
        peers: parts.lanes.clone(),
        pace: parts.pace.clone(),
        failed: parts.failed.clone(),
        meters: Rc::new(ShardMeters::new(parts.id)),
    }
}

fn open_edge(
    parts: CoreParts,
    control: Sender<ControlRequest>,
    snapshot: Arc<ClusterSnapshot>,
    runtime: &Rc<dyn Runtime>,
) -> Result<(), String> {
    let edge = Rc::new(Edge::new(EdgeParts {
        runtime: runtime.clone(),
        home: parts.id,
        limits: limits(&parts.config, parts.shards, parts.mailbox_messages),
        config: parts.config,
        shards: parts.lanes,
        groups: parts.groups,
        control,
        openings: parts.openings,
        snapshot,
    }));
    let (taker, snapshots) = (edge.clone(), parts.snapshots);
    let take = async move {
        while let Ok(SnapshotUpdate { snapshot, taken }) = snapshots.recv_async().await {
            taker.publish(snapshot);
            let _gone = taken.try_send(());
        }
    };
    runtime.spawn(Queue::Hot, "snapshots", Box::pin(take));
    let (stopped, closing) = (edge.clone(), parts.closing);
    let close = async move {
        let _closed = closing.recv_async().await;
        stopped.stop();
    };
    runtime.spawn(Queue::Hot, "closing", Box::pin(close));
    parts.network.open(&edge)
}

fn limits(config: &Config, shards: u16, shard_messages: u32) -> EdgeLimits {
    let share = |bytes: u64| u32::try_from(bytes / u64::from(shards)).unwrap_or(u32::MAX);
    EdgeLimits {
        request_max_bytes: config.socket_request_max_bytes,
        idle: Duration::from_millis(config.connections_max_idle_ms),
        max_connections: config.max_connections,
        max_connections_per_ip: config.max_connections_per_ip,
        request_bytes: share(config.queued_max_request_bytes).max(config.socket_request_max_bytes),
        response_bytes: share(config.queued_max_response_bytes).max(config.fetch_max_bytes),
        shard_messages,
        ..EdgeLimits::default()
    }
}
