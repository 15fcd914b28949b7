//! The object-store port, its directory and memory engines, and the object format.
//!
//! Engines run off the shards (threads of their own, or the tokio runtime) and are reached through mailboxes.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod port;

pub use port::{ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};
