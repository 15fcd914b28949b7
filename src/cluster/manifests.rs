//! Manifests in the ledger: a partition's oldest entries give their place to one reference to a list of them in the bucket.
//!
//! An object that manifests list ranges of has a record of how many (`folded/`); what its own record names of them does not count. That
//! record goes when manifests list all that is live in it, so the head of the partition, which sums up what it said of ends, epochs and
//! producers, is written with each fold. Which objects a manifest lists only the manifest knows: when it lies below the log start it is
//! dead, and stays until it was read and what it lists was released ([`super::bucket`]).

use std::collections::{BTreeMap, BTreeSet};

use thalweg_record::{PartitionId, ShardId};
use thalweg_shards::meta::{CommittedObject, Fold, FoldOutcome, ManifestRef, ObjectId};
#[cfg(feature = "planted-bugs")]
use thalweg_wal::{Bug, planted};

use super::{
    catalog::{Catalog, Folded, Garbage, Released},
    keys,
    ledger::{Fault, Ledger},
    load,
    partition::{Manifest, Part, Partition},
    schema::{self, GarbageRecord, ManifestRecord, ObjectRecord},
    store::{Compare, Write},
};

impl Ledger {
    /// Does a fold, or nothing of it. Durable after the next sync.
    pub(super) fn fold(&mut self, shard: ShardId, what: &Fold) -> Result<FoldOutcome, Fault> {
        let known = self.catalog.partition(what.partition).and_then(|p| p.manifest(what.manifest));
        if let Some(known) = known {
            return Ok(FoldOutcome::Folded(known.of.clone()));
        }
        let gone = self.catalog.is_manifest(what.manifest) || self.catalog.garbage.contains_key(&what.manifest);
        let Some((first, block)) = self.catalog.block_of(what.manifest).filter(|_| !gone) else {
            return Ok(FoldOutcome::Unreserved);
        };
        let block = Compare::Value(keys::block(first), schema::encode(block));
        let Some((partition, manifest)) = self.catalog.folded(what, (shard.0, self.epoch())) else {
            self.drop_reserved(shard, what.manifest, block)?;
            return Ok(FoldOutcome::Changed);
        };
        let listed = self.catalog.listed_with(what);
        let place = keys::manifest(what.partition, manifest.of.base);
        let mut compares = vec![block, Compare::Absent(place.clone())];
        let revision = |id: &ObjectId| Compare::Revision(keys::object(*id), self.catalog.objects[id].revision);
        compares.extend(listed.keys().map(revision));
        let mut writes = vec![
            Write::Put(place, schema::encode(&ManifestRecord::new(what.partition, &manifest))),
            Write::Put(keys::head(what.partition), schema::encode(&partition.head())),
        ];
        let mut bare = BTreeSet::new();
        for (id, folded) in &listed {
            let object = &self.catalog.objects[id];
            writes.push(Write::Put(keys::folded(*id), schema::encode(&object.folded_record(*folded))));
            if object.live == folded.ranges {
                writes.push(Write::Delete(keys::object(*id)));
                bare.insert(*id);
            }
        }
        match self.try_write(compares, &writes) {
            Ok(Some(_)) => {}
            // Nobody else writes here, so that the catalog knows what is compared; but if so, nothing is done.
            Ok(None) => return Ok(FoldOutcome::Unreserved),
            Err(Fault::Fenced(_)) => return Ok(FoldOutcome::Fenced),
            Err(fault) => return Err(fault),
        }
        for (id, folded) in listed {
            let object = self.catalog.objects.get_mut(&id).expect("it was looked at");
            object.folded = folded;
            object.recorded &= !bare.contains(&id);
        }
        *self.catalog.partition_mut(what.partition).expect("it was looked at") = partition;
        self.catalog.manifests.insert(what.manifest);
        Ok(FoldOutcome::Folded(manifest.of))
    }

    /// Has a partition's newest manifest, which lists `entries`, give its place back to them: all or nothing. Durable after the next sync.
    pub(super) fn unfold(
        &mut self,
        id: PartitionId,
        manifest: ObjectId,
        entries: &[CommittedObject],
    ) -> Result<bool, Fault> {
        let Some(before) = self.catalog.partition(id) else { return Ok(false) };
        let newest = before.manifests.values().next_back().filter(|newest| newest.of.id == manifest).cloned();
        let Some(newest) = newest.filter(|newest| self.catalog.lists(&newest.of, entries)) else { return Ok(false) };
        let mut partition = before.clone();
        partition.manifests.pop_last();
        let live = entries.iter().filter(|entry| entry.last >= partition.log_start);
        let live: Vec<&CommittedObject> = live.collect();
        let named = self.named_again(id, &live)?;
        for entry in live {
            let CommittedObject { object, last, size_bytes, max_timestamp, .. } = *entry;
            partition.parts.insert(entry.base, Part { object, last, size_bytes, max_timestamp });
        }
        let dead = entries.iter().filter(|entry| entry.last < partition.log_start);
        let dead: Vec<(ObjectId, u64)> = dead.map(|entry| (entry.object, entry.size_bytes)).collect();
        let mut writes = vec![
            Write::Delete(keys::manifest(id, newest.of.base)),
            Write::Put(keys::head(id), schema::encode(&partition.head())),
        ];
        writes.extend(self.unlist(entries));
        for object in named.keys() {
            self.catalog.objects.get_mut(object).expect("it is listed").recorded = true;
        }
        let released = self.catalog.release(dead);
        writes.extend(named.iter().map(|(id, record)| Write::Put(keys::object(*id), schema::encode(record))));
        writes.extend(self.released_writes(released));
        writes.extend(self.bury_manifest(&newest));
        self.catalog.manifests.remove(&manifest);
        *self.catalog.partition_mut(id).expect("looked up before") = partition;
        let revision = self.write(vec![], &writes)?;
        for object in named.keys() {
            if let Some(object) = self.catalog.objects.get_mut(object) {
                object.revision = revision;
            }
        }
        Ok(true)
    }

    /// The records of objects that do not name these parts of a partition any more, so that they do.
    fn named_again(
        &self,
        id: PartitionId,
        entries: &[&CommittedObject],
    ) -> Result<BTreeMap<ObjectId, ObjectRecord>, Fault> {
        let mut records = BTreeMap::new();
        for entry in entries {
            let object = &self.catalog.objects[&entry.object];
            let found = match object.recorded {
                true => load::record::<ObjectRecord>(&*self.store(), &keys::object(entry.object)),
                false => Ok(None),
            };
            let found = found.map_err(|error| Fault::Damaged(error.to_string()))?.map(|(record, _)| record);
            let record = found.unwrap_or_else(|| ObjectRecord::without_ranges(object));
            if !record.names(id, entry) {
                records.insert(entry.object, record.naming(id, entry));
            }
        }
        Ok(records)
    }

    /// These manifests of a partition list nothing live any more: they wait until what they list was released.
    pub(super) fn kill_manifests(&mut self, partition: PartitionId, manifests: Vec<Manifest>) -> Vec<Write> {
        let mut writes = Vec::new();
        for manifest in manifests {
            let id = manifest.of.id;
            writes.push(Write::Delete(keys::manifest(partition, manifest.of.base)));
            self.catalog.manifests.remove(&id);
            #[cfg(feature = "planted-bugs")]
            if planted(Bug::ManifestForgotten) {
                continue;
            }
            let record = ManifestRecord::new(partition, &manifest);
            writes.push(Write::Put(keys::dead_manifest(id), schema::encode(&record)));
            self.catalog.dead_manifests.insert(id, (partition, manifest));
        }
        writes
    }

    /// Releases what a dead manifest lists; it is garbage then, and so are objects of which nothing else is live. The inner error says
    /// why that cannot be what it lists; nothing was done then.
    pub(super) fn release_manifest(
        &mut self,
        id: ObjectId,
        listed: &[CommittedObject],
    ) -> Result<Result<(), String>, Fault> {
        let Some((_, manifest)) = self.catalog.dead_manifests.get(&id).cloned() else { return Ok(Ok(())) };
        if !self.catalog.lists(&manifest.of, listed) {
            return Ok(Err("it does not list what the metadata says".to_owned()));
        }
        let mut writes = vec![Write::Delete(keys::dead_manifest(id))];
        writes.extend(self.unlist(listed));
        let ranges = listed.iter().map(|entry| (entry.object, entry.size_bytes)).collect();
        let released = self.catalog.release(ranges);
        writes.extend(self.released_writes(released));
        writes.extend(self.bury_manifest(&manifest));
        self.catalog.dead_manifests.remove(&id);
        self.write(vec![], &writes)?;
        Ok(Ok(()))
    }

    /// Takes entries off what manifests list of their objects.
    fn unlist(&mut self, entries: &[CommittedObject]) -> Vec<Write> {
        let mut touched = BTreeSet::new();
        for entry in entries {
            let object = self.catalog.objects.get_mut(&entry.object).expect("it is listed");
            object.folded.ranges -= 1;
            object.folded.bytes -= entry.size_bytes;
            touched.insert(entry.object);
        }
        let write = |id: &ObjectId| {
            let object = &self.catalog.objects[id];
            match object.folded.ranges {
                0 => Write::Delete(keys::folded(*id)),
                _ => Write::Put(keys::folded(*id), schema::encode(&object.folded_record(object.folded))),
            }
        };
        touched.iter().map(write).collect()
    }

    fn bury_manifest(&mut self, manifest: &Manifest) -> Option<Write> {
        let record = GarbageRecord::dead_manifest(manifest);
        let write = Write::Put(keys::garbage(manifest.of.id), schema::encode(&record));
        self.catalog.garbage.insert(manifest.of.id, Garbage { record, handed: false });
        Some(write)
    }

    /// The writes that follow from ranges that died.
    pub(super) fn released_writes(&mut self, released: Released) -> Vec<Write> {
        let Released { dead, bare } = released;
        let mut writes = self.garbage_writes(dead);
        writes.extend(bare.into_iter().map(|id| Write::Delete(keys::object(id))));
        writes
    }
}

impl Catalog {
    /// The partition after a fold, and its new manifest; `None` when what is folded is not all there, or not its oldest.
    fn folded(&self, what: &Fold, (shard, epoch): (u16, i32)) -> Option<(Partition, Manifest)> {
        let before = self.partition(what.partition)?;
        let (base, last) = (what.parts.first()?.1, what.parts.last()?.2);
        let holds = before.holds(base, last, &what.parts);
        #[cfg(feature = "planted-bugs")]
        let holds = holds || planted(Bug::FoldUnchecked);
        let oldest = before.parts.keys().next() == Some(&base);
        if !holds || !oldest || before.folded_end().is_some_and(|end| end != base) {
            return None;
        }
        let mut partition = before.clone();
        let (mut entries, mut size_bytes, mut max_timestamp) = (0, 0, None);
        for (_, base, _) in &what.parts {
            let part = partition.parts.remove(base)?;
            entries += 1;
            size_bytes += part.size_bytes;
            max_timestamp = max_timestamp.max(Some(part.max_timestamp));
        }
        let (id, key, bytes, max_timestamp) = (what.manifest, what.key.clone(), what.bytes, max_timestamp?);
        let of = ManifestRef { id, key, bytes, base, last, entries, size_bytes, max_timestamp };
        let manifest = Manifest { of, shard, epoch };
        partition.manifests.insert(base, manifest.clone());
        Some((partition, manifest))
    }

    /// What manifests list of the objects of a fold when it is done.
    fn listed_with(&self, what: &Fold) -> BTreeMap<ObjectId, Folded> {
        let mut listed: BTreeMap<ObjectId, Folded> = BTreeMap::new();
        let parts = self.partition(what.partition).map(|partition| &partition.parts);
        for (_, base, _) in &what.parts {
            let Some(part) = parts.and_then(|parts| parts.get(base)) else { continue };
            let folded = listed.entry(part.object).or_insert(self.objects[&part.object].folded);
            folded.ranges += 1;
            folded.bytes += part.size_bytes;
        }
        listed
    }

    /// Whether `entries` can be what a manifest lists.
    fn lists(&self, of: &ManifestRef, entries: &[CommittedObject]) -> bool {
        let mut taken: BTreeMap<ObjectId, Folded> = BTreeMap::new();
        for entry in entries {
            let taken = taken.entry(entry.object).or_default();
            taken.ranges += 1;
            taken.bytes += entry.size_bytes;
        }
        let known = |(id, taken): (&ObjectId, &Folded)| {
            let folded = self.objects.get(id).map(|object| object.folded);
            folded.is_some_and(|folded| taken.ranges <= folded.ranges && taken.bytes <= folded.bytes)
        };
        of.lists(entries) && taken.iter().all(known)
    }
}

impl Partition {
    fn manifest(&self, id: ObjectId) -> Option<&Manifest> {
        self.manifests.values().find(|manifest| manifest.of.id == id)
    }
}

#[cfg(test)]
mod tests;
