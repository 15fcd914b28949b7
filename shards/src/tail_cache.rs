//! The tail cache: the newest WAL groups of a shard, still in the buffers they were written from.
//!
//! Owned by one shard. It is the in-memory suffix of the ring: a batch is found by its LSN, and costs no copy. Bounded by
//! the buffers it pins, not by the records in them; the oldest group goes first. Readers rely on the suffix: what lies behind
//! a batch that is here, and is durable, is here too.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use thalweg_wal::Lsn;

/// Durable groups in memory, oldest first.
#[derive(Debug)]
pub struct TailCache {
    groups: VecDeque<(Lsn, Bytes)>,
    bytes: u64,
    limit_bytes: u64,
    /// What begins below was let go, and does not come back.
    let_go: Lsn,
}

impl TailCache {
    /// An empty cache that pins at most `limit_bytes` (`cache.tail.bytes` divided by the shards).
    pub fn new(limit_bytes: u64) -> TailCache {
        TailCache { groups: VecDeque::new(), bytes: 0, limit_bytes, let_go: Lsn(0) }
    }

    /// Keeps a group that begins at `start`. Groups may become durable out of order; one that comes when a later one was let go
    /// already is not kept, for the later one would be missing behind it.
    pub fn insert(&mut self, start: Lsn, group: Bytes) {
        if start < self.let_go {
            return;
        }
        self.bytes += group.len() as u64;
        let at = self.groups.partition_point(|(lsn, _)| *lsn < start);
        self.groups.insert(at, (start, group));
        while self.bytes > self.limit_bytes {
            let Some((lsn, oldest)) = self.groups.pop_front() else { break };
            self.bytes -= oldest.len() as u64;
            self.let_go = self.let_go.max(lsn);
        }
    }

    /// `size` bytes at `lsn`, when the group that holds them is here.
    pub fn get(&self, lsn: Lsn, size: usize) -> Option<Bytes> {
        self.place(lsn, size).map(|(group, range)| group.slice(range))
    }

    /// Whether [`TailCache::get`] has an answer.
    pub fn holds(&self, lsn: Lsn, size: usize) -> bool {
        self.place(lsn, size).is_some()
    }

    fn place(&self, lsn: Lsn, size: usize) -> Option<(&Bytes, Range<usize>)> {
        let at = self.groups.partition_point(|(start, _)| *start <= lsn).checked_sub(1)?;
        let (start, group) = &self.groups[at];
        let from = usize::try_from(lsn.0 - start.0).ok()?;
        let to = from.checked_add(size)?;
        (to <= group.len()).then_some((group, from..to))
    }

    /// What is in memory of `from..to`, pinned for a reader that takes its time: the same buffers, whatever the cache drops.
    pub fn pin(&self, from: Lsn, to: Lsn) -> TailCache {
        let first = self.groups.partition_point(|(start, _)| *start <= from).saturating_sub(1);
        let end = self.groups.partition_point(|(start, _)| *start < to);
        let groups: VecDeque<_> = self.groups.range(first.min(end)..end).cloned().collect();
        let bytes = groups.iter().map(|(_, group)| group.len() as u64).sum();
        TailCache { groups, bytes, limit_bytes: u64::MAX, let_go: self.let_go }
    }

    /// The oldest LSN in memory; `None` when the cache is empty.
    pub fn floor(&self) -> Option<Lsn> {
        self.groups.front().map(|(start, _)| *start)
    }

    /// Bytes pinned.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_group_goes_first_and_the_limit_holds() {
        let mut cache = TailCache::new(10_000);
        for n in [0u64, 2, 1] {
            cache.insert(Lsn(n * 4096), Bytes::from(vec![n as u8; 4096]));
        }
        assert_eq!((cache.bytes(), cache.floor()), (8192, Some(Lsn(4096))));
        assert_eq!(cache.get(Lsn(100), 8), None);
        assert_eq!(cache.get(Lsn(4096 + 100), 8).as_deref(), Some(&[1u8; 8][..]));
        assert_eq!(cache.get(Lsn(8192 + 4090), 8), None, "past the end of the last group");
    }

    #[test]
    fn what_is_pinned_stays_when_the_cache_moves_on() {
        let mut cache = TailCache::new(12_288);
        for n in 0..3 {
            cache.insert(Lsn(n * 4096), Bytes::from(vec![n as u8; 4096]));
        }
        let pinned = cache.pin(Lsn(4096 + 10), Lsn(8192));
        assert_eq!((pinned.bytes(), pinned.floor()), (4096, Some(Lsn(4096))), "no more than was asked for");
        cache.insert(Lsn(3 * 4096), Bytes::from(vec![3; 4096]));
        cache.insert(Lsn(4 * 4096), Bytes::from(vec![4; 4096]));
        assert_eq!(cache.get(Lsn(4096 + 100), 8), None);
        assert_eq!(pinned.get(Lsn(4096 + 100), 8).as_deref(), Some(&[1u8; 8][..]));
        assert!(pinned.holds(Lsn(8192 - 8), 8) && !pinned.holds(Lsn(8192 - 8), 9) && !pinned.holds(Lsn(4095), 1));
        assert_eq!(cache.pin(Lsn(0), Lsn(0)).floor(), None);
    }

    #[test]
    fn a_group_larger_than_the_limit_is_not_kept() {
        let mut cache = TailCache::new(100);
        cache.insert(Lsn(0), Bytes::from(vec![0; 4096]));
        assert_eq!((cache.bytes(), cache.floor()), (0, None));
    }

    #[test]
    fn no_group_is_kept_before_one_that_was_let_go() {
        let mut cache = TailCache::new(10_000);
        // Durable first, and too large.
        cache.insert(Lsn(4096), Bytes::from(vec![1; 12_288]));
        cache.insert(Lsn(0), Bytes::from(vec![0; 4096]));
        assert_eq!((cache.bytes(), cache.floor()), (0, None), "or the one between would be missing");
        cache.insert(Lsn(16_384), Bytes::from(vec![2; 4096]));
        assert_eq!((cache.bytes(), cache.floor()), (4096, Some(Lsn(16_384))));
    }
}
