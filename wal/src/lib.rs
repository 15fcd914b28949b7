//! The direct-I/O write-ahead log of one shard: ring format, group commit, recovery, fencing.
//!
//! Lives on the shard's core. [`Log`] is synchronous and never spawns: the shard seals a group, hands its buffer to a
//! [`Device`], and tells the log what came of it. Only `device::glommio` sees the runtime.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod config;
pub mod device;
mod error;
pub mod format;
mod inspect;
mod log;
mod lsn;
#[cfg(any(test, feature = "planted-bugs"))]
mod planted;
mod readahead;
mod recover;
mod ring;
mod scan;
#[cfg(test)]
mod tests;

pub use config::LogConfig;
pub use device::{Device, IoBuf};
pub use error::{Damage, GroupFault, OpenError};
pub use format::SliceIdentity;
pub use inspect::{InspectReport, LogExtent, PartitionExtent, inspect};
pub use log::{Full, GroupWrite, Log, Poisoned, Room, SuperblockWrite, ZeroWrite};
pub use lsn::{GroupId, Incarnation, Lsn};
#[cfg(any(test, feature = "planted-bugs"))]
pub use planted::{Bug, PlantedBugs, plant, planted};
pub use recover::{Recovered, RecoveryReport, create, open};
pub use ring::{Ring, read};
pub use scan::RecoveredBatch;
