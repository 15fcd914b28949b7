//! The heart of Thalweg: the actor runtime and the shard.
//!
//! A shard is one actor on one core. It owns its partitions as plain state machines, its slice of the WAL and its upload
//! pipeline; it knows record-batch heads, not Kafka's requests. See ARCHITECTURE.md for the way of a record.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

pub mod batch;
pub mod codec;
pub mod cold;
pub mod mailbox;
pub mod meta;
pub mod meters;
pub mod msg;
pub mod records;
pub mod runtime;
pub mod store;
