//! Bytes appended, and bytes read from memory.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

use super::goal::Goal;

/// A shard writes a hundred times as much.
const FLOOR_BYTES: f64 = (1 << 20) as f64;

pub(super) const BYTES: Goal = Goal { name: "bytes", floor: FLOOR_BYTES, of };

fn of(load: &ShardLoad, window: Duration) -> Vec<f64> {
    load.partitions.iter().map(|(_, bytes, _)| *bytes as f64 / window.as_secs_f64()).collect()
}
