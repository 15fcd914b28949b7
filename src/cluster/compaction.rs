//! Compaction in the ledger: one object takes the place of parts of others, in one transaction that compares all of them.
//!
//! The records of the others do not change: they go on naming what they gave away, until nothing in them is live and they become
//! garbage. What is in force is told by the level ([`super::load::in_force`]).

use std::collections::{BTreeMap, BTreeSet};

use thalweg_record::{Offset, PartitionId, ShardId};
use thalweg_shards::meta::{CommitRange, CompactedRange, Compaction, CompactionOutcome, ObjectCommit, ObjectId};

#[cfg(feature = "planted-bugs")]
use thalweg_wal::{Bug, planted};

use super::{
    catalog::{Catalog, Garbage, Object},
    keys,
    ledger::{Fault, Ledger},
    schema::{self, GarbageRecord, ObjectRecord},
    store::{Compare, Write},
};

/// The most objects that [`Ledger::mostly_dead`] names at once.
const MOSTLY_DEAD: usize = 16;

impl Ledger {
    /// Does a compaction, or nothing of it. Durable after the next sync.
    pub(super) fn compact(&mut self, shard: ShardId, what: &Compaction) -> Result<CompactionOutcome, Fault> {
        let known = self.compacted_before(what);
        #[cfg(feature = "planted-bugs")]
        let known = known.filter(|_| !planted(Bug::OutputTwice));
        if let Some(outcome) = known {
            return Ok(outcome);
        }
        let Some((first, block)) = self.catalog.block_of(what.object) else { return Ok(CompactionOutcome::Unreserved) };
        let block = Compare::Value(keys::block(first), schema::encode(block));
        let changed = self.catalog.changed(what);
        #[cfg(feature = "planted-bugs")]
        let changed = if planted(Bug::InputChanged) { BTreeSet::new() } else { changed };
        if !changed.is_empty() || what.ranges.is_empty() {
            if what.ranges.iter().all(|r| changed.contains(&r.range.partition)) {
                self.drop_reserved(shard, what.object, block)?;
            }
            return Ok(CompactionOutcome::Changed(changed.into_iter().collect()));
        }
        let inputs: BTreeSet<ObjectId> = what.ranges.iter().flat_map(|r| r.parts.iter().map(|part| part.0)).collect();
        let mut compares = vec![block, Compare::Absent(keys::object(what.object))];
        compares
            .extend(inputs.iter().map(|id| Compare::Revision(keys::object(*id), self.catalog.objects[id].revision)));
        #[cfg(feature = "planted-bugs")]
        compares.retain(|c| !(planted(Bug::OutputTwice) && matches!(c, Compare::Absent(_))));
        let level = 1 + inputs.iter().map(|id| self.catalog.objects[id].level).max().unwrap_or(0);
        let commit = self.catalog.with_epochs(what);
        let record = ObjectRecord::new(&commit, shard.0, self.epoch()).at_level(level);
        let emptied = self.catalog.emptied(what);
        let mut writes = vec![Write::Put(keys::object(what.object), schema::encode(&record))];
        for (id, record) in &emptied {
            writes.push(Write::Delete(keys::object(*id)));
            writes.push(Write::Put(keys::garbage(*id), schema::encode(record)));
        }
        writes.extend(self.catalog.bared(what).into_iter().map(|id| Write::Delete(keys::object(id))));
        let revision = match self.try_write(compares, &writes) {
            Ok(Some(revision)) => revision,
            // Nobody else writes here, so that the catalog knows what is compared; but if so, nothing is done.
            Ok(None) => return Ok(CompactionOutcome::Unreserved),
            Err(Fault::Fenced(_)) => return Ok(CompactionOutcome::Fenced),
            Err(fault) => return Err(fault),
        };
        let object = Object::new(&commit, (shard.0, self.epoch(), level), revision);
        self.catalog.replace(what, &commit.ranges, object);
        self.catalog.garbage.extend(emptied.into_iter().map(|(id, record)| (id, Garbage { record, handed: false })));
        Ok(CompactionOutcome::Committed(level))
    }

    /// Records how far log cleaning has seen a partition, if it had been seen up to `from`; durable after the next sync. A repetition is
    /// fine. The head that bears it sums up what is committed by now, as every head does.
    pub(super) fn move_dirty_point(&mut self, id: PartitionId, from: Offset, to: Offset) -> Result<bool, Fault> {
        let Some(partition) = self.catalog.partition_mut(id) else { return Ok(false) };
        if partition.cleaned == to {
            return Ok(true);
        }
        if partition.cleaned != from || to < from || to > partition.committed_end {
            return Ok(false);
        }
        partition.cleaned = to;
        let head = schema::encode(&partition.head());
        self.write(vec![], &[Write::Put(keys::head(id), head)])?;
        Ok(true)
    }

    /// The outcome of a compaction whose object is known already.
    fn compacted_before(&self, what: &Compaction) -> Option<CompactionOutcome> {
        if self.catalog.garbage.contains_key(&what.object) {
            return Some(CompactionOutcome::Unreserved);
        }
        let known = self.catalog.objects.get(&what.object)?;
        let has = |r: &CompactedRange| {
            let whole = [(what.object, r.range.base, r.range.last)];
            self.catalog.partition(r.range.partition).is_some_and(|p| p.holds(r.range.base, r.range.last, &whole))
        };
        let same = known.key == what.key && what.ranges.iter().all(has);
        Some(if same { CompactionOutcome::Committed(known.level) } else { CompactionOutcome::Unreserved })
    }

    /// Objects that compaction made and of which less than half is live, by id.
    pub(super) fn mostly_dead(&self) -> Vec<ObjectId> {
        // What manifests list stays where it is.
        let movable = |object: &&Object| object.folded.ranges == 0;
        let dying =
            |object: &&Object| object.level > 0 && object.live_bytes < object.range_bytes / 2 && movable(object);
        let dying = self.catalog.objects.iter().filter(|(_, object)| dying(object));
        dying.map(|(id, _)| *id).take(MOSTLY_DEAD).collect()
    }
}

impl Catalog {
    /// Partitions of which a part that a compaction replaces is not live, or not as it was, or that it names twice.
    fn changed(&self, what: &Compaction) -> BTreeSet<PartitionId> {
        let holds = |CompactedRange { range, parts }: &CompactedRange| {
            self.partition(range.partition).is_some_and(|p| p.holds(range.base, range.last, parts))
        };
        let mut once = BTreeSet::new();
        let changed = what.ranges.iter().filter(|r| !once.insert(r.range.partition) || !holds(r));
        changed.map(|r| r.range.partition).collect()
    }

    /// What is recorded of the new object: its ranges with the leader epochs that are in force in them.
    fn with_epochs(&self, what: &Compaction) -> ObjectCommit {
        let range = |CompactedRange { range, .. }: &CompactedRange| {
            let epochs =
                self.partition(range.partition).map(|p| p.epochs_in(range.base, range.last)).unwrap_or_default();
            CommitRange { epochs, ..range.clone() }
        };
        let ranges = what.ranges.iter().map(range).collect();
        ObjectCommit { object: what.object, key: what.key.clone(), object_bytes: what.object_bytes, ranges }
    }

    /// Objects of which a compaction takes parts, and how many.
    fn taken(what: &Compaction) -> BTreeMap<ObjectId, usize> {
        let mut taken: BTreeMap<ObjectId, usize> = BTreeMap::new();
        let parts = what.ranges.iter().flat_map(|r| &r.parts);
        parts.for_each(|(id, ..)| *taken.entry(*id).or_default() += 1);
        taken
    }

    /// Objects of which manifests list all that is live when a compaction has taken its parts.
    fn bared(&self, what: &Compaction) -> Vec<ObjectId> {
        let folded = |id: &ObjectId| self.objects.get(id).map(|object| (object.live, object.folded.ranges));
        let bared =
            |id: &ObjectId, parts: usize| folded(id).is_some_and(|(live, listed)| listed > 0 && live == parts + listed);
        Catalog::taken(what).into_iter().filter(|(id, parts)| bared(id, *parts)).map(|(id, _)| id).collect()
    }

    /// Objects of which nothing is live when a compaction has taken its parts.
    fn emptied(&self, what: &Compaction) -> BTreeMap<ObjectId, GarbageRecord> {
        let taken = Catalog::taken(what);
        let emptied = taken.iter().filter_map(|(id, parts)| {
            let object = self.objects.get(id).filter(|object| object.live == *parts)?;
            Some((*id, GarbageRecord::dead(object)))
        });
        emptied.collect()
    }

    /// Puts `object` in the place of the parts; those objects of which nothing is live any more are taken out.
    fn replace(&mut self, what: &Compaction, ranges: &[CommitRange], mut object: Object) {
        let mut released = Vec::new();
        for (CompactedRange { parts, .. }, range) in what.ranges.iter().zip(ranges) {
            let partition = self.partition_mut(range.partition).expect("it was checked");
            for (_, base, _) in parts {
                let part = partition.parts.remove(base).expect("it was checked");
                released.push((part.object, part.size_bytes));
            }
            if partition.locate(what.object, range) {
                object.live(range.size_bytes);
            }
        }
        self.release(released);
        self.objects.insert(what.object, object);
    }
}

#[cfg(test)]
pub(crate) mod tests;
