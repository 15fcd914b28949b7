//! Runs a broker: the start in order, the wait, the stop in order.
#![expect(clippy::disallowed_methods, reason = "makes the WAL's directory on the main thread, before any shard")]

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use flume::{Receiver, Sender};
use futures_lite::future;
use thalweg_objectstore::ObjectStore;
use thalweg_record::{NodeId, ShardId};
use thalweg_shards::{
    mailbox::{ShardInbox, ShardLane, shard_lanes},
    msg::{PartitionSettings, PartitionSpec},
    pace::DevicePace,
    runtime::{Executor, Watchdog, mono_now, random_bits, start_executor, wall_now},
    upload::WriterIdentity,
};

use super::{
    Ports, StartError,
    core::{self, CoreParts, Go, Milestone},
    openers,
    rehome::rehome,
    slices::{self, SliceSet},
    stop::drain_shards,
    stores,
};
use crate::{
    cluster::{
        BrokerView, Cluster, ClusterLanes, ClusterSettings, ClusterThread, SliceRecord,
        topic_config::{BrokerDefaults, CompressionLevels},
    },
    config::{Config, Endpoint, TimestampType, host},
    coordinator::group::GroupRequest,
    net::{self, Advertised, Claim, Connections},
    telemetry::{self, Exporter, Health, Lags, Stage},
};

/// Connections that have not finished what is in flight after this long are cut.
const CLOSE_CONNECTIONS: Duration = Duration::from_secs(5);

/// Tells a running broker to stop: any message does.
pub type StopSignal = Receiver<()>;

/// What a broker that serves says of itself.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Addresses that Kafka clients may connect to.
    pub kafka: Vec<SocketAddr>,
    /// The HTTP endpoint.
    pub http: Option<SocketAddr>,
    /// Shards.
    pub shards: u16,
    /// From the call to serving, in milliseconds.
    pub start_ms: u64,
}

/// Starts a broker on `ports`, calls `ready` once it serves, and returns after a stop. With `accept_loss` it starts although a WAL
/// slice is missing or damaged, and says what is lost.
///
/// # Errors
/// Why it does not start; or, with [`StartError::after_start`], why it could not go on.
pub fn serve(
    config: Config,
    ports: &Ports,
    accept_loss: bool,
    stop: &StopSignal,
    ready: impl FnOnce(&Ready),
) -> Result<(), StartError> {
    let began = mono_now();
    let (failed, failures) = flume::unbounded();
    for warning in host::check(&config).map_err(StartError::Problems)? {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(config);
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("thalweg-tokio")
        .enable_all()
        .build()?;
    let claims = claims(&config)?;
    let addresses = addresses(&config, &claims);
    let (health, lags) = (Health::new(), Lags::default());
    let http = telemetry(&config, &health, &lags, &tokio)?;
    if !Cluster::present(&config.data_dir) {
        slices::refuse_strangers(&config.wal_path, None)?;
    }
    let store = stores::open(&config.object_store_url, tokio.handle())?;
    let running = Running::start(&config, ports, accept_loss, &addresses, store, &health, failed)?;
    lags.connect(&running.lanes, &running.groups);
    health.set(Stage::Ready);
    let start_ms = mono_now().since(began).as_millis() as u64;
    let kafka = addresses.iter().map(|(address, _)| *address).collect();
    ready(&Ready { kafka, http, shards: config.shards, start_ms });
    let told = async {
        let _told = stop.recv_async().await;
        None
    };
    let failure = future::block_on(future::or(async { failures.recv_async().await.ok() }, told));
    health.set(Stage::Stopping("uploading what the WAL holds"));
    if let Some(why) = &failure {
        tracing::error!(why, "the broker cannot go on; it uploads what is durable and stops");
    }
    running.stop(Duration::from_millis(config.shutdown_timeout_ms))?;
    tokio.shutdown_timeout(Duration::from_secs(1));
    // What fails during the stop counts too.
    failure.or_else(|| failures.try_recv().ok()).map_or(Ok(()), |why| Err(StartError::Failed(why)))
}

/// Takes the addresses of the listeners, in order, until the broker has ended.
fn claims(config: &Config) -> Result<Vec<Claim>, StartError> {
    let take = |endpoint: &Endpoint| endpoint.resolve().and_then(net::claim);
    config.listeners.iter().map(|e| take(e).map_err(|error| refused("listeners", e, &error))).collect()
}

/// The addresses to listen on, with what clients of each are told; port 0 is resolved to the port chosen.
fn addresses(config: &Config, claims: &[Claim]) -> Vec<(SocketAddr, Advertised)> {
    let tell = |(claim, told): (&Claim, &Endpoint)| {
        let address = claim.address();
        let port = if told.port == 0 { address.port() } else { told.port };
        (address, Advertised { host: told.host.as_str().into(), port })
    };
    claims.iter().zip(&config.advertised_listeners).map(tell).collect()
}

fn refused(key: &'static str, endpoint: &Endpoint, error: &std::io::Error) -> StartError {
    StartError::Listen { key, why: host::refusal(endpoint, error) }
}

fn telemetry(
    config: &Config,
    health: &Health,
    lags: &Lags,
    tokio: &tokio::runtime::Runtime,
) -> Result<Option<SocketAddr>, StartError> {
    let exporter = Exporter::install().map_err(|e| std::io::Error::other(e.to_string()))?;
    let bind = |endpoint: &Endpoint| endpoint.resolve().and_then(TcpListener::bind);
    let listener = match &config.http_listen {
        None => None,
        Some(endpoint) => Some(bind(endpoint).map_err(|e| refused("http.listen", endpoint, &e))?),
    };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let (health, lags) = (health.clone(), lags.clone());
    tokio.spawn(async move {
        // It serves until the runtime is shut down, so that /readyz tells of the stop.
        if let Err(error) = telemetry::serve(listener, exporter, lags, health, std::future::pending()).await {
            tracing::error!(%error, "the HTTP endpoint ended");
        }
    });
    Ok(address)
}

/// Everything that has to be stopped.
struct Running {
    lanes: Vec<ShardLane>,
    groups: Vec<Sender<GroupRequest>>,
    connections: Arc<Connections>,
    executors: Vec<Executor>,
    cluster: ClusterThread,
    cluster_lanes: ClusterLanes,
    slices: Vec<SliceRecord>,
    /// Its end tells the edges to finish what is in flight and close their connections.
    closing: Sender<()>,
    end: Sender<()>,
    _watchdog: Watchdog,
    _wal_lock: File,
}

impl Running {
    fn start(
        config: &Arc<Config>,
        ports: &Ports,
        accept_loss: bool,
        addresses: &[(SocketAddr, Advertised)],
        store: Arc<dyn ObjectStore>,
        health: &Health,
        failed: Sender<String>,
    ) -> Result<Running, StartError> {
        let shards = config.shards;
        let cluster = Cluster::open(cluster_settings(config, addresses), &*ports.metadata, &*store)?;
        let mut set = SliceSet::of(config, &cluster, ports.slices.clone(), accept_loss);
        let made = std::fs::create_dir_all(&set.dir).and_then(|()| set.dir.canonicalize());
        set.dir = made.map_err(|e| StartError::Wal(format!("{}: {e}", set.dir.display())))?;
        let wal_lock = slices::lock(&set.dir)?;
        slices::refuse_strangers(&set.dir, Some((cluster.cluster_uuid(), set.node)))?;
        let specs = cluster.partitions();
        let slices = prepare_slices(&set, &cluster, &specs, shards)?;
        let identity = WriterIdentity {
            cluster_id: cluster.cluster_id().clone(),
            node: NodeId(config.node_id),
            node_epoch: cluster.node_epoch().0 as u64,
        };
        let snapshot = cluster.snapshot();
        let watchdog = Watchdog::start(usize::from(shards))?;
        health.watch(watchdog.hearts());
        let (lanes, inboxes): (Vec<ShardLane>, Vec<ShardInbox>) = (0..shards).map(|n| shard_lanes(ShardId(n))).unzip();
        let (groups, group_inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::unbounded()).unzip();
        let (edges, snapshots): (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::unbounded()).unzip();
        let openings = openers::start(shards)?;
        let pace = Arc::new(DevicePace::new(config.wal_max_iops, config.wal_max_bytes_per_second));
        let (connections, arrivals) = net::connections(usize::from(shards));
        let (end, ended) = flume::bounded(0);
        let (closing, closed) = flume::bounded(0);
        let (report, reports) = flume::unbounded();
        let (mut executors, mut words) = (Vec::new(), Vec::new());
        let cores = inboxes.into_iter().zip(group_inboxes).zip(snapshots).zip(arrivals).zip(&slices);
        for ((((inbox, group_inbox), snapshots), arrivals), slice) in cores {
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
                arrivals,
                connections: connections.clone(),
                addresses: addresses.to_vec(),
                pace: pace.clone(),
                failed: failed.clone(),
                report: report.clone(),
                go,
                closing: closed.clone(),
                end: ended.clone(),
            };
            let heart = watchdog.hearts()[usize::from(parts.id.0)].clone();
            let executor = start_executor(parts.id, heart, move |runtime| core::run(parts, runtime));
            executors.push(executor.map_err(StartError::Executor)?);
            words.push(word);
        }
        drop(report);
        await_all(&reports, shards, Milestone::SliceOpen)?;
        // From here on the slices may hold what nothing else does.
        for slice in &slices {
            cluster.record_slice(&SliceRecord { closed_empty: false, ..slice.clone() })?;
        }
        let (actors, cluster_lanes) = cluster.actors();
        for (word, specs) in words.iter().zip(specs) {
            let (meta, control) = (cluster_lanes.meta.clone(), cluster_lanes.control.clone());
            let _gone = word.try_send(Go { snapshot: snapshot.clone(), specs, meta, control });
        }
        let fatal = Box::new(|why: &str| {
            tracing::error!(why, "the metadata cannot be written: the process ends before anything more is promised");
            std::process::abort()
        });
        let cluster = actors.start(lanes.clone(), edges, fatal)?;
        await_all(&reports, shards, Milestone::Serving)?;
        Ok(Running {
            lanes,
            groups,
            connections,
            executors,
            cluster,
            cluster_lanes,
            slices,
            closing,
            end,
            _watchdog: watchdog,
            _wal_lock: wal_lock,
        })
    }

    fn stop(self, timeout: Duration) -> Result<(), StartError> {
        self.connections.stop_accepting();
        drop(self.closing);
        wait_for(CLOSE_CONNECTIONS.min(timeout), || self.connections.open() == 0);
        let left = drain_shards(&self.lanes, timeout);
        let cluster = self.cluster.stop(self.cluster_lanes.stop);
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
        let stays: u64 = left.iter().flatten().sum();
        tracing::info!(wal_bytes_left = stays, "stopped");
        drop(self.end);
        // An executor that hangs must not keep the process: everything that matters is durable.
        if left.iter().all(Option::is_some) {
            self.executors.into_iter().try_for_each(|e| e.join().map_err(StartError::Executor))?;
        }
        Ok(())
    }
}

/// Waits for `done`, no longer than `limit`.
fn wait_for(limit: Duration, done: impl Fn() -> bool) {
    let until = mono_now().plus(limit);
    while !done() && mono_now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn await_all(reports: &Receiver<Result<Milestone, String>>, shards: u16, wanted: Milestone) -> Result<(), StartError> {
    for _ in 0..shards {
        match reports.recv() {
            Ok(Ok(reached)) => assert_eq!(reached, wanted, "cores report their milestones in order"),
            Ok(Err(why)) => return Err(StartError::Wal(why)),
            Err(_) => return Err(StartError::Executor("a shard ended while it started".into())),
        }
    }
    Ok(())
}

/// The slices of this run, one per shard in order; what the last run's hold is moved when they do not fit the settings.
fn prepare_slices(
    set: &SliceSet,
    cluster: &Cluster,
    specs: &[Vec<PartitionSpec>],
    shards: u16,
) -> Result<Vec<SliceRecord>, StartError> {
    let recorded = set.relocated(cluster.slices()?);
    set.check_present(&recorded)?;
    set.remove_unrecorded(&recorded)?;
    if set.matches(&recorded, shards) {
        let mut slices = recorded;
        slices.sort_by_key(|slice| slice.shard);
        return Ok(slices);
    }
    let new: Vec<SliceRecord> = (0..shards).map(|n| set.draw(ShardId(n))).collect();
    if !recorded.is_empty() {
        rehome(set, recorded.clone(), &new, specs)?;
    }
    for slice in &new {
        cluster.record_slice(&SliceRecord { closed_empty: recorded.is_empty(), ..slice.clone() })?;
    }
    for old in recorded {
        cluster.forget_slice(old.id)?;
    }
    set.remove_unrecorded(&new)?;
    Ok(new)
}

fn cluster_settings(config: &Config, addresses: &[(SocketAddr, Advertised)]) -> ClusterSettings {
    let (host, port) = addresses.first().map_or(("localhost".into(), 9092), |(_, told)| (told.host.clone(), told.port));
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
                delete: true,
                compact: false,
                timestamp_before_max_ms: config.log_message_timestamp_before_max_ms,
                timestamp_after_max_ms: config.log_message_timestamp_after_max_ms,
                log_append_time: config.log_message_timestamp_type == TimestampType::LogAppendTime,
                compression: None,
            },
        },
        producer_expiration_ms: config.producer_id_expiration_ms,
        wall: Box::new(wall_now),
        random: Box::new(random_bits),
    }
}
