//! Reading what only the object store still has.
//!
//! One actor per core, on the queue `Cold`, so that a flood of late readers costs the write path nothing. The shard hands
//! it the committed objects that hold what a reader wants; it answers with slices of blocks whose CRC was checked.
//!
//! - A block that many wait for is fetched once; blocks that lie side by side are fetched with one request.
//! - Index and data blocks share one cache, bounded in bytes. What is in flight has a budget of its own, taken before the
//!   buffer exists.
//! - Connections take turns by bytes (deficit round robin); what a reader asked for comes before anybody's readahead.
//! - Readahead begins with the second read in sequence, doubles with each further one, and is dropped on a seek.
//!
//! - Manifests, which list a partition's older objects, are read when somebody wants what they list, and have an eighth of the cache.
//!
//! The planning is pure (`plan`, `cache`, `rounds`, `manifests`): events and `now` in, actions out. `actor` does the I/O.

mod actor;
mod ahead;
mod cache;
pub(crate) mod fetch;
mod manifests;
mod plan;
mod read_job;
mod readers;
mod request;
mod rounds;
#[cfg(test)]
mod tests;
mod time_job;

pub use actor::{ColdConfig, start};
pub use manifests::Entries;
pub use request::{ColdError, ColdFindTime, ColdManifest, ColdRead, ColdRequest};
