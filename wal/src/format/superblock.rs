//! The superblock: whose slice this is, where the log starts, and which opening writes it.
//!
//! Two slots are written in turn; the greater generation that passes its CRC counts. Space in the ring is reused only
//! below the trim point of both.

use thalweg_record::{NodeId, ShardId};

use super::{
    BLOCK, FORMAT_VERSION,
    fields::{Reader, Writer},
};
use crate::{Incarnation, Lsn};

const MAGIC: [u8; 8] = *b"thalwegS";
const CLEAN: u32 = 1;
const LEN: usize = 148;

/// Whose slice this is. A slice opens only for the owner it was made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceIdentity {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// Kafka's `node.id` of the broker.
    pub node: NodeId,
    /// The shard of that broker.
    pub shard: ShardId,
    /// Drawn when the slice was created; the metadata store names it.
    pub slice: [u8; 16],
}

/// One superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Grows by one with each superblock written; odd and even generations lie in different slots.
    pub generation: u64,
    /// Whose slice this is.
    pub identity: SliceIdentity,
    /// Length of the ring in bytes.
    pub capacity: u64,
    /// The opening that wrote it.
    pub incarnation: Incarnation,
    /// First LSN that belongs to `incarnation`: from here on every group bears it, before it none does.
    pub start: Lsn,
    /// The log begins here, at the start of a group (or at its head, when it is empty).
    pub trim: Lsn,
    /// CRC of the group that ends at `trim`: the first link of the chain.
    pub trim_crc: u32,
    /// All below was durable when this was written.
    pub durable: Lsn,
    /// The ring is known to be written, not only allocated, up to this LSN; counts in the first lap only.
    pub zeroed: Lsn,
    /// The largest group that `incarnation` writes, in bytes.
    pub max_group_bytes: u32,
    /// The most bytes of groups that `incarnation` has in flight.
    pub max_in_flight_bytes: u32,
    /// The slice was closed in order: the log ends exactly at `durable`.
    pub clean: bool,
}

/// Why a block is not a superblock that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperblockFault {
    /// All zero: never written.
    Blank,
    /// Not a superblock, or one that fails its CRC.
    Damaged,
    /// Sound, but of a format version that this code does not know.
    Version(u32),
}

impl Superblock {
    /// Where the slot of this generation lies on the device, in bytes.
    pub fn device_offset(&self) -> u64 {
        self.generation % 2 * BLOCK
    }

    /// The bytes of the superblock, without the zeros that fill its block.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(LEN);
        w.put(&MAGIC).u32(FORMAT_VERSION).u32(if self.clean { CLEAN } else { 0 }).u64(self.generation);
        w.put(&self.identity.cluster).put(&self.identity.slice);
        w.put(&self.identity.node.0.to_le_bytes()).put(&self.identity.shard.0.to_le_bytes()).put(&[0; 2]);
        w.u64(self.capacity).u64(self.incarnation.opens).u64(self.incarnation.random);
        w.u64(self.start.0).u64(self.trim.0).u64(self.durable.0).u64(self.zeroed.0);
        w.u32(self.trim_crc).u32(self.max_group_bytes).u32(self.max_in_flight_bytes).put(&[0; 12]);
        let crc = crc32c::crc32c(w.so_far());
        w.u32(crc);
        w.done()
    }

    /// Reads a superblock from the start of `block`.
    ///
    /// # Errors
    /// Says what else the block is.
    pub fn decode(block: &[u8]) -> Result<Superblock, SuperblockFault> {
        let Some(bytes) = block.get(..LEN) else { return Err(SuperblockFault::Damaged) };
        if block.iter().all(|b| *b == 0) {
            return Err(SuperblockFault::Blank);
        }
        let mut r = Reader(bytes);
        if r.array::<8>() != MAGIC {
            return Err(SuperblockFault::Damaged);
        }
        let version = r.u32();
        // The CRC has its place in every version: a version that rots is no other version's, and the other superblock serves.
        if crc32c::crc32c(&bytes[..LEN - 4]) != Reader(&bytes[LEN - 4..]).u32() {
            return Err(SuperblockFault::Damaged);
        }
        if version != FORMAT_VERSION {
            return Err(SuperblockFault::Version(version));
        }
        let clean = r.u32() & CLEAN != 0;
        let generation = r.u64();
        let (cluster, slice) = (r.array(), r.array());
        let (node, shard) = (NodeId(r.i32()), ShardId(r.u16()));
        r.array::<2>();
        let capacity = r.u64();
        let incarnation = Incarnation { opens: r.u64(), random: r.u64() };
        let (start, trim, durable, zeroed) = (Lsn(r.u64()), Lsn(r.u64()), Lsn(r.u64()), Lsn(r.u64()));
        let (trim_crc, max_group_bytes, max_in_flight_bytes) = (r.u32(), r.u32(), r.u32());
        let identity = SliceIdentity { cluster, node, shard, slice };
        Ok(Superblock {
            generation,
            identity,
            capacity,
            incarnation,
            start,
            trim,
            trim_crc,
            durable,
            zeroed,
            max_group_bytes,
            max_in_flight_bytes,
            clean,
        })
    }
}
