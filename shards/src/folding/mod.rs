//! Folding: a partition's oldest entries (objects and what they hold of it) are listed in a manifest in the bucket, and the metadata and
//! the shard hold one reference in their place.
//!
//! A manifest is put first; then one transaction of the metadata, which compares every entry, has it take their place. What has changed
//! meanwhile, the fold is dropped and nothing is lost; what was put and not committed is an orphan of its reservation. Only what
//! compaction has no more to do with is folded, for entries in manifests are no inputs of it. Log cleaning goes through all entries of a
//! partition, so those of a topic with `compact` are never folded, and unfolded again when a topic becomes such.
//!
//! `plan` decides (pure), `job` writes and commits (a task of the queue `Janitor`), `pipeline` is the shard's side of it. Manifests are read
//! by the cold reader (`cold/manifests.rs`), where a reader needs what they list.

mod job;
mod pipeline;
mod plan;

pub(crate) use pipeline::Folder;
