//! Store and catalog as one: every change is a transaction of the store that compares this broker's epoch, then the same
//! change of the catalog. Used by the metadata threads under one lock, never on a shard.
//!
//! The catalog decides (does a range start at its partition's committed end?), the compared epoch makes sure that nobody
//! else has written meanwhile: a broker that takes this one's partitions over raises the epoch first.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thalweg_record::{NodeId, Offset, PartitionId, ShardId, Wall};
use thalweg_shards::meta::{CommitOutcome, ObjectCommit, ObjectId};

use super::{
    bucket::{Copy, Entry},
    catalog::{Catalog, Garbage, Object},
    keys,
    partition::Partition,
    schema::{self, BlockRecord, GarbageKind, GarbageRecord, HeadRecord, ObjectRecord},
    store::{Compare, MetadataError, MetadataStore, Revision, Transacted, Write},
};

/// Why a change failed for good: the process must not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The engine.
    #[error(transparent)]
    Store(#[from] MetadataError),
    /// Another broker, or a later start of this one, has raised the epoch.
    #[error("this broker's epoch {0} is fenced: another process works with its metadata")]
    Fenced(i32),
    /// A record that was read before does not read now.
    #[error("{0}")]
    Damaged(String),
    /// The bucket holds snapshots of a later epoch.
    #[error(
        "the metadata of this cluster was rebuilt elsewhere (snapshots of epoch {found} are in the bucket, this broker has \
         epoch {own}): this data directory must not be used any more"
    )]
    Replaced {
        /// This broker's.
        own: i32,
        /// The other's.
        found: i32,
    },
}

/// Store and catalog.
pub(super) struct Ledger {
    store: Arc<dyn MetadataStore>,
    pub(super) catalog: Catalog,
    node: NodeId,
    epoch: i32,
    shards: u16,
    /// The node's record as this start wrote it, for comparison.
    node_value: Vec<u8>,
    /// How long an idle producer is remembered.
    producer_expiration_ms: i64,
    /// A snapshot that is being copied.
    copy: RefCell<Option<Copy>>,
    /// Counts what operators change: topics, settings, rules, credentials.
    pub(super) operator_changes: u64,
    /// Counts those of rules and credentials alone.
    pub(super) access_changes: u64,
    /// Counts the transactions that reserve objects, or commit an upload: each raises the revision of the store by one.
    pub(super) upload_changes: u64,
}

/// Who writes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) node: NodeId,
    pub(super) epoch: i32,
    pub(super) shards: u16,
    pub(super) node_value: Vec<u8>,
    pub(super) producer_expiration_ms: u64,
}

impl Ledger {
    pub(super) fn new(store: Arc<dyn MetadataStore>, catalog: Catalog, writer: Writer) -> Ledger {
        let Writer { node, epoch, shards, node_value, producer_expiration_ms } = writer;
        let producer_expiration_ms = i64::try_from(producer_expiration_ms).unwrap_or(i64::MAX);
        let (operator_changes, access_changes, upload_changes) = (0, 0, 0);
        Ledger {
            store,
            catalog,
            node,
            epoch,
            shards,
            node_value,
            producer_expiration_ms,
            copy: RefCell::new(None),
            operator_changes,
            access_changes,
            upload_changes,
        }
    }

    /// The store, for syncs outside the lock.
    pub(super) fn store(&self) -> Arc<dyn MetadataStore> {
        self.store.clone()
    }

    /// The epoch of this run.
    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// This broker.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// How many shards this broker has.
    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    /// How often topics, settings, access rules or credentials were created, changed or deleted in this run.
    pub(super) fn operator_changes(&self) -> u64 {
        self.operator_changes
    }

    /// How long an idle producer is remembered from now on.
    pub(super) fn remember_producers(&mut self, expiration_ms: u64) {
        self.producer_expiration_ms = i64::try_from(expiration_ms).unwrap_or(i64::MAX);
    }

    /// Begins to copy the store, in place of a copy that was not finished; answers the revision that it will show.
    pub(super) fn begin_copy(&mut self) -> Revision {
        let copy = Copy::begin(&*self.store);
        let revision = copy.revision();
        self.copy.replace(Some(copy));
        revision
    }

    /// The next entries of the copy; `None` after the last.
    pub(super) fn copied_page(&mut self) -> Result<Option<Vec<Entry>>, Fault> {
        let copy = self.copy.get_mut();
        let page = match copy {
            Some(copy) => copy.page(&*self.store)?,
            None => None,
        };
        if page.is_none() {
            *copy = None;
        }
        Ok(page)
    }

    /// Writes if the epoch is still ours and `compares` hold; `None` when a comparison of these did not hold.
    pub(super) fn try_write(&self, mut compares: Vec<Compare>, writes: &[Write]) -> Result<Option<Revision>, Fault> {
        let key = keys::node(self.node);
        compares.push(Compare::Value(key.clone(), self.node_value.clone()));
        if let Some(copy) = &mut *self.copy.borrow_mut() {
            copy.before(&*self.store, writes)?;
        }
        match self.store.transact(&compares, writes)? {
            Transacted::Applied(revision) => Ok(Some(revision)),
            Transacted::Refused => match self.store.get(&key)? {
                Some(found) if found.value == self.node_value => Ok(None),
                _ => Err(Fault::Fenced(self.epoch)),
            },
        }
    }

    /// Writes what only this broker may write: all that can be wrong is its epoch.
    pub(super) fn write(&self, compares: Vec<Compare>, writes: &[Write]) -> Result<Revision, Fault> {
        // A record of ours that somebody else changed is as good as a raised epoch.
        self.try_write(compares, writes)?.ok_or(Fault::Fenced(self.epoch))
    }

    /// Takes `count` numbers off the counter at `key`, with further writes in the same transaction. The first number is
    /// `from` in a new store.
    pub(super) fn count_up(
        &self,
        key: &[u8],
        from: u64,
        count: u64,
        more: impl FnOnce(u64) -> Vec<Write>,
    ) -> Result<u64, Fault> {
        let found = self.store.get(key)?;
        let stored = found.as_ref().and_then(|f| Some(u64::from_be_bytes(f.value.as_slice().try_into().ok()?)));
        let compare = match &found {
            Some(found) => Compare::Revision(key.to_vec(), found.revision),
            None => Compare::Absent(key.to_vec()),
        };
        let first = stored.unwrap_or(from);
        let mut writes = more(first);
        writes.push(Write::Put(key.to_vec(), (first + count).to_be_bytes().to_vec()));
        self.write(vec![compare], &writes)?;
        Ok(first)
    }

    /// Reserves object ids; durable after the next sync.
    pub(super) fn reserve_objects(&mut self, shard: ShardId, count: u32) -> Result<ObjectId, Fault> {
        assert!((1..=1024).contains(&count), "{count} object ids asked for at once");
        let block = BlockRecord { node: self.node.0, epoch: self.epoch, shard: shard.0, count };
        let put = |first| vec![Write::Put(keys::block(ObjectId(first)), schema::encode(&block))];
        let first = ObjectId(self.count_up(keys::NEXT_OBJECT, 1, u64::from(count), put)?);
        self.catalog.blocks.insert(first, block);
        self.upload_changes += 1;
        Ok(first)
    }

    /// Commits one object, durable after the next sync. `now` decides which idle producers are forgotten.
    pub(super) fn commit(&mut self, shard: ShardId, commit: &ObjectCommit, now: Wall) -> Result<CommitOutcome, Fault> {
        let record = ObjectRecord::new(commit, shard.0, self.epoch);
        if let Some(outcome) = self.committed_before(commit, &record)? {
            return Ok(outcome);
        }
        let Some((first, block)) = self.catalog.block_of(commit.object) else { return Ok(CommitOutcome::Unreserved) };
        let block = Compare::Value(keys::block(first), schema::encode(block));
        let mismatches = self.catalog.mismatches(&commit.ranges);
        if !mismatches.is_empty() {
            if mismatches.len() == commit.ranges.len() && mismatches.iter().all(|(_, end)| end.is_none()) {
                self.drop_reserved(shard, commit.object, block)?;
            }
            return Ok(CommitOutcome::Mismatch(mismatches));
        }
        let absent = Compare::Absent(keys::object(commit.object));
        if !commit.ranges.iter().any(|range| self.catalog.is_live(range)) {
            return self.commit_dead(shard, commit, vec![block, absent], now);
        }
        let mut writes = vec![Write::Put(keys::object(commit.object), schema::encode(&record))];
        writes.extend(self.heads_of_dead_ranges(commit, now));
        let revision = match self.try_write(vec![block, absent], &writes) {
            Ok(Some(revision)) => revision,
            Ok(None) => return Ok(CommitOutcome::Unreserved),
            Err(Fault::Fenced(_)) => return Ok(CommitOutcome::Fenced),
            Err(fault) => return Err(fault),
        };
        self.upload_changes += 1;
        self.append(shard, commit, now, revision);
        Ok(CommitOutcome::Committed)
    }

    /// Names an object that a rebuild found, written by `shard` in `epoch`; its ranges fit. Nothing reserves its id any more.
    pub(super) fn adopt(&mut self, commit: &ObjectCommit, shard: u16, epoch: i32) -> Result<(), Fault> {
        // A rebuild expires nobody.
        let now = Wall(i64::MIN);
        if !commit.ranges.iter().any(|range| self.catalog.is_live(range)) {
            self.commit_dead(ShardId(shard), commit, vec![], now)?;
            return Ok(());
        }
        let record = ObjectRecord::new(commit, shard, epoch);
        let mut writes = vec![Write::Put(keys::object(commit.object), schema::encode(&record))];
        writes.extend(self.heads_of_dead_ranges(commit, now));
        let revision = self.write(vec![], &writes)?;
        self.catalog.append(commit, shard, epoch, revision);
        Ok(())
    }

    /// Of partitions whose range here lies below the log start, the heads after the commit. They keep what it says of ends, epochs and
    /// producers: the object goes when its other ranges are dead, and nobody thinks of these then. They are written with the object, or a
    /// death in between would leave them out for ever.
    fn heads_of_dead_ranges(&self, commit: &ObjectCommit, now: Wall) -> Vec<Write> {
        let mut after: BTreeMap<PartitionId, Partition> = BTreeMap::new();
        for range in commit.ranges.iter().filter(|range| !self.catalog.is_live(range)) {
            let before = || self.catalog.partition(range.partition).expect("ranges are checked before").head();
            let partition = after.entry(range.partition).or_insert_with(|| Partition::from_head(&before()));
            partition.append(commit.object, range);
            partition.expire_producers(self.expired_before(now), range);
        }
        let head = |(id, partition): (&PartitionId, &Partition)| {
            let folded = self.catalog.partition(*id).and_then(Partition::folded_end).unwrap_or_default().0;
            Write::Put(keys::head(*id), schema::encode(&HeadRecord { folded, ..partition.head() }))
        };
        after.iter().map(head).collect()
    }

    /// Producers that were idle since then are forgotten.
    fn expired_before(&self, now: Wall) -> Wall {
        Wall(now.0.saturating_sub(self.producer_expiration_ms))
    }

    /// All topics of an object were deleted before its commit: its reservation ends here, and it is garbage.
    pub(super) fn drop_reserved(&mut self, shard: ShardId, object: ObjectId, block: Compare) -> Result<(), Fault> {
        let record = GarbageRecord { kind: GarbageKind::Orphan, epoch: self.epoch, shard: shard.0, key: None };
        self.write(vec![block], &[Write::Put(keys::garbage(object), schema::encode(&record))])?;
        self.catalog.garbage.insert(object, Garbage { record, handed: true });
        Ok(())
    }

    /// Commits an object that lies below the log starts altogether: it is garbage at once, and the heads keep what it
    /// says of ends, epochs and producers.
    fn commit_dead(
        &mut self,
        shard: ShardId,
        commit: &ObjectCommit,
        compares: Vec<Compare>,
        now: Wall,
    ) -> Result<CommitOutcome, Fault> {
        let never_named = Revision(0);
        self.append(shard, commit, now, never_named);
        let partitions: BTreeSet<PartitionId> = commit.ranges.iter().map(|r| r.partition).collect();
        let object = Object::new(commit, (shard.0, self.epoch, 0), never_named);
        let writes = self.garbage_writes(vec![(commit.object, object)]);
        self.write_heads(compares, writes, &partitions)?;
        Ok(CommitOutcome::Committed)
    }

    fn append(&mut self, shard: ShardId, commit: &ObjectCommit, now: Wall, revision: Revision) {
        self.catalog.append(commit, shard.0, self.epoch, revision);
        let expired = self.expired_before(now);
        for range in &commit.ranges {
            let partition = self.catalog.partition_mut(range.partition).expect("ranges are checked before");
            partition.expire_producers(expired, range);
        }
    }

    /// The outcome of a commit whose object is known already.
    fn committed_before(&self, commit: &ObjectCommit, record: &ObjectRecord) -> Result<Option<CommitOutcome>, Fault> {
        if let Some(garbage) = self.catalog.garbage.get(&commit.object) {
            let dead = garbage.record.kind == GarbageKind::Dead;
            let same = dead && garbage.record.key.as_deref() == Some(commit.key.as_str());
            return Ok(Some(if same { CommitOutcome::Committed } else { CommitOutcome::Unreserved }));
        }
        if let Some(listed) = self.catalog.objects.get(&commit.object).filter(|object| !object.recorded) {
            let same = listed.key == commit.key;
            return Ok(Some(if same { CommitOutcome::Committed } else { CommitOutcome::Unreserved }));
        }
        let Some(stored) = self.store.get(&keys::object(commit.object))? else { return Ok(None) };
        let same = stored.value == schema::encode(record);
        Ok(Some(if same { CommitOutcome::Committed } else { CommitOutcome::Unreserved }))
    }

    /// Advances log starts; durable after the next sync. What does not exist, or does not rise, is skipped.
    pub(super) fn raise_log_start(&mut self, starts: &[(PartitionId, Offset)]) -> Result<(), Fault> {
        let mut raised = BTreeSet::new();
        let (mut ranges, mut writes) = (Vec::new(), Vec::new());
        for &(id, log_start) in starts {
            match self.catalog.partition_mut(id) {
                Some(partition) if partition.log_start < log_start => {
                    ranges.extend(partition.raise(log_start));
                    let manifests = partition.take_dead_manifests();
                    writes.extend(self.kill_manifests(id, manifests));
                    raised.insert(id);
                }
                _ => {}
            }
        }
        if raised.is_empty() {
            return Ok(());
        }
        let released = self.catalog.release(ranges);
        writes.extend(self.released_writes(released));
        self.write_heads(vec![], writes, &raised)
    }

    /// Makes writes, and those of the heads of `partitions`.
    pub(super) fn write_heads(
        &mut self,
        compares: Vec<Compare>,
        mut writes: Vec<Write>,
        partitions: &BTreeSet<PartitionId>,
    ) -> Result<(), Fault> {
        for &id in partitions {
            let partition = self.catalog.partition(id).expect("the caller found it");
            writes.push(Write::Put(keys::head(id), schema::encode(&partition.head())));
        }
        self.write(compares, &writes)?;
        Ok(())
    }

    /// The writes that turn committed objects into garbage, which the catalog has taken over; the store keeps it until a snapshot in the
    /// bucket does not name them.
    pub(super) fn garbage_writes(&mut self, dead: Vec<(ObjectId, Object)>) -> Vec<Write> {
        let mut writes = Vec::new();
        for (id, object) in dead {
            let record = GarbageRecord::dead(&object);
            writes.push(Write::Delete(keys::object(id)));
            writes.push(Write::Put(keys::garbage(id), schema::encode(&record)));
            self.catalog.garbage.insert(id, Garbage { record, handed: false });
        }
        writes
    }

    /// Takes reservations of earlier runs away and answers up to `limit` ids that they left unused, with their epochs;
    /// durable after the next sync. Shards that no longer exist are served by those that do.
    pub(super) fn take_stale(&mut self, shard: ShardId, limit: u32) -> Result<Vec<(ObjectId, u64)>, Fault> {
        let (shards, epoch) = (self.shards, self.epoch);
        let mine = |of: u16| of % shards == shard.0;
        let stale = |block: &BlockRecord| block.epoch < epoch && mine(block.shard);
        let mut found = self.orphans(mine, limit);
        while found.len() < limit as usize {
            let Some((first, block)) = self.catalog.blocks.iter().find(|(_, b)| stale(b)) else { break };
            let (first, block) = (*first, block.clone());
            self.abandon(first, &block)?;
            found = self.orphans(mine, limit);
        }
        for (id, _) in &found {
            self.catalog.garbage.get_mut(id).expect("just found").handed = true;
        }
        Ok(found)
    }

    fn orphans(&self, mine: impl Fn(u16) -> bool, limit: u32) -> Vec<(ObjectId, u64)> {
        let waiting = |g: &Garbage| g.record.kind == GarbageKind::Orphan && !g.handed && mine(g.record.shard);
        let waiting = self.catalog.garbage.iter().filter(|(_, g)| waiting(g));
        waiting.map(|(id, g)| (*id, g.record.epoch.unsigned_abs().into())).take(limit as usize).collect()
    }

    /// Takes one block away; its unused ids become garbage in the same transaction.
    fn abandon(&mut self, first: ObjectId, block: &BlockRecord) -> Result<(), Fault> {
        let mut orphans = BTreeMap::new();
        for id in (first.0..first.0 + u64::from(block.count)).map(ObjectId) {
            let manifest = self.catalog.is_manifest(id);
            #[cfg(feature = "planted-bugs")]
            let manifest = manifest && !thalweg_wal::planted(thalweg_wal::Bug::ManifestOrphaned);
            if !self.catalog.objects.contains_key(&id) && !self.catalog.garbage.contains_key(&id) && !manifest {
                let (epoch, shard) = (block.epoch, block.shard);
                orphans.insert(id, GarbageRecord { kind: GarbageKind::Orphan, epoch, shard, key: None });
            }
        }
        let mut writes = vec![Write::Delete(keys::block(first))];
        writes.extend(orphans.iter().map(|(id, g)| Write::Put(keys::garbage(*id), schema::encode(g))));
        self.write(vec![Compare::Value(keys::block(first), schema::encode(block))], &writes)?;
        self.catalog.blocks.remove(&first);
        let garbage = orphans.into_iter().map(|(id, record)| (id, Garbage { record, handed: false }));
        self.catalog.garbage.extend(garbage);
        Ok(())
    }

    /// The object store no longer holds these objects.
    pub(super) fn garbage_gone(&mut self, objects: &[ObjectId]) -> Result<(), Fault> {
        let known = objects.iter().copied().filter(|id| self.catalog.garbage.contains_key(id));
        let known: BTreeSet<ObjectId> = known.collect();
        let writes: Vec<Write> = known.iter().map(|id| Write::Delete(keys::garbage(*id))).collect();
        self.write(vec![], &writes)?;
        known.iter().for_each(|id| drop(self.catalog.garbage.remove(id)));
        Ok(())
    }
}
