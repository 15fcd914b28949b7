//! Reads the metadata store into a [`Catalog`] at the start, and checks that its parts fit together.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use thalweg_record::{NodeId, Offset, PartitionId};
use thalweg_shards::meta::{CommitRange, ObjectId};

use super::{
    altered::Altered,
    catalog::{Catalog, Garbage, Object, Topic},
    error::ClusterError,
    keys,
    partition::Partition,
    schema::{
        self, BlockRecord, ConfigRecord, FoldedRecord, GarbageRecord, HeadRecord, ManifestRecord, ObjectRecord,
        OwnerRow, TopicRecord,
    },
    store::{MetadataStore, Revision, Versioned},
};
use crate::auth::{AclBinding, scram::ScramCredential};

/// Entries read at once.
const PAGE: usize = 1000;

/// Reads everything but altered settings.
///
/// # Errors
/// The store fails, holds a value that this version does not read, or names no object for offsets that a partition must
/// have.
pub(super) fn load(store: &dyn MetadataStore) -> Result<Catalog, ClusterError> {
    let mut catalog = Catalog::default();
    scan(store, keys::TOPICS, |key, revision, record: TopicRecord| {
        let id = keys::parse_topic(key).ok_or("bad topic id")?;
        add_topic(&mut catalog, id, revision, record)
    })?;
    let mut folded: BTreeMap<PartitionId, Offset> = BTreeMap::new();
    scan(store, keys::HEADS, |key, _, head: HeadRecord| {
        let id = keys::parse_head(key).ok_or("bad partition id")?;
        let partition = catalog.partition_mut(id).ok_or("its partition does not exist")?;
        *partition = Partition::from_head(&head);
        folded.insert(id, Offset(head.folded));
        Ok(())
    })?;
    manifests(store, &mut catalog, &folded)?;
    scan(store, keys::OWNERS, |key, _, row: OwnerRow| {
        let id = keys::parse_partition(keys::OWNERS, key).ok_or("bad partition id")?;
        catalog.owners.insert(id, row);
        Ok(())
    })?;
    scan(store, keys::BLOCKS, |key, _, block: BlockRecord| {
        catalog.blocks.insert(keys::parse_id(keys::BLOCKS, key).ok_or("bad object id")?, block);
        Ok(())
    })?;
    scan(store, keys::GARBAGE, |key, _, record: GarbageRecord| {
        let id = keys::parse_id(keys::GARBAGE, key).ok_or("bad object id")?;
        catalog.garbage.insert(id, Garbage { record, handed: false });
        Ok(())
    })?;
    scan(store, keys::ACLS, |key, _, rule: AclBinding| {
        let id = keys::parse_acl(key).ok_or("bad id")?;
        catalog.acl_bytes += rule.charged_bytes();
        catalog.acls.insert(rule, id).map_or(Ok(()), |_| Err("the same rule is there twice".to_owned()))
    })?;
    scan(store, keys::SCRAM, |key, _, credential: ScramCredential| {
        let (mechanism, user) = keys::parse_scram(key).ok_or("bad mechanism or user")?;
        catalog.scram.insert((user.to_owned(), mechanism), credential);
        Ok(())
    })?;
    scan(store, keys::FOLDED, |key, _, record: FoldedRecord| {
        let id = keys::parse_id(keys::FOLDED, key).ok_or("bad object id")?;
        catalog.objects.insert(id, Object::of_folded(record)?);
        Ok(())
    })?;
    let mut named = Vec::new();
    scan(store, keys::OBJECTS, |key, revision, record: ObjectRecord| {
        let id = keys::parse_id(keys::OBJECTS, key).ok_or("bad object id")?;
        let commit = record.commit(id)?;
        let as_recorded = || Object::new(&commit, (record.shard, record.epoch, record.level), revision);
        let object = catalog.objects.entry(id).or_insert_with(as_recorded);
        (object.recorded, object.revision) = (true, revision);
        let listed = |range: &CommitRange| {
            catalog.partition(range.partition).is_some_and(|partition| partition.is_folded(range.base, range.last))
        };
        let ranges = commit.ranges.iter().filter(|range| !listed(range)).cloned();
        named.extend(ranges.map(|range| Named { level: record.level, object: id, range }));
        Ok(())
    })?;
    for Named { object, range, .. } in in_force(named) {
        place(&mut catalog, range.partition, object, &range).map_err(ClusterError::damaged)?;
    }
    check_contiguous(&catalog)?;
    Ok(catalog)
}

/// Reads the manifests of partitions, which must fit together and to what the heads say of them; and the dead ones.
fn manifests(
    store: &dyn MetadataStore,
    catalog: &mut Catalog,
    folded: &BTreeMap<PartitionId, Offset>,
) -> Result<(), ClusterError> {
    scan(store, keys::MANIFESTS, |key, _, record: ManifestRecord| {
        let (id, manifest) = record.manifest()?;
        let base = manifest.of.base;
        if key != keys::manifest(id, base) {
            return Err("it is of another partition or place".to_owned());
        }
        catalog.manifests.insert(manifest.of.id);
        let partition = catalog.partition_mut(id).ok_or("its partition does not exist")?;
        if partition.folded_end().is_some_and(|end| end != base) {
            return Err("it does not go on where the one before ends".to_owned());
        }
        partition.manifests.insert(base, manifest);
        Ok(())
    })?;
    scan(store, keys::DEAD_MANIFESTS, |_, _, record: ManifestRecord| {
        let (id, manifest) = record.manifest()?;
        catalog.dead_manifests.insert(manifest.of.id, (id, manifest));
        Ok(())
    })?;
    for (id, end) in folded {
        let found = catalog.partition(*id).and_then(Partition::folded_end).unwrap_or_default();
        if found != *end {
            let why = format!("{id}: manifests list what lies below offset {found}, the head says {end}");
            return Err(ClusterError::damaged(why));
        }
    }
    Ok(())
}

/// Reads the altered settings that concern `broker`.
///
/// # Errors
/// As [`load`].
pub(super) fn altered(store: &dyn MetadataStore, broker: NodeId) -> Result<Altered, ClusterError> {
    let mut altered = Altered::default();
    scan(store, keys::CONFIGS, |key, _, record: ConfigRecord| {
        if let Some(target) = keys::parse_config(key, broker) {
            altered.set(&target, record.values);
        }
        Ok(())
    })?;
    Ok(altered)
}

/// Reads one record.
pub(super) fn record<T: schema::Stored>(
    store: &dyn MetadataStore,
    key: &[u8],
) -> Result<Option<(T, Versioned)>, ClusterError> {
    let Some(found) = store.get(key)? else { return Ok(None) };
    let record = schema::decode(&found.value).map_err(|why| unreadable(key, &why))?;
    Ok(Some((record, found)))
}

/// Calls `take` for every key that begins with `prefix`.
pub(super) fn scan<T: schema::Stored>(
    store: &dyn MetadataStore,
    prefix: &[u8],
    mut take: impl FnMut(&[u8], Revision, T) -> Result<(), String>,
) -> Result<(), ClusterError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.range(prefix, after.as_deref(), PAGE)?;
        for (key, found) in &page {
            schema::decode(&found.value)
                .and_then(|record| take(key, found.revision, record))
                .map_err(|why| unreadable(key, &why))?;
        }
        match page.into_iter().next_back() {
            Some((last, _)) => after = Some(last),
            None => return Ok(()),
        }
    }
}

fn unreadable(key: &[u8], why: &str) -> ClusterError {
    ClusterError::damaged(format!("record {}: {why}", key.escape_ascii()))
}

fn add_topic(
    catalog: &mut Catalog,
    id: thalweg_record::TopicId,
    revision: Revision,
    record: TopicRecord,
) -> Result<(), String> {
    let count = usize::try_from(record.partitions).map_err(|_| "negative partition count")?;
    let name: Arc<str> = record.name.into();
    if catalog.names.insert(name.clone(), id).is_some() {
        return Err(format!("a second topic of the name {name}"));
    }
    let (internal, overrides, created) = (record.internal, record.overrides, record.created);
    let partitions = vec![Partition::default(); count];
    catalog.topics.insert(id, Topic { name, internal, overrides, created, revision, partitions });
    Ok(())
}

/// A range that an object's record names.
pub(super) struct Named {
    pub(super) level: u32,
    pub(super) object: ObjectId,
    pub(super) range: CommitRange,
}

/// What is in force of all that is named, by partition and offset. An object that gave some of its ranges to a compaction goes on naming
/// them, for its record never changes: a range counts unless one of a higher level covers it.
pub(super) fn in_force(mut named: Vec<Named>) -> Vec<Named> {
    named.sort_by_key(|n| (n.range.partition, Reverse(n.level), n.range.base));
    let mut covered: BTreeMap<Offset, (Offset, u32)> = BTreeMap::new();
    let mut of = None;
    named.retain(|n| {
        if of.replace(n.range.partition) != Some(n.range.partition) {
            covered.clear();
        }
        let before = covered.range(..=n.range.base).next_back();
        let superseded = before.is_some_and(|(_, (last, level))| *last >= n.range.last && *level > n.level);
        if !superseded {
            covered.insert(n.range.base, (n.range.last, n.level));
        }
        !superseded
    });
    named.sort_by_key(|n| (n.range.partition, n.range.base));
    named
}

/// Gives a range to its partition. Ranges come by partition and offset; those of deleted topics are skipped.
fn place(catalog: &mut Catalog, id: PartitionId, object: ObjectId, range: &CommitRange) -> Result<(), String> {
    let Some(partition) = catalog.partition_mut(id) else { return Ok(()) };
    let live = if range.last < partition.committed_end {
        partition.locate(object, range)
    } else if range.base < partition.committed_end {
        partition.extend(object, range)
    } else if partition.goes_on_at(range.base) {
        partition.append(object, range)
    } else {
        return Err(format!("no object holds offsets {} to {} of {id}", partition.committed_end, range.base));
    };
    if live {
        catalog.objects.get_mut(&object).expect("ranges come with their objects").live(range.size_bytes);
    }
    Ok(())
}

/// Checks that live parts leave no gap between the log start and the committed end.
fn check_contiguous(catalog: &Catalog) -> Result<(), ClusterError> {
    for topic in catalog.topics.values() {
        for (index, partition) in topic.partitions.iter().enumerate() {
            let mut reached = partition.log_start;
            let listed = partition.manifests.iter().map(|(base, manifest)| (base, manifest.of.last));
            for (base, last) in listed.chain(partition.parts.iter().map(|(base, part)| (base, part.last))) {
                let fits = if reached == partition.log_start { *base <= reached } else { *base == reached };
                if !fits {
                    break;
                }
                reached = last.next();
            }
            if reached < partition.committed_end {
                let name = &topic.name;
                return Err(ClusterError::damaged(format!("no object holds offset {reached} of {name}-{index}")));
            }
        }
    }
    Ok(())
}
