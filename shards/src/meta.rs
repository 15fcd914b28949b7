//! What shards ask of the metadata store, as messages to its actor (`src/cluster`), which lives on a thread of its own.
//!
//! Each request carries a one-shot flume sender; a sender dropped unanswered means that the process is stopping.

use flume::Sender;
use thalweg_objectstore::{
    ObjectKey,
    format::{Manifest, ManifestEntry},
};
use thalweg_record::{LeaderEpoch, Offset, PartitionId, ShardId, Wall};

use crate::msg::ProducerEntry;

/// Id of an object: from blocks reserved durably, ascending within a block, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId(pub u64);

/// A partition's part of a committed object, as readers need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedObject {
    /// The object.
    pub object: ObjectId,
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes, footer included.
    pub object_bytes: u64,
    /// First offset of the partition in it.
    pub base: Offset,
    /// Last offset of the partition in it.
    pub last: Offset,
    /// Bytes of this partition's batches in it.
    pub size_bytes: u64,
    /// Greatest timestamp of this partition in it.
    pub max_timestamp: Wall,
    /// Leader epoch of its first batch.
    pub epoch: LeaderEpoch,
    /// How often its records were copied from object to object: 0 for an upload.
    pub level: u32,
}

impl From<ManifestEntry> for CommittedObject {
    fn from(entry: ManifestEntry) -> CommittedObject {
        let ManifestEntry { object, key, object_bytes, base, last, size_bytes, max_timestamp, epoch, level } = entry;
        let object = ObjectId(object);
        CommittedObject { object, key, object_bytes, base, last, size_bytes, max_timestamp, epoch, level }
    }
}

impl From<&CommittedObject> for ManifestEntry {
    fn from(part: &CommittedObject) -> ManifestEntry {
        ManifestEntry {
            object: part.object.0,
            key: part.key.clone(),
            object_bytes: part.object_bytes,
            base: part.base,
            last: part.last,
            size_bytes: part.size_bytes,
            max_timestamp: part.max_timestamp,
            epoch: part.epoch,
            level: part.level,
        }
    }
}

/// One partition's range within a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitRange {
    /// The partition.
    pub partition: PartitionId,
    /// First offset; must equal the partition's committed end in the store.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Greatest timestamp.
    pub max_timestamp: Wall,
    /// Leader epochs that begin in this range: (epoch, first offset).
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Absolute state, at the end of the range, of each producer that appended in it.
    pub producers: Vec<ProducerEntry>,
}

/// Makes one object exist for readers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectCommit {
    /// Its id, still reserved.
    pub object: ObjectId,
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub object_bytes: u64,
    /// All ranges in it.
    pub ranges: Vec<CommitRange>,
}

/// What the metadata holds in the place of a partition's older entries: where in the bucket they are listed, and what can be decided
/// without reading them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestRef {
    /// Its id, from the same reservations as those of objects.
    pub id: ObjectId,
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub bytes: u64,
    /// First offset of the first entry.
    pub base: Offset,
    /// Last offset of the last entry.
    pub last: Offset,
    /// How many entries.
    pub entries: u32,
    /// Bytes of the partition's batches in all of them.
    pub size_bytes: u64,
    /// Greatest timestamp in any of them.
    pub max_timestamp: Wall,
}

impl ManifestRef {
    /// Whether these are as many entries, of as many bytes and with the same ends, as the metadata says that it lists.
    pub fn lists(&self, entries: &[CommittedObject]) -> bool {
        let ends = (entries.first().map(|entry| entry.base), entries.last().map(|entry| entry.last));
        let bytes: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
        ends == (Some(self.base), Some(self.last)) && entries.len() == self.entries as usize && bytes == self.size_bytes
    }

    /// What it lists of `partition`, by its bytes.
    ///
    /// # Errors
    /// A sentence that says why it cannot be these.
    pub fn entries(&self, partition: PartitionId, bytes: &[u8]) -> Result<Vec<CommittedObject>, String> {
        let found = Manifest::parse(bytes).map_err(|error| error.to_string())?;
        if (found.id, found.partition) != (self.id.0, partition) {
            return Err("it is another one by its own words".to_owned());
        }
        let entries: Vec<CommittedObject> = found.entries.into_iter().map(CommittedObject::from).collect();
        if self.lists(&entries) { Ok(entries) } else { Err("it does not list what the metadata says".to_owned()) }
    }
}

/// Has a manifest take the place of a partition's oldest entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fold {
    /// Its id, still reserved.
    pub manifest: ObjectId,
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whose entries.
    pub partition: PartitionId,
    /// What it lists, by offset: object, first and last offset of the partition in it.
    pub parts: Vec<(ObjectId, Offset, Offset)>,
}

/// What came of a fold. The same again is `Folded`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FoldOutcome {
    /// Done, and durable.
    Folded(ManifestRef),
    /// Nothing was done: something of it is not there any more, or not as it was. The manifest's reservation is taken away, and what
    /// was put under it is deleted.
    Changed,
    /// Nothing was done: the manifest's reservation is gone.
    Unreserved,
    /// This node's epoch is fenced: stop.
    Fenced,
}

/// Parts of one partition that lie side by side in other objects, and are one range of a new one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompactedRange {
    /// What the new object holds. Its epochs are left to the metadata, which knows them.
    pub range: CommitRange,
    /// What is replaced, by offset: object, first and last offset of the partition in it.
    pub parts: Vec<(ObjectId, Offset, Offset)>,
}

/// Puts one object in the place of parts of others that hold the same records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compaction {
    /// Its id, still reserved.
    pub object: ObjectId,
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub object_bytes: u64,
    /// All ranges in it, by partition; each partition once.
    pub ranges: Vec<CompactedRange>,
}

/// What came of a compaction. The same again is `Committed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CompactionOutcome {
    /// Done, and durable: readers may be sent to the new object, which has this level.
    Committed(u32),
    /// Nothing was replaced: of these partitions a part is not there any more, or not as it was. Try again without them; when none
    /// is left, the object's reservation is taken away already, and the object is deleted.
    Changed(Vec<PartitionId>),
    /// Nothing was replaced: the object's reservation is gone.
    Unreserved,
    /// This node's epoch is fenced: stop.
    Fenced,
}

/// What came of a commit. Commits are idempotent: the same commit again is `Committed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// All ranges are in; durable after the next [`MetaRequest::Sync`].
    Committed,
    /// Nothing was committed: the object's reservation is gone (the janitor took it). Write it again under a new id.
    Unreserved,
    /// Nothing was committed: these partitions are gone (deleted), or do not start at their committed end (given here).
    /// Drop or cut them, and try again with what is left.
    Mismatch(Vec<(PartitionId, Option<Offset>)>),
    /// This node's epoch is fenced: stop.
    Fenced,
}

/// What a shard asks. Errors of the engine itself are fatal to the process and handled by the actor.
#[derive(Debug)]
pub enum MetaRequest {
    /// Reserves `count` object ids for `shard`, durably; answers the first of that many consecutive ones.
    ReserveObjects {
        /// Who will write them.
        shard: ShardId,
        /// How many, 1..=1024.
        count: u32,
        /// First id.
        reply: Sender<ObjectId>,
    },
    /// One or more commits in log order, as one transaction each; stops at the first that is not `Committed`.
    Commit {
        /// Who commits.
        shard: ShardId,
        /// In log order.
        commits: Vec<ObjectCommit>,
        /// One outcome per commit tried.
        reply: Sender<Vec<CommitOutcome>>,
    },
    /// Puts an object in the place of parts of others, all or nothing; answers when it is durable.
    Compact {
        /// Who compacts.
        shard: ShardId,
        /// What.
        compaction: Box<Compaction>,
        /// The outcome.
        reply: Sender<CompactionOutcome>,
    },
    /// Says that cleaning has seen a partition up to `to`; answers when it is durable.
    MoveDirtyPoint {
        /// Which.
        partition: PartitionId,
        /// How far it had been seen before.
        from: Offset,
        /// First offset that it has not seen.
        to: Offset,
        /// False: it had been seen otherwise, or is gone, and nothing was done.
        reply: Sender<bool>,
    },
    /// Has a manifest take the place of entries, all or nothing; answers when it is durable.
    Fold {
        /// Who folds.
        shard: ShardId,
        /// What.
        fold: Box<Fold>,
        /// The outcome.
        reply: Sender<FoldOutcome>,
    },
    /// Has a partition's newest manifest give its place back to what it lists; answers when it is durable.
    Unfold {
        /// Which partition.
        partition: PartitionId,
        /// Its newest manifest.
        manifest: ObjectId,
        /// All that it lists.
        entries: Vec<CommittedObject>,
        /// False: it is not the newest, or does not list that, and nothing was done.
        reply: Sender<bool>,
    },
    /// Objects that compaction made and of which less than half is live; some of them when there are many.
    MostlyDead {
        /// By id.
        reply: Sender<Vec<ObjectId>>,
    },
    /// Answers when everything written before is durable on the device (flush and fsync).
    Sync {
        /// Signalled when durable.
        reply: Sender<()>,
    },
    /// Advances log starts (never back); answers when durable. Deleted partitions are skipped.
    RaiseLogStart {
        /// Partition and new log start.
        starts: Vec<(PartitionId, Offset)>,
        /// Signalled when durable.
        reply: Sender<()>,
    },
    /// Reservations of `shard` that no commit has used and that are older than this process: takes them away (so that a
    /// late commit fails) and answers their ids, for the janitor to delete what was written under them.
    TakeStaleReservations {
        /// Whose.
        shard: ShardId,
        /// At most this many.
        limit: u32,
        /// The ids taken, each with the node epoch that reserved it (part of its key); each stays listed as garbage until
        /// [`MetaRequest::GarbageGone`].
        reply: Sender<Vec<(ObjectId, u64)>>,
    },
    /// The store no longer holds these objects: forget them.
    GarbageGone {
        /// Which.
        objects: Vec<ObjectId>,
    },
}
