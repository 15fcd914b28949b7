//! Appends and reads, however small.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

use super::goal::{Goal, Parts};

/// A twentieth of what a shard serves.
const FLOOR_REQUESTS: f64 = 5000.0;

pub(super) const REQUESTS: Goal = Goal { name: "requests", floor: FLOOR_REQUESTS, of };

fn of(load: &ShardLoad, window: Duration) -> Parts {
    let rate = |requests: u64| requests as f64 / window.as_secs_f64();
    let partitions = load.partitions.iter().map(|(_, _, requests)| rate(*requests)).collect();
    Parts { partitions, staying: rate(load.staying.1) }
}
