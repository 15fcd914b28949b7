//! Compares the metadata with the bucket: every object that is named exists, is what it should be, and holds what the
//! metadata says; nothing is missing between, named twice, or there without a name.
//!
//! Reads, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use thalweg_objectstore::{
    DATA_FOLDER, MANIFEST_FOLDER, ObjectKey, ObjectStore, StoreError,
    format::{BlockEntry, InspectError, inspect},
    parse_data_key, parse_manifest_key,
};
use thalweg_record::{Offset, PartitionId};
use thalweg_shards::meta::{CommitRange, ObjectCommit, ObjectId};

use super::{listed::Listed, progress::Progress, rebuild::RebuildError, stored};
use crate::cluster::{
    catalog::Catalog,
    keys,
    load::{self, Named, in_force},
    schema::{BlockRecord, GarbageRecord, ObjectRecord},
    store::MetadataStore,
};

/// Objects looked at at once.
const AT_ONCE: usize = 4;
/// Bytes of blocks read at once.
const READ_BYTES: u64 = 8 << 20;

/// What was found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verified {
    /// Objects that the metadata names.
    pub objects: usize,
    /// Their bytes, as it says.
    pub bytes: u64,
    /// Blocks whose checksums were compared.
    pub blocks: usize,
    /// What is wrong, in words that name the object or the partition.
    pub problems: Vec<String>,
    /// Data objects that nothing names: left over by uploads that failed. They cost room, and nothing else.
    pub orphans: Vec<String>,
    /// Manifests that the metadata names.
    pub manifests: usize,
    /// Objects of which nothing is live, and that the broker will delete.
    pub garbage: usize,
    /// The objects that the problems are of.
    #[serde(skip)]
    pub(super) suspects: BTreeSet<ObjectId>,
}

/// Verifies what `store` names; with `only`, of the objects these alone.
///
/// # Errors
/// The metadata or the listing cannot be read; what is wrong with single objects is in the answer.
pub(in crate::cluster) async fn verify(
    objects: &dyn ObjectStore,
    store: &dyn MetadataStore,
    only: Option<&BTreeSet<ObjectId>>,
    progress: &dyn Progress,
) -> Result<Verified, RebuildError> {
    let mut found = Verified::default();
    // What does not fit together in the metadata itself.
    let catalog = load::load(store)?;
    let mut commits: Vec<(u32, ObjectCommit)> = Vec::new();
    let mut named: BTreeSet<ObjectId> = BTreeSet::new();
    load::scan(store, keys::OBJECTS, |key, _, record: ObjectRecord| {
        let id = keys::parse_id(keys::OBJECTS, key).ok_or("bad object id")?;
        commits.push((record.level, record.commit(id)?));
        Ok(())
    })?;
    load::scan(store, keys::GARBAGE, |key, _, _: GarbageRecord| {
        named.extend(keys::parse_id(keys::GARBAGE, key));
        Ok(())
    })?;
    found.garbage = named.len();
    named.extend(catalog.objects.keys().chain(&catalog.manifests).chain(catalog.dead_manifests.keys()));
    let listed = Listed::read(objects, &catalog).await;
    let mut reserved: BTreeMap<u64, u64> = BTreeMap::new();
    load::scan(store, keys::BLOCKS, |key, _, block: BlockRecord| {
        reserved.extend(keys::parse_id(keys::BLOCKS, key).map(|first| (first.0, block.count.into())));
        Ok(())
    })?;
    for (id, why) in listed.unreadable.iter().filter(|(id, _)| only.is_none_or(|only| only.contains(id))) {
        found.suspects.insert(*id);
        found.problems.push(why.clone());
    }
    found.manifests = catalog.manifests.len();
    useless(&catalog, &mut found.problems);
    listed.miscounted(&catalog, &mut found.problems);
    overlaps(&commits, &catalog, &listed, &mut found.problems);
    let mut commits: BTreeMap<ObjectId, ObjectCommit> =
        commits.into_iter().map(|(_, commit)| (commit.object, commit)).collect();
    listed.add_to(&mut commits);
    found.objects = commits.len();
    found.bytes = commits.values().map(|commit| commit.object_bytes).sum();
    progress.begin("verifying objects", found.bytes);
    let wanted = commits.values().filter(|commit| only.is_none_or(|only| only.contains(&commit.object)));
    let looks = wanted.map(|commit| async move { (commit, look(objects, commit, progress).await) });
    let mut looks = stream::iter(looks).buffered(AT_ONCE);
    while let Some((commit, outcome)) = looks.next().await {
        match outcome {
            Ok(blocks) => found.blocks += blocks,
            Err(why) => {
                found.suspects.insert(commit.object);
                found.problems.push(format!("object {}: {why}", commit.key));
            }
        }
    }
    progress.end();
    let in_block = |id: u64| reserved.range(..=id).next_back().is_some_and(|(first, count)| id - first < *count);
    stored::each(objects, &format!("{DATA_FOLDER}/"), |meta| match parse_data_key(&meta.key) {
        // A reserved id belongs to an upload that may be under way.
        Some((id, ..)) if named.contains(&ObjectId(id)) || in_block(id) => {}
        _ => found.orphans.push(meta.key.to_string()),
    })
    .await?;
    stored::each(objects, &format!("{MANIFEST_FOLDER}/"), |meta| match parse_manifest_key(&meta.key) {
        Some((id, ..)) if named.contains(&ObjectId(id)) || in_block(id) => {}
        _ => found.orphans.push(meta.key.to_string()),
    })
    .await?;
    Ok(found)
}

/// Compares one object with what the metadata says of it; answers how many blocks were read.
async fn look(objects: &dyn ObjectStore, commit: &ObjectCommit, progress: &dyn Progress) -> Result<usize, String> {
    let found = match inspect(objects, &commit.key).await {
        Ok(found) => found,
        Err(InspectError::Store(StoreError::NotFound(_))) => return Err("it is missing".into()),
        Err(error) => return Err(error.to_string()),
    };
    if found.size_bytes != commit.object_bytes {
        return Err(format!("it has {} bytes, the metadata says {}", found.size_bytes, commit.object_bytes));
    }
    if found.footer.object != commit.object.0 {
        return Err(format!("it is object {} by its own words", found.footer.object));
    }
    for range in &commit.ranges {
        covered(range, found.index.partition(range.partition))?;
    }
    let blocks = found.index.entries();
    let mut at = 0;
    while at < blocks.len() {
        let until = blocks[at..].partition_point(|b| b.position < blocks[at].position + READ_BYTES) + at;
        let until = until.max(at + 1);
        read(objects, &commit.key, &blocks[at..until]).await?;
        progress.advance(blocks[at..until].iter().map(|b| u64::from(b.size_bytes)).sum());
        at = until;
    }
    Ok(blocks.len())
}

/// Whether the blocks of a partition hold the whole range.
fn covered(range: &CommitRange, blocks: &[BlockEntry]) -> Result<(), String> {
    let mut next = range.base;
    for block in blocks.iter().filter(|b| b.last >= range.base && b.base <= range.last) {
        if block.base > next {
            break;
        }
        next = block.last.next();
    }
    if next > range.last {
        return Ok(());
    }
    let (partition, base, last) = (range.partition, range.base, range.last);
    Err(format!("it should hold offsets {base} to {last} of {partition}, and misses offset {next}"))
}

/// Reads neighbouring blocks and compares their checksums.
async fn read(objects: &dyn ObjectStore, key: &ObjectKey, blocks: &[BlockEntry]) -> Result<(), String> {
    let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
    let range = first.position..last.position + u64::from(last.size_bytes);
    let bytes = objects.get_range(key, range).await.map_err(|e| e.to_string())?;
    for block in blocks {
        let at = (block.position - first.position) as usize;
        let (partition, base) = (block.partition, block.base);
        block
            .verify(&bytes[at..at + block.size_bytes as usize])
            .map_err(|fault| format!("the block of {partition} that begins at offset {base}: {fault}"))?;
    }
    Ok(())
}

/// Objects that nothing needs, and that are no garbage: they would stay for ever.
fn useless(catalog: &Catalog, problems: &mut Vec<String>) {
    let useless = catalog.objects.values().filter(|object| object.live == 0);
    problems.extend(useless.map(|object| format!("object {}: it is named, though nothing in it is live", object.key)));
}

/// Ranges of a partition that are not contiguous, or name an offset twice. Below the log start nothing is asked for.
fn overlaps(commits: &[(u32, ObjectCommit)], catalog: &Catalog, listed: &Listed, problems: &mut Vec<String>) {
    // What a manifest lists counts in the place of what records name there.
    let counts =
        |range: &CommitRange| catalog.partition(range.partition).is_some_and(|p| !p.is_folded(range.base, range.last));
    let named = commits.iter().flat_map(|(level, commit)| {
        let ranges = commit.ranges.iter().filter(|range| counts(range));
        ranges.map(|range| Named { level: *level, object: commit.object, range: range.clone() })
    });
    let key = |id: ObjectId| catalog.objects.get(&id).map_or_else(|| id.0.to_string(), |object| object.key.to_string());
    let mut ranges: BTreeMap<PartitionId, Vec<(Offset, Offset, String)>> = BTreeMap::new();
    for (id, base, last, object) in listed.ranges() {
        ranges.entry(id).or_default().push((base, last, key(object)));
    }
    for Named { object, range, .. } in in_force(named.collect()) {
        ranges.entry(range.partition).or_default().push((range.base, range.last, key(object)));
    }
    for (partition, mut ranges) in ranges {
        let Some(log_start) = catalog.partition(partition).map(|p| p.log_start) else { continue };
        ranges.sort();
        for pair in ranges.windows(2) {
            let ((_, last, one), (base, _, other)) = (&pair[0], &pair[1]);
            if base <= last {
                problems.push(format!("{partition}: objects {one} and {other} both hold offset {base}"));
            } else if *base > last.next() && *base > log_start {
                problems.push(format!("{partition}: no object holds offsets {} to {}", last.next(), base.0 - 1));
            }
        }
    }
}
