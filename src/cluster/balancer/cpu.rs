//! Time of the shard's core, shared out among its partitions by what they do.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

use super::goal::Goal;

/// A quarter of a core.
const FLOOR_CORES: f64 = 0.25;
/// An append or a read costs about as much as copying and checking so many bytes.
const BYTES_PER_REQUEST: f64 = 16_384.0;

pub(super) const CPU: Goal = Goal { name: "cpu", floor: FLOOR_CORES, of };

fn of(load: &ShardLoad, window: Duration) -> Vec<f64> {
    let work = |bytes: u64, requests: u64| requests as f64 + bytes as f64 / BYTES_PER_REQUEST;
    let all: f64 = load.partitions.iter().map(|(_, bytes, requests)| work(*bytes, *requests)).sum();
    let cores = Duration::from_nanos(load.busy_ns).as_secs_f64() / window.as_secs_f64();
    load.partitions.iter().map(|(_, bytes, requests)| cores * work(*bytes, *requests) / all.max(1.0)).collect()
}
