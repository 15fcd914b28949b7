//! The log of one slice: reserve, push, seal, written.
//!
//! Lives on the shard's core, synchronous: it takes events and returns what to write, never spawns and has no timer.
//! The shard carries each write to the device in a task of its own and reports what came of it.
//!
//! Invariants: the head never passes the trim point of both durable superblocks by more than the ring; only the
//! contiguous durable prefix is acknowledged; after an I/O error nothing is ever acknowledged again; a group's bytes
//! are never written twice.

mod groups;
mod links;
mod open_group;
mod space;
mod superblocks;
mod zero;

pub(crate) use self::{
    groups::Resume,
    links::Link,
    superblocks::{Superblocks, superblock_block},
};
pub use self::{
    groups::{GroupWrite, Log, Poisoned},
    space::{Full, Room},
    superblocks::SuperblockWrite,
    zero::ZeroWrite,
};
