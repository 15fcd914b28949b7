//! The content of the metadata store in memory, as far as decisions need it: topics, partitions, objects, reservations.
//!
//! Pure: [`super::ledger`] writes to the store and then tells the catalog; [`super::load`] builds it at the start. This
//! broker is the only writer of what is in here; the epoch that every transaction compares makes sure of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thalweg_objectstore::ObjectKey;
use thalweg_record::{LeaderEpoch, Offset, PartitionId, ShardId, TopicId};
use thalweg_shards::{
    meta::{CommitRange, CommittedObject, ObjectCommit, ObjectId},
    msg::{PartitionSettings, PartitionSpec},
};

use super::{
    access::ScramCredentials,
    altered::Altered,
    partition::{Manifest, Partition},
    schema::{BlockRecord, FoldedRecord, GarbageRecord, OwnerRow},
    snapshot::owner_shard,
    store::Revision,
};
use crate::auth::AclBinding;

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) internal: bool,
    pub(super) overrides: BTreeMap<String, String>,
    pub(super) created: u64,
    /// Revision of its record, which changes of it compare.
    pub(super) revision: Revision,
    /// By index.
    pub(super) partitions: Vec<Partition>,
}

/// A committed object with at least one live range.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) key: ObjectKey,
    pub(super) bytes: u64,
    pub(super) shard: u16,
    pub(super) epoch: i32,
    /// Ranges that some partition still has.
    pub(super) live: usize,
    /// Their bytes.
    pub(super) live_bytes: u64,
    /// Bytes of all its ranges.
    pub(super) range_bytes: u64,
    /// How often its records were copied from object to object.
    pub(super) level: u32,
    /// Revision of its record, which names its ranges and changes only when a manifest gives one back.
    pub(super) revision: Revision,
    /// What manifests list of it.
    pub(super) folded: Folded,
    /// Whether its record is there: not when manifests list all that is live in it.
    pub(super) recorded: bool,
}

/// Live ranges of an object that manifests list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Folded {
    pub(super) ranges: usize,
    pub(super) bytes: u64,
}

impl Object {
    /// As `record` has it, with nothing live.
    pub(super) fn new(commit: &ObjectCommit, (shard, epoch, level): (u16, i32, u32), revision: Revision) -> Object {
        let range_bytes = commit.ranges.iter().map(|range| range.size_bytes).sum();
        let (key, bytes) = (commit.key.clone(), commit.object_bytes);
        let (live, live_bytes, folded, recorded) = (0, 0, Folded::default(), true);
        Object { key, bytes, shard, epoch, live, live_bytes, range_bytes, level, revision, folded, recorded }
    }

    /// What manifests list of it, as `record` has it; its other ranges are told by a record of their own.
    pub(super) fn of_folded(record: FoldedRecord) -> Result<Object, String> {
        let FoldedRecord { key, bytes, shard, epoch, level, range_bytes, ranges, listed_bytes } = record;
        Ok(Object {
            key: ObjectKey::new(key).map_err(|key| format!("bad object key {key}"))?,
            bytes,
            shard,
            epoch,
            live: ranges,
            live_bytes: listed_bytes,
            range_bytes,
            level,
            revision: Revision(0),
            folded: Folded { ranges, bytes: listed_bytes },
            recorded: false,
        })
    }

    /// What is stored of what manifests list of it.
    pub(super) fn folded_record(&self, folded: Folded) -> FoldedRecord {
        FoldedRecord {
            key: self.key.as_str().into(),
            bytes: self.bytes,
            shard: self.shard,
            epoch: self.epoch,
            level: self.level,
            range_bytes: self.range_bytes,
            ranges: folded.ranges,
            listed_bytes: folded.bytes,
        }
    }

    /// Whether its record is of no use: something is live, and manifests list all of it.
    fn is_bare(&self) -> bool {
        self.recorded && self.live > 0 && self.live == self.folded.ranges
    }

    /// One more of its ranges is live.
    pub(super) fn live(&mut self, range_bytes: u64) {
        self.live += 1;
        self.live_bytes += range_bytes;
    }
}

/// An object to be deleted.
#[derive(Clone, Debug)]
pub(super) struct Garbage {
    pub(super) record: GarbageRecord,
    /// Handed to a janitor of this process, which will say when it is gone.
    pub(super) handed: bool,
}

/// What becomes of objects when ranges in them are dead.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// Nothing is live in them.
    pub(super) dead: Vec<(ObjectId, Object)>,
    /// Manifests list all that is live in them.
    pub(super) bare: BTreeSet<ObjectId>,
}

/// The whole.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) topics: BTreeMap<TopicId, Topic>,
    pub(super) names: BTreeMap<Arc<str>, TopicId>,
    pub(super) objects: BTreeMap<ObjectId, Object>,
    /// Blocks of reserved ids, by their first.
    pub(super) blocks: BTreeMap<ObjectId, BlockRecord>,
    pub(super) garbage: BTreeMap<ObjectId, Garbage>,
    /// Ids of manifests of partitions.
    pub(super) manifests: BTreeSet<ObjectId>,
    /// Manifests whose entries are to be released.
    pub(super) dead_manifests: BTreeMap<ObjectId, (PartitionId, Manifest)>,
    /// Partitions that were moved to other shards.
    pub(super) owners: BTreeMap<PartitionId, OwnerRow>,
    /// Some partition has something in the log of a shard that does not own it.
    pub(super) loans: bool,
    /// Settings that were altered, but those of topics.
    pub(super) altered: Arc<Altered>,
    /// Access rules, and the ids of their records.
    pub(super) acls: BTreeMap<AclBinding, [u8; 16]>,
    /// What they count for together.
    pub(super) acl_bytes: usize,
    /// SCRAM credentials by user and mechanism.
    pub(super) scram: ScramCredentials,
}

impl Catalog {
    /// A partition.
    pub(super) fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.topics.get(&id.topic)?.partitions.get(usize::try_from(id.index).ok()?)
    }

    /// A partition, to change it.
    pub(super) fn partition_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.topics.get_mut(&id.topic)?.partitions.get_mut(usize::try_from(id.index).ok()?)
    }

    /// All partitions, by topic id and index.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.topics.iter().flat_map(|(topic, found)| {
            let id = |index| PartitionId { topic: *topic, index };
            (0..).map(id).zip(&found.partitions)
        })
    }

    /// The shard that a partition was moved to when the broker had as many shards, and where its identity does not put it.
    pub(super) fn moved_to(&self, id: PartitionId, shards: u16) -> Option<ShardId> {
        let row = self.owners.get(&id).filter(|row| row.shards == shards && row.shard < shards)?;
        Some(ShardId(row.shard)).filter(|shard| *shard != owner_shard(id, shards))
    }

    /// The shard that owns a partition.
    pub(super) fn owner(&self, id: PartitionId, shards: u16) -> ShardId {
        self.moved_to(id, shards).unwrap_or_else(|| owner_shard(id, shards))
    }

    /// The block that holds a reserved id.
    pub(super) fn block_of(&self, object: ObjectId) -> Option<(ObjectId, &BlockRecord)> {
        let (first, block) = self.blocks.range(..=object).next_back()?;
        (object.0 - first.0 < u64::from(block.count)).then_some((*first, block))
    }

    /// Whether the range's partition exists, and the range is live in it.
    pub(super) fn is_live(&self, range: &CommitRange) -> bool {
        self.partition(range.partition).is_some_and(|partition| partition.is_live(range))
    }

    /// Ranges that do not fit: their partition, and where it ends (`None`: it does not exist).
    pub(super) fn mismatches(&self, ranges: &[CommitRange]) -> Vec<(PartitionId, Option<Offset>)> {
        let mut ends: BTreeMap<PartitionId, Option<Offset>> = BTreeMap::new();
        let mut wrong = BTreeMap::new();
        for range in ranges {
            let partition = self.partition(range.partition);
            let stored = partition.map(|p| p.committed_end);
            let begins = partition.filter(|p| p.goes_on_at(range.base)).map(|_| range.base);
            let end = ends.entry(range.partition).or_insert(begins.or(stored));
            if *end == Some(range.base) && range.last >= range.base {
                *end = Some(range.last.next());
            } else {
                wrong.insert(range.partition, stored);
            }
        }
        wrong.into_iter().collect()
    }

    /// Takes a commit whose ranges fit, recorded at `revision`; an object of which nothing is live is not kept.
    pub(super) fn append(&mut self, commit: &ObjectCommit, shard: u16, epoch: i32, revision: Revision) {
        let mut object = Object::new(commit, (shard, epoch, 0), revision);
        for range in &commit.ranges {
            let partition = self.partition_mut(range.partition).expect("ranges are checked before");
            if partition.append(commit.object, range) {
                object.live(range.size_bytes);
            }
        }
        if object.live > 0 {
            self.objects.insert(commit.object, object);
        }
    }

    /// One range of each of these objects is dead, with so many bytes; answers those of which nothing is live any more, taken out, and
    /// those whose record is of no use any more.
    pub(super) fn release(&mut self, ranges: Vec<(ObjectId, u64)>) -> Released {
        let (mut dead, mut bare) = (Vec::new(), BTreeSet::new());
        for (id, bytes) in ranges {
            let object = self.objects.get_mut(&id).expect("a part's object is in the catalog");
            object.live -= 1;
            object.live_bytes -= bytes;
            if object.live == 0 {
                dead.extend(self.objects.remove_entry(&id));
                bare.remove(&id);
            } else if object.is_bare() {
                object.recorded = false;
                bare.insert(id);
            }
        }
        Released { dead, bare }
    }

    /// Whether an id is that of a manifest whose entries count.
    pub(super) fn is_manifest(&self, id: ObjectId) -> bool {
        self.manifests.contains(&id) || self.dead_manifests.contains_key(&id)
    }

    /// All a shard needs to open a partition under `leader_epoch`.
    pub(super) fn spec(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        settings: PartitionSettings,
    ) -> Option<PartitionSpec> {
        let topic = self.topics.get(&id.topic)?;
        let partition = self.partition(id)?;
        let committed = partition.parts.iter().map(|(base, part)| {
            let object = &self.objects[&part.object];
            CommittedObject {
                object: part.object,
                key: object.key.clone(),
                object_bytes: object.bytes,
                base: *base,
                last: part.last,
                size_bytes: part.size_bytes,
                max_timestamp: part.max_timestamp,
                epoch: partition.epoch_at(*base),
                level: object.level,
            }
        });
        Some(PartitionSpec {
            partition: id,
            topic_name: topic.name.clone(),
            leader_epoch,
            settings: PartitionSettings { version: topic.revision.0, ..settings },
            log_start: partition.log_start,
            manifests: partition.manifests.values().map(|manifest| manifest.of.clone()).collect(),
            committed: committed.collect(),
            epochs: partition.epochs.clone(),
            producers: partition.producers.values().cloned().collect(),
            committed_end: partition.committed_end,
            cleaned: partition.cleaned,
            internal: topic.internal,
            loan: None,
        })
    }
}
