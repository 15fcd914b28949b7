//! Consumer groups of the classic protocol, and committed offsets.
//!
//! A group lives where its partition of `__consumer_offsets` does, in the coordinator actor of that core: `state` is the
//! group as a pure state machine, `partition` all groups of one partition, `actor` the mailbox, the log and the clock.
//! `records` and `batch` are the log's bytes, in Apache Kafka's own schemas.

mod actor;
mod batch;
mod census;
mod config;
mod error;
mod join;
mod liveness;
mod load;
mod loader;
mod member;
mod offsets;
mod partition;
mod placement;
mod positions;
mod rebalance;
mod records;
mod request;
mod state;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;
mod wire;

pub use actor::{GroupActor, GroupPorts};
pub use census::Census;
pub use config::GroupConfig;
pub use error::GroupError;
pub use offsets::CommittedOffset;
pub use placement::{OFFSETS_TOPIC, offsets_topic_configs, partition_for};
pub use positions::{Position, Positions};
pub use request::*;
pub use state::GroupState;
