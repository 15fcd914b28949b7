//! Retention, expiry of producers, and orphans in the object store.
//!
//! `plan` decides (pure), `sweep` is the shard's side of it. Retention advances log starts through the metadata; objects
//! themselves are deleted by the metadata's keeper, behind its snapshots in the bucket. What is deleted here
//! are orphans, and only after their reservation is taken away, so that a slow uploader cannot commit them.

mod plan;
mod sweep;

pub(crate) use plan::Expired;
pub(crate) use sweep::Janitor;
