//! What the bucket says at first sight: its newest snapshot, and the data objects that lie there.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_objectstore::{ObjectKey, ObjectMeta, ObjectStore, StoreError, parse_data_key};
use thalweg_record::TopicId;
use thalweg_shards::meta::ObjectId;

use super::{RebuildError, RebuildSettings, Rebuilt, put};
use crate::cluster::{
    SliceRecord,
    bucket::{
        format::{Entry, Fault, MetadataSnapshot},
        progress::Progress,
        stored::{self, ReadError},
    },
    error::ClusterError,
    keys,
    ledger::Ledger,
    schema::{self, BlockRecord, SliceRow},
    store::{MetadataStore, Revision, Write},
};

/// More transactions than it makes meanwhile.
pub(super) const REVISION_JUMP: u64 = 1 << 32;
/// Entries written at once.
const ENTRIES: usize = 1_000;

/// The newest snapshot that can be read; an empty one when there is none and the settings allow that.
pub(super) async fn newest(
    objects: &dyn ObjectStore,
    sequences: Vec<u64>,
    cluster_id: &str,
    settings: &RebuildSettings,
    report: &mut Rebuilt,
    progress: &dyn Progress,
) -> Result<Option<MetadataSnapshot>, RebuildError> {
    let url = &settings.object_store_url;
    for sequence in sequences.into_iter().rev() {
        match stored::read(objects, sequence, progress).await {
            Ok(found) if found.head.cluster_id != cluster_id => {
                let other = &found.head.cluster_id;
                report.notes.push(format!("metadata snapshot {sequence} is of another cluster ({other}); it is passed over"));
            }
            Ok(found) => {
                report.snapshot = Some(sequence);
                report.snapshot_written_at_ms = Some(found.head.written_at_ms);
                return Ok(Some(found));
            }
            Err(ReadError::Fault(newer @ Fault::Version(_))) => {
                return Err(RebuildError::Bucket(format!("metadata snapshot {sequence} in {url}: {newer}")));
            }
            Err(ReadError::Fault(fault)) => report.notes.push(format!(
                "metadata snapshot {sequence} cannot be used ({fault}); an older one may bring back what was deleted since"
            )),
            // It was removed, for there are newer ones by now.
            Err(ReadError::Store(StoreError::NotFound(_))) => {}
            Err(ReadError::Store(error)) => return Err(error.into()),
        }
    }
    if settings.without_snapshot {
        report
            .notes
            .push("there is no metadata snapshot: topics without objects, altered settings, access rules and credentials are lost".into());
        return Ok(None);
    }
    Err(RebuildError::Bucket(format!(
        "{url} holds no metadata snapshot that can be used. `thalweg metadata rebuild --without-snapshot` makes the metadata from \
         the objects alone: topics without objects, altered settings, access rules and credentials are lost then"
    )))
}

/// What the snapshot says of ids and epochs.
pub(super) struct Known {
    pub(super) revision: u64,
    pub(super) epoch: i32,
    pub(super) next_object: u64,
    pub(super) next_producer: u64,
    /// Blocks of reserved ids: objects in them may have been committed since.
    pub(super) reserved: BTreeMap<u64, u64>,
    /// Revisions of topics.
    pub(super) topics: BTreeMap<TopicId, u64>,
    pub(super) slices: Vec<SliceRecord>,
    /// Ids of slices that were given up as lost.
    pub(super) lost: BTreeSet<[u8; 16]>,
}

impl Known {
    pub(super) fn of(snapshot: &Option<MetadataSnapshot>, settings: &RebuildSettings) -> Result<Known, RebuildError> {
        let mut known = Known {
            revision: 0,
            epoch: 0,
            next_object: 1,
            next_producer: 0,
            reserved: BTreeMap::new(),
            topics: BTreeMap::new(),
            slices: Vec::new(),
            lost: BTreeSet::new(),
        };
        let Some(MetadataSnapshot { head, entries }) = snapshot else { return Ok(known) };
        (known.revision, known.epoch) = (head.revision.0, head.node_epoch);
        if head.node != settings.node.0 {
            let (found, configured) = (head.node, settings.node.0);
            return Err(RebuildError::Bucket(format!(
                "\"object.store.url\" {} holds the data of broker {found}, but \"node.id\" is {configured}: set \"node.id\" = {found}",
                settings.object_store_url
            )));
        }
        let (slices, lost) = (keys::slices(settings.node), keys::lost_slices(settings.node));
        for (key, found) in entries {
            let unreadable = |why: &str| ClusterError::damaged(format!("record {}: {why}", key.escape_ascii()));
            if key == keys::NEXT_OBJECT {
                known.next_object = schema::number(&found.value).ok_or_else(|| unreadable("no number"))?;
            } else if key == keys::NEXT_PRODUCER {
                known.next_producer = schema::number(&found.value).ok_or_else(|| unreadable("no number"))?;
            } else if let Some(first) = keys::parse_id(keys::BLOCKS, key) {
                let block: BlockRecord = schema::decode(&found.value).map_err(|why| unreadable(&why))?;
                known.reserved.insert(first.0, block.count.into());
            } else if let Some(topic) = keys::parse_topic(key) {
                known.topics.insert(topic, found.revision.0);
            } else if let Some(id) = key.strip_prefix(slices.as_slice()) {
                let row: SliceRow = schema::decode(&found.value).map_err(|why| unreadable(&why))?;
                let id = id.try_into().map_err(|_| unreadable("bad slice id"))?;
                let (shard, path) = (thalweg_record::ShardId(row.shard), row.path.into());
                known.slices.push(SliceRecord { id, shard, path, closed_empty: row.closed_empty });
            } else if let Some(id) = key.strip_prefix(lost.as_slice()) {
                known.lost.insert(id.try_into().map_err(|_| unreadable("bad slice id"))?);
            }
        }
        Ok(known)
    }

    /// Whether an object can have been committed after the snapshot: its id was reserved, and nothing was known of it. An id
    /// whose reservation was gone by then belongs to nobody, whoever may have written under it.
    pub(super) fn may_be_tail(&self, listed: &Listed, ledger: &Ledger) -> bool {
        let id = listed.id;
        let of_block = self.reserved.range(..=id.0).next_back();
        let reserved = of_block.is_some_and(|(first, count)| id.0 - first < *count);
        let named = ledger.catalog.objects.contains_key(&id) || ledger.catalog.garbage.contains_key(&id);
        (reserved || id.0 >= self.next_object) && !named
    }
}

/// Everything of the snapshot that stays true: neither reservations nor what belongs to a run or a machine.
pub(super) fn import(store: &dyn MetadataStore, snapshot: &Option<MetadataSnapshot>) -> Result<(), RebuildError> {
    let (revision, entries) = snapshot.as_ref().map_or((0, &[][..]), |s| (s.head.revision.0, s.entries.as_slice()));
    // Objects name the revision of their topic's settings: none may be given out twice.
    store.skip_to(Revision(revision.saturating_add(REVISION_JUMP)))?;
    let stays = |key: &[u8]| {
        ![keys::CLUSTER, keys::SNAPSHOT].contains(&key)
            && ![keys::BLOCKS, keys::NEXT, keys::NODES, keys::SLICES].iter().any(|p| key.starts_with(p))
    };
    let kept: Vec<&Entry> = entries.iter().filter(|(key, _)| stays(key)).collect();
    for page in kept.chunks(ENTRIES) {
        let writes: Vec<Write> = page.iter().map(|(key, v)| Write::Put(key.clone(), v.value.clone())).collect();
        put(store, &writes)?;
    }
    Ok(())
}

/// A data object in the bucket.
pub(super) struct Listed {
    pub(super) id: ObjectId,
    pub(super) key: ObjectKey,
    pub(super) bytes: u64,
    pub(super) epoch: i32,
}

impl Listed {
    pub(super) fn of(meta: ObjectMeta) -> Option<Listed> {
        let (id, _node, epoch) = parse_data_key(&meta.key)?;
        Some(Listed { id: ObjectId(id), key: meta.key, bytes: meta.size_bytes, epoch: i32::try_from(epoch).ok()? })
    }
}
