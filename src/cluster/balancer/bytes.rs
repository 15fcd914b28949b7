//! Bytes appended, and bytes read from memory.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

use super::goal::{Goal, Parts};

/// A twentieth of what a shard writes.
const FLOOR_BYTES: f64 = (5 << 20) as f64;

pub(super) const BYTES: Goal = Goal { name: "bytes", floor: FLOOR_BYTES, of };

fn of(load: &ShardLoad, window: Duration) -> Parts {
    let rate = |bytes: u64| bytes as f64 / window.as_secs_f64();
    let partitions = load.partitions.iter().map(|(_, bytes, _)| rate(*bytes)).collect();
    Parts { partitions, staying: rate(load.staying.0) }
}
