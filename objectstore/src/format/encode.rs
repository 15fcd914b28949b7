//! Building an object, batch by batch, so that the caller can breathe between them.

use bytes::{Bytes, BytesMut};
use thalweg_record::{Batch, BatchError, BatchHead, LeaderEpoch, Offset, PartitionId, Wall};

use super::{BlockEntry, Footer, Properties, footer::Section};

/// Pieces below this are copied together: a part each would cost more than the copy.
const COPY_BELOW_BYTES: usize = 4 * 1024;
/// What was copied together is a piece of at most about this size: to grow a larger one would copy it again and again.
const COPIED_BYTES: usize = 1 << 20;

/// Builds one object. Partitions arrive in ascending order, each one's batches in offset order, their heads stamped.
/// Larger bodies are kept as slices of the buffer they came in, which therefore stays alive until the upload is done.
#[derive(Debug)]
pub struct ObjectEncoder {
    object: u64,
    block_bytes: u32,
    parts: Vec<Bytes>,
    small: BytesMut,
    position: u64,
    entries: Vec<BlockEntry>,
    ranges: Vec<PartitionRange>,
}

/// A partition's part of an object, as a commit needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionRange {
    /// The partition.
    pub partition: PartitionId,
    /// First offset.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Greatest timestamp.
    pub max_timestamp: Wall,
    /// Leader epoch of its first batch.
    pub leader_epoch: LeaderEpoch,
}

/// A finished object.
#[derive(Debug)]
pub struct EncodedObject {
    /// Its bytes, in order.
    pub parts: Vec<Bytes>,
    /// Their sum.
    pub size_bytes: u64,
    /// What is in it, by partition.
    pub ranges: Vec<PartitionRange>,
}

impl ObjectEncoder {
    /// An empty object with the id `object` and blocks of at most `block_bytes` (`object.block.bytes`).
    pub fn new(object: u64, block_bytes: u32) -> ObjectEncoder {
        ObjectEncoder {
            object,
            block_bytes,
            parts: Vec::new(),
            small: BytesMut::new(),
            position: 0,
            entries: Vec::new(),
            ranges: Vec::new(),
        }
    }

    /// Says the object's id, where it was not known before.
    pub fn name(&mut self, object: u64) {
        self.object = object;
    }

    /// Bytes of batches so far.
    pub fn size_bytes(&self) -> u64 {
        self.position
    }

    /// Adds a batch of `partition` whose head lies apart.
    ///
    /// # Panics
    /// When `partition` comes before the last one, or the batch starts at or before the last offset: offsets would be
    /// stored twice.
    pub fn push(&mut self, partition: PartitionId, batch: &Batch) {
        self.account(partition, batch.head.base_offset(), &batch.head, &[&batch.head.0, &batch.body]);
        self.small.extend_from_slice(&batch.head.0);
        self.append(batch.body.clone());
    }

    /// Adds one whole batch of `partition`, head and body in one piece.
    ///
    /// # Errors
    /// [`BatchError`] when `batch` is not exactly one batch; its CRC is not checked.
    ///
    /// # Panics
    /// As [`ObjectEncoder::push`].
    pub fn push_whole(&mut self, partition: PartitionId, batch: Bytes) -> Result<(), BatchError> {
        let base = BatchHead::parse(&batch)?.base_offset();
        self.push_behind(partition, base, batch)
    }

    /// As [`ObjectEncoder::push_whole`], of a batch before which offsets `from` on are left out, for cleaning took their records: block
    /// and range cover them, so that what is committed has no holes, and a reader of such an offset is led to this batch.
    ///
    /// # Errors
    /// As [`ObjectEncoder::push_whole`]; also when `from` lies behind the batch's first offset.
    ///
    /// # Panics
    /// As [`ObjectEncoder::push`].
    pub fn push_behind(&mut self, partition: PartitionId, from: Offset, batch: Bytes) -> Result<(), BatchError> {
        let head = BatchHead::parse(&batch)?;
        if head.size_bytes() != batch.len() || from > head.base_offset() {
            return Err(BatchError::Truncated);
        }
        self.account(partition, from, &head, &[&batch]);
        self.append(batch);
        Ok(())
    }

    fn append(&mut self, piece: Bytes) {
        if piece.len() < COPY_BELOW_BYTES {
            self.small.extend_from_slice(&piece);
            if self.small.len() >= COPIED_BYTES {
                self.flush_small();
            }
        } else {
            self.flush_small();
            self.parts.push(piece);
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
    }

    /// Extends the last block, or opens a new one, and the partition's range.
    fn account(&mut self, partition: PartitionId, from: Offset, head: &BatchHead, pieces: &[&[u8]]) {
        let crc = |seed| pieces.iter().fold(seed, |crc, piece| crc32c::crc32c_append(crc, piece));
        let size_bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let max_timestamp = greatest(head);
        self.account_range(partition, from, head, size_bytes as u64);
        match self.entries.last_mut() {
            Some(block)
                if block.partition == partition
                    && block.leader_epoch == head.leader_epoch()
                    && block.size_bytes as usize + size_bytes <= self.block_bytes as usize =>
            {
                block.last = head.last_offset();
                block.records += u64::from(head.record_count().max(0).unsigned_abs());
                block.size_bytes += size_bytes as u32;
                block.crc = crc(block.crc);
                if max_timestamp > block.max_timestamp {
                    (block.max_timestamp, block.max_timestamp_base) = (max_timestamp, head.base_offset());
                }
            }
            _ => self.entries.push(BlockEntry {
                partition,
                leader_epoch: head.leader_epoch(),
                base: from,
                last: head.last_offset(),
                records: u64::from(head.record_count().max(0).unsigned_abs()),
                max_timestamp,
                max_timestamp_base: head.base_offset(),
                position: self.position,
                size_bytes: size_bytes as u32,
                crc: crc(0),
            }),
        }
        self.position += size_bytes as u64;
    }

    fn account_range(&mut self, partition: PartitionId, from: Offset, head: &BatchHead, size_bytes: u64) {
        let max_timestamp = greatest(head);
        match self.ranges.last_mut() {
            Some(range) if range.partition == partition => {
                assert!(from > range.last, "{partition}: offset {from} is in the object");
                range.last = head.last_offset();
                range.size_bytes += size_bytes;
                range.max_timestamp = range.max_timestamp.max(max_timestamp);
            }
            earlier => {
                assert!(earlier.is_none_or(|e| e.partition < partition), "{partition} comes before the last one");
                self.ranges.push(PartitionRange {
                    partition,
                    base: from,
                    last: head.last_offset(),
                    size_bytes,
                    max_timestamp,
                    leader_epoch: head.leader_epoch(),
                });
            }
        }
    }

    /// Index, properties and footer complete the object.
    pub fn finish(mut self, properties: &Properties) -> EncodedObject {
        let mut end = Vec::with_capacity(self.entries.len() * super::ENTRY_BYTES + 1024);
        self.entries.iter().for_each(|entry| entry.encode(&mut end));
        let index = Section::of(self.position, &end);
        let about = properties.encode();
        let properties = Section::of(self.position + end.len() as u64, &about);
        end.extend_from_slice(&about);
        let blocks = u32::try_from(self.entries.len()).expect("fewer than 2^32 blocks");
        end.extend_from_slice(&Footer { object: self.object, blocks, index, properties }.encode());
        self.flush_small();
        let size_bytes = self.position + end.len() as u64;
        self.parts.push(Bytes::from(end));
        EncodedObject { parts: self.parts, size_bytes, ranges: self.ranges }
    }
}

/// The greatest timestamp of a batch's records: one without records has none, whatever its head kept.
fn greatest(head: &BatchHead) -> Wall {
    if head.record_count() > 0 { Wall(head.max_timestamp()) } else { Wall(-1) }
}
