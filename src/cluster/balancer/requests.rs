//! Appends and reads, however small.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

use super::goal::Goal;

/// A shard serves a hundred times as many.
const FLOOR_REQUESTS: f64 = 1000.0;

pub(super) const REQUESTS: Goal = Goal { name: "requests", floor: FLOOR_REQUESTS, of };

fn of(load: &ShardLoad, window: Duration) -> Vec<f64> {
    load.partitions.iter().map(|(_, _, requests)| *requests as f64 / window.as_secs_f64()).collect()
}
