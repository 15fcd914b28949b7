//! Where cluster metadata is kept: the port [`MetadataStore`] and its engines.
//!
//! Engines block, so they are called on the metadata threads and at start-up only, never on a shard. One contract suite
//! (`contract.rs`) runs against every engine.

#[cfg(test)]
pub(super) mod contract;
mod memory;
mod port;
mod sled;
mod sled_entry;
mod sync_mark;

pub use self::{
    memory::MemoryStore,
    port::{Compare, MetadataError, MetadataStore, Revision, Transacted, Versioned, Write},
    sled::{SledStore, open_sled, opening},
};
