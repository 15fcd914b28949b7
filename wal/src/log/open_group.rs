//! The group that takes batches.

use thalweg_record::{BatchHead, PartitionId};

use crate::{
    Device, Incarnation, IoBuf, Lsn,
    format::{BLOCK, ENTRY_LEN, Entry, GROUP_HEADER_LEN, GroupHeader, group_crc_finish, group_crc_start},
};

/// Buffers come in classes of 1, 2, 4, ... blocks: few sizes, which allocators reuse.
fn class_blocks(bytes: usize) -> u32 {
    bytes.div_ceil(BLOCK as usize).next_power_of_two() as u32
}

pub(super) struct OpenGroup {
    start: Lsn,
    buf: IoBuf,
    entries: Vec<Entry>,
    heads_crc: u32,
}

impl OpenGroup {
    /// Opens a group at `start` with a buffer for about `room` bytes.
    pub(super) fn begin(device: &dyn Device, start: Lsn, incarnation: Incarnation, room: usize) -> OpenGroup {
        let mut buf = device.alloc(class_blocks(room));
        buf.zero_to(GROUP_HEADER_LEN);
        OpenGroup { start, buf, entries: Vec::new(), heads_crc: group_crc_start(incarnation) }
    }

    /// Bytes of the group as it stands: header, batches, table.
    pub(super) fn bytes(&self) -> usize {
        self.buf.len() + self.entries.len() * ENTRY_LEN
    }

    /// The one copy of the records.
    pub(super) fn push(
        &mut self,
        device: &dyn Device,
        max_group_bytes: u32,
        partition: PartitionId,
        head: &BatchHead,
        body: &[u8],
    ) -> Lsn {
        let length = head.0.len() + body.len();
        let needed = self.bytes() + length + ENTRY_LEN;
        if needed > self.buf.capacity() {
            // The guess from the group before was too small. Doubling keeps such copies rare.
            let blocks = class_blocks(needed).min(max_group_bytes.div_ceil(BLOCK as u32));
            self.buf = copied(device, blocks, &self.buf);
        }
        let position = self.buf.len() as u32;
        self.buf.put(&head.0);
        self.buf.put(body);
        self.heads_crc = crc32c::crc32c_append(self.heads_crc, &head.0);
        self.entries.push(Entry {
            partition,
            leader_epoch: head.leader_epoch(),
            base: head.base_offset(),
            last: head.last_offset(),
            position,
            length: length as u32,
        });
        Lsn(self.start.0 + u64::from(position))
    }

    /// Completes `header` with what the group holds, and the buffer with table, zeros and header. Returns the bytes to
    /// write and the group's CRC.
    pub(super) fn finish(mut self, device: &dyn Device, mut header: GroupHeader) -> (IoBuf, u32) {
        let table: Vec<u8> = self.entries.iter().flat_map(Entry::encode).collect();
        header.entries = self.entries.len() as u32;
        header.table = self.buf.len() as u32;
        header.crc = group_crc_finish(self.heads_crc, &table, &header);
        self.buf.put(&table);
        self.buf.pad_to_block();
        self.buf.as_mut()[..GROUP_HEADER_LEN].copy_from_slice(&header.encode());
        // The tail cache pins the whole buffer: a small group does not stay in a large one.
        if self.buf.len() * 2 <= self.buf.capacity() {
            self.buf = copied(device, (self.buf.len() as u64 / BLOCK) as u32, &self.buf);
        }
        (self.buf, header.crc)
    }
}

fn copied(device: &dyn Device, blocks: u32, from: &IoBuf) -> IoBuf {
    let mut to = device.alloc(blocks);
    to.put(from.as_ref());
    to
}
