//! Metrics: cached handles, and the table that describes them.
//!
//! A macro call of the `metrics` crate costs ten times a cached handle, so every actor makes its handles once, at its
//! start, after the recorder is installed (without one they count nothing). [`meters!`](crate::meters!) makes a struct of
//! handles and the table of what they are in one go: buckets, /metrics' help texts and docs/metrics.md come from that table.

mod busy;
mod metric;
mod shard;

pub use busy::BusyRatio;
pub use metric::{ByKind, ByOperation, ByReason, ByTier, Handle, Kind, Labels, Metric, buckets};
pub use shard::{SHARD_METRICS, STORE_METRICS, ShardMeters, StoreMeters};
