//! Idempotent producers of a partition (KIP-98, KIP-360).
//!
//! Pure; owned by the partition. The window holds the last five batches of a producer, staged ones included; a batch is
//! durable once the high watermark has passed it, so nothing has to be promoted. After a failed WAL write the slice is
//! poisoned and nothing is acknowledged any more, so nothing has to be rolled back either.

use std::collections::BTreeMap;

use ahash::AHashMap;
use thalweg_record::{BatchHead, Offset, Wall};

use crate::msg::{ProducerBatch, ProducerEntry, ProducerView};

/// Kafka keeps the last five batches per producer: `max.in.flight.requests.per.connection` may be five.
const WINDOW: usize = 5;

/// What the table says of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Append it.
    Append,
    /// An exact repetition of the batch at these offsets: answer with them once they are durable.
    Duplicate(ProducerBatch),
    /// Sequence out of order (45).
    OutOfOrder,
    /// Epoch below the producer's current one (47).
    OldEpoch,
}

/// Producers by id. The map is only looked up; whatever leaves the table is sorted.
#[derive(Debug, Default)]
pub struct ProducerTable(AHashMap<i64, ProducerEntry>);

impl ProducerTable {
    /// A table as it was persisted at the committed end.
    pub fn new(entries: Vec<ProducerEntry>) -> ProducerTable {
        ProducerTable(entries.into_iter().map(|e| (e.producer_id, e)).collect())
    }

    /// Judges a batch with a producer id. An unknown producer may begin at any sequence (KIP-360).
    pub fn judge(&self, head: &BatchHead) -> Verdict {
        let Some(entry) = self.0.get(&head.producer_id()) else { return Verdict::Append };
        let (first, last) = (head.base_sequence(), head.last_sequence());
        match head.producer_epoch().cmp(&entry.epoch) {
            std::cmp::Ordering::Less => Verdict::OldEpoch,
            std::cmp::Ordering::Greater if first == 0 => Verdict::Append,
            std::cmp::Ordering::Greater => Verdict::OutOfOrder,
            std::cmp::Ordering::Equal => {
                if let Some(same) = entry.window.iter().find(|b| b.first_sequence == first && b.last_sequence == last) {
                    return Verdict::Duplicate(*same);
                }
                match entry.window.last() {
                    Some(newest) if first != next_sequence(newest.last_sequence) => Verdict::OutOfOrder,
                    _ => Verdict::Append,
                }
            }
        }
    }

    /// Records a batch that was staged at `base..=last`.
    pub fn note(&mut self, head: &BatchHead, base: Offset, last: Offset) {
        let entry = self.0.entry(head.producer_id()).or_insert_with(|| ProducerEntry {
            producer_id: head.producer_id(),
            epoch: head.producer_epoch(),
            window: Vec::with_capacity(WINDOW),
            last_timestamp: Wall(0),
        });
        if entry.epoch != head.producer_epoch() {
            entry.epoch = head.producer_epoch();
            entry.window.clear();
        }
        if entry.window.len() == WINDOW {
            entry.window.remove(0);
        }
        entry.window.push(ProducerBatch {
            first_sequence: head.base_sequence(),
            last_sequence: head.last_sequence(),
            base_offset: base,
            last_offset: last,
        });
        entry.last_timestamp = entry.last_timestamp.max(Wall(head.max_timestamp()));
    }

    /// The state, as of `last`, of each producer with a batch in `[base, last]`, by producer id. A batch after `last` is
    /// left out: a commit must not claim what only the ring holds.
    pub fn touched(&self, base: Offset, last: Offset) -> Vec<ProducerEntry> {
        let mut touched: Vec<ProducerEntry> = self
            .sorted()
            .into_iter()
            .filter_map(|entry| {
                let mut entry = entry.clone();
                entry.window.retain(|b| b.last_offset <= last);
                entry.window.last().is_some_and(|b| b.last_offset >= base).then_some(entry)
            })
            .collect();
        touched.sort_by_key(|e| e.producer_id);
        touched
    }

    /// All of them, by producer id.
    pub fn entries(&self) -> Vec<ProducerEntry> {
        self.sorted().into_iter().cloned().collect()
    }

    /// Each producer with a batch below `end`, by id, as far as it has come there.
    pub fn views(&self, end: Offset) -> Vec<ProducerView> {
        let view = |entry: &ProducerEntry| {
            let last = entry.window.iter().rev().find(|batch| batch.last_offset < end)?;
            Some(ProducerView {
                producer_id: entry.producer_id,
                epoch: entry.epoch,
                last_sequence: last.last_sequence,
                last_timestamp: entry.last_timestamp,
            })
        };
        self.sorted().into_iter().filter_map(view).collect()
    }

    /// The last offset of each producer, staged batches included.
    pub fn last_offsets(&self) -> BTreeMap<i64, Offset> {
        let last = |entry: &ProducerEntry| Some((entry.producer_id, entry.window.last()?.last_offset));
        self.sorted().into_iter().filter_map(last).collect()
    }

    /// Forgets producers that wrote nothing since `before` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, before: Wall) {
        let old: Vec<i64> =
            self.sorted().into_iter().filter(|e| e.last_timestamp < before).map(|e| e.producer_id).collect();
        for id in old {
            self.0.remove(&id);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "sorted before anything leaves")]
    fn sorted(&self) -> Vec<&ProducerEntry> {
        let mut all: Vec<&ProducerEntry> = self.0.values().collect();
        all.sort_by_key(|e| e.producer_id);
        all
    }
}

fn next_sequence(last: i32) -> i32 {
    if last == i32::MAX { 0 } else { last + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: i64, epoch: i16, first: i32, count: i32) -> BatchHead {
        let mut head = BatchHead([0; 61]);
        head.set_producer_id(id);
        head.set_producer_epoch(epoch);
        head.set_base_sequence(first);
        head.set_last_offset_delta(count - 1);
        head
    }

    fn append(table: &mut ProducerTable, h: &BatchHead, base: i64) {
        assert_eq!(table.judge(h), Verdict::Append);
        table.note(h, Offset(base), Offset(base + i64::from(h.last_offset_delta())));
    }

    #[test]
    fn producers_are_told_as_far_as_they_are_durable() {
        let mut t = ProducerTable::default();
        append(&mut t, &head(9, 0, 0, 2), 0);
        append(&mut t, &head(4, 1, 0, 1), 2);
        append(&mut t, &head(9, 0, 2, 3), 3);
        let told =
            |end| t.views(Offset(end)).iter().map(|v| (v.producer_id, v.epoch, v.last_sequence)).collect::<Vec<_>>();
        assert_eq!(told(6), [(4, 1, 0), (9, 0, 4)]);
        assert_eq!(told(3), [(4, 1, 0), (9, 0, 1)]);
        assert_eq!(told(0), []);
    }

    #[test]
    fn sequences_must_follow_and_repetitions_are_known() {
        let mut t = ProducerTable::default();
        for n in 0..6 {
            append(&mut t, &head(1, 0, n * 10, 10), i64::from(n) * 10);
        }
        assert!(matches!(t.judge(&head(1, 0, 50, 10)), Verdict::Duplicate(b) if b.base_offset == Offset(50)));
        assert!(matches!(t.judge(&head(1, 0, 10, 10)), Verdict::Duplicate(b) if b.base_offset == Offset(10)));
        assert_eq!(t.judge(&head(1, 0, 0, 10)), Verdict::OutOfOrder, "the sixth batch back is forgotten");
        assert_eq!(t.judge(&head(1, 0, 50, 5)), Verdict::OutOfOrder, "same start, other end");
        assert_eq!(t.judge(&head(1, 0, 61, 1)), Verdict::OutOfOrder, "a gap");
        assert_eq!(t.judge(&head(1, 0, 60, 1)), Verdict::Append);
    }

    #[test]
    fn epochs_fence_and_restart_at_zero() {
        let mut t = ProducerTable::default();
        append(&mut t, &head(1, 3, 5, 1), 0);
        assert_eq!(t.judge(&head(1, 2, 6, 1)), Verdict::OldEpoch);
        assert_eq!(t.judge(&head(1, 4, 6, 1)), Verdict::OutOfOrder);
        append(&mut t, &head(1, 4, 0, 1), 1);
        assert_eq!(t.judge(&head(1, 3, 5, 1)), Verdict::OldEpoch);
    }

    #[test]
    fn a_sequence_wraps_to_zero() {
        let mut t = ProducerTable::default();
        append(&mut t, &head(1, 0, i32::MAX - 1, 2), 0);
        append(&mut t, &head(1, 0, 0, 1), 2);
    }

    #[test]
    fn a_commit_claims_nothing_beyond_its_range() {
        let mut t = ProducerTable::default();
        append(&mut t, &head(2, 0, 0, 10), 0);
        append(&mut t, &head(1, 0, 0, 10), 10);
        append(&mut t, &head(2, 0, 10, 10), 20);
        let at_19 = t.touched(Offset(0), Offset(19));
        assert_eq!(at_19.iter().map(|e| (e.producer_id, e.window.len())).collect::<Vec<_>>(), vec![(1, 1), (2, 1)]);
        let tail = t.touched(Offset(20), Offset(29));
        assert_eq!(tail.iter().map(|e| (e.producer_id, e.window.len())).collect::<Vec<_>>(), vec![(2, 2)]);
    }
}
