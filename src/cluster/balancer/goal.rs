//! What a goal is.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

/// Something of which each shard should have as much.
pub(super) struct Goal {
    /// Its name in log and metrics.
    pub(super) name: &'static str,
    /// How much a shard has before anybody cares, each second.
    pub(super) floor: f64,
    /// How much each of a shard's partitions has, each second, in the order of the load.
    pub(super) of: fn(&ShardLoad, Duration) -> Vec<f64>,
}
