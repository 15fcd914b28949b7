//! Starting and stopping a broker: puts the shards, the edge, the metadata and the stores together.
//!
//! Lives on the main thread, which waits; each shard's core is set up on its own executor (`core`). [`serve()`] is the binary:
//! machine and ports are checked before anything is created, then [`Broker::start`] puts metadata, WAL slices, shards, edges and
//! listeners together, on whatever [`Host`], [`Network`] and [`Ports`] it is given. The stop goes the other way, each stage
//! with a deadline.

mod ballast;
mod core;
mod disk;
mod drain;
mod held;
mod host;
mod look;
mod metadata;
mod openers;
mod ports;
mod rehome;
mod repair;
mod serve;
mod slices;
mod start;
mod start_error;
mod stop;
mod stores;
mod tcp;
mod threads;

pub use ballast::{BALLAST_METRICS, BallastMeters};
pub use drain::{Drained, drain};
pub use host::{CoreBody, Cores, Host, Metadata, Network};
pub use look::{inspect_slice, slice_paths};
pub use ports::{MetadataParts, OpenMetadata, OpenSlice, Ports, SliceFiles};
pub use repair::{rebuild_metadata, verify_metadata};
pub use serve::{Ready, StopSignal, serve};
pub use start::{Broker, BrokerParts};
pub use start_error::StartError;
