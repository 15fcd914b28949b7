//! The index: one entry per block, kept in memory as it was parsed.

use bytes::Bytes;
use thalweg_record::{Batch, LeaderEpoch, Offset, PartitionId, TopicId, Wall};

use super::{
    Footer, FormatError,
    wire::{Reader, put_i32, put_i64, put_u32, put_u64},
};

/// Size of one entry in bytes.
pub const ENTRY_BYTES: usize = 80;
/// Largest index in bytes: 800,000 blocks. A larger one is not believed.
pub const MAX_INDEX_BYTES: usize = 64 << 20;

/// One block: whole batches of one partition and leader epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockEntry {
    /// The partition.
    pub partition: PartitionId,
    /// Leader epoch of all its batches.
    pub leader_epoch: LeaderEpoch,
    /// First offset.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// Number of records.
    pub records: u64,
    /// Greatest timestamp.
    pub max_timestamp: Wall,
    /// Base offset of the first batch that has it.
    pub max_timestamp_base: Offset,
    /// Position in the object.
    pub position: u64,
    /// Size in bytes.
    pub size_bytes: u32,
    /// CRC-32C of the whole block.
    pub crc: u32,
}

impl BlockEntry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.partition.topic.0);
        put_i32(out, self.partition.index);
        put_i32(out, self.leader_epoch.0);
        put_i64(out, self.base.0);
        put_i64(out, self.last.0);
        put_u64(out, self.records);
        put_i64(out, self.max_timestamp.0);
        put_i64(out, self.max_timestamp_base.0);
        put_u64(out, self.position);
        put_u32(out, self.size_bytes);
        put_u32(out, self.crc);
    }

    fn parse(read: &mut Reader<'_>) -> Result<BlockEntry, FormatError> {
        Ok(BlockEntry {
            partition: PartitionId { topic: TopicId(read.array()?), index: read.get_i32()? },
            leader_epoch: LeaderEpoch(read.get_i32()?),
            base: Offset(read.get_i64()?),
            last: Offset(read.get_i64()?),
            records: read.get_u64()?,
            max_timestamp: Wall(read.get_i64()?),
            max_timestamp_base: Offset(read.get_i64()?),
            position: read.get_u64()?,
            size_bytes: read.get_u32()?,
            crc: read.get_u32()?,
        })
    }

    /// Whether this entry may follow `earlier`: right behind it in the object, after it in partition and offset.
    fn follows(&self, earlier: &BlockEntry) -> bool {
        let in_order = self.partition > earlier.partition
            || (self.partition == earlier.partition
                && self.base > earlier.last
                && self.leader_epoch >= earlier.leader_epoch);
        in_order && earlier.position.checked_add(u64::from(earlier.size_bytes)) == Some(self.position)
    }

    fn possible(&self) -> bool {
        self.base.0 >= 0
            && self.base <= self.last
            && (self.base..=self.last).contains(&self.max_timestamp_base)
            && self.size_bytes as usize >= thalweg_record::HEAD_LEN
    }

    /// Checks that `block` is this block.
    ///
    /// # Errors
    /// [`FormatError`] when its size or CRC is another.
    pub fn verify(&self, block: &[u8]) -> Result<(), FormatError> {
        if block.len() != self.size_bytes as usize {
            return Err(FormatError::Truncated("block"));
        }
        if crc32c::crc32c(block) == self.crc { Ok(()) } else { Err(FormatError::Crc("block")) }
    }

    /// The batches of `block` from the one that holds `offset` (or the first after it) on, as one slice of it.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] when the block's framing is broken, which its CRC would have told.
    pub fn from_offset(&self, block: &Bytes, offset: Offset) -> Result<Bytes, FormatError> {
        let mut rest = block.clone();
        loop {
            let before = rest.clone();
            if rest.is_empty() {
                return Ok(before);
            }
            let batch =
                Batch::split_from(&mut rest).map_err(|_| FormatError::Invalid("a block that is not batches"))?;
            if batch.head.last_offset() >= offset {
                return Ok(before);
            }
        }
    }
}

/// The index of one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockIndex {
    entries: Vec<BlockEntry>,
}

impl BlockIndex {
    /// The index from the bytes of [`Footer::index_range`].
    ///
    /// # Errors
    /// [`FormatError`] when it fails its CRC, or its entries are not in order, or do not fill the object.
    pub fn parse(footer: &Footer, bytes: &[u8]) -> Result<BlockIndex, FormatError> {
        footer.index.check(bytes, "index")?;
        let mut read = Reader::new(bytes, "index");
        let mut entries: Vec<BlockEntry> = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
        for _ in 0..footer.blocks {
            let entry = BlockEntry::parse(&mut read)?;
            let in_place = entries.last().map_or(entry.position == 0, |earlier| entry.follows(earlier));
            if !in_place || !entry.possible() {
                return Err(FormatError::Invalid("index entries that contradict each other"));
            }
            entries.push(entry);
        }
        read.end()?;
        let end = entries.last().map_or(Some(0), |e| e.position.checked_add(u64::from(e.size_bytes)));
        if end != Some(footer.index.position) {
            return Err(FormatError::Invalid("blocks that do not end where the index begins"));
        }
        Ok(BlockIndex { entries })
    }

    /// All blocks, by partition and offset.
    pub fn entries(&self) -> &[BlockEntry] {
        &self.entries
    }

    /// The blocks of one partition, by offset.
    pub fn partition(&self, partition: PartitionId) -> &[BlockEntry] {
        let from = self.entries.partition_point(|e| e.partition < partition);
        let until = self.entries.partition_point(|e| e.partition <= partition);
        &self.entries[from..until]
    }

    /// The partition's blocks from the one that holds `offset`, or the first after it, on; empty when all end before.
    pub fn from_offset(&self, partition: PartitionId, offset: Offset) -> &[BlockEntry] {
        let blocks = self.partition(partition);
        &blocks[blocks.partition_point(|e| e.last < offset)..]
    }

    /// The first block of the partition, at or after `from`, that has a record with a timestamp at or after `time`.
    ///
    /// Timestamps are not monotone, so this is where the running maximum first reaches `time`; what comes before it
    /// has no such record.
    pub fn find_time(&self, partition: PartitionId, from: Offset, time: Wall) -> Option<&BlockEntry> {
        self.from_offset(partition, from).iter().find(|e| e.max_timestamp >= time)
    }

    /// Memory it holds, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<BlockIndex>() + self.entries.capacity() * size_of::<BlockEntry>()
    }
}
