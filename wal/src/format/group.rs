//! A group: what one device write carries.
//!
//! Two CRCs, both seeded with the incarnation, so that neither an older opening nor a client's payload can pass. The
//! header's own covers the header alone: in a group that is torn further back it still proves what was durable when the
//! group was submitted. The group's covers batch heads, entry table and header; bodies rely on the batches' own CRC,
//! which the heads hold and recovery checks. The group's CRC is the next group's link of the chain.

use thalweg_record::{LeaderEpoch, Offset, PartitionId, TopicId};

use super::{
    FORMAT_VERSION,
    fields::{Reader, Writer},
};
use crate::{Incarnation, Lsn};

const MAGIC: [u8; 8] = *b"thalwegG";

/// Bytes of a group's header.
pub const GROUP_HEADER_LEN: usize = 88;

/// Bytes of one entry of the table.
pub const ENTRY_LEN: usize = 48;

/// Bytes of the header before the group's CRC, which cover themselves in it.
const BEFORE_GROUP_CRC: usize = GROUP_HEADER_LEN - 8;

/// What a group is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupKind {
    /// Carries batches.
    Data,
    /// Carries nothing; its `durable` confirms the groups before it.
    Marker,
}

/// The header of a group, at the start of its first block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// What the group is for.
    pub kind: GroupKind,
    /// The opening that wrote it.
    pub incarnation: Incarnation,
    /// LSN of the header's first byte.
    pub lsn: Lsn,
    /// How far the LSN advances: the bytes written, and at the end of the ring the rest of the ring.
    pub length: u32,
    /// Bytes written, whole blocks.
    pub written: u32,
    /// All below was durable when the group was submitted.
    pub durable: Lsn,
    /// Group CRC of the group before.
    pub previous: u32,
    /// Number of batches.
    pub entries: u32,
    /// Position of the entry table in the group; the batches lie between header and table.
    pub table: u32,
    /// The group's CRC.
    pub crc: u32,
}

/// Why bytes are not the header that is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// Not a header, or one that fails its CRC.
    NoHeader,
    /// Sound, but of a format version that this code does not know.
    Version(u32),
    /// Its lengths contradict each other.
    Lengths,
}

impl GroupHeader {
    /// The LSN after the group.
    pub fn end(&self) -> Lsn {
        Lsn(self.lsn.0 + u64::from(self.length))
    }

    fn encode_before_crc(&self) -> Writer {
        let mut w = Writer::with_capacity(GROUP_HEADER_LEN);
        let kind = match self.kind {
            GroupKind::Data => 0,
            GroupKind::Marker => 1,
        };
        w.put(&MAGIC).u32(FORMAT_VERSION).u32(kind);
        w.u64(self.incarnation.opens).u64(self.incarnation.random).u64(self.lsn.0).u64(self.durable.0);
        w.u32(self.length).u32(self.written).u32(self.previous).u32(self.entries).u32(self.table);
        w.put(&[0; 12]);
        w
    }

    /// The bytes of the header, `crc` included.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = self.encode_before_crc();
        w.u32(self.crc);
        let own = crc32c::crc32c_append(seed(self.incarnation), w.so_far());
        w.u32(own);
        w.done()
    }

    /// Reads a header from the start of `bytes` and checks its own CRC and lengths, not the group's CRC.
    ///
    /// # Errors
    /// Says why the bytes are no header.
    pub fn decode(bytes: &[u8]) -> Result<GroupHeader, HeaderFault> {
        let Some(bytes) = bytes.get(..GROUP_HEADER_LEN) else { return Err(HeaderFault::NoHeader) };
        let mut r = Reader(bytes);
        if r.array::<8>() != MAGIC {
            return Err(HeaderFault::NoHeader);
        }
        let (version, kind) = (r.u32(), r.u32());
        let incarnation = Incarnation { opens: r.u64(), random: r.u64() };
        let (lsn, durable) = (Lsn(r.u64()), Lsn(r.u64()));
        let (length, written, previous, entries, table) = (r.u32(), r.u32(), r.u32(), r.u32(), r.u32());
        r.array::<12>();
        let (crc, own) = (r.u32(), r.u32());
        if own != crc32c::crc32c_append(seed(incarnation), &bytes[..GROUP_HEADER_LEN - 4]) {
            return Err(HeaderFault::NoHeader);
        }
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let kind = match kind {
            0 => GroupKind::Data,
            1 => GroupKind::Marker,
            _ => return Err(HeaderFault::Lengths),
        };
        let header = GroupHeader { kind, incarnation, lsn, length, written, durable, previous, entries, table, crc };
        if header.lengths_agree() { Ok(header) } else { Err(HeaderFault::Lengths) }
    }

    fn lengths_agree(&self) -> bool {
        let table_end = u64::from(self.table) + u64::from(self.entries) * ENTRY_LEN as u64;
        let blocks = |bytes: u32| u64::from(bytes) % super::BLOCK == 0;
        self.table as usize >= GROUP_HEADER_LEN
            && table_end <= u64::from(self.written)
            && self.written <= self.length
            && self.written > 0
            && blocks(self.written)
            && blocks(self.length)
            && self.lsn.0 % super::BLOCK == 0
            && self.lsn.0.checked_add(u64::from(self.length)).is_some()
    }
}

/// One batch in a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The partition, by topic id.
    pub partition: PartitionId,
    /// Leader epoch the batch was appended under.
    pub leader_epoch: LeaderEpoch,
    /// First offset.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// Position of the batch's first byte in the group.
    pub position: u32,
    /// Size of the batch in bytes, head included.
    pub length: u32,
}

impl Entry {
    /// The bytes of the entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(ENTRY_LEN);
        w.put(&self.partition.topic.0).put(&self.partition.index.to_le_bytes());
        w.put(&self.leader_epoch.0.to_le_bytes()).put(&self.base.0.to_le_bytes()).put(&self.last.0.to_le_bytes());
        w.u32(self.position).u32(self.length);
        w.done()
    }

    /// Reads an entry. The group's CRC vouches for it.
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> Entry {
        let mut r = Reader(bytes);
        Entry {
            partition: PartitionId { topic: TopicId(r.array()), index: r.i32() },
            leader_epoch: LeaderEpoch(r.i32()),
            base: Offset(r.i64()),
            last: Offset(r.i64()),
            position: r.u32(),
            length: r.u32(),
        }
    }
}

fn seed(incarnation: Incarnation) -> u32 {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&incarnation.opens.to_le_bytes());
    raw[8..].copy_from_slice(&incarnation.random.to_le_bytes());
    crc32c::crc32c(&raw)
}

/// The group CRC before the first batch head is appended to it with `crc32c_append`.
pub(crate) fn group_crc_start(incarnation: Incarnation) -> u32 {
    seed(incarnation)
}

/// The group CRC: `heads` is what came of appending all batch heads in order, `table` the encoded entries.
pub(crate) fn group_crc_finish(heads: u32, table: &[u8], header: &GroupHeader) -> u32 {
    let before = header.encode_before_crc().done();
    debug_assert_eq!(before.len(), BEFORE_GROUP_CRC);
    crc32c::crc32c_append(crc32c::crc32c_append(heads, table), &before)
}
