//! Where a partition's batches lie in the WAL ring: offset to LSN.
//!
//! Pure; owned by the partition. Entries ascend in offset, LSN and running figures. The tail cache is the part of the
//! ring that is still in memory, so one index serves both tiers.

use std::collections::VecDeque;

use thalweg_record::{BatchHead, LeaderEpoch, Offset, Wall};
use thalweg_wal::Lsn;

/// One batch in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingEntry {
    /// First offset.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// Where its first byte lies.
    pub lsn: Lsn,
    /// Size in bytes, head included.
    pub size: u32,
    /// The epoch it was appended under.
    pub leader_epoch: LeaderEpoch,
    /// Its CRC: another batch that landed in its place has another.
    pub crc: u32,
    /// Its greatest timestamp.
    pub max_timestamp: Wall,
    /// Greatest timestamp of this entry and all before it (timestamps are not monotone).
    pub running_max: Wall,
    /// Bytes of this partition up to and including this entry, since the index was opened.
    pub through: u64,
}

/// The batches of one partition that the ring (or the tail cache) still holds.
#[derive(Debug, Default)]
pub struct RingIndex(VecDeque<RingEntry>);

impl RingIndex {
    /// Adds the newest batch; its head is stamped.
    pub fn push(&mut self, head: &BatchHead, lsn: Lsn) {
        let (before, bytes) = self.0.back().map_or((Wall(i64::MIN), 0), |e| (e.running_max, e.through));
        let size = head.size_bytes() as u32;
        let max_timestamp = Wall(head.max_timestamp());
        self.0.push_back(RingEntry {
            base: head.base_offset(),
            last: head.last_offset(),
            lsn,
            size,
            leader_epoch: head.leader_epoch(),
            crc: head.crc(),
            max_timestamp,
            running_max: before.max(max_timestamp),
            through: bytes + u64::from(size),
        });
    }

    /// Index of the first batch that ends at or after `offset`.
    fn at(&self, offset: Offset) -> usize {
        self.0.partition_point(|e| e.last < offset)
    }

    /// The batches from the one that holds `offset` (or the next) on, below `end`.
    pub fn from(&self, offset: Offset, end: Offset) -> impl Iterator<Item = &RingEntry> {
        self.0.range(self.at(offset)..).take_while(move |e| e.last < end)
    }

    /// First offset that the index can serve; `None` when it is empty.
    pub fn first(&self) -> Option<Offset> {
        self.0.front().map(|e| e.base)
    }

    /// The offset after the newest batch; `None` when the index is empty.
    pub fn end(&self) -> Option<Offset> {
        self.0.back().map(|e| e.last.next())
    }

    /// Bytes of whole batches from the one that holds `offset`, below `end`, and the first one's size.
    pub fn bytes_from(&self, offset: Offset, end: Offset) -> (u64, u32) {
        let (from, to) = (self.at(offset), self.0.partition_point(|e| e.last < end));
        if from >= to {
            return (0, 0);
        }
        let first = self.0[from];
        (self.0[to - 1].through - first.through + u64::from(first.size), first.size)
    }

    /// The first batch at or after `from`, below `end`, whose greatest timestamp is `time` or later.
    pub fn first_at_time(&self, time: Wall, from: Offset, end: Offset) -> Option<&RingEntry> {
        let start = self.at(from).max(self.0.partition_point(|e| e.running_max < time));
        self.0.range(start..).take_while(|e| e.last < end).find(|e| e.max_timestamp >= time)
    }

    /// LSN of the first batch; `None` when the index is empty.
    pub fn first_lsn(&self) -> Option<Lsn> {
        self.0.front().map(|e| e.lsn)
    }

    /// The first batch with the greatest timestamp at or after `from`, below `end`.
    pub fn max_timestamp(&self, from: Offset, end: Offset) -> Option<&RingEntry> {
        self.from(from, end).fold(None, |best: Option<&RingEntry>, e| match best {
            Some(b) if b.max_timestamp >= e.max_timestamp => Some(b),
            _ => Some(e),
        })
    }

    /// Forgets the batches that lie below `floor` and end below `committed`: another tier has them.
    pub fn prune(&mut self, floor: Lsn, committed: Offset) -> usize {
        let before = self.0.len();
        while self.0.front().is_some_and(|e| e.lsn < floor && e.last < committed) {
            self.0.pop_front();
        }
        if self.0.len() * 4 < self.0.capacity() && self.0.capacity() > 64 {
            self.0.shrink_to(self.0.len() * 2);
        }
        before - self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(batches: &[(i64, i32, i64)]) -> RingIndex {
        let mut ring = RingIndex::default();
        for (n, (base, count, time)) in batches.iter().enumerate() {
            let mut head = BatchHead([0; 61]);
            head.set_batch_length(88);
            head.set_last_offset_delta(count - 1);
            head.set_max_timestamp(*time);
            head.stamp(Offset(*base), thalweg_record::LeaderEpoch(1));
            ring.push(&head, Lsn(n as u64 * 4096));
        }
        ring
    }

    #[test]
    fn a_look_up_in_the_middle_of_a_batch_finds_the_batch() {
        let ring = index(&[(0, 10, 5), (10, 1, 9), (11, 5, 7)]);
        let bases = |at, end| ring.from(Offset(at), Offset(end)).map(|e| e.base.0).collect::<Vec<_>>();
        assert_eq!(bases(3, 16), vec![0, 10, 11]);
        assert_eq!(bases(10, 16), vec![10, 11]);
        assert_eq!(bases(10, 11), vec![10], "nothing at or after the end");
        assert_eq!(ring.bytes_from(Offset(3), Offset(16)), (300, 100));
        assert_eq!(ring.bytes_from(Offset(16), Offset(16)), (0, 0));
    }

    #[test]
    fn a_look_up_in_a_gap_finds_the_next_batch() {
        let ring = index(&[(0, 3, 5), (10, 2, 9), (12, 1, 7)]);
        let bases = |at| ring.from(Offset(at), Offset(13)).map(|e| e.base.0).collect::<Vec<_>>();
        for at in 3..=11 {
            assert_eq!(bases(at), [10, 12], "from {at}");
            assert_eq!(ring.bytes_from(Offset(at), Offset(13)), (200, 100), "from {at}");
        }
        assert_eq!(ring.bytes_from(Offset(3), Offset(10)), (0, 0), "nothing below the end");
    }

    #[test]
    fn times_that_are_not_monotone_are_found() {
        let ring = index(&[(0, 10, 5), (10, 1, 9), (11, 5, 7), (16, 1, 12)]);
        let at = |t, from| ring.first_at_time(Wall(t), Offset(from), Offset(17)).map(|e| e.base.0);
        assert_eq!(at(6, 0), Some(10));
        assert_eq!(at(6, 11), Some(11));
        assert_eq!(at(8, 11), Some(16));
        assert_eq!(at(13, 0), None);
        assert_eq!(ring.max_timestamp(Offset(0), Offset(16)).map(|e| e.base.0), Some(10));
    }

    #[test]
    fn only_what_another_tier_has_is_forgotten() {
        let mut ring = index(&[(0, 10, 5), (10, 1, 9), (11, 5, 7)]);
        assert_eq!(ring.prune(Lsn(8192), Offset(10)), 1, "offset 10 is not committed");
        assert_eq!(ring.prune(Lsn(4096), Offset(16)), 0, "its LSN is not below the floor");
        assert_eq!(ring.first(), Some(Offset(10)));
    }
}
