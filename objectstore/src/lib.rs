//! The object-store port, its directory and memory engines, and the object format.
//!
//! Engines run off the shards (threads of their own, or the tokio runtime); their futures only wait for an answer, so
//! any executor may poll them, a shard's included. The S3 engine is a crate of its own, `thalweg-objectstore-s3`.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod backoff;
pub mod format;
mod key;
mod local;
mod memory;
mod open;
mod pace;
mod port;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use backoff::Backoff;
pub use key::{
    DATA_FOLDER, MANIFEST_FOLDER, data_key, data_key_prefix, manifest_key, parse_data_key, parse_manifest_key,
    split_object_url,
};
pub use local::LocalStore;
pub use memory::{Call, Fate, FaultHook, MemoryStore, Operation};
pub use open::{Access, OpenError, open};
pub use pace::Pace;
pub use port::{ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};
pub use thalweg_record::NodeId;
