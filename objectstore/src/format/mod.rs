//! The object format, version 1: record batches of many partitions, found by offset and time with one small read.
//!
//! ```text
//! blocks        record batches exactly as a fetch returns them, back to back from position 0
//! index         one 80-byte entry per block, sorted by (topic id, partition, base offset)
//! properties    who wrote the object, and what a rebuild from the bucket needs of each partition
//! footer        64 bytes: where index and properties are, their CRC-32C, object id, version, magic
//! ```
//!
//! Our own numbers are little-endian; the batches are Kafka's. A block holds whole batches of one partition and one
//! leader epoch, up to the configured size; a larger batch has a block of its own. Pure code: bytes in, bytes out;
//! every length read is checked against what is there before anything is allocated for it.

mod encode;
mod error;
mod footer;
mod index;
mod inspect;
mod manifest;
mod properties;
#[cfg(test)]
mod tests;
mod wire;

pub use encode::{EncodedObject, ObjectEncoder, PartitionRange};
pub use error::FormatError;
pub use footer::{FOOTER_BYTES, Footer, VERSION};
pub use index::{BlockEntry, BlockIndex, ENTRY_BYTES, MAX_INDEX_BYTES};
pub use inspect::{InspectError, Inspection, inspect};
pub use manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestEntry};
pub use properties::{
    AbortedTransaction, PartitionProperties, ProducerBatch, ProducerState, Properties, WINDOW_BATCHES,
};
