//! When objects are compacted, and how large they become.

use std::{sync::Arc, time::Duration};

use crate::{meta::CommittedObject, store::StoreLane, work_room::WorkRoom};

/// The settings `object.compaction.*`.
#[derive(Clone, Debug)]
pub struct CompactionConfig {
    /// `object.compaction.interval.ms`: how often a shard looks for work.
    pub interval: Duration,
    /// `object.compaction.objects`: uploads that start merging what is small, at most [`CompactionConfig::MAX_INPUTS`].
    pub objects: usize,
    /// `object.compaction.bytes`: a partition with so much gets an object of its own at once; others share one of about this size.
    pub output_bytes: u64,
    /// `object.compaction.split.bytes`: a partition with so much in what is merged gets an object of its own.
    pub split_bytes: u64,
    /// `object.block.bytes`.
    pub block_bytes: u32,
    /// `object.compaction.bytes.per.second`: what a shard copies while little waits; 0: as fast as it goes.
    pub bytes_per_second: u64,
    /// `object.upload.bytes`.
    pub upload_bytes: u64,
}

impl CompactionConfig {
    /// No work reads from more objects: its commit names each of them, and a transaction has room for 128 of such (etcd).
    pub const MAX_INPUTS: usize = 60;

    /// What waits when small objects begin to be merged, if a shard uploads by size.
    pub fn usual_backlog(&self) -> u64 {
        (self.objects as u64).saturating_mul(self.upload_bytes)
    }

    /// Room for the work of `shards` shards: for one output of each, which may be larger than [`CompactionConfig::output_bytes`] by what
    /// its last part has.
    pub fn room_bytes(&self, shards: u16) -> u64 {
        let last_part = self.split_bytes.max(self.upload_bytes).min(self.output_bytes);
        u64::from(shards).saturating_mul(self.output_bytes.saturating_add(last_part))
    }

    /// Whether a part is as large alone already as compaction would make it.
    pub(crate) fn is_large(&self, part: &CommittedObject) -> bool {
        part.size_bytes >= self.output_bytes && part.size_bytes >= part.object_bytes / 2
    }
}

/// What a shard compacts with.
#[derive(Clone)]
pub struct CompactionPorts {
    /// When, and how.
    pub config: CompactionConfig,
    /// Its own way to the object store, on the queue `Janitor`.
    pub store: StoreLane,
    /// Shared by all shards.
    pub room: Arc<WorkRoom>,
}
