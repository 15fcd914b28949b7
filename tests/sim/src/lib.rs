//! The seeded simulation: the production shard with its WAL, uploader and cold reader on virtual time, crashed again and again.
//!
//! One seed is one history. A run has a broker of one shard on a simulated disk, a bucket, a metadata store, idempotent
//! producers and readers. `run` crashes the broker at random device operations and store calls, restarts it, and lets a
//! reference model (`model`) judge every answer. What is under test is production code; what surrounds it lives here.
//!
//! Invariants: what was acknowledged is there, at its offset, with its bytes; a producer's batches are in order and there
//! once; offsets are dense and never get other content once somebody saw them; the high watermark never falls; what is
//! read is what was appended; when the faults end, everything moves on.

mod batches;
mod broker;
mod bucket;
mod fuse;
mod metadata;
mod model;
mod plant;
mod producer;
mod reader;
mod run;
mod scene;

pub use plant::Plant;
pub use run::{Report, Violation, run};
