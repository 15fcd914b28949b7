//! Compaction of objects: what many uploads hold of a partition comes together, once.
//!
//! Records are copied as they are, batch by batch; nothing is dropped, and no offset changes. A byte is copied once (by `plan`'s
//! rules), and again only when it must leave an object of which most is dead. Each piece of work makes one object from parts of
//! others and puts it in their place in one transaction of the metadata, which compares everything that it replaces: whatever has
//! changed meanwhile, the work is dropped and nothing is lost. Inputs of which nothing is live any more are garbage then, and are
//! deleted behind the metadata's snapshots as all garbage is.
//!
//! `plan` decides (pure), `job` reads, writes and commits (a task of the queue `Janitor`), `pipeline` is the shard's side of it.

mod config;
mod job;
mod output;
mod pipeline;
mod plan;

pub use config::{CompactionConfig, CompactionPorts};
pub(crate) use job::Left;
pub(crate) use pipeline::{Compactor, Inquiry};

#[cfg(test)]
mod tests;
