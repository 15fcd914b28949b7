//! Log cleaning: of each key the newest record stays (Kafka's log compaction, for topics whose `cleanup.policy` has `compact`).
//!
//! A round of one partition reads what is dirty (no round has seen it) into a map of keys, as far as the map's memory goes, then
//! writes all parts up to there anew without what a later record replaces, from the lowest up, each in the place of what it was made
//! from, in one transaction of the metadata. At last the dirty point moves. Killed at any step it leaves a correct log, of which some
//! is to be cleaned again.
//!
//! What must hold: offsets do not change; of each key the newest record is there, a tombstone until its delete horizon (KIP-534);
//! ranges of parts stay contiguous, though their records do not; the last batch of each live producer stays, be it empty, and so
//! does the last of each part. Only what objects hold is cleaned: the ring is what Kafka calls the active segment.
//!
//! `plan` decides what is due, `keys` is the map, `filter` decides record by record, `run` what stays of what was read
//! together (all pure); `errand` takes their work to a thread
//! that may be slow; `job` reads, writes and commits (a task of the queue `Janitor`); `pipeline` is the shard's side of it.

mod config;
mod errand;
mod filter;
mod job;
mod keys;
mod pipeline;
mod plan;
mod run;

pub use config::{CleaningConfig, CleaningPorts};
pub use errand::Errand;
pub(crate) use pipeline::{Cleaner, Ended, Inquiry};
