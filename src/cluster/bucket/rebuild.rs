//! Makes the metadata anew from the bucket alone: the newest valid snapshot, and the tail objects that came after it.
//!
//! Writes into an empty store and deletes nothing anywhere. Reserved ids, epochs and producer ids jump ahead of all that the
//! lost broker can have used since the snapshot. What cannot be known is said in the notes, never guessed in silence.

mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream};
use thalweg_objectstore::{
    DATA_FOLDER, MANIFEST_FOLDER, ObjectKey, ObjectStore, StoreError,
    format::{InspectError, inspect},
    parse_manifest_key,
};
use thalweg_record::{NodeId, Offset, PartitionId, TopicId};
use thalweg_shards::meta::{CommitRange, ObjectCommit, ObjectId};

use self::known::{Known, Listed, import, newest};
use super::{
    progress::Progress,
    stored,
    tail::{self, Begin, Chain, TailObject, TailPart},
};
use crate::cluster::{
    SliceRecord,
    error::ClusterError,
    keys,
    ledger::{Fault, Ledger, Writer},
    load, prefix,
    schema::{self, ClusterRecord, NodeRecord, SliceRow},
    store::{MetadataStore, Write},
    topic_name,
    topics::NewTopic,
};

/// More starts than a broker makes between two snapshots that it can write.
const EPOCH_JUMP: i32 = 1 << 20;
/// Two rebuilds of one bucket must not give out the same epochs and ids: this many bits of each are drawn.
const DRAWN_EPOCH_BITS: u32 = 10;
const DRAWN_ID_BITS: u32 = 31;
/// More ids than it takes meanwhile; 2^30 rebuilds use up a quarter of what there are.
const ID_JUMP: u64 = 1 << 32;
/// Objects looked at at once.
const AT_ONCE: usize = 8;
/// The most partitions that a name in an object is believed.
const MAX_TOPIC_PARTITIONS: i32 = 10_000;
/// The internal topic, whose number of partitions decides which of them holds a group.
const OFFSETS_TOPIC: &str = crate::coordinator::group::OFFSETS_TOPIC;

/// What a rebuild needs to know besides the bucket.
#[derive(Clone, Debug)]
pub struct RebuildSettings {
    /// `node.id`.
    pub node: NodeId,
    /// `object.store.url`.
    pub object_store_url: String,
    /// Rebuild from objects alone when there is no snapshot: settings of topics, topics without objects, access
    /// rules and credentials are lost then.
    pub without_snapshot: bool,
    /// WAL slices of this broker that are here.
    pub slices: Vec<SliceRecord>,
    /// Partitions of which those slices hold records. A topic that the bucket does not know stands against the rebuild, unless
    /// `accept_loss`: it was deleted, or created after the snapshot, and the start would drop its records.
    pub slices_hold: BTreeSet<PartitionId>,
    /// Whether such records, and objects that cannot be read, may be left out.
    pub accept_loss: bool,
    /// Random bits: two rebuilds of one bucket must differ in them.
    pub random: u64,
    /// Whether slices that the snapshot names and that are not here stay recorded, so that the start asks for them.
    pub keep_missing_slices: bool,
    /// `offsets.topic.num.partitions`, should the snapshot not know that topic.
    pub offsets_partitions: i32,
}

/// What a rebuild made.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Rebuilt {
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// Number of the snapshot that it began with.
    pub snapshot: Option<u64>,
    /// When that was written, in milliseconds since 1970.
    pub snapshot_written_at_ms: Option<i64>,
    /// Topics in the end.
    pub topics: usize,
    /// Their partitions.
    pub partitions: usize,
    /// Objects in the end.
    pub objects: usize,
    /// Those of them that the snapshot did not name.
    pub tail_objects: usize,
    /// Keys of data objects that nothing names; they stay where they are.
    pub unused_objects: Vec<String>,
    /// What the operator should know: what may be undone, guessed or missing.
    pub notes: Vec<String>,
}

/// Why the metadata cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new metadata.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The bucket does not say enough.
    #[error("{0}")]
    Bucket(String),
}

impl From<Fault> for RebuildError {
    fn from(fault: Fault) -> RebuildError {
        match fault {
            Fault::Store(error) => ClusterError::Store(error).into(),
            other => RebuildError::Bucket(other.to_string()),
        }
    }
}

impl From<crate::cluster::store::MetadataError> for RebuildError {
    fn from(error: crate::cluster::store::MetadataError) -> RebuildError {
        ClusterError::Store(error).into()
    }
}

/// Fills the empty `store` with the metadata that the bucket tells of; durable when this returns.
///
/// # Errors
/// [`RebuildError`]; `store` is of no use then.
pub(in crate::cluster) async fn rebuild(
    objects: &dyn ObjectStore,
    store: Arc<dyn MetadataStore>,
    settings: &RebuildSettings,
    progress: &dyn Progress,
) -> Result<Rebuilt, RebuildError> {
    let url = &settings.object_store_url;
    let Some(cluster_id) = prefix::owner(objects).await? else {
        return Err(RebuildError::Bucket(format!("\"object.store.url\" {url} holds no data of Thalweg")));
    };
    let mut report = Rebuilt { cluster_id: cluster_id.clone(), ..Rebuilt::default() };
    let sequences = stored::list(objects).await?;
    let seen = sequences.last().copied().unwrap_or(0);
    let snapshot = newest(objects, sequences, &cluster_id, settings, &mut report, progress).await?;
    let known = Known::of(&snapshot, settings)?;
    import(&*store, &snapshot)?;
    let mut listed = Vec::new();
    stored::each(objects, &format!("{DATA_FOLDER}/"), |meta| listed.extend(Listed::of(meta))).await?;
    let epoch = listed.iter().map(|l| l.epoch).chain([known.epoch]).max().unwrap_or(0);
    let epoch = epoch.saturating_add(EPOCH_JUMP + (settings.random >> (64 - DRAWN_EPOCH_BITS)) as i32);
    let node_value = schema::encode(&NodeRecord { epoch });
    put(&*store, &[Write::Put(keys::node(settings.node), node_value.clone())])?;
    let catalog = load::load(&*store)?;
    let writer = Writer { node: settings.node, epoch, shards: 1, node_value, producer_expiration_ms: u64::MAX };
    let mut ledger = Ledger::new(store.clone(), catalog, writer);
    let candidates: Vec<&Listed> = listed.iter().filter(|l| known.may_be_tail(l, &ledger)).collect();
    let tails = look(objects, &candidates, &cluster_id, settings, &mut report, progress).await?;
    let used = adopt(&mut ledger, &known, settings, tails, &mut report)?;
    unknown_topics(&ledger, settings, &mut report)?;
    let mut manifests = Vec::new();
    stored::each(objects, &format!("{MANIFEST_FOLDER}/"), |meta| {
        manifests.extend(parse_manifest_key(&meta.key).map(|(id, ..)| (ObjectId(id), meta.key)));
    })
    .await?;
    finish(&ledger, &known, settings, (seen, &listed, &manifests), &mut report)?;
    report.tail_objects = used.len();
    store.sync()?;
    report.notes.iter().for_each(|note| progress.note(note));
    Ok(report)
}

fn put(store: &dyn MetadataStore, writes: &[Write]) -> Result<(), RebuildError> {
    store.transact(&[], writes)?;
    Ok(())
}

/// Leaves an object out whose records may have been acknowledged, if that is allowed.
fn pass_over(key: &ObjectKey, why: &str, settings: &RebuildSettings, report: &mut Rebuilt) -> Result<(), RebuildError> {
    let text = format!("object {key}: {why}");
    if !settings.accept_loss {
        return Err(RebuildError::Bucket(format!(
            "{text}. What it holds may have been acknowledged; to start without it, start once with `thalweg serve --accept-loss`"
        )));
    }
    report.notes.push(format!("{text}; it is passed over"));
    Ok(())
}

/// Reads what the candidates say of themselves.
async fn look(
    objects: &dyn ObjectStore,
    candidates: &[&Listed],
    cluster_id: &str,
    settings: &RebuildSettings,
    report: &mut Rebuilt,
    progress: &dyn Progress,
) -> Result<Vec<TailObject>, RebuildError> {
    progress.begin("looking at the objects after it", candidates.iter().map(|l| l.bytes).sum());
    let looks = candidates.iter().map(|listed| async move { (*listed, inspect(objects, &listed.key).await) });
    let mut looks = stream::iter(looks).buffered(AT_ONCE);
    let mut tails = Vec::new();
    while let Some((listed, outcome)) = looks.next().await {
        progress.advance(listed.bytes);
        match outcome {
            Ok(found) if found.footer.object != listed.id.0 => {
                let why = "it is another one by its own words".to_owned();
                pass_over(&listed.key, &why, settings, report)?;
            }
            Ok(found) => tails.extend(TailObject::of(found, cluster_id, report.snapshot.is_none())),
            // Between the listing and now its writer has removed it.
            Err(InspectError::Store(StoreError::NotFound(_))) => {}
            Err(InspectError::Store(error)) => return Err(error.into()),
            Err(InspectError::Format(fault)) => {
                pass_over(&listed.key, &format!("it cannot be read ({fault})"), settings, report)?;
            }
        }
    }
    progress.end();
    Ok(tails)
}

/// Takes the tail objects in; answers those that are used.
fn adopt(
    ledger: &mut Ledger,
    known: &Known,
    settings: &RebuildSettings,
    tails: Vec<TailObject>,
    report: &mut Rebuilt,
) -> Result<BTreeSet<ObjectId>, RebuildError> {
    let mut parts: BTreeMap<PartitionId, Vec<(ObjectId, &TailPart)>> = BTreeMap::new();
    for object in &tails {
        object.parts.iter().for_each(|part| parts.entry(part.partition).or_default().push((object.id, part)));
    }
    topics(ledger, known, settings, &parts, report)?;
    partitions_of_slices(ledger, settings, report)?;
    let mut ranges: BTreeMap<ObjectId, Vec<_>> = BTreeMap::new();
    let (mut begins, mut starts) = (Vec::new(), Vec::new());
    for (id, parts) in &parts {
        let Some(partition) = ledger.catalog.partition(*id) else { continue };
        let (committed_end, epochs) = (partition.committed_end, partition.epochs.clone());
        let begin = Begin { committed_end, epochs, unknown: report.snapshot.is_none() };
        let Chain { links, log_start, cut, doubts } = tail::chain(&begin, parts);
        for (object, epoch, first) in doubts {
            let (name, index, epoch) = (&parts[0].1.topic_name, id.index, epoch.0);
            let why = format!(
                "it tells that leader epoch {epoch} of {name}-{index} begins at offset {first}, where others hold records of earlier epochs"
            );
            tails.iter().filter(|o| o.id == object).try_for_each(|o| pass_over(&o.key, &why, settings, report))?;
        }
        if cut > 0 {
            let name = &parts[0].1.topic_name;
            let index = id.index;
            report.notes.push(format!(
                "{cut} records of {name}-{index} were never acknowledged in their place; they are left out"
            ));
        }
        if begin.unknown && log_start > parts.iter().map(|(_, part)| part.log_start).max().unwrap_or_default() {
            let (name, index) = (&parts[0].1.topic_name, id.index);
            report.notes.push(format!(
                "{name}-{index} begins at offset {log_start}: by the objects that are left, lower ones were used"
            ));
        }
        // A log start may lie inside of the first range: that goes on at its own first offset.
        let first = links.first().map(|(_, range)| range.base).filter(|base| *base > committed_end);
        begins.extend(first.map(|base| (*id, base)));
        starts.push((*id, log_start));
        links.into_iter().for_each(|(object, range)| ranges.entry(object).or_default().push(range));
    }
    if report.snapshot.is_none() {
        silent_partitions(ledger, &parts, report);
    }
    ledger.raise_log_start(&begins)?;
    let used = take_in(ledger, settings, &tails, ranges, report)?;
    ledger.raise_log_start(&starts)?;
    Ok(used)
}

/// Takes in what counts of the tail objects. Of one that contradicts others only what does not fit is passed over.
fn take_in(
    ledger: &mut Ledger,
    settings: &RebuildSettings,
    tails: &[TailObject],
    mut ranges: BTreeMap<ObjectId, Vec<CommitRange>>,
    report: &mut Rebuilt,
) -> Result<BTreeSet<ObjectId>, RebuildError> {
    ranges.values_mut().for_each(|ranges| ranges.sort_by_key(|range| range.partition));
    let mut waiting: Vec<&TailObject> = tails.iter().filter(|object| ranges.contains_key(&object.id)).collect();
    waiting.sort_by_key(|object| object.id);
    let mut used = BTreeSet::new();
    let mut places: BTreeSet<(PartitionId, Offset)> =
        ranges.values().flatten().map(|range| (range.partition, range.base)).collect();
    // Nearly in order: two uploads of a shard may have taken their ids the other way round.
    while !waiting.is_empty() {
        let mut left = Vec::new();
        let before = waiting.len();
        for object in waiting {
            // Below a log start a range may be taken although others come before it: these could not be taken after it.
            let own = &ranges[&object.id];
            let follows = |range: &CommitRange| {
                let (from, to) = ((range.partition, Offset(i64::MIN)), (range.partition, range.base));
                places.range(from..to).any(|(_, base)| !own.iter().any(|r| r.partition == to.0 && r.base == *base))
            };
            if ledger.catalog.mismatches(own).is_empty() && !own.iter().any(follows) {
                let ranges = ranges.remove(&object.id).unwrap_or_default();
                for range in &ranges {
                    places.remove(&(range.partition, range.base));
                }
                let (object_bytes, key) = (object.bytes, object.key.clone());
                let commit = ObjectCommit { object: object.id, key, object_bytes, ranges };
                ledger.adopt(&commit, object.shard, object.node_epoch)?;
                used.insert(object.id);
            } else {
                left.push(object);
            }
        }
        if left.len() == before {
            let contradicts = |o: &&TailObject| !ledger.catalog.mismatches(&ranges[&o.id]).is_empty();
            let Some(at) = left.iter().position(contradicts) else {
                places.clear();
                waiting = left;
                continue;
            };
            let ranges = ranges.entry(left[at].id).or_default();
            let wrong: BTreeSet<PartitionId> =
                ledger.catalog.mismatches(ranges).into_iter().map(|(partition, _)| partition).collect();
            let names = left[at].parts.iter().filter(|part| wrong.contains(&part.partition));
            let names: Vec<String> =
                names.map(|part| format!("{}-{}", part.topic_name, part.partition.index)).collect();
            let why = format!("what it holds of {} contradicts others", names.join(", "));
            pass_over(&left[at].key, &why, settings, report)?;
            ranges.retain(|range| {
                let stays = !wrong.contains(&range.partition);
                if !stays {
                    places.remove(&(range.partition, range.base));
                }
                stays
            });
            if ranges.is_empty() {
                left.remove(at);
            }
        }
        waiting = left;
    }
    Ok(used)
}

/// Without a snapshot nobody can tell a partition that retention emptied from one that was never used.
fn silent_partitions(ledger: &Ledger, parts: &BTreeMap<PartitionId, Vec<(ObjectId, &TailPart)>>, report: &mut Rebuilt) {
    for (id, topic) in &ledger.catalog.topics {
        let indexes =
            (0..topic.partitions.len() as i32).filter(|i| !parts.contains_key(&PartitionId { topic: *id, index: *i }));
        let silent: Vec<String> = indexes.map(|index| index.to_string()).collect();
        if !silent.is_empty() {
            report.notes.push(format!(
                "no object tells of partitions {} of topic {}: they begin at offset 0, also if retention has emptied them",
                silent.join(", "),
                topic.name
            ));
        }
    }
}

/// Partitions that were added after the snapshot may be known to the log alone.
fn partitions_of_slices(
    ledger: &mut Ledger,
    settings: &RebuildSettings,
    report: &mut Rebuilt,
) -> Result<(), RebuildError> {
    for held in settings.slices_hold.iter().filter(|id| (0..MAX_TOPIC_PARTITIONS).contains(&id.index)) {
        let Some(topic) = ledger.catalog.topics.get(&held.topic) else { continue };
        if held.index as usize >= topic.partitions.len() {
            let (name, overrides, partitions) = (topic.name.clone(), topic.overrides.clone(), held.index + 1);
            ledger.change_topic(held.topic, partitions, overrides)?;
            report
                .notes
                .push(format!("topic {name} has records of more partitions in the log; it has {partitions} now"));
        }
    }
    Ok(())
}

/// Records in the log of topics that the bucket does not know: nobody can tell what was acknowledged of them.
fn unknown_topics(ledger: &Ledger, settings: &RebuildSettings, report: &mut Rebuilt) -> Result<(), RebuildError> {
    let held: BTreeSet<TopicId> = settings.slices_hold.iter().map(|partition| partition.topic).collect();
    for topic in held.iter().filter(|id| !ledger.catalog.topics.contains_key(id)) {
        let text = format!(
            "the write-ahead log holds records of topic id {topic}, which the object store does not know: it was deleted, or \
             created after the last metadata snapshot"
        );
        if !settings.accept_loss {
            return Err(RebuildError::Bucket(format!(
                "{text}. `thalweg wal inspect` shows them; to start without them, start once with `thalweg serve --accept-loss`"
            )));
        }
        report.notes.push(format!("{text}; the start drops them"));
    }
    Ok(())
}

/// Creates topics that only tail objects know, and gives known ones the partitions that these tell.
fn topics(
    ledger: &mut Ledger,
    known: &Known,
    settings: &RebuildSettings,
    parts: &BTreeMap<PartitionId, Vec<(ObjectId, &TailPart)>>,
    report: &mut Rebuilt,
) -> Result<(), RebuildError> {
    let mut told: BTreeMap<TopicId, Told> = BTreeMap::new();
    for (id, parts) in parts.iter().filter(|(id, _)| (0..MAX_TOPIC_PARTITIONS).contains(&id.index)) {
        let topic = told.entry(id.topic).or_insert_with(|| Told::new(&parts[0].1.topic_name));
        topic.partitions = topic.partitions.max(id.index + 1);
        for (object, part) in parts {
            topic.version = topic.version.max(part.settings_version);
            topic.newest = topic.newest.max(*object);
            topic.oldest = topic.oldest.min(*object);
        }
    }
    let mut by_age: Vec<(&TopicId, &Told)> = told.iter().collect();
    by_age.sort_by_key(|(id, topic)| (topic.newest, **id));
    for (id, topic) in by_age {
        let name = &topic.name;
        if let Some(found) = ledger.catalog.topics.get(id) {
            if topic.partitions as usize > found.partitions.len() {
                let overrides = found.overrides.clone();
                ledger.change_topic(*id, topic.partitions, overrides)?;
                report
                    .notes
                    .push(format!("topic {name} got partitions after the snapshot; it has {} now", topic.partitions));
            }
            if known.topics.get(id).is_some_and(|revision| topic.version > *revision) {
                report
                    .notes
                    .push(format!("settings of topic {name} were changed after the snapshot; the change is undone"));
            }
            continue;
        }
        let later =
            if topic.version > 0 { topic.version > known.revision } else { topic.oldest.0 >= known.next_object };
        if !later || topic_name::check(name).is_err() {
            // It was deleted before the snapshot: what is left of it is not brought back.
            continue;
        }
        if let Some(earlier) = ledger.catalog.names.get(name.as_str()).copied() {
            ledger.delete_topic(earlier)?;
            report.notes.push(format!("topic {name} was deleted and created anew after the snapshot"));
        }
        let internal = name == OFFSETS_TOPIC;
        let partitions = if internal { topic.partitions.max(settings.offsets_partitions) } else { topic.partitions };
        let overrides = if internal { crate::coordinator::group::offsets_topic_configs() } else { BTreeMap::new() };
        ledger.create_topic(NewTopic { id: *id, name: name.clone(), partitions, internal, overrides })?;
        report.notes.push(format!(
            "topic {name} was created after the snapshot: it has {partitions} partitions by its objects, and default settings"
        ));
    }
    Ok(())
}

/// What objects tell of a topic.
struct Told {
    name: String,
    partitions: i32,
    version: u64,
    newest: ObjectId,
    oldest: ObjectId,
}

impl Told {
    fn new(name: &str) -> Told {
        Told { name: name.to_owned(), partitions: 0, version: 0, newest: ObjectId(0), oldest: ObjectId(u64::MAX) }
    }
}

/// Counters, identity and slices; and what the report counts.
fn finish(
    ledger: &Ledger,
    known: &Known,
    settings: &RebuildSettings,
    (seen, listed, manifests): (u64, &[Listed], &[(ObjectId, ObjectKey)]),
    report: &mut Rebuilt,
) -> Result<(), RebuildError> {
    let catalog = &ledger.catalog;
    let partitions = || catalog.topics.values().flat_map(|topic| &topic.partitions);
    let jump = ID_JUMP + (settings.random & ((1 << DRAWN_ID_BITS) - 1));
    let object = listed.iter().map(|l| l.id.0 + 1).chain([known.next_object]).max().unwrap_or(1).saturating_add(jump);
    let highest = partitions().flat_map(|p| p.producers.keys()).map(|id| id.unsigned_abs() + 1).max().unwrap_or(0);
    let producer = highest.max(known.next_producer).saturating_add(jump);
    let url = settings.object_store_url.clone();
    let record = ClusterRecord { cluster_id: report.cluster_id.clone(), node: settings.node.0, checked_url: Some(url) };
    let mut writes = vec![
        Write::Put(keys::NEXT_OBJECT.to_vec(), object.to_be_bytes().to_vec()),
        Write::Put(keys::NEXT_PRODUCER.to_vec(), producer.to_be_bytes().to_vec()),
        Write::Put(keys::SNAPSHOT.to_vec(), seen.to_be_bytes().to_vec()),
        Write::Put(keys::CLUSTER.to_vec(), schema::encode(&record)),
    ];
    for slice in slices(known, settings, report) {
        let Some(path) = slice.path.to_str() else { continue };
        let row = SliceRow { shard: slice.shard.0, path: path.to_owned(), closed_empty: slice.closed_empty };
        writes.push(Write::Put(keys::slice(settings.node, slice.id), schema::encode(&row)));
    }
    put(&*ledger.store(), &writes)?;
    report.topics = catalog.topics.len();
    report.partitions = partitions().count();
    report.objects = catalog.objects.len();
    let named = |id: &ObjectId| catalog.objects.contains_key(id) || catalog.garbage.contains_key(id);
    report.unused_objects = listed.iter().filter(|l| !named(&l.id)).map(|l| l.key.to_string()).collect();
    let unused = manifests.iter().filter(|(id, _)| !catalog.is_manifest(*id) && !catalog.garbage.contains_key(id));
    report.unused_objects.extend(unused.map(|(_, key)| key.to_string()));
    if let Some(sequence) = report.snapshot {
        // That there are none proves nothing: the first may have come after it.
        report.notes.push(format!("access rules, credentials and altered settings are those of snapshot {sequence}"));
        report.notes.push(
            "what was deleted after the snapshot (topics, records below a log start) may be back, if no later object tells of it"
                .into(),
        );
    }
    Ok(())
}

/// The slices to record: those that are here, and those that must be asked for.
fn slices(known: &Known, settings: &RebuildSettings, report: &mut Rebuilt) -> Vec<SliceRecord> {
    let (lost, here): (Vec<_>, Vec<_>) =
        settings.slices.iter().cloned().partition(|here| known.lost.contains(&here.id));
    for slice in lost {
        report.notes.push(format!(
            "the WAL slice {} was given up as lost, and is none of those that the broker went on in; `thalweg wal drain` takes what it \
             holds",
            slice.path.display()
        ));
    }
    let (mut slices, moved) = (here.clone(), moved(known, &here));
    for slice in &known.slices {
        if slice.closed_empty || slices.iter().any(|here| here.id == slice.id) {
            continue;
        }
        if here.iter().any(|here| in_place_of(slice, here)) {
            report.notes.push(format!(
                "the WAL slice {} of shard {} is another one than the snapshot names: that was lost, and a start with --accept-loss has \
                 made it anew",
                slice.path.display(),
                slice.shard
            ));
        } else if moved {
            report.notes.push(format!(
                "the WAL slice {} of shard {} is not here: newer ones are, to which a start has moved what it held",
                slice.path.display(),
                slice.shard
            ));
        } else if settings.keep_missing_slices {
            slices.push(slice.clone());
        } else {
            report.notes.push(format!(
                "the WAL slice {} of shard {} is not here: what it holds that no object has is missing. If the file still \
                 exists, `thalweg wal drain` brings it back, before the broker starts",
                slice.path.display(),
                slice.shard
            ));
        }
    }
    slices
}

/// Whether `here` was made in the place of `known`, which a start had to do without (`--accept-loss`): under its name, with another id.
fn in_place_of(known: &SliceRecord, here: &SliceRecord) -> bool {
    known.id != here.id && known.path.file_name() == here.path.file_name()
}

/// Whether the slices that are here are those to which a start with other settings has moved the log. All that the old ones held is in the
/// new ones, one for each shard, before the first of the old ones goes.
fn moved(known: &Known, here: &[SliceRecord]) -> bool {
    let known_as =
        |slice: &SliceRecord| known.slices.iter().find(|known| known.id == slice.id || in_place_of(known, slice));
    let mut new: Vec<u16> = here.iter().filter(|slice| known_as(slice).is_none()).map(|slice| slice.shard.0).collect();
    new.sort_unstable();
    let whole = !new.is_empty() && new.iter().copied().eq((0..).take(new.len()));
    whole && !here.iter().filter_map(known_as).any(|known| !known.closed_empty)
}

#[cfg(test)]
pub(crate) mod tests;
