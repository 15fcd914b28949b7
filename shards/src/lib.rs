//! The heart of Thalweg: the actor runtime and the shard.
//!
//! A shard is one actor on one core. It owns its partitions as plain state machines, its slice of the WAL and its upload
//! pipeline; it knows record-batch heads, not Kafka's requests. See ARCHITECTURE.md for the way of a record.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod append;
pub mod batch;
pub mod cleaning;
pub mod codec;
pub mod cold;
pub mod compaction;
mod event;
mod folding;
mod janitor;
pub mod mailbox;
pub mod meta;
pub mod meters;
pub mod moves;
pub mod msg;
mod offsets;
pub mod pace;
mod partition;
mod partitions;
mod pressure;
mod producer_form;
mod read;
pub mod records;
mod rewrite;
mod ring_read;
pub mod runtime;
pub mod shard;
pub mod store;
mod tail_cache;
pub mod upload;
mod watches;
mod woken;
pub mod work_room;
