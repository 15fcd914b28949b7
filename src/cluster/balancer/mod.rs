//! Evens what the shards of a broker have to do, by moving partitions between them.
//!
//! [`state`] decides, purely, from what partitions cost in a window of time: one goal after the other, each a file of its own. [`actor`] asks
//! the shards, has control move what was decided, and says so in the log and in metrics. A move costs an upload, so little that is
//! uneven for long is what counts: nothing moves below a floor, nor before it was uneven for two windows, nor again before a rest; and a shard
//! that gave something away pauses.

mod actor;
mod bytes;
mod cpu;
mod goal;
mod requests;
mod state;

pub use actor::{BALANCER_METRICS, BalancerMeters, BalancerPorts, balance};
pub use state::{Balancer, BalancerSettings, Decision};
