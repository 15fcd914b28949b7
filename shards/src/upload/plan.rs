//! What to upload, decided without doing it.
//!
//! Pure. A plan takes durable batches up to an LSN bound, partition by partition in order of identity, and cuts them into
//! objects: one of its own for a partition with much, one for all the others together.

use std::time::Duration;

use thalweg_record::{Mono, Offset, PartitionId};
use thalweg_wal::Lsn;

use super::UploadConfig;
use crate::partition::{Partition, RingEntry};

/// This much is uploaded in a moment.
const LITTLE_BYTES: u64 = 16 << 20;

/// Why an upload starts now, or that none does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trigger {
    Wait,
    Bytes,
    Age,
    Drain,
    Lent,
}

/// The figures that a trigger is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pressure {
    /// Durable ring bytes that no upload has taken up.
    pub ring_bytes: u64,
    /// Size of the ring.
    pub ring_capacity: u64,
    /// Batches that no upload has taken up.
    pub batches: usize,
    /// Age of the oldest of them.
    pub age: Duration,
    /// Whether the shard drains.
    pub draining: bool,
    /// Whether another shard's uploads of a partition that moved there wait for this one's.
    pub lent: bool,
}

pub(super) fn trigger(config: &UploadConfig, p: Pressure) -> Trigger {
    if p.ring_bytes == 0 {
        Trigger::Wait
    } else if p.draining {
        Trigger::Drain
    } else if p.lent {
        Trigger::Lent
    } else if p.ring_bytes >= object_bytes(config, p.ring_capacity) || p.batches >= config.batches {
        Trigger::Bytes
    } else if p.age >= config.interval {
        Trigger::Age
    } else {
        Trigger::Wait
    }
}

/// How much gathers before an upload.
fn object_bytes(config: &UploadConfig, ring_capacity: u64) -> u64 {
    config.object_bytes.min(ring_capacity / 4)
}

/// Whether what a ring holds will soon be in objects: uploads succeed, and no more is open than those under way and what gathers for the
/// next, or it is little.
pub(super) fn keeps_up(config: &UploadConfig, ring_capacity: u64, failures: u32, unresolved: u64) -> bool {
    let usual = (config.jobs as u64 + 1) * object_bytes(config, ring_capacity);
    failures == 0 && unresolved <= usual.max(LITTLE_BYTES.min(ring_capacity / 4))
}

/// One partition's part of an upload.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub id: PartitionId,
    pub batches: Vec<RingEntry>,
    pub bytes: u64,
}

impl Part {
    pub(super) fn base(&self) -> Offset {
        self.batches[0].base
    }

    pub(super) fn last(&self) -> Offset {
        self.batches[self.batches.len() - 1].last
    }
}

/// The batches of a partition that lie below `to`, are durable, and that no upload has taken up. None while what comes before them is not
/// committed, for it lies in another shard's log.
pub(super) fn part(partition: &Partition, to: Lsn) -> Option<Part> {
    let waits = partition.borrowed.is_some();
    #[cfg(feature = "planted-bugs")]
    let waits = waits && !thalweg_wal::planted(thalweg_wal::Bug::LoanNotAwaited);
    if waits {
        return None;
    }
    let batches: Vec<RingEntry> = partition
        .ring
        .from(partition.upload_cursor, partition.high_watermark)
        .take_while(|e| e.lsn < to)
        .copied()
        .collect();
    let bytes = batches.iter().map(|e| u64::from(e.size)).sum();
    (!batches.is_empty()).then_some(Part { id: partition.id, batches, bytes })
}

/// Cuts parts into objects. Order of identity within an object, and of objects by their first partition.
pub(super) fn objects(mut parts: Vec<Part>, split_bytes: u64) -> Vec<Vec<Part>> {
    parts.sort_by_key(|p| p.id);
    let (own, shared): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|p| p.bytes > split_bytes);
    let mut objects: Vec<Vec<Part>> = own.into_iter().map(|p| vec![p]).collect();
    if !shared.is_empty() {
        objects.push(shared);
    }
    objects
}

/// When to try again after the `failures`-th failure in a row: doubling from 100 ms to 10 s.
pub(super) fn retry_at(now: Mono, failures: u32) -> Mono {
    now.plus(Duration::from_millis((100u64 << failures.min(7)).min(10_000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_record::TopicId;

    fn config() -> UploadConfig {
        UploadConfig {
            object_bytes: 1000,
            interval: Duration::from_secs(60),
            split_bytes: 300,
            block_bytes: 100,
            jobs: 2,
            batches: 50,
        }
    }

    fn pressure(ring_bytes: u64, batches: usize, age_s: u64) -> Pressure {
        Pressure {
            ring_bytes,
            ring_capacity: 10_000,
            batches,
            age: Duration::from_secs(age_s),
            draining: false,
            lent: false,
        }
    }

    #[test]
    fn bytes_batches_age_and_a_drain_start_an_upload() {
        let c = config();
        assert_eq!(trigger(&c, pressure(0, 0, 100)), Trigger::Wait);
        assert_eq!(trigger(&c, pressure(999, 1, 1)), Trigger::Wait);
        assert_eq!(trigger(&c, pressure(1000, 1, 1)), Trigger::Bytes);
        assert_eq!(trigger(&c, pressure(10, 50, 1)), Trigger::Bytes);
        assert_eq!(trigger(&c, pressure(10, 1, 60)), Trigger::Age);
        assert_eq!(trigger(&c, Pressure { draining: true, ..pressure(10, 1, 1) }), Trigger::Drain);
        assert_eq!(trigger(&c, Pressure { lent: true, ..pressure(10, 1, 1) }), Trigger::Lent);
        let small_ring = Pressure { ring_capacity: 400, ..pressure(100, 1, 1) };
        assert_eq!(trigger(&c, small_ring), Trigger::Bytes, "a quarter of the ring");
    }

    #[test]
    fn a_ring_that_fills_up_or_cannot_be_uploaded_does_not_keep_up() {
        let keeps_up = |capacity, failures, unresolved| keeps_up(&config(), capacity, failures, unresolved);
        assert!(keeps_up(10_000, 0, 0) && keeps_up(10_000, 0, 3000) && keeps_up(1 << 30, 0, LITTLE_BYTES));
        assert!(!keeps_up(10_000, 0, 3001) && !keeps_up(10_000, 1, 0));
    }

    #[test]
    fn a_partition_with_much_gets_an_object_of_its_own() {
        let part = |index, bytes| Part { id: PartitionId { topic: TopicId([1; 16]), index }, batches: vec![], bytes };
        let cut = objects(vec![part(3, 10), part(2, 301), part(1, 300)], 300);
        let ids: Vec<Vec<i32>> = cut.iter().map(|o| o.iter().map(|p| p.id.index).collect()).collect();
        assert_eq!(ids, vec![vec![2], vec![1, 3]]);
    }
}
