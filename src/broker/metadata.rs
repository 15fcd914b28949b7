//! The metadata beside the broker: opened at the start, made anew from the bucket when it is damaged or lost, and its
//! snapshots in the bucket.
//!
//! Called on the main thread.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use thalweg_objectstore::{Access, ObjectStore};
use thalweg_record::{NodeId, PartitionId};
use thalweg_shards::runtime::random_bits;

use super::{MetadataParts, SliceFiles, StartError, look, slices, stores};
use crate::{
    cluster::{
        BucketPorts, Cluster, ClusterError, LogNotes, OpenStore, RebuildSettings, SliceRecord, cluster_id_text, restore,
    },
    config::Config,
};

/// What the metadata's snapshots are written with; `clock` is the tokio world's.
pub(super) fn bucket_ports(
    config: &Config,
    objects: &Arc<dyn ObjectStore>,
    clock: &tokio::runtime::Handle,
) -> BucketPorts {
    let clock = clock.clone();
    let sleep = move |time: Duration| {
        // Made inside the task: tokio's timers are found from its own threads only.
        let slept = clock.spawn(async move { tokio::time::sleep(time).await });
        let slept = async move {
            let _ended = slept.await;
        };
        Box::pin(slept) as _
    };
    BucketPorts {
        objects: objects.clone(),
        interval: Duration::from_millis(config.metadata_snapshot_interval_ms),
        sleep: Box::new(sleep),
    }
}

/// Opens the metadata. When it is damaged, or missing beside slices of this broker's log, it is made anew from the bucket, as
/// far as the settings allow that.
pub(super) fn open(open_store: &OpenStore, parts: MetadataParts<'_>) -> Result<Cluster, StartError> {
    let MetadataParts { config, settings, files, objects, accept_loss } = parts;
    let refused = match Cluster::open(settings(), open_store, objects) {
        Ok(cluster) => return Ok(cluster),
        Err(refused) => refused,
    };
    let here = slices::found(files, &config.wal_path, NodeId(config.node_id));
    let lost = |found: &str| here.iter().any(|(cluster, _)| cluster_id_text(*cluster) == found);
    let mends = match &refused {
        // Nobody began here unless a slice of the cluster that owns the bucket says so.
        ClusterError::PrefixInUse { found, .. } => lost(found),
        error => error.is_damage(),
    };
    if !mends || !config.auto_metadata_rebuild_enable {
        return Err(refused.into());
    }
    // Who runs on this log is not to find its metadata moved aside.
    let _alone = if here.is_empty() { None } else { Some(slices::lock(files, &config.wal_path)?) };
    tracing::error!(why = %refused, "THE METADATA IS DAMAGED OR LOST; it is made anew from the object store");
    let slices: Vec<SliceRecord> = here.into_iter().map(|(_, slice)| slice).collect();
    let settings_of = RebuildSettings {
        slices_hold: partitions_in(&slices),
        accept_loss,
        keep_missing_slices: true,
        ..rebuild_settings(config, slices, false)
    };
    let (rebuilt, aside) = restore(&config.data_dir, open_store, objects, &settings_of, &LogNotes)
        .map_err(|why| StartError::Rebuild { refused: Box::new(refused), why: Box::new(why) })?;
    tracing::warn!(
        snapshot = rebuilt.snapshot,
        topics = rebuilt.topics,
        partitions = rebuilt.partitions,
        objects = rebuilt.objects,
        after_the_snapshot = rebuilt.tail_objects,
        aside = aside.map(|path| path.display().to_string()),
        "the metadata was rebuilt from the object store"
    );
    Ok(Cluster::open(settings(), open_store, objects)?)
}

/// The partitions of which slices hold records; a slice that cannot be read is judged when it is opened.
pub(super) fn partitions_in(slices: &[SliceRecord]) -> BTreeSet<PartitionId> {
    let logs = slices.iter().filter_map(|slice| look::inspect_slice(&slice.path).ok()?.log.ok());
    logs.flat_map(|log| log.partitions.into_keys()).collect()
}

/// Whose slices a broker without metadata may find in its log's directory: this broker's of the cluster that owns the bucket,
/// when a rebuild may take them over.
pub(super) fn owner(
    config: &Config,
    files: &dyn SliceFiles,
    runtime: &tokio::runtime::Handle,
) -> Option<([u8; 16], NodeId)> {
    let node = NodeId(config.node_id);
    let here = slices::found(files, &config.wal_path, node);
    let (cluster, _) = here.first().filter(|_| config.auto_metadata_rebuild_enable)?;
    // Looked at only: a start that is refused creates nothing.
    let objects = stores::open_for(config, runtime, Access::ReadOnly).ok()?;
    let owner = crate::cluster::owner_of_prefix(&*objects)?;
    (owner == cluster_id_text(*cluster)).then_some((*cluster, node))
}

/// What a rebuild needs to know, of the settings.
pub(super) fn rebuild_settings(config: &Config, slices: Vec<SliceRecord>, without_snapshot: bool) -> RebuildSettings {
    RebuildSettings {
        node: NodeId(config.node_id),
        object_store_url: config.object_store_url.to_string(),
        without_snapshot,
        slices,
        slices_hold: BTreeSet::new(),
        accept_loss: false,
        random: random_bits(),
        keep_missing_slices: false,
        offsets_partitions: config.offsets_topic_num_partitions,
    }
}
