//! The direct-I/O write-ahead log of one shard: ring format, group commit, recovery, fencing.
//!
//! Lives on the shard's core. [`Log`] is synchronous and never spawns: the shard seals a group, hands its buffer to a
//! [`Device`], and tells the log what came of it. Only `device::glommio` sees the runtime.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

pub mod device;
mod lsn;

pub use device::{Device, IoBuf};
pub use lsn::{GroupId, Incarnation, Lsn};
