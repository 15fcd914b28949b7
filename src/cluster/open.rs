//! Opens the cluster metadata at the start of a broker: whose data is this, is the bucket prefix its own, and a new epoch.
//!
//! Runs on the start-up thread, which may block, before any shard. Nothing is written before all checks passed, and
//! nothing is created on disk when a fresh start is refused.
#![expect(clippy::disallowed_methods, reason = "runs on the start-up thread, which may block")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use futures_lite::future::{block_on, or};
use thalweg_objectstore::{ObjectStore, StoreError};
use thalweg_record::{LeaderEpoch, NodeId, Wall};
use thalweg_shards::msg::CleanerTuning;

use super::{
    broker_config, bucket,
    error::ClusterError,
    ids::{self, Random},
    keys,
    ledger::{Ledger, Writer},
    load, prefix,
    schema::{self, ClusterRecord, NodeRecord},
    snapshot::BrokerView,
    store::{Compare, MetadataError, MetadataStore, Transacted, Write},
    topic_config::BrokerDefaults,
};

/// How long a start waits for the object store when its prefix was found ours before, ...
const KNOWN_PREFIX_PATIENCE: Duration = Duration::from_millis(300);
/// ... and when it was not: then the broker cannot start without it, and whoever started it is waiting for the reason.
const NEW_PREFIX_PATIENCE: Duration = Duration::from_secs(10);

/// The wall clock.
pub type WallClock = Box<dyn Fn() -> Wall + Send>;

/// Why the metadata may not grow now, for clients; `None` when it may.
pub type NoGrowth = Box<dyn Fn() -> Option<String> + Send>;

/// Opens the metadata store in a directory, or creates it.
pub type OpenStore = dyn Fn(&Path) -> Result<Arc<dyn MetadataStore>, MetadataError> + Send + Sync;

/// What the cluster metadata needs to know of this broker.
pub struct ClusterSettings {
    /// `data.dir`; the metadata lies in `metadata` below it.
    pub data_dir: PathBuf,
    /// `object.store.url`, for messages, and to know whether it changed.
    pub object_store_url: String,
    /// This broker as clients see it.
    pub broker: BrokerView,
    /// Shards of this run, >= 1.
    pub shards: u16,
    /// Defaults of topics.
    pub defaults: BrokerDefaults,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: u64,
    /// `log.cleaner.*`, as far as they may be altered.
    pub cleaner: CleanerTuning,
    /// The wall clock.
    pub wall: WallClock,
    /// Randomness for new ids.
    pub random: Random,
    /// Why no topics and partitions may be created now; `None` when they may.
    pub no_growth: NoGrowth,
}

/// The cluster metadata of a broker that starts, or has stopped: partitions and WAL slices can be listed, and
/// [`Cluster::actors`] hands it to its actors.
pub struct Cluster {
    pub(super) ledger: Ledger,
    pub(super) settings: ClusterSettings,
    pub(super) cluster_id: Arc<str>,
    pub(super) cluster_uuid: [u8; 16],
}

impl Cluster {
    /// Whether a broker has begun its metadata below `data_dir`.
    pub fn present(data_dir: &Path) -> bool {
        metadata_dir(data_dir).exists()
    }

    /// Opens the metadata of this broker below `data.dir`, or creates it, and takes a new node epoch.
    ///
    /// # Errors
    /// Another process, broker, cluster or program owns what is there, or it is damaged; see [`ClusterError`]. Nothing
    /// was created then.
    pub fn open(
        settings: ClusterSettings,
        open_store: &OpenStore,
        objects: &dyn ObjectStore,
    ) -> Result<Cluster, ClusterError> {
        let dir = metadata_dir(&settings.data_dir);
        let present =
            dir.try_exists().map_err(|source| ClusterError::Io { what: dir.display().to_string(), source })?;
        if !present {
            refuse_used_prefix(&settings, objects)?;
        }
        let store = open_store(&dir)?;
        if !present {
            let parent = std::fs::File::open(&settings.data_dir).and_then(|d| d.sync_all());
            let what = settings.data_dir.display().to_string();
            parent.map_err(|source| ClusterError::Io { what, source })?;
        }
        Cluster::open_on(store, settings, objects)
    }

    /// As [`Cluster::open`], on a store that is open.
    ///
    /// # Errors
    /// As [`Cluster::open`].
    pub fn open_on(
        store: Arc<dyn MetadataStore>,
        mut settings: ClusterSettings,
        objects: &dyn ObjectStore,
    ) -> Result<Cluster, ClusterError> {
        assert!(settings.shards > 0, "a broker has at least one shard");
        let node = settings.broker.node;
        let record = match load::record::<ClusterRecord>(&*store, keys::CLUSTER)? {
            Some((record, _)) if record.node != node.0 => {
                let dir = settings.data_dir.display().to_string();
                return Err(ClusterError::OtherNode { dir, found: record.node, configured: node.0 });
            }
            Some((record, _)) => record,
            None => found_cluster(&*store, &mut settings, objects)?,
        };
        let mut catalog = load::load(&*store)?;
        catalog.altered = Arc::new(load::altered(&*store, node)?);
        let checked = own_prefix(&settings, &record, catalog.objects.len(), objects)?;
        if checked {
            refuse_out_of_date(&*store, &settings, objects)?;
        }
        let (epoch, node_value) = next_epoch(&*store, node)?;
        if checked && record.checked_url.as_ref() != Some(&settings.object_store_url) {
            let checked_url = Some(settings.object_store_url.clone());
            put(&*store, vec![], keys::CLUSTER, &ClusterRecord { checked_url, ..record.clone() })?;
        }
        store.sync()?;
        let cluster_uuid =
            ids::from_text(&record.cluster_id).ok_or_else(|| ClusterError::damaged("the cluster id is no UUID"))?;
        let altered = catalog.altered.number(broker_config::PRODUCER_ID_EXPIRATION_MS);
        let (shards, producer_expiration_ms) = (settings.shards, altered.unwrap_or(settings.producer_expiration_ms));
        let ledger = Ledger::new(store, catalog, Writer { node, epoch, shards, node_value, producer_expiration_ms });
        Ok(Cluster { ledger, settings, cluster_id: record.cluster_id.into(), cluster_uuid })
    }

    /// Kafka's cluster id: a UUID in 22 characters of URL-safe base64.
    pub fn cluster_id(&self) -> &Arc<str> {
        &self.cluster_id
    }

    /// The same UUID, as WAL slices carry it.
    pub fn cluster_uuid(&self) -> [u8; 16] {
        self.cluster_uuid
    }

    /// Writes a last metadata snapshot to the bucket when the newest there shows less; for a broker that stops. Blocks, no
    /// longer than `patience`; without it a rebuild would begin at an older one.
    ///
    /// # Errors
    /// A sentence with the reason.
    pub fn write_last_snapshot(self, objects: Arc<dyn ObjectStore>, patience: Duration) -> Result<(), String> {
        let last = async {
            let written = bucket::keep_last(objects, self.ledger, self.cluster_id, &self.settings.wall).await;
            Ok(written.map_err(|trouble| trouble.to_string()))
        };
        within(patience, last).unwrap_or_else(|late| Err(late.to_string()))
    }

    /// The epoch of this run, higher than that of every earlier one: leader epoch of all partitions, and part of the
    /// keys of objects.
    pub fn node_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.ledger.epoch())
    }
}

pub(super) fn metadata_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}

fn store_error(settings: &ClusterSettings, error: &StoreError) -> ClusterError {
    ClusterError::ObjectStore { url: settings.object_store_url.clone(), why: error.to_string() }
}

/// An empty data directory must not begin on a prefix that holds somebody's data.
fn refuse_used_prefix(settings: &ClusterSettings, objects: &dyn ObjectStore) -> Result<(), ClusterError> {
    let look = async {
        let found = prefix::owner(objects).await?;
        if found.is_none() {
            // Asked for an object alone, S3 does not tell a bucket that is not there from one without the object.
            // Listed is the one name, for a directory may have folders that are not ours to read.
            objects.list(prefix::key().as_str(), None, 1).await?;
        }
        Ok(found)
    };
    match within(NEW_PREFIX_PATIENCE, look).map_err(|e| store_error(settings, &e))? {
        None => Ok(()),
        Some(found) => {
            let (url, dir) = (settings.object_store_url.clone(), settings.data_dir.display().to_string());
            Err(ClusterError::PrefixInUse { url, found, dir })
        }
    }
}

/// The cluster id that owns the prefix, when the object store says so in time. Blocks.
pub fn owner_of_prefix(objects: &dyn ObjectStore) -> Option<String> {
    within(NEW_PREFIX_PATIENCE, prefix::owner(objects)).ok().flatten()
}

/// Begins a new cluster in an empty store. It is durable here before the prefix carries its id: the other way round a
/// crash in between would leave a prefix that nobody may use.
fn found_cluster(
    store: &dyn MetadataStore,
    settings: &mut ClusterSettings,
    objects: &dyn ObjectStore,
) -> Result<ClusterRecord, ClusterError> {
    if store.revision().0 != 0 {
        return Err(ClusterError::damaged("it has entries but no cluster id"));
    }
    refuse_used_prefix(settings, objects)?;
    let cluster_id = ids::to_text(ids::cluster_uuid(&mut settings.random));
    let record = ClusterRecord { cluster_id, node: settings.broker.node.0, checked_url: None };
    put(store, vec![Compare::Absent(keys::CLUSTER.to_vec())], keys::CLUSTER, &record)?;
    store.sync()?;
    Ok(record)
}

/// What the object store answers within `limit`, whatever its own patience is.
fn within<T>(limit: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let (tell, told) = flume::bounded::<()>(0);
    let (_answered, answer) = flume::bounded::<()>(0);
    let _timer = thread::spawn(move || {
        let _answered_or_late = answer.recv_timeout(limit);
        drop(tell);
    });
    let ended = async {
        let _ended = told.recv_async().await;
        Err(StoreError::Retry(format!("no answer within {} ms", limit.as_millis())))
    };
    block_on(or(call, ended))
}

/// Makes sure that the prefix carries this cluster's id. `false`: the object store does not answer, and the prefix was
/// found to be ours before; uploads will wait for it.
fn own_prefix(
    settings: &ClusterSettings,
    record: &ClusterRecord,
    committed: usize,
    objects: &dyn ObjectStore,
) -> Result<bool, ClusterError> {
    let own = record.cluster_id.clone();
    let (url, dir) = (settings.object_store_url.clone(), settings.data_dir.display().to_string());
    let known = record.checked_url.as_ref() == Some(&url);
    let check = async {
        match prefix::owner(objects).await? {
            Some(found) => Ok(Some(found)),
            None if committed > 0 => Ok(None),
            None => prefix::claim(objects, &own).await.map(Some),
        }
    };
    // A prefix that was found ours before is not worth a delay: the broker serves with the object store up or down.
    let patience = if known { KNOWN_PREFIX_PATIENCE } else { NEW_PREFIX_PATIENCE };
    match within(patience, check) {
        Ok(Some(found)) if found == own => Ok(true),
        Ok(Some(found)) => Err(ClusterError::OtherCluster { url, found, dir, own }),
        Ok(None) => Err(ClusterError::PrefixEmpty { url, dir, own, objects: committed }),
        Err(StoreError::Retry(why)) if known => {
            tracing::warn!(%url, %why, "the object store does not answer; starting without it");
            Ok(false)
        }
        Err(error) => Err(store_error(settings, &error)),
    }
}

/// A store that does not know the newest metadata snapshot in the bucket is an old copy, or was rebuilt while its broker went on: with it
/// offsets and ids would begin again. Should the object store not answer in time, the keeper of the snapshots finds out.
fn refuse_out_of_date(
    store: &dyn MetadataStore,
    settings: &ClusterSettings,
    objects: &dyn ObjectStore,
) -> Result<(), ClusterError> {
    let seen = store.get(keys::SNAPSHOT)?.map_or(Some(0), |v| schema::number(&v.value));
    let seen = seen.ok_or_else(|| ClusterError::damaged("the number of the newest snapshot is no number"))?;
    let own = load::record::<NodeRecord>(store, &keys::node(settings.broker.node))?.map_or(-1, |(node, _)| node.epoch);
    match within(KNOWN_PREFIX_PATIENCE, bucket::newest_written(objects)) {
        Ok(Some((found, epoch))) if found > seen || epoch > own => Err(ClusterError::OutOfDate {
            dir: settings.data_dir.display().to_string(),
            url: settings.object_store_url.clone(),
            found,
            epoch,
        }),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "the newest metadata snapshot cannot be looked at; starting without that");
            Ok(())
        }
    }
}

/// Takes the next epoch of this node; the first is 0, as a new partition's in Kafka.
fn next_epoch(store: &dyn MetadataStore, node: NodeId) -> Result<(i32, Vec<u8>), ClusterError> {
    let key = keys::node(node);
    let (epoch, compare) = match load::record::<NodeRecord>(store, &key)? {
        Some((record, found)) => (record.epoch + 1, Compare::Revision(key.clone(), found.revision)),
        None => (0, Compare::Absent(key.clone())),
    };
    let record = NodeRecord { epoch };
    put(store, vec![compare], &key, &record)?;
    Ok((epoch, schema::encode(&record)))
}

fn put<T: schema::Stored>(
    store: &dyn MetadataStore,
    compares: Vec<Compare>,
    key: &[u8],
    record: &T,
) -> Result<(), ClusterError> {
    match store.transact(&compares, &[Write::Put(key.to_vec(), schema::encode(record))])? {
        Transacted::Applied(_) => Ok(()),
        Transacted::Refused => Err(ClusterError::damaged("another process changed it during the start")),
    }
}
