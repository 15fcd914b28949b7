//! The words that the WAL, the objects and the shards share: identities, times, and the head of a record batch.
//!
//! Plain values without I/O, usable on every core. Nothing here knows Kafka's requests or our formats on
//! storage; what is laid down here is only Kafka's own record-batch head (magic 2).

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("failpoints are for tests: a release build has none");

mod batch;
pub mod failpoint;
mod ids;
mod time;

pub use batch::{Batch, BatchError, BatchHead, HEAD_LEN, LENGTH_PREFIX, NO_PRODUCER, TimestampType};
pub use ids::{LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId};
pub use time::{Mono, Wall};
