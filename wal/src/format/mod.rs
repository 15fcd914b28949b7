//! The bytes of a WAL slice, version 1. All numbers are little-endian.
//!
//! ```text
//! block 0       superblock, slot 0
//! block 1       superblock, slot 1
//! block 2 ..    the ring: groups, each on a fresh 4,096-byte block
//! ```
//!
//! A group is `header | batches | entry table | zeros to the block's end`. The table follows the batches, so that a
//! batch is copied to its final place before the number of batches is known. A group that ends less than the largest
//! group before the end of the ring claims the rest of the ring without writing it, so none ever straddles the end and
//! no write of its own is needed for padding.

mod fields;
mod group;
mod superblock;

pub use group::{ENTRY_LEN, Entry, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeaderFault};
pub(crate) use group::{group_crc_finish, group_crc_start};
pub use superblock::{SliceIdentity, Superblock, SuperblockFault};

/// Bytes in a block, whatever the device says. A write of one block is not taken to be atomic.
pub const BLOCK: u64 = 4096;

/// Number of superblocks, each in a block of its own at the start of the slice.
pub const SUPERBLOCKS: u64 = 2;

/// The version of the format that this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// `bytes` rounded up to whole blocks.
pub fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}
