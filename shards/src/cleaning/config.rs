//! When logs are cleaned, and with how much memory.

use std::{sync::Arc, time::Duration};

use flume::Sender;

use super::Errand;
use crate::{msg::CleanerTuning, store::StoreLane, work_room::WorkRoom};

/// The settings `log.cleaner.*` that are not topics'.
#[derive(Clone, PartialEq, Debug)]
pub struct CleaningConfig {
    /// `log.cleaner.backoff.ms`: how often a shard looks for work.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: memory for keys, of all shards together.
    pub dedupe_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor`: how full a map of keys may get.
    pub load_factor: f64,
    /// `object.compaction.bytes`: an object that cleaning makes is made from no more, unless a single part is larger.
    pub output_bytes: u64,
    /// `object.block.bytes`.
    pub block_bytes: u32,
    /// `object.compaction.bytes.per.second`: what a shard copies while little is dirty; 0: as fast as it goes.
    pub bytes_per_second: u64,
    /// With each so many bytes that are dirty it goes twice as fast.
    pub usual_backlog: u64,
}

impl CleaningConfig {
    /// Takes over what was altered.
    pub fn tune(&mut self, tuning: CleanerTuning) {
        let CleanerTuning { backoff, dedupe_bytes, load_factor } = tuning;
        (self.backoff, self.dedupe_bytes, self.load_factor) = (backoff, dedupe_bytes, load_factor.share());
    }
}

/// What a shard cleans with.
#[derive(Clone)]
pub struct CleaningPorts {
    /// When, and how.
    pub config: CleaningConfig,
    /// Its own way to the object store, on the queue `Janitor`.
    pub store: StoreLane,
    /// Memory for objects, shared with compaction and all shards.
    pub room: Arc<WorkRoom>,
    /// Memory for keys, shared by all shards.
    pub maps: Arc<WorkRoom>,
    /// Where long work is done.
    pub errands: Sender<Errand>,
}
