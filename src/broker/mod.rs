//! Starting and stopping a broker: puts the shards, the edge, the metadata and the stores together.
//!
//! Lives on the main thread, which waits; each shard's core is set up on its own executor (`core`). The order of the start:
//! machine and ports are checked before anything is created, then object store, metadata, WAL slices, shards, edges,
//! listeners. The stop goes the other way (`stop`), each stage with a deadline.

mod core;
mod openers;
mod ports;
mod rehome;
mod serve;
mod slices;
mod start_error;
mod stop;
mod stores;

pub use ports::{OpenSlice, Ports};
pub use serve::{Ready, StopSignal, serve};
pub use start_error::StartError;
