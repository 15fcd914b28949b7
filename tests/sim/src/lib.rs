//! The seeded simulation: the production broker on virtual time, crashed again and again.
//!
//! One seed is one history. [`whole`] runs what the binary starts, on a simulated host, network, disk, bucket and metadata
//! store, and speaks Kafka's protocol to it; [`shard`] runs one shard alone, which is faster. A reference model (`model`) judges
//! every answer. What is under test is production code; what surrounds it lives here.
//!
//! Invariants: what was acknowledged is there, at its offset, with its bytes; a producer's batches are in order and there
//! once; offsets are dense and never get other content once somebody saw them; high watermark and log start never fall; what
//! is read is what was appended; offsets of groups never go back; a deleted topic stays deleted; when the faults end,
//! everything moves on.

#[cfg(feature = "planted-bugs")]
mod aborted;
mod batches;
mod bucket;
mod fuse;
mod keyed;
mod model;
mod plant;
mod report;
mod rot;
pub mod shard;
mod violation;
pub mod whole;

pub use plant::Plant;
pub use report::Report;
pub use violation::Violation;
