//! What a goal is.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

/// Something of which each shard should have as much.
pub(super) struct Goal {
    /// Its name in log and metrics.
    pub(super) name: &'static str,
    /// How much a shard has before anybody cares, each second.
    pub(super) floor: f64,
    /// How much a shard has, each second.
    pub(super) of: fn(&ShardLoad, Duration) -> Parts,
}

/// What a shard has of a goal, each second.
pub(super) struct Parts {
    /// Each of the partitions that may move, in the order of the load.
    pub(super) partitions: Vec<f64>,
    /// All that stays.
    pub(super) staying: f64,
}
