//! Time of the shard's core, shared out among its partitions by what they do.

use std::time::Duration;

use thalweg_shards::moves::ShardLoad;

use super::goal::{Goal, Parts};

/// A quarter of a core.
const FLOOR_CORES: f64 = 0.25;
/// An append or a read costs about as much as copying and checking so many bytes.
const BYTES_PER_REQUEST: f64 = 16_384.0;

pub(super) const CPU: Goal = Goal { name: "cpu", floor: FLOOR_CORES, of };

fn of(load: &ShardLoad, window: Duration) -> Parts {
    let work = |bytes: u64, requests: u64| requests as f64 + bytes as f64 / BYTES_PER_REQUEST;
    let partitions: Vec<f64> = load.partitions.iter().map(|(_, bytes, requests)| work(*bytes, *requests)).collect();
    let staying = work(load.staying.0, load.staying.1);
    let all = (partitions.iter().sum::<f64>() + staying).max(1.0);
    let cores = Duration::from_nanos(load.busy_ns).as_secs_f64() / window.as_secs_f64();
    Parts { partitions: partitions.iter().map(|part| cores * part / all).collect(), staying: cores * staying / all }
}
