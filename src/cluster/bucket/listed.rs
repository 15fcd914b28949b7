//! What manifests list, read to be compared with the rest of the metadata and with the bucket.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use thalweg_objectstore::ObjectStore;
use thalweg_record::{Offset, PartitionId};
use thalweg_shards::meta::{CommitRange, CommittedObject, ObjectCommit, ObjectId};

use super::release;
use crate::cluster::{
    catalog::{Catalog, Folded, Object},
    partition::Manifest,
};

/// Manifests read at once.
const AT_ONCE: usize = 8;

/// What all manifests list.
#[derive(Default)]
pub(super) struct Listed {
    /// What those list that count.
    pub(super) live: Vec<(PartitionId, CommittedObject)>,
    /// What those list whose entries are to be released.
    dead: Vec<(PartitionId, CommittedObject)>,
    /// Manifests that cannot be read, and why.
    pub(super) unreadable: Vec<(ObjectId, String)>,
}

impl Listed {
    /// Reads all manifests.
    pub(super) async fn read(objects: &dyn ObjectStore, catalog: &Catalog) -> Listed {
        let mut manifests: Vec<(bool, PartitionId, Manifest)> = Vec::new();
        for (id, partition) in catalog.partitions() {
            manifests.extend(partition.manifests.values().map(|manifest| (true, id, manifest.clone())));
        }
        manifests.extend(catalog.dead_manifests.values().map(|(id, manifest)| (false, *id, manifest.clone())));
        let reads = manifests.into_iter().map(|(live, id, manifest)| async move {
            let found = release::read(objects, id, &manifest.of).await;
            (live, id, manifest, found)
        });
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        let mut listed = Listed::default();
        while let Some((live, id, manifest, found)) = reads.next().await {
            match found {
                Ok(entries) if live => listed.live.extend(entries.into_iter().map(|entry| (id, entry))),
                Ok(entries) => listed.dead.extend(entries.into_iter().map(|entry| (id, entry))),
                Err(why) => {
                    let why = format!("manifest {} of {id}: {why}", manifest.of.key);
                    listed.unreadable.push((manifest.of.id, why));
                }
            }
        }
        listed
    }

    /// Adds to what records say of objects what is listed of them.
    pub(super) fn add_to(&self, commits: &mut BTreeMap<ObjectId, ObjectCommit>) {
        for (partition, entry) in &self.live {
            let commit = commits.entry(entry.object).or_insert_with(|| ObjectCommit {
                object: entry.object,
                key: entry.key.clone(),
                object_bytes: entry.object_bytes,
                ranges: Vec::new(),
            });
            let known = |range: &CommitRange| range.partition == *partition && range.base == entry.base;
            if !commit.ranges.iter().any(known) {
                commit.ranges.push(CommitRange {
                    partition: *partition,
                    base: entry.base,
                    last: entry.last,
                    size_bytes: entry.size_bytes,
                    max_timestamp: entry.max_timestamp,
                    epochs: Vec::new(),
                    producers: Vec::new(),
                });
            }
        }
    }

    /// Objects of which not as much is listed as the metadata says: they would go too early, or never.
    pub(super) fn miscounted(&self, catalog: &Catalog, problems: &mut Vec<String>) {
        if !self.unreadable.is_empty() {
            return;
        }
        let mut counted: BTreeMap<ObjectId, Folded> = BTreeMap::new();
        for (_, entry) in self.live.iter().chain(&self.dead) {
            let folded = counted.entry(entry.object).or_default();
            folded.ranges += 1;
            folded.bytes += entry.size_bytes;
        }
        let said = |id: &ObjectId| catalog.objects.get(id).map(|object| object.folded).unwrap_or_default();
        let ids: BTreeSet<ObjectId> = catalog.objects.keys().chain(counted.keys()).copied().collect();
        for id in ids {
            let (said, found) = (said(&id), counted.get(&id).copied().unwrap_or_default());
            if said != found {
                let (said, found) = (said.ranges, found.ranges);
                problems
                    .push(format!("object {}: manifests list {found} ranges of it, the metadata says {said}", id.0));
            }
        }
        for (id, entry) in &self.live {
            let same = |object: &Object| {
                (&object.key, object.bytes, object.level) == (&entry.key, entry.object_bytes, entry.level)
            };
            if !catalog.objects.get(&entry.object).is_some_and(same) {
                problems.push(format!("object {}: a manifest of {id} says something else of it", entry.key));
            }
        }
    }

    /// What is listed of each partition: first and last offset, and the object.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (PartitionId, Offset, Offset, ObjectId)> + '_ {
        self.live.iter().map(|(id, entry)| (*id, entry.base, entry.last, entry.object))
    }
}
