//! What the metadata knows of one partition: a pure value, built from its head and the commits after it.

use std::collections::BTreeMap;

use thalweg_record::{LeaderEpoch, Offset, Wall};
use thalweg_shards::{
    meta::{CommitRange, ManifestRef, ObjectId},
    msg::ProducerEntry,
};

use super::schema::{self, HeadRecord};

/// The part of a committed object that belongs to one partition; its first offset is the key it is kept under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) object: ObjectId,
    pub(super) last: Offset,
    pub(super) size_bytes: u64,
    pub(super) max_timestamp: Wall,
}

/// A manifest, and who wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Manifest {
    pub(super) of: ManifestRef,
    pub(super) shard: u16,
    pub(super) epoch: i32,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Partition {
    pub(super) log_start: Offset,
    /// First offset that was never committed.
    pub(super) committed_end: Offset,
    /// Leader epochs and their first offsets, ascending.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers at the committed end.
    pub(super) producers: BTreeMap<i64, ProducerEntry>,
    /// First offset that no log cleaning has seen.
    pub(super) cleaned: Offset,
    /// Where loss was accepted, and the epoch that the log goes on with: what earlier ones have from there on counts no more.
    pub(super) cut: Option<(LeaderEpoch, Offset)>,
    /// Manifests that list something live, by first offset, contiguous; the parts go on where they end.
    pub(super) manifests: BTreeMap<Offset, Manifest>,
    /// Live parts that no manifest lists, by first offset, contiguous.
    pub(super) parts: BTreeMap<Offset, Part>,
}

impl Partition {
    /// As it was when the head was written, without its parts.
    pub(super) fn from_head(head: &HeadRecord) -> Partition {
        Partition {
            log_start: Offset(head.log_start),
            committed_end: Offset(head.committed_end),
            epochs: head.epochs.iter().map(schema::epoch).collect(),
            producers: head.producers.iter().map(|row| (row.0, schema::producer(row))).collect(),
            cleaned: Offset(head.cleaned),
            cut: head.cut.as_ref().map(schema::epoch),
            manifests: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Its head, as of now.
    pub(super) fn head(&self) -> HeadRecord {
        HeadRecord {
            log_start: self.log_start.0,
            committed_end: self.committed_end.0,
            epochs: self.epochs.iter().map(|(e, o)| (e.0, o.0)).collect(),
            producers: self.producers.values().map(schema::producer_row).collect(),
            cleaned: self.cleaned.0,
            cut: self.cut.map(|(epoch, at)| (epoch.0, at.0)),
            folded: self.folded_end().unwrap_or_default().0,
        }
    }

    /// First offset that no manifest lists, if there are manifests.
    pub(super) fn folded_end(&self) -> Option<Offset> {
        self.manifests.values().next_back().map(|manifest| manifest.of.last.next())
    }

    /// Whether a manifest lists what holds these offsets.
    pub(super) fn is_folded(&self, base: Offset, last: Offset) -> bool {
        self.manifests.range(..=base).next_back().is_some_and(|(_, manifest)| last <= manifest.of.last)
    }

    /// Takes out the manifests of which nothing is live.
    pub(super) fn take_dead_manifests(&mut self) -> Vec<Manifest> {
        let mut dead = Vec::new();
        while let Some(first) = self.manifests.first_entry().filter(|m| m.get().of.last < self.log_start) {
            dead.push(first.remove());
        }
        dead
    }

    /// Whether the next range may begin at `base`: at the committed end, or beyond it where all in between is deleted, for what lay there
    /// may be lost (`--accept-loss`). A log start may lie inside of a batch, so that a log goes on before it too.
    pub(super) fn goes_on_at(&self, base: Offset) -> bool {
        (self.committed_end..=self.log_start.max(self.committed_end)).contains(&base)
    }

    /// Takes the next range: it starts at the committed end. Answers whether the range is live, or lies below the log
    /// start altogether.
    pub(super) fn append(&mut self, object: ObjectId, range: &CommitRange) -> bool {
        assert!(self.goes_on_at(range.base) && range.last >= range.base, "ranges are checked before");
        self.extend(object, range)
    }

    /// As [`Partition::append`], of a range that begins below the committed end and ends beyond it: compaction has joined what the head
    /// had summed up and what came after.
    pub(super) fn extend(&mut self, object: ObjectId, range: &CommitRange) -> bool {
        let summed_up = self.committed_end;
        self.committed_end = range.last.next();
        for &(epoch, first) in &range.epochs {
            if self.epochs.last().is_none_or(|(newest, _)| *newest < epoch) {
                self.epochs.push((epoch, first));
            }
        }
        // Who appended below the head alone is in the head, unless it was forgotten.
        let later = |p: &&ProducerEntry| range.base >= summed_up || p.window.iter().any(|b| b.last_offset >= summed_up);
        self.producers.extend(range.producers.iter().filter(later).map(|p| (p.producer_id, p.clone())));
        self.locate(object, range)
    }

    /// Whether `parts` (object, first and last offset) are what lies in `base..=last`, side by side.
    pub(super) fn holds(&self, base: Offset, last: Offset, parts: &[(ObjectId, Offset, Offset)]) -> bool {
        let side_by_side = parts.windows(2).all(|pair| pair[0].2.next() == pair[1].1);
        let ends = parts.first().is_some_and(|part| part.1 == base) && parts.last().is_some_and(|part| part.2 == last);
        let found = self.parts.range(base..=last).map(|(base, part)| (part.object, *base, part.last));
        base <= last && side_by_side && ends && found.eq(parts.iter().copied())
    }

    /// The leader epochs in force somewhere in `base..=last`, as far as they are known.
    pub(super) fn epochs_in(&self, base: Offset, last: Offset) -> Vec<(LeaderEpoch, Offset)> {
        let from = self.epochs.iter().rposition(|(_, first)| *first <= base).unwrap_or(0);
        self.epochs[from..].iter().filter(|(_, first)| *first <= last).copied().collect()
    }

    /// Whether something of a range lies at or above the log start.
    pub(super) fn is_live(&self, range: &CommitRange) -> bool {
        range.last >= self.log_start
    }

    /// Takes a range that the head has summed up already; otherwise as [`Partition::append`].
    pub(super) fn locate(&mut self, object: ObjectId, range: &CommitRange) -> bool {
        let live = self.is_live(range);
        if live {
            let (last, size_bytes, max_timestamp) = (range.last, range.size_bytes, range.max_timestamp);
            self.parts.insert(range.base, Part { object, last, size_bytes, max_timestamp });
        }
        live
    }

    /// Forgets producers whose greatest timestamp lies before `before`, except those that appended in `range`.
    pub(super) fn expire_producers(&mut self, before: Wall, range: &CommitRange) {
        self.producers
            .retain(|id, p| p.last_timestamp >= before || range.producers.iter().any(|r| r.producer_id == *id));
    }

    /// Raises the log start (the caller checks that it does rise) and answers the objects whose part here is dead now,
    /// with its bytes.
    pub(super) fn raise(&mut self, log_start: Offset) -> Vec<(ObjectId, u64)> {
        self.log_start = log_start;
        // The epoch in force at the log start stays; older ones answer nothing any more.
        let in_force = self.epochs.iter().rposition(|(_, first)| *first <= log_start).unwrap_or(0);
        self.epochs.drain(..in_force);
        let mut dead = Vec::new();
        while let Some(first) = self.parts.first_entry().filter(|p| p.get().last < log_start) {
            let part = first.remove();
            dead.push((part.object, part.size_bytes));
        }
        dead
    }

    /// The leader epoch of the record at `offset`.
    pub(super) fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        self.epochs.iter().rev().find(|(_, first)| *first <= offset).map_or(LeaderEpoch(0), |(epoch, _)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use thalweg_record::PartitionId;

    use super::*;

    fn range(base: i64, last: i64, epoch: i32) -> CommitRange {
        let producers =
            vec![ProducerEntry { producer_id: base, epoch: 0, window: Vec::new(), last_timestamp: Wall(base * 100) }];
        CommitRange {
            partition: PartitionId::default(),
            base: Offset(base),
            last: Offset(last),
            size_bytes: 10,
            max_timestamp: Wall(0),
            epochs: vec![(LeaderEpoch(epoch), Offset(base))],
            producers,
        }
    }

    #[test]
    fn an_emptied_partition_keeps_its_end_epochs_and_producers() {
        let mut partition = Partition::default();
        assert!(partition.append(ObjectId(1), &range(0, 9, 1)));
        assert!(partition.append(ObjectId(2), &range(10, 19, 3)));
        assert_eq!(partition.epoch_at(Offset(9)), LeaderEpoch(1));
        assert_eq!(partition.epoch_at(Offset(10)), LeaderEpoch(3));
        assert_eq!(partition.raise(Offset(10)), [(ObjectId(1), 10)]);
        assert_eq!(partition.epochs, [(LeaderEpoch(3), Offset(10))]);
        assert_eq!(partition.raise(Offset(20)), [(ObjectId(2), 10)]);
        let again = Partition::from_head(&partition.head());
        assert_eq!(again, partition);
        assert_eq!((again.log_start, again.committed_end), (Offset(20), Offset(20)));
        assert_eq!(again.producers.len(), 2);
        partition.cut = Some((LeaderEpoch(4), Offset(20)));
        assert_eq!(Partition::from_head(&partition.head()), partition);
    }

    #[test]
    fn a_part_that_holds_the_log_start_stays() {
        let mut partition = Partition::default();
        partition.append(ObjectId(1), &range(0, 9, 1));
        assert!(partition.raise(Offset(9)).is_empty());
        assert_eq!(partition.raise(Offset(15)), [(ObjectId(1), 10)]);
        assert!(!partition.append(ObjectId(2), &range(10, 14, 1)), "below the log start");
        assert_eq!(partition.committed_end, Offset(15));
    }

    #[test]
    fn a_range_begins_at_the_end_or_where_all_before_it_is_deleted() {
        let mut partition = Partition::default();
        partition.append(ObjectId(1), &range(0, 19, 1));
        let goes_on =
            |partition: &Partition| (0..50).filter(|at| partition.goes_on_at(Offset(*at))).collect::<Vec<_>>();
        assert_eq!(goes_on(&partition), [20]);
        partition.raise(Offset(10));
        assert_eq!(goes_on(&partition), [20]);
        partition.raise(Offset(23));
        assert_eq!(goes_on(&partition), [20, 21, 22, 23]);
        assert!(partition.append(ObjectId(2), &range(22, 29, 1)), "the log start lies inside of a batch");
        assert_eq!(goes_on(&partition), [30]);
    }

    #[test]
    fn producers_expire_unless_they_just_appended() {
        let mut partition = Partition::default();
        partition.append(ObjectId(1), &range(0, 9, 1));
        partition.append(ObjectId(2), &range(10, 19, 1));
        partition.append(ObjectId(3), &range(20, 29, 1));
        partition.expire_producers(Wall(1500), &range(0, 9, 1));
        assert_eq!(partition.producers.keys().copied().collect::<Vec<_>>(), [0, 20]);
    }
}
