//! A broker from its start to its end, in order, on whatever host, network and ports it is given.
//!
//! Lives on the main task, which waits. The order of the start: metadata, WAL slices, shards, edges, listeners.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use flume::{Receiver, Sender};
use thalweg_objectstore::ObjectStore;
use thalweg_record::{NodeId, ShardId, failpoint};
use thalweg_shards::{
    mailbox::{ShardInbox, ShardLane, shard_lanes},
    msg::{CleaningSettings, PartitionSettings, PartitionSpec},
    pace::DevicePace,
    upload::WriterIdentity,
    work_room::WorkRoom,
};
use thalweg_wal::Lsn;

use super::{
    CoreBody, Cores, Host, Metadata, MetadataParts, Network, Ports, StartError,
    core::{self, CoreParts, Go, Milestone},
    held::{self, Held, Settled, Tails},
    rehome::rehome,
    slices::{self, SliceSet},
    stop::drain_shards,
};
use crate::{
    cluster::{
        BrokerView, BucketPorts, Cluster, ClusterActors, ClusterLanes, ClusterSettings, ClusterSnapshot,
        ControlRequest, SliceRecord,
        topic_config::{BrokerDefaults, CompressionLevels},
    },
    config::{Config, TimestampType},
    coordinator::group::GroupRequest,
    net::Advertised,
};

/// Connections that have not finished what is in flight after this long are cut.
const CLOSE_CONNECTIONS: Duration = Duration::from_secs(5);
/// A stop that is out of time still has this long for its last metadata snapshot.
const LAST_SNAPSHOT: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const CLOSE_LOOK: Duration = Duration::from_millis(5);

/// What a broker is started on.
pub struct BrokerParts {
    /// The settings, checked.
    pub config: Arc<Config>,
    /// What its data is kept on.
    pub ports: Ports,
    /// Start although a WAL slice is missing or damaged, and say what is lost.
    pub accept_loss: bool,
    /// What clients are told of this broker; none when nothing listens.
    pub advertised: Option<Advertised>,
    /// Where snapshots of the metadata go; nowhere without.
    pub bucket: Option<BucketPorts>,
    /// The object store.
    pub store: Arc<dyn ObjectStore>,
    /// Where its parts run.
    pub host: Arc<dyn Host>,
    /// How clients reach it.
    pub network: Arc<dyn Network>,
    /// Requests that one core may have in one shard's mailbox, > 0.
    pub mailbox_messages: u32,
    /// Told why the broker cannot go on.
    pub failed: Sender<String>,
}

/// A broker that serves: everything that has to be stopped.
pub struct Broker {
    lanes: Vec<ShardLane>,
    groups: Vec<Sender<GroupRequest>>,
    host: Arc<dyn Host>,
    network: Arc<dyn Network>,
    cores: Box<dyn Cores>,
    metadata: Box<dyn Metadata>,
    cluster_lanes: ClusterLanes,
    slices: Vec<SliceRecord>,
    /// Where the last metadata snapshot goes.
    snapshots: Option<Arc<dyn ObjectStore>>,
    /// Its end tells the edges to finish what is in flight and close their connections.
    closing: Sender<()>,
    end: Sender<()>,
    _wal_lock: Box<dyn Any + Send>,
}

impl Broker {
    /// Starts a broker; it serves when this returns.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn start(parts: BrokerParts) -> Result<Broker, StartError> {
        let BrokerParts { config, ports, accept_loss, advertised, bucket, store, host, network, .. } = parts;
        let (mailbox_messages, failed) = (parts.mailbox_messages, parts.failed);
        let shards = config.shards;
        let mut cluster = ports.metadata.open(MetadataParts {
            config: &config,
            settings: &|| cluster_settings(&config, advertised.clone(), &host),
            files: &*ports.files,
            objects: &*store,
            accept_loss,
        })?;
        let mut set = SliceSet::of(&config, &cluster, &ports, &host, accept_loss);
        let made = ports.files.prepare(&set.dir);
        set.dir = made.map_err(|e| StartError::Wal(format!("{}: {e}", set.dir.display())))?;
        let wal_lock = slices::lock(&*ports.files, &set.dir)?;
        slices::refuse_strangers(&*ports.files, &set.dir, Some((cluster.cluster_uuid(), set.node)))?;
        let specs = cluster.partitions();
        let tails = Arc::new(held::tails(&specs, &cluster.cuts()));
        let slices = prepare_slices(&set, &cluster, &tails, shards).await?;
        let identity = writer_identity(&config, &cluster, &*store);
        let snapshot = cluster.snapshot();
        let (lanes, inboxes): (Vec<ShardLane>, Vec<ShardInbox>) = (0..shards).map(|n| shard_lanes(ShardId(n))).unzip();
        let (groups, group_inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::unbounded()).unzip();
        let (edges, snapshots): (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::unbounded()).unzip();
        let openings = host.start_openers(shards)?;
        let errands = host.start_cleaner()?;
        let pace = Arc::new(DevicePace::new(config.wal_max_iops, config.wal_max_bytes_per_second));
        let room = WorkRoom::new(core::compaction_config(&config).room_bytes(shards));
        let maps = WorkRoom::new(config.log_cleaner_dedupe_buffer_size);
        let (end, ended) = flume::bounded(0);
        let (closing, closed) = flume::bounded(0);
        let (report, reports) = flume::unbounded();
        let (mut bodies, mut words) = (Vec::<CoreBody>::new(), Vec::new());
        let cores = inboxes.into_iter().zip(group_inboxes).zip(snapshots).zip(&slices);
        for (((inbox, group_inbox), snapshots), slice) in cores {
            let (word, go) = flume::bounded(1);
            let parts = CoreParts {
                id: inbox.id,
                config: config.clone(),
                shards,
                identity: identity.clone(),
                slices: set.clone(),
                slice: slice.clone(),
                store: store.clone(),
                inbox,
                lanes: lanes.clone(),
                groups: groups.clone(),
                group_inbox,
                openings: openings.clone(),
                snapshots,
                snapshot: snapshot.clone(),
                tails: tails.clone(),
                network: network.clone(),
                pace: pace.clone(),
                room: room.clone(),
                maps: maps.clone(),
                errands: errands.clone(),
                mailbox_messages,
                failed: failed.clone(),
                report: report.clone(),
                go,
                closing: closed.clone(),
                end: ended.clone(),
            };
            bodies.push(Box::new(move |runtime| Box::pin(core::run(parts, runtime))));
            words.push(word);
        }
        drop(report);
        let cores = host.start_cores(bodies)?;
        let held = opened(&reports, shards).await?;
        failpoint::pass("start-opened");
        let Openings { specs, given_up, snapshot } = settle(&mut cluster, held, (specs, &tails), accept_loss)?;
        // From here on the slices may hold what nothing else does.
        for slice in &slices {
            cluster.record_slice(&SliceRecord { closed_empty: false, ..slice.clone() })?;
        }
        let (actors, cluster_lanes) = cluster.actors();
        for ((word, specs), given_up) in words.iter().zip(specs).zip(given_up) {
            let (meta, control) = (cluster_lanes.meta.clone(), cluster_lanes.control.clone());
            let _gone = word.try_send(Go { snapshot: snapshot.clone(), specs, given_up, meta, control });
        }
        let snapshots = bucket.as_ref().map(|bucket| bucket.objects.clone());
        let actors = bucket.into_iter().fold(actors, ClusterActors::with_bucket);
        let metadata = host.start_metadata(actors, lanes.clone(), edges)?;
        serving(&reports, shards).await?;
        Ok(Broker {
            lanes,
            groups,
            host,
            network,
            cores,
            metadata,
            cluster_lanes,
            slices,
            snapshots,
            closing,
            end,
            _wal_lock: wal_lock,
        })
    }

    /// Lanes to the shards, by id.
    pub fn shards(&self) -> &[ShardLane] {
        &self.lanes
    }

    /// Lanes to the group coordinators, by the shard whose core they share.
    pub fn groups(&self) -> &[Sender<GroupRequest>] {
        &self.groups
    }

    /// The lane to control.
    pub fn control(&self) -> &Sender<ControlRequest> {
        &self.cluster_lanes.control
    }

    /// Stops in stages: clients, uploads, metadata, cores. What is not uploaded within `timeout` stays in the log.
    ///
    /// # Errors
    /// The metadata cannot be written, or a core ended otherwise than by itself.
    pub async fn stop(self, timeout: Duration) -> Result<(), StartError> {
        let deadline = self.host.mono().plus(timeout);
        self.network.stop_accepting();
        drop(self.closing);
        let until = self.host.mono().plus(CLOSE_CONNECTIONS.min(timeout));
        while self.network.connected() > 0 && self.host.mono() < until {
            self.host.sleep(CLOSE_LOOK).await;
        }
        let left = drain_shards(&self.lanes, timeout, &*self.host).await;
        let cluster = self.metadata.stop(self.cluster_lanes.stop).await;
        failpoint::pass("stop-synced");
        for (slice, left) in self.slices.iter().zip(&left) {
            match left {
                Some(0) => cluster.record_slice(&SliceRecord { closed_empty: true, ..slice.clone() })?,
                Some(bytes) => {
                    tracing::warn!(shard = slice.shard.0, bytes, "bytes stay in the WAL; the next start uploads them")
                }
                None => {
                    tracing::warn!(shard = slice.shard.0, "the shard did not stop in time; its WAL keeps what it held")
                }
            }
        }
        // What the next start finds here, a rebuild must find in the bucket.
        if let Some(objects) = self.snapshots {
            let patience = LAST_SNAPSHOT.max(deadline.since(self.host.mono()));
            if let Err(why) = cluster.write_last_snapshot(objects, patience) {
                tracing::warn!(why, "the last metadata snapshot could not be written; the bucket has an older one");
            }
        }
        failpoint::pass("stop-recorded");
        let stays: u64 = left.iter().flatten().sum();
        tracing::info!(wal_bytes_left = stays, "stopped");
        drop(self.end);
        // An executor that hangs must not keep the process: everything that matters is durable.
        if left.iter().all(Option::is_some) {
            self.cores.ended().await.map_err(StartError::Executor)?;
        }
        Ok(())
    }
}

fn writer_identity(config: &Config, cluster: &Cluster, store: &dyn ObjectStore) -> WriterIdentity {
    let identity = WriterIdentity {
        cluster_id: cluster.cluster_id().clone(),
        node: NodeId(config.node_id),
        node_epoch: cluster.node_epoch().0 as u64,
    };
    store.writes_as(identity.node, identity.node_epoch);
    identity
}

type Reports = Receiver<Result<Milestone, String>>;

async fn next_milestone(reports: &Reports) -> Result<Milestone, StartError> {
    match reports.recv_async().await {
        Ok(reached) => reached.map_err(StartError::Wal),
        Err(_) => Err(StartError::Executor("a shard ended while it started".into())),
    }
}

/// What all slices hold, by shard.
async fn opened(reports: &Reports, shards: u16) -> Result<Vec<Held>, StartError> {
    let mut opened = Vec::new();
    for _ in 0..shards {
        match next_milestone(reports).await? {
            Milestone::SliceOpen(held) => opened.push(held),
            Milestone::Serving => unreachable!("cores report their milestones in order"),
        }
    }
    opened.sort_by_key(|held| held.shard);
    Ok(opened)
}

/// What to begin with.
struct Openings {
    /// What each shard has to open.
    specs: Vec<Vec<PartitionSpec>>,
    /// Where batches lie in its slice that count no more.
    given_up: Vec<BTreeSet<Lsn>>,
    snapshot: Arc<ClusterSnapshot>,
}

/// As the metadata says, corrected by what the slices hold.
fn settle(
    cluster: &mut Cluster,
    held: Vec<Held>,
    (specs, tails): (Vec<Vec<PartitionSpec>>, &Tails),
    accept_loss: bool,
) -> Result<Openings, StartError> {
    let settled = held::settle(&held, tails, accept_loss).map_err(StartError::Wal)?;
    let Settled { partitions, given_up, cuts } = settled;
    cluster.record_cuts(&cuts)?;
    if partitions.is_empty() {
        return Ok(Openings { specs, given_up, snapshot: cluster.snapshot() });
    }
    let owners: Vec<_> = partitions.iter().map(|settled| (settled.partition, settled.owner)).collect();
    cluster.record_owners(&owners)?;
    let mut specs = cluster.partitions();
    held::lend(&mut specs, partitions);
    Ok(Openings { specs, given_up, snapshot: cluster.snapshot() })
}

async fn serving(reports: &Reports, shards: u16) -> Result<(), StartError> {
    for _ in 0..shards {
        next_milestone(reports).await?;
    }
    Ok(())
}

/// The slices of this run, one per shard in order; what the last run's hold is moved when they do not fit the settings.
async fn prepare_slices(
    set: &SliceSet,
    cluster: &Cluster,
    tails: &Arc<Tails>,
    shards: u16,
) -> Result<Vec<SliceRecord>, StartError> {
    let recorded = set.relocated(cluster.slices()?);
    set.check_present(&recorded)?;
    let lost_before = cluster.lost_slices()?;
    set.remove_unrecorded(&recorded, &lost_before)?;
    let lost = set.lost(&recorded);
    if set.matches(&recorded, shards) {
        let renewed = set.renew(&lost);
        if !lost.is_empty() {
            cluster.replace_slices(&lost, &renewed, &lost)?;
            failpoint::pass("renewed-recorded");
        }
        let mut slices: Vec<SliceRecord> = recorded.into_iter().filter(|slice| !lost.contains(slice)).collect();
        slices.extend(renewed);
        slices.sort_by_key(|slice| slice.shard);
        return Ok(slices);
    }
    let new: Vec<SliceRecord> = (0..shards).map(|n| set.draw(ShardId(n))).collect();
    if !recorded.is_empty() {
        rehome(set, recorded.clone(), &new, tails.clone(), cluster.snapshot()).await?;
        failpoint::pass("rehome-copied");
    }
    let of_today: Vec<SliceRecord> =
        new.iter().map(|slice| SliceRecord { closed_empty: recorded.is_empty(), ..slice.clone() }).collect();
    cluster.replace_slices(&recorded, &of_today, &lost)?;
    failpoint::pass("rehome-recorded");
    set.remove_unrecorded(&new, &lost_before)?;
    Ok(new)
}

pub(super) fn cluster_settings(
    config: &Config,
    advertised: Option<Advertised>,
    clocks: &Arc<dyn Host>,
) -> ClusterSettings {
    let Advertised { host, port } = advertised.unwrap_or(Advertised { host: "localhost".into(), port: 9092 });
    let (wall, random, growth) = (clocks.clone(), clocks.clone(), clocks.clone());
    ClusterSettings {
        data_dir: config.data_dir.clone(),
        object_store_url: config.object_store_url.to_string(),
        broker: BrokerView {
            node: NodeId(config.node_id),
            host,
            port,
            rack: config.broker_rack.as_deref().map(Into::into),
        },
        shards: config.shards,
        defaults: BrokerDefaults {
            num_partitions: config.num_partitions,
            max_group_bytes: config.wal_max_group_bytes,
            compression_type: config.compression_type.text(),
            compression_levels: CompressionLevels {
                gzip: config.compression_gzip_level,
                lz4: config.compression_lz4_level,
                zstd: config.compression_zstd_level,
            },
            settings: PartitionSettings {
                max_message_bytes: config.message_max_bytes,
                retention_ms: config.log_retention_ms,
                retention_bytes: config.log_retention_bytes,
                delete: config.log_cleanup_policy.delete,
                compact: config.log_cleanup_policy.compact,
                timestamp_before_max_ms: config.log_message_timestamp_before_max_ms,
                timestamp_after_max_ms: config.log_message_timestamp_after_max_ms,
                log_append_time: config.log_message_timestamp_type == TimestampType::LogAppendTime,
                compression: None,
                cleaning: CleaningSettings {
                    least_ratio: config.log_cleaner_min_cleanable_ratio,
                    min_lag_ms: config.log_cleaner_min_compaction_lag_ms,
                    max_lag_ms: config.log_cleaner_max_compaction_lag_ms,
                    delete_retention_ms: config.log_cleaner_delete_retention_ms,
                    ..PartitionSettings::KAFKA_DEFAULTS.cleaning
                },
                version: 0,
            },
            altered: BTreeMap::new(),
        },
        producer_expiration_ms: config.producer_id_expiration_ms,
        cleaner: core::cleaner_tuning(config),
        wall: Box::new(move || wall.wall()),
        random: Box::new(move || random.random()),
        no_growth: Box::new(move || growth.no_growth()),
    }
}
