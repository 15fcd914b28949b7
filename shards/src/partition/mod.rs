//! A partition as a plain state machine: offsets, producers, epochs, and where each batch lies.
//!
//! Owned by one shard, touched only inside its turn; no I/O, no clock, no randomness. Invariants:
//! log start <= committed end <= high watermark <= next offset; the ring index is dense and contiguous up to the high
//! watermark; committed objects are contiguous and end at the committed end.

mod epochs;
mod objects;
mod producers;
mod ring_index;
mod state;

pub use epochs::EpochHistory;
pub use objects::{Extent, ObjectList, to_read};
pub use producers::{ProducerTable, Verdict};
pub use ring_index::{RingEntry, RingIndex};
pub use state::{Partition, Role, Tier};
